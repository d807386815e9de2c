"""One world for all pages: samples of everything uncertain, and the points of all GPUs in it.

A sample is one state of the world: the errors of the times and the power of each GPU, its embodied
carbon, the year of the grid, the use of a GPU. All points of a GPU share its errors, and two GPUs
err apart. Ratios, shares and rankings are computed sample by sample, so their intervals and
probabilities are those of the whole chain.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtri

from footprint import Refused, carbon, spec
from footprint.carbon import uncertainty
from footprint.carbon.equation import checked

ZONES = ("CA-QC", "US-CAL-CISO", "US-NW-PACE")
# The dimension is not called `method`, which xarray takes in sel(method=...) for something else.
METHOD = "embodied_method"
ENDS = ("_low", "_high")
DIMS = ("model", "gpu", "engine", "batch", "prompt", "output", "phase")  # of a points Dataset
WORDS = ("model", "gpu", "engine", "phase")
GAPS = {"evidence": "not run", "status": "not run", "dtype": "", "weights": "", "place": ""}


def draw_world(
    gpus: Sequence[str],
    zones: Sequence[str] = ZONES,
    n: int = 2000,
    seed: int = 0,
    embodied_kg: Mapping[str, float] | None = None,
) -> xr.Dataset:
    """n samples of everything uncertain, for these GPUs and zones (dimension sample).

    embodied_kg: kg of GPUs that no table knows. Variables: time_error, power_error (gpu): standard
    normal. embodied_kg (embodied_method, gpu): kg; NaN where a method has no value of a GPU, and
    `embodied_reason` says why. g_per_kwh (zone): lifecycle intensity in one of the table's years,
    the same for all zones. lifetime_years, utilisation, pue: see `sampled_use`. Each variable has a
    random stream of its own, so another GPU or zone changes no number.
    """
    names = [str(name) for name in gpus]
    errors = {
        f"{what}_error": (
            ("gpu", "sample"),
            [ndtri(uncertainty.stream((f"{what} error", name), n, seed)) for name in names],
            {"units": "1"},
        )
        for what in ("time", "power")
    }
    rows = [_embodied(name, n, seed, embodied_kg or {}) for name in names]
    years = grid_years(zones)
    year = (uncertainty.stream(("year", "grid"), n, seed) * years.sizes["year"]).astype(int)
    whole = xr.Dataset(errors, {"gpu": names}).assign(
        embodied_kg=xr.concat(rows, "gpu", coords=["embodied_reason"], join="exact"),
        g_per_kwh=years.isel(year=xr.DataArray(year, dims="sample")).drop_vars("year"),
        **uncertainty.use_draws(n, seed),
    )
    return whole.transpose(METHOD, "gpu", "zone", "sample").assign_attrs(n=n, seed=seed)


def _embodied(gpu: str, n: int, seed: int, given: Mapping[str, float]) -> xr.DataArray:
    """Samples of a GPU's embodied kg (embodied_method, sample), and the reasons of their gaps."""
    rows, reasons = [], []
    names = [name for name, method in carbon.METHODS.items() if method.compared]
    for name in names:
        kg, reason = np.nan, ""
        if gpu in given:
            kg = checked(f"embodied_kg of {gpu}", given[gpu], "kg")
        elif gpu not in spec.gpus():
            reason = f"{gpu} is in no table"
        else:
            try:
                kg, reason = _kilograms(gpu, name, n, seed)
            except Refused as refusal:
                reason = str(refusal)
        rows.append(np.broadcast_to(kg, n))
        reasons.append(reason)
    coords = {METHOD: names, "embodied_reason": (METHOD, reasons)}
    attrs = {"units": "kg", "long_name": "embodied carbon of the GPU"}
    return xr.DataArray(np.stack(rows), coords, (METHOD, "sample"), "embodied_kg", attrs)


def _kilograms(gpu: str, method: str, n: int, seed: int) -> tuple[np.ndarray, str]:
    """kg of a GPU by a method, sampled if the method has a prior, and why they are NaN."""
    if carbon.METHODS[method].prior:
        found = carbon.embodied_draws(gpu, n, seed, method)
    else:
        found = carbon.embodied(gpu, method)["total_kg"]
    return found.values, str(found["embodied_reason"].item())


def sampled_use(world: xr.Dataset) -> carbon.Use:
    """The use of a GPU with lifetime, utilisation and PUE sampled from their priors."""
    return carbon.Use(world["lifetime_years"], world["utilisation"], world["pue"])


def grids(
    zones: Sequence[str] = ZONES, basis: str | Sequence[str] = "lifecycle", year: int = 2023
) -> xr.DataArray:
    """g/kWh of zones in one year; for several bases (`lifecycle`, `direct`) of each basis."""
    bases = [basis] if isinstance(basis, str) else list(basis)
    values = [[spec.grid(zone, year, kind).g_per_kwh for kind in bases] for zone in zones]
    table = xr.DataArray(
        values, {"zone": list(zones), "basis": bases}, name="g_per_kwh", attrs={"units": "g/kWh"}
    )
    return table.isel(basis=0, drop=True) if isinstance(basis, str) else table


def grid_years(zones: Sequence[str] = ZONES) -> xr.DataArray:
    """Lifecycle g/kWh of zones in each year of the table (zone, year)."""
    years = sorted({row["year"] for row in spec.rows("grids") if row["kind"] == "lifecycle"})
    each = [grids(zones, year=year) for year in years]
    return xr.concat(each, xr.Variable("year", years)).transpose("zone", "year")


def grids_of(world: xr.Dataset, zones: Sequence[str]) -> xr.DataArray:
    """Samples of the g/kWh of some zones of a world, or `Refused` for a zone that it lacks."""
    if lost := set(zones) - set(world["zone"].values):
        raise Refused(f"The world has no samples of {min(lost)}; draw it with this zone.")
    return world["g_per_kwh"].sel(zone=list(zones))


def points(measured: xr.Dataset, modelled: xr.Dataset) -> xr.Dataset:
    """One points Dataset of two: a measured point replaces the modelled one of its place and dtype.

    It replaces no other. What a run skipped, since it would not fit, takes the modelled numbers of
    its point away and is not run. A model that was measured in another dtype than it is modelled in
    (on the same GPU and engine) keeps its modelled points, since two dtypes never mix.
    """
    both = {name: [*modelled[name].values, *measured[name].values] for name in DIMS}
    labels = {
        name: list(dict.fromkeys(values if name in WORDS else sorted(values)))
        for name, values in both.items()
    }
    seen, made = _filled(measured, labels), _filled(modelled, labels)
    tried = (seen["evidence"] == "measured") | (seen["status"] == "skipped")
    point = tried & ((seen["dtype"] == made["dtype"]) | (made["dtype"] == ""))
    request, place = point.any("phase"), point.any(["batch", "prompt", "output", "phase"])
    rules = dict.fromkeys(("dtype", "weights", "place", "gain_sd"), place)
    rules |= {"status": request, "idle_W": seen["idle_W"].notnull()}
    chosen = {
        name: xr.where(rules.get(name, point), seen[name], values, keep_attrs=False)
        for name, values in made.items()
    }
    chosen = {name: values.assign_attrs(made[name].attrs) for name, values in chosen.items()}
    whole = xr.Dataset(chosen).transpose(*DIMS).set_coords(list(GAPS))
    return whole.assign(generated=whole["batch"] * whole["output"])


def _filled(part: xr.Dataset, labels: Mapping[str, list]) -> xr.Dataset:
    """The points under these labels; what was not run has no numbers."""
    plain = part.reset_coords(list(GAPS)).drop_vars("generated")
    plain = plain.assign({name: plain[name].astype(object) for name in GAPS})
    return plain.reindex(labels, fill_value=dict.fromkeys(plain, np.nan) | GAPS)


def sampled(points: xr.Dataset, world: xr.Dataset) -> xr.Dataset:
    """Samples of time_s and energy_J of points, log-normal on either side of the value.

    Energy is power x time: the part of its error that the time's explains goes with the time, the
    rest is the power's.
    """
    if lost := set(np.ravel(points["gpu"])) - set(world["gpu"].values):
        raise Refused(f"The world has no samples of {min(lost)}; draw it with this GPU.")
    wrong = world[["time_error", "power_error"]].sel(gpu=points["gpu"])
    with xr.set_options(keep_attrs=False):
        time_sd = {end: points[f"time_s{end}_sd"] for end in ENDS}
        energy_sd = {end: points[f"energy_J{end}_sd"] for end in ENDS}
        shared = {end: np.minimum(time_sd[end], energy_sd[end]) for end in ENDS}
        own = {end: np.sqrt(energy_sd[end] ** 2 - shared[end] ** 2) for end in ENDS}
        of_energy = _sided(wrong["time_error"], shared) + _sided(wrong["power_error"], own)
        time_s = points["time_s"] * np.exp(_sided(wrong["time_error"], time_sd))
        energy_J = points["energy_J"] * np.exp(of_energy)
    return xr.Dataset({"time_s": time_s, "energy_J": energy_J})


def _sided(error: xr.DataArray, sd: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """A standard normal error in units of the standard deviation of its own side."""
    return error * xr.where(error < 0, sd["_low"], sd["_high"])


def tokens(
    points: xr.Dataset,
    world: xr.Dataset,
    use: carbon.Use | None = None,
    *,
    g_per_kwh: xr.DataArray | None = None,
    methods: Sequence[str] | None = None,
    by_phase: bool = False,
) -> xr.Dataset:
    """Samples of what one generated token takes and emits, by zone and embodied_method.

    Variables: token_s, token_J, operational_g (zone), embodied_g (embodied_method). use: five years
    and always busy by default. g_per_kwh: the world's grid (its year sampled) by default, or
    `grids()`. methods: all of the world by default. by_phase keeps prefill and decode apart. The
    coordinate `evidence` is `mixed` where one phase was measured and the other modelled.
    """
    took = sampled(points, world)
    evidence = points["evidence"]
    if not by_phase:
        took = took.sum("phase", skipna=False)
        prefill, decode = evidence.isel(phase=0, drop=True), evidence.isel(phase=1, drop=True)
        evidence = joint_evidence(prefill, decode)
    kg = world["embodied_kg"].sel(gpu=points["gpu"])
    if methods is not None:
        if unknown := set(methods) - set(kg[METHOD].values):
            allowed = ", ".join(kg[METHOD].values)
            raise Refused(f"The method {min(unknown)!r} is unknown here; allowed are {allowed}.")
        kg = kg.sel({METHOD: list(methods)})
    found = carbon.token(
        took["time_s"],
        took["energy_J"],
        points["generated"],
        points["idle_W"],
        kg,
        world["g_per_kwh"] if g_per_kwh is None else g_per_kwh,
        use or carbon.Use(),
    )
    return found.transpose(..., "sample").assign_coords(evidence=evidence.reset_coords(drop=True))


def joint_evidence(first: xr.DataArray, second: xr.DataArray) -> xr.DataArray:
    """The evidence of a number made of two: that of both where it is the same, else `mixed`."""
    return first.where(first == second, "mixed")


def total(tokens: xr.Dataset) -> xr.DataArray:
    """Operational plus embodied grams of a token (zone, embodied_method, sample)."""
    whole = tokens["operational_g"] + tokens["embodied_g"]
    return whole.rename("total_g").assign_attrs(units="g", long_name="carbon of a generated token")


def best_batch(tokens: xr.Dataset, method: str = carbon.MAIN) -> xr.DataArray:
    """The batch with the least mean grams among those that fit; NaN where none fits."""
    mean = total(tokens.sel({METHOD: method}, drop=True)).mean("sample", skipna=False)
    return mean.fillna(np.inf).idxmin("batch").where(mean.notnull().any("batch"))


def intervals(values: xr.DataArray) -> pd.DataFrame:
    """Mean, median, low and high (90 %) of samples as rows, with their evidence if known."""
    table = carbon.summary(values)
    extra = [name for name in table.coords if name not in (*table.dims, "evidence")]
    return table.drop_vars(extra).to_dataframe().reset_index()

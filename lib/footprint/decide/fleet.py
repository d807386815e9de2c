"""The plan of a day for a large service: which cards, where, when, for which model, as a linear programme (HiGHS).

Cards are counted as fractions: among thousands of them the rounding is nothing. Everything here is modelled.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array, eye_array, hstack, kron, vstack

from footprint import Refused, carbon, spec
from footprint.carbon import served, totals
from footprint.carbon import uncertainty as draws
from footprint.carbon.equation import checked
from footprint.predict import model as predict

HOURS, DAY_S = 24, 86400.0
PEAK = 15  # scenario: the local hour at which a region asks most
TIE_KG = 1e-6  # for a million requests moved, or kept waiting an hour: of plans that emit the same, the one that bothers least
MILLION = 1e6  # requests are counted in millions within the programme, so that its numbers are of one size
AXES = ("gpu", "model", "batch")


def lengths() -> tuple[int, int]:
    """Mean prompt and output tokens of a request in the Azure trace of 2023, its two services as frequent as there."""
    columns = ["prompt_tokens", "output_tokens"]
    rows = pd.DataFrame(spec.table("azure_lengths")).astype(dict.fromkeys(columns, int))
    requests = {row["service"]: int(row["requests"]) for row in spec.table("azure_services")}
    means = rows.groupby("service")[columns].mean().loc[list(requests)]
    prompt, output = np.average(means, axis=0, weights=list(requests.values()))
    return round(prompt), round(output)


def demand(
    per_day: float, models: Sequence[str], zones: Sequence[str] = totals.ZONES, swing: float = 0.5
) -> xr.DataArray:
    """Requests by hour of the day in UTC, zone and model: alike for zones and models, each as its clock goes.

    The trace covers less than an hour, so its course over the day is a scenario: 1 + swing x cos, the most at PEAK o'clock.
    """
    whole = checked("per_day", per_day, "1", above=True)
    swing = checked("swing", swing, "1", most=1)
    hour = xr.DataArray(np.arange(HOURS), {"hour": np.arange(HOURS)}, ["hour"])
    offset = xr.DataArray(
        [spec.utc_offset_h(zone) for zone in zones], {"zone": list(zones)}, ["zone"]
    )
    shape = 1 + swing * np.cos(2 * np.pi * (hour + offset - PEAK) / HOURS)
    each = shape / HOURS * whole / len(zones) / len(models)
    return (
        each.expand_dims(model=list(models))
        .transpose("hour", "zone", "model")
        .assign_attrs(units="1/h")
    )


def service(
    models: Sequence[str],
    gpus: Sequence[str] | None = None,
    *,
    batch: Sequence[int],
    prompt: int,
    output: int,
    ttft_s: float = np.inf,
    tpot_s: float = np.inf,
    engine: str = "serving",
    dtype: str = "fp16",
) -> xr.Dataset:
    """What each configuration (model, gpu, batch) takes, as of `served.predicted`; NaN where it does not fit or is too slow.

    A model that no card can serve is `Refused` in a sentence that names the limit that binds.
    """
    asked = {
        "batch": list(batch),
        "prompt": [prompt],
        "output": [output],
        "engine": [engine],
        "dtype": dtype,
    }
    cards = spec.gpus() if gpus is None else list(gpus)
    windows = predict.windows(list(models), cards, **asked).isel(prompt=0, output=0, engine=0)
    fine = windows["fits"]
    for what, keeps in (
        ("memory", True),
        (f"the time to first token of {ttft_s:g} s", windows["ttft_s"] <= ttft_s),
        (f"the time per output token of {tpot_s:g} s", windows["tpot_s"] <= tpot_s),
    ):
        fine = fine & keeps
        if lost := [str(name) for name in fine.model.values if not fine.sel(model=name).any()]:
            raise Refused(f"No card in the plan serves {', '.join(lost)}: {what} binds.")
    points = served.predicted(windows)
    return points.assign({name: points[name].where(fine) for name in served.QUANTITIES})


def plan(
    asked: xr.DataArray,
    points: xr.Dataset,
    intensity: xr.DataArray,
    *,
    moves: float = 0.0,
    waits: float = 0.0,
    wait_h: int = 0,
    most: xr.DataArray | None = None,
    approach: str = totals.MAIN,
    lifetime_years: float = totals.YEARS,
    pue: float = 1.0,
    idle: float = 1.0,
) -> xr.Dataset:
    """The plan of least carbon that serves all that is asked, on a day that repeats itself.

    asked: from `demand`, (hour, zone, model); points: from `service`; intensity: g/kWh (hour, zone). moves: the share of a
    region's requests that other regions may serve; waits: the share that may wait, up to wait_h hours. most: cards at hand
    (zone, gpu), without limit by default. A card that is bought is charged a day of its making over lifetime_years and,
    when it is not busy, the share `idle` of its idle power (0: switched off). Variables: busy cards (hour, zone, gpu, model,
    batch), cards (zone, gpu), sent requests (hour, zone, model, wait_h, to), operational_kg and embodied_kg (zone); attrs:
    the use, and columns, rows and nonzeros of the programme. A demand beyond the cards at hand is `Refused` with the share
    of it that they carry.
    """
    given = {"moves": moves, "waits": waits, "idle": idle}
    *shares, kept = (checked(name, value, "1", most=1) for name, value in given.items())
    if wait_h != int(wait_h) or not 0 <= wait_h < HOURS:
        raise Refused(
            f"wait_h = {wait_h} is refused; whole hours from 0 to {HOURS - 1} are allowed."
        )
    asked, points = asked.transpose("hour", "zone", "model"), points.sel(model=asked.model)
    options, sizes = _options(points), (*asked.shape, int(wait_h) + 1)
    made = (
        totals.card_kg(points.gpu.values, [approach])[0].mean("draw").values
        * DAY_S
        / draws.YEAR_S
        / lifetime_years
    )
    grams = carbon.operational(
        3600.0, intensity.sel(zone=asked.zone).transpose("hour", "zone").values, pue
    )  # of a watt-hour
    rests = points["idle_W"].values * kept
    extra = (
        options["watts"].values - rests[options["gpu"]]
    )  # what being busy adds to a card that is there
    costs = [
        np.multiply.outer(grams / 1000, extra),
        np.multiply.outer(grams.sum(axis=0) / 1000, rests) + made,
        np.broadcast_to(_bother(sizes[1], sizes[3]), (*sizes, sizes[1])),
    ]
    if not all(np.isfinite(cost).all() for cost in costs):
        raise Refused(
            "The intensity of every hour and the idle power of every card must be known for a plan."
        )
    tops = [np.full(cost.shape, np.inf) for cost in costs]
    if most is not None:
        tops[1] = most.sel(zone=asked.zone, gpu=points.gpu).transpose("zone", "gpu").values
    matrices = _matrices(options, len(rests), sizes, asked.values.ravel() / MILLION, shares)
    flat = _solved(
        *(np.concatenate([part.ravel() for part in parts]) for parts in (costs, tops)), *matrices
    )
    parts = np.split(flat, np.cumsum([cost.size for cost in costs])[:-1])
    busy, cards, sent = (part.reshape(cost.shape) for part, cost in zip(parts, costs, strict=True))
    equal, below = matrices[::2]
    about = {
        "approach": approach,
        "lifetime_years": lifetime_years,
        "pue": pue,
        "idle": kept,
        "columns": len(flat),
        "rows": equal.shape[0] + below.shape[0],
        "nonzeros": equal.nnz + below.nnz,
    }
    found = _labelled(options, asked, points, busy, cards, sent).assign_attrs(about)
    kg = {
        "operational_kg": (grams / 1000 * (busy @ extra + cards @ rests)).sum(axis=0),
        "embodied_kg": cards @ made,
    }
    return found.assign({name: ("zone", values, {"units": "kg"}) for name, values in kg.items()})


def _bother(zones: int, waits: int) -> np.ndarray:
    """What a million requests are charged for going elsewhere or later (zone, model, wait, to), all models alike."""
    away = ~np.eye(zones, dtype=bool)
    return TIE_KG * (np.arange(waits)[:, None] + away[:, None, None, :])


def _labelled(options: pd.DataFrame, asked, points, busy, cards, sent) -> xr.Dataset:
    """The three groups of columns under the names of what they count."""
    dense = np.zeros((*busy.shape[:2], *(points.sizes[name] for name in AXES)))
    dense[:, :, options["gpu"], options["model"], options["batch"]] = busy
    data = {
        "busy": (("hour", "zone", *AXES), dense, {"units": "cards"}),
        "cards": (("zone", "gpu"), cards, {"units": "cards"}),
        "sent": (("hour", "zone", "model", "wait_h", "to"), sent * MILLION, {"units": "1/h"}),
    }
    coords = {name: points[name].values for name in AXES} | {
        name: asked[name].values for name in ("hour", "zone")
    }
    return xr.Dataset(data, coords | {"wait_h": np.arange(sent.shape[3]), "to": asked.zone.values})


def _options(points: xr.Dataset) -> pd.DataFrame:
    """Configurations that serve: positions of gpu, model and batch, millions of requests an hour, watts when busy."""
    time, joules = (
        points[name].sum("phase", skipna=False).transpose(*AXES).values
        for name in served.QUANTITIES
    )
    at = np.nonzero(np.isfinite(time))
    rate = points.batch.values[at[2]] * 3600 / time[at] / MILLION
    return pd.DataFrame(
        dict(zip(AXES, at, strict=True)) | {"rate": rate, "watts": joules[at] / time[at]}
    )


def _matrices(
    options: pd.DataFrame, cards: int, sizes: tuple, asked: np.ndarray, shares: list[float]
) -> tuple:
    """Equalities and inequalities over busy cards, cards and requests sent, as (A_eq, b_eq, A_ub, b_ub)."""
    hours, zones, models, _ = sizes
    count, places = len(options), hours * zones
    hour, zone, model, wait, to = (index.ravel() for index in np.indices((*sizes, zones)))
    cell = (hour * zones + zone) * models + model  # where a request is asked
    goal = (((hour + wait) % hours) * zones + to) * models + model  # where it is served
    columns, cells = np.arange(len(cell)), places * models

    def of_sent(rows, chosen=slice(None)):
        """Sums over the requests sent, or over some of them."""
        at = rows[chosen], columns[chosen]
        return csr_array((np.ones(len(at[0])), at), shape=(cells, len(columns)))

    served_by = coo_array(
        (options["rate"], (options["model"], np.arange(count))), shape=(models, count)
    )
    on = coo_array((np.ones(count), (options["gpu"], np.arange(count))), shape=(cards, count))
    each, none = eye_array(places), csr_array
    rest = none((cells, places * count + zones * cards))
    equal = vstack(
        [
            hstack([kron(each, served_by), none((cells, zones * cards)), -of_sent(goal)]),
            hstack([rest, of_sent(cell)]),
        ]
    )
    owned = kron(np.ones((hours, 1)), eye_array(zones * cards))
    limits = [hstack([kron(each, on), -owned, none((places * cards, len(columns)))])]
    limits += [hstack([rest, of_sent(cell, chosen)]) for chosen in (zone != to, wait > 0)]
    bounds = np.concatenate([np.zeros(places * cards), *(share * asked for share in shares)])
    return (
        csr_array(equal),
        np.concatenate([np.zeros(cells), asked]),
        csr_array(vstack(limits)),
        bounds,
    )


def _solved(cost, tops, equal, values, below, bounds) -> np.ndarray:
    """The optimum; where there is none, `Refused` with the largest share of the demand that the cards at hand carry."""
    limits = np.stack([np.zeros_like(tops), tops], axis=1)
    found = linprog(cost, below, bounds, equal, values, limits, method="highs")
    if found.status == 0:
        return np.maximum(found.x, 0)  # HiGHS keeps its bounds to within a tolerance
    # The same programme with the demand as a variable: every right-hand side is proportional to it.
    below, equal = (
        hstack([side, csr_array(-right[:, None])])
        for side, right in ((below, bounds), (equal, values))
    )
    goal, limits = np.append(np.zeros_like(cost), -1.0), np.vstack([limits, [0, 1]])
    most = linprog(
        goal, below, np.zeros_like(bounds), equal, np.zeros_like(values), limits, method="highs"
    )
    raise Refused(f"The cards at hand bind: they carry at most {-most.fun:.1%} of the demand.")


def replay(
    found: xr.Dataset, points: xr.Dataset, intensity: xr.DataArray, n: int = 500, seed: int = 0
) -> xr.Dataset:
    """A plan in other states of the world: operational_kg and embodied_kg (draw) of the same requests on the same cards.

    Each draw is off in the times and the power of each card and in its making, as in `totals`; the requests of each card,
    hour and batch stay, and as many cards are there as its busiest hour then takes. The grid is not drawn.
    """
    use, medians = found.attrs, points["time_s"].sum("phase", skipna=False)
    took = served.drawn(points, n, seed).sum("phase", skipna=False).drop_attrs()
    slower, watts = (
        (took["time_s"] / medians).fillna(0),
        (took["energy_J"] / took["time_s"]).fillna(0),
    )
    busy, works = (
        xr.dot(found["busy"].drop_attrs(), rate, dim=["model", "batch"])
        for rate in (slower, slower * watts)
    )
    cards = busy.max("hour")
    joules = 3600 * (works + (cards - busy) * use["idle"] * points["idle_W"].drop_attrs())
    made = totals.card_kg(points.gpu.values, [use["approach"]], n, seed)[0]
    grams = {
        "operational_kg": carbon.operational(joules, intensity, use["pue"]).sum(
            ["hour", "zone", "gpu"]
        ),
        "embodied_kg": carbon.amortised(made, cards * DAY_S, use["lifetime_years"]).sum(
            ["zone", "gpu"]
        ),
    }
    kg = {
        name: (value / 1000).drop_attrs().assign_attrs(units="kg") for name, value in grams.items()
    }
    return xr.Dataset(kg).reset_coords(drop=True)

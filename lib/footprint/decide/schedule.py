"""The daily plan of a service: which GPUs, where, when, for which model; a linear programme.

GPUs are counted as fractions, since rounding is nothing among thousands. All is modelled.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array, eye_array, hstack, kron, vstack

from footprint import Refused, carbon, spec
from footprint.carbon.equation import checked
from footprint.decide.breakeven import ALONE, DAY_S
from footprint.decide.search import Request, decode_steps, keep
from footprint.decide.world import ZONES, sampled

HOURS, HOUR_S = 24, 3600.0
PEAK = 15  # scenario: the local hour at which a region asks most
TIE_KG = 1e-6  # tie-breaking cost of a million requests moved, or kept waiting an hour
MILLION = 1e6  # the programme counts requests in millions, so that its numbers are of one size
AXES = ("gpu", "model", "batch")


@dataclass(frozen=True)
class Freedom:
    """What a plan may do with requests and GPUs.

    moves: the share of a region's requests that other regions may serve. waits: the share that may
    wait, up to wait_h hours. idle: the share of its idle power that a GPU draws when it is not busy
    (0: switched off). gpus: GPUs at hand (zone, gpu), without limit by default.
    """

    moves: float = 0.0
    waits: float = 0.0
    wait_h: int = 0
    idle: float = 1.0
    gpus: xr.DataArray | None = None

    def __post_init__(self):
        for name in ("moves", "waits", "idle"):
            checked(name, getattr(self, name), "1", most=1)
        if self.wait_h != int(self.wait_h) or not 0 <= self.wait_h < HOURS:
            raise Refused(
                f"wait_h = {self.wait_h} is refused; whole hours from 0 to {HOURS - 1} are allowed."
            )


def mean_request(**limits) -> Request:
    """A request of the mean lengths in the Azure trace of 2023, both services weighed as there."""
    columns = ["prompt_tokens", "output_tokens"]
    rows = pd.DataFrame(spec.table("azure_lengths")).astype(dict.fromkeys(columns, int))
    requests = {row["service"]: int(row["requests"]) for row in spec.table("azure_services")}
    means = rows.groupby("service")[columns].mean().loc[list(requests)]
    prompt, output = np.average(means, axis=0, weights=list(requests.values())).round()
    return Request(int(prompt), int(output), engine="serving", **limits)


def demand(
    per_day: float, models: Sequence[str], zones: Sequence[str] = ZONES, swing: float = 0.5
) -> xr.DataArray:
    """Requests by hour of the day in UTC, zone and model: alike for all, each zone by its clock.

    The trace covers less than an hour, so the course of the day is a scenario: 1 + swing x cos,
    highest at PEAK o'clock.
    """
    whole = checked("per_day", per_day, "1", above=True)
    swing = checked("swing", swing, "1", most=1)
    labels = {"hour": np.arange(HOURS), "zone": list(zones), "model": list(models)}
    offset = np.array([spec.utc_offset_h(zone) for zone in zones])
    hour = labels["hour"][:, None] + offset
    each = (1 + swing * np.cos(2 * np.pi * (hour - PEAK) / HOURS)) / HOURS * whole
    each = each / len(zones) / len(models)
    values = np.repeat(each[:, :, None], len(models), axis=2)
    return xr.DataArray(values, labels, attrs={"units": "1/h"})


def configurations(
    models: Sequence[str], request: Request, gpus: Sequence[str] | None = None
) -> xr.Dataset:
    """The points (model, gpu, batch) of a request; NaN where one does not fit or is too slow.

    A model that no GPU can serve is `Refused` by the limit that binds (at the medians).
    """
    points = request.points(list(models), spec.gpus() if gpus is None else list(gpus))
    points = points.isel(engine=0, prompt=0, output=0)
    first = points["time_s"].sel(phase="prefill", drop=True)
    step = points["time_s"].sel(phase="decode", drop=True) / decode_steps(points)
    fine = points["status"] == "ok"
    limits = {
        "memory": fine,
        f"the time to first token of {request.ttft_s:g} s": first <= request.ttft_s,
        f"the time per output token of {request.tpot_s:g} s": step <= request.tpot_s,
    }
    for what, kept in limits.items():
        fine = fine & kept
        lost = fine["model"].values[~fine.any(["gpu", "batch"]).values]
        if lost.size:
            raise Refused(f"No GPU in the plan serves {', '.join(lost)}: {what} binds.")
    return keep(points, fine)


def plan(
    asked: xr.DataArray,
    points: xr.Dataset,
    intensity: xr.DataArray,
    world: xr.Dataset,
    use: carbon.Use = ALONE,
    freedom: Freedom | None = None,
    method: str = carbon.MAIN,
) -> xr.Dataset:
    """The plan of least carbon that serves all that is asked, on a day that repeats itself.

    asked: from `demand`, (hour, zone, model); points: from `configurations`; intensity: g/kWh
    (hour, zone). Each GPU is charged a day of its embodied carbon (the samples' mean) over its
    lifetime. Variables: busy GPUs (hour, zone, gpu, model, batch), gpus (zone, gpu), sent requests
    (hour, zone, model, wait_h, to), operational_kg and embodied_kg (zone); attrs: method, use and
    idle, and the size of the programme. A demand beyond the GPUs at hand is `Refused` with the
    share that they carry.
    """
    freedom = freedom or Freedom()
    asked, points = asked.transpose("hour", "zone", "model"), points.sel(model=asked["model"])
    options = _options(points)
    kg = world["embodied_kg"].sel(gpu=points["gpu"], embodied_method=method).mean("sample")
    day_kg = carbon.amortised(kg.values + use.host_kg, DAY_S, use.lifetime_years) / 1000
    intensity = intensity.sel(zone=asked["zone"]).transpose("hour", "zone").values
    per_Wh = carbon.operational(3600.0, intensity, use.pue) / 1000  # kg
    rests = points["idle_W"].values * freedom.idle
    extra = options["watts"].values + use.host_W - rests[options["gpu"]]  # what being busy adds
    sent = (*asked.shape, int(freedom.wait_h) + 1, asked.sizes["zone"])
    costs = {
        "busy": np.multiply.outer(per_Wh, extra),
        "gpus": np.multiply.outer(per_Wh.sum(axis=0), rests) + day_kg,
        "sent": np.broadcast_to(_tie_break(sent), sent),
    }
    if not all(np.isfinite(cost).all() for cost in costs.values()):
        raise Refused(
            "The intensity of every hour, and the idle power and embodied carbon of every GPU "
            "must be known for a plan."
        )
    tops = {name: np.full(cost.shape, np.inf) for name, cost in costs.items()}
    if freedom.gpus is not None:
        limit = freedom.gpus.sel(zone=asked["zone"], gpu=points["gpu"])
        tops["gpus"] = limit.transpose("zone", "gpu").values
    programme = _programme(options, len(rests), sent, asked.values.ravel() / MILLION, freedom)
    flat = _solved(_flat(costs), _flat(tops), programme)
    pieces = np.split(flat, np.cumsum([cost.size for cost in costs.values()])[:-1])
    parts = {
        name: piece.reshape(costs[name].shape) for name, piece in zip(costs, pieces, strict=True)
    }
    busy, gpus = parts["busy"], parts["gpus"]
    operational_kg = (per_Wh * (busy @ extra + gpus @ rests)).sum(axis=0)
    sides = [programme["A_eq"], programme["A_ub"]]
    size = {
        "rows": sum(side.shape[0] for side in sides),
        "nonzeros": sum(side.nnz for side in sides),
    }
    about = {"method": method, "idle": freedom.idle, "columns": len(flat)} | size | asdict(use)
    sums = {"operational_kg": operational_kg, "embodied_kg": gpus @ day_kg}
    sums = {name: ("zone", values, {"units": "kg"}) for name, values in sums.items()}
    return _labelled(options, asked, points, parts).assign(sums).assign_attrs(about)


def _flat(parts: dict[str, np.ndarray]) -> np.ndarray:
    """All groups of columns as one row."""
    return np.concatenate([part.ravel() for part in parts.values()])


def _tie_break(sent: tuple[int, ...]) -> np.ndarray:
    """kg for a million requests moved or late (zone, model, wait, to): equal plans do neither."""
    _, zones, _, waits, _ = sent
    away = ~np.eye(zones, dtype=bool)
    return TIE_KG * (np.arange(waits)[:, None] + away[:, None, None, :])


def _labelled(options: pd.DataFrame, asked, points, parts: dict) -> xr.Dataset:
    """The three groups of columns under the names of what they count."""
    busy, sent = parts["busy"], parts["sent"]
    dense = np.zeros((*busy.shape[:2], *[points.sizes[name] for name in AXES]))
    dense[:, :, options["gpu"], options["model"], options["batch"]] = busy
    data = {
        "busy": (("hour", "zone", *AXES), dense, {"units": "GPUs"}),
        "gpus": (("zone", "gpu"), parts["gpus"], {"units": "GPUs"}),
        "sent": (("hour", "zone", "model", "wait_h", "to"), sent * MILLION, {"units": "1/h"}),
    }
    coords = {name: points[name].values for name in AXES}
    coords |= {"hour": asked["hour"].values, "zone": asked["zone"].values}
    return xr.Dataset(data, coords | {"wait_h": np.arange(sent.shape[3]), "to": coords["zone"]})


def _options(points: xr.Dataset) -> pd.DataFrame:
    """Configurations that serve: positions, millions of requests an hour, watts when busy."""
    whole = points[["time_s", "energy_J"]].sum("phase", skipna=False).transpose(*AXES)
    time, joules = whole["time_s"].values, whole["energy_J"].values
    at = np.nonzero(np.isfinite(time))
    table = pd.DataFrame(dict(zip(AXES, at, strict=True)))
    rate = points["batch"].values[table["batch"]] * HOUR_S / time[at] / MILLION
    return table.assign(rate=rate, watts=joules[at] / time[at])


def _programme(
    options: pd.DataFrame, gpus: int, sent: tuple[int, ...], asked: np.ndarray, freedom: Freedom
) -> dict:
    """What `linprog` takes: constraints over busy GPUs, GPUs and requests sent."""
    hours, zones, models, _, _ = sent
    count, places, cells = len(options), hours * zones, hours * zones * models
    hour, zone, model, wait, to = np.indices(sent).reshape(len(sent), -1)
    cell = (hour * zones + zone) * models + model  # where a request is asked
    goal = (((hour + wait) % hours) * zones + to) * models + model  # where it is served
    columns = np.arange(len(cell))

    def of_sent(rows, chosen=slice(None)):
        """Sums over the requests sent, or over some of them."""
        at = rows[chosen], columns[chosen]
        return csr_array((np.ones(len(at[0])), at), shape=(cells, len(columns)))

    option = np.arange(count)
    served = coo_array((options["rate"], (options["model"], option)), shape=(models, count))
    on = coo_array((np.ones(count), (options["gpu"], option)), shape=(gpus, count))
    each = eye_array(places)
    rest = csr_array((cells, places * count + zones * gpus))
    all_served = hstack([kron(each, served), csr_array((cells, zones * gpus)), -of_sent(goal)])
    all_sent = hstack([rest, of_sent(cell)])
    owned = kron(np.ones((hours, 1)), eye_array(zones * gpus))
    enough = hstack([kron(each, on), -owned, csr_array((places * gpus, len(columns)))])
    moved = hstack([rest, of_sent(cell, zone != to)])
    late = hstack([rest, of_sent(cell, wait > 0)])
    bounds = [np.zeros(places * gpus), freedom.moves * asked, freedom.waits * asked]
    return {
        "A_eq": csr_array(vstack([all_served, all_sent])),
        "b_eq": np.concatenate([np.zeros(cells), asked]),
        "A_ub": csr_array(vstack([enough, moved, late])),
        "b_ub": np.concatenate(bounds),
    }


def _solved(cost: np.ndarray, tops: np.ndarray, programme: dict) -> np.ndarray:
    """The optimum, or `Refused` with the largest share of the demand that the GPUs carry."""
    limits = np.stack([np.zeros_like(tops), tops], axis=1)
    found = linprog(cost, **programme, bounds=limits, method="highs")
    if found.status == 0:
        return np.maximum(found.x, 0)  # HiGHS keeps its bounds to within a tolerance
    # The same programme with the demand as a variable: every right-hand side is proportional to it.
    wider = {}
    for end in ("ub", "eq"):
        right = programme[f"b_{end}"]
        wider[f"A_{end}"] = hstack([programme[f"A_{end}"], csr_array(-right[:, None])])
        wider[f"b_{end}"] = np.zeros_like(right)
    goal, limits = np.append(np.zeros_like(cost), -1.0), np.vstack([limits, [0, 1]])
    most = linprog(goal, **wider, bounds=limits, method="highs")
    raise Refused(f"The GPUs at hand bind: they carry at most {-most.fun:.1%} of the demand.")


def replay(
    day: xr.Dataset, points: xr.Dataset, intensity: xr.DataArray, world: xr.Dataset
) -> xr.Dataset:
    """A plan in all samples of the world: operational_kg and embodied_kg (sample).

    Times, power and embodied carbon of each GPU are off as in the sample; each GPU, hour and batch
    keeps its requests, and as many GPUs are there as its busiest hour then needs. The grid is not
    sampled.
    """
    use = day.attrs
    busy_s = points["time_s"].sum("phase", skipna=False).drop_attrs()
    took = sampled(points, world).sum("phase", skipna=False)
    slower = (took["time_s"] / busy_s).fillna(0)
    watts = (took["energy_J"] / took["time_s"] + use["host_W"]).fillna(0)
    planned = day["busy"].drop_attrs()
    busy = xr.dot(planned, slower, dim=["model", "batch"])
    works = xr.dot(planned, slower * watts, dim=["model", "batch"])
    gpus = busy.max("hour")
    joules = HOUR_S * (works + (gpus - busy) * use["idle"] * points["idle_W"].drop_attrs())
    kg = world["embodied_kg"].sel(gpu=points["gpu"], embodied_method=use["method"], drop=True)
    kg = (kg + use["host_kg"]).reset_coords(drop=True).drop_attrs()
    operational_g = carbon.operational(joules, intensity, use["pue"]).sum(["hour", "zone", "gpu"])
    embodied_g = carbon.amortised(kg, gpus * DAY_S, use["lifetime_years"]).sum(["zone", "gpu"])
    whole = xr.Dataset({"operational_kg": operational_g, "embodied_kg": embodied_g})
    whole = whole.reset_coords(drop=True).drop_attrs() / 1000
    return whole.map(lambda values: values.assign_attrs(units="kg"))

"""What serving a request takes, prefill and decode side by side: time and energy of each card, as points and as draws.

A draw is one state of the world: how far the times and the power of a card are off. All points of a card share its draw,
and two cards err apart.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtri

from footprint import Refused, spec
from footprint.carbon import uncertainty as draws
from footprint.energy import findings
from footprint.predict import model as predict
from footprint.predict import roofline

PHASES = ["prefill", "decode"]
QUANTITIES, ENDS = ("time_s", "energy_J"), ("_low", "_high")
KEYS = {
    "model": "model",
    "device": "gpu",
    "batch": "batch",
    "prompt_tokens": "prompt",
    "output_tokens": "output",
}


def requests(pairs: pd.DataFrame) -> xr.Dataset:
    """The points of `findings.six_pairs` as a Dataset: (model, gpu, batch, prompt, output, phase), phases side by side.

    time_s and energy_J of one batch, and the standard deviations of their logarithms below and above (`_low_sd`,
    `_high_sd`); `kind` (model, gpu), `status` of the point, `generated` tokens of the batch. A point that did not fit, or
    was not run, is NaN.
    """
    rows = pairs[pairs["phase"].isin(PHASES) & (pairs["lengths"] == "grid")]
    if rows["engine"].nunique() != 1:
        raise Refused(
            f"The points are of the engines {', '.join(sorted(set(rows['engine']))) or 'none'}; those of one are allowed."
        )
    rows = rows.sort_values(
        "place", ascending=False, kind="stable"
    )  # this machine's own run before the committed one
    rows = rows.rename(columns=KEYS).drop_duplicates([*KEYS.values(), "phase"])
    half = ndtri((1 + rows["kind"].map(findings.LEVEL)) / 2)
    for name in QUANTITIES:
        for end in ENDS:
            rows[f"{name}{end}_sd"] = np.abs(np.log(rows[f"{name}{end}"] / rows[name])) / half
    columns = [*QUANTITIES, *(f"{name}{end}_sd" for name in QUANTITIES for end in ENDS), "status"]
    cube = rows.set_index([*KEYS.values(), "phase"])[columns].to_xarray()
    order = {
        name: list(dict.fromkeys(pairs[column]))
        for column, name in (("model", "model"), ("device", "gpu"))
    }
    kept = {
        name: [item for item in items if item in cube[name].values] for name, items in order.items()
    }
    cube = cube.reindex(**kept, phase=PHASES)
    kinds = rows.groupby(["model", "gpu"])["kind"].first().to_xarray().reindex(**kept)
    status = cube["status"].fillna("not run").isel(phase=1, drop=True)
    return _about(
        cube.drop_vars("status").assign_coords(kind=kinds.fillna("not run"), status=status)
    )


def common(points: xr.Dataset) -> xr.Dataset:
    """The points of one length of prompt and output: the shortest that most of the points were run at."""
    ran = (
        points["time_s"]
        .notnull()
        .all("phase")
        .sum(["model", "gpu", "batch"])
        .stack(length=("prompt", "output"))
    )
    best = ran.isel(length=int(ran.argmax("length")))
    return points.sel(prompt=best.prompt.item(), output=best.output.item())


def predicted(windows: xr.Dataset) -> xr.Dataset:
    """The same Dataset from `predict.windows`; configurations that do not fit are NaN."""
    half = ndtri(0.95)
    phases = []
    for phase, time, steps in (("prefill", "ttft_s", 1), ("decode", "tpot_s", windows.output - 1)):
        one = {"time_s": windows[time] * steps, "energy_J": windows[f"{phase}_energy_J"]}
        for name, source in (("time_s", time), ("energy_J", f"{phase}_energy_J")):
            for end in ENDS:
                one[f"{name}{end}_sd"] = (
                    np.abs(np.log(windows[f"{source}{end}"] / windows[source])) / half
                )
        phases.append(xr.Dataset(one).where(windows["fits"]))
    cube = xr.concat(phases, xr.Variable("phase", PHASES))
    status = xr.where(windows["fits"], "ok", "oom")
    return _about(
        cube.assign_coords(kind=xr.full_like(windows.gpu, "modelled", dtype=object), status=status)
    )


def _about(cube: xr.Dataset) -> xr.Dataset:
    """Units, the tokens that a batch generates, and each card's idle power."""
    for name, units, meaning in (
        ("time_s", "s", "time of a phase"),
        ("energy_J", "J", "energy of a phase"),
    ):
        cube[name].attrs = {"units": units, "long_name": f"{meaning}, the whole batch"}
    idle = xr.DataArray(
        [idle_W(str(name)) for name in cube.gpu.values], {"gpu": cube.gpu}, attrs={"units": "W"}
    )
    return cube.assign(generated=cube.batch * cube.output, idle_W=idle)


def idle_W(gpu: str) -> float:
    """A card's idle power: as published, or modelled by `predict` where nobody published it."""
    if gpu not in spec.gpus():
        return np.nan
    return roofline.idle_W(predict.parameters(), spec.gpu(gpu))


def errors(gpus: Sequence[str], n: int, seed: int) -> xr.Dataset:
    """Standard normal errors of each card's times and power (gpu, draw), from streams of their own."""
    found = {
        name: (
            ("gpu", "draw"),
            np.stack([ndtri(draws.stream((f"{name} error", str(gpu)), n, seed)) for gpu in gpus]),
        )
        for name in ("time", "power")
    }
    return xr.Dataset(found, {"gpu": list(gpus)})


def drawn(points: xr.Dataset, n: int = 2000, seed: int = 0) -> xr.Dataset:
    """Draws of time_s and energy_J of each phase of a batch: log-normal on either side of the point, as its interval is.

    Energy is power x time: the part of its error that the time's explains goes with the time, the rest is the power's.
    """
    wrong = errors(points.gpu.values, n, seed)
    shared = {
        end: np.minimum(points[f"time_s{end}_sd"], points[f"energy_J{end}_sd"]) for end in ENDS
    }
    own = {end: np.sqrt(points[f"energy_J{end}_sd"] ** 2 - shared[end] ** 2) for end in ENDS}
    time = points["time_s"] * np.exp(
        _split(wrong["time"], *(points[f"time_s{end}_sd"] for end in ENDS))
    )
    power = _split(wrong["power"], *own.values())
    return xr.Dataset(
        {
            "time_s": time,
            "energy_J": points["energy_J"]
            * np.exp(_split(wrong["time"], *shared.values()) + power),
        }
    )


def _split(error: xr.DataArray, low_sd, high_sd) -> xr.DataArray:
    """A standard normal error in units of the standard deviation of its own side."""
    return error * xr.where(error < 0, low_sd, high_sd)

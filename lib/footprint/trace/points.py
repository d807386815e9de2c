"""The points: time and energy of every model, GPU, engine and shape in one Dataset."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from scipy.special import ndtri

from footprint import Refused
from footprint.trace.schema import RUN_STATUS, WINDOW_STATUS

EVIDENCE = ("measured", "modelled", "not run")
STATUS = tuple(dict.fromkeys((*WINDOW_STATUS, *RUN_STATUS, "not run")))
PHASES = ("prefill", "decode")
PLACE = ("model", "gpu", "engine")
SHAPE = ("batch", "prompt", "output")
DIMS = (*PLACE, *SHAPE, "phase")

# Dimensions: name -> meaning.
AXES = {
    "model": "id of the model",
    "gpu": "id of the GPU",
    "engine": "engine as the model calls it: eager, graphs or serving",
    "batch": "sequences side by side",
    "prompt": "tokens of each prompt",
    "output": "tokens generated for each sequence",
    "phase": "prefill (gives the first token) or decode (all other tokens)",
}
# Variables: name -> (dimensions, units, meaning), for one iteration and the whole batch.
VALUES = {
    "time_s": (DIMS, "s", "time of the phase for the whole batch"),
    "energy_J": (DIMS, "J", "energy of the GPU in the phase for the whole batch, idle included"),
    "time_s_low_sd": (DIMS, "1", "standard deviation of ln(time) towards lower values"),
    "time_s_high_sd": (DIMS, "1", "standard deviation of ln(time) towards higher values"),
    "energy_J_low_sd": (DIMS, "1", "standard deviation of ln(energy) towards lower values"),
    "energy_J_high_sd": (DIMS, "1", "standard deviation of ln(energy) towards higher values"),
    "gain_sd": (
        PLACE,
        "1",
        "the part of the energy's deviations that all measured points of the place share: "
        "it cancels in their ratios; 0 for a modelled place",
    ),
    "idle_W": (("gpu",), "W", "power of the GPU at rest"),
    "generated": (("batch", "output"), "1", "tokens that one iteration generates: batch x output"),
}
# Coordinates, all text: name -> (dimensions, meaning).
LABELS = {
    "evidence": (DIMS, ", ".join(EVIDENCE)),
    "status": ((*PLACE, *SHAPE), "how the runs of the point ended: ok, oom, ... or not run"),
    "dtype": (PLACE, "number format of weights and activations"),
    "weights": (PLACE, "trained or random"),
    "place": (PLACE, "where the numbers come from: committed, this machine or predicted"),
}
BOUNDED = ("time_s", "energy_J")
LEVEL = 0.90  # of the intervals that are shown


def build_points(axes: Mapping, values: Mapping) -> xr.Dataset:
    """The checked points Dataset from its axes and the arrays of its variables and coordinates.

    axes: the labels of model, gpu, engine, batch, prompt and output. values: a DataArray, or an
    array that broadcasts to the variable's shape, for each name of `VALUES` and `LABELS`;
    `generated` is filled in, and `gain_sd` is 0 if left out. Raises `Refused` for what
    `check_points` refuses.
    """
    coords = {dim: list(PHASES) if dim == "phase" else list(axes[dim]) for dim in DIMS}
    generated = np.outer(coords["batch"], coords["output"])
    given = {"gain_sd": 0.0, **values, "generated": generated}
    unknown = given.keys() - VALUES.keys() - LABELS.keys()
    if unknown:
        raise Refused(f"The points have no variable {min(unknown)!r}.")
    data = xr.Dataset(coords=coords)
    for name, (dims, *_) in (VALUES | LABELS).items():
        if name not in given:
            raise Refused(f"The variable {name} of the points is missing.")
        data[name] = (dims, _shaped(name, given[name], {dim: coords[dim] for dim in dims}))
    for name, (_, units, meaning) in VALUES.items():
        data[name].attrs = {"units": units, "long_name": meaning}
    for name, meaning in (AXES | {name: meaning for name, (_, meaning) in LABELS.items()}).items():
        data[name].attrs = {"long_name": meaning}
    return check_points(data.set_coords(list(LABELS)))


def _shaped(name: str, value, coords: dict) -> np.ndarray:
    """The array of a variable in the shape of its dimensions."""
    shape = tuple(map(len, coords.values()))
    try:
        if isinstance(value, xr.DataArray):
            template = xr.DataArray(np.empty(shape), coords)
            value = xr.align(template, value, join="exact")[1].broadcast_like(template)
            value = value.transpose(*coords)
        value = np.broadcast_to(value, shape)
    except ValueError:
        axes = ", ".join(f"{dim} {size}" for dim, size in zip(coords, shape, strict=True))
        raise Refused(f"{name} does not fit the axes of the points ({axes}).") from None
    if name in LABELS:
        return value.astype(object)
    return value.copy() if value.dtype.kind in "iuf" else value.astype(float)


def check_points(points: xr.Dataset) -> xr.Dataset:
    """The same points if they are sound; raises `Refused` with the first fault.

    Refused are negative and infinite values, unknown evidence and status, a value without its
    deviations, a number where nothing was run, and a missing or misshapen variable.
    """
    for name, (dims, *_) in (VALUES | LABELS).items():
        if name not in points.variables:
            raise Refused(f"The variable {name} of the points is missing.")
        if points[name].dims != dims:
            raise Refused(f"{name} has dimensions {points[name].dims}; {dims} is allowed.")
    if tuple(points["phase"].values) != PHASES:
        raise Refused(f"phase is {points['phase'].values}; {', '.join(PHASES)} is allowed.")
    for name in (*VALUES, *SHAPE):
        values = points[name].values
        wrong = np.isinf(values) | (values < (1 if name in SHAPE else 0))
        if wrong.any():
            least = "1 or more" if name in SHAPE else "0 or more, or NaN,"
            raise Refused(
                f"{name} holds {values[wrong][0]}; finite numbers of {least} are allowed."
            )
    for name, words in (("evidence", EVIDENCE), ("status", STATUS)):
        wrong = set(points[name].values.flat) - set(words)
        if wrong:
            raise Refused(f"{name} holds {min(wrong)!r}; allowed are {', '.join(words)}.")
    not_run = points["evidence"].values == "not run"
    for name in BOUNDED:
        known = np.isfinite(points[name].values)
        if (known & not_run).any():
            raise Refused(f"{name} has a number at a point that was not run.")
        for end in ("low", "high"):
            if np.isnan(points[f"{name}_{end}_sd"].values[known]).any():
                raise Refused(f"{name} has a value without its deviation {name}_{end}_sd.")
    return points


def ends(points: xr.Dataset, quantity: str) -> dict[str, xr.DataArray]:
    """The bounds `low` and `high` of the 90 % interval of a quantity of points."""
    reach = ndtri((1 + LEVEL) / 2)
    return {
        end: points[quantity] * np.exp(sign * reach * points[f"{quantity}_{end}_sd"])
        for end, sign in {"low": -1, "high": 1}.items()
    }


def phase_tokens(points: xr.Dataset) -> xr.DataArray:
    """Tokens of the whole batch in each phase, dims (batch, prompt, output, phase).

    Prompt tokens in prefill; in decode the generated tokens but the first, which prefill gives.
    """
    steps = points["output"] - 1
    tokens = xr.concat(
        [points["batch"] * points["prompt"] + 0 * steps, points["batch"] * steps], points["phase"]
    )
    return tokens.transpose(*SHAPE, "phase").assign_attrs(units="1", long_name="tokens of a phase")

"""The points: time and energy of every model, GPU, engine and shape in one Dataset, measured or modelled."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

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
# Variables: name -> (dimensions, units, meaning). A value covers one iteration of its phase for the whole batch.
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
# Coordinates: name -> (dimensions, meaning). All are text; of what was not run they are empty or "not run".
LABELS = {
    "evidence": (DIMS, ", ".join(EVIDENCE)),
    "status": ((*PLACE, *SHAPE), "how the runs of the point ended: ok, oom, ... or not run"),
    "dtype": (PLACE, "number format of weights and activations"),
    "weights": (PLACE, "trained or random"),
    "place": (PLACE, "where the numbers come from: committed, this machine or predicted"),
}
BOUNDED = ("time_s", "energy_J")


def build_points(axes: Mapping, values: Mapping) -> xr.Dataset:
    """The checked points Dataset from its axes and from the arrays of its variables and coordinates.

    axes: the labels of model, gpu, engine, batch, prompt and output. values: a DataArray, or an array
    that broadcasts to the variable's shape, for each name of `VALUES` and `LABELS`; `generated` is
    filled in, and `gain_sd` is 0 if left out. Raises `Refused` for what `check_points` refuses.
    """
    coords = {dim: list(PHASES) if dim == "phase" else list(axes[dim]) for dim in DIMS}
    batch, output = np.asarray(coords["batch"]), np.asarray(coords["output"])
    given = {"gain_sd": 0.0, **values, "generated": batch[:, None] * output}
    for name in given:
        if name not in VALUES and name not in LABELS:
            raise Refused(f"The points have no variable {name!r}.")
    known = {name: spec[0] for name, spec in (VALUES | LABELS).items()}
    arrays = {}
    for name, dims in known.items():
        if name not in given:
            raise Refused(f"The variable {name} of the points is missing.")
        arrays[name] = (dims, _shaped(name, given[name], {dim: coords[dim] for dim in dims}))
    data = xr.Dataset(arrays, coords).set_coords(list(LABELS))
    for name, (_, units, meaning) in VALUES.items():
        data[name].attrs = {"units": units, "long_name": meaning}
    for name, meaning in AXES.items():
        data[name].attrs = {"long_name": meaning}
    for name, (_, meaning) in LABELS.items():
        data[name].attrs = {"long_name": meaning}
    return check_points(data)


def _shaped(name: str, value, coords: dict) -> np.ndarray:
    """The array of a variable in the shape of its dimensions."""
    shape = tuple(len(labels) for labels in coords.values())
    if isinstance(value, xr.DataArray):
        try:
            template = xr.DataArray(np.empty(shape, bool), coords)
            _, value = xr.align(template, value, join="exact")
            value = value.broadcast_like(template).transpose(*coords).values
        except ValueError:
            raise Refused(f"{name} does not fit the axes of the points.") from None
    value = np.asarray(value)
    if name in LABELS or value.dtype.kind not in "iuf":
        value = value.astype(object if name in LABELS else float)
    try:
        return np.broadcast_to(value, shape).copy()
    except ValueError:
        raise Refused(
            f"{name} has the shape {value.shape}; {shape} is allowed ({', '.join(coords)})."
        ) from None


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


def phase_tokens(points: xr.Dataset) -> xr.DataArray:
    """Tokens of the whole batch in each phase, dims (batch, prompt, output, phase).

    Prompt tokens in prefill; in decode the generated tokens but the first, which prefill gives.
    """
    steps = points["output"] - 1
    tokens = xr.concat(
        [points["batch"] * points["prompt"] + 0 * steps, points["batch"] * steps], points["phase"]
    )
    return tokens.transpose(*SHAPE, "phase").assign_attrs(units="1", long_name="tokens of a phase")

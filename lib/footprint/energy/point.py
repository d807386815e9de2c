"""From windows to points: medians over repeats, with the whole error budget around them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtri, stdtrit

from footprint.energy.window import DERIVED
from footprint.trace import build_points, ends, frame
from footprint.trace.points import BOUNDED, DIMS, LABELS, PHASES, PLACE, SHAPE, VALUES
from footprint.trace.schema import ATTRS, WINDOW_STATUS, variables

NOTHING: Mapping = {}
NAMES = {  # on disk -> in memory
    "device": "gpu",
    "prompt_tokens": "prompt",
    "output_tokens": "output",
    "kind": "evidence",
}
PREFERRED = {  # what a (model, gpu, engine) shows when several were run: the first of these
    "evidence": ("measured", "modelled"),
    "dtype": ("fp16", "bf16", "fp32"),
    "weights": ("trained", "random"),
    "place": ("this machine", "committed"),
}
COLUMNS = variables("windows", "measured") | variables("windows", "modelled") | ATTRS | DERIVED
UNCERTAINTIES = ["u_quantisation", "u_sampling", "u_gain"]
LEAST_SPREAD = 1e-3  # two clocks may differ by this share, so no repeat is known better
ASSUMED_SPREAD = 0.05  # of a run that repeats nothing, not even a step


def points(
    data: xr.Dataset,
    dtype: str | None = None,
    weights: str | None = None,
    engines: Mapping[str, str] = NOTHING,
    processors: bool = False,
) -> xr.Dataset:
    """The points (see `trace.points`) of gathered windows of GPUs, and of `processors` if asked.

    data: from `energy.gather`, with a coordinate `place` (else all are of this machine). dtype,
    weights: the only ones to count; a (model, gpu, engine) has those of one kind of run: measured
    before modelled, fp16 before bf16 before fp32, trained before random, this machine before
    committed. engines: names of engines that run -> names that the model gives them.

    A measured point is the median over its repeats. Its deviations hold the repeats (Student's t;
    `_repeat_sd` says what stands in for a single one), the quantisation, which repeats average out,
    the sampling, which they may not, and the gain of the board. All windows of a board share the
    gain: in a ratio of two points of one board it cancels, and each has the square root of
    `energy_J_low_sd`² - `gain_sd`²; between two boards nothing cancels. A modelled point has the
    deviations of its 90 % interval. What a run skipped, since it would not fit, was not run and has
    the status `skipped`. Lengths drawn from a trace of requests are no points.
    """
    rows = _rows(data, engines, processors)
    shapes = rows[rows["phase"].isin(PHASES) & (rows["lengths"] == "grid")]
    for name, word in (("dtype", dtype), ("weights", weights)):
        shapes = shapes[(shapes[name] == word) | (word is None)]
    if shapes.empty:
        return build_points(dict.fromkeys(DIMS[:-1], ()), dict.fromkeys((*VALUES, *LABELS), np.nan))
    shapes = _of_one_kind(shapes)
    measured = shapes["evidence"] == "measured"
    table = pd.concat([_measured(shapes[measured]), _modelled(shapes[~measured])])
    axes = {name: pd.unique(shapes[name]) for name in PLACE}
    axes |= {name: np.unique(shapes[name].astype(int)) for name in SHAPE}
    cube = table.to_xarray().reindex({**axes, "phase": list(PHASES)})
    labels = shapes.groupby(list(PLACE))[["dtype", "weights", "place"]].first().to_xarray()
    labels = labels.reindex({name: axes[name] for name in PLACE}).fillna("")
    status = table["status"].groupby(level=[*PLACE, *SHAPE]).agg(_worst).to_xarray()
    derived = {
        "gain_sd": cube["gain_sd"].max([*SHAPE, "phase"]),
        "idle_W": _idle_power(rows).reindex(axes["gpu"]).to_numpy(),
        "evidence": cube["evidence"].fillna("not run"),
        "status": status.reindex(axes).fillna("not run"),
    }
    return build_points(axes, {**cube, **labels, **derived})


def from_processor(rows: pd.DataFrame) -> pd.Series:
    """Whether each window was measured on a processor: no serial identity, no instrument.

    A GPU that no table knows has a serial identity, so it counts as a GPU.
    """
    bare = (rows["device_hash"] == "") & (rows["energy_source"] == "none")
    return bare & (rows["kind"] == "measured")


def requests(points: xr.Dataset) -> pd.DataFrame:
    """What a user sees of each point that was run, a row each, with `_low` and `_high` at 90 %.

    ttft_s, tpot_s; tokens_per_s and token_J: generated tokens of the batch, prefill included.
    The ends of prefill and decode are added, as if their errors went together.
    """
    ran = points["status"] != "not run"
    bounds = {name: {"": points[name], **ends(points, name)} for name in BOUNDED}
    columns = {"evidence": points["evidence"].sel(phase="decode"), "status": points["status"]}
    for end, other in (("", ""), ("low", "high"), ("high", "low")):
        time, energy = bounds["time_s"][end], bounds["energy_J"][end]
        whole_s = bounds["time_s"][other].sum("phase", skipna=False)
        name = f"_{end}" if end else ""
        columns[f"ttft_s{name}"] = time.sel(phase="prefill")
        columns[f"tpot_s{name}"] = time.sel(phase="decode") / (points["output"] - 1)
        columns[f"tokens_per_s{name}"] = points["generated"] / whole_s
        columns[f"token_J{name}"] = energy.sum("phase", skipna=False) / points["generated"]
    plain = {name: values.reset_coords(drop=True) for name, values in columns.items()}
    return xr.Dataset(plain).where(ran, drop=False).to_dataframe()[ran.to_series()].reset_index()


def _rows(data: xr.Dataset, engines: Mapping[str, str], processors: bool) -> pd.DataFrame:
    """The windows that count, under their names in memory, measured and modelled columns alike."""
    rows = frame(data).reindex(columns=[*COLUMNS, "energy_status", "place"])
    rows = rows[~from_processor(rows) | processors].rename(columns=NAMES)
    measured = rows["evidence"] == "measured"
    return rows.assign(
        place=rows["place"].astype(object).fillna("this machine"),
        engine=rows["engine"].replace(dict(engines)),
        status=rows["energy_status"].where(measured, rows["status"]),
        time_s=rows["time_per_iteration_s"],
        energy_J=rows["energy_J"] / rows["iterations"].where(measured, 1),
        **rows[UNCERTAINTIES].div(rows["energy_J"], axis=0),
    )


def _of_one_kind(rows: pd.DataFrame) -> pd.DataFrame:
    """The windows of the preferred kind of run of each (model, gpu, engine); see `PREFERRED`."""
    kinds = rows[list(PREFERRED)]
    ranks = {  # other words come last
        name: pd.Categorical(rows[name], list(dict.fromkeys([*words, *rows[name]])))
        for name, words in PREFERRED.items()
    }
    order = pd.DataFrame(ranks, rows.index).sort_values(list(PREFERRED)).index
    first = rows.loc[order].groupby(list(PLACE))[list(PREFERRED)].transform("first")
    return rows[(kinds == first.reindex(rows.index)).all(axis=1)]


def _idle_power(rows: pd.DataFrame) -> pd.Series:
    """Measured watts of each GPU at rest, with a model in memory or else without."""
    measured = rows[rows["evidence"] == "measured"]
    power = measured.groupby(["gpu", "phase"])["power_W"].median().unstack("phase")
    power = power.reindex(columns=["idle_loaded", "idle_bare"])
    return power["idle_loaded"].fillna(power["idle_bare"])


def _measured(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a measured point: medians over repeats and their deviations."""
    groups = rows.groupby(list(DIMS), sort=False)
    share = groups[UNCERTAINTIES].max()
    time_sd = _repeat_sd(rows, "time_s", groups["step_spread"].median())
    own = _repeat_sd(rows, "energy_J", time_sd) ** 2 + share["u_sampling"] ** 2
    own += share["u_quantisation"] ** 2 / groups["energy_J"].count()
    energy_sd = np.sqrt(own + share["u_gain"] ** 2)
    medians = groups[list(BOUNDED)].median()
    return medians.assign(
        time_s_low_sd=time_sd,
        time_s_high_sd=time_sd,
        energy_J_low_sd=energy_sd,
        energy_J_high_sd=energy_sd,
        gain_sd=share["u_gain"],
        evidence=groups["status"].agg(_evidence),
        status=groups["status"].agg(_worst),
    )


def _repeat_sd(rows: pd.DataFrame, name: str, instead: pd.Series) -> pd.Series:
    """Relative standard deviation of each point by its repeats, with Student's 95 % interval.

    A single repeat has the pooled spread of the run's other points; in a run without any,
    `instead` (the spread of the steps for a time, that of the time for an energy).
    """
    groups = rows.groupby(list(DIMS), sort=False)[name]
    count, freedom = groups.count(), groups.count() - 1
    spread = groups.std() / groups.median()
    own = spread * _student(freedom) / np.sqrt(count)
    run = [*PLACE, "phase"]
    squares = (freedom * spread**2).groupby(level=run).transform("sum")
    freedom = freedom.clip(lower=0).groupby(level=run).transform("sum")
    pooled = np.sqrt(squares / freedom) * _student(freedom)
    deviation = own.fillna(pooled).fillna(instead).fillna(ASSUMED_SPREAD)
    return deviation.clip(lower=LEAST_SPREAD).where(count > 0)


def _student(freedom: pd.Series) -> pd.Series:
    """Student's half-width over the normal one at 95 %; NaN without a degree of freedom."""
    return stdtrit(freedom.where(freedom > 0), 0.975) / ndtri(0.975)


def _modelled(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a modelled point: its values and the deviations of its 90 % interval."""
    table = rows.drop_duplicates(list(DIMS)).set_index(list(DIMS))
    deviations = table[[*BOUNDED, "evidence", "status"]].assign(gain_sd=0.0)
    for name, source in (("time_s", "duration_s"), ("energy_J", "energy_J")):
        for end in ("low", "high"):
            distance = np.abs(np.log(table[f"{source}_{end}"] / table[name]))
            deviations[f"{name}_{end}_sd"] = distance.where(table[name] != 0, 0.0) / ndtri(0.95)
    return deviations


def _evidence(statuses: pd.Series) -> str:
    """Measured, unless no window of the point was tried."""
    return "not run" if set(statuses) == {"skipped"} else "measured"


def _worst(statuses: pd.Series) -> str:
    """The status of a point: out of memory if any window was, else the last in the schema."""
    distinct = set(statuses)
    return "oom" if "oom" in distinct else max(distinct, key=WINDOW_STATUS.index)

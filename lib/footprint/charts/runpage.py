"""What a run's own page shows: its account of itself, its windows, its steps, its power, its answers."""

import json

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from footprint import trace
from footprint.charts import theme
from footprint.energy import window as energy

POINT = ["phase", "batch", "prompt_tokens", "output_tokens"]
MOST_STEPS = 1500  # points in a chart; more are thinned evenly


def account(tree: xr.DataTree):
    """Table of the root attributes of a run, what was asked first."""
    run = dict(tree.attrs)
    asked = json.loads(run.pop("request"))
    rows = [("asked", ", ".join(f"{key} {value}" for key, value in asked.items()))]
    rows += [(key.replace("_", " "), value) for key, value in run.items() if _says(value)]
    return theme.table(pd.DataFrame(rows, columns=["what", "value"]))


def _says(value) -> bool:
    return value != "" and not (isinstance(value, float) and np.isnan(value))


def windows_table(tree: xr.DataTree):
    """Table of the points: time of an iteration (median and range over repeats, or interval), rates, memory, energy."""
    data = trace.frame(energy.windows(tree))
    data = data[data["batch"] > 0]
    return theme.table(_modelled(data) if tree.attrs["kind"] == "modelled" else _measured(data))


def _measured(data: pd.DataFrame) -> pd.DataFrame:
    data = data.assign(tokens_per_s=data["tokens"] / data["duration_s"])
    rows = data.groupby(POINT, sort=True)
    milliseconds = rows["time_per_iteration_s"].agg(["median", "min", "max"]) * 1e3
    table = pd.DataFrame(
        {
            "windows": rows.size(),
            "ms an iteration": milliseconds["median"].round(2),
            "least": milliseconds["min"].round(2),
            "most": milliseconds["max"].round(2),
            "tokens/s": rows["tokens_per_s"].median().round(1),
            "peak memory GiB": (rows["peak_memory_B"].max() / 2**30).round(2),
            "J a token": rows["energy_per_token_J"].median().round(4),
            "statuses": rows["status"].agg(lambda column: ", ".join(sorted(set(column)))),
        }
    )
    return table.reset_index().rename(columns=lambda name: name.replace("_", " "))


def _modelled(data: pd.DataFrame) -> pd.DataFrame:
    """One row a batch and a prompt: both phases side by side, each value with its interval."""

    def cell(row, name: str, factor: float) -> str:
        if np.isnan(row[name]):
            return "–"
        return f"{row[name] * factor:.3g} ({row[f'{name}_low'] * factor:.3g}–{row[f'{name}_high'] * factor:.3g})"

    rows = []
    for keys, point in data.set_index("phase").groupby(POINT[1:], sort=True):
        prefill, decode = point.loc["prefill"], point.loc["decode"]
        step = 1e3 / (decode["output_tokens"] - 1)
        rows.append(
            {
                "batch": keys[0],
                "prompt": keys[1],
                "output": keys[2],
                "TTFT (ms)": cell(prefill, "duration_s", 1e3),
                "TPOT (ms)": cell(decode, "duration_s", step),
                "prefill (W)": cell(prefill, "power_W", 1),
                "decode (W)": cell(decode, "power_W", 1),
                "decode (J a token)": cell(decode, "energy_J", 1 / decode["tokens"]),
                "memory (GiB)": f"{decode['memory_B'] / 2**30:.1f}",
                "status": decode["status"],
            }
        )
    return pd.DataFrame(rows)


def steps(tree: xr.DataTree) -> alt.Chart:
    """Every step time of prefill and decode windows, a strip a batch size: what a percentile would hide."""
    data = trace.frame(tree["windows"].to_dataset())
    rows = trace.frame(tree["steps"].to_dataset())
    rows = rows.join(data[[*POINT, "lengths"]], on="window")
    rows = rows[rows["phase"].isin(["prefill", "decode"]) & (rows["lengths"] == "grid")]
    rows = rows.iloc[:: max(1, len(rows) // MOST_STEPS)].assign(ms=rows["step_s"] * 1e3)
    rows["shape"] = (
        "batch " + rows["batch"].astype(str) + ", prompt " + rows["prompt_tokens"].astype(str)
    )
    order = list(rows.sort_values(["batch", "prompt_tokens"])["shape"].unique())
    return (
        alt.Chart(rows[["phase", "shape", "ms"]])
        .transform_calculate(jitter="random() - 0.5")
        .mark_circle(size=14, opacity=0.5)
        .encode(
            x=alt.X(
                "ms:Q", title="step time (ms, logarithmic)", scale=alt.Scale(type="log", nice=False)
            ),
            y=alt.Y("shape:N", title=None, sort=order),
            yOffset="jitter:Q",
            color=theme.colour("phase"),
            tooltip=["phase:N", "shape:N", alt.Tooltip("ms:Q", format=".2f")],
        )
        .properties(width=560, height=alt.Step(34))
    )


def power(tree: xr.DataTree):
    """The power samples with the windows shaded, or one sentence that says why there are none."""
    samples = trace.frame(tree["samples"].to_dataset())
    if not len(samples):
        return theme.note(
            f"No power was sampled: the energy source of this run is {tree.attrs['energy_source']!r}."
        )
    origin = samples["time_s"].iloc[0]
    samples = samples.iloc[:: max(1, len(samples) // MOST_STEPS)].assign(
        s=lambda rows: rows["time_s"] - origin
    )
    bands = trace.frame(tree["windows"].to_dataset())
    bands = bands.assign(start=bands["start_s"] - origin, stop=bands["stop_s"] - origin)
    bands = bands[["phase", "batch", "start", "stop"]].dropna()
    shade = (
        alt.Chart(bands)
        .mark_rect(opacity=0.18)
        .encode(
            x=alt.X("start:Q", title="time (s)"),
            x2="stop:Q",
            color=theme.colour("phase"),
            tooltip=["phase:N", "batch:Q"],
        )
    )
    line = (
        alt.Chart(samples[["s", "power_W"]])
        .mark_line(strokeWidth=1)
        .encode(x="s:Q", y=alt.Y("power_W:Q", title="power (W)"))
    )
    return (shade + line).properties(width=600, height=260)


def modelled(tree: xr.DataTree) -> alt.Chart:
    """Modelled time of one iteration against batch with its interval, a panel a phase."""
    data = trace.frame(tree["windows"].to_dataset())
    data = data[data["phase"].isin(["prefill", "decode"]) & (data["status"] == "ok")]
    data = data.assign(prompt=data["prompt_tokens"].astype(str) + " tokens")
    base = alt.Chart(
        data[["phase", "batch", "prompt", "duration_s", "duration_s_low", "duration_s_high"]]
    ).encode(
        x=alt.X(
            "batch:Q",
            scale=alt.Scale(type="log", base=2),
            title="batch size",
            axis=alt.Axis(values=sorted(set(data["batch"].tolist())), format="d"),
        ),
        detail="prompt:N",
        color=theme.colour("phase"),
    )
    band = base.mark_area(opacity=0.15).encode(
        y=alt.Y("duration_s_low:Q", title="time of one iteration (s)", scale=alt.Scale(type="log")),
        y2="duration_s_high:Q",
    )
    dash = alt.StrokeDash("prompt:N", title="prompt")
    line = base.mark_line(point=True).encode(
        y="duration_s:Q",
        strokeDash=dash,
        tooltip=["phase:N", "batch:Q", "prompt:N", "duration_s:Q"],
    )
    return (
        (band + line)
        .properties(width=270, height=240)
        .facet(column=alt.Column("phase:N", title=None))
    )


def answers(rows: list[dict]):
    """The prompts and what the model said, or one sentence when nothing was asked or nothing can be said."""
    if not rows:
        return theme.note(
            "Nothing was asked of this model, or its weights are random and say nothing."
        )
    return theme.table(pd.DataFrame(rows))

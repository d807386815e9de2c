"""What the page of a run shows: its attributes, windows, steps, power and answers."""

import json

import altair as alt
import numpy as np
import pandas as pd
import xarray as xr

from footprint import trace
from footprint.charts import theme
from footprint.energy import window as energy

POINT = ["phase", "batch", "prompt_tokens", "output_tokens"]
UNFUSED = "math is torch's unfused kernel: it is slower, which is no property of the device"
MOST_STEPS = 1500  # points in a chart; more are thinned evenly


def account(tree: xr.DataTree) -> theme.Page:
    """Table of the root attributes of a run, its request first, and its kernels of attention."""
    run = dict(tree.attrs)
    request = json.loads(run.pop("request"))
    rows = [("asked", ", ".join(f"{key} {value}" for key, value in request.items()))]
    rows += [(key.replace("_", " "), np.asarray(value).item()) for key, value in run.items()]
    rows.append(("attention kernels", _kernels(tree)))
    table = pd.DataFrame(rows, columns=["what", "value"])
    return theme.table(table[table["value"].notna() & (table["value"] != "")])


def _kernels(tree: xr.DataTree) -> str:
    """The kernels of attention by phase; empty where no window tells."""
    if tree.attrs["kind"] == "modelled":
        return ""
    rows = trace.frame(tree["windows"].to_dataset())
    rows = rows[rows["attention_backend"] != ""].drop_duplicates(["phase", "attention_backend"])
    if rows.empty:
        return ""
    said = ", ".join(f"{row.phase}: {row.attention_backend}" for row in rows.itertuples())
    unfused = rows["attention_backend"].str.contains(r"\bmath").any()
    return said + (f" ({UNFUSED})" if unfused else "")


def windows_table(tree: xr.DataTree) -> theme.Page:
    """Table of the points: time of an iteration, rates, memory, energy."""
    data = trace.frame(energy.windows(tree))
    data = data[data["batch"] > 0]
    return theme.table(_modelled(data) if tree.attrs["kind"] == "modelled" else _measured(data))


def _measured(data: pd.DataFrame) -> pd.DataFrame:
    rows = data.assign(rate=data["tokens"] / data["duration_s"]).groupby(POINT, sort=True)
    milliseconds = rows["time_per_iteration_s"].agg(["median", "min", "max"]) * 1e3
    columns = {
        "windows": rows.size(),
        "ms an iteration": milliseconds["median"].round(2),
        "least": milliseconds["min"].round(2),
        "most": milliseconds["max"].round(2),
        "tokens/s": rows["rate"].median().round(1),
        "peak memory GiB": (rows["peak_memory_B"].max() / 2**30).round(2),
        "J a token": rows["energy_per_token_J"].median().round(4),
        "attention": rows["attention_backend"].agg(lambda column: "; ".join(sorted({*column}))),
        "statuses": rows["status"].agg(lambda column: ", ".join(sorted(set(column)))),
    }
    if not data["attention_backend"].any():
        del columns["attention"]
    return pd.DataFrame(columns).reset_index().rename(columns=lambda name: name.replace("_", " "))


def _modelled(data: pd.DataFrame) -> pd.DataFrame:
    """One row a batch and a prompt: both phases side by side, each value with its interval."""

    def cell(row, name: str, factor: float) -> str:
        value, low, high = np.array([row[name], row[f"{name}_low"], row[f"{name}_high"]]) * factor
        return "–" if np.isnan(value) else f"{value:.3g} ({low:.3g}–{high:.3g})"

    rows = []
    for keys, point in data.set_index("phase").groupby(POINT[1:], sort=True):
        prefill, decode = point.loc["prefill"], point.loc["decode"]
        step_ms = 1e3 / (decode["output_tokens"] - 1)
        shape = dict(zip(("batch", "prompt", "output"), keys, strict=True))
        values = {
            "TTFT (ms)": cell(prefill, "duration_s", 1e3),
            "TPOT (ms)": cell(decode, "duration_s", step_ms),
            "prefill (W)": cell(prefill, "power_W", 1),
            "decode (W)": cell(decode, "power_W", 1),
            "decode (J a token)": cell(decode, "energy_J", 1 / decode["tokens"]),
            "memory (GiB)": f"{decode['memory_B'] / 2**30:.1f}",
            "status": decode["status"],
        }
        rows.append(shape | values)
    return pd.DataFrame(rows)


def steps(tree: xr.DataTree) -> alt.Chart:
    """Every step time of prefill and decode windows, a strip a batch size."""
    windows = trace.frame(tree["windows"].to_dataset())[[*POINT, "lengths"]]
    rows = trace.frame(tree["steps"].to_dataset()).join(windows, on="window")
    rows = rows[rows["phase"].isin(["prefill", "decode"]) & (rows["lengths"] == "grid")]
    rows = rows.iloc[:: max(1, len(rows) // MOST_STEPS)].assign(ms=rows["step_s"] * 1e3)
    prompts = rows["prompt_tokens"].astype(str)
    rows["shape"] = "batch " + rows["batch"].astype(str) + ", prompt " + prompts
    order = rows.sort_values(["batch", "prompt_tokens"])["shape"].unique().tolist()
    logarithmic = alt.Scale(type="log", nice=False)
    dots = alt.Chart(rows[["phase", "shape", "ms"]]).transform_calculate(jitter="random() - 0.5")
    chart = dots.mark_circle(size=14, opacity=0.5).encode(
        x=alt.X("ms:Q", title="step time (ms, logarithmic)", scale=logarithmic),
        y=alt.Y("shape:N", title=None, sort=order),
        yOffset="jitter:Q",
        color=theme.colour("phase"),
        tooltip=theme.tips("phase", "shape", ms=".2f"),
    )
    return chart.properties(width=560, height=alt.Step(34))


def power(tree: xr.DataTree) -> alt.LayerChart | theme.Page:
    """The power samples with the windows shaded, or one sentence that says why there are none."""
    samples = trace.frame(tree["samples"].to_dataset())
    if not len(samples):
        source = tree.attrs["energy_source"]
        return theme.note(f"No power was sampled: the energy source of this run is {source!r}.")
    origin = samples["time_s"].iloc[0]
    samples = samples.iloc[:: max(1, len(samples) // MOST_STEPS)]
    samples = samples.assign(s=samples["time_s"] - origin)[["s", "power_W"]]
    bands = trace.frame(tree["windows"].to_dataset())
    bands = bands.assign(start=bands["start_s"] - origin, stop=bands["stop_s"] - origin)
    bands = alt.Chart(bands[["phase", "batch", "start", "stop"]].dropna())
    shade = bands.mark_rect(opacity=0.18).encode(
        x=alt.X("start:Q", title="time (s)"),
        x2="stop:Q",
        color=theme.colour("phase"),
        tooltip=["phase:N", "batch:Q"],
    )
    line = alt.Chart(samples).mark_line(strokeWidth=1)
    line = line.encode(x="s:Q", y=alt.Y("power_W:Q", title="power (W)"))
    return (shade + line).properties(width=600, height=260)


def modelled(tree: xr.DataTree) -> alt.FacetChart:
    """Modelled time of one iteration against batch with its interval, a panel a phase."""
    data = trace.frame(tree["windows"].to_dataset())
    data = data[data["phase"].isin(["prefill", "decode"]) & (data["status"] == "ok")]
    data = data.assign(prompt=data["prompt_tokens"].astype(str) + " tokens")
    times = ["duration_s", "duration_s_low", "duration_s_high"]
    batches = alt.Axis(values=sorted(set(data["batch"].tolist())), format="d")
    scale = alt.Scale(type="log", base=2)
    base = alt.Chart(data[["phase", "batch", "prompt", *times]]).encode(
        x=alt.X("batch:Q", scale=scale, title="batch size", axis=batches),
        detail="prompt:N",
        color=theme.colour("phase"),
    )
    y = alt.Y("duration_s_low:Q", title="time of one iteration (s)", scale=alt.Scale(type="log"))
    band = base.mark_area(opacity=0.15).encode(y=y, y2="duration_s_high:Q")
    line = base.mark_line(point=True).encode(
        y="duration_s:Q",
        strokeDash=alt.StrokeDash("prompt:N", title="prompt"),
        tooltip=["phase:N", "batch:Q", "prompt:N", "duration_s:Q"],
    )
    panel = (band + line).properties(width=270, height=240)
    return panel.facet(column=alt.Column("phase:N", title=None))


def answers(rows: list[dict]) -> theme.Page:
    """The prompts and the model's answers, or a sentence if there are none."""
    nothing = "Nothing was asked of this model, or its weights are random and say nothing."
    return theme.table(pd.DataFrame(rows), empty=nothing)

"""What the chapters start from: all runs at hand as one table of points, each with its interval and its kind."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtr, ndtri

from footprint import predict, spec, trace
from footprint.energy import window as energy
from footprint.trace.schema import ATTRS, variables

PAIRS = [
    (model, gpu) for model in ("llama-1b", "llama-3b", "llama-7b") for gpu in ("t4", "rtx-6000-ada")
]
PAIR = ["model", "device", "engine"]
POINT = ["phase", "batch", "prompt_tokens", "output_tokens"]
QUANTITIES = {"time_s": "time_per_iteration_s", "energy_J": "energy_J", "power_W": "power_W"}
label = spec.label
LEVEL = {"measured": 0.95, "modelled": 0.90}


def points(data: xr.Dataset) -> pd.DataFrame:
    """One row a point of a run: medians over repeats with their interval, per iteration and per token.

    Columns: the pair, the point, `kind`, `weights`, `dtype`, `place`, `status`, and for time_s, energy_J, power_W the
    value with `_low` and `_high` (90 % interval of the model; range over the repeats of a measurement); `tokens` and
    `energy_per_token_J` with its bounds. Points that ran out of memory stay as rows with NaN.
    """
    rows = trace.frame(data)
    known = [
        *variables("windows", "measured"),
        *variables("windows", "modelled"),
        *ATTRS,
        "place",
        "time_per_iteration_s",
    ]
    rows = rows.reindex(
        columns=list(dict.fromkeys([*rows.columns, *known]))
    )  # one kind alone lacks the other's
    rows = rows[rows["batch"] > 0]
    for name, source in QUANTITIES.items():
        per = rows["iterations"].where(rows["kind"] == "measured", 1) if name == "energy_J" else 1
        rows[name] = rows[source] / per
        bounds = {"time_s": "duration_s"}.get(name, name)
        for end in ("_low", "_high"):
            rows[name + end] = np.where(
                rows["kind"] == "modelled", rows[f"{bounds}{end}"], rows[name]
            )
    rows = rows.rename(columns={"read_bandwidth_GBps": "bandwidth", "matmul_GFLOPs": "matmul"})
    rows["tokens"] = rows["tokens"] / rows["iterations"].where(rows["iterations"] > 0)
    keys = [*PAIR, *POINT, "kind", "weights", "dtype", "place", "lengths"]
    middle = [
        *QUANTITIES,
        "tokens",
        "peak_memory_B",
        "memory_B",
        "foreign_cpu_share",
        "parameters",
        "bandwidth",
        "matmul",
        "memory_GiB",
    ]
    rules = {name: "median" for name in middle}
    rules |= {f"{name}_low": "min" for name in QUANTITIES} | {
        f"{name}_high": "max" for name in QUANTITIES
    }
    rules |= {"status": lambda column: ", ".join(sorted(set(column)))}
    table = rows.groupby(keys, sort=False).agg(rules).reset_index()
    for end in ("", "_low", "_high"):
        table[f"energy_per_token_J{end}"] = table[f"energy_J{end}"] / table["tokens"]
    return table


def preferred(table: pd.DataFrame) -> pd.DataFrame:
    """The points without the modelled ones of a pair that somebody has measured (random weights count as measured)."""
    measured = table.loc[table["kind"] == "measured", PAIR].drop_duplicates().assign(seen=True)
    seen = table.merge(measured, how="left", on=PAIR)["seen"].notna().to_numpy()
    return table[(table["kind"] == "measured") | ~seen]


def six_pairs(table: pd.DataFrame, engine: str = "eager") -> pd.DataFrame:
    """The points of the paper's six pairs with one engine, models and cards in the order of their size and age."""
    table = at(table, engine=engine)
    order = pd.DataFrame(PAIRS, columns=["model", "device"]).assign(rank=range(len(PAIRS)))
    return (
        preferred(table)
        .merge(order, on=["model", "device"])
        .sort_values(["rank", *POINT], ignore_index=True)
    )


def instead(pairs: pd.DataFrame, engine: str) -> pd.DataFrame:
    """The points of `six_pairs` as the model expects them with another engine."""
    names = {name: name for name in ("prompt_tokens", "output_tokens")} | {"batches": "batch"}
    asked = {
        name: sorted(set(pairs.loc[pairs["lengths"] == "grid", column]))
        for name, column in names.items()
    }
    asked |= {"engine": engine, "dtype": "fp16", "seed": 0}
    trees = [predict.trace({"model": model, "gpu": gpu, **asked}) for model, gpu in PAIRS]
    windows = [trace.labelled(energy.windows(tree), tree.attrs, "predicted") for tree in trees]
    return six_pairs(points(xr.concat(windows, "window").assign_coords(place="predicted")), engine)


def at(table: pd.DataFrame, **where) -> pd.DataFrame:
    """The rows whose columns hold these values."""
    keep = np.logical_and.reduce([table[name] == value for name, value in where.items()])
    return table[keep]


def versus(
    table: pd.DataFrame, quantity: str, over: str = "t4", under: str = "rtx-6000-ada"
) -> pd.DataFrame:
    """The ratio of one card to another at every point that both have: ratio, its interval, and P(ratio > 1).

    The errors of two cards are taken as independent and log-normal, their intervals as stated for each; both are
    conservative for a ratio, since errors that the cards share cancel in it.
    """
    keys = ["model", *POINT]
    columns = [quantity, f"{quantity}_low", f"{quantity}_high", "kind"]
    sides = [
        at(table, device=name).set_index(keys)[columns].add_suffix(side)
        for name, side in ((over, "_over"), (under, "_under"))
    ]
    both = (
        sides[0]
        .join(sides[1], how="inner")
        .dropna(subset=[f"{quantity}_over", f"{quantity}_under"])
    )
    log_ratio = np.log(both[f"{quantity}_over"] / both[f"{quantity}_under"])
    spread = np.hypot(*(_spread(both, quantity, side) for side in ("over", "under")))
    z = ndtri(0.95)
    return pd.DataFrame(
        {
            "ratio": np.exp(log_ratio),
            "low": np.exp(log_ratio - z * spread),
            "high": np.exp(log_ratio + z * spread),
            "probability": ndtr(log_ratio / spread.where(spread > 0)),
            "kind": both["kind_over"].where(both["kind_over"] == both["kind_under"], "mixed"),
        }
    ).reset_index()


def _spread(both: pd.DataFrame, quantity: str, side: str) -> pd.Series:
    """Standard deviation of the logarithm, from the width of the interval of its kind."""
    level = both[f"kind_{side}"].map(LEVEL).astype(float)
    width = np.log(both[f"{quantity}_high_{side}"] / both[f"{quantity}_low_{side}"])
    return width / (2 * ndtri((1 + level) / 2))

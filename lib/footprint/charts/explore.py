"""What the explorer carries: every card's points and some states of the world, compact enough for a page.

A page cannot draw as the library does, so each point keeps how its time and energy move with the card's two errors, to
first order in logarithms: seconds x exp(time z_time), joules x exp(shared z_time + power z_power), each with a slope below
(`_low`) and one above its middle (`_high`), as in `served.drawn`. The states of the world are the first draws of
`served.errors`, `totals.card_kg` and `totals.drawn_grids` themselves.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from footprint import spec
from footprint.carbon import served, totals
from footprint.decide import compare as decide
from footprint.decide.breakeven import beside, grams, side
from footprint.predict import model as predict

ENGINES = ("eager", "serving")
DRAWS = (
    64  # states of the world: a probability is good to some 6 points, and a change shows at once
)
PROMPT, OUTPUT = 128, 128
SLOPES = ("time", "shared", "power")


def points(
    models: Sequence[str],
    batch=decide.BATCHES,
    engine=ENGINES,
    prompt: int = PROMPT,
    output: int = OUTPUT,
) -> pd.DataFrame:
    """One row a model, card, engine and batch that fits: what a generated token takes, and the times its reader waits.

    energy_J and busy_s a token, ttft_s, tpot_s, the card's idle_W, and the slopes `time`, `shared` and `power` (see above).
    """
    windows = predict.windows(
        list(models),
        spec.gpus(),
        engine=list(engine),
        batch=list(batch),
        prompt=[prompt],
        output=[output],
    )
    cube = served.predicted(windows).isel(prompt=0, output=0)
    whole = cube[["time_s", "energy_J"]].sum("phase", skipna=False)
    table = xr.Dataset(
        {
            "energy_J": whole["energy_J"] / cube["generated"],
            "busy_s": whole["time_s"] / cube["generated"],
            "ttft_s": windows["ttft_s"].isel(prompt=0, output=0),
            "tpot_s": windows["tpot_s"].isel(prompt=0, output=0),
            "idle_W": cube["idle_W"],
        }
    )
    for end in served.ENDS:
        time_sd, energy_sd = cube[f"time_s{end}_sd"], cube[f"energy_J{end}_sd"]
        shared = np.minimum(time_sd, energy_sd)
        moves = (
            ("time_s", time_sd),
            ("energy_J", shared),
            ("energy_J", np.sqrt(energy_sd**2 - shared**2)),
        )
        for name, (of, sd) in zip(SLOPES, moves, strict=True):
            table[f"{name}{end}"] = (sd * cube[of]).sum("phase", skipna=False) / whole[of]
    rows = table.reset_coords(drop=True).to_dataframe().dropna().reset_index()
    return rows[["model", "engine", "batch", "gpu", *table.data_vars]]


def worlds(gpus: Sequence[str] | None = None, n: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """One row a card and draw: z_time, z_power, `year` (its place among those of `grids`), kg of making by each approach.

    NaN where the paper gives no value of the card.
    """
    told = {
        row["subject"] for row in spec.table("paper_values") if row["quantity"] == "embodied carbon"
    }
    names = list(spec.gpus() if gpus is None else gpus)
    wrong = served.errors(names, n, seed)
    columns = {"z_time": wrong["time"], "z_power": wrong["power"]}
    for name in totals.APPROACHES:
        known = [card for card in names if name != "paper" or card in told]
        columns[name] = (
            totals.card_kg(known, [name], n, seed).isel(approach=0, drop=True).reindex(gpu=names)
        )
    table = xr.Dataset(columns).to_dataframe().reset_index()
    return table.assign(year=totals.year_drawn(n, seed)[table["draw"]])


def ranked(
    model: str,
    engine: str,
    batch: int,
    zone: str,
    approach: str = totals.MAIN,
    host_W: float = 0.0,
    host_kg: float = 0.0,
    n: int = DRAWS,
    seed: int = 0,
    **use,
) -> pd.DataFrame:
    """The explorer's ranking by the library itself: gpu, mean_g, low_g, high_g (90 %) of a token, best (share of the draws).

    use: lifetime_years, utilisation and pue of `breakeven.grams`. Least first; cards that cannot serve are left out.
    """
    windows = predict.windows(
        model, spec.gpus(), engine=[engine], batch=[batch], prompt=[PROMPT], output=[OUTPUT]
    )
    points = served.predicted(windows).isel(model=0, engine=0, batch=0, prompt=0, output=0)
    grid = totals.drawn_grids([zone], n, seed)
    cards = {
        gpu: beside(side(points, gpu, [approach], n, seed), host_W, host_kg) for gpu in spec.gpus()
    }
    whole = {gpu: grams(card, grid, **use).values.ravel() for gpu, card in cards.items()}
    table = pd.DataFrame(
        {gpu: values for gpu, values in whole.items() if np.isfinite(values).all()}
    )
    found = pd.DataFrame(
        {
            "mean_g": table.mean(),
            "low_g": table.quantile(0.05),
            "high_g": table.quantile(0.95),
            "best": table.idxmin(axis=1)
            .value_counts(normalize=True)
            .reindex(table.columns, fill_value=0.0),
        }
    )
    return found.sort_values("mean_g").rename_axis("gpu").reset_index()


def grids() -> pd.DataFrame:
    """One row a zone: its name, and its lifecycle g/kWh in each year of the table; the paper's three regions first."""
    rows = pd.DataFrame(row for row in spec.table("grids") if row["kind"] == "lifecycle")
    table = rows.astype({"year": int, "g_per_kwh": float}).pivot(
        index=["zone", "name"], columns="year", values="g_per_kwh"
    )
    table = table[list(totals.YEARS_KNOWN)].reset_index("name").sort_values("name")
    return pd.concat([table.loc[list(totals.ZONES)], table.drop(list(totals.ZONES))])


def keyed(points: pd.DataFrame) -> pd.DataFrame:
    """The points under one key each, by which the page looks them up: model|engine|batch|card; slopes to three decimals."""
    names = ["model", "engine", "batch", "gpu"]
    slopes = [f"{name}{end}" for name in SLOPES for end in served.ENDS]
    return (
        points.round(dict.fromkeys(slopes, 3))
        .assign(key=points[names].astype(str).agg("|".join, axis=1))
        .drop(columns=names)
    )


def by_card(worlds: pd.DataFrame) -> dict[str, dict[str, list[float | None]]]:
    """The errors and makings of each card, draw by draw; None where an approach has no value of it."""
    columns = ["z_time", "z_power", *totals.APPROACHES]
    return {
        gpu: {name: short(table[name]) for name in columns}
        for gpu, table in worlds.groupby("gpu", sort=False)
    }


def short(values: pd.Series) -> list[float | None]:
    """Numbers with three significant digits; None where there is none."""
    return [None if pd.isna(value) else float(f"{value:.3g}") for value in values]


def csv(table: pd.DataFrame) -> str:
    """A table as text, with four significant digits and no zero before a point."""
    return re.sub(
        r"(?<=,)0\.", ".", table.to_csv(index=False, float_format="%.4g", lineterminator="\n")
    )

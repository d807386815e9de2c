"""What the explorer carries: every card's points and some states of the world, compact enough for a page.

A page cannot draw as the library does, so each point keeps how its time and energy move with the card's two errors, to
first order in logarithms: seconds x exp(time z_time), joules x exp(shared z_time + power z_power), each with a slope below
(`_low`) and one above its middle (`_high`), as in `served.drawn`. The states of the world are the first draws of
`served.errors`, `totals.card_kg` and `totals.drawn_grids` themselves.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from footprint import decide, predict, served, spec, totals

ENGINES = ("eager", "serving")
PAPER = ("t4", "rtx-6000-ada")  # the cards that the paper gives a value of
DRAWS = 64  # states of the world: a probability is good to some 6 points, and a change shows at once
PROMPT, OUTPUT = 128, 128
SCALES = {"energy_J": 1e3, "busy_s": 1e3, "ttft_s": 1.0, "tpot_s": 1e3}


def points(
    models: Sequence[str], batch=decide.BATCHES, engine=ENGINES, prompt: int = PROMPT, output: int = OUTPUT
) -> pd.DataFrame:
    """One row a model, card, engine and batch that fits: what a generated token takes, and the times its reader waits.

    energy_J and busy_s a token, ttft_s, tpot_s, the card's idle_W, and the slopes `time`, `shared` and `power` (see above).
    """
    windows = predict.windows(
        list(models), spec.gpus(), engine=list(engine), batch=list(batch), prompt=[prompt], output=[output]
    )
    cube = served.predicted(windows).isel(prompt=0, output=0)
    whole = cube[["time_s", "energy_J"]].sum("phase", skipna=False)
    table = xr.Dataset({
        "energy_J": whole["energy_J"] / cube["generated"], "busy_s": whole["time_s"] / cube["generated"],
        "ttft_s": windows["ttft_s"].isel(prompt=0, output=0), "tpot_s": windows["tpot_s"].isel(prompt=0, output=0),
        "idle_W": cube["idle_W"],
    })  # fmt: skip
    for end in served.ENDS:
        time_sd, energy_sd = cube[f"time_s{end}_sd"], cube[f"energy_J{end}_sd"]
        shared = np.minimum(time_sd, energy_sd)
        moves = {"time": ("time_s", time_sd), "shared": ("energy_J", shared),
                 "power": ("energy_J", np.sqrt(energy_sd**2 - shared**2))}  # fmt: skip
        for name, (of, sd) in moves.items():
            table[f"{name}{end}"] = (sd * cube[of]).sum("phase", skipna=False) / whole[of]
    rows = table.reset_coords(drop=True).to_dataframe().dropna().reset_index()
    return rows[["model", "engine", "batch", "gpu", *table.data_vars]]


def worlds(gpus: Sequence[str] | None = None, n: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """One row a card and draw: z_time and z_power, `year` (its place in `years`), and kg of making by each approach."""
    names = list(spec.gpus() if gpus is None else gpus)
    wrong = served.errors(names, n, seed)
    columns = {"z_time": wrong["time"], "z_power": wrong["power"]}
    for name in totals.APPROACHES:
        known = [card for card in names if name != "paper" or card in PAPER]
        columns[name] = totals.card_kg(known, [name], n, seed).isel(approach=0, drop=True).reindex(gpu=names)
    table = xr.Dataset(columns).to_dataframe().reset_index()
    return table.assign(year=totals.year_drawn(n, seed)[table["draw"]])


def grids() -> pd.DataFrame:
    """One row a zone: its name, and its lifecycle g/kWh in each year of the table; the paper's three regions first."""
    rows = pd.DataFrame(row for row in spec.table("grids") if row["kind"] == "lifecycle")
    table = rows.astype({"year": int, "g_per_kwh": float}).pivot(index=["zone", "name"], columns="year", values="g_per_kwh")
    table = table[list(totals.YEARS_KNOWN)].reset_index("name").sort_values("name")
    return pd.concat([table.loc[list(totals.ZONES)], table.drop(list(totals.ZONES))])

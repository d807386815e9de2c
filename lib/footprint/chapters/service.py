"""The numbers of the page for whoever runs a service: limits on time, phases apart, work that waits, a day's plan."""

from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from footprint import decide, spec
from footprint.chapters.book import Book
from footprint.chapters.totals import llamas

MODEL = "llama-7b"
LIMITS = {"ttft_s": 2.0, "tpot_s": 0.1}
SLACKS_H = [0, 1, 3, 6, 12, 18, 23]
SUNNY = "US-CAL-CISO"


def operate(book: Book) -> dict:
    """Which GPU, batch and place within limits on time; phases apart; waiting; a day of a large service."""
    request = decide.mean_request(**LIMITS)
    points = decide.configurations(llamas(), request)
    return {
        "gpus": len(spec.gpus()),
        "batches": {"least": min(decide.BATCHES), "most": max(decide.BATCHES)},
        "limit_s": LIMITS["ttft_s"],
        "limit_ms": LIMITS["tpot_s"] * 1e3,
        **_within_limits(request, book.market),
        **_phases(request, book.market),
        **_waiting(points, book.market),
        **_plans(points, book.market),
    }


def _within_limits(request: decide.Request, world: xr.Dataset) -> dict:
    """The GPU of least carbon in each region within the limits, the front without them, and what a demand changes."""
    found = decide.optimum(MODEL, list(decide.ZONES), request=request, world=world)
    first = found.groupby("zone", sort=False).first()
    named = [
        f"{spec.label(row.gpu)} in {spec.zone_name(zone)} ({row.card:.0%})"
        for zone, row in first.iterrows()
    ]
    if first["gpu"].nunique() == 1:
        share = f"{first['card'].min():.0%} to {first['card'].max():.0%}"
        named = [f"{spec.label(first['gpu'].iloc[0])} in all three regions ({share})"]
    recalled = {row["id"] for row in spec.table("gpus") if row["status"] == "unverified"}
    marked = sorted(spec.label(gpu) for gpu in recalled & set(first["gpu"]))
    free = replace(request, ttft_s=np.inf, tpot_s=np.inf)
    every = decide.optimum(MODEL, "CA-QC", request=free, world=world)
    every = every.assign(
        tpot_ms=every["tpot_s"] * 1e3, mg=every["mean_g"] * 1e3, low=every["low_g"] * 1e3
    )
    every = every.assign(high=every["high_g"] * 1e3, hours=every["busy_s"] * 1e6 / 3600)
    busy = decide.optimum(MODEL, "CA-QC", request=request, world=world, tokens_per_s=200.0).iloc[0]
    best = found[found["zone"] == "CA-QC"].iloc[0]
    sure = first["card"].max() >= decide.LIKELY
    return {
        "first": ", ".join(named),
        "sure": "" if sure else ": it comes first most often, and no card is a sure winner",
        "recalled": RECALLED.format(" and the ".join(marked)) if marked else "",
        "top": _top(found),
        "front": every.assign(on_front=decide.pareto(every["mg"], every["tpot_ms"])),
        **_front_of_three(every),
        "busy": f"{int(busy['count'])} × {spec.label(busy['gpu'])} at batch {int(busy['batch'])}",
        "busy_mg": busy["mean_g"] * 1e3,
        "busy_wait_s": busy["wait_s"],
        **_exercise(best, busy, request.output),
    }


RECALLED = (
    "The data sheet of the {} is recalled and not read [unverified]{{.status .unverified}}: take the first place with that "
    "grain of salt, and read the second as well."
)


def _top(found: pd.DataFrame) -> pd.DataFrame:
    """The best five GPUs of each region."""
    top = found.groupby(["zone", "gpu"], sort=False).head(1).groupby("zone", sort=False).head(5)
    shown = {
        "region": top["zone"].map(spec.zone_name),
        "card": top["gpu"].map(spec.label),
        "batch": top["batch"],
        "TTFT (s)": top["ttft_s"],
        "TPOT (ms)": top["tpot_s"] * 1e3,
        "J a token": top["energy_J"],
        "mg a token": top["mean_g"] * 1e3,
        "low": top["low_g"] * 1e3,
        "high": top["high_g"] * 1e3,
        "P(this card)": top["card"].map("{:.0%}".format),
        "keeps the limits": top["meets"].map("{:.0%}".format),
    }
    return pd.DataFrame(shown).assign(status="modelled")


def _front_of_three(every: pd.DataFrame) -> dict:
    """What no other configuration beats in carbon, time and hours of a GPU."""
    columns = {"carbon": "mg", "time of a step": "tpot_ms", "card hours": "hours"}
    front = every[decide.pareto(*(every[column] for column in columns.values()))]
    said = []
    for name, column in columns.items():
        row = front.loc[front[column].idxmin()]
        takes = f"{row['mg']:.2g} mg a token, {row['tpot_ms']:.0f} ms a step, {row['hours']:.2g} card hours"
        where = f"{spec.label(row['gpu'])} at batch {int(row['batch'])}"
        said.append(f"{name} on {where} ({takes} a million tokens)")
    return {
        "front_of_three": len(front),
        "configurations": len(every),
        "least_of_each": "; ".join(said),
    }


def _exercise(best: pd.Series, busy: pd.Series, output: int, rate: float = 200.0) -> dict:
    """GPUs for a small service, and how long its mean request waits for a batch to fill."""
    gather_s = best["batch"] * output / rate
    return {
        "rate": rate,
        "token_ms": best["busy_s"] * 1e3,
        "batch": int(best["batch"]),
        "answer": output,
        "gpus_needed": rate * best["busy_s"],
        "gpus_whole": int(np.ceil(rate * best["busy_s"])),
        "gather_s": gather_s,
        "mean_wait_s": (best["batch"] - 1) / 2 * output / rate,
        "dearer": busy["mean_g"] / best["mean_g"],
    }


def _phases(request: decide.Request, world: xr.Dataset) -> dict:
    """Prefill on one GPU and decode on another: against the best single GPU, and against the better of two given ones."""
    parts = {name: decide.disaggregate(name, request, world) for name in llamas()}
    apart, hidden = (
        pd.concat(
            [
                decide.gpu_pairs(part, hidden=hides).assign(model=name)
                for name, part in parts.items()
            ],
            ignore_index=True,
        )
        for hides in (False, True)
    )
    winner = apart.groupby(["model", "zone"], sort=False).first()
    one = winner["prefill"] == winner["decode"]
    beaten = f"a pair of cards beats the best single card in only {1 - one.mean():.0%} of the models and regions"
    two = apart[apart["prefill"] != apart["decode"]].dropna(subset="saving")
    both = two[["prefill", "decode"]].apply(lambda names: " ".join(sorted(names)), axis=1)
    better = (
        two.assign(pair=both).groupby(["model", "zone", "pair"])[["saving", "probability"]].max()
    )
    ours = better.xs("rtx-6000-ada t4", level="pair")["saving"]
    gains = f"up to {ours.max():.0%}, and something in {(ours > 0).mean():.0%} of the models and regions"
    one_gpu = apart.query("model == @MODEL and zone == @SUNNY and prefill == decode")
    grams = one_gpu.assign(gpu=one_gpu["prefill"], prefill_mg=one_gpu["prefill_g"] * 1e3)
    grams = grams.assign(decode_mg=one_gpu["decode_g"] * 1e3)
    return {
        "beaten": "no pair of cards beats the best single card, for any model and region"
        if one.all()
        else beaten,
        "gains": (better["saving"] > 0).mean(),
        "gains_surely": ((better["saving"] > 0) & (better["probability"] >= 0.95)).mean(),
        "split": grams.assign(on_front=decide.pareto(grams["prefill_mg"], grams["decode_mg"])),
        "pairs": _best_pairs(two, hidden, parts),
        "ours": gains if ours.max() > 0 else "nothing for any of the models and regions",
        "link": {"Gbit": decide.Link.GBps * 8, "W": decide.Link.W},
    }


def _best_pairs(two: pd.DataFrame, hidden: pd.DataFrame, parts: dict) -> pd.DataFrame:
    """For each model the pair that gains the most in California."""
    place = ["model", "zone", "prefill", "decode"]
    hidden = hidden.set_index(place)["saving"]
    rows = []
    for name, here in two[two["zone"] == SUNNY].groupby("model", sort=False):
        best = here.loc[here["saving"].idxmax()]
        row = {"model": name, "prefill on": best["prefill"], "decode on": best["decode"]}
        row = {column: spec.label(value) for column, value in row.items()}
        row |= {
            "less than the better alone": f"{best['saving']:.0%}",
            "in draws": f"{best['probability']:.0%}",
        }
        row |= {"with the move hidden": f"{hidden[tuple(best[place])]:.0%}"}
        row |= {"move (ms a request)": float(parts[name]["move_s"]) * 1e3, "status": "modelled"}
        rows.append(row)
    return pd.DataFrame(rows)


def _waiting(points: xr.Dataset, world: xr.Dataset) -> dict:
    """What work saves that may wait in California: a job, and a whole service that needs GPUs for the clean hours."""
    year = decide.grid_hours()
    home = year.sel(zone=[SUNNY])
    seen = {"one job, the future known": None, "one job, by yesterday's hours": home.shift(time=24)}
    rows = {
        name: decide.savings(home, decide.shift(home, SLACKS_H, seen=known))
        for name, known in seen.items()
    }
    rows |= {
        "a service, idle cards switched off": _service_that_waits(points, world, year, 0.0),
        "a service, idle cards on": _service_that_waits(points, world, year, 1.0),
    }
    known, guess, off, on = (each.set_index("slack_h").loc[12] for each in rows.values())
    start = {name: each.set_index("slack_h").loc[0] for name, each in rows.items()}
    anywhere = decide.savings(year, decide.shift(year, [0, 23])).iloc[-1]
    return {
        "waits": pd.concat([each.assign(series=name) for name, each in rows.items()]),
        "job_saves": guess["saving"],
        "job_waits_h": guess["wait_h"],
        "off_saves": off["saving"],
        "on_saves": on["saving"],
        "elsewhere": spec.zone_name(anywhere["zone"]),
        "elsewhere_saves": 1 - anywhere["fixed_g"] / guess["fixed_g"],
        "elsewhere_slack_h": int(anywhere["slack_h"]),
        "elsewhere_waiting_adds": max(anywhere["saving"], 0),
        "kept": guess["saving"] / known["saving"],
        "crowd": known["crowd"],
        "off_cards": off["cards"] / start["a service, idle cards switched off"]["cards"],
        "on_cards": on["cards"] / start["a service, idle cards on"]["cards"],
        "hourly_year": int(year.attrs["year"]),
        "missing": len(spec.hourly().attrs["missing"]),
    }


def _service_that_waits(
    points: xr.Dataset, world: xr.Dataset, year: xr.DataArray, idle: float
) -> pd.DataFrame:
    """The best plan of a mean day for a service that may wait, by how long it may."""
    clock, local = year.groupby("time.hour").mean(), decide.demand(1e9, llamas(), [SUNNY])
    rows = []
    for slack in SLACKS_H:
        freedom = decide.Freedom(waits=1.0, wait_h=slack, idle=idle)
        day = decide.plan(local, points, clock, world, freedom=freedom)
        row = {
            "slack_h": slack,
            "kg": float(day["operational_kg"].sum() + day["embodied_kg"].sum()),
        }
        waited = float((day["sent"] * day.wait_h).sum() / day["sent"].sum())
        rows.append(row | {"cards": float(day["gpus"].sum()), "wait_h": waited})
    table = pd.DataFrame(rows)
    return table.assign(saving=1 - table["kg"] / table["kg"][0])


def _plans(points: xr.Dataset, world: xr.Dataset) -> dict:
    """A day of a large service under five plans, replayed in other states of the world."""
    asked, clock = decide.demand(1e9, llamas()), decide.grid_hours().groupby("time.hour").mean()
    newest = max(spec.gpus(), key=lambda name: spec.gpu(name).release_year)
    fixed, half = decide.Freedom(), decide.Freedom(moves=0.5)
    plans = {
        "habit: newest card, nearest region": (points.sel(gpu=[newest]), fixed),
        "any card, nearest region": (points, fixed),
        "newest card, half may move": (points.sel(gpu=[newest]), half),
        "any card, half may move": (points, half),
        "and a fifth may wait six hours": (points, replace(half, waits=0.2, wait_h=6)),
    }
    days = {
        name: decide.plan(asked, given, clock, world, freedom=freedom)
        for name, (given, freedom) in plans.items()
    }
    tonnes = {
        name: decide.replay(day, plans[name][0], clock, world).to_array().sum("variable") / 1e3
        for name, day in days.items()
    }
    habit, gpu, place, both, _ = days
    less = {name: 1 - each / tonnes[habit] for name, each in tonnes.items()}
    percent = {name: each.quantile([0.05, 0.5, 0.95]).values for name, each in less.items()}
    ends = {
        name: dict(zip(("low", "median", "high"), each, strict=True))
        for name, each in percent.items()
    }
    size = max(int(day.attrs["columns"]) for day in days.values())
    return {
        "billion": float(asked.sum()) / 1e9,
        "by_both": ends[both],
        "by_place": ends[place],
        "by_gpu": ends[gpu],
        "by_gpu_odds": float((less[gpu] > 0).mean()),
        "newest": spec.label(newest),
        "plans": _parts(days, tonnes),
        "days": _days(days, tonnes, less, habit),
        "sizes": dict(asked.sizes) | dict(points.sizes),
        "columns": size,
        "busy_cards": float(days[habit]["busy"].sum() / 24),
        "samples": tonnes[habit].sizes["sample"],
    }


def _parts(days: dict, tonnes: dict) -> pd.DataFrame:
    """Tonnes of both carbons of each plan, with the interval of their sum."""
    rows = []
    for name, day in days.items():
        low, high = tonnes[name].quantile([0.05, 0.95]).values
        for part in ("operational", "embodied"):
            row = {"plan": name, "part": part, "tonnes": float(day[f"{part}_kg"].sum()) / 1e3}
            rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def _days(days: dict, tonnes: dict, less: dict, habit: str) -> pd.DataFrame:
    """Each plan: its tonnes, its GPUs, what it sends away and how long it waits."""
    rows = []
    for name, day in days.items():
        low, middle, high = tonnes[name].quantile([0.05, 0.5, 0.95]).values
        bought = day["gpus"].sum("zone").to_series().sort_values(ascending=False)
        named = [
            f"{round(count):,} {spec.label(gpu)}" for gpu, count in bought[bought > 0.5].items()
        ]
        sent, saves = day["sent"], less[name]
        row = {"plan": name, "t a day": middle, "low": low, "high": high}
        row["less than habit"] = "–" if name == habit else f"{float(saves.median()):.0%}"
        row["in draws"] = "–" if name == habit else f"{float((saves > 0).mean()):.0%}"
        row |= {"cards": ", ".join(named)}
        row["sent away"] = f"{float(sent.where(sent.zone != sent.to).sum() / sent.sum()):.0%}"
        row["waiting (h)"] = float((sent * day.wait_h).sum() / sent.sum())
        rows.append(row | {"status": "modelled"})
    return pd.DataFrame(rows)

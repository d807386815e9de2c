"""The numbers of the page for whoever runs a service: limits, split phases, waiting, plans."""

from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from footprint import decide, spec
from footprint.chapters.book import CLEAN, LARGE, SUNNY, Book
from footprint.chapters.totals import llamas

LIMITS = {"ttft_s": 2.0, "tpot_s": 0.1}
SLACKS_H = [0, 1, 3, 6, 12, 18, 23]
RECALLED = (
    "The data sheet of the {} is recalled and not read [unverified]{{.status .unverified}}: take "
    "the first place with that grain of salt, and read the second as well."
)


def operate(book: Book) -> dict:
    """Which GPU, batch and zone within latency limits; split phases; waiting; a day's plans."""
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
    """The GPU of least carbon within limits, the front without them, and what demand changes."""
    ranked = decide.optimum(LARGE, list(decide.ZONES), request=request, world=world)
    first = ranked.groupby("zone", sort=False).first()
    winners = [
        f"{spec.label(row.gpu)} in {spec.zone_name(zone)} ({row.card:.0%})"
        for zone, row in first.iterrows()
    ]
    if first["gpu"].nunique() == 1:
        share = f"{first['card'].min():.0%} to {first['card'].max():.0%}"
        winners = [f"{spec.label(first['gpu'].iloc[0])} in all three regions ({share})"]
    recalled = {row["id"] for row in spec.table("gpus") if row["status"] == "unverified"}
    marked = sorted(spec.label(gpu) for gpu in recalled & set(first["gpu"]))
    free = replace(request, ttft_s=np.inf, tpot_s=np.inf)
    every = decide.optimum(LARGE, CLEAN, request=free, world=world)
    thousandths = {"tpot_ms": "tpot_s", "mg": "mean_g", "low": "low_g", "high": "high_g"}
    every = every.assign(**{name: every[of] * 1e3 for name, of in thousandths.items()})
    every = every.assign(hours=every["busy_s"] * 1e6 / 3600)
    busy = decide.optimum(LARGE, CLEAN, request=request, world=world, tokens_per_s=200.0).iloc[0]
    best = ranked[ranked["zone"] == CLEAN].iloc[0]
    sure = first["card"].max() >= decide.LIKELY
    return {
        "first": ", ".join(winners),
        "sure": "" if sure else ": it comes first most often, and no card is a sure winner",
        "recalled": RECALLED.format(" and the ".join(marked)) if marked else "",
        "top": _top(ranked),
        "front": every.assign(on_front=decide.pareto(every["mg"], every["tpot_ms"])),
        **_front_of_three(every),
        "busy": f"{int(busy['count'])} × {spec.label(busy['gpu'])} at batch {int(busy['batch'])}",
        "busy_mg": busy["mean_g"] * 1e3,
        "busy_wait_s": busy["wait_s"],
        **_exercise(best, busy, request.output),
    }


def _top(ranked: pd.DataFrame) -> pd.DataFrame:
    """The best five GPUs of each region."""
    top = ranked.groupby(["zone", "gpu"], sort=False).head(1).groupby("zone", sort=False).head(5)
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
    words = []
    for name, column in columns.items():
        row = front.loc[front[column].idxmin()]
        takes = f"{row['mg']:.2g} mg a token, {row['tpot_ms']:.0f} ms a step"
        takes += f", {row['hours']:.2g} card hours a million tokens"
        words.append(f"{name} on {spec.label(row['gpu'])} at batch {int(row['batch'])} ({takes})")
    return {
        "front_of_three": len(front),
        "configurations": len(every),
        "least_of_each": "; ".join(words),
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
    """Prefill on one GPU and decode on another, beside the best GPU and the better of the two."""
    parts = {name: decide.disaggregate(name, request, world) for name in llamas()}
    apart = _gpu_pairs(parts, hidden=False)
    winner = apart.groupby(["model", "zone"], sort=False).first()
    one, where = winner["prefill"] == winner["decode"], "of the models and regions"
    beaten = "no pair of cards beats the best single card, for any model and region"
    if not one.all():
        beaten = f"a pair of cards beats the best single card in only {1 - one.mean():.0%} {where}"
    two = apart[apart["prefill"] != apart["decode"]].dropna(subset="saving")
    both = two[["prefill", "decode"]].apply(lambda names: " ".join(sorted(names)), axis=1)
    pairs = two.assign(pair=both).groupby(["model", "zone", "pair"])
    better = pairs[["saving", "probability"]].max()
    ours = better.xs("rtx-6000-ada t4", level="pair")["saving"]
    gains = f"up to {ours.max():.0%}, and something in {(ours > 0).mean():.0%} {where}"
    one_gpu = apart.query("model == @LARGE and zone == @SUNNY and prefill == decode")
    grams = one_gpu.assign(gpu=one_gpu["prefill"], prefill_mg=one_gpu["prefill_g"] * 1e3)
    grams = grams.assign(decode_mg=one_gpu["decode_g"] * 1e3)
    return {
        "beaten": beaten,
        "gains": (better["saving"] > 0).mean(),
        "gains_surely": ((better["saving"] > 0) & (better["probability"] >= 0.95)).mean(),
        "split": grams.assign(on_front=decide.pareto(grams["prefill_mg"], grams["decode_mg"])),
        "pairs": _best_pairs(two, _gpu_pairs(parts, hidden=True), parts),
        "ours": gains if ours.max() > 0 else f"nothing for any {where}",
        "link": {"Gbit": decide.Link.GBps * 8, "W": decide.Link.W},
    }


def _gpu_pairs(parts: dict[str, xr.Dataset], hidden: bool) -> pd.DataFrame:
    """Every pair of GPUs for every model, see `decide.gpu_pairs`."""
    rows = [
        decide.gpu_pairs(part, hidden=hidden).assign(model=name) for name, part in parts.items()
    ]
    return pd.concat(rows, ignore_index=True)


def _best_pairs(two: pd.DataFrame, hidden: pd.DataFrame, parts: dict) -> pd.DataFrame:
    """For each model the pair that gains the most in California."""
    place = ["model", "zone", "prefill", "decode"]
    hidden = hidden.set_index(place)["saving"]
    rows = []
    for name, here in two[two["zone"] == SUNNY].groupby("model", sort=False):
        best = here.loc[here["saving"].idxmax()]
        row = {"model": name, "prefill on": best["prefill"], "decode on": best["decode"]}
        row = {column: spec.label(value) for column, value in row.items()}
        row["less than the better alone"] = f"{best['saving']:.0%}"
        row["in draws"] = f"{best['probability']:.0%}"
        row["with the move hidden"] = f"{hidden[tuple(best[place])]:.0%}"
        row |= {"move (ms a request)": float(parts[name]["move_s"]) * 1e3, "status": "modelled"}
        rows.append(row)
    return pd.DataFrame(rows)


def _waiting(points: xr.Dataset, world: xr.Dataset) -> dict:
    """What waiting saves in California, for a job and for a service that needs more GPUs for it."""
    year = decide.grid_hours()
    home = year.sel(zone=[SUNNY])
    yesterday = home.shift(time=24)
    known_rows = decide.savings(home, decide.shift(home, SLACKS_H))
    guess_rows = decide.savings(home, decide.shift(home, SLACKS_H, seen=yesterday))
    off_rows = _service_that_waits(points, world, year, idle=0.0)
    on_rows = _service_that_waits(points, world, year, idle=1.0)
    series = {
        "one job, the future known": known_rows,
        "one job, by yesterday's hours": guess_rows,
        "a service, idle cards switched off": off_rows,
        "a service, idle cards on": on_rows,
    }
    known, guess, off, on = [rows.set_index("slack_h").loc[12] for rows in series.values()]
    anywhere = decide.savings(year, decide.shift(year, [0, 23])).iloc[-1]
    return {
        "waits": pd.concat([rows.assign(series=name) for name, rows in series.items()]),
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
        "off_cards": off["cards"] / off_rows["cards"][0],
        "on_cards": on["cards"] / on_rows["cards"][0],
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
        kg = float(day["operational_kg"].sum() + day["embodied_kg"].sum())
        row = {"slack_h": slack, "kg": kg, "cards": float(day["gpus"].sum())}
        rows.append(row | {"wait_h": _mean_wait_h(day)})
    table = pd.DataFrame(rows)
    return table.assign(saving=1 - table["kg"] / table["kg"][0])


def _mean_wait_h(day: xr.Dataset) -> float:
    return float((day["sent"] * day.wait_h).sum() / day["sent"].sum())


def _plans(points: xr.Dataset, world: xr.Dataset) -> dict:
    """A day of a large service under five plans, replayed in other states of the world."""
    demand, clock = decide.demand(1e9, llamas()), decide.grid_hours().groupby("time.hour").mean()
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
        name: decide.plan(demand, given, clock, world, freedom=freedom)
        for name, (given, freedom) in plans.items()
    }
    tonnes = {
        name: decide.replay(day, plans[name][0], clock, world).to_array().sum("variable") / 1e3
        for name, day in days.items()
    }
    habit, gpu, place, both, _ = days
    less = {name: 1 - each / tonnes[habit] for name, each in tonnes.items()}
    size = max(int(day.attrs["columns"]) for day in days.values())
    return {
        "billion": float(demand.sum()) / 1e9,
        "by_both": _interval(less[both]),
        "by_place": _interval(less[place]),
        "by_gpu": _interval(less[gpu]),
        "by_gpu_odds": float((less[gpu] > 0).mean()),
        "newest": spec.label(newest),
        "plans": _parts(days, tonnes),
        "days": _days(days, tonnes, less, habit),
        "sizes": dict(demand.sizes) | dict(points.sizes),
        "columns": size,
        "busy_cards": float(days[habit]["busy"].sum() / 24),
        "samples": tonnes[habit].sizes["sample"],
    }


def _interval(samples: xr.DataArray) -> dict[str, float]:
    """Median and the ends of the 90 % interval."""
    bounds = samples.quantile([0.05, 0.5, 0.95]).values
    return dict(zip(("low", "median", "high"), bounds, strict=True))


def _parts(days: dict, tonnes: dict) -> pd.DataFrame:
    """Tonnes of both carbons of each plan, with the interval of their sum."""
    rows = []
    for name, day in days.items():
        bounds = _interval(tonnes[name])
        for part in ("operational", "embodied"):
            row = {"plan": name, "part": part, "tonnes": float(day[f"{part}_kg"].sum()) / 1e3}
            rows.append(row | {"low": bounds["low"], "high": bounds["high"]})
    return pd.DataFrame(rows)


def _days(days: dict, tonnes: dict, less: dict, habit: str) -> pd.DataFrame:
    """Each plan: its tonnes, its GPUs, what it sends away and how long it waits."""
    rows = []
    for name, day in days.items():
        bounds = _interval(tonnes[name])
        bought = day["gpus"].sum("zone").to_series().sort_values(ascending=False)
        bought = bought[bought > 0.5].items()
        sent, saves = day["sent"], less[name]
        row = {"plan": name, "t a day": bounds["median"]}
        row |= {"low": bounds["low"], "high": bounds["high"]}
        row["less than habit"] = "–" if name == habit else f"{float(saves.median()):.0%}"
        row["in draws"] = "–" if name == habit else f"{float((saves > 0).mean()):.0%}"
        row["cards"] = ", ".join(f"{round(count):,} {spec.label(gpu)}" for gpu, count in bought)
        row["sent away"] = f"{float(sent.where(sent.zone != sent.to).sum() / sent.sum()):.0%}"
        rows.append(row | {"waiting (h)": _mean_wait_h(day), "status": "modelled"})
    return pd.DataFrame(rows)

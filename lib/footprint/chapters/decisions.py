"""The numbers of the pages on which GPU to take: the decision, and the cells behind it."""

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, spec
from footprint.carbon import served, totals
from footprint.chapters.carbon import table
from footprint.charts import theme
from footprint.charts.carbon import REGIONS
from footprint.decide import claims, compare
from footprint.decide.world import tokens
from footprint.energy import findings
from footprint.predict import model as predict

WAYS = ("one at a time", "own best batch")
FEW = 0.05  # a tie that fewer of the samples have is not given a value
HOST_W = compare.HOST_W
ENDS = ("CA-QC", "US-NW-PACE")  # the cleanest and the dirtiest of the three regions
DAYS_A_YEAR = carbon.YEAR_S / 86400
INTENSITY = xr.DataArray(np.geomspace(1, 1000, 25), dims="g_per_kwh", attrs={"units": "g/kWh"})


def sides(points: xr.Dataset, book, way: str) -> list[xr.Dataset]:
    """Both sides of the comparison, one request at a time or each GPU at its own best batch."""
    best = totals.thriftiest(totals.per_token(points, approaches=[totals.MAIN])).sel(
        zone="CA-QC", drop=True
    )
    batch = {
        gpu: 1 if way == WAYS[0] else best.sel(gpu=gpu).fillna(1) for gpu in (book.old, book.new)
    }
    return [compare.side(points, gpu).sel(batch=at) for gpu, at in batch.items()]


def decide(book) -> dict:
    """Which GPU emits less beside what host and engine, by grid; when one pays back; whether embodied carbon matters."""
    engines = compare.engines(book.requests)
    pairs = {
        (engine, way): sides(points, book, way)
        for engine, points in engines.items()
        for way in WAYS
    }
    ties = {way: compare.break_even(*pairs["eager loop", way]) for way in WAYS}
    setups = compare.setups(book.requests)
    real = [compare.setups(book.requests, approach=name) for name in totals.SOURCED]
    real = [one.sel(engine="serving engine", counted="beside a host") for one in real]
    alone = setups.sel(engine="eager loop", counted="card alone", served="one at a time")
    rows = setups.to_dataframe().reset_index()
    odds = [
        compare.old_wins(tie, INTENSITY).assign_coords(g_per_kwh=INTENSITY.values, served=way)
        for way, tie in ties.items()
    ]
    odds = xr.concat(odds, "served").rename("probability")
    said = table("literature", "id")["value"].astype(float)
    return {
        "evidence": theme.kinds(book.requests["kind"].values.ravel()),
        **_hosts(pairs),
        "host_W": HOST_W,
        "host_kg": float(carbon.host(compare.HOST).sum()),
        "host_said_W": said["ecologits-host"] / 8,
        "newer": min(int((one < 0.5).sum()) for one in real),
        "settings": real[0].size,
        "alone": int((alone > 0.5).sum()),
        "alone_of": alone.size,
        "setups": rows.assign(setup=rows["engine"] + ", " + rows["counted"]),
        **_beyond(book.requests),
        "odds": odds.to_dataframe().reset_index(),
        "regions": totals.grids().to_dataframe("g_per_kwh").reset_index(),
        **_paybacks({engine: pairs[engine, WAYS[1]] for engine in engines}),
        **_choices(book),
        "said": said[["prism-changed", "prism-settings", "greenllm-saving"]],
        **_crossings(odds.sel(model="llama-7b", approach=totals.MAIN)),
    }


def _hosts(pairs: dict) -> dict:
    """Watts of a host at which both GPUs take the same energy for a token, and the older GPU's energy over the newer's."""
    rows, ratios = [], {}
    for (engine, way), both in pairs.items():
        old, new = (side[["energy_J", "busy_s"]].median("draw") for side in both)
        tie, ratios[engine, way] = compare.host_tie(old, new), old["energy_J"] / new["energy_J"]
        watts = {
            findings.label(str(model)): "T4 has no lead" if np.isnan(at) else f"{at:,.0f} W"
            for model, at in tie.to_series().items()
        }
        rows.append({"engine": engine, "served": way, **watts, "status": "modelled"})
        if (engine, way) == ("serving engine", WAYS[0]):
            lone_W = tie
    return {
        "hosts": pd.DataFrame(rows),
        "lone": ratios["serving engine", WAYS[0]],
        "lone_W": lone_W,
        "full_eager": float(ratios["eager loop", WAYS[1]].sel(model="llama-1b")),
        "full_serving": float(ratios["serving engine", WAYS[1]].sel(model="llama-1b")),
    }


def _beyond(requests: xr.Dataset) -> dict:
    """What a batch beyond the largest of the runs would save, and which models leave room for it on the older GPU."""
    most, beyond = int(requests.batch.max()), max(compare.BATCHES)
    names = [requests[name].values.tolist() for name in ("model", "gpu")]
    asked = {name: int(requests[name]) for name in ("prompt", "output")}
    more = served.predicted(
        predict.windows(*names, engine="serving", batch=[most, beyond], **asked)
    )
    joules = more["energy_J"].sum("phase", skipna=False).squeeze(drop=True) / more[
        "generated"
    ].squeeze(drop=True)
    saved = 1 - joules.sel(batch=beyond) / joules.sel(batch=most)
    fits = [
        findings.label(name)
        for name in saved.model.values
        if saved.sel(model=name, gpu="t4").notnull()
    ]
    return {
        "largest": most,
        "beyond": beyond,
        "saved": saved.sel(gpu="rtx-6000-ada"),
        "room": "the " + " and the ".join(fits) + " alone" if fits else "none of the models",
    }


def _paybacks(pairs: dict) -> dict:
    """When one newer GPU that replaces older ones has paid back, on grids as they are and on ones that get cleaner."""
    known = totals.by_year()
    trend = (known.isel(year=-1) / known.isel(year=0)) ** (1 / (known.sizes["year"] - 1))
    pace, curves, days = float(trend.min()), [], {}
    for engine, (old, new) in pairs.items():
        outruns = np.floor((old["busy_s"] / new["busy_s"]).median("draw"))
        use = {"use": carbon.Use(utilisation=0.5), "replaced": outruns, "age_years": 3.0}
        for counted, watts in (("card alone", 0.0), ("beside a host", HOST_W)):
            both = [
                compare.beside(card, watts, 0.0).sel(approach=totals.MAIN) for card in (old, new)
            ]
            days[engine, counted] = compare.payback(*both, totals.grids(ENDS), **use)
    for accounting in ("sunk", "amortised"):  # with a serving engine, beside a host
        paid = compare.payback(*both, INTENSITY, accounting=accounting, **use) / DAYS_A_YEAR
        paid = compare.spread(paid.assign_coords(g_per_kwh=INTENSITY.values))
        curves.append(paid.assign(accounting=accounting))
    alone, host = days[engine, "card alone"], days[engine, "beside a host"]
    return {
        "replaced": ", ".join(
            f"{number:.0f} for {findings.label(model)}"
            for model, number in outruns.to_series().items()
        ),
        "paid": _paid(days),
        "payback": pd.concat(curves).replace(np.inf, np.nan).rename(columns={"median": "years"}),
        "within_alone": _within(alone),
        "within_host": _within(host),
        "drifted_alone": _within(compare.drifting(alone, pace)),
        "drifted_host": _within(compare.drifting(host, pace)),
        "years": {"first": int(known.year[0]), "last": int(known.year[-1])},
        "trend": abs(1 - trend),
        "moved": {zone: "fell" if trend.sel(zone=zone) < 1 else "rose" for zone in totals.ZONES},
        "pace": 1 - pace,
    }


def _within(days: xr.DataArray) -> xr.DataArray:
    """Share of the samples that pay back within the lifetime of a GPU."""
    return (days <= totals.YEARS * DAYS_A_YEAR).mean("draw").reset_coords(drop=True)


def _paid(days: dict) -> pd.DataFrame:
    """Days of the paybacks, and how many samples pay back in time, by engine, host and model."""
    rows = []
    for (engine, counted), each in days.items():
        middle, share = each.median("draw"), _within(each)
        for model in each.model.values:
            row = {"engine": engine, "counted": counted, "model": findings.label(model)}
            for zone in ENDS:
                at = {"model": model, "zone": zone}
                row[f"{REGIONS[zone]} (days)"] = f"{float(middle.sel(at)):,.0f}".replace(
                    "inf", "never"
                )
                row[f"{REGIONS[zone]}, in five years"] = f"{float(share.sel(at)):.0%}"
            rows.append(row | {"status": "modelled"})
    return pd.DataFrame(rows)


def _choices(book) -> dict:
    """In how many cases a choice by both carbons would have saved something over a choice by one."""
    pair = book.at().sel(gpu=[book.old, book.new])
    saving = compare.choices(tokens(pair, book.world))
    share = (saving > claims.WORTH).mean(["sample", "model", "zone"])
    return {
        "by_operational": share["saving_operational"],
        "by_embodied": share["saving_embodied"],
        "worth": claims.WORTH,
    }


def _crossings(odds: xr.DataArray) -> dict:
    """Whether the likelier GPU for the 7B model turns with the grid, in both ways of serving."""
    found = {}
    for way, name in zip(WAYS, ("lone", "own"), strict=True):
        at = odds.sel(served=way)
        likely = at.values > 0.5
        turns = at.g_per_kwh.values[np.flatnonzero(likely[1:] != likely[:-1])]
        found[f"{name}_turns"] = f"turns near {turns[0]:.0f} g/kWh" if len(turns) else "never turns"
        found[f"{name}_odds"] = {"cleanest": float(at[0]), "dirtiest": float(at[-1])}
    grids = table("grids").query("kind == 'lifecycle' and year == '2023'")["g_per_kwh"]
    return found | {"cleanest_g": grids.astype(float).min()}


def cells(book) -> dict:
    """Who more likely emits less at every batch, lifetime, region and method, and where the answer turns."""
    requests = book.requests
    wins = compare.who_wins(requests).isel(utilisation=0, drop=True)
    odds = compare.odds(wins["carbon_ratio"])
    rows = odds.to_dataframe().reset_index().dropna(subset="probability")
    sourced = rows["approach"].isin(totals.SOURCED)
    names = ["RTX 6000 Ada", "likely RTX 6000 Ada", "cannot tell", "likely T4", "T4"]
    fates = pd.cut(
        rows["probability"], [-1, 0.05, 0.25, 0.75, 0.95, 1.1], right=False, labels=names
    )
    counts = pd.crosstab(rows["approach"], fates, normalize="index").reindex(
        list(totals.APPROACHES)
    )
    shown = counts.map(lambda share: f"{share:.0%}").rename_axis("embodied by").reset_index()
    main = odds.sel(approach=totals.MAIN)
    ends = main.isel(lifetime_years=[0, -1]).mean(["model", "batch", "zone"])
    some = odds.sel(approach="teardown", lifetime_years=[3, 5, 8]).to_dataframe().reset_index()
    old, new = (compare.side(requests, gpu) for gpu in (book.old, book.new))
    return {
        "years": odds.lifetime_years.to_series(),
        "sourced": int(sourced.sum()),
        "unsourced": int((~sourced).sum()),
        "shares": shown.assign(
            status=["unverified" if name == "paper" else "modelled" for name in counts.index]
        ),
        "shortest": float(ends[0]),
        "longest": float(ends[1]),
        "by_life": some.assign(life=some["lifetime_years"].astype(str) + " years"),
        "all": _all_cells(wins, odds),
        "about": f"All {len(rows):,} cells as a table: the probability that the T4 emits less and that it takes less energy, "
        "and the embodied share on each card (medians).",
        "turns": _turns(main.sel(lifetime_years=5), old, new),
        "ties": _ties(book),
    }


def _all_cells(wins: xr.Dataset, odds: xr.DataArray) -> pd.DataFrame:
    """Every cell as a row: probabilities and embodied shares by lifetime."""
    shares = wins["embodied_share"].median("draw")
    columns = {"t4_emits_less": odds}
    columns |= {
        f"{name}_embodied": shares.sel(gpu=gpu, drop=True)
        for name, gpu in (("t4", "t4"), ("rtx", "rtx-6000-ada"))
    }
    whole = xr.Dataset(columns).to_dataframe().reset_index().dropna(subset="t4_emits_less")
    index = ["model", "batch", "zone", "approach"]
    whole = whole.pivot(index=index, columns="lifetime_years", values=list(columns))
    whole.columns = [f"{name}_{years}_years" for name, years in whole.columns]
    less = (
        compare.odds(wins["energy_ratio"])
        .to_dataframe()["probability"]
        .rename("t4_takes_less_energy")
    )
    return whole.reset_index().join(less, on=["model", "batch"])


def _turns(odds: xr.DataArray, old: xr.Dataset, new: xr.Dataset) -> pd.DataFrame:
    """The lifetime, the utilisation and the batches at which the likelier GPU changes, by region and model."""
    rows = []
    for zone, name in REGIONS.items():
        grid = spec.grid(zone).g_per_kwh
        for model in odds.model.values:
            cards = [card.sel(model=model, batch=1, approach=totals.MAIN) for card in (old, new)]
            row = {"region": name, "model": findings.label(model)}
            for by, (low, high), title, share in (
                ("lifetime_years", (1, 10), "turns at lifetime (years)", "in draws"),
                ("utilisation", (0.05, 1), "turns at utilisation", "in draws "),
            ):
                tie = compare.break_even(*cards, by, g_per_kwh=grid)["value"]
                known = tie.where((tie >= low) & (tie <= high))
                part = float(known.notnull().mean())
                row |= {
                    title: float(known.median()) if part >= FEW else np.nan,
                    share: f"{part:.0%}",
                }
            likely = odds.sel(zone=zone, model=model).dropna("batch") > 0.5
            at = np.flatnonzero(likely.values[1:] != likely.values[:-1])
            turns = [f"{int(likely.batch[i])} to {int(likely.batch[i + 1])}" for i in at]
            rows.append(
                row | {"turns between batches": ", ".join(turns) or "none", "status": "modelled"}
            )
    return pd.DataFrame(rows)


def _ties(book) -> pd.DataFrame:
    """The intensity at which both GPUs emit the same, by way of serving and model."""
    rows = []
    for way in WAYS:
        ties = compare.break_even(*sides(book.requests, book, way)).sel(approach=totals.MAIN)
        for model in ties.model.values:
            at = ties.sel(model=model)
            below, above, value = at["old_below"], at["old_above"], at["value"]
            exists = float(value.notnull().mean())
            low, mid, high = (
                value.quantile([0.05, 0.5, 0.95]).values if exists >= FEW else [np.nan] * 3
            )
            row = {"model": findings.label(model), "served": way, "a tie exists": f"{exists:.0%}"}
            row |= {"tie (g/kWh)": mid, "low": low, "high": high}
            for name, share in (
                ("T4 below", below & ~above),
                ("T4 above", ~below & above),
                ("T4 always", below & above),
                ("Ada always", ~below & ~above),
            ):
                row[name] = f"{float(share.mean()):.0%}"
            rows.append(row | {"status": "modelled"})
    return pd.DataFrame(rows)

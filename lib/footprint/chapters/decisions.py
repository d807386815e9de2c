"""The numbers of the pages on which GPU to take: the decision, and the cells behind it."""

import itertools

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, predict, spec
from footprint import decide as choose
from footprint.chapters.book import CLEAN, DIRTY, LARGE, SMALL, Book
from footprint.chapters.totals import fates, host_use
from footprint.charts import theme

ENGINES = {"eager": "eager loop", "serving": "serving engine"}
LONE, OWN = "one at a time", "own best batch"
ALONE, HOSTED = "card alone", "beside a host"
FEW = 0.05  # a tie that fewer of the samples have is not given a value
INTENSITY = xr.DataArray(np.geomspace(1, 1000, 25), dims="g_per_kwh", attrs={"units": "g/kWh"})
DAYS_A_YEAR = carbon.YEAR_S / 86400


def sides(book: Book, engine: str, way: str, gpus: tuple[str, ...] = ()) -> list[xr.Dataset]:
    """What a token takes on both GPUs, one request at a time or at its own best batch in Quebec."""
    points, both = book.at(engine), []
    for gpu in gpus or (book.old, book.new):
        batch = 1
        if way == OWN:
            tokens = choose.tokens(points.sel(gpu=[gpu]), book.world, methods=[carbon.MAIN])
            best = choose.best_batch(tokens).squeeze("gpu").sel(zone=CLEAN)
            batch = best.fillna(1).reset_coords(drop=True)
        both.append(choose.on_gpu(points, book.world, gpu).sel(batch=batch))
    return both


def _pair(book: Book, gpu: str) -> dict[str, str]:
    """Columns of a comparison: both GPUs, and for each whether any of its points was measured."""
    measured = book.points["evidence"].sel(**book.length) == "measured"
    seen = measured.any(["model", "engine", "batch", "phase"])
    evidence = xr.where(seen, "measured", "modelled").to_series()
    names = {"gpu": gpu, "newer": book.new}
    return names | {"evidence": evidence[gpu], "newer_evidence": evidence[book.new]}


def scenarios(book: Book, old: str, method: str = carbon.MAIN) -> xr.DataArray:
    """Probability that a token emits less on an older GPU than on the newer one, by scenario."""
    uses = {ALONE: carbon.Use(), HOSTED: host_use()}
    points = book.points.sel(**book.length)
    return choose.scenarios(points, book.world, uses, old=old, new=book.new, method=method)


def decide(book: Book) -> dict:
    """Which GPU emits less by host, engine and grid; when one pays back; what a choice saves."""
    older = [book.old, *book.others]
    setups = {gpu: scenarios(book, gpu) for gpu in older}
    real = [
        scenarios(book, book.old, method).sel(engine="serving", counted=HOSTED)
        for method in carbon.SOURCED
    ]
    alone = setups[book.old].sel(engine="eager", counted=ALONE, served=LONE)
    pairs = {(engine, way): sides(book, engine, way) for engine in ENGINES for way in (LONE, OWN)}
    by_grid = [_odds(book, gpu) for gpu in older]
    literature = spec.frame("literature").set_index("id")["value"]
    return {
        "evidence": theme.kinds(book.at().sel(gpu=[book.old, book.new])["evidence"]),
        **_hosts(book, pairs),
        "host_W": choose.HOST_W,
        "host_kg": host_use().host_kg,
        "host_said_W": literature["ecologits-host"] / 8,
        "newer": min(int((one < 0.5).sum()) for one in real),
        "settings": real[0].size,
        "alone": int((alone > 0.5).sum()),
        "alone_of": alone.size,
        "setups": pd.concat(_setups(book, gpu, odds) for gpu, odds in setups.items()),
        **_beyond(book),
        "odds": pd.concat(by_grid),
        "regions": choose.grids().to_dataframe().reset_index(),
        **_paybacks(pairs),
        **_choices(book),
        "said": literature[["prism-changed", "prism-settings", "greenllm-saving"]],
        **_crossings(by_grid[0]),
    }


def _setups(book: Book, gpu: str, odds: xr.DataArray) -> pd.DataFrame:
    """Rows of the scenarios of one GPU, named by engine and by what is counted."""
    rows = odds.to_dataframe().reset_index()
    name = rows["engine"].map(lambda name: ENGINES.get(name, name)) + ", " + rows["counted"]
    first = "" if gpu == book.old else f"{spec.label(gpu)}, "
    return rows.assign(setup=first + name, **_pair(book, gpu))


def _odds(book: Book, gpu: str) -> pd.DataFrame:
    """Probability that a token emits less on a GPU than on the newer one by grid, eager loop."""
    rows = []
    for way in (LONE, OWN):
        tie = choose.break_even(*sides(book, "eager", way, (gpu, book.new)))
        odds = choose.old_wins(tie, INTENSITY).assign_coords(g_per_kwh=INTENSITY.values, served=way)
        rows.append(odds.rename("probability").to_dataframe().reset_index())
    return pd.concat(rows).assign(**_pair(book, gpu))


def _hosts(book: Book, pairs: dict) -> dict:
    """Watts of a host at which both GPUs take equal energy for a token, and ratios without one."""
    rows, ratios, ties = [], {}, {}
    none = f"{spec.label(book.old)} has no lead"
    for (engine, way), both in pairs.items():
        old, new = [side[["token_J", "token_s"]].median("sample") for side in both]
        tie = ties[engine, way] = choose.host_tie(old, new)
        ratios[engine, way] = old["token_J"] / new["token_J"]
        watts = {
            spec.label(model): none if np.isnan(watts) else f"{watts:,.0f} W"
            for model, watts in tie.to_series().items()
        }
        rows.append({"engine": ENGINES[engine], "served": way, **watts, "status": "modelled"})
    return {
        "hosts": pd.DataFrame(rows),
        "lone": ratios["serving", LONE],
        "lone_W": ties["serving", LONE],
        "full": {engine: float(ratios[engine, OWN].sel(model=SMALL)) for engine in ENGINES},
    }


def _beyond(book: Book) -> dict:
    """What a batch beyond the largest of the runs saves, and which models fit the older GPU."""
    largest, beyond = int(book.at()["batch"].max()), max(choose.BATCHES)
    sizes = {name: [size] for name, size in book.length.items()} | {"batch": [largest, beyond]}
    more = predict.points(book.models, [book.old, book.new], engine=["serving"], **sizes).squeeze()
    joules = more["energy_J"].sum("phase", skipna=False) / more["generated"]
    saved = 1 - joules.sel(batch=beyond) / joules.sel(batch=largest)
    fits = map(spec.label, saved.sel(gpu=book.old).dropna("model")["model"].values)
    names = " and the ".join(fits)
    return {
        "batches": {"largest": largest, "beyond": beyond},
        "saved": saved.sel(gpu=book.new),
        "room": f"the {names} alone" if names else "none of the models",
    }


def _paybacks(pairs: dict) -> dict:
    """When a newer GPU that replaces older ones has paid back, also on grids that get cleaner."""
    years = choose.grid_years()
    trend = (years.isel(year=-1) / years.isel(year=0)) ** (1 / (years.sizes["year"] - 1))
    pace, curves, days = float(trend.min()), [], {}
    for engine in ENGINES:
        old, new = [side.sel(embodied_method=carbon.MAIN) for side in pairs[engine, OWN]]
        faster = (old["token_s"] / new["token_s"]).median("sample")
        outruns = np.floor(faster).where(faster >= 1, faster)  # whole GPUs, or a part of one
        given = {"replaced": outruns, "age_years": 3.0}
        for counted, watts in {ALONE: 0.0, HOSTED: choose.HOST_W}.items():
            given["use"] = carbon.Use(utilisation=0.5, host_W=watts)
            grids = choose.grids([CLEAN, DIRTY])
            days[engine, counted] = choose.payback(old, new, grids, **given)
    for accounting in ("sunk", "amortised"):  # with a serving engine, beside a host
        paid = choose.payback(old, new, INTENSITY, accounting=accounting, **given) / DAYS_A_YEAR
        paid = choose.spread(paid.assign_coords(g_per_kwh=INTENSITY.values))
        curves.append(paid.assign(accounting=accounting))
    alone, host = days["serving", ALONE], days["serving", HOSTED]
    counts = outruns.to_series().items()
    return {
        "replaced": ", ".join(f"{count:.2g} for {spec.label(model)}" for model, count in counts),
        "paid": _paid(days),
        "payback": pd.concat(curves).replace(np.inf, np.nan).rename(columns={"median": "years"}),
        "within_alone": _within(alone),
        "within_host": _within(host),
        "drifted_alone": _within(choose.drifting(alone, pace)),
        "drifted_host": _within(choose.drifting(host, pace)),
        "years": {"first": int(years["year"][0]), "last": int(years["year"][-1])},
        "trend": abs(1 - trend),
        "moved": {zone: "fell" if trend.sel(zone=zone) < 1 else "rose" for zone in choose.ZONES},
        "pace": 1 - pace,
    }


def _within(days: xr.DataArray) -> xr.DataArray:
    """Share of the samples that pay back within the lifetime of a GPU."""
    share = (days <= carbon.Use().lifetime_years * DAYS_A_YEAR).mean("sample")
    return share.where(days.notnull().all("sample")).reset_coords(drop=True)


def _paid(days: dict) -> pd.DataFrame:
    """Days of the paybacks, and how many samples pay back in time, by engine, host and model."""
    rows = []
    for (engine, counted), each in days.items():
        middle, share = each.median("sample"), _within(each)
        for model in each["model"].values:
            row = {"engine": ENGINES[engine], "counted": counted, "model": spec.label(model)}
            for zone in (CLEAN, DIRTY):
                at, name = {"model": model, "zone": zone}, spec.zone_name(zone)
                row[f"{name} (days)"] = f"{float(middle.sel(at)):,.0f}".replace("inf", "never")
                row[f"{name}, in five years"] = f"{float(share.sel(at)):.0%}"
            rows.append(row | {"status": "modelled"})
    return pd.DataFrame(rows)


def _choices(book: Book) -> dict:
    """How often a choice by both carbons saves something over a choice by one."""
    points = book.at().sel(gpu=[book.old, book.new])
    saving = choose.choices(choose.tokens(points, book.world))
    share = (saving > choose.WORTH).mean(["sample", "model", "zone"])
    return {
        "by_operational": share["saving_operational"],
        "by_embodied": share["saving_embodied"],
        "worth": choose.WORTH,
    }


def _crossings(odds: pd.DataFrame) -> dict:
    """Whether the likelier GPU for the 7B model turns with the grid, in both ways of serving."""
    rows = odds[(odds["model"] == LARGE) & (odds["embodied_method"] == carbon.MAIN)]
    grids = spec.frame("grids").query("kind == 'lifecycle' and year == 2023")["g_per_kwh"]
    numbers = {"cleanest_g": grids.min()}
    for way, name in {LONE: "lone", OWN: "own"}.items():
        at = rows[rows["served"] == way]
        likely, share = at["probability"].to_numpy() > 0.5, at["probability"]
        turns = at["g_per_kwh"].to_numpy()[:-1][likely[1:] != likely[:-1]]
        words = f"turns near {turns[0]:.0f} g/kWh" if len(turns) else "never turns"
        numbers[f"{name}_turns"] = words
        numbers[f"{name}_odds"] = {"cleanest": share.iloc[0], "dirtiest": share.iloc[-1]}
    return numbers


def cells(book: Book) -> dict:
    """Who more likely emits less at every batch, lifetime, region and method."""
    use = carbon.Use(lifetime_years=choose.LIFETIMES)
    wins = choose.ratios(book.at(), book.world, use, old=book.old, new=book.new)
    odds = choose.probability(wins["carbon_ratio"])
    rows = odds.to_dataframe().reset_index().dropna(subset="probability")
    sourced = rows["embodied_method"].isin(carbon.SOURCED)
    old, new = spec.label(book.old), spec.label(book.new)
    names = [new, f"likely {new}", "cannot tell", f"likely {old}", old]
    classes = fates(rows["probability"], names)
    counts = pd.crosstab(rows["embodied_method"], classes, normalize="index")
    counts = counts.reindex(odds["embodied_method"].values)
    shown = counts.map(lambda share: f"{share:.0%}").rename_axis("embodied by").reset_index()
    status = ["modelled" if name in carbon.SOURCED else "unverified" for name in counts.index]
    main = odds.sel(embodied_method=carbon.MAIN)
    by_lifetime = main.isel(lifetime_years=[0, -1]).mean(["model", "batch", "zone"])
    some = odds.sel(embodied_method="teardown", lifetime_years=[3, 5, 8]).reset_coords("evidence")
    some = some.to_dataframe().reset_index()
    return {
        "years": odds["lifetime_years"].to_series(),
        "sourced": int(sourced.sum()),
        "unsourced": int((~sourced).sum()),
        "shares": shown.assign(status=status),
        "shortest": float(by_lifetime[0]),
        "longest": float(by_lifetime[-1]),
        "by_life": some.assign(
            gpu=book.old, newer=book.new, life=some["lifetime_years"].astype(str) + " years"
        ),
        "all": _all_cells(wins, odds),
        "about": f"All {len(rows):,} cells as a table: the probability that the {old} emits less "
        "and that it takes less energy, and the embodied share on each card (medians).",
        "turns": _turns(book, main.sel(lifetime_years=5)),
        "ties": _ties(book),
    }


def _all_cells(wins: xr.Dataset, odds: xr.DataArray) -> pd.DataFrame:
    """Every cell as a row: probabilities and embodied shares by lifetime."""
    shares = wins["embodied_share"].median("sample")
    columns = {
        "t4_emits_less": odds,
        "t4_embodied": shares.sel(gpu=wins.attrs["old"]),
        "rtx_embodied": shares.sel(gpu=wins.attrs["new"]),
    }
    columns = {name: values.reset_coords(drop=True) for name, values in columns.items()}
    whole = xr.Dataset(columns).to_dataframe().reset_index()
    whole = whole.dropna(subset="t4_emits_less").rename(columns={"embodied_method": "approach"})
    index = ["model", "batch", "zone", "approach"]
    whole = whole.pivot(index=index, columns="lifetime_years", values=list(columns))
    whole.columns = [f"{name}_{years}_years" for name, years in whole.columns]
    less = choose.probability(wins["energy_ratio"]).rename("t4_takes_less_energy").to_series()
    return whole.reset_index().join(less, on=["model", "batch"])


def _turns(book: Book, odds: xr.DataArray) -> pd.DataFrame:
    """Lifetime, utilisation and batches at which the likelier GPU changes, by region and model."""
    both = [side.sel(embodied_method=carbon.MAIN) for side in sides(book, "eager", LONE)]
    limits = {"lifetime_years": (1, 10), "utilisation": (0.05, 1)}
    value = {"lifetime_years": "turns at lifetime (years)", "utilisation": "turns at utilisation"}
    share = {"lifetime_years": "in draws", "utilisation": "in draws "}
    rows = []
    for zone in choose.ZONES:
        grid = spec.grid(zone).g_per_kwh
        ties = {by: choose.break_even(*both, by, g_per_kwh=grid)["value"] for by in limits}
        for model in odds["model"].values:
            row = {"region": spec.zone_name(zone), "model": spec.label(model)}
            for by, (low, high) in limits.items():
                tie = ties[by].sel(model=model)
                tie = tie.where((tie >= low) & (tie <= high))
                exists = float(tie.notnull().mean())
                row[value[by]] = float(tie.median()) if exists >= FEW else np.nan
                row[share[by]] = f"{exists:.0%}"
            likely = odds.sel(zone=zone, model=model).dropna("batch").to_series() > 0.5
            steps = itertools.pairwise(likely.items())
            turns = [f"{one} to {next}" for (one, was), (next, now) in steps if was != now]
            row["turns between batches"] = ", ".join(turns) or "none"
            rows.append(row | {"status": "modelled"})
    return pd.DataFrame(rows)


def _ties(book: Book) -> pd.DataFrame:
    """The intensity at which both GPUs emit the same, by way of serving and model."""
    rows, old, new = [], spec.label(book.old), spec.label(book.new)
    for way in (LONE, OWN):
        ties = choose.break_even(*sides(book, "eager", way)).sel(embodied_method=carbon.MAIN)
        for model in ties["model"].values:
            at = ties.sel(model=model)
            below, above, value = at["old_below"], at["old_above"], at["value"]
            exists = float(value.notnull().mean())
            low = middle = high = np.nan
            if exists >= FEW:
                low, middle, high = value.quantile([0.05, 0.5, 0.95]).values
            row = {"model": spec.label(model), "served": way, "a tie exists": f"{exists:.0%}"}
            row |= {"tie (g/kWh)": middle, "low": low, "high": high}
            shares = {f"{old} below": below & ~above, f"{old} above": ~below & above}
            shares |= {f"{old} always": below & above, f"{new} always": ~below & ~above}
            row |= {name: f"{float(share.mean()):.0%}" for name, share in shares.items()}
            rows.append(row | {"status": "modelled"})
    return pd.DataFrame(rows)

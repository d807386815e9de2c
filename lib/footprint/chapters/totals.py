"""The numbers of the pages on the total carbon of a token, and of the explorer."""

from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, decide, predict, spec
from footprint.chapters.book import CLEAN, DIRTY, LARGE, SMALL, SUNNY, Book
from footprint.chapters.carbon import (
    POINTS,
    apart,
    choices,
    embodied_share,
    ends,
    pair,
    place,
    published_kg,
)
from footprint.charts import explorer as controls
from footprint.charts import theme

SAMPLES = 64  # of the explorer: a probability is good to some 6 points, and a change shows at once
HOST_W, SIZES = 100.0, {"prompt": 128, "output": 128}
RECALLED = " (its data sheet is recalled and not read [unverified]{.status .unverified})"


def together(book: Book) -> dict:
    """Both carbons of a token: shares, ratios of GPUs, in use, beside a host, as a score."""
    tokens, both = book.tokens, pair(book, book.tokens)
    middle = embodied_share(both).sel(embodied_method=list(carbon.SOURCED)).median(POINTS)
    clean, dirty = middle.sel(zone=CLEAN), middle.sel(zone=DIRTY)
    plain = float(clean.min()) >= decide.MATTERS > float(dirty.max())
    both_count = "on a dirty grid only the energy counts, on a clean one both do"
    return {
        "evidence": theme.kinds(both["evidence"]),
        "clean": clean,
        "dirty": dirty,
        "so": both_count if plain else "the cleaner the grid, the more the making counts",
        "theirs": _published_shares(book),
        "total": _totals(tokens),
        **_balance(book),
        **_share_by_batch(tokens, book),
        "phases": _phases(book),
        **_rivers(both),
        **_same_batch(book),
        **_own_batch(both, book),
        **_in_use(book),
        **_score(both.sel(model=LARGE, gpu="old", batch=1), book),
    }


def _published_shares(book: Book) -> pd.Series:
    """Embodied share in Quebec by the kilograms that others publish for the two GPUs, medians."""
    rows, shares = published_kg([book.old, book.new]), []
    for row in rows[rows["set"].isin(["scarif", "boavizta", "eserve"])].itertuples():
        one = book.tokens.sel(gpu=row.gpu, zone=CLEAN)
        made = carbon.amortised(row.kg, one["token_s"])
        shares.append(float((made / (made + one["operational_g"])).median()))
    return pd.Series(shares)


def _totals(tokens: xr.Dataset) -> pd.DataFrame:
    """Both carbons of a token of the 1B model, each GPU at its best batch in each region."""
    rows, names = [], {"operational_g": "operational", "embodied_g": "embodied"}
    for one in apart(tokens.sel(embodied_method=carbon.MAIN), SMALL):
        whole = one["operational_g"] + one["embodied_g"].fillna(0.0)
        best = whole.mean("sample").argmin("batch")
        grams = one[list(names)].isel(batch=best).rename(names).mean("sample")
        bounds = ends(whole.isel(batch=best))
        rows.append(grams.to_array("carbon", "g").to_dataset().merge(bounds).to_dataframe())
    return pd.concat(rows).dropna(subset="g").reset_index()


def _balance(book: Book) -> dict:
    """The intensity at which both carbons of a GPU that always works are the same."""
    both = pair(book, book.tokens)
    watts = (both["token_J"] / both["token_s"]).median(["model", "batch", "sample"]).drop_attrs()
    kg = pair(book, book.world["embodied_kg"]).median("sample").assign_attrs(units="kg")
    per_kg = carbon.amortised(1.0, 1.0) / carbon.operational(watts, 1.0)  # g/kWh for a kilogram
    table = xr.Dataset({"watts": watts, "kg": kg, "equal": kg * per_kg}).reset_coords(drop=True)
    rows = table.to_dataframe(["gpu", "embodied_method"]).reset_index()
    sourced = rows["embodied_method"].isin(carbon.SOURCED)
    rows["status"] = np.where(sourced, "modelled", "unverified")
    rows["gpu"] = rows["gpu"].map(book.names)
    columns = {"gpu": "card", "watts": "W while it works", "embodied_method": "embodied by"}
    columns |= {"kg": "kg", "equal": "equal at (g/kWh)", "status": "status"}
    ours = table["equal"].sel(embodied_method=list(carbon.SOURCED))
    published = published_kg([book.old, book.new]).query("set in ['scarif', 'boavizta']")
    factors = {book.old: float(per_kg.sel(gpu="old")), book.new: float(per_kg.sel(gpu="new"))}
    theirs = published["kg"] * published["gpu"].map(factors).astype(float)
    quebec = {kind: spec.grid(CLEAN, 2023, kind).g_per_kwh for kind in ("lifecycle", "direct")}
    within = theirs.min() < quebec["lifecycle"] < theirs.max()
    return {
        "balance": rows[list(columns)].rename(columns=columns),
        "equal": ours,
        "cases": ours.size,
        "quebec": quebec,
        "above": {kind: int((ours > grid).sum()) for kind, grid in quebec.items()},
        "theirs_equal": theirs,
        "sides": f"on {'both sides' if within else 'one side'} of",
    }


def _share_by_batch(tokens: xr.Dataset, book: Book) -> dict:
    """The embodied share of the 1B model against the batch."""
    share = embodied_share(tokens.sel(model=SMALL, embodied_method=carbon.MAIN))
    newer = share.sel(zone=CLEAN, gpu=book.new).median("sample").dropna("batch")
    first, last = float(newer.sel(batch=1)), float(newer[-1])
    waits = "a card that waits for its host draws less power in the same time."
    return {
        "share": decide.intervals(share).rename(columns={"median": "share"}).dropna(subset="share"),
        "by_batch": {"first": first, "last": last},
        "why": waits if first > last else "its power hardly moves.",
    }


def _phases(book: Book) -> pd.DataFrame:
    """Milligrams of a token by phase in California, and its embodied share by region."""
    main = book.tokens.sel(embodied_method=carbon.MAIN)
    share = embodied_share(main).median("sample")
    split = book.emitted(by_phase=True).sel(embodied_method=carbon.MAIN, zone=SUNNY)
    mg = decide.total(split).median("sample") * 1e3
    rows = []
    for at in choices(book.tokens):
        prefill, decode = mg.sel(at).sel(phase=["prefill", "decode"]).values
        row = place(at) | {"prefill (mg)": prefill, "decode (mg)": decode}
        row["prefill share"] = f"{prefill / (prefill + decode):.1%}"
        for zone in decide.ZONES:
            part = float(share.sel(at).sel(zone=zone))
            row[f"embodied share, {spec.zone_name(zone)}"] = f"{part:.1%}"
        rows.append(row | {"status": main["evidence"].sel(at).item()})
    return pd.DataFrame(rows)


def _rivers(both: xr.Dataset) -> dict:
    """The embodied share in Quebec by what its hydropower is taken to emit."""
    literature = spec.frame("literature").set_index("id")["value"]
    intensities = {
        "as in the table of grids": spec.grid(CLEAN).g_per_kwh,
        "as a producer of Quebec states": literature["hydropower-north"],
        "as the mean of the world's": literature["hydropower-world"],
    }
    grid = xr.DataArray(list(intensities.values()), {"counted": list(intensities)})
    made = both["embodied_g"].sel(embodied_method=list(carbon.SOURCED))
    share = (made / (made + carbon.operational(both["token_J"], grid))).median(POINTS)
    shown = share.transpose("counted", ...).to_pandas().map(lambda value: f"{value:.1%}")
    shown = shown.add_prefix("making, ").assign(status="derived")
    shown.insert(0, "g/kWh", grid.to_series())
    return {
        "river_g": literature[["hydropower-north", "hydropower-world"]],
        "north": share.sel(counted="as a producer of Quebec states"),
        "world": share.sel(counted="as the mean of the world's"),
        "rivers": shown.rename_axis("hydropower counted").reset_index(),
    }


def _same_batch(book: Book) -> dict:
    """Ratios of a token's carbon to that on the newer GPU at the same batch, and their odds."""
    ratios = {
        gpu: decide.ratios(book.at(), book.world, old=gpu, new=book.new)["carbon_ratio"]
        for gpu in [book.old, *book.others]
    }
    rows = [
        decide.intervals(ratio.sel(embodied_method=carbon.MAIN)).assign(gpu=gpu, newer=book.new)
        for gpu, ratio in ratios.items()
    ]
    odds = decide.probability(ratios[book.old])
    shown = odds.reset_coords("evidence").to_dataframe().reset_index()
    cells = odds.sel(embodied_method=list(carbon.SOURCED)).values
    cells = cells[np.isfinite(cells)]
    names = ["newer_surely", "newer_likely", "open", "older_likely", "older_surely"]
    return {
        "ratios": pd.concat(rows).dropna(subset="median"),
        "ratio": rows[0]["median"],
        "odds": shown.assign(gpu=book.old, newer=book.new),
        "odds_cases": cells.size,
        "fates": fates(cells, names).value_counts(),
    }


def fates(odds, names: list[str]) -> pd.Series | pd.Categorical:
    """Probabilities in five classes with these names, from surely not to surely."""
    return pd.cut(odds, [-1, 0.05, 0.25, 0.75, 0.95, 1.1], right=False, labels=names)


def _own_batch(both: xr.Dataset, book: Book) -> dict:
    """Which GPU emits less, each at its own best batch, by model and region."""
    least = decide.total(both.sel(embodied_method=carbon.MAIN)).min("batch")
    batch, mg = decide.best_batch(both), least.median("sample") * 1e3
    wins = (least.sel(gpu="old") < least.sel(gpu="new")).mean("sample")
    rows = []
    for model in least["model"].values:
        for zone in decide.ZONES:
            row = {"model": spec.label(model), "region": spec.zone_name(zone)}
            for side, gpu in {"old": book.old, "new": book.new}.items():
                at = {"model": model, "zone": zone, "gpu": side}
                cell = f"{float(mg.sel(at)):.2g} ({float(batch.sel(at)):.0f})"
                row[f"{spec.label(gpu)} (mg, batch)"] = cell
            share = float(wins.sel(model=model, zone=zone))
            rows.append(row | {f"P({spec.label(book.old)} emits less)": f"{share:.0%}"})
    return {
        "memory_ratio": spec.gpu(book.new).memory_GiB / spec.gpu(book.old).memory_GiB,
        "own_batch": pd.DataFrame(rows),
        "older_wins": int((wins > 0.5).sum()),
        "settings": wins.size,
    }


def host_use() -> carbon.Use:
    """The use of a GPU with its share of the watts and the embodied carbon of a host."""
    return carbon.Use(host_W=decide.HOST_W, host_kg=float(carbon.host(decide.HOST).sum()))


def _in_use(book: Book) -> dict:
    """A token of a GPU whose lifetime, utilisation and PUE are sampled, or with a host."""
    used, grams = pair(book, book.emitted(decide.sampled_use(book.world))), pair(book, book.tokens)
    share = embodied_share(used).sel(zone=CLEAN)
    grows = decide.total(used) / decide.total(grams)
    use = host_use()
    hosted = pair(book, book.emitted(use)).sel(zone=CLEAN, embodied_method=carbon.MAIN)
    return {
        "used": share.sel(embodied_method=list(carbon.SOURCED)).median(POINTS),
        "used_ratio": float(grows.sel(embodied_method=carbon.MAIN).median()),
        "host_W": use.host_W,
        "host_kg": use.host_kg,
        "host_share": float(embodied_share(hosted).median()),
    }


def _score(token: xr.Dataset, book: Book) -> dict:
    """One request on the older GPU in Quebec as a Software Carbon Intensity, term by term."""
    count = float(book.length["output"])
    joules, seconds = float(token["token_J"].median()), float(token["token_s"].median())
    kg = float(book.world["embodied_kg"].sel(gpu=book.old, embodied_method=carbon.MAIN).median())
    grid = spec.grid(CLEAN).g_per_kwh
    score = carbon.score(joules * count, grid, kg, seconds * count, count)
    rows = [
        {"term": name, "value": float(term), "unit": term.attrs["units"]}
        | {"meaning": term.attrs["long_name"]}
        for name, term in score.data_vars.items()
    ]
    sci_mg = float(score["SCI"]) * 1e3
    return {"sci_mg": sci_mg, "boundary": score.attrs["boundary"], "sci": pd.DataFrame(rows)}


def llamas() -> list[str]:
    """The LLaMA models of more than a billion parameters."""
    large = [name for name in spec.models() if spec.model(name).parameters > 1e9]
    return [name for name in large if name.startswith("llama")]


def explorer(book: Book) -> dict:
    """What the explorer carries, and its ranking at the settings that it opens with."""
    its, points, grids = controls.ITS, _carried(), _grids_by_year()
    world = book.market.isel(sample=slice(SAMPLES))
    years = decide.grid_years()
    use = carbon.Use(its["lifetime"], its["utilisation"], its["pue"])
    request = decide.Request(**SIZES, batch=[its["batch"]], engine=its["engine"])
    given = {"request": request, "world": world}
    alone = decide.optimum(its["model"], its["region"], use=use, **given).set_index("gpu")
    host = replace(use, host_W=HOST_W)
    hosted = decide.optimum(its["model"], its["region"], use=host, **given).set_index("gpu")
    first, likeliest = alone.index[0], alone["least"].idxmax()
    grew = (hosted["mean_g"] / alone["mean_g"]).sort_values()
    recalled = spec.frame("gpus").set_index("id")["status"][first] == "unverified"
    other = f"most often best is the {spec.label(likeliest)},"
    return {
        "points": points,
        "world": world.assign(year=(years == world["g_per_kwh"]).all("zone").argmax("year")),
        "grids": grids,
        "its": {name: its[name] for name in ("batch", "utilisation")},
        "first": spec.label(first),
        "best": "it is best" if first == likeliest else other,
        "often": alone["least"].max(),
        "plain": "" if alone["least"].max() >= 0.5 else ": no card is plainly the best",
        "recalled": RECALLED if recalled else "",
        "rows": len(points),
        "carried": points[["model", "gpu", "engine", "batch"]].nunique(),
        "samples": SAMPLES,
        "years": {
            "first": int(years["year"][0]),
            "last": int(years["year"][-1]),
            "count": years.sizes["year"],
        },
        "request": SIZES,
        "zones": len(grids),
        "host_W": HOST_W,
        "most": {"name": spec.label(grew.index[-1]), "grew": grew.iloc[-1]},
        "least": {"name": spec.label(grew.index[0]), "grew": grew.iloc[0]},
    }


def _carried() -> pd.DataFrame:
    """What a token takes at each point that fits, TTFT and TPOT, and the slopes of the errors."""
    sizes = {name: [size] for name, size in SIZES.items()} | {"batch": list(decide.BATCHES)}
    points = predict.points(llamas(), spec.gpus(), engine=["eager", "serving"], **sizes)
    points = points.squeeze(["prompt", "output"])
    time, energy = points["time_s"], points["energy_J"]
    whole_time, whole_energy = time.sum("phase", skipna=False), energy.sum("phase", skipna=False)
    table = {
        "token_J": whole_energy / points["generated"],
        "token_s": whole_time / points["generated"],
        "ttft_s": time.sel(phase="prefill", drop=True),
        "tpot_s": time.sel(phase="decode", drop=True) / (SIZES["output"] - 1),
        "idle_W": points["idle_W"],
    }
    for end in ("_low", "_high"):
        time_sd, energy_sd = points[f"time_s{end}_sd"], points[f"energy_J{end}_sd"]
        shared = np.minimum(time_sd, energy_sd)
        power = np.sqrt(energy_sd**2 - shared**2)
        table[f"time{end}"] = (time_sd * time).sum("phase", skipna=False) / whole_time
        table[f"shared{end}"] = (shared * energy).sum("phase", skipna=False) / whole_energy
        table[f"power{end}"] = (power * energy).sum("phase", skipna=False) / whole_energy
    return xr.Dataset(table).reset_coords(drop=True).to_dataframe().dropna().reset_index()


def _grids_by_year() -> pd.DataFrame:
    """The name of each zone and its lifecycle g/kWh in each year, the paper's regions first."""
    rows = spec.frame("grids").query("kind == 'lifecycle'")
    table = rows.pivot(index=["zone", "name"], columns="year", values="g_per_kwh")
    table = table.reset_index("name").sort_values("name")
    zones = list(decide.ZONES)
    ours = table.loc[zones].assign(name=list(map(spec.zone_name, zones)))
    return pd.concat([ours, table.drop(zones)])

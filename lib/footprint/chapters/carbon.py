"""The numbers of the pages on carbon: operational, embodied, and both together."""

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, spec
from footprint.carbon import act, served, totals
from footprint.carbon import uncertainty as draws
from footprint.charts import theme
from footprint.charts.carbon import REGIONS
from footprint.decide import claims, compare
from footprint.energy import findings

CLEAN, SUNNY, DIRTY = totals.ZONES
POINTS = ["draw", "model", "gpu", "batch"]
MAKERS = "h100-80gb-sxm"  # the only GPU with a footprint by its maker
SMALL, LARGE = "llama-1b", "llama-7b"


def table(name: str, index: str | None = None) -> pd.DataFrame:
    """A table of `data/`, by the values of one column where it is named."""
    rows = pd.DataFrame(spec.table(name))
    return rows.set_index(index) if index else rows


def labels(frame: pd.DataFrame) -> pd.DataFrame:
    """The names of models and GPUs in place of their ids."""
    ids = [name for name in ("model", "card") if name in frame]
    return frame.assign(**{name: frame[name].map(findings.label) for name in ids})


def best_batches(requests: xr.Dataset, tokens: xr.Dataset) -> list[dict]:
    """Model, GPU and batch of each pair: one request at a time, and the batch of least carbon in California."""
    best = totals.thriftiest(tokens).sel(zone=SUNNY).fillna(1)
    return [
        {"model": model, "gpu": gpu, "batch": batch}
        for model in requests.model.values
        for gpu in requests.gpu.values
        for batch in dict.fromkeys([1, int(best.sel(model=model, gpu=gpu))])
    ]


def operational(book) -> dict:
    """Grams of the electricity of a token, by region, basis and batch; the grids of the world; the hours of a year."""
    bases = totals.grids(basis=["lifecycle", "direct"])
    region = bases.sel(basis="lifecycle")
    tokens = totals.per_token(book.requests, bases)
    one = tokens.sel(model=LARGE, batch=1)
    joules = float(one["energy_J"].sel(gpu=book.old).median())
    rows = totals.frame(one["operational_g"].expand_dims("model"), book.requests)
    fall = totals.grids(basis="lifecycle-hourly-mean") / totals.grids(basis="direct")  # one vintage
    share = tokens["embodied_g"] / totals.total(tokens)
    split = totals.per_token(book.requests, by_phase=True)["energy_J"]
    prefill = (split.sel(phase="prefill") / split.sum("phase")).median("draw")
    return {
        "evidence": theme.kinds(book.requests["kind"].values.ravel()),
        "by_region": float(region.max() / region.min()),
        **_by_batch_and_gpu(book, tokens["operational_g"].sel(basis="lifecycle", zone=DIRTY)),
        "regions": rows.rename(columns={"median": "g", "kind": "evidence", "basis": "kind"}),
        "joules": joules,
        "by_hand": _by_hand(joules),
        "million_tokens": carbon.J_PER_KWH / joules / 1e6,
        "g_per_kwh": region,
        "fall": fall,
        "embodied_share": share.sel(zone=CLEAN, approach=totals.MAIN).median(POINTS),
        "pairs": _pairs(book.requests, tokens.sel(basis="lifecycle")),
        "prefill_one": prefill.sel(batch=1),
        "prefill": prefill,
        **_grids(),
        **_hours(),
    }


def _by_batch_and_gpu(book, grams: xr.DataArray) -> dict:
    """How far apart the medians lie by batch, and by GPU at the same batch and each at its own best."""
    grams = grams.median("draw")
    same = grams.sel(gpu=book.old) / grams.sel(gpu=book.new)
    least = grams.min("batch")
    newer, older = float(same.max()), float((1 / same).max())
    return {
        "by_batch": float((grams.max("batch") / least).max()),
        "by_gpu": float((least.sel(gpu=book.old) / least.sel(gpu=book.new)).max()),
        "by_gpu_same_batch": max(older, newer),
        "same_batch_for": "for the older one" if older > newer else "for the newer one too",
    }


def _by_hand(joules: float) -> pd.DataFrame:
    """A token's grams in each region on three bases."""
    kinds = ("lifecycle", "direct", "lifecycle-hourly-mean")
    grids = [spec.grid(zone, 2023, kind) for zone in totals.ZONES for kind in kinds]
    grams = [carbon.operational(1.0, grid.g_per_kwh) for grid in grids]
    return pd.DataFrame(
        {
            "region": [REGIONS[grid.zone] for grid in grids],
            "basis": [grid.kind for grid in grids],
            "year": [str(grid.year) for grid in grids],
            "g/kWh": [grid.g_per_kwh for grid in grids],
            "µg a joule": [each * 1e6 for each in grams],
            "mg a token": [each * joules * 1e3 for each in grams],
            "source": [grid.source for grid in grids],
            "status": [grid.status for grid in grids],
        }
    )


def _pairs(requests: xr.Dataset, tokens: xr.Dataset) -> pd.DataFrame:
    """Joules and milligrams of a token by model, GPU and batch, with 90 % intervals."""
    rows = []
    for at in best_batches(requests, totals.per_token(requests)):
        one = tokens.sel(at)
        row = {"model": at["model"], "card": at["gpu"], "batch": at["batch"]}
        row["J a token"] = float(one["energy_J"].median())
        for zone, name in REGIONS.items():
            low, mid, high = np.quantile(
                one["operational_g"].sel(zone=zone) * 1e3, [0.05, 0.5, 0.95]
            )
            row[f"{name} (mg)"] = f"{mid:.2g} ({low:.2g} to {high:.2g})"
        rows.append(row | {"status": requests["kind"].sel(model=at["model"], gpu=at["gpu"]).item()})
    return labels(pd.DataFrame(rows))


def _grids() -> dict:
    """The zones of the table of grids, the ranks of the three regions, and what the paper used."""
    rows = table("grids", "zone").query("kind == 'lifecycle' and year == '2023'")
    world = rows["g_per_kwh"].astype(float).dropna().sort_values()
    rank = {zone: int((world < spec.grid(zone).g_per_kwh).sum()) + 1 for zone in totals.ZONES}
    recalled = table("paper_values", "subject").query("quantity == 'carbon intensity'")["value"]
    recalled = recalled.astype(float)
    means = {
        zone: spec.grid(zone, 2023, "lifecycle-hourly-mean").g_per_kwh for zone in recalled.index
    }
    return {
        "zones": len(world),
        "cleanest": rows["name"][world.index[0]],
        "cleanest_g": world.iloc[0],
        "dirtiest": rows["name"][world.index[-1]],
        "dirtiest_g": world.iloc[-1],
        "median_g": world.median(),
        "rank": rank,
        "recalled": recalled,
        "recalled_apart": (pd.Series(means) / recalled - 1).abs().max(),
    }


def _hours() -> dict:
    """The hourly intensities of California, and the PUE of data centres."""
    year = spec.hourly()
    known = year.dropna("time")
    days = known.groupby("time.dayofyear")
    return {
        "swing": float((days.max() / days.min()).median()),
        "tenth_g": known.quantile(0.1).item(),
        "nine_tenths_g": known.quantile(0.9).item(),
        "typical": spec.typical(year, "America/Los_Angeles"),
        "hourly_status": theme.badge(spec.table("hourly")[0]["status"]),
        "hourly_mean_g": float(known.mean()),
        "annual_g": spec.grid(SUNNY, 2022).g_per_kwh,
        "missing": len(year.attrs["missing"]),
        "missing_hours": ", ".join(year.attrs["missing"]),
        "pue": draws.priors("use")["pue", "all"],
    }


def embodied(book) -> dict:
    """What making a GPU emits, by each method: its parts, its interval, what others publish, and a token's share."""
    both = [book.old, book.new]
    parts = carbon.compare()
    kg = totals.card_kg(both, totals.SOURCED).median("draw")
    old_kg, new_kg = kg.sel(gpu=book.old), kg.sel(gpu=book.new)
    server = float(carbon.host("two-socket").sum())
    above = server > float(old_kg.max())
    hour_g = carbon.amortised(kg.sel(approach=totals.MAIN, drop=True), 3600.0)
    busy_g = carbon.amortised(float(parts["total_kg"].sel(approach="ACT", gpu=book.new)), 3600.0)
    return {
        "kg": kg,
        "old_kg": old_kg,
        "new_kg": new_kg,
        "ratio": new_kg / old_kg,
        "apart": float((kg.max("approach") / kg.min("approach")).max()),
        "parts": parts,
        "by_hand": _act_by_hand(both),
        "fab_g_per_kwh": act.fab_grid("taiwan"),
        "yield": act.ACT_YIELD,
        "memory_g": act.memory_kg_per_gb("ddr4_10nm") * act.ACT_YIELD * 1e3,
        **_intervals(both),
        **_matters(book.old),
        **_teardowns(),
        **_published(kg),
        "maker_over_act": float(
            parts["total_kg"]
            .sel(gpu=MAKERS)
            .pipe(lambda kg: kg.sel(approach="vendor") / kg.sel(approach="ACT"))
        ),
        "years": totals.YEARS,
        "hour_g": hour_g,
        "use": draws.summary(draws.use_draws(4000).to_array("use"))[["low", "high"]],
        "server_kg": server,
        "server_than": f"{'more' if above else 'less'} than a T4 by any approach",
        **_same_chips(parts.sel(gpu=book.old)),
        "busy_g": busy_g,
        "tenth_g": busy_g * 10,
    }


def _act_by_hand(gpus: list[str]) -> pd.DataFrame:
    """ACT's formula with its own defaults, input by input."""
    rows = []
    for gpu in map(spec.gpu, gpus):
        fab = act.fab_row(gpu.node)
        gas = (fab["gpa95_g_per_cm2"] + fab["gpa99_g_per_cm2"]) / 2
        area_g = act.fab_grid("taiwan") * fab["epa_kwh_per_cm2"] + gas + fab["mpa_g_per_cm2"]
        die_kg = gpu.die_mm2 / 100 / act.ACT_YIELD * area_g / 1000
        memory_kg = act.memory_kg_per_gb("ddr4_10nm") * gpu.memory_GiB
        row = {"card": gpu.name, "die (mm²)": gpu.die_mm2, "node": gpu.node}
        row |= {"ACT's node (nm)": fab["node_nm"], "EPA (kWh/cm²)": fab["epa_kwh_per_cm2"]}
        row |= {"GPA (g/cm²)": gas, "MPA (g/cm²)": fab["mpa_g_per_cm2"]}
        row |= {"memory (GB)": gpu.memory_GiB, "by hand (kg)": die_kg + memory_kg}
        rows.append(
            row | {"ACT (kg)": float(carbon.embodied(gpu)["total_kg"]), "status": "modelled"}
        )
    return pd.DataFrame(rows)


def _intervals(gpus: list[str]) -> dict:
    """The 90 % intervals of every GPU by the methods that have priors, and with ACT's own table of memory."""
    methods = {"ACT, Murphy yield": "act", "teardown": "teardown"}
    drawn = [draws.embodied_draws(spec.gpus(), 4000, 0, method) for method in methods.values()]
    wide = draws.summary(xr.concat(drawn, xr.Variable("approach", list(methods))))[["low", "high"]]
    narrow = draws.summary(draws.embodied_draws(gpus, 4000, memory="act"))[["low", "high"]]
    good = {gpu: float(act.die_yield(spec.gpu(gpu).die_mm2, "murphy")) for gpu in gpus}
    return {
        "intervals": wide.to_dataframe().reset_index().dropna(subset="low"),
        "wide": wide.sel(gpu=gpus, approach="ACT, Murphy yield"),
        "narrow": narrow,
        "good": good,
        "defects": act.MURPHY_DEFECTS,
    }


def _matters(gpu: str) -> dict:
    """Which input moves the embodied carbon of a GPU the most, by ACT and by teardown."""
    by_act, by_teardown = (draws.sensitivity(gpu, method) for method in ("act", "teardown"))
    name, memory = str(by_act["label"].values[0]), draws.priors("act")["memory_kg_per_gb", "gddr"]
    return {
        "sensitivity": by_act,
        "matters": name[0].upper() + name[1:],
        "matters_share": by_act["total_order"].values[0],
        "memory_kg": memory,
        "memory_apart": float(memory["high"]) / float(memory["low"]),
        "matters_torn": str(by_teardown["label"].values[0]),
    }


def _teardowns() -> dict:
    """The teardown method applied to the cards that it is scaled from, with and without themselves."""
    rows, known = [], spec.table("teardown")
    for one in (one for one in known if one["gpu"] != "-"):
        says, row = float(one["total_kgco2e"]), {"card": one["card"]}
        row["published (kg)"] = says
        for left, words in ((), ""), ((one["card"],), " without it"):
            kg = float(carbon.embodied(one["gpu"], "teardown", without=left)["total_kg"])
            row |= {f"scaled{words} (kg)": kg, f"error{words}": f"{kg / says - 1:+.1%}"}
        rows.append(row | {"status": one["status"]})
    odd = next(row["remarks"] for row in known if "SXM" in row["card"])
    return {"teardowns": len(known), "torn": pd.DataFrame(rows), "odd": odd}


def published_kg(gpus) -> pd.DataFrame:
    """Whole cards' kilograms as others publish them, a row each."""
    rows = table("embodied_published").query("component == 'total'")
    return (
        rows[rows["gpu"].isin(list(gpus))]
        .astype({"kgco2e": float})
        .rename(columns={"kgco2e": "kg"})
    )


def _published(kg: xr.DataArray) -> dict:
    """What others say of the two GPUs and of three larger ones, beside our methods."""
    both = list(kg.gpu.values)
    rows = published_kg([*both, "l4", "a100-40gb-sxm", MAKERS])
    rows = labels(rows[~rows["set"].str.startswith("act")].assign(card=rows["gpu"]))
    told = rows[rows["gpu"].isin(both) & ~rows["set"].str.startswith("paper")].set_index("gpu")[
        "kg"
    ]
    lower = told.max() <= float(kg.max())
    above = "the highest lie above all of ours, so ours are no bracket of what is published"
    shown = rows.sort_values(["card", "kg"]).drop_duplicates(["card", "kg"])
    shown = shown[["card", "set", "kg", "boundary", "source", "status"]]
    return {
        "accounts": shown.rename(columns={"set": "who", "kg": "kg CO2e"}),
        "others_old_kg": told.loc[[both[0]]],
        "others_new_kg": told.loc[[both[1]]],
        "others_kg": told,
        "bracket": "ours hold all of it" if lower else above,
        "maker_kg": float(carbon.embodied(MAKERS, "vendor")["total_kg"]),
        "recalled_kg": carbon.embodied(both, "paper")["total_kg"],
    }


def _same_chips(parts: xr.Dataset) -> dict:
    """How much of the difference between ACT and teardown is about the same chips, and how much is boundary."""
    silicon = [name for name in parts.component.values if name.startswith(("die", "memory"))]
    chips = (
        parts["embodied_kg"].sel(component=silicon, approach=["ACT", "teardown"]).sum("component")
    )
    gap = parts["total_kg"].sel(approach=["ACT", "teardown"]).diff("approach").item()
    return {
        "chips_kg": chips,
        "gap_kg": gap,
        "mean_kg": float(chips.sel(approach="ACT")) + gap,
        "same_chips": chips.diff("approach").item() / gap,
    }


def together(book) -> dict:
    """Both carbons of a token: shares, where they are equal, which GPU emits less, in use, beside a host, as a score."""
    requests = book.requests
    tokens = totals.per_token(requests)
    whole, main = totals.total(tokens), tokens.sel(approach=totals.MAIN)
    share = tokens["embodied_g"] / whole
    middle = share.median(POINTS).sel(approach=list(totals.SOURCED))
    clean, dirty = middle.sel(zone=CLEAN), middle.sel(zone=DIRTY)
    plain = float(clean.min()) >= claims.MATTERS > float(dirty.max())
    used = totals.per_token(requests, **totals.use())
    used_share = (used["embodied_g"] / totals.total(used)).sel(
        approach=list(totals.SOURCED), zone=CLEAN
    )
    host_kg = float(carbon.host(compare.HOST).sum())
    made = main["embodied_g"] + carbon.amortised(host_kg, main["busy_s"], totals.YEARS)
    energy = main["energy_J"] + compare.HOST_W * main["busy_s"]
    electric = carbon.operational(energy, spec.grid(CLEAN).g_per_kwh)
    return {
        "evidence": theme.kinds(requests["kind"].values.ravel()),
        "clean": clean,
        "dirty": dirty,
        "so": "on a dirty grid only the energy counts, on a clean one both do"
        if plain
        else "the cleaner the grid, the more the making counts",
        **_published_shares(tokens),
        "total": _totals(main),
        **_balance(tokens),
        **_share_by_batch(requests, share.sel(approach=totals.MAIN)),
        "phases": _phases(requests, tokens, share.sel(approach=totals.MAIN)),
        **_rivers(tokens),
        **_same_batch(requests),
        **_own_batch(tokens, whole.sel(approach=totals.MAIN)),
        "used": used_share.median(POINTS),
        "used_ratio": float((totals.total(used) / whole).sel(approach=totals.MAIN).median()),
        **_score(main.sel(model=LARGE, gpu=book.old, batch=1), requests, book.old),
        "host_W": compare.HOST_W,
        "host_kg": host_kg,
        "host_share": float((made / (made + electric)).median()),
    }


def _published_shares(tokens: xr.Dataset) -> dict:
    """Embodied share in Quebec by the kilograms that others publish for these GPUs, medians."""
    rows = published_kg(tokens.gpu.values).query("set in ['scarif', 'boavizta', 'eserve']")
    shares = []
    for row in rows.itertuples():
        at = tokens.sel(gpu=row.gpu, zone=CLEAN)
        made = carbon.amortised(row.kg, at["busy_s"], totals.YEARS)
        shares.append(
            float((made / (made + at["operational_g"])).median(["draw", "model", "batch"]))
        )
    return {"theirs": pd.Series(shares)}


def _totals(main: xr.Dataset) -> pd.DataFrame:
    """Both carbons of a token of the 1B model, each GPU at its batch of least carbon in each region."""
    best = totals.thriftiest(main.expand_dims("approach")).sel(model=SMALL)
    one = main.sel(model=SMALL).sel(batch=best.fillna(1)).where(best.notnull())
    grams = xr.Dataset(
        {name: one[f"{name}_g"].mean("draw") for name in ("operational", "embodied")}
    )
    rows = grams.to_array("carbon", "g").transpose("gpu", "zone", "carbon").to_dataframe().dropna()
    bounds = draws.summary(totals.total(one)).to_dataframe()[["low", "high"]]
    return rows[["g", "kind"]].join(bounds).reset_index()


def _balance(tokens: xr.Dataset) -> dict:
    """The intensity at which both carbons of a GPU that always works are the same."""
    watts = (tokens["energy_J"] / tokens["busy_s"]).median(["model", "batch", "draw"])
    kg = totals.card_kg(list(tokens.gpu.values)).median("draw")
    g_per_kwh = carbon.amortised(kg, 1.0, totals.YEARS) / carbon.operational(
        watts.assign_attrs(units="J"), 1.0
    )
    found = xr.Dataset({"W while it works": watts, "kg": kg, "equal at (g/kWh)": g_per_kwh})
    rows = found.to_dataframe(["gpu", "approach"]).reset_index()
    status = np.where(rows["approach"] == "paper", "unverified", "modelled")
    rows = rows.rename(columns={"gpu": "card", "approach": "embodied by"}).assign(status=status)
    ours = g_per_kwh.sel(approach=list(totals.SOURCED))
    said = published_kg(tokens.gpu.values).query("set in ['scarif', 'boavizta']")
    theirs = g_per_kwh.sel(approach=totals.MAIN) / kg.sel(approach=totals.MAIN)
    theirs = said["kg"] * said["gpu"].map(theirs.to_series())
    quebec = {kind: spec.grid(CLEAN, 2023, kind).g_per_kwh for kind in ("lifecycle", "direct")}
    within = theirs.min() < quebec["lifecycle"] < theirs.max()
    columns = ["card", "W while it works", "embodied by", "kg", "equal at (g/kWh)", "status"]
    return {
        "balance": labels(rows)[columns],
        "equal": ours,
        "cases": ours.size,
        "quebec": quebec,
        "above": {kind: int((ours > grid).sum()) for kind, grid in quebec.items()},
        "theirs_equal": theirs,
        "sides": f"on {'both sides' if within else 'one side'} of",
    }


def _share_by_batch(requests: xr.Dataset, share: xr.DataArray) -> dict:
    """The embodied share of the 1B model against the batch."""
    one = totals.frame(share.sel(model=[SMALL]), requests)
    newer = share.sel(model=SMALL, zone=CLEAN, gpu="rtx-6000-ada").median("draw").dropna("batch")
    first, last = float(newer.sel(batch=1)), float(newer[-1])
    waits = "a card that waits for its host draws less power in the same time."
    return {
        "share": one.rename(columns={"median": "share"}).dropna(subset="share"),
        "share_first": first,
        "share_last": last,
        "share_why": waits if first > last else "its power hardly moves.",
    }


def _phases(requests: xr.Dataset, tokens: xr.Dataset, share: xr.DataArray) -> pd.DataFrame:
    """Milligrams of a token by phase in California, and its embodied share by region."""
    split = totals.per_token(requests, by_phase=True, approaches=[totals.MAIN], n=500)
    mg = totals.total(split).median("draw").sel(approach=totals.MAIN, zone=SUNNY) * 1e3
    share, rows = share.median("draw"), []
    for at in best_batches(requests, tokens):
        prefill, decode = mg.sel(at).sel(phase=served.PHASES).values
        row = {"model": at["model"], "card": at["gpu"], "batch": at["batch"]}
        row |= {"prefill (mg)": prefill, "decode (mg)": decode}
        row["prefill share"] = f"{prefill / (prefill + decode):.1%}"
        for zone, name in REGIONS.items():
            row[f"embodied share, {name}"] = f"{float(share.sel(at).sel(zone=zone)):.1%}"
        rows.append(row | {"status": requests["kind"].sel(model=at["model"], gpu=at["gpu"]).item()})
    return labels(pd.DataFrame(rows))


def _rivers(tokens: xr.Dataset) -> dict:
    """The embodied share in Quebec by what its hydropower is taken to emit."""
    said = table("literature", "id")["value"]
    north, world = (float(said[f"hydropower-{name}"]) for name in ("north", "world"))
    intensities = {
        "as in the table of grids": spec.grid(CLEAN).g_per_kwh,
        "as a producer of Quebec states": north,
        "as the mean of the world's": world,
    }
    grid = xr.DataArray(list(intensities.values()), {"counted": list(intensities)})
    made = tokens["embodied_g"].sel(approach=list(totals.SOURCED))
    share = (made / (made + carbon.operational(tokens["energy_J"], grid))).median(POINTS)
    shown = share.transpose("counted", ...).to_pandas().map(lambda value: f"{value:.1%}")
    shown = shown.add_prefix("making, ").assign(status="derived")
    shown.insert(0, "g/kWh", grid.to_series())
    return {
        "north_g": north,
        "world_g": world,
        "north": share.sel(counted="as a producer of Quebec states"),
        "world": share.sel(counted="as the mean of the world's"),
        "rivers": shown.rename_axis("hydropower counted").reset_index(),
    }


def _same_batch(requests: xr.Dataset) -> dict:
    """A token's carbon on the older GPU over that on the newer one at the same batch, and who more likely emits less."""
    ratio = compare.who_wins(requests, [totals.YEARS])["carbon_ratio"]
    ratio = ratio.isel(lifetime_years=0, utilisation=0, drop=True)
    rows = totals.frame(ratio.sel(approach=totals.MAIN)).dropna(subset="median")
    kinds = requests["kind"].to_pandas()
    mixed = kinds.nunique(axis=1) > 1
    odds = compare.odds(ratio)
    cells = odds.sel(approach=list(totals.SOURCED)).stack(cell=odds.dims).dropna("cell")
    names = ["newer_surely", "newer_likely", "open", "older_likely", "older_surely"]
    fates = pd.cut(cells, [-1, 0.05, 0.25, 0.75, 0.95, 1.1], right=False, labels=names)
    return {
        "ratios": rows.assign(kind=rows["model"].map(kinds.iloc[:, 0].mask(mixed, "mixed"))),
        "ratio": rows["median"],
        "odds": odds.to_dataframe().reset_index(),
        "odds_cases": cells.size,
        "fates": fates.value_counts(),
    }


def _own_batch(tokens: xr.Dataset, whole: xr.DataArray) -> dict:
    """Who emits less with each GPU at its own best batch, by model and region."""
    old, new = spec.gpu("t4"), spec.gpu("rtx-6000-ada")
    least, batch = whole.min("batch"), totals.thriftiest(tokens)
    wins = (least.sel(gpu=old.id) < least.sel(gpu=new.id)).mean("draw")
    mg, rows = least.median("draw") * 1e3, []
    for model in whole.model.values:
        for zone, name in REGIONS.items():
            row = {"model": model, "region": name}
            for gpu in whole.gpu.values:
                at = {"model": model, "zone": zone, "gpu": gpu}
                said = f"{float(mg.sel(at)):.2g} ({float(batch.sel(at)):.0f})"
                row[f"{findings.label(gpu)} (mg, batch)"] = said
            share = float(wins.sel(model=model, zone=zone))
            rows.append(row | {"P(T4 emits less)": f"{share:.0%}"})
    return {
        "memory_ratio": new.memory_GiB / old.memory_GiB,
        "own_batch": labels(pd.DataFrame(rows)),
        "older_wins": int((wins > 0.5).sum()),
        "settings": wins.size,
    }


def _score(token: xr.Dataset, requests: xr.Dataset, gpu: str) -> dict:
    """One request to the 7B model on a GPU in Quebec as a Software Carbon Intensity, term by term."""
    count = float(requests["generated"].sel(batch=1))
    joules, seconds = (float(token[name].median()) * count for name in ("energy_J", "busy_s"))
    kg = float(totals.card_kg([gpu], [totals.MAIN]).median())
    score = carbon.score(joules, spec.grid(CLEAN).g_per_kwh, kg, seconds, count)
    rows = [
        {"term": name, "value": float(term)}
        | {"unit": term.attrs["units"], "meaning": term.attrs["long_name"]}
        for name, term in score.data_vars.items()
    ]
    sci_mg = float(score["SCI"]) * 1e3
    return {"sci_mg": sci_mg, "boundary": score.attrs["boundary"], "sci": pd.DataFrame(rows)}

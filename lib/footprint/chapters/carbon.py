"""The numbers of the pages on operational and embodied carbon."""

import itertools

import pandas as pd
import xarray as xr

from footprint import carbon, decide, spec
from footprint.carbon import act, uncertainty
from footprint.chapters.book import CLEAN, DIRTY, LARGE, SUNNY, Book
from footprint.charts import theme

OF_A_MAKER = "h100-80gb-sxm"  # the only GPU with a footprint by its maker
POINTS = ["sample", "model", "gpu", "batch"]


def pair(book: Book, values):
    """The two GPUs that are compared, under the names `old` and `new`."""
    return values.sel(gpu=[book.old, book.new]).assign_coords(gpu=["old", "new"])


def embodied_share(tokens: xr.Dataset) -> xr.DataArray:
    """The embodied part of a token's carbon."""
    return tokens["embodied_g"] / decide.total(tokens)


def ends(samples: xr.DataArray) -> xr.Dataset:
    """The ends of the 90 % interval."""
    return carbon.summary(samples)[["low", "high"]].reset_coords(drop=True)


def apart(tokens: xr.Dataset, model: str) -> list[xr.Dataset]:
    """Tokens of a model by GPU and evidence; of another model where it was not measured."""
    parts = []
    for gpu in tokens["gpu"].values:
        here = tokens.sel(gpu=[gpu])
        fits = here["token_J"].notnull().all("sample").squeeze("gpu", drop=True)
        for evidence in ("measured", "mixed", "modelled"):
            batches = fits & (here["evidence"] == evidence).squeeze("gpu", drop=True)
            models = [model] if evidence == "modelled" else [model, *tokens["model"].values]
            if models := [name for name in models if batches.sel(model=name).any()]:
                parts.append(here.sel(model=models[:1], batch=batches.sel(model=models[0])))
    return parts


def choices(tokens: xr.Dataset) -> list[dict]:
    """Model, GPU and batch: one request at a time, and the batch of least carbon in California."""
    fits = tokens["token_J"].notnull().all("sample")
    best = decide.best_batch(tokens).sel(zone=SUNNY).fillna(1)
    return [
        {"model": model, "gpu": gpu, "batch": batch}
        for model in tokens["model"].values
        for gpu in tokens["gpu"].values
        for batch in dict.fromkeys([1, int(best.sel(model=model, gpu=gpu))])
        if fits.sel(model=model, gpu=gpu).any("batch")
    ]


def place(at: dict) -> dict:
    """Model, GPU and batch as the first columns of a table."""
    return {"model": spec.label(at["model"]), "card": spec.label(at["gpu"]), "batch": at["batch"]}


def operational(book: Book) -> dict:
    """Operational carbon of a token by region, basis and batch; the world's grids and hours."""
    bases = decide.grids(basis=["lifecycle", "direct"])
    tokens = decide.tokens(book.at(), book.world, g_per_kwh=bases)
    both, region = pair(book, tokens), bases.sel(basis="lifecycle")
    grams = both["operational_g"].sel(basis="lifecycle", zone=DIRTY).median("sample")
    least = grams.min("batch")
    same = grams.sel(gpu="old") / grams.sel(gpu="new")
    own = least.sel(gpu="old") / least.sel(gpu="new")
    newer, older = float(same.max()), float((1 / same).max())
    joules = float(both["token_J"].sel(gpu="old", model=LARGE, batch=1).median())
    share = embodied_share(both).sel(zone=CLEAN, embodied_method=carbon.MAIN)
    split = decide.tokens(book.at(), book.world, by_phase=True)["token_J"]
    prefill = pair(book, (split.sel(phase="prefill") / split.sum("phase")).median("sample"))
    return {
        "evidence": theme.kinds(both["evidence"]),
        "by_region": float(region.max() / region.min()),
        "by_batch": float((grams.max("batch") / least).max()),
        "by_gpu": float(own.max()),
        "by_gpu_same_batch": max(older, newer),
        "same_batch_for": "for the older one" if older > newer else "for the newer one too",
        "grams": pd.concat(
            decide.intervals(one["operational_g"].isel(batch=[0])) for one in apart(tokens, LARGE)
        ),
        "joules": joules,
        "by_hand": _by_hand(joules),
        "million_tokens": carbon.J_PER_KWH / joules / 1e6,
        "g_per_kwh": region,
        # of one vintage
        "fall": decide.grids(basis="lifecycle-hourly-mean") / decide.grids(basis="direct"),
        "embodied_share": share.median(POINTS),
        "pairs": _every_pair(tokens.sel(basis="lifecycle"), book.tokens),
        "prefill_one": prefill.sel(batch=1),
        "prefill": prefill,
        **_grids(),
        **_hours(),
    }


def _by_hand(joules: float) -> pd.DataFrame:
    """A token's grams in each region on three bases."""
    kinds = ["lifecycle", "direct", "lifecycle-hourly-mean"]
    grids = spec.frame("grids").query("year == 2023").set_index(["zone", "kind"])
    rows = grids.loc[list(itertools.product(decide.ZONES, kinds))].reset_index()
    grams = carbon.operational(1.0, rows["g_per_kwh"].values)
    columns = {
        "region": rows["zone"].map(spec.zone_name),
        "basis": rows["kind"],
        "year": rows["year"].astype(str),
        "g/kWh": rows["g_per_kwh"],
        "µg a joule": grams * 1e6,
        "mg a token": grams * joules * 1e3,
    }
    return pd.DataFrame(columns | {"source": rows["source"], "status": rows["status"]})


def _every_pair(tokens: xr.Dataset, whole: xr.Dataset) -> pd.DataFrame:
    """Joules and milligrams of a token by model, GPU and batch, with 90 % intervals."""
    rows = []
    for at in choices(whole):
        one = tokens.sel(at)
        row = place(at) | {"J a token": float(one["token_J"].median())}
        for zone in decide.ZONES:
            mg = one["operational_g"].sel(zone=zone) * 1e3
            low, middle, high = mg.quantile([0.05, 0.5, 0.95]).values
            row[f"{spec.zone_name(zone)} (mg)"] = f"{middle:.2g} ({low:.2g} to {high:.2g})"
        rows.append(row | {"status": one["evidence"].item()})
    return pd.DataFrame(rows)


def _grids() -> dict:
    """The zones of the table of grids, the ranks of the three regions, and what the paper used."""
    rows = spec.frame("grids").query("kind == 'lifecycle' and year == 2023").set_index("zone")
    world = rows["g_per_kwh"].dropna().sort_values()
    paper = spec.frame("paper_values").query("quantity == 'carbon intensity'")
    recalled = paper.set_index("subject")["value"]
    means = decide.grids(list(recalled.index), "lifecycle-hourly-mean").to_series()
    return {
        "zones": len(world),
        "cleanest": rows["name"][world.index[0]],
        "cleanest_g": world.iloc[0],
        "dirtiest": rows["name"][world.index[-1]],
        "dirtiest_g": world.iloc[-1],
        "median_g": world.median(),
        "rank": {zone: int((world < world[zone]).sum()) + 1 for zone in decide.ZONES},
        "recalled": recalled,
        "recalled_apart": (means / recalled - 1).abs().max(),
    }


def _hours() -> dict:
    """The hourly intensities of California, and the PUE of data centres."""
    year = spec.hourly(SUNNY)
    hours = year.dropna("time")
    days = hours.groupby("time.dayofyear")
    return {
        "swing": float((days.max() / days.min()).median()),
        "tenth_g": hours.quantile(0.1).item(),
        "nine_tenths_g": hours.quantile(0.9).item(),
        "typical": spec.typical(year, "America/Los_Angeles"),
        "hourly_status": theme.badge(spec.table("hourly")[0]["status"]),
        "hourly_mean_g": float(hours.mean()),
        "annual_g": spec.grid(SUNNY, 2022).g_per_kwh,
        "missing": len(year.attrs["missing"]),
        "missing_hours": ", ".join(year.attrs["missing"]),
        "pue": uncertainty.priors("use")["pue", "all"],
    }


def embodied(book: Book) -> dict:
    """Embodied carbon of GPUs by method: parts, intervals, what others publish, what matters."""
    parts = carbon.compare()
    kg = pair(book, book.world["embodied_kg"]).sel(embodied_method=list(carbon.SOURCED))
    kg = kg.median("sample")
    old_kg, new_kg = kg.sel(gpu="old"), kg.sel(gpu="new")
    server = float(carbon.host("two-socket").sum())
    than = "more" if server > float(old_kg.max()) else "less"
    act_kg = parts["total_kg"].sel(embodied_method="ACT")
    busy_g = carbon.amortised(float(act_kg.sel(gpu=book.new)), 3600.0)
    maker_kg = float(parts["total_kg"].sel(embodied_method="vendor", gpu=OF_A_MAKER))
    return {
        "kg": kg,
        "old_kg": old_kg,
        "new_kg": new_kg,
        "ratio": new_kg / old_kg,
        "apart": float((kg.max("embodied_method") / kg.min("embodied_method")).max()),
        "parts": parts,
        "by_hand": _act_by_hand([book.old, book.new]),
        "fab_g_per_kwh": act.fab_grid("taiwan"),
        "yield": act.ACT_YIELD,
        "memory_g": act.memory_kg_per_gb("ddr4_10nm") * act.ACT_YIELD * 1e3,
        **_intervals(book),
        **_matters(book),
        **_teardowns(),
        **_published(book, kg),
        "maker_kg": maker_kg,
        "maker_over_act": maker_kg / float(act_kg.sel(gpu=OF_A_MAKER)),
        "years": carbon.Use().lifetime_years,
        "hour_g": carbon.amortised(kg.sel(embodied_method=carbon.MAIN, drop=True), 3600.0),
        "use": ends(book.world[["lifetime_years", "utilisation", "pue"]].to_array("use")),
        "server_kg": server,
        "server_than": f"{than} than a {spec.label(book.old)} by any approach",
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
        row |= {"ACT (kg)": float(carbon.embodied(gpu)["total_kg"]), "status": "modelled"}
        rows.append(row)
    return pd.DataFrame(rows)


def _intervals(book: Book) -> dict:
    """The 90 % intervals of every GPU by method, and with ACT's own table of memory."""
    gpus = {"old": book.old, "new": book.new}
    names = {carbon.MAIN: "ACT, Murphy yield", "teardown": "teardown"}
    wide = ends(book.market["embodied_kg"].sel(embodied_method=list(names)))
    samples = book.world.sizes["sample"]
    narrow = ends(carbon.embodied_draws(list(gpus.values()), samples, memory="act"))
    rows = wide.to_dataframe().reset_index().rename(columns={"embodied_method": "approach"})
    dies = {name: spec.gpu(gpu).die_mm2 for name, gpu in gpus.items()}
    return {
        "intervals": rows.assign(approach=rows["approach"].map(names)).dropna(subset="low"),
        "wide": pair(book, wide.sel(embodied_method=carbon.MAIN, drop=True)),
        "narrow": pair(book, narrow),
        "good": {name: float(act.die_yield(mm2, "murphy")) for name, mm2 in dies.items()},
        "defects": act.MURPHY_DEFECTS,
    }


def _matters(book: Book) -> dict:
    """Which input moves the embodied carbon of the older GPU the most, by ACT and by teardown."""
    by_act, torn = carbon.sensitivity(book.old, "act"), "input that nobody published"
    if book.world["embodied_kg"].sel(gpu=book.old, embodied_method="teardown").notnull().all():
        torn = carbon.sensitivity(book.old, "teardown")["label"][0].item()
    first = by_act.isel(parameter=0)
    name, memory = first["label"].item(), uncertainty.priors("act")["memory_kg_per_gb", "gddr"]
    return {
        "sensitivity": by_act,
        "matters": name[0].upper() + name[1:],
        "matters_share": first["total_order"].item(),
        "memory_kg": memory,
        "memory_apart": float(memory["high"]) / float(memory["low"]),
        "matters_torn": torn,
    }


def _teardowns() -> dict:
    """The teardown method on the GPUs that it is scaled from, with and without themselves."""
    rows, teardowns = [], spec.frame("teardown")
    for one in teardowns[teardowns["gpu"] != "-"].itertuples():
        row = {"card": one.card, "published (kg)": one.total_kgco2e}
        for words, without in {"": (), " without it": (one.card,)}.items():
            kg = float(carbon.embodied(one.gpu, "teardown", without=without)["total_kg"])
            error = f"{kg / one.total_kgco2e - 1:+.1%}"
            row |= {f"scaled{words} (kg)": kg, f"error{words}": error}
        rows.append(row | {"status": one.status})
    odd = teardowns.loc[teardowns["card"].str.contains("SXM"), "remarks"].iloc[0]
    return {"teardowns": len(teardowns), "torn": pd.DataFrame(rows), "odd": odd}


def _published(book: Book, kg: xr.DataArray) -> dict:
    """What others say of the two GPUs and of three larger ones, beside our methods."""
    both = {book.old: "old", book.new: "new"}
    rows = published_kg([*both, "l4", "a100-40gb-sxm", OF_A_MAKER])
    rows = rows[~rows["set"].str.startswith("act")].assign(card=rows["gpu"].map(spec.label))
    others = rows[rows["gpu"].isin(both) & ~rows["set"].str.startswith("paper")]
    others = others.groupby(others["gpu"].map(both))["kg"].agg(["min", "max"])
    lower = others["max"].max() <= float(kg.max())
    above = "the highest lie above all of ours, so ours are no bracket of what is published"
    stated = book.world["embodied_kg"].sel(embodied_method="paper")  # NaN for other GPUs
    shown = rows.sort_values(["card", "kg"]).drop_duplicates(["card", "kg"])
    shown = shown[["card", "set", "kg", "boundary", "source", "status"]]
    return {
        "accounts": shown.rename(columns={"set": "who", "kg": "kg CO2e"}),
        "others_kg": others.stack(),
        "bracket": "ours hold all of it" if lower else above,
        "recalled_kg": pair(book, stated.isel(sample=0)),
    }


def _same_chips(parts: xr.Dataset) -> dict:
    """How much of the difference between ACT and teardown is about the same chips."""
    silicon = [name for name in parts["component"].values if name.startswith(("die", "memory"))]
    kg = parts[["embodied_kg", "total_kg"]].sel(embodied_method=["ACT", "teardown"])
    chips = kg["embodied_kg"].sel(component=silicon).sum("component")
    gap = kg["total_kg"].diff("embodied_method").item()
    return {
        "chips_kg": chips,
        "gap_kg": gap,
        "mean_kg": float(chips.sel(embodied_method="ACT")) + gap,
        "same_chips": chips.diff("embodied_method").item() / gap,
    }


def published_kg(gpus) -> pd.DataFrame:
    """Kilograms of whole GPUs as others publish them, a row each."""
    rows = spec.frame("embodied_published").query("component == 'total'")
    return rows[rows["gpu"].isin(list(gpus))].rename(columns={"kgco2e": "kg"})

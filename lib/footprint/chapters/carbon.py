"""The numbers of the pages on carbon."""

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, spec
from footprint.carbon import totals
from footprint.carbon import uncertainty as draws
from footprint.charts import theme
from footprint.charts.carbon import REGIONS
from footprint.energy import findings

CLEAN, SUNNY, DIRTY = totals.ZONES
POINTS = ["draw", "model", "gpu", "batch"]
LARGE = "llama-7b"


def table(name: str, index: str = "id", **numbers) -> pd.DataFrame:
    """A table of `data/` by the values of one column."""
    return pd.DataFrame(spec.table(name)).set_index(index)


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
        "evidence": theme.Page(theme.kinds(book.requests["kind"].values.ravel())),
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

"""The answer in short, the scoreboard of claims, and what a reviewer should see."""

from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, decide, spec
from footprint.chapters.book import CLEAN, DIRTY, LARGE, SMALL, SUNNY, Book
from footprint.chapters.carbon import embodied_share
from footprint.chapters.totals import host_use
from footprint.charts import theme
from footprint.energy import runs

ONE, BEST = "batch 1", "least carbon"
LAMP_W = 10
STEPS = {"A1, H1": "4, both cards", "A2, H2": "4, both cards", "H3": "4, both cards"}
STEPS |= {"H4": "4", "protocol": "3"}  # of a reviewer; all others take the first alone


def index(book: Book) -> dict:
    """Grams and joules of a token of the large model on two GPUs, and what each lever saves."""
    rows = headline(book)
    at = rows.set_index(["model", "gpu", "zone", "choice"])
    clean, dirty = at.loc[(LARGE, book.old, CLEAN, ONE)], at.loc[(LARGE, book.old, DIRTY, ONE)]
    low, high = at.loc[(LARGE, book.new, CLEAN, BEST)], at.loc[(LARGE, book.new, DIRTY, BEST)]
    lone = at.loc[(LARGE, book.new, CLEAN, ONE)]
    small = at.loc[(SMALL, book.new, CLEAN, BEST)]
    answer = book.length["output"]
    return {
        "headline": rows[rows["choice"] == BEST],
        "old_g": {"clean": clean["total"], "dirty": dirty["total"]},
        "new_g": {"clean": low["total"], "dirty": high["total"]},
        "evidence": theme.kinds(rows["evidence"]),
        "lone_newer": "emits more" if lone["total"] > clean["total"] else "emits less",
        "basis": _basis(book),
        "ways": _ways(at.loc[LARGE]),
        "lamp_s": {
            "old": answer * clean["token_J"] / LAMP_W,
            "new": answer * low["token_J"] / LAMP_W,
        },
        "batching": lone["token_J"] / low["token_J"],
        "batch": int(low["batch"]),
        "by_grid": dirty["operational"] / clean["operational"],
        "by_grid_old": dirty["total"] / clean["total"],
        "by_grid_new": high["total"] / low["total"],
        "eager_J": low["token_J"],
        "share": {
            "clean": clean["embodied"] / clean["total"],
            "dirty": dirty["embodied"] / dirty["total"],
        },
        "smaller": low["token_J"] / small["token_J"],
        **_serving(book, int(low["batch"]), low["token_J"]),
    }


def headline(book: Book) -> pd.DataFrame:
    """Grams of a million tokens by model, GPU and region, at batch 1 and at the best batch.

    Rows of model, gpu, zone, choice: batch, token_J, operational, embodied, total with low and high
    (90 %), evidence. `counted` says whether a GPU's embodied carbon is known; if it is not, the
    total is the operational carbon.
    """
    points = book.at().sel(model=[SMALL, LARGE])
    tokens = decide.tokens(points, book.world, g_per_kwh=decide.grids(), methods=[carbon.MAIN])
    kg = book.world["embodied_kg"].sel(embodied_method=[carbon.MAIN])
    known = kg.notnull().all("sample")
    tokens["embodied_g"] = tokens["embodied_g"].where(known, 0)
    best = decide.best_batch(tokens)
    batch = xr.concat([xr.ones_like(best), best], pd.Index([ONE, BEST], name="choice"))
    grams = tokens.assign(total_g=decide.total(tokens), evidence=tokens["evidence"])
    grams = grams.squeeze("embodied_method", drop=True)
    chosen = grams.sel(batch=batch.fillna(1)).where(batch.notnull())
    million = {f"{name}_g": name for name in ("operational", "embodied", "total")}
    samples = (chosen[list(million)] * 1e6).rename(million).assign(token_J=chosen["token_J"])
    bounds = samples["total"].quantile([0.05, 0.95], "sample", skipna=False)
    bounds = bounds.assign_coords(quantile=["low", "high"]).to_dataset("quantile")
    whole = samples.median("sample", skipna=False).assign(
        **bounds,
        evidence=chosen["evidence"].reset_coords(drop=True),
        counted=xr.where(known, "both carbons", "operational carbon").squeeze(drop=True),
    )
    rows = whole.reset_coords("batch").to_dataframe(["model", "gpu", "zone", "choice"])
    return rows.dropna(subset=["total"]).reset_index().astype({"batch": int})


def _basis(book: Book) -> str:
    """What the headline rests on."""
    seen = book.seen([book.old, book.new])
    if seen.any():
        return (
            f"{int(seen.sum())} of the {seen.size} pairs of model and card behind them were "
            "measured, the others are expectations of a model."
        )
    return (
        f"No card was measured for them: neither a {book.names['old']} nor an {book.names['new']} "
        "was at hand. They come from a model that was fitted to public measurements of many cards, "
        "and none of its readings of energy is of these two."
    )


def _ways(at: pd.DataFrame) -> pd.DataFrame:
    """Grams of a million tokens on each GPU at batch 1 and at the batch of least carbon."""
    names = {
        CLEAN: "Quebec, clean (g)",
        SUNNY: "California (g)",
        DIRTY: "PacifiCorp East, dirty (g)",
    }
    grams = at["total"].unstack("zone").rename(columns=names)[list(names.values())]
    clean = at.xs(CLEAN, level="zone")
    rows = grams.assign(kWh=clean["token_J"] / 3.6, status=clean["evidence"])
    rows.insert(0, "requests at once", clean["batch"].astype(str))
    order = pd.MultiIndex.from_product([clean.index.unique("gpu"), [ONE, BEST]])
    rows = rows.reindex(order.intersection(rows.index, sort=False)).reset_index(names=["card", ""])
    return rows.drop(columns="").assign(card=rows["card"].map(spec.label))


def _serving(book: Book, batch: int, eager_J: float) -> dict:
    """What a serving engine saves on a full GPU, and how often the newer GPU then emits less."""
    serving = book.at("serving")
    token_J = serving["energy_J"].sum("phase", skipna=False) / serving["generated"]
    lone, full = token_J.sel(model=LARGE, gpu=book.new, batch=[1, batch]).values
    one = serving.sel(batch=1)
    sides = [
        decide.on_gpu(one, book.world, gpu)[["token_s", "token_J"]].median("sample")
        for gpu in (book.old, book.new)
    ]
    uses = {"with a host": host_use()}
    engines = book.points.sel(engine=["serving"], **book.length)
    newer = decide.scenarios(engines, book.world, uses, old=book.old, new=book.new)
    return {
        "serving_J": full,
        "serving_batching": lone / full,
        "by_engine": eager_J / full,
        "newer": int((newer < 0.5).sum()),
        "cases": int(newer.notnull().sum()),
        "host_W": decide.HOST_W,
        "tie_W": float(decide.host_tie(*sides).max()),
    }


def question(book: Book) -> dict:
    """The claims, how each is read, and how sure it is with either engine."""
    board, other = _board(book, "eager"), _board(book, "serving")
    moved, changes = board["id"][board["verdict"] != other["verdict"]], "no verdict changes"
    if len(moved):
        changes = (
            f"{len(moved)} verdicts change ({', '.join(moved)}), and so say as much about the "
            "engine as about the cards"
        )
    samples = book.world.sizes["sample"]
    close, warning = sorted({*_close(board, samples), *_close(other, samples)}), ""
    if close:
        warning = (
            f"A verdict close to a line is a word and no more: {', '.join(close)} lie so close to "
            "one, with one engine or the other, that little would turn the word."
        )
    return {
        "board": board,
        "other": other,
        "decided": (board["verdict"] != "open").sum(),
        "claims": len(board),
        "hold": (board["verdict"] == "holds").sum(),
        "sure": decide.SURE,
        "likely": decide.LIKELY,
        "moved": changes,
        "close": warning,
        "verdicts": _verdicts(board, other),
        "read": pd.DataFrame(spec.table("published"))[["id", "read_as", "rule"]].rename(
            columns={"read_as": "holds if", "rule": "its probability is the"}
        ),
    }


def _board(book: Book, engine: str) -> pd.DataFrame:
    """The scoreboard of the book's two GPUs with one engine."""
    points = book.points.sel(engine=engine)
    return decide.scoreboard(decide.Case(points, book.world, book.length, book.old, book.new))


def _close(board: pd.DataFrame, samples: int) -> pd.Series:
    """Claims whose probability is nearer to the line of a verdict than twice its sampling error."""
    sure, likely = decide.SURE, decide.LIKELY
    lines = np.array([1 - sure, 1 - likely, likely, sure])
    chance = 2 * np.sqrt(lines * (1 - lines) / samples)
    apart = np.abs(board["probability"].to_numpy()[:, None] - lines)
    return board["id"][(apart < chance).any(axis=1)]


def _verdicts(board: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Each claim, its reason folded away, and its verdict with either engine."""
    why = "<details><summary>{}</summary><p class='why'>{}</p></details>"
    folded = [theme.Page(why.format(row.claim, row.because)) for row in board.itertuples()]
    columns = {"id": board["id"], "claim (open it for why)": pd.Series(folded, dtype=object)}
    for name, rows in {"eager loop": board, "serving engine": other}.items():
        # rounded down: rounded up, it could look like the next verdict
        odds = (np.floor(rows["probability"] * 100) / 100).map(" ({:.2f})".format)
        odds = odds.where(rows["probability"].notna(), "")
        columns[name] = rows["verdict"] + odds
    return pd.DataFrame({**columns, "status": board["status"]})


def artifact(book: Book) -> dict:
    """For each claim the number, and its range, that a reviewer finds from the committed runs."""
    from footprint.predict import validation

    book = replace(book, committed=True)
    tokens = decide.tokens(book.at(), book.world, g_per_kwh=decide.grids())
    joules = tokens["token_J"].sel(model=LARGE, gpu=book.new)
    kg = book.world["embodied_kg"].sel(embodied_method=list(carbon.SOURCED))
    making = (kg.sel(gpu=book.new) / kg.sel(gpu=book.old)).median("sample").values
    region = decide.grids()
    by_region = float(region.sel(zone=DIRTY) / region.sel(zone=CLEAN))
    at = {"model": LARGE, "gpu": book.old, "batch": 1, "zone": CLEAN}
    share = embodied_share(tokens).sel(at | {"embodied_method": carbon.MAIN})
    closed = runs.closure(book.runs)["closure"]
    distance = validation.residuals("gpu")["distance"]
    old, new = book.names["old"], book.names["new"]
    numbers = {
        "A1, H1": _one_ratio(book, "time_s", "decode", LARGE),
        "A2, H2": _one_ratio(book, "energy_J", "decode", SMALL),
        "H3": _one_ratio(book, "energy_J", "prefill", LARGE),
        "H4": _middle(joules.sel(batch=1) / joules.min("batch"), "modelled"),
        "A3": _expected(by_region, by_region, by_region, "published"),
        "A4": _expected(np.median(making), making.min(), making.max(), "modelled"),
        "A5, H5": _middle(share, "modelled"),
        "protocol": _middle(closed, "measured"),
        "model": _middle(distance, "derived"),
    }
    what = {
        "A1, H1": f"{new} decodes faster: {old} time over its time, 7B, batch 1",
        "A2, H2": f"energy a token, decode, 1B, batch 1: {old} over {new}",
        "H3": f"energy a token, prefill, 7B, batch 1: {old} over {new}",
        "H4": f"energy a token at batch 1 over that at the best batch, 7B, {new}",
        "A3": "grams of one run: PacifiCorp East over Quebec",
        "A4": f"making of an {new} over that of a {old}, over the approaches",
        "A5, H5": f"embodied share of a token in Quebec, 7B on a {old}, batch 1",
        "protocol": "prefill plus decode over generate, processor",
        "model": "error of a time, power or energy on a card that took no part in the fit",
    }
    table = pd.DataFrame(numbers).T.rename_axis("claim").reset_index()
    table.insert(1, "what", table["claim"].map(what))
    table.insert(5, "step", table["claim"].map(STEPS).fillna("1"))
    return {"expected": table.infer_objects()}


def _expected(expected: float, low: float, high: float, status: str) -> dict:
    return {"expected": expected, "from": low, "to": high, "status": status}


def _one_ratio(book: Book, quantity: str, phase: str, model: str) -> dict:
    """The ratio of the two GPUs at batch 1, with its interval."""
    points = book.at().sel(model=model, phase=phase, batch=1)
    ratio = decide.versus(points.sel(gpu=book.old), points.sel(gpu=book.new), quantity)
    numbers = [float(ratio[name]) for name in ("ratio", "low", "high")]
    return _expected(*numbers, ratio["evidence"].item())


def _middle(values: xr.DataArray | pd.Series, status: str) -> dict:
    """Median and the middle nine tenths."""
    low, middle, high = pd.Series(np.ravel(values), dtype=float).quantile([0.05, 0.5, 0.95])
    return _expected(middle, low, high, status)

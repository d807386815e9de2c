"""The answer in short, the scoreboard of claims, and what a reviewer should see."""

import numpy as np
import pandas as pd
import xarray as xr

from footprint import carbon, decide, spec
from footprint.carbon import totals
from footprint.chapters.book import Book
from footprint.charts import theme
from footprint.decide import compare, scoreboard, verdicts, world
from footprint.energy import findings

CLEAN, SUNNY, DIRTY = world.ZONES
SMALL, LARGE = "llama-1b", "llama-7b"
ONE, BEST = "batch 1", "least carbon"
LAMP_W = 10


def index(book: Book) -> dict:
    """Grams and joules of a token of the large model on two GPUs, alone and at the best batch, and what each lever saves."""
    rows = headline(book)
    at = rows.set_index(["model", "gpu", "zone", "choice"])
    clean, dirty = (at.loc[(LARGE, book.old, zone, ONE)] for zone in (CLEAN, DIRTY))
    low, high = (at.loc[(LARGE, book.new, zone, BEST)] for zone in (CLEAN, DIRTY))
    lone = at.loc[(LARGE, book.new, CLEAN, ONE)]
    small = at.loc[(SMALL, book.new, CLEAN, BEST)]
    answer = book.length["output"]
    return {
        "headline": rows[rows["choice"] == BEST],
        "old_g": {"clean": clean["total"], "dirty": dirty["total"]},
        "new_g": {"clean": low["total"], "dirty": high["total"]},
        "evidence": theme.kinds(rows["evidence"]),
        "lone_newer": "emits more" if lone["total"] > clean["total"] else "emits less",
        "basis": _basis(book.at()["evidence"].sel(gpu=[book.old, book.new])),
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
    """Grams of a million tokens of two models on each GPU in each region, one request at a time and at the best batch.

    Rows of model, gpu, zone, choice: batch, token_J, operational, embodied, total with low and high (90 %), evidence.
    """
    points = book.at().sel(model=[SMALL, LARGE])
    tokens = decide.tokens(points, book.world, g_per_kwh=decide.grids(), methods=[carbon.MAIN])
    best = decide.best_batch(tokens)
    batch = xr.concat([xr.ones_like(best), best], pd.Index([ONE, BEST], name="choice"))
    grams = tokens[["operational_g", "embodied_g"]].assign(total_g=decide.total(tokens))
    found = grams.rename({name: name.removesuffix("_g") for name in grams}) * 1e6
    found = found.squeeze(world.METHOD, drop=True).assign(token_J=tokens["token_J"])
    chosen = found.sel(batch=batch.fillna(1)).where(batch.notnull())
    low, middle, high = (
        chosen.quantile(q, "sample").drop_vars("quantile") for q in (0.05, 0.5, 0.95)
    )
    evidence = tokens["evidence"].sel(batch=batch.fillna(1))
    whole = middle.assign(
        low=low["total"], high=high["total"], evidence=evidence.reset_coords(drop=True)
    )
    rows = (
        whole.reset_coords("batch").to_dataframe(["model", "gpu", "zone", "choice"]).reset_index()
    )
    return rows.dropna(subset=["total"]).astype({"batch": int})


def _basis(evidence: xr.DataArray) -> str:
    """What the headline rests on."""
    seen = (evidence == "measured").any(["batch", "phase"])
    if seen.any():
        return (
            f"{int(seen.sum())} of the {seen.size} pairs of model and card behind them were measured, the others are "
            "expectations of a model."
        )
    names = " nor an ".join(spec.label(gpu) for gpu in evidence.gpu.values)
    return (
        f"No card was measured for them: neither a {names} was at hand. They come from a model that was "
        "fitted to public measurements of many cards, and none of its readings of energy is of these two."
    )


def _ways(at: pd.DataFrame) -> pd.DataFrame:
    """Grams of a million tokens on each GPU, one request at a time and at the batch of least carbon."""
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
    """What a serving engine saves on a full GPU, and in how many cases the newer GPU then more likely emits less."""
    serving = book.at("serving")
    token_J = serving["energy_J"].sum("phase", skipna=False) / serving["generated"]
    lone, full = token_J.sel(model=LARGE, gpu=book.new, batch=[1, batch]).values
    old_way = compare.engines(book.requests)["serving engine"]
    sides = [
        compare.side(old_way, gpu, [totals.MAIN])
        .sel(batch=1)[["energy_J", "busy_s"]]
        .median("draw")
        for gpu in (book.old, book.new)
    ]
    newer = compare.setups(book.requests).sel(engine="serving engine", counted="beside a host")
    return {
        "serving_J": full,
        "serving_batching": lone / full,
        "by_engine": eager_J / full,
        "newer": int((newer < 0.5).sum()),
        "cases": newer.size,
        "host_W": compare.HOST_W,
        "tie_W": float(compare.host_tie(*sides).max()),
    }


def question(book: Book) -> dict:
    """The claims, how sure each is with the eager loop and with a serving engine, and how each is read."""
    board, other = scoreboard.table(book.pairs), scoreboard.table(book.serving)
    moved = board["id"][board["verdict"] != other["verdict"]]
    close = sorted({*_close(board), *_close(other)})
    return {
        "board": board,
        "other": other,
        "decided": (board["verdict"] != "open").sum(),
        "claims": len(board),
        "hold": (board["verdict"] == "holds").sum(),
        "sure": scoreboard.SURE,
        "likely": scoreboard.LIKELY,
        "moved": f"{len(moved)} verdicts change ({', '.join(moved)}), and so say as much about the engine as about the cards"
        if len(moved)
        else "no verdict changes",
        "close": f"A verdict close to a line is a word and no more: {', '.join(close)} lie so close to one, with one engine "
        "or the other, that little would turn the word."
        if close
        else "",
        "verdicts": _verdicts(board, other),
        "read": pd.DataFrame(spec.table("published"))[["id", "read_as", "rule"]].rename(
            columns={"read_as": "holds if", "rule": "its probability is the"}
        ),
    }


def _close(board: pd.DataFrame) -> pd.Series:
    """Claims whose probability is nearer to the line of a verdict than twice its error by the number of draws."""
    sure, likely = scoreboard.SURE, scoreboard.LIKELY
    lines = np.array([1 - sure, 1 - likely, likely, sure])
    chance = 2 * np.sqrt(lines * (1 - lines) / verdicts.N)
    apart = np.abs(board["probability"].to_numpy()[:, None] - lines)
    return board["id"][(apart < chance).any(axis=1)]


def _verdicts(board: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Each claim, its reason folded away, and its verdict with either engine."""
    folded = [
        theme.Page(
            f"<details><summary>{row.claim}</summary><p class='why'>{row.because}</p></details>"
        )
        for row in board.itertuples()
    ]
    columns = {"id": board["id"], "claim (open it for why)": pd.Series(folded, dtype=object)}
    for name, rows in {"eager loop": board, "serving engine": other}.items():
        # rounded down: rounded up, it could look like the next verdict
        odds = (np.floor(rows["probability"] * 100) / 100).map(" ({:.2f})".format)
        columns[name] = rows["verdict"] + odds
    return pd.DataFrame({**columns, "status": board["status"]})


def artifact(book: Book) -> dict:
    """For each claim the number that a reviewer should find from the committed runs, and how far off it may be."""
    from footprint.carbon import served
    from footprint.predict import validation

    pairs = findings.six_pairs(findings.at(book.rows, place="committed"))
    tokens = totals.per_token(served.common(served.requests(pairs)))
    whole = totals.total(tokens)
    energy = tokens["energy_J"].sel(model=LARGE, gpu=book.new)
    kg = totals.card_kg([book.old, book.new], totals.SOURCED)
    making = (kg.sel(gpu=book.new) / kg.sel(gpu=book.old)).median("draw")
    region = totals.grids()
    by_region = float(region.sel(zone=DIRTY) / region.sel(zone=CLEAN))
    at = {"model": LARGE, "gpu": book.old, "batch": 1, "zone": CLEAN, "approach": totals.MAIN}
    share = (tokens["embodied_g"] / whole).sel(at)
    closed = findings.at(findings.closure(book.runs), place="committed")["closure"]
    distance = validation.residuals("gpu")["distance"]
    rows = [
        _expected(
            "A1, H1",
            "RTX 6000 Ada decodes faster: T4 time over its time, 7B, batch 1",
            "4, both cards",
            **_one_ratio(pairs, "time_s", "decode", LARGE),
        ),
        _expected(
            "A2, H2",
            "energy a token, decode, 1B, batch 1: T4 over RTX 6000 Ada",
            "4, both cards",
            **_one_ratio(pairs, "energy_per_token_J", "decode", SMALL),
        ),
        _expected(
            "H3",
            "energy a token, prefill, 7B, batch 1: T4 over RTX 6000 Ada",
            "4, both cards",
            **_one_ratio(pairs, "energy_per_token_J", "prefill", LARGE),
        ),
        _expected(
            "H4",
            "energy a token at batch 1 over that at the best batch, 7B, RTX 6000 Ada",
            "4",
            **_middle(energy.sel(batch=1) / energy.min("batch")),
            status="modelled",
        ),
        _expected(
            "A3",
            "grams of one run: PacifiCorp East over Quebec",
            "1",
            expected=by_region,
            low=by_region,
            high=by_region,
            status="published",
        ),
        _expected(
            "A4",
            "making of an RTX 6000 Ada over that of a T4, over the approaches",
            "1",
            expected=float(making.median()),
            low=float(making.min()),
            high=float(making.max()),
            status="modelled",
        ),
        _expected(
            "A5, H5",
            "embodied share of a token in Quebec, 7B on a T4, batch 1",
            "1",
            **_middle(share),
            status="modelled",
        ),
        _expected(
            "protocol",
            "prefill plus decode over generate, processor",
            "3",
            **_middle(closed),
            status="measured",
        ),
        _expected(
            "model",
            "error of a time, power or energy on a card that took no part in the fit",
            "1",
            **_middle(distance),
            status="derived",
        ),
    ]
    return {"expected": pd.DataFrame(rows)}


def _expected(claim: str, what: str, step: str, *, expected, low, high, status) -> dict:
    """A row of the reviewer's table."""
    return {
        "claim": claim,
        "what": what,
        "expected": expected,
        "from": low,
        "to": high,
        "step": step,
        "status": status,
    }


def _one_ratio(pairs: pd.DataFrame, quantity: str, phase: str, model: str) -> dict:
    """The ratio of the two GPUs at batch 1 and prompts of 128 tokens, with its interval."""
    rows = findings.at(
        findings.versus(pairs, quantity), phase=phase, model=model, batch=1, prompt_tokens=128
    )
    row = rows.iloc[0]
    return {"expected": row["ratio"], "low": row["low"], "high": row["high"], "status": row["kind"]}


def _middle(values: xr.DataArray | pd.Series) -> dict:
    """Median and the middle nine tenths."""
    low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95])
    return {"expected": middle, "low": low, "high": high}

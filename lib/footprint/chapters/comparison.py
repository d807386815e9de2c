"""Two GPUs beside each other: what they are, how long they take, what they use."""

import pandas as pd

from footprint import spec
from footprint.chapters.book import Book
from footprint.charts import theme
from footprint.energy import findings

TERMS = {
    "u_quantisation_pct": "ticks of the counter",
    "u_sampling_pct": "power between samples",
    "u_gain_pct": "gain of the board",
}


def energy(book: Book) -> dict:
    """Joules of a token, eager and with a serving engine, and what a window knows of its energy."""
    joules = "energy_per_token_J"
    ratios = findings.versus(book.pairs, joules)
    small = findings.at(ratios, model="llama-1b", phase="decode", batch=1, prompt_tokens=128)
    decode = findings.at(ratios, phase="decode")["ratio"]
    cap = _beside_the_cap(book.pairs)
    share = cap.groupby("card")["share of the cap"].median()
    engines = _engines(book)
    lead = engines.xs(book.old, level="device") / engines.xs(book.new, level="device")
    full = engines.loc[("llama-7b", book.new)]
    terms = pd.DataFrame(spec.table("sensor_coverage")).melt("load", list(TERMS), "term", "pct")
    terms = terms.assign(term=terms["term"].map(TERMS), pct=terms["pct"].astype(float))
    middle = terms.groupby("term")["pct"].median()
    measured = findings.at(book.points, kind="measured")
    large = findings.at(
        book.pairs, model="llama-7b", device=book.new, phase="decode", prompt_tokens=128
    ).set_index("batch")
    return {
        "pairs": book.pairs,
        "ratios": ratios,
        "evidence": theme.Page(theme.kinds(ratios["kind"])),
        "small": small["ratio"].iloc[0],
        "small_low": small["low"].iloc[0],
        "small_high": small["high"].iloc[0],
        "least": decode.min(),
        "most": decode.max(),
        "cap": cap,
        "old_cap": share[findings.label(book.old)],
        "new_cap": share[findings.label(book.new)],
        "lone_eager": lead.loc["llama-1b", ("eager", 1)],
        "lone_serving": lead.loc["llama-1b", ("serving", 1)],
        "full_eager": lead.loc["llama-1b", ("eager", 64)],
        "full_serving": lead.loc["llama-1b", ("serving", 64)],
        "large_eager_J": full["eager", 64],
        "large_serving_J": full["serving", 64],
        "engines": _engine_table(engines),
        "terms": terms,
        "gain_pct": middle["gain of the board"],
        "between_pct": middle["power between samples"],
        "ticks_pct": middle["ticks of the counter"],
        "measured": len(measured),
        "with_energy": measured["energy_J"].notna().sum(),
        "one_J": large.loc[1, joules],
        "many_J": large.loc[64, joules],
        "fewer": large.loc[1, joules] / large.loc[64, joules],
        "large_evidence": theme.badge(large.loc[1, "kind"]),
    }


def _beside_the_cap(pairs: pd.DataFrame) -> pd.DataFrame:
    """Power and joules of a decoded token at batch 1 beside the power cap and what a step would use at it."""
    rows = findings.at(pairs, phase="decode", batch=1, prompt_tokens=128)
    gpus = [spec.gpu(name) for name in rows["device"]]
    watts = pd.Series([gpu.tdp_W for gpu in gpus], index=rows.index)
    return pd.DataFrame(
        {
            "model": rows["model"].map(findings.label),
            "card": [gpu.name for gpu in gpus],
            "cap (W)": watts,
            "power (W)": rows["power_W"],
            "share of the cap": rows["power_W"] / watts,
            "at the cap (J)": watts * rows["time_s"] / (rows["output_tokens"] - 1),
            "J a token": rows["energy_per_token_J"],
            "low": rows["energy_per_token_J_low"],
            "high": rows["energy_per_token_J_high"],
            "status": rows["kind"],
        }
    )


def _engines(book: Book) -> pd.DataFrame:
    """Joules of a decoded token at batch 1 and 64: a row a pair, columns engine and batch."""
    engines = {"eager": book.pairs, "serving": book.serving}
    rows = pd.concat({name: table for name, table in engines.items()}, names=["by"]).reset_index(0)
    rows = findings.at(rows, phase="decode", prompt_tokens=128)
    rows = rows[rows["batch"].isin([1, 64])]
    wide = rows.pivot(
        index=["model", "device"], columns=["by", "batch"], values="energy_per_token_J"
    )
    return wide.reindex(findings.PAIRS)


def _engine_table(engines: pd.DataFrame) -> pd.DataFrame:
    shown = {
        f"{engine}, batch {batch} (J)": engines[engine, batch]
        for batch in (1, 64)
        for engine in ("eager", "serving")
    }
    table = pd.DataFrame(shown).reset_index().rename(columns={"device": "card"})
    names = {column: table[column].map(findings.label) for column in ("model", "card")}
    return table.assign(**names, status="modelled")

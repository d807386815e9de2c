"""The scoreboard: the claims of the paper's abstract and our hypotheses, each with a verdict, its status and its odds."""

from collections.abc import Callable

import pandas as pd

from footprint import spec
from footprint.decide import verdicts
from footprint.energy import findings

SURE = 0.95  # probability from which a verdict is plain
LIKELY = 0.75


def verdict(probability: float) -> str:
    """Words for a probability that a claim holds: holds, likely, open, unlikely, fails."""
    if pd.isna(probability):
        return "open"
    words = (
        (SURE, "holds"),
        (LIKELY, "likely holds"),
        (1 - LIKELY, "open"),
        (1 - SURE, "likely fails"),
    )
    return next((word for least, word in words if probability >= least), "fails")


def _row(probability: float, because: str, kinds) -> dict:
    kinds = sorted(set(kinds))
    status = kinds[0] if len(kinds) == 1 else "derived"
    return {
        "verdict": verdict(probability),
        "probability": probability,
        "because": because,
        "status": status,
    }


def hardware_matters(pairs: pd.DataFrame, quantity: str, unit: str) -> dict:
    """A1, A2: the quantity differs between the two cards (probability of the larger side, median over points)."""
    ratios = findings.versus(pairs, quantity)
    odds = ratios["probability"].where(ratios["ratio"] > 1, 1 - ratios["probability"])
    low, high = ratios["ratio"].min(), ratios["ratio"].max()
    because = f"The T4 takes {low:.2f} to {high:.2f} times the {unit} of the RTX 6000 Ada over {len(ratios)} points."
    return _row(odds.median(), because, ratios["kind"])


def phases_differ(pairs: pd.DataFrame) -> dict:
    """H3: prefill and decode differ in which card takes less energy, at some point that both cards serve."""
    ratios = findings.versus(pairs, "energy_per_token_J")
    keys = ["model", "batch", "prompt_tokens", "output_tokens"]
    both = ratios.pivot_table(index=keys, columns="phase", values=["ratio", "probability"])
    p, q = both["probability"]["prefill"], both["probability"]["decode"]
    differ = p * (1 - q) + q * (1 - p)
    model, batch = differ.idxmax()[:2]
    at = both.loc[differ.idxmax()]["ratio"]
    because = (
        f"Furthest apart for {findings.label(model)} at batch {batch}: T4 over RTX 6000 Ada is {at['prefill']:.2f} in "
        f"prefill and {at['decode']:.2f} in decode; phases disagree at "
        f"{((both['ratio'] > 1).nunique(axis=1) > 1).mean():.0%} of points."
    )
    return _row(differ.max(), because, ratios["kind"])


def by_worlds(judge: Callable[[pd.DataFrame], tuple]) -> Callable[[pd.DataFrame], dict]:
    """A judge of `verdicts` as a judge of this table."""
    return lambda pairs: _row(*judge(pairs))


JUDGES: dict[str, Callable[[pd.DataFrame], dict]] = {
    "A1": lambda pairs: hardware_matters(pairs, "time_s", "time"),
    "A2": lambda pairs: hardware_matters(pairs, "energy_per_token_J", "energy"),
    "H1": by_worlds(verdicts.newer_is_faster),
    "H2": by_worlds(verdicts.older_wins_small),
    "H3": phases_differ,
    "A3": by_worlds(verdicts.regions_differ),
    "A4": by_worlds(verdicts.making_differs),
    "A5": by_worlds(verdicts.both_matter),
    "A6": by_worlds(verdicts.joint_choice_saves),
    "H4": by_worlds(verdicts.batching_helps),
    "H5": by_worlds(verdicts.visible_where_clean),
    "H6": by_worlds(verdicts.least_is_not_fastest),
    "H7": by_worlds(verdicts.each_alone_misleads),
}


def table(pairs: pd.DataFrame, judges=None) -> pd.DataFrame:
    """One row a claim: id, claim, verdict so far, probability, why, and the status of the evidence."""
    judges = JUDGES if judges is None else judges
    rows = []
    for claim in spec.table("published"):
        judged = (
            judges[claim["id"]](pairs)
            if claim["id"] in judges
            else _row(float("nan"), "Not judged yet.", ["unverified"])
        )
        rows.append({"id": claim["id"], "claim": claim["claim"], **judged})
    return pd.DataFrame(rows)

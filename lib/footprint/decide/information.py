"""What an hour on a card would settle: how sure a claim would be on average, once that card's errors are known.

A claim that holds with probability p is settled to max(p, 1 - p): 1/2 is a coin, 1 is certain. If the error e of a card
were known, its points would move by it and lose that part of their intervals, and the judge of the claim would find p(e):

    now = max(p, 1 - p)      then = E[max(p(e), 1 - p(e))]      value of the information = then - now

Where p(e) averages to p, `then` is never below `now`; judges that multiply the odds of several points or take the least
of them keep to that only nearly, so a difference of some hundredths says nothing.

The errors are those of `served`: a standard normal one of a card's times and one of its power, shared by all its points.
The mean is over a Fibonacci lattice of the two, so the judges are asked as they are, a few times each.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri

from footprint import Refused
from footprint.decide import scoreboard
from footprint.energy import findings

ERRORS = ("time", "power")
NODES = {
    8: 3,
    89: 55,
}  # sizes of a Fibonacci lattice and their steps: quick (good to 0.03), and to check it by
ENDS = {"_low": -1, "_high": 1}


def known(pairs: pd.DataFrame, card: str, **errors: float) -> pd.DataFrame:
    """The points as they would be if errors of a card (time, power: in standard deviations) were known.

    A point moves by its error and keeps the part of its interval that is not of it. Of the energy's error the part that
    the time's explains is the time's, the rest is the power's. The columns of power are left out: no claim reads them.
    """
    if wrong := set(errors) - set(ERRORS):
        raise Refused(f"The error {min(wrong)!r} is unknown; allowed are {', '.join(ERRORS)}.")
    table = pairs.drop(columns=[name for name in pairs if name.startswith("power_W")])
    at = (table["device"] == card).to_numpy()
    rows = table[at]
    half = ndtri((1 + rows["kind"].map(findings.LEVEL).astype(float)) / 2)
    moved = {"time_s": 0.0, "energy_J": 0.0}
    left = {}
    for end, sign in ENDS.items():
        time, energy = (np.abs(np.log(rows[f"{name}{end}"] / rows[name])) / half for name in moved)
        shared = np.minimum(time, energy)
        own = np.sqrt(energy**2 - shared**2)
        side = {
            name: max(sign * errors.get(name, 0.0), 0.0) * sign for name in ERRORS
        }  # this end's part of the error
        moved["time_s"] += side["time"] * time
        moved["energy_J"] += side["time"] * shared + side["power"] * own
        still = {name: float(name not in errors) for name in ERRORS}
        left["time_s", end] = still["time"] * time
        left["energy_J", end] = np.hypot(still["time"] * shared, still["power"] * own)
    for name, by in moved.items():
        table.loc[at, name] = rows[name] * np.exp(by)
        for end, sign in ENDS.items():
            table.loc[at, f"{name}{end}"] = rows[name] * np.exp(by + sign * half * left[name, end])
    for end in ("", *ENDS):
        table[f"energy_per_token_J{end}"] = table[f"energy_J{end}"] / table["tokens"]
    return table


def lattice(nodes: int) -> np.ndarray:
    """(node, 2) standard normal errors of equal weight: each coordinate is at the middles of `nodes` equal shares, once."""
    index = np.arange(nodes)
    return ndtri((np.stack([index, index * NODES[nodes] % nodes], axis=1) + 0.5) / nodes)


def settled(
    judge: Callable[[pd.DataFrame], dict],
    pairs: pd.DataFrame,
    card: str,
    what: Sequence[str] = ERRORS,
    nodes: int = 8,
) -> float:
    """E[max(p, 1 - p)] of a claim if these errors of a card were known (judge: as in `scoreboard.JUDGES`)."""
    found = [
        judge(known(pairs, card, **dict(zip(what, at, strict=False))))["probability"]
        for at in lattice(nodes)
    ]
    return float(np.maximum(found, 1 - np.array(found)).mean())


def table(
    pairs: pd.DataFrame,
    cards: Sequence[str],
    judges=None,
    what: Sequence[str] = ERRORS,
    nodes: int = 8,
) -> pd.DataFrame:
    """One row a claim that is neither plain nor plainly false: id, verdict, probability, `now`, and `then` by card.

    Claims are those of `judges` (all of the scoreboard by default); a card that is measured already can settle nothing more.
    """
    rows = []
    for name, judge in (scoreboard.JUDGES if judges is None else judges).items():
        odds = judge(pairs)["probability"]
        now = max(odds, 1 - odds)
        if now < scoreboard.SURE:
            then = {card: settled(judge, pairs, card, what, nodes) for card in cards}
            rows.append(
                {
                    "id": name,
                    "verdict": scoreboard.verdict(odds),
                    "probability": odds,
                    "now": now,
                    **then,
                }
            )
    return pd.DataFrame(rows, columns=["id", "verdict", "probability", "now", *cards])


def readings(pairs: pd.DataFrame, cards: Sequence[str], judges: dict[str, Callable]) -> pd.Series:
    """What one reading alone would add, `then` - `now` summed over these claims, by (card, error)."""
    found = {}
    for card in cards:
        for what in ERRORS:
            claims = table(pairs, [card], judges, [what])
            found[card, what] = float((claims[card] - claims["now"]).sum())
    return pd.Series(found)

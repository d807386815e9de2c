"""How far off a prediction may be: 90 % intervals, hierarchical in their causes and conformal in their level.

The logarithm of a predicted time is uncertain by what is uncertain of its causes, each weighed by its share of the time
(the delta method; `roofline.run` gives the shares):

    sd^2 = sum over causes (share x spread)^2 + spread of the engine's software^2

A spread is how much a cause differs from card to card, host to host and program to program beyond the fitted parameter.
Spreads are fitted, with a Student likelihood, to the residuals of cards that the fit had not seen, so they hold the
variance of parameters, of residuals and of an unseen card together. Power and energy add the joules and the floor.
The half-width is level x sd; the level is the 90 % quantile of |residual| / sd over left-out rows, each cell (card,
source, engine, quantity) counting once (split conformal prediction). So a regime that the data pin down (reading GDDR)
gets a narrow interval and one that they do not (a host nobody knows) a wide one. A card on which the engine was
calibrated gets the level of left-out models, any other the level of left-out cards where that is larger.
"""

import numpy as np
import pandas as pd

from footprint.predict import roofline

CAUSES = ("reading", "multiplying", "traffic", "waiting", "host", "cap")
SPREADS = (*CAUSES, *roofline.ENGINES, "joules", "floor", "watts")
LEVELS = {
    "ttft_s": "ttft",
    "tpot_s": "tpot",
    "e2e_s": "tpot",
    "power_W": "power",
    "energy_J": "power",
}
CELL = ["gpu", "source", "engine", "quantity"]
COVERED = 0.90
FREEDOM = 5  # degrees of freedom of the Student likelihood


def time_variance(p: dict[str, float], shares: dict, engine, memory):
    """Variance of ln time from the shares of its causes; engine, memory: arrays of indices.

    The error of the fitted share of bandwidth adds to it: few cards measure some kinds of memory.
    """
    total = roofline.by(p, "spread", roofline.ENGINES, engine) ** 2
    moving = shares["reading"] + shares["traffic"]
    total = total + (roofline.by(p, "spread_memory", roofline.MEMORIES, memory) * moving) ** 2
    for name in CAUSES:
        total = total + (p[f"spread_{name}"] * shares[name]) ** 2
    return total


def power_variance(p: dict[str, float], joules, floor, memory):
    """Variance of ln power. joules, floor: d ln power / d ln of each. The error of the fitted joules a byte adds to it."""
    fitted = roofline.by(p, "spread_joules", roofline.KINDS, memory)
    return (
        (p["spread_joules"] ** 2 + fitted**2) * joules**2
        + (p["spread_floor"] * floor) ** 2
        + p["spread_watts"] ** 2
    )


def energy_variance(of_power, joules, of_time):
    """Variance of ln energy: a longer time costs idle and floor, not the joules of the work."""
    return of_power + (1 - joules) ** 2 * of_time


def deviations(p: dict[str, float], rows: pd.DataFrame) -> np.ndarray:
    """Standard deviation of ln expected for rows with the columns of `calibrate.expected`."""
    engine, memory = rows["engine_index"].to_numpy(), rows["memory_index"].to_numpy()
    shares = {name: rows[name].to_numpy() for name in (*CAUSES, "joules", "floor")}
    of_time = time_variance(p, shares, engine, memory)
    of_power = power_variance(p, shares["joules"], shares["floor"], memory)
    quantity = rows["quantity"].to_numpy()
    of_energy = energy_variance(of_power, shares["joules"], of_time)
    return np.sqrt(
        np.select([quantity == "power_W", quantity == "energy_J"], [of_power, of_energy], of_time)
    )


def fit(p: dict[str, float], rows: pd.DataFrame, prior: pd.DataFrame) -> dict[str, float]:
    """Spreads from left-out residuals (column `off` = ln expected / measured); a cell of n rows weighs sqrt(n)."""
    off = np.clip(rows["off"].to_numpy(), -0.6, 0.6) ** 2
    weight = rows.groupby(CELL)["off"].transform("size").to_numpy() ** -0.5
    middle, width = np.log(prior["prior_median"].to_numpy()), prior["prior_log_sd"].to_numpy()

    def loss(x):
        variance = deviations(p | dict(zip(prior.index, np.exp(x), strict=True)), rows) ** 2
        student = (FREEDOM + 1) * np.log1p(off / variance / FREEDOM) + np.log(variance)
        return (weight * student).sum() / 2 + (((x - middle) / width) ** 2).sum() / 2

    from scipy.optimize import minimize  # here: slow to load, and the pages of the book fit nothing

    return dict(zip(prior.index, np.exp(minimize(loss, middle, method="L-BFGS-B").x), strict=True))


def quantile(values: np.ndarray, weight: np.ndarray, level: float = COVERED) -> float:
    """Smallest value below or at which `level` of the weight lies."""
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, level * total[-1])])


def levels(p: dict[str, float], rows: pd.DataFrame) -> dict[str, float]:
    """Half-width in standard deviations that covers 90 % of left-out rows, for ttft, tpot and power."""
    score = np.abs(rows["off"].to_numpy()) / deviations(p, rows)
    weight = 1 / rows.groupby(CELL)["off"].transform("size").to_numpy()
    kind = rows["quantity"].map(LEVELS).to_numpy()
    return {
        name: quantile(score[kind == name], weight[kind == name])
        for name in dict.fromkeys(LEVELS.values())
    }


def nested(p: dict[str, float], rows: pd.DataFrame, prior: pd.DataFrame, split: str) -> pd.Series:
    """Half-widths of ln expected for each row, spreads and level from the other groups of `split` alone."""
    found = pd.Series(np.nan, index=rows.index)
    for group in rows[split].unique():
        inside = rows[split] == group
        own = p | fit(p, rows[~inside], prior)
        level = levels(own, rows[~inside])
        found[inside] = deviations(own, rows[inside]) * rows.loc[inside, "quantity"].map(
            LEVELS
        ).map(level)
    return found

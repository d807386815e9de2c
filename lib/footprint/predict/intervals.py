"""How far off a prediction may be: 90 % intervals from the causes of error.

The logarithm of a predicted time is uncertain by what is uncertain of its causes, each weighed by
its share of the time (the delta method; `roofline.forward_pass` gives the shares):

    sd^2 = sum over causes (share x spread)^2 + spread of the engine's software^2

A spread is how much a cause differs from GPU to GPU, host to host and program to program beyond the
fitted parameter. Spreads are fitted, with a Student likelihood, to the residuals of GPUs that the
fit had not seen, so they hold the variance of parameters, of residuals and of an unseen GPU
together. Power and energy add the joules and the floor. The half-width is level x sd; the level is
the 90 % quantile of |residual| / sd over left-out rows, each cell (GPU, source, engine, quantity)
counting once (split conformal prediction). So a regime that the data pin down (reading GDDR) gets a
narrow interval and one that they do not (a host nobody knows) a wide one. A GPU on which the engine
was calibrated gets the level of left-out models, any other the level of left-out GPUs where that is
larger.
"""

import numpy as np
import pandas as pd

from footprint.predict.roofline import Engine, Memory, choose

CAUSES = ("reading", "multiplying", "traffic", "waiting", "host", "cap")
READABLE = (*CAUSES, "joules", "floor")  # what a reading can settle
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
    """Variance of ln time from the shares of its causes; engine, memory: arrays of the enums.

    The error of the fitted share of bandwidth adds to it: few GPUs measure some kinds of memory.
    """
    software = choose(engine, *[p[f"spread_{name}"] for name in Engine.__members__])
    bandwidth = choose(memory, *[p[f"spread_memory_{name}"] for name in Memory.__members__])
    total = software**2 + (bandwidth * (shares["reading"] + shares["traffic"])) ** 2
    for name in CAUSES:
        total = total + (p[f"spread_{name}"] * shares[name]) ** 2
    return total


def power_variance(p: dict[str, float], joules, floor, memory, loaded):
    """Variance of ln power, with the error of the fitted joules a byte.

    joules, floor: d ln power / d ln of the joules of the work and of the floor. loaded: watts with
    a model in memory and nothing to do; where they are NaN the floor is modelled.
    """
    floor = floor * np.where(np.isnan(loaded), p["spread_floor"], p["spread_loaded"])
    gddr = p["spread_joules_gddr"]
    fitted = choose(memory, p["spread_joules_hbm"], p["spread_joules_hbm3"], gddr, gddr, 0)
    of_joules = (p["spread_joules"] ** 2 + fitted**2) * joules**2
    return of_joules + floor**2 + p["spread_watts"] ** 2


def energy_variance(of_power, joules, of_time):
    """Variance of ln energy: a longer time costs idle and floor, not the joules of the work."""
    return of_power + (1 - joules) ** 2 * of_time


def deviations(p: dict[str, float], rows: pd.DataFrame) -> np.ndarray:
    """Standard deviation of ln expected for rows with the columns of `fit.expected`."""
    shares = {name: rows[name].to_numpy() for name in (*CAUSES, "joules", "floor")}
    memory, quantity = rows["memory_index"].to_numpy(), rows["quantity"].to_numpy()
    of_time = time_variance(p, shares, rows["engine_index"].to_numpy(), memory)
    loaded = rows["loaded"].to_numpy()
    of_power = power_variance(p, shares["joules"], shares["floor"], memory, loaded)
    of_energy = energy_variance(of_power, shares["joules"], of_time)
    wanted = [quantity == "power_W", quantity == "energy_J"]
    return np.sqrt(np.select(wanted, [of_power, of_energy], of_time))


def fit(p: dict[str, float], rows: pd.DataFrame, prior: pd.DataFrame) -> dict[str, float]:
    """Spreads from left-out residuals (column `off`); a cell of n rows weighs sqrt(n)."""
    off = np.clip(rows["off"].to_numpy(), -0.6, 0.6) ** 2
    weight = rows.groupby(CELL)["off"].transform("size").to_numpy() ** -0.5
    middle, width = np.log(prior["prior_median"].to_numpy()), prior["prior_log_sd"].to_numpy()

    def loss(x):
        variance = deviations(p | from_logs(prior.index, x), rows) ** 2
        student = (FREEDOM + 1) * np.log1p(off / variance / FREEDOM) + np.log(variance)
        return (weight * student).sum() / 2 + (((x - middle) / width) ** 2).sum() / 2

    from scipy.optimize import minimize  # here: slow to load, and no page of the book fits

    return from_logs(prior.index, minimize(loss, middle, method="L-BFGS-B").x)


def from_logs(names, logs) -> dict[str, float]:
    """Parameters by name from their logarithms."""
    return dict(zip(names, np.exp(logs), strict=True))


def levels(p: dict[str, float], rows: pd.DataFrame) -> dict[str, float]:
    """Half-widths of ttft, tpot and power, in standard deviations, that cover 90 % of the rows."""
    score = np.abs(rows["off"].to_numpy()) / deviations(p, rows)
    weight = 1 / rows.groupby(CELL)["off"].transform("size").to_numpy()
    kind = rows["quantity"].map(LEVELS).to_numpy()
    names = dict.fromkeys(LEVELS.values())
    return {name: covering(score[kind == name], weight[kind == name]) for name in names}


def covering(values, weights=None) -> float:
    """The smallest value at or below which 90 % of the weight lies."""
    return float(np.quantile(values, COVERED, weights=weights, method="inverted_cdf"))


def nested(p: dict[str, float], rows: pd.DataFrame, prior: pd.DataFrame, split: str) -> pd.Series:
    """Half-widths of ln expected of each row, fitted to the rows of the other groups of `split`."""
    half_widths = pd.Series(np.nan, index=rows.index)
    kinds = rows["quantity"].map(LEVELS)
    column = "gpu" if split == "both" else split
    for group in rows[column].unique():
        inside = rows[column] == group
        own = p | fit(p, rows[~inside], prior)
        level = levels(own, rows[~inside])
        half_widths[inside] = deviations(own, rows[inside]) * kinds[inside].map(level)
    return half_widths

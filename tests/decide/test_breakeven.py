"""Break-evens against bisection on 1,000 random instances and PRISM's rule; paybacks by the day."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from footprint import Refused, carbon
from footprint.decide import breakeven

COUNT = 1000
YEAR_D = 365.25


def sides(seed: int, count: int = COUNT) -> tuple[list[dict], dict]:
    """Two random GPUs and a random use, orders of magnitude apart."""
    generator = np.random.default_rng(seed)

    def between(low, high):
        return np.exp(generator.uniform(np.log(low), np.log(high), count))

    cards = [
        {
            "energy_J": between(0.05, 10),
            "busy_s": between(1e-3, 0.1),
            "embodied_kg": between(5, 300),
            "idle_W": between(1, 100),
        }
        for _ in range(2)
    ]
    for card in cards:  # a GPU takes at least its idle power
        card["energy_J"] = np.maximum(card["energy_J"], card["idle_W"] * card["busy_s"])
    use = {
        "g_per_kwh": between(1, 1000),
        "lifetime_years": between(1, 10),
        "utilisation": generator.uniform(0.05, 1, count),
    }
    return cards, use


def one_by_one(cards: list[dict], use: dict):
    for i in range(COUNT):
        yield (
            [{name: float(values[i]) for name, values in card.items()} for card in cards],
            {name: float(values[i]) for name, values in use.items()},
        )


def charged(
    card: dict, g_per_kwh: float, lifetime_years: float, utilisation: float, pue: float = 1.0
) -> float:
    """Grams of a token by hand: it reserves busy / utilisation seconds, idle for the rest."""
    reserved_s = card["busy_s"] / utilisation
    energy = card["energy_J"] + card["idle_W"] * (reserved_s - card["busy_s"])
    return energy / 3.6e6 * pue * g_per_kwh + card["embodied_kg"] * 1e3 * reserved_s / (
        lifetime_years * YEAR_D * 86400
    )


BOUNDS = {"g_per_kwh": (1e-9, 1e12), "lifetime_years": (1e-9, 1e12), "utilisation": (1e-9, 1.0)}


@pytest.mark.parametrize("by", BOUNDS)
def test_a_closed_form_is_where_a_search_finds_it(by):
    cards, use = sides(seed=1)
    rest = {name: value for name, value in use.items() if name != by}
    tie = breakeven.break_even(*cards, by, **rest, pue=1.2)
    found = 0
    for i, ((old, new), at) in enumerate(one_by_one(cards, use)):

        def difference(value, old=old, new=new, at=at):
            return charged(old, **at | {by: value}, pue=1.2) - charged(
                new, **at | {by: value}, pue=1.2
            )

        low, high = BOUNDS[by]
        below, above = bool(tie["old_below"][i]), bool(tie["old_above"][i])
        assert below == (difference(low) < 0) and above == (difference(high) < 0)
        if below == above:
            assert np.isnan(tie["value"][i])
        else:
            found += 1
            root = brentq(
                lambda x: difference(np.exp(x)), np.log(low), np.log(high), xtol=1e-12, rtol=1e-14
            )
            assert float(tie["value"][i]) == pytest.approx(np.exp(root), rel=1e-6)
    assert found > COUNT / 10


def grams(side, g_per_kwh, use):
    found = breakeven.emitted(side, g_per_kwh, use)
    return (found["operational_g"] + found["embodied_g"]).values


def test_grams_are_those_of_carbon():
    (card, _), use = sides(seed=2)
    idle_s = card["busy_s"] * (1 / use["utilisation"] - 1)
    grid = carbon.operational(card["energy_J"] + card["idle_W"] * idle_s, use["g_per_kwh"], 1.3)
    making = carbon.amortised(
        card["embodied_kg"], card["busy_s"], use["lifetime_years"], use["utilisation"]
    )
    whole = carbon.Use(use["lifetime_years"], use["utilisation"], 1.3)
    assert grams(card, use["g_per_kwh"], whole) == pytest.approx(grid + making, rel=1e-12)


POSITIVE = st.floats(1e-3, 1e3)


def test_with_a_host_a_token_costs_its_watts_and_its_embodied_carbon_too():
    card = {"token_J": 2.0, "token_s": 0.5, "embodied_kg": 10.0, "idle_W": 5.0}
    use = carbon.Use(lifetime_years=2.0, host_W=100.0, host_kg=90.0)
    expected = (2.0 + 50.0) / 1e4 + 100e3 * 0.5 / (2 * carbon.YEAR_S)
    assert grams(card, 360.0, use) == pytest.approx(expected)


@settings(deadline=None)
@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE, st.floats(1, 2), st.floats(1, 1000))
def test_prism_crossover_rule(energy, more, first_g, second_g, pue, g_per_kwh):
    """PRISM, proposition 3: option j wins when C_emb,i - C_emb,j > PUE x CI x (E_j - E_i)."""
    i, j = (
        {
            "energy_J": joules,
            "busy_s": 1.0,
            "idle_W": 0.0,
            "embodied_kg": grams * 5 * YEAR_D * 86400 / 1000,
        }
        for joules, grams in ((energy, first_g * 1e-4), (energy + more, second_g * 1e-4))
    )
    margin = (first_g - second_g) * 1e-4 - pue * g_per_kwh * more / 3.6e6
    if abs(margin) > 1e-9:
        assert (margin > 0) == (
            grams(j, g_per_kwh, carbon.Use(pue=pue)) < grams(i, g_per_kwh, carbon.Use(pue=pue))
        )
        tie = breakeven.break_even(j, i, pue=pue).expand_dims("sample")
        assert breakeven.old_wins(tie, g_per_kwh) == (margin > 0)


def test_a_gpu_never_beats_itself_and_nobody_wins_on_what_is_unknown():
    card = {"energy_J": 1.0, "busy_s": 0.01, "embodied_kg": 10.0, "idle_W": 5.0}
    for by in BOUNDS:
        tie = breakeven.break_even(card, card, by, g_per_kwh=30)
        assert np.isnan(tie["value"]) and not tie["old_below"] and not tie["old_above"]
    unknown = breakeven.break_even(card | {"energy_J": np.nan}, card).expand_dims("sample")
    assert not unknown["known"].item() and np.isnan(breakeven.old_wins(unknown, 30))


def test_the_winner_is_counted_over_samples():
    old = {
        "energy_J": xr.DataArray([1.0, 1.0, 1.0, 3.0], dims="sample"),
        "busy_s": 1.0,
        "embodied_kg": 10.0,
        "idle_W": 0.0,
    }
    new = {"energy_J": 2.0, "busy_s": 1.0, "embodied_kg": 20.0, "idle_W": 0.0}
    tie = breakeven.break_even(old, new)
    assert breakeven.old_wins(tie, 0.001) == 1 and breakeven.old_wins(tie, 1e6) == 0.75


def test_bad_input_is_refused():
    card = {"energy_J": 1.0, "busy_s": 0.01, "embodied_kg": 10.0, "idle_W": 5.0}
    with pytest.raises(Refused, match="break-even by 'batch'"):
        breakeven.break_even(card, card, "batch")
    with pytest.raises(Refused, match="utilisation"):
        breakeven.break_even(card, card, utilisation=1.2)
    with pytest.raises(Refused, match="g_per_kwh"):
        breakeven.payback(card, card, -1)
    with pytest.raises(Refused, match="accounting"):
        breakeven.payback(card, card, 30, accounting="monthly")


def crossing(keep, change, corners: list[float]) -> float:
    """The day after which the curve `change` lies below `keep`; both linear between corners."""
    for start, stop in itertools.pairwise([*corners, 1e15]):
        middle = (start + stop) / 2
        if keep(start) >= change(start) and keep(middle) > change(middle):
            return start
        if keep(stop) > change(stop):
            return brentq(lambda day: keep(day) - change(day), start, stop, xtol=1e-12, rtol=1e-14)
    return np.inf


def test_a_grid_that_drifts_moves_the_payback():
    """The day on which savings, summed on the moving grid, reach the embodied carbon."""
    constant = xr.DataArray([30.0, 400.0, 1500.0, 6000.0, np.inf, np.nan], dims="sample")
    for yearly in (0.9, 1.1):
        found = breakeven.drifting(constant, yearly).values
        saved = np.cumsum(yearly ** ((np.arange(400_000) + 0.5) / YEAR_D))
        for day, moved in zip(constant.values[:4], found[:4], strict=True):
            reached = np.flatnonzero(saved >= day)
            assert (
                moved == pytest.approx(reached[0] + 1, abs=1) if len(reached) else moved == np.inf
            )
        assert found[4] == np.inf and np.isnan(found[5])
        assert np.isinf(found[3]) == (yearly < 1), (
            "a saving that shrinks by a tenth a year adds up to under ten years' worth"
        )
    assert breakeven.drifting(constant, 1.0) is constant
    with pytest.raises(Refused, match="yearly"):
        breakeven.drifting(constant, 0.0)


@pytest.mark.parametrize("accounting", ["sunk", "amortised"])
def test_payback_is_where_the_cumulated_curves_cross(accounting):
    (old, new), use = sides(seed=3)
    new["busy_s"] = new["busy_s"] / 10
    generator = np.random.default_rng(4)
    load, age = generator.uniform(0.1, 1, COUNT), generator.uniform(0, 8, COUNT)
    grid, life = use["g_per_kwh"], use["lifetime_years"]
    days = breakeven.payback(
        old,
        new,
        grid,
        carbon.Use(lifetime_years=life, utilisation=load),
        replaced=2,
        age_years=age,
        accounting=accounting,
    )
    finite = 0
    for i in range(COUNT):
        tokens = 2 * load[i] * 86400 / old["busy_s"][i]
        busy = tokens * new["busy_s"][i]

        def daily(card, tokens, cards, i=i):
            idle_s = cards * 86400 - tokens * card["busy_s"][i]
            return (tokens * card["energy_J"][i] + card["idle_W"][i] * idle_s) / 3.6e6 * grid[i]

        if busy > 86400:
            assert days[i] == np.inf
            continue
        kept, fresh = daily(old, tokens, 2), daily(new, tokens, 1)
        span, left = life[i] * YEAR_D, max(life[i] - age[i], 0) * YEAR_D
        past, cost = 2000 * old["embodied_kg"][i], 1000 * new["embodied_kg"][i]
        if accounting == "sunk":
            day = crossing(lambda d, k=kept: k * d, lambda d, f=fresh, c=cost: c + f * d, [0.0])
        else:
            day = crossing(
                lambda d, k=kept, p=past, e=left, s=span: k * d + p * min(d, e) / s,
                lambda d, f=fresh, p=past, e=left, s=span, c=cost: (
                    f * d + p * e / s + c * min(d, s) / s
                ),
                sorted([0.0, left, span]),
            )
        assert float(days[i]) == pytest.approx(day, rel=1e-6)
        finite += np.isfinite(day)
    assert finite > COUNT / 10


def test_what_never_pays_back_stays_infinite_in_the_interval():
    days = xr.DataArray(
        [[1.0, 2.0, 3.0, np.inf], [np.inf] * 4, [1.0] * 4], dims=("model", "sample")
    )
    found = breakeven.spread(days)
    assert found["median"].tolist() == [2.5, np.inf, 1.0]
    assert (
        found["high"].tolist() == [np.inf, np.inf, 1.0]
        and (found["low"][0] < 2)
        and (found["low"][0] >= 1)
    )


def test_beside_the_host_of_a_tie_both_gpus_take_the_same_energy():
    energy, busy = np.array([2.0, 3.0, 5.0, 5.0]), np.array([3.0, 4.0, 2.0, 0.5])
    old, new = (
        xr.Dataset({"energy_J": ("case", e), "busy_s": ("case", t), "embodied_kg": 1.0})
        for e, t in ((energy, busy), (np.full(4, 4.0), np.ones(4)))
    )
    tie = breakeven.host_tie(old, new)
    assert (
        tie.values == pytest.approx([1.0, 1 / 3, np.nan, 2.0], nan_ok=True)
        and tie.attrs["units"] == "W"
    )
    known = tie.notnull()
    sides = [(card["energy_J"] + tie * card["busy_s"]).where(known) for card in (old, new)]
    assert sides[0].values == pytest.approx(sides[1].values, nan_ok=True)
    more = [card["energy_J"] + (tie + 1) * card["busy_s"] for card in (old, new)]
    assert ((more[0] > more[1]) == (old["busy_s"] > new["busy_s"])).where(known, True).all()

"""Ratios, scenarios and single points against closed forms; the front is what nothing beats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from footprint import carbon, decide
from footprint.decide import breakeven, compare
from footprint.decide.world import draw_world
from footprint.decide.world import points as draw_points
from made_points import points

CARDS = ("t4", "rtx-6000-ada")
POINTS = st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=30)


@given(POINTS)
def test_nothing_on_the_front_is_beaten_and_all_else_is(points):
    front = decide.pareto(*np.array(points).T)
    for on_front, point in zip(front, points, strict=True):
        beaten = any(
            all(a <= b for a, b in zip(other, point, strict=True)) and other != point
            for other in points
        )
        assert on_front != beaten


def test_what_is_unknown_is_never_on_the_front():
    grid = np.array([[1.0, np.nan], [2.0, 3.0]])
    assert decide.pareto(grid, grid[::-1]).tolist() == [[True, False], [True, False]]


@pytest.fixture(scope="module")
def world():
    return draw_world(CARDS, n=400)


def two_gpus(**options):
    """Points on which the old GPU is slower and takes less, of one length and engine."""
    time, power = {"t4": 3.0, "rtx-6000-ada": 1.0}, {"t4": 70.0, "rtx-6000-ada": 230.0}
    made = points(
        time=lambda model, gpu, batch: time[gpu],
        power=lambda model, gpu, batch: power[gpu],
        log_sd=0.1,
        **options,
    )
    return made.squeeze(["engine", "prompt", "output"])


def test_the_share_of_samples_won_agrees_with_the_break_even(world):
    given = two_gpus()
    life = compare.LIFETIMES.sel(lifetime_years=[3, 5])
    found = compare.ratios(given, world, carbon.Use(lifetime_years=life))
    wins = compare.probability(found["carbon_ratio"])
    old, new = (breakeven.on_gpu(given, world, gpu) for gpu in CARDS)
    for years in (3, 5):
        tie = breakeven.break_even(old, new, lifetime_years=years)
        for zone in world.zone.values:
            expected = breakeven.old_wins(tie, world["g_per_kwh"].sel(zone=zone, drop=True))
            here = wins.sel(zone=zone, lifetime_years=years)
            assert np.allclose(here, expected.transpose(*here.dims))
    assert 0 < float(wins.min()) < float(wins.max()) < 1


def test_a_gpu_without_embodied_carbon_stands_by_its_operational_carbon():
    names = ["my-gpu", "t4"]
    world = draw_world(names, n=50)
    given = points(gpus=names, power=lambda model, gpu, batch: 50 if gpu == "my-gpu" else 100)
    found = compare.ratios(given, world, old="my-gpu", new="t4")
    assert (found["counted"] == "operational carbon").all()
    assert found["carbon_ratio"].values == pytest.approx(0.5)
    assert found["embodied_share"].sel(gpu="my-gpu").isnull().all()
    told = draw_world(names, n=50, embodied_kg={"my-gpu": 1e4})
    found = compare.ratios(given, told, old="my-gpu", new="t4", methods=["ACT"])
    assert (found["counted"] == "both carbons").all() and (found["carbon_ratio"] > 1).all()


def test_a_measured_and_a_modelled_gpu_make_a_ratio_of_mixed_evidence(world):
    run = points(evidence="measured", models=["llama-1b"], gpus=["t4"])
    both = compare.ratios(draw_points(run, points()), world)
    assert (both["evidence"].sel(model="llama-1b") == "mixed").all()
    assert (both["evidence"].sel(model="llama-7b") == "modelled").all()


def test_a_host_favours_the_faster_gpu():
    """Scenarios against samples on one side of the tie, and against grams by hand."""
    world = draw_world(CARDS, n=2000)
    made = points(
        lambda model, gpu, batch: 2.0 if gpu == "t4" else 1.0,
        lambda model, gpu, batch: 45.0 if gpu == "t4" else 100.0,
        log_sd=0.1,
    ).isel(prompt=0, output=0)
    kg, hour = float(carbon.host("two-socket").sum()), 1000 / (5 * carbon.YEAR_S)
    uses = {"alone": carbon.Use()}
    uses |= {f"{watts} W": carbon.Use(host_W=watts, host_kg=kg) for watts in (0, 30, 300)}
    found = compare.scenarios(made, world, uses)
    assert found.dims == ("engine", "counted", "served", "model", "zone")
    at = {"engine": "eager", "served": "one at a time", "model": "llama-7b"}
    sides = [
        breakeven.on_gpu(made, world, gpu, [carbon.MAIN]).squeeze().sel(model="llama-7b", batch=1)
        for gpu in CARDS
    ]
    expected = breakeven.old_wins(breakeven.break_even(*sides), world["g_per_kwh"])
    assert found.sel(at | {"counted": "alone"}).values == pytest.approx(expected.values)
    grid = world["g_per_kwh"].sel(zone="US-NW-PACE")
    old, new = (
        (side["token_J"] + 30 * side["token_s"]) / 3.6e6 * grid
        + (side["embodied_kg"] + kg) * hour * side["token_s"]
        for side in sides
    )
    by_watts = found.sel(at | {"zone": "US-NW-PACE"}).sel(counted=list(uses)[1:]).values
    assert by_watts[0] > by_watts[1] > by_watts[2]
    assert by_watts[1] == pytest.approx(float((old < new).mean()), abs=1e-12)


def test_the_best_batch_of_each_gpu_may_be_any(world):
    """Of batches 1, 4 and 16 the middle is best: the T4's at 4 beats the other GPU's at 16."""
    watts = {1: 100.0, 4: 20.0, 16: 1e4}

    def power(model, gpu, batch):
        return watts[batch] if gpu == "t4" else {1: 90.0, 4: 90.0, 16: 200.0}[batch]

    made = points(power=power).isel(prompt=0, output=0)
    found = compare.scenarios(made, world, {"alone": carbon.Use()}).sel(zone="US-NW-PACE")
    assert (found.sel(served="one at a time") == 0).all()
    assert (found.sel(served="own best batch") == 1).all()


def test_two_boards_apart_by_less_than_their_gain_leave_the_question_open():
    """3 % between two boards whose gain may be off by 5 % (95 %): neither surely uses more."""
    sd = 0.05 / 1.96
    made = points(
        power=lambda model, gpu, batch: 103.0 if gpu == "t4" else 100.0,
        log_sd=sd,
        gain_sd=sd,
        evidence="measured",
    )
    found = compare.versus(*(made.sel(gpu=gpu) for gpu in CARDS))
    assert found["ratio"].values == pytest.approx(1.03)
    assert ((found["probability"] > 0.05) & (found["probability"] < 0.95)).all()
    assert (found["low"] < 1).all() and (found["high"] > 1.03).all()


def test_the_gain_of_one_board_cancels_in_its_ratios_and_that_of_two_boards_does_not():
    made = points(log_sd=0.05, gain_sd=0.04, evidence="measured")
    t4, ada = (made.sel(gpu=gpu) for gpu in CARDS)
    other = t4.assign(energy_J=t4["energy_J"] * 1.02)
    width = {
        name: np.log(found["high"] / found["low"]).mean().item()
        for name, found in (
            ("one board", compare.versus(other, t4)),
            ("two boards", compare.versus(other, ada)),
            ("time", compare.versus(other, t4, "time_s")),
        )
    }
    assert width["one board"] == pytest.approx(2 * 1.6449 * np.sqrt(2) * 0.03, rel=1e-3)
    assert (
        width["two boards"] == width["time"] == pytest.approx(2 * 1.6449 * np.sqrt(2) * 0.05, 1e-3)
    )
    modelled = other.assign_coords(evidence=other["evidence"].where(False, "modelled"))
    found = compare.versus(modelled, t4)
    assert np.log(found["high"] / found["low"]).mean() == pytest.approx(width["two boards"])
    assert (found["evidence"] == "mixed").all()

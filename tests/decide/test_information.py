"""information: two Gaussians with a known answer, points that lose what becomes known, claims that nothing can settle."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr, ndtri

from footprint import Refused
from footprint.carbon import served
from footprint.decide import information, scoreboard
from footprint.energy import findings

HALF = ndtri(0.95)
POINT = {
    "phase": "decode",
    "batch": 1,
    "prompt_tokens": 128,
    "output_tokens": 64,
    "lengths": "grid",
    "engine": "eager",
    "kind": "modelled",
    "model": "llama-1b",
    "status": "ok",
    "tokens": 63,
    "place": "committed",
}


def point(
    device: str, time: float, time_sd: float, energy: float, energy_sd: float, **changes
) -> dict:
    row = {**POINT, "device": device, "time_s": time, "energy_J": energy, "power_W": energy / time}
    for name, sd in (("time_s", time_sd), ("energy_J", energy_sd)):
        row |= {
            f"{name}{end}": row[name] * np.exp(sign * HALF * sd)
            for end, sign in information.ENDS.items()
        }
    row |= {
        f"energy_per_token_J{end}": row[f"energy_J{end}"] / row["tokens"]
        for end in ("", "_low", "_high")
    }
    return row | {"power_W_low": 1.0, "power_W_high": 2.0} | changes


def pairs(
    ratio: float = 1.0, old_sd: float = 0.3, new_sd: float = 0.3, time_sd: float = 0.1
) -> pd.DataFrame:
    cards = (
        point("t4", 2.0, time_sd, 100.0 * ratio, old_sd),
        point("rtx-6000-ada", 1.0, time_sd, 100.0, new_sd),
    )
    return pd.DataFrame(cards)


def costs_more(table: pd.DataFrame) -> dict:
    """A claim of two Gaussians: the T4 takes more energy."""
    return {"probability": findings.versus(table, "energy_per_token_J")["probability"].iloc[0]}


@pytest.mark.parametrize(
    ("card", "own", "other", "nodes", "good"),
    [
        ("t4", 0.3, 0.3, 8, 0.05),
        ("t4", 0.4, 0.1, 8, 0.05),
        ("rtx-6000-ada", 0.1, 0.4, 8, 0.05),
        ("t4", 0.4, 0.1, 89, 0.01),
    ],
)
def test_two_even_gaussians_have_their_closed_form(card, own, other, nodes, good):
    """d = a - b around 0: E[max(p, 1 - p)] given a is 1/2 + arctan(sd_a / sd_b) / pi."""
    table = pairs(
        **dict(
            zip(("old_sd", "new_sd"), (own, other) if card == "t4" else (other, own), strict=True)
        )
    )
    exact = 0.5 + np.arctan(own / other) / np.pi
    assert information.settled(costs_more, table, card, nodes=nodes) == pytest.approx(
        exact, abs=good
    )


def test_a_shifted_gaussian_agrees_with_an_integral():
    table = pairs(ratio=1.2)
    e = ndtri((np.arange(100_000) + 0.5) / 100_000)
    p = ndtr((np.log(1.2) + 0.3 * e) / 0.3)
    assert costs_more(table)["probability"] == pytest.approx(p.mean(), abs=1e-4)
    found = information.settled(costs_more, table, "t4", nodes=89)
    assert found == pytest.approx(np.maximum(p, 1 - p).mean(), abs=0.01)


def test_time_and_power_share_the_energy_as_the_draws_do():
    """The variance that one error leaves is that of the other: 0.3^2 = 0.1^2 (time) + the power's."""
    table = pairs()
    own = np.sqrt(0.3**2 - 0.1**2)
    for errors, left in (
        ({"time": 0.0}, own),
        ({"power": 0.0}, 0.1),
        ({"time": 0.0, "power": 0.0}, 0.0),
    ):
        row = information.known(table, "t4", **errors).iloc[0]
        assert np.log(row["energy_J_high"] / row["energy_J"]) / HALF == pytest.approx(
            left, abs=1e-12
        )
    row = information.known(table, "t4", time=1.0, power=-2.0).iloc[0]
    assert (
        row["time_s"] == pytest.approx(2.0 * np.exp(0.1)) == row["time_s_low"] == row["time_s_high"]
    )
    assert row["energy_J"] == pytest.approx(100 * np.exp(0.1 - 2 * own)) == row["energy_J_low"]
    assert row["energy_per_token_J"] == pytest.approx(row["energy_J"] / 63)


def test_known_points_are_where_the_draws_are():
    """A draw of `served` with these errors lies where the known point lies."""
    both = pd.concat([pairs(), pairs().assign(phase="prefill", tokens=128)], ignore_index=True)
    points = served.requests(both)
    wrong = served.errors(points.gpu.values, 5, 0)
    drawn = served.drawn(points, 5, 0)
    for draw in range(5):
        at = {name: float(wrong[name].sel(gpu="t4").isel(draw=draw)) for name in information.ERRORS}
        row = findings.at(information.known(both, "t4", **at), device="t4", phase="decode").iloc[0]
        for name in ("time_s", "energy_J"):
            there = drawn[name].sel(gpu="t4", phase="decode").isel(draw=draw).item()
            assert row[name] == pytest.approx(there)


def test_nothing_known_changes_nothing_and_the_other_card_stays():
    table = pairs()
    same = information.known(table, "t4")
    pd.testing.assert_frame_equal(same, table[same.columns])
    moved = information.known(table, "t4", time=1.0, power=1.0)
    pd.testing.assert_frame_equal(moved.iloc[[1]], table[same.columns].iloc[[1]])
    assert not [name for name in moved if name.startswith("power_W")]
    with pytest.raises(Refused, match="allowed are time, power"):
        information.known(table, "t4", carbon=1.0)


def test_lattice_is_spread_evenly():
    for nodes in information.NODES:
        shares = np.sort(ndtr(information.lattice(nodes)), axis=0)
        assert shares == pytest.approx(
            np.repeat((np.arange(nodes)[:, None] + 0.5) / nodes, 2, axis=1)
        )


def test_the_table_holds_what_is_not_plain():
    judges = {
        "A": costs_more,
        "B": lambda table: {"probability": 0.5},
        "C": lambda table: {"probability": 0.99},
        "D": lambda table: {"probability": 0.01},
    }
    table = information.table(pairs(ratio=1.2), ["t4"], judges).set_index("id")
    assert list(table.index) == ["A", "B"]
    assert table.loc["A", "t4"] > table.loc["A", "now"] and table.loc["B", "t4"] == 0.5
    assert information.table(pairs(), ["t4"], {"C": judges["C"]}).empty


def test_a_measured_card_has_no_more_to_tell():
    table = information.known(pairs(ratio=1.2), "t4", time=0.0, power=0.0)  # intervals of no width
    now = costs_more(table)["probability"]
    assert information.settled(costs_more, table, "t4") == pytest.approx(now)


def test_the_reading_of_the_wider_error_adds_most():
    found = information.readings(
        pairs(old_sd=0.5, new_sd=0.2), ["t4", "rtx-6000-ada"], {"A": costs_more}
    )
    assert found.idxmax() == ("t4", "power")
    assert (
        found["t4", "power"] > found["rtx-6000-ada", "power"] > found["rtx-6000-ada", "time"] - 0.02
    )


def test_judges_of_the_scoreboard_take_known_points():
    table = pd.concat(
        [
            pairs().assign(phase=phase, batch=batch, tokens=63 * batch)
            for phase in served.PHASES
            for batch in (1, 2)
        ],
        ignore_index=True,
    )
    found = scoreboard.JUDGES["A2"](information.known(table, "t4", time=0.5, power=0.5))
    assert 0.5 <= found["probability"] <= 1

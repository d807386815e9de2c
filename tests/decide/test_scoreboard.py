"""scoreboard and verdicts: made-up worlds in which each claim must hold, or must fail, and the table of all of them."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

from footprint import energy
from footprint.carbon import served, totals
from footprint.charts.theme import STATUSES
from footprint.decide import compare as decide
from footprint.decide import scoreboard, verdicts
from footprint.energy import findings
from made_points import pairs


def at_power(watts: float):
    """All points at one power and one speed."""
    return pairs(power=lambda model, gpu, batch: watts)


def probability(judge, rows) -> float:
    found, because, kinds = judge(rows)
    assert because.endswith(".") and kinds == ["modelled"]
    return found


def test_words_for_probabilities():
    words = [scoreboard.verdict(value) for value in (1, 0.95, 0.8, 0.5, 0.2, 0.01, float("nan"))]
    assert words == ["holds", "holds", "likely holds", "open", "likely fails", "fails", "open"]


def test_no_verdict_hangs_on_one_approach():
    def odds(*values):
        return xr.DataArray(list(values), {"approach": list(totals.APPROACHES)[: len(values)]})

    assert verdicts.agreed(odds(0.9, 0.7, 1.0)) == 0.7
    assert verdicts.agreed(odds(0.1, 0.4)) == 0.4
    assert verdicts.agreed(odds(0.1, 0.99)) == 0.5
    assert verdicts.agreed(odds(0.9, 0.8, 1.0, 0.1)) == 0.8, (
        "the last is the paper's, whose values are unverified"
    )


def test_regions_and_cards_differ_whatever_the_runs():
    found, because, kinds = verdicts.regions_differ(at_power(100))
    assert (found, kinds) == (1, ["published"]) and "350 times on a direct" in because
    assert probability(verdicts.making_differs, at_power(100)) > 0.99


def test_the_share_of_embodied_carbon_follows_the_power():
    """A card that draws little is mostly making, one that draws very much is mostly electricity."""
    assert probability(verdicts.both_matter, at_power(100)) > 0.95
    assert probability(verdicts.visible_where_clean, at_power(100)) > 0.95
    assert probability(verdicts.both_matter, at_power(1e5)) == 0
    assert probability(verdicts.visible_where_clean, at_power(1e5)) == 0
    assert probability(verdicts.visible_where_clean, at_power(0.1)) == 0


def test_a_joint_choice_saves_where_each_carbon_alone_misleads():
    """The T4 takes a little less energy and ten times the time; the RTX 6000 Ada is fastest at a wasteful batch of 4."""
    times = {1: 0.9, 4: 0.9, 16: 3.8}

    def time(model, gpu, batch):
        return times[batch] * (10 if gpu == "t4" else 1)

    def power(model, gpu, batch):
        watts = 100 if batch == 16 else 400
        return 0.099 * watts if gpu == "t4" else watts

    assert probability(verdicts.joint_choice_saves, pairs(time, power)) > 0.95
    assert probability(verdicts.each_alone_misleads, pairs(time, power)) > 0.95
    found = verdicts.choices(served.requests(pairs(time, power)).isel(prompt=0, output=0), n=20)
    assert (found["saving_operational"] >= 0).all() and (found["saving_embodied"] >= 0).all()
    assert (found["saving_operational"].sel(zone="CA-QC") > 0.1).all()
    best_in_both = pairs(power=lambda model, gpu, batch: 10 if gpu == "t4" else 1000)
    assert (
        probability(verdicts.joint_choice_saves, best_in_both)
        == probability(verdicts.each_alone_misleads, best_in_both)
        == 0
    )
    made_lightly = pairs(
        power=lambda model, gpu, batch: 1000 if gpu == "t4" else 10
    )  # less energy, but for a larger making
    assert probability(verdicts.joint_choice_saves, made_lightly) > 0.95
    assert probability(verdicts.each_alone_misleads, made_lightly) == 0


def test_batching_may_stop_to_help_only_at_saturation():
    slower = {1: 1.0, 4: 1.2, 16: 4.8}  # the last step gains no throughput
    watts = {1: 100.0, 4: 120.0, 16: 1000.0}
    rows = pairs(lambda model, gpu, batch: slower[batch], lambda model, gpu, batch: watts[batch])
    assert probability(verdicts.batching_helps, rows) == 1
    rows = pairs(lambda model, gpu, batch: slower[batch], lambda model, gpu, batch: 100.0 * batch)
    assert probability(verdicts.batching_helps, rows) == 0


def test_the_least_card_changes_with_everything_or_with_nothing():
    """Alone the T4 takes much less energy, in large batches much more; between, region and life tip the scale."""
    less = {
        "llama-1b": 9.5,
        "llama-3b": 28.0,
        "llama-7b": 9.5,
    }  # joules that the T4 saves at batch 4

    def time(model, gpu, batch):
        return 4.0 if gpu == "t4" else 1.0

    def power(model, gpu, batch):
        if gpu != "t4":
            return 50.0
        return {1: 5.0, 4: (50 - less[model]) / 4, 16: 25.0}[batch]

    rows = pairs(time, power)
    assert probability(verdicts.least_is_not_fastest, rows) > 0.75
    table = decide.who_wins(
        served.requests(rows).isel(prompt=0, output=0), utilisation=(0.1, 1), n=200
    )
    changed = verdicts.flips(table["carbon_ratio"]).mean("draw")
    assert (changed > 0.75).all() and set(changed.axis.values) == {
        "region",
        "batch",
        "lifetime",
        "utilisation",
    }
    dearer = pairs(time, lambda model, gpu, batch: 500.0 if gpu == "t4" else 50.0)
    assert probability(verdicts.least_is_not_fastest, dearer) == 0


def test_three_claims_say_what_the_table_of_who_wins_says():
    """H2, H5 and H6 counted here world by world, setting by setting, from the ratios and shares of the table alone."""
    watts = {1: 60.0, 4: 90.0, 16: 330.0}
    rows = pairs(
        lambda model, gpu, batch: 3.0 if gpu == "t4" else 1.0,
        lambda model, gpu, batch: watts[batch] / 3 if gpu == "t4" else 70.0,
        log_sd=0.2,
    )
    table = decide.who_wins(served.requests(rows).isel(prompt=0, output=0), utilisation=(0.1, 1.0))
    energy = (
        table["energy_ratio"]
        .sel(model="llama-1b", utilisation=1.0)
        .transpose("batch", "draw")
        .values
    )
    h2 = np.mean([alone < 1 < full for alone, full in zip(energy[0], energy[-1], strict=True)])
    assert 0.1 < h2 < 0.9 and probability(verdicts.older_wins_small, rows) == pytest.approx(h2)

    share, by_approach = table["embodied_share"].sel(utilisation=1.0), []
    for approach in table.approach.values:
        clean, dirty = (
            np.median(
                share.sel(approach=approach, zone=zone)
                .transpose("draw", ...)
                .values.reshape(1000, -1),
                axis=1,
            )
            for zone in ("CA-QC", "US-NW-PACE")
        )
        by_approach.append(np.mean((clean >= 0.05) & (dirty < 0.05)))
    expected = verdicts.agreed(xr.DataArray(by_approach, {"approach": table.approach.values}))
    assert probability(verdicts.visible_where_clean, rows) == pytest.approx(expected)

    by_approach = []
    for approach in table.approach.values:
        wins = table["carbon_ratio"].sel(approach=approach) < 1
        wins = wins.transpose(
            "draw", "zone", "batch", "lifetime_years", "model", "utilisation"
        ).values
        differs = [
            (wins != np.take(wins, [0], axis=axis)).reshape(1000, -1).any(axis=1)
            for axis in (1, 2, 3, 5)
        ]
        by_approach.append(
            np.mean(np.logical_and.reduce([wins.reshape(1000, -1).any(axis=1), *differs]))
        )
    expected = verdicts.agreed(xr.DataArray(by_approach, {"approach": table.approach.values}))
    assert probability(verdicts.least_is_not_fastest, rows) == pytest.approx(expected)


def test_the_old_card_wins_small_where_it_takes_less_energy_alone():
    def power(model, gpu, batch):
        return (50.0 if batch == 1 else 200.0) if gpu == "t4" else 100.0

    assert probability(verdicts.older_wins_small, pairs(power=power)) == 1
    assert (
        probability(
            verdicts.older_wins_small,
            pairs(power=lambda model, gpu, batch: 50.0 if gpu == "t4" else 100.0),
        )
        == 0
    )


def test_the_table_judges_every_claim_from_the_runs_at_hand():
    table = scoreboard.table(findings.six_pairs(findings.points(energy.gather_runs())))
    assert table["id"].tolist() == [
        *(f"A{i}" for i in range(1, 7)),
        *(f"H{i}" for i in range(1, 8)),
    ]
    assert table["probability"].between(0, 1).all() and set(table["status"]) <= set(STATUSES)
    assert not table["because"].str.contains("Not judged|nan").any()


def test_a_measured_pair_changes_the_status_of_the_evidence():
    rows = at_power(60)
    rows.loc[rows["device"] == "t4", "kind"] = "measured"
    table = scoreboard.table(
        rows, {"H5": scoreboard.by_worlds(verdicts.visible_where_clean)}
    ).set_index("id")
    assert table.loc["H5", "status"] == "derived" and table.loc["A1", "verdict"] == "open"
    assert np.isnan(table.loc["A1", "probability"])


def test_a_lead_that_grows_with_batch_and_size_is_seen():
    def time(model, gpu, batch):
        return (
            2 + 0.1 * batch * {"llama-1b": 1, "llama-3b": 3, "llama-7b": 7}[model]
            if gpu == "t4"
            else 1.0
        )

    grows = pairs(time, log_sd=0.01)
    assert probability(verdicts.newer_is_faster, grows) > 0.99
    assert scoreboard.hardware_matters(grows, "time_s", "time")["verdict"] == "holds"
    shrinks = pairs(lambda model, gpu, batch: 1 / time(model, gpu, batch), log_sd=0.01)
    assert probability(verdicts.newer_is_faster, shrinks) == 0
    flat = pairs(lambda model, gpu, batch: time(model, gpu, 1) if gpu == "t4" else 1.0, log_sd=0.01)
    assert probability(verdicts.newer_is_faster, flat) == 0, (
        "faster, and more so for a larger model, but not with the batch"
    )
    by_size = pairs(lambda model, gpu, batch: 2 + 0.1 * batch if gpu == "t4" else 1.0, log_sd=0.01)
    assert probability(verdicts.newer_is_faster, by_size) == 0, (
        "faster, more so with the batch, but not for a larger model"
    )
    near = pairs(
        lambda model, gpu, batch: time(model, gpu, batch) - 1 if gpu == "t4" else 1.0, log_sd=0.3
    )
    slowest = 1 - ndtr(
        -np.log(1.1) / np.hypot(0.3, 0.3)
    )  # all points of a card err together: the least lead decides
    assert probability(verdicts.newer_is_faster, near) == pytest.approx(slowest, abs=0.04)

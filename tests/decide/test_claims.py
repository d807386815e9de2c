"""Claims: made-up worlds in which each must hold, or must fail, and the table of all."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

from footprint import carbon, decide, energy, predict, spec
from footprint.charts.theme import STATUSES
from footprint.decide import claims, compare
from made_points import GPUS, points

WORLD = decide.draw_world(GPUS, n=1000)
LENGTH = {"prompt": 128, "output": 101}


def case(made, world=WORLD, **pair) -> claims.Case:
    return claims.Case(made.squeeze("engine", drop=True), world, LENGTH, **pair)


def one_length(made) -> xr.Dataset:
    return made.squeeze(["engine", "prompt", "output"], drop=True)


def at_power(watts: float):
    """All points at one power and one speed."""
    return points(power=lambda model, gpu, batch: watts)


def probability(judge, made) -> float:
    row = judge(case(made))
    assert row["because"].endswith(".") and row["status"] == "modelled"
    return row["probability"]


def test_words_for_probabilities():
    words = [claims.verdict(value) for value in (1, 0.95, 0.8, 0.5, 0.2, 0.01, float("nan"))]
    assert words == ["holds", "holds", "likely holds", "open", "likely fails", "fails", "open"]


def test_no_verdict_depends_on_one_method():
    def odds(*values):
        names = [*carbon.SOURCED[:3], "paper"][: len(values)]
        return xr.DataArray(list(values), {"embodied_method": names})

    assert claims.agreed(odds(0.9, 0.7, 1.0)) == 0.7
    assert claims.agreed(odds(0.1, 0.4)) == 0.4
    assert claims.agreed(odds(0.1, 0.99)) == 0.5
    assert claims.agreed(odds(0.9, 0.8, 1.0, 0.1)) == 0.8, (
        "the last is the paper's, whose values are unverified"
    )


def test_regions_and_gpus_differ_whatever_the_runs():
    row = claims.regions_differ(case(at_power(100)))
    assert (row["probability"], row["status"]) == (1, "published")
    assert "350 times on a direct" in row["because"]
    assert probability(claims.embodied_differs, at_power(100)) > 0.99


def test_the_share_of_embodied_carbon_follows_the_power():
    """At little power embodied carbon dominates a token, at very much power electricity."""
    assert probability(claims.both_matter, at_power(100)) > 0.95
    assert probability(claims.visible_where_clean, at_power(100)) > 0.95
    assert probability(claims.both_matter, at_power(1e5)) == 0
    assert probability(claims.visible_where_clean, at_power(1e5)) == 0
    assert probability(claims.visible_where_clean, at_power(0.1)) == 0


def test_a_joint_choice_saves_where_each_carbon_alone_misleads():
    """The T4: less energy, ten times the time; the other GPU: fastest at a wasteful batch of 4."""
    times = {1: 0.9, 4: 0.9, 16: 3.8}

    def time(model, gpu, batch):
        return times[batch] * (10 if gpu == "t4" else 1)

    def power(model, gpu, batch):
        watts = 100 if batch == 16 else 400
        return 0.099 * watts if gpu == "t4" else watts

    assert probability(claims.joint_choice_saves, points(time, power)) > 0.95
    assert probability(claims.each_alone_misleads, points(time, power)) > 0.95
    found = decide.choices(decide.tokens(one_length(points(time, power)), WORLD))
    assert (found["saving_operational"] >= 0).all() and (found["saving_embodied"] >= 0).all()
    assert (found["saving_operational"].sel(zone="CA-QC") > 0.1).all()
    best_in_both = points(power=lambda model, gpu, batch: 10 if gpu == "t4" else 1000)
    assert (
        probability(claims.joint_choice_saves, best_in_both)
        == probability(claims.each_alone_misleads, best_in_both)
        == 0
    )
    made_lightly = points(
        power=lambda model, gpu, batch: 1000 if gpu == "t4" else 10
    )  # less energy, but more embodied carbon
    assert probability(claims.joint_choice_saves, made_lightly) > 0.95
    assert probability(claims.each_alone_misleads, made_lightly) == 0


def test_batching_may_stop_to_help_only_at_saturation():
    slower = {1: 1.0, 4: 1.2, 16: 4.8}  # the last step gains no throughput
    watts = {1: 100.0, 4: 120.0, 16: 1000.0}
    rows = points(lambda model, gpu, batch: slower[batch], lambda model, gpu, batch: watts[batch])
    assert probability(claims.batching_helps, rows) == 1
    rows = points(lambda model, gpu, batch: slower[batch], lambda model, gpu, batch: 100.0 * batch)
    assert probability(claims.batching_helps, rows) == 0


def test_the_least_gpu_changes_with_everything_or_with_nothing():
    """The T4 takes much less energy alone, much more in large batches; between, others decide."""
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

    rows = points(time, power)
    assert probability(claims.least_is_not_fastest, rows) > 0.75
    used = xr.DataArray([0.1, 1.0], {"utilisation": [0.1, 1.0]}, attrs={"units": "1"})
    use = carbon.Use(decide.LIFETIMES, used)
    table = decide.ratios(one_length(rows), WORLD, use)
    changed = compare.flips(table["carbon_ratio"]).mean("sample")
    assert (changed > 0.75).all() and set(changed.axis.values) == {
        "zone",
        "batch",
        "lifetime_years",
        "utilisation",
    }
    dearer = points(time, lambda model, gpu, batch: 500.0 if gpu == "t4" else 50.0)
    assert probability(claims.least_is_not_fastest, dearer) == 0


def test_three_claims_say_what_the_table_of_who_wins_says():
    """H2, H5 and H6 counted world by world, setting by setting, from the table alone."""
    watts = {1: 60.0, 4: 90.0, 16: 330.0}
    rows = points(
        lambda model, gpu, batch: 3.0 if gpu == "t4" else 1.0,
        lambda model, gpu, batch: watts[batch] / 3 if gpu == "t4" else 70.0,
        log_sd=0.2,
    )
    used = xr.DataArray([0.1, 1.0], {"utilisation": [0.1, 1.0]}, attrs={"units": "1"})
    table = decide.ratios(one_length(rows), WORLD, carbon.Use(decide.LIFETIMES, used))
    energy = (
        table["energy_ratio"]
        .sel(model="llama-1b", utilisation=1.0)
        .transpose("batch", "sample")
        .values
    )
    h2 = np.mean([alone < 1 < full for alone, full in zip(energy[0], energy[-1], strict=True)])
    assert 0.1 < h2 < 0.9 and probability(claims.older_wins_small, rows) == pytest.approx(h2)

    share, by_method = table["embodied_share"].sel(utilisation=1.0), []
    for method in table.embodied_method.values:
        clean, dirty = (
            np.median(
                share.sel(embodied_method=method, zone=zone)
                .transpose("sample", ...)
                .values.reshape(1000, -1),
                axis=1,
            )
            for zone in ("CA-QC", "US-NW-PACE")
        )
        by_method.append(np.mean((clean >= 0.05) & (dirty < 0.05)))
    expected = claims.agreed(
        xr.DataArray(by_method, {"embodied_method": table.embodied_method.values})
    )
    assert probability(claims.visible_where_clean, rows) == pytest.approx(expected)

    by_method = []
    for method in table.embodied_method.values:
        wins = table["carbon_ratio"].sel(embodied_method=method) < 1
        wins = wins.transpose(
            "sample", "zone", "batch", "lifetime_years", "model", "utilisation"
        ).values
        differs = [
            (wins != np.take(wins, [0], axis=axis)).reshape(1000, -1).any(axis=1)
            for axis in (1, 2, 3, 5)
        ]
        by_method.append(
            np.mean(np.logical_and.reduce([wins.reshape(1000, -1).any(axis=1), *differs]))
        )
    expected = claims.agreed(
        xr.DataArray(by_method, {"embodied_method": table.embodied_method.values})
    )
    assert probability(claims.least_is_not_fastest, rows) == pytest.approx(expected)


def test_the_old_gpu_wins_small_where_it_takes_less_energy_alone():
    def power(model, gpu, batch):
        return (50.0 if batch == 1 else 200.0) if gpu == "t4" else 100.0

    assert probability(claims.older_wins_small, points(power=power)) == 1
    assert (
        probability(
            claims.older_wins_small,
            points(power=lambda model, gpu, batch: 50.0 if gpu == "t4" else 100.0),
        )
        == 0
    )


def test_the_table_judges_every_claim_from_the_points_at_hand():
    runs = energy.points(energy.gather_runs(), engines=spec.ENGINES)
    table = claims.scoreboard(
        claims.Case(runs.sel(engine="eager"), WORLD, LENGTH | {"output": 128})
    )
    assert table["id"].tolist() == [
        *(f"A{i}" for i in range(1, 7)),
        *(f"H{i}" for i in range(1, 8)),
    ]
    assert table["probability"].between(0, 1).all() and set(table["status"]) <= set(STATUSES)
    assert not table["because"].str.contains("Not judged|nan").any()


def test_a_measured_gpu_changes_the_status_of_the_evidence():
    both = decide.points(points(gpus=["t4"], evidence="measured"), at_power(60))
    table = claims.scoreboard(case(both), {"H5": claims.visible_where_clean}).set_index("id")
    assert table.loc["H5", "status"] == "derived" and table.loc["A1", "verdict"] == "open"
    assert np.isnan(table.loc["A1", "probability"])


def test_no_embodied_carbon_of_a_gpu_leaves_open_what_hangs_on_it_and_judges_the_rest():
    names = ["t4", "my-gpu"]
    watts = {"t4": 50.0, "my-gpu": 100.0}
    made = points(gpus=names, power=lambda model, gpu, batch: watts[gpu], log_sd=0.1)
    world = decide.draw_world(names, n=50)
    table = claims.scoreboard(case(made, world, new="my-gpu")).set_index("id")
    assert table.loc["A5", "verdict"] == "open"
    assert "No method knows the embodied carbon of both T4 and my-gpu" in table.loc["A5", "because"]
    known = ["A1", "A2", "A3", "H1", "H2", "H3"]
    assert table.loc[known, "probability"].notna().all() and len(table) == 13
    told = decide.draw_world(names, n=50, embodied_kg={"my-gpu": 40.0})
    table = claims.scoreboard(case(made, told, new="my-gpu")).set_index("id")
    assert table.drop("A4")["probability"].notna().all()
    assert table.loc["A4", "because"] == "Nobody knows the die of one of the two."


def test_two_gpus_without_a_common_point_leave_open_what_hangs_on_points():
    made = points(time=lambda model, gpu, batch: 1.0 if gpu == "t4" else None)
    table = claims.scoreboard(case(made)).set_index("id")
    assert table["probability"].notna().tolist() == [name in ("A3", "A4") for name in table.index]
    assert table.loc["H1", "because"] == "No point is known of both T4 and RTX 6000 Ada."


def test_any_two_gpus_of_the_table_can_be_judged():
    pair = ["l4", "a100-40gb-sxm"]
    world = decide.draw_world(pair, n=50)
    made = predict.points(
        ["llama-1b", "llama-7b"], pair, batch=[1, 8], prompt=[128], output=[101]
    ).squeeze("engine", drop=True)
    table = claims.scoreboard(claims.Case(made, world, LENGTH, "l4", "a100-40gb-sxm"))
    assert table["probability"].between(0, 1).all()
    assert not table["because"].str.contains("T4|Ada").any()


def test_a_lead_that_grows_with_batch_and_size_is_seen():
    def time(model, gpu, batch):
        return (
            2 + 0.1 * batch * {"llama-1b": 1, "llama-3b": 3, "llama-7b": 7}[model]
            if gpu == "t4"
            else 1.0
        )

    grows = points(time, log_sd=0.01)
    assert probability(claims.newer_is_faster, grows) > 0.99
    assert claims.hardware_matters(case(grows), "time_s", "time")["verdict"] == "holds"
    shrinks = points(lambda model, gpu, batch: 1 / time(model, gpu, batch), log_sd=0.01)
    assert probability(claims.newer_is_faster, shrinks) == 0
    flat = points(
        lambda model, gpu, batch: time(model, gpu, 1) if gpu == "t4" else 1.0, log_sd=0.01
    )
    assert probability(claims.newer_is_faster, flat) == 0, (
        "faster, and more so for a larger model, but not with the batch"
    )
    by_size = points(lambda model, gpu, batch: 2 + 0.1 * batch if gpu == "t4" else 1.0, log_sd=0.01)
    assert probability(claims.newer_is_faster, by_size) == 0, (
        "faster, more so with the batch, but not for a larger model"
    )
    near = points(
        lambda model, gpu, batch: time(model, gpu, batch) - 1 if gpu == "t4" else 1.0, log_sd=0.3
    )
    slowest = 1 - ndtr(
        -np.log(1.1) / np.hypot(0.3, 0.3)
    )  # all points of a GPU err together: the least lead decides
    assert probability(claims.newer_is_faster, near) == pytest.approx(slowest, abs=0.04)

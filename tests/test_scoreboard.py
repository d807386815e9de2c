"""scoreboard and verdicts: made-up worlds in which each claim must hold, or must fail, and the table of all of them."""

import numpy as np
import xarray as xr

from footprint import findings, scoreboard, served, verdicts
from footprint.theme import STATUSES
from made import pairs


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
        return xr.DataArray(list(values), dims="approach")

    assert verdicts.agreed(odds(0.9, 0.7, 1.0)) == 0.7
    assert verdicts.agreed(odds(0.1, 0.4)) == 0.4
    assert verdicts.agreed(odds(0.1, 0.99)) == 0.5


def test_regions_and_cards_differ_whatever_the_runs():
    found, because, kinds = verdicts.regions_differ(at_power(100))
    assert (found, kinds) == (1, ["published"]) and "350 times on a direct" in because
    assert probability(verdicts.making_differs, at_power(100)) > 0.99


def test_the_share_of_embodied_carbon_follows_the_power():
    """A card that draws little is mostly making, one that draws very much is mostly electricity."""
    assert probability(verdicts.both_matter, at_power(150)) > 0.95
    assert probability(verdicts.visible_where_clean, at_power(150)) > 0.95
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
    found = verdicts.choices(served.requests(pairs(time, power)).isel(prompt=0, output=0), n=20)
    assert (found["saving_operational"] >= 0).all() and (found["saving_embodied"] >= 0).all()
    assert (found["saving_operational"].sel(zone="CA-QC") > 0.1).all()
    best_in_both = pairs(power=lambda model, gpu, batch: 10 if gpu == "t4" else 1000)
    assert probability(verdicts.joint_choice_saves, best_in_both) == 0


def test_batching_may_stop_to_help_only_at_saturation():
    slower = {1: 1.0, 4: 1.2, 16: 4.8}  # the last step gains no throughput
    watts = {1: 100.0, 4: 120.0, 16: 1000.0}
    rows = pairs(lambda model, gpu, batch: slower[batch], lambda model, gpu, batch: watts[batch])
    assert probability(verdicts.batching_helps, rows) == 1
    rows = pairs(lambda model, gpu, batch: slower[batch], lambda model, gpu, batch: 100.0 * batch)
    assert probability(verdicts.batching_helps, rows) == 0


def test_the_least_card_changes_with_everything_or_with_nothing():
    """Alone the T4 takes much less energy, in large batches much more; between, region and life tip the scale."""
    less = {"llama-1b": 9.5, "llama-3b": 28.0, "llama-7b": 9.5}  # joules that the T4 saves at batch 4

    def time(model, gpu, batch):
        return 4.0 if gpu == "t4" else 1.0

    def power(model, gpu, batch):
        if gpu != "t4":
            return 50.0
        return {1: 5.0, 4: (50 - less[model]) / 4, 16: 25.0}[batch]

    rows = pairs(time, power)
    assert probability(verdicts.least_is_not_fastest, rows) > 0.75
    changed = verdicts.flips(served.requests(rows).isel(prompt=0, output=0), n=200).mean("draw")
    assert (changed > 0.75).all() and set(changed.axis.values) == {"region", "batch", "lifetime", "utilisation"}
    dearer = pairs(time, lambda model, gpu, batch: 500.0 if gpu == "t4" else 50.0)
    assert probability(verdicts.least_is_not_fastest, dearer) == 0


def test_the_table_judges_every_claim_from_the_runs_at_hand():
    table = scoreboard.table(findings.six_pairs(findings.points(findings.runs())))
    assert table["id"].tolist() == [*(f"A{i}" for i in range(1, 7)), *(f"H{i}" for i in range(1, 7))]
    assert table["probability"].between(0, 1).all() and set(table["status"]) <= set(STATUSES)
    assert not table["because"].str.contains("Not judged|nan").any()


def test_a_measured_pair_changes_the_status_of_the_evidence():
    rows = at_power(60)
    rows.loc[rows["device"] == "t4", "kind"] = "measured"
    table = scoreboard.table(rows, {"H5": scoreboard.by_carbon(verdicts.visible_where_clean)}).set_index("id")
    assert table.loc["H5", "status"] == "derived" and table.loc["A1", "verdict"] == "open"
    assert np.isnan(table.loc["A1", "probability"])


def test_a_lead_that_grows_with_batch_and_size_is_seen():
    def time(model, gpu, batch):
        return 2 + 0.1 * batch * {"llama-1b": 1, "llama-3b": 3, "llama-7b": 7}[model] if gpu == "t4" else 1.0

    grows = pairs(time, log_sd=0.01)
    assert scoreboard.newer_is_faster(grows)["verdict"] == "holds"
    assert scoreboard.hardware_matters(grows, "time_s", "time")["verdict"] == "holds"
    shrinks = pairs(lambda model, gpu, batch: 1 / time(model, gpu, batch), log_sd=0.01)
    assert scoreboard.newer_is_faster(shrinks)["verdict"] == "fails"

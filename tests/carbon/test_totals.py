"""totals: phases add up, shares of one card's error are common, draws return the stated intervals, gaps stay gaps."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from footprint import Refused, carbon, spec
from footprint.carbon import served, totals
from footprint.carbon import uncertainty as draws
from footprint.predict import model as predict
from made_points import pairs

EXACT = pairs(time=lambda model, gpu, batch: batch**0.5, power=lambda model, gpu, batch: 70.0)
WIDE = pairs(log_sd=0.2)


@pytest.fixture(scope="module")
def exact():
    return served.requests(EXACT)


def test_a_request_by_hand(exact):
    found = totals.per_token(exact, approaches=["ACT", "paper"], n=3).sel(
        model="llama-7b", gpu="t4", batch=4
    )
    busy = (
        1.1 * 2 / (4 * 101)
    )  # prefill takes a tenth of the decode, and a batch of 4 twice the time of one
    assert found["busy_s"].values == pytest.approx(busy)
    assert found["energy_J"].values == pytest.approx(70 * busy)
    quebec = found.sel(zone="CA-QC")["operational_g"]
    assert quebec.values == pytest.approx(70 * busy / 3.6e6 * 31)
    making = found["embodied_g"].sel(approach="paper")
    assert making.values == pytest.approx(10_300 * busy / (5 * 365.25 * 86400))
    act = carbon.embodied("t4")["total_kg"].item()
    assert found["embodied_g"].sel(approach="ACT").values == pytest.approx(
        act * 1000 * busy / (5 * 365.25 * 86400)
    )


def test_phases_add_up_and_the_total_is_the_sum_of_the_two():
    points = served.requests(WIDE)
    whole, split = (totals.per_token(points, n=50, by_phase=by) for by in (False, True))
    for name in whole.data_vars:
        assert split[name].sum("phase").transpose(*whole[name].dims).values == pytest.approx(
            whole[name].values
        )
    assert totals.total(whole).values == pytest.approx(
        (whole["operational_g"] + whole["embodied_g"]).values
    )


def test_idle_reserved_time_is_charged_in_energy_and_in_making(exact):
    busy, half = (totals.per_token(exact, n=2, utilisation=u).sel(gpu="t4") for u in (1.0, 0.5))
    idle = spec.gpu("t4").idle_W * busy["busy_s"]
    assert (half["energy_J"] - busy["energy_J"]).values == pytest.approx(idle.values)
    assert half["embodied_g"].values == pytest.approx(2 * busy["embodied_g"].values)
    assert half["busy_s"].values == pytest.approx(busy["busy_s"].values)


def test_draws_return_the_stated_intervals_of_either_kind():
    for kind in ("modelled", "measured"):
        rows = pairs(log_sd=0.2, kind=kind)
        found = totals.per_token(served.requests(rows), n=20_000)["energy_J"].sel(
            model="llama-1b", gpu="t4", batch=1
        )
        spread = np.log(found).std().item()
        assert spread == pytest.approx(0.2, rel=0.03)
        assert found.median().item() == pytest.approx(110 / 101, rel=0.01)


def test_a_card_errs_once_and_two_cards_err_apart():
    found = totals.per_token(served.requests(WIDE), n=4000)
    times = np.log(found["busy_s"])
    one = times.sel(gpu="t4", model="llama-1b", batch=1)
    same = times.sel(gpu="t4", model="llama-7b", batch=16)
    other = times.sel(gpu="rtx-6000-ada", model="llama-1b", batch=1)
    assert xr.corr(one, same).item() == pytest.approx(1)
    assert abs(xr.corr(one, other).item()) < 0.05
    assert served.errors(["t4"], 5, 0)["time"].values == pytest.approx(
        served.errors(["l4", "t4"], 5, 0)["time"][1:].values
    )


def test_energy_errs_with_time_and_with_power_of_its_own():
    rows = pairs(log_sd=0.2)
    for name, half in (("energy_J_low", -1.0), ("energy_J_high", 1.0)):
        rows[name] = rows["energy_J"] * np.exp(half * 1.6448536 * 0.25)
    found = totals.per_token(served.requests(rows), n=20_000).sel(
        model="llama-1b", gpu="t4", batch=1
    )
    power = np.log(found["energy_J"] / found["busy_s"])
    assert power.std().item() == pytest.approx((0.25**2 - 0.2**2) ** 0.5, rel=0.03)
    assert abs(xr.corr(power, np.log(found["busy_s"])).item()) < 0.03


def test_an_interval_may_be_longer_on_one_side():
    rows = pairs(log_sd=0.1)
    for name in ("time_s", "energy_J"):
        rows[f"{name}_low"] = rows[name] * np.exp(-1.6448536 * 0.3)
    found = (
        totals.per_token(served.requests(rows), n=40_000)["busy_s"]
        .sel(model="llama-1b", gpu="t4", batch=1)
        .values
    )
    ends = np.log(np.quantile(found, [0.05, 0.5, 0.95]) / (1.1 / 101)) / 1.6448536
    assert ends == pytest.approx([-0.3, 0, 0.1], abs=0.01)


def test_a_measured_pair_replaces_nothing_else_and_keeps_its_kind():
    rows = pairs()
    rows.loc[(rows["model"] == "llama-3b") & (rows["device"] == "t4"), "kind"] = "measured"
    points = served.requests(rows)
    assert points["kind"].sel(model="llama-3b", gpu="t4") == "measured"
    assert points["kind"].sel(model="llama-3b", gpu="rtx-6000-ada") == "modelled"
    table = totals.frame(totals.per_token(points, n=20)["energy_J"], points)
    assert table.groupby(["model", "gpu"])["kind"].first()["llama-3b", "t4"] == "measured"
    assert {"mean", "median", "low", "high", "batch"} <= set(table)


def test_what_runs_out_of_memory_is_a_gap_with_its_reason():
    rows = pairs(
        time=lambda model, gpu, batch: (
            None if (model, gpu) == ("llama-7b", "t4") and batch > 4 else 1.0
        )
    )
    points = served.requests(rows)
    gap = {"model": "llama-7b", "gpu": "t4", "batch": 16}
    assert points["status"].sel(gap).item() == "oom"
    found = totals.per_token(points, n=10)
    assert np.isnan(totals.total(found).sel(gap)).all()
    assert totals.thriftiest(found).sel(model="llama-7b", gpu="t4", zone="CA-QC").item() == 4
    none = totals.per_token(served.requests(pairs(time=lambda *_: None)), n=2)
    assert totals.thriftiest(none).isnull().all()


def test_one_length_is_the_shortest_that_most_points_have():
    long, some = pairs(prompt_tokens=512), pairs(prompt_tokens=64).head(10)
    points = served.requests(pd.concat([pairs(), long, some], ignore_index=True))
    assert points.sizes["prompt"] == 3
    one = served.common(points)
    assert (one.prompt.item(), one.output.item()) == (128, 101) and one["time_s"].notnull().all()


def test_own_runs_come_before_committed_ones():
    rows = pairs(place="committed")
    mine = pairs(time=lambda *_: 9.0, place="this machine")
    for order in ([rows, mine], [mine, rows]):
        both = served.requests(pd.concat(order, ignore_index=True))
        assert (both["time_s"].sel(phase="decode") == 9.0).all()


def test_two_engines_at_once_or_an_unknown_approach_are_refused(exact):
    with pytest.raises(Refused, match="engines eager, serving; those of one are allowed"):
        served.requests(pd.concat([EXACT, EXACT.assign(engine="serving")]))
    with pytest.raises(Refused, match="engines none; those of one"):
        served.requests(EXACT.iloc[:0])
    with pytest.raises(Refused, match="'vendor' is unknown here"):
        totals.per_token(exact, approaches=["vendor"])


def test_grids_by_zone_and_basis():
    both = totals.grids(basis=["lifecycle", "direct"])
    assert both.sel(zone="CA-QC", basis="direct").item() == 1.68
    assert both.sel(basis="lifecycle", drop=True).equals(totals.grids().drop_vars("basis"))
    assert totals.grids(["France"]).item() == spec.grid("FR").g_per_kwh


def test_the_drawn_use_makes_every_token_dearer(exact):
    plain, used = totals.per_token(exact, n=500), totals.per_token(exact, n=500, **totals.use(500))
    assert (used["embodied_g"].median("draw") > plain["embodied_g"].median("draw")).all()
    assert (used["operational_g"] > plain["operational_g"]).all()


def test_predictions_read_like_runs():
    windows = predict.windows(
        "llama-1b", ["t4", "rtx-6000-ada"], batch=[1, 4], prompt=[128], output=[128]
    )
    points = served.predicted(windows).isel(engine=0)
    point = {"model": "llama-1b", "gpu": "t4", "batch": 4, "prompt": 128, "output": 128}
    at = windows.isel(engine=0).sel(point)
    whole = at["ttft_s"] + at["tpot_s"] * 127
    assert points["time_s"].sel(point).sum("phase").item() == pytest.approx(whole.item())
    assert points["energy_J"].sel(point).sel(phase="decode").item() == pytest.approx(
        at["decode_energy_J"].item()
    )
    middle = draws.summary(totals.per_token(points, n=4000)["busy_s"].sel(point))["median"].item()
    assert middle == pytest.approx(whole.item() / (4 * 128), rel=0.02)


def test_the_headline_has_both_batches_of_both_cards_in_all_regions():
    rows = totals.headline(pairs(log_sd=0.1))
    assert len(rows) == 2 * 2 * 3 * 2 and set(rows["choice"]) == {"batch 1", "least carbon"}
    numbers = ["energy_J", "ms", "operational_mg", "embodied_mg", "total_mg"]
    for name in numbers:
        assert (rows[f"{name}_low"] < rows[name]).all() and (
            rows[name] < rows[f"{name}_high"]
        ).all()
    assert (rows.set_index("choice").loc["least carbon", "batch"] == 16).all()
    assert (rows["status"] == "modelled").all()


def test_a_drawn_grid_is_one_of_its_years_and_the_same_year_everywhere():
    known, drawn = totals.by_year(), totals.drawn_grids(n=4000)
    year = totals.year_drawn(4000)
    assert np.array_equal(drawn.values, known.values[:, year])
    assert np.bincount(year, minlength=5) == pytest.approx(800, rel=0.12)
    assert drawn.sel(zone="CA-QC").mean() == pytest.approx(
        float(known.sel(zone="CA-QC").mean()), rel=0.01
    )

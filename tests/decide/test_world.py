"""The world: known samples, phases that add up, shared errors, measured points in their place."""

import numpy as np
import pytest
import xarray as xr

from footprint import Refused, carbon, decide, spec
from footprint.trace.points import check_points
from made_points import GPUS, points

N = 400


@pytest.fixture(scope="module")
def world():
    return decide.draw_world(GPUS, n=N)


EXACT = points(time=lambda model, gpu, batch: batch**0.5, power=lambda *_: 70.0)


def _token(given, world, *args, **options):
    return decide.tokens(given, world, *args, **options).squeeze(["engine", "prompt", "output"])


def test_a_request_by_hand(world):
    found = _token(EXACT, world, g_per_kwh=decide.grids(), methods=["ACT", "paper"]).sel(
        model="llama-7b", gpu="t4", batch=4
    )
    # Prefill takes a tenth of the decode, and a batch of 4 twice the time of one.
    busy = 1.1 * 2 / (4 * 101)
    assert found["token_s"].values == pytest.approx(busy)
    assert found["token_J"].values == pytest.approx(70 * busy)
    assert found.sel(zone="CA-QC")["operational_g"].values == pytest.approx(70 * busy / 3.6e6 * 31)
    life_s = 5 * 365.25 * 86400
    embodied = found["embodied_g"]
    assert embodied.sel(embodied_method="paper").values == pytest.approx(10_300 * busy / life_s)
    act = carbon.embodied("t4")["total_kg"].item()
    assert embodied.sel(embodied_method="ACT").values == pytest.approx(act * 1000 * busy / life_s)


def test_phases_add_up_and_the_total_is_the_sum_of_both_carbons(world):
    wide = points(log_sd=0.2)
    whole, split = (decide.tokens(wide, world, by_phase=by) for by in (False, True))
    for name in whole.data_vars:
        assert split[name].sum("phase").transpose(*whole[name].dims).values == pytest.approx(
            whole[name].values
        )
    grams = decide.total(whole)
    parts = whole["operational_g"] + whole["embodied_g"]
    assert grams.values == pytest.approx(parts.values) and grams.attrs["units"] == "g"


def test_idle_reserved_time_is_charged_in_energy_and_in_embodied_carbon(world):
    busy, half = (_token(EXACT, world, carbon.Use(utilisation=u)).sel(gpu="t4") for u in (1, 0.5))
    idle = spec.gpu("t4").idle_W * busy["token_s"]
    assert (half["token_J"] - busy["token_J"]).values == pytest.approx(idle.values)
    assert half["embodied_g"].values == pytest.approx(2 * busy["embodied_g"].values)
    assert half["token_s"].values == pytest.approx(busy["token_s"].values)


def test_a_host_adds_watts_while_the_gpu_is_busy_and_its_own_embodied_carbon(world):
    alone, hosted = (
        _token(EXACT, world, use) for use in (carbon.Use(), carbon.Use(host_W=50.0, host_kg=100.0))
    )
    more = hosted["token_J"] - alone["token_J"]
    assert more.values == pytest.approx((50 * alone["token_s"]).values)
    grams = (hosted["embodied_g"] - alone["embodied_g"]).transpose(..., "embodied_method")
    expected = carbon.amortised(100.0, alone["token_s"]).broadcast_like(grams)
    assert grams.values == pytest.approx(expected.transpose(*grams.dims).values)


def test_samples_return_the_stated_intervals():
    world = decide.draw_world(GPUS, n=20_000)
    found = _token(points(log_sd=0.2), world, methods=["ACT"])["token_J"]
    one = found.sel(model="llama-1b", gpu="t4", batch=1)
    assert np.log(one).std().item() == pytest.approx(0.2, rel=0.03)
    assert one.median().item() == pytest.approx(110 / 101, rel=0.01)


def test_a_gpu_errs_once_and_two_gpus_err_apart():
    world = decide.draw_world(GPUS, n=4000)
    times = np.log(_token(points(log_sd=0.2), world, methods=["ACT"])["token_s"])
    one = times.sel(gpu="t4", model="llama-1b", batch=1)
    same = times.sel(gpu="t4", model="llama-7b", batch=16)
    other = times.sel(gpu="rtx-6000-ada", model="llama-1b", batch=1)
    assert xr.corr(one, same).item() == pytest.approx(1)
    assert abs(xr.corr(one, other).item()) < 0.05


def test_another_gpu_or_zone_changes_no_sample(world):
    more = decide.draw_world(["l4", *GPUS], ["FR", "CA-QC"], n=N)
    for name in ("time_error", "power_error", "embodied_kg"):
        assert np.array_equal(more[name].sel(gpu=list(GPUS)), world[name])
    assert np.array_equal(more["g_per_kwh"].sel(zone="CA-QC"), world["g_per_kwh"].sel(zone="CA-QC"))


def test_energy_errs_with_time_and_with_power_of_its_own():
    given = points(log_sd=0.2, energy_J_low_sd=0.25, energy_J_high_sd=0.25)
    world = decide.draw_world(GPUS, n=20_000)
    found = _token(given, world, methods=["ACT"]).sel(model="llama-1b", gpu="t4", batch=1)
    power = np.log(found["token_J"] / found["token_s"])
    assert power.std().item() == pytest.approx((0.25**2 - 0.2**2) ** 0.5, rel=0.03)
    assert abs(xr.corr(power, np.log(found["token_s"])).item()) < 0.03


def test_an_interval_may_be_longer_on_one_side():
    given = points(log_sd=0.1, time_s_low_sd=0.3, energy_J_low_sd=0.3)
    world = decide.draw_world(GPUS, n=40_000)
    found = _token(given, world, methods=["ACT"])["token_s"].sel(
        model="llama-1b", gpu="t4", batch=1
    )
    ends = np.log(np.quantile(found, [0.05, 0.5, 0.95]) / (1.1 / 101)) / 1.6448536
    assert ends == pytest.approx([-0.3, 0, 0.1], abs=0.01)


def test_a_measured_point_replaces_the_modelled_one_of_its_place_and_no_other():
    run = points(time=lambda *_: 9.0, evidence="measured", models=["llama-3b"], gpus=["t4"])
    both = decide.points(run.sel(batch=[4]), points())
    decode = both.sel(phase="decode", prompt=128, output=101, engine="eager")
    seen = decode["evidence"] == "measured"
    at = {"model": "llama-3b", "gpu": "t4", "batch": 4}
    assert seen.sel(at) and int(seen.sum()) == 1
    assert decode["time_s"].sel(at) == 9.0 and (decode["time_s"].where(~seen) != 9.0).all()
    assert (both["model"] == points()["model"]).all() and (both["gpu"] == points()["gpu"]).all()


def test_a_measured_place_that_is_not_modelled_joins_and_another_dtype_does_not():
    other = points(evidence="measured", gpus=["my-gpu"], models=["llama-1b"], batches=[2])
    both = decide.points(other, points())
    assert list(both.gpu.values) == [*GPUS, "my-gpu"] and list(both.batch.values) == [1, 2, 4, 16]
    assert (both["evidence"].sel(gpu="my-gpu", model="llama-1b", batch=2) == "measured").all()
    assert (both["evidence"].sel(gpu="my-gpu", model="llama-7b") == "not run").all()
    assert both["idle_W"].sel(gpu="my-gpu") == 20.0
    half = points(time=lambda *_: 9.0, evidence="measured", dtype="bf16")
    assert (decide.points(half, points())["evidence"] == "modelled").all()


def test_a_measured_point_out_of_memory_takes_the_modelled_numbers_away():
    run = points(time=lambda *_: None, evidence="measured", models=["llama-7b"], gpus=["t4"])
    both = decide.points(run, points())
    gone = both.sel(model="llama-7b", gpu="t4")
    assert gone["time_s"].isnull().all() and (gone["status"] == "oom").all()
    assert both["time_s"].sel(gpu="rtx-6000-ada").notnull().all()


def test_what_a_run_skipped_does_not_fit_and_was_not_measured():
    run = points(evidence="measured", models=["llama-7b"], gpus=["t4"]).copy(deep=True)
    gap = {"batch": 16, "phase": "decode"}
    for name in ("time_s", "energy_J"):
        run[name].loc[gap] = np.nan
    run["evidence"].loc[gap] = "not run"
    run["status"].loc[{"batch": 16}] = "skipped"
    both = check_points(decide.points(run, points())).sel(model="llama-7b", gpu="t4")
    assert (both["evidence"].sel(gap) == "not run").all() and both["time_s"].sel(gap).isnull().all()
    assert (both["status"].sel(batch=16) == "skipped").all()
    prefill = both.sel(batch=16, phase="prefill")
    assert (prefill["evidence"] == "measured").all() and prefill["time_s"].notnull().all()
    assert (both["evidence"].sel(batch=4) == "measured").all()


def test_points_of_both_are_sound_and_keep_the_gain_of_the_board():
    run = points(evidence="measured", models=["llama-1b"], gpus=["t4"], log_sd=0.03, gain_sd=0.025)
    both = check_points(decide.points(run.sel(batch=[4]), points()))
    assert both["gain_sd"].sel(gpu="t4", model="llama-1b").item() == 0.025
    assert float(both["gain_sd"].sum()) == 0.025


def test_a_world_without_a_gpu_of_the_points_says_so(world):
    with pytest.raises(Refused, match="The world has no samples of l4; draw it with this GPU"):
        decide.tokens(points(gpus=["l4", "t4"]), world)


def test_one_measured_phase_makes_a_token_of_mixed_evidence(world):
    run = points(evidence="measured", models=["llama-1b"], gpus=["t4"], batches=[1])
    both = decide.points(run.sel(phase=["decode"]), points())
    known = _token(both, world, methods=["ACT"])["evidence"]
    assert known.sel(model="llama-1b", gpu="t4", batch=1) == "mixed"
    assert known.sel(model="llama-1b", gpu="t4", batch=4) == "modelled"
    rows = decide.intervals(_token(points(), world, methods=["ACT"])["token_J"])
    assert {"mean", "median", "low", "high", "batch", "evidence"} <= set(rows)


def test_a_gpu_that_no_table_knows_has_no_embodied_carbon_unless_it_is_given():
    world = decide.draw_world(["my-gpu", "t4"], n=5)
    gap = world["embodied_kg"].sel(gpu="my-gpu")
    assert gap.isnull().all() and (gap["embodied_reason"] == "my-gpu is in no table").all()
    told = decide.draw_world(["my-gpu", "t4"], n=5, embodied_kg={"my-gpu": 40.0})["embodied_kg"]
    assert (told.sel(gpu="my-gpu") == 40).all()
    assert (told["embodied_reason"].sel(gpu="my-gpu") == "").all()
    found = decide.tokens(points(gpus=["my-gpu", "t4"]), world)
    assert found["embodied_g"].sel(gpu="my-gpu").isnull().all()
    assert found["operational_g"].notnull().all()
    with pytest.raises(Refused, match="embodied_kg of my-gpu"):
        decide.draw_world(["my-gpu"], n=5, embodied_kg={"my-gpu": -1.0})


def test_a_method_without_a_value_says_why():
    kg = decide.draw_world(["l4", "v100-16gb"], n=5)["embodied_kg"]
    gap = kg.isnull().all("sample")
    assert ((kg["embodied_reason"] != "") == gap).all()
    assert gap.sel(gpu="l4", embodied_method="paper")
    assert gap.sel(gpu="v100-16gb", embodied_method="teardown")
    assert not gap.sel(gpu="l4", embodied_method="teardown")


def test_an_unknown_method_is_refused(world):
    with pytest.raises(Refused, match=r"'vendor' is unknown here; allowed are .*ACT with priors"):
        decide.tokens(EXACT, world, methods=["vendor"])


def test_what_runs_out_of_memory_is_a_gap_with_its_reason(world):
    full = points(
        time=lambda model, gpu, batch: (
            None if (model, gpu) == ("llama-7b", "t4") and batch > 4 else 1.0
        )
    )
    gap = {"model": "llama-7b", "gpu": "t4", "batch": 16}
    assert full["status"].sel(gap).item() == "oom"
    found = _token(full, world)
    assert np.isnan(decide.total(found).sel(gap)).all()
    assert decide.best_batch(found).sel(model="llama-7b", gpu="t4", zone="CA-QC").item() == 4
    none = decide.tokens(points(time=lambda *_: None), world)
    assert decide.best_batch(none).isnull().all()


def test_grids_by_zone_and_basis():
    both = decide.grids(basis=["lifecycle", "direct"])
    assert both.sel(zone="CA-QC", basis="direct").item() == 1.68
    assert both.sel(basis="lifecycle", drop=True).equals(decide.grids())
    assert decide.grids(["France"]).item() == spec.grid("FR").g_per_kwh


def test_a_sampled_grid_is_one_of_its_years_and_the_same_year_everywhere():
    known = decide.grid_years().values
    grid = decide.draw_world(GPUS, n=4000)["g_per_kwh"].transpose("zone", "sample").values
    year = (grid[:, :, None] == known[:, None, :]).all(axis=0)
    assert (year.sum(axis=1) == 1).all()
    year = year.argmax(axis=1)
    assert np.bincount(year, minlength=5) == pytest.approx(800, rel=0.12)
    assert grid[0].mean() == pytest.approx(known[0].mean(), rel=0.01)


def test_the_sampled_use_makes_every_token_dearer(world):
    plain = decide.tokens(EXACT, world, g_per_kwh=decide.grids())
    used = decide.tokens(EXACT, world, decide.sampled_use(world), g_per_kwh=decide.grids())
    assert (used["embodied_g"].median("sample") > plain["embodied_g"].median("sample")).all()
    assert (used["operational_g"] > plain["operational_g"]).all()

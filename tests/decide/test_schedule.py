"""Plans against closed forms and a search by hand on small days; balances; refusals."""

import itertools
import time

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from footprint import Refused, carbon, decide, spec
from footprint.decide import schedule
from footprint.decide.schedule import Freedom
from footprint.decide.search import BATCHES, Request

CARDS, ZONES = ["t4", "rtx-6000-ada"], ["here", "there"]
MODELS = ["llama-1b", "llama-3b", "llama-7b", "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b"]
WORLD = decide.draw_world(spec.gpus(), n=3)


def plan(asked, setting, intensity, **freedom) -> xr.Dataset:
    """The plan by ACT, whose embodied carbon does not spread."""
    return schedule.plan(asked, setting, intensity, WORLD, freedom=Freedom(**freedom), method="ACT")


def points(seconds, watts, models=("m",), batch=(1,), idle=None) -> xr.Dataset:
    """Exact configurations (model, gpu, batch): seconds and watts; a quarter in prefill."""
    share = xr.DataArray([0.25, 0.75], {"phase": ["prefill", "decode"]}, ["phase"])
    seconds, watts = (
        np.broadcast_to(values, (len(models), len(CARDS), len(batch)))
        for values in (seconds, watts)
    )
    labels = {"model": list(models), "gpu": CARDS, "batch": list(batch)}
    busy = xr.DataArray(seconds.astype(float), labels, list(labels)) * share
    data = {"time_s": busy, "energy_J": busy * xr.DataArray(watts, labels, list(labels))}
    data |= {
        f"{name}_{end}_sd": xr.zeros_like(busy)
        for name in ("time_s", "energy_J")
        for end in ("low", "high")
    }
    rests = [spec.gpu(name).idle_W for name in CARDS] if idle is None else idle
    return xr.Dataset(data | {"idle_W": ("gpu", rests, {"units": "W"})})


def day(values, zones=ZONES[:1], models=("m",)) -> xr.DataArray:
    """A value for each hour of the day, on (hour, zone) or (hour, zone, model)."""
    labels = {"hour": np.arange(24), "zone": list(zones)} | (
        {"model": list(models)} if models else {}
    )
    whole = np.broadcast_to(
        np.reshape(values, (-1,) + (1,) * (len(labels) - 1)),
        [len(item) for item in labels.values()],
    )
    return xr.DataArray(whole.astype(float), labels, list(labels))


def made_kg(card: str) -> float:
    """What a day of a GPU's life is charged."""
    return carbon.amortised(carbon.embodied(card)["total_kg"].item(), 86400.0) / 1000


def whole(found: xr.Dataset) -> float:
    return float((found["operational_kg"] + found["embodied_kg"]).sum())


@given(
    st.tuples(*[st.floats(0.5, 20)] * 2), st.tuples(*[st.floats(60, 400)] * 2), st.floats(1, 900)
)
@settings(deadline=None, max_examples=30)
def test_on_a_level_day_the_plan_is_the_best_gpu_always_busy(seconds, watts, intensity):
    asked = 7.2e5
    found = plan(
        day(asked),
        points(np.array(seconds)[None, :, None], np.array(watts)[None, :, None]),
        day(intensity, models=()),
    )
    counts = [asked * second / 3600 for second in seconds]
    each = [
        n * (watt * 24e-6 * intensity + made_kg(card))
        for n, watt, card in zip(counts, watts, CARDS, strict=True)
    ]
    assert whole(found) == pytest.approx(min(each), rel=1e-6)


@given(
    st.lists(st.integers(1, 50), min_size=24, max_size=24),
    st.tuples(*[st.floats(0.5, 20)] * 2),
    st.floats(1, 900),
)
@settings(deadline=None, max_examples=15)
def test_peaks_are_served_as_by_a_search_over_all_ways_to_share_the_load(load, seconds, intensity):
    """At one intensity the first GPUs carry the load up to one of its levels, or none."""
    watts, load = (70.0, 250.0), np.array(load) * 1e5
    setting = points(np.array(seconds)[None, :, None], np.array(watts)[None, :, None])
    found = plan(day(load), setting, day(intensity, models=()))
    idle, kg = setting["idle_W"].values, intensity * 1e-6
    tried = []
    for level, first in itertools.product([0.0, *sorted(set(load))], (0, 1)):
        room = {first: level, 1 - first: max(load.max() - level, 0.0)}
        order = sorted(room, key=lambda card: (watts[card] - idle[card]) * seconds[card])
        total, left = 0.0, load.copy()
        for card in order:
            taken = np.minimum(left, room[card])
            left = left - taken
            busy, cards = taken * seconds[card] / 3600, room[card] * seconds[card] / 3600
            total += (
                busy.sum() * (watts[card] - idle[card]) + 24 * cards * idle[card]
            ) * kg + cards * made_kg(CARDS[card])
        tried.append(total)
        assert left.max() == 0
    assert whole(found) == pytest.approx(min(tried), rel=1e-6)


def random_day(seed: int):
    generator = np.random.default_rng(seed)
    models, batch = ("a", "b"), (1, 4)
    seconds = generator.uniform(1, 20, (2, 2, 2))
    seconds[0, 0, 1] = np.nan
    setting = points(seconds, generator.uniform(60, 300, (2, 2, 2)), models, batch)
    asked = day(0, ZONES, models) + generator.uniform(1e4, 1e6, (24, 2, 2))
    return asked, setting, day(0, ZONES, ()) + generator.uniform(20, 700, (24, 2))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_asked_is_served_within_the_shares_and_the_gpus(seed):
    asked, setting, intensity = random_day(seed)
    found = plan(asked, setting, intensity, moves=0.3, waits=0.4, wait_h=5)
    sent, total = found["sent"], asked.sum(["zone", "hour"])
    xr.testing.assert_allclose(sent.sum(["wait_h", "to"]), asked)
    away = sent.where(sent.zone != sent.to, 0).sum(["wait_h", "to"])
    later = sent.sel(wait_h=slice(1, None)).sum(["wait_h", "to"])
    assert bool((away <= 0.3 * asked * (1 + 1e-6)).all()) and bool(
        (later <= 0.4 * asked * (1 + 1e-6)).all()
    )
    rate = setting.batch * 3600 / setting["time_s"].sum("phase", skipna=False)
    done = (found["busy"] * rate).sum(["gpu", "batch"])
    arrived = sum(
        sent.sel(wait_h=k).sum("zone").roll(hour=k, roll_coords=False) for k in sent.wait_h.values
    )
    xr.testing.assert_allclose(
        done, arrived.rename(to="zone").transpose(*done.dims).drop_vars("wait_h", errors="ignore")
    )
    assert float(done.sum()) == pytest.approx(float(total.sum()))
    assert float(found["busy"].sel(gpu="t4", model="a", batch=4).sum()) == 0
    assert bool((found["busy"].sum(["model", "batch"]) <= found["gpus"] + 1e-6).all())
    busy, per_W = found["busy"], intensity * 1e-6
    watts = setting["energy_J"].sum("phase", skipna=False) / setting["time_s"].sum(
        "phase", skipna=False
    )
    rests = (found["gpus"] - busy.sum(["model", "batch"])) * setting["idle_W"]
    kg = ((busy * watts).sum(["gpu", "model", "batch"]) + rests.sum("gpu")) * per_W
    assert float(kg.sum()) == pytest.approx(float(found["operational_kg"].sum()), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_freedom_never_costs_and_limits_never_save(seed):
    asked, setting, intensity = random_day(seed)

    def least(**options):
        return whole(plan(asked, setting, intensity, **options)) / (1 + 1e-6)

    free = plan(asked, setting, intensity)
    fixed = whole(free)
    assert least(moves=1.0) <= least(moves=0.5) <= fixed
    waits = [least(waits=1.0, wait_h=hours) for hours in (0, 2, 12)]
    assert waits[2] <= waits[1] * (1 + 1e-6) <= waits[0] * (1 + 2e-6)
    assert least(idle=0.0) <= fixed
    assert whole(plan(asked, setting.sel(gpu=["t4"]), intensity)) >= fixed * (1 - 1e-6)
    enough = least(gpus=free["gpus"] * 1.0001)
    assert enough == pytest.approx(fixed, rel=1e-3)


def test_equal_plans_neither_wait_nor_travel():
    asked, level = day(1e5, ZONES), day(100, ZONES, ())
    found = plan(asked, points(1.0, 100.0), level, moves=1.0, waits=1.0, wait_h=3)
    assert float(found["sent"].sel(wait_h=slice(1, None)).sum()) == pytest.approx(0, abs=1)
    assert float(found["sent"].where(found.zone != found.to).sum()) == pytest.approx(0, abs=1)


def test_a_demand_beyond_the_gpus_is_refused_with_the_share_that_they_carry():
    most = xr.DataArray([[10.0, 0.0]], {"zone": ZONES[:1], "gpu": CARDS}, ["zone", "gpu"])
    setting, grid = points(1.0, 100.0), day(100, models=())
    assert plan(day(36000.0), setting, grid, gpus=most)["gpus"].sum() == pytest.approx(10)
    with pytest.raises(
        Refused, match=r"The GPUs at hand bind: they carry at most 40.0% of the demand"
    ):
        plan(day(90000.0), setting, grid, gpus=most)


def test_what_no_gpu_serves_is_refused_by_the_limit_that_binds():
    asked = {"batch": [1], "prompt": 512, "output": 64, "engine": "serving"}
    for options, words in (
        ({"dtype": "fp32"}, "No GPU in the plan serves llama-7b: memory binds"),
        ({"ttft_s": 1e-6}, "serves llama-1b, llama-7b: the time to first token of 1e-06 s binds"),
        ({"tpot_s": 1e-6}, "serves llama-1b, llama-7b: the time per output token of 1e-06 s binds"),
    ):
        with pytest.raises(Refused, match=words):
            schedule.configurations(["llama-1b", "llama-7b"], Request(**asked, **options), ["t4"])


def test_bad_input_is_refused_in_a_sentence():
    setting, grid = points(1.0, 100.0), day(100, models=())
    for options, words in (
        ({"moves": 2}, "moves holds 2"),
        ({"waits": -1}, "waits holds -1"),
        ({"wait_h": 24}, "wait_h = 24 is refused; whole hours from 0 to 23"),
        ({"wait_h": 1.5}, "wait_h = 1.5 is refused"),
    ):
        with pytest.raises(Refused, match=words):
            plan(day(1e5), setting, grid, **options)
    with pytest.raises(
        Refused,
        match="intensity of every hour, and the idle power and embodied carbon of every GPU",
    ):
        plan(day(1e5), setting, grid.where(grid.hour > 0))
    with pytest.raises(Refused, match="local time of 'FR' is unknown; known zones are CA-QC"):
        schedule.demand(1e9, ["m"], ["FR"])
    with pytest.raises(Refused, match="per_day holds 0"):
        schedule.demand(0, ["m"])


def test_the_demand_adds_up_and_peaks_in_the_afternoon():
    asked = schedule.demand(1e9, MODELS)
    assert float(asked.sum()) == pytest.approx(1e9)
    assert asked.sel(zone="US-CAL-CISO").idxmax("hour").values.tolist() == [23] * 6
    assert float(asked.max() / asked.mean()) == pytest.approx(1.5)
    assert float(schedule.demand(24, ["m"], ["CA-QC"], swing=0).std()) == 0


def test_the_mean_request_is_that_of_both_services_as_often_as_they_are_asked():
    request = schedule.mean_request()
    prompt, output = request.prompt, request.output
    assert 1150 < prompt < 2050 and 28 < output < 213
    # The means over all requests of the trace, both services together: 1434 and 154 tokens.
    assert prompt == pytest.approx(1434, rel=0.02) and output == pytest.approx(154, rel=0.02)


def test_a_replay_without_spread_is_the_plan_and_with_it_lies_about_it():
    asked, setting, intensity = random_day(1)
    found = plan(asked, setting, intensity, moves=0.5, idle=0.3)
    again = schedule.replay(found, setting, intensity, WORLD)
    for name in ("operational_kg", "embodied_kg"):
        assert again[name].values == pytest.approx(float(found[name].sum()), rel=1e-6)
    wide = setting.assign({name: setting[name] + 0.1 for name in setting if name.endswith("_sd")})
    world = decide.draw_world(CARDS, n=200)
    sampled = schedule.replay(found, wide, intensity, world).to_array().sum("variable")
    assert float(sampled.quantile(0.05)) < whole(found) < float(sampled.quantile(0.95))


def test_a_replay_takes_the_energy_that_each_request_takes_in_that_world():
    asked, setting, intensity = random_day(2)
    wide = setting.assign({name: setting[name] + 0.2 for name in setting if name.endswith("_sd")})
    found = plan(asked, wide, intensity, idle=0.0)
    world = decide.draw_world(CARDS, n=20, seed=3)
    sampled = decide.sampled(wide, world).sum("phase", skipna=False)
    requests = found["busy"] * 3600 / setting["time_s"].sum("phase", skipna=False)
    joules = (requests * sampled["energy_J"] * intensity).sum(
        ["hour", "zone", "gpu", "model", "batch"]
    )
    again = schedule.replay(found, wide, intensity, world)
    np.testing.assert_allclose(again["operational_kg"], joules / 3.6e9)


def test_a_host_adds_its_watts_while_gpus_are_busy_and_its_embodied_carbon():
    asked, grid, use = day(1e5), day(100, models=()), carbon.Use(host_W=50.0, host_kg=100.0)
    setting = points(1.0, 100.0).sel(gpu=["t4"])
    alone, hosted = (
        schedule.plan(asked, setting, grid, WORLD, each, method="ACT")
        for each in (carbon.Use(), use)
    )
    hours = float(alone["busy"].sum())
    more = float(hosted["operational_kg"].sum() - alone["operational_kg"].sum())
    assert more == pytest.approx(carbon.operational(50.0 * 3600 * hours, 100.0) / 1000)
    made = float(hosted["embodied_kg"].sum() - alone["embodied_kg"].sum())
    count = float(alone["gpus"].sum())
    assert made == pytest.approx(count * carbon.amortised(100.0, 86400.0) / 1000)
    again = schedule.replay(hosted, setting, grid, WORLD).mean("sample")
    assert float(again.to_array().sum()) == pytest.approx(whole(hosted), rel=1e-6)


def test_a_day_of_a_large_service_is_planned_within_ten_seconds():
    request = schedule.mean_request(batch=BATCHES, ttft_s=2, tpot_s=0.1)
    setting = schedule.configurations(MODELS, request)
    grid = decide.grid_hours().groupby("time.hour").mean()
    asked = schedule.demand(1e9, MODELS)
    began = time.perf_counter()
    found = schedule.plan(asked, setting, grid, WORLD, freedom=Freedom(moves=0.5))
    assert time.perf_counter() - began < 10
    assert found.attrs["columns"] > 24 * 3 * 17 * 6
    habit = schedule.plan(asked, setting.sel(gpu=["h200-sxm"]), grid, WORLD)
    assert whole(found) < whole(habit) and set(found.zone.values) == set(decide.ZONES)

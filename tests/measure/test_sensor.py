"""The sensor card: what it measures on scripted sensors, how it is kept, what a run uses."""

import time

import numpy as np
import pytest

import fake_nvml as fake
import scripted_gpu
from footprint import Refused, __main__
from footprint.measure import instrument, sampler, sensor, window
from scripted_instrument import Scripted

PULSES, PULSE_S = 12, 1.5


def square_wave(gpu, path, off_beat=0.0137, **keys) -> dict:
    """Samples of a square wave as `sensor.measure` takes them, on a virtual clock."""
    virtual = fake.VirtualTime(path / "clock")
    gpu(fake.square(60, 300, 2 * PULSE_S + off_beat), clock=str(virtual.path), **keys)
    clock, rows = virtual.clock(), []

    def stopped(pause: float) -> bool:
        clock.sleep(pause)
        return clock.now() > PULSES * 2 * PULSE_S + 2

    read = instrument.opened("cuda:0").reader()
    sampler.sample(
        read,
        lambda *row: rows.append(row),
        stopped,
        rate_hz=sensor.RATE_HZ,
        busiest=sensor.BUSIEST,
        clock=clock,
    )
    return dict(zip(sampler.COLUMNS, np.array(rows).T, strict=True))


@pytest.mark.parametrize(
    ("update", "average", "tick"),
    [(0.1, 0.1, 0.1), (0.1, 0.025, 0.1), (0.02, 0.01, 0.02), (0.1, 1.0, 0.1), (0.05, 0.05, 0.25)],
)
def test_a_square_wave_tells_update_averaging_and_tick(gpu, tmp_path, update, average, tick):
    samples = square_wave(
        gpu, tmp_path, update=update, span=average, tick=tick, noise=0.5, latency=1e-4
    )
    on = np.arange(1, PULSES) * (2 * PULSE_S + 0.0137)
    found = sensor.characteristics(samples, on, on + PULSE_S + 0.00685)
    assert found["power_update_s"] == pytest.approx(update, rel=0.05)
    assert found["counter_tick_s"] == pytest.approx(tick, rel=0.02)
    assert found["power_average_s"] == pytest.approx(average, abs=0.25 * update)
    assert found["power_duty"] == pytest.approx(min(average / update, 1), abs=0.25)


def test_readings_that_hold_still_tell_no_update_period(gpu, tmp_path):
    samples = square_wave(gpu, tmp_path, off_beat=0.0)
    on = np.arange(1, PULSES) * 2 * PULSE_S
    found = sensor.characteristics(samples, on, on + PULSE_S)
    assert all(
        np.isnan(found[name]) for name in ("power_update_s", "power_average_s", "power_duty")
    )
    assert found["counter_tick_s"] == pytest.approx(0.1, rel=0.02)


def test_a_period_is_that_of_the_changes():
    time_s = np.arange(0, 10, 0.01)
    assert sensor.period(time_s, np.floor(time_s / 0.25)) == pytest.approx(0.25, rel=0.02)
    lost = np.delete(np.arange(1000), slice(300, 330))  # a gap is no period
    assert sensor.period(time_s[lost], np.floor(time_s[lost] / 0.25)) == pytest.approx(
        0.25, rel=0.02
    )
    assert np.isnan(sensor.period(time_s, np.zeros(1000)))


def test_a_load_that_does_nothing_tells_no_delay():
    time_s = np.arange(0, 10, 0.01)
    assert np.isnan(
        sensor.delay(time_s, np.full(1000, 80.0), np.array([1.0, 3, 5]), np.array([2.0, 4, 6]))
    )


def test_calls_are_timed_and_absent_ones_are_nan(gpu, tmp_path):
    virtual = fake.VirtualTime(tmp_path / "clock")
    gpu(clock=str(virtual.path), latency=0.0024, faults=[("counter", 3, *fake.ALWAYS)])
    cost = sensor.cost(instrument.opened("cuda:0"), virtual.clock())
    assert np.allclose(cost["call_s"][[0, 1, 3]], 0.0024) and np.isnan(cost["call_s"][2])


@pytest.fixture(scope="module")
def card(library, tmp_path_factory):
    """A sensor card of a scripted GPU, measured in real time (some seconds)."""
    done = []
    made = scripted_gpu.measured(
        tmp_path_factory.mktemp("card"), library, done, pulses=4, pulse_s=0.4, rest_s=0.5
    )
    assert done == ["context", "weights"]
    return made


def test_a_card_holds_all_that_it_promises(card):
    assert set(card.data_vars) == set(sensor.SCHEMA.index) and set(card.attrs) == set(sensor.ATTRS)
    assert card.attrs["device_name"] == "FAKE GPU" and card.attrs["device"] == "fake-gpu"
    assert len(card.attrs["device_hash"]) == 12
    assert "GPU-FAKE" not in str(card.attrs)
    assert float(card["counter_tick_s"]) == pytest.approx(0.1, rel=0.1)
    assert abs(float(card["residual"])) < 0.1
    assert (card["idle_W"] > 59).all() and card["call_s"].sel(call="both") < 1e-3
    assert all(card[name].attrs["long_name"] for name in sensor.SCHEMA.index)


def test_a_card_is_kept_and_found_by_its_board(card, tmp_path, monkeypatch):
    (tmp_path / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path)
    gain = {"gain": 0.95, "gain_bound": 0.01}
    known = card.assign({name: card[name].copy(data=value) for name, value in gain.items()})
    path = sensor.save(known, tmp_path / "notebooks" / "local")
    assert path.suffix == ".nc4" and [item.name for item in path.parent.iterdir()] == [path.name]
    again = sensor.load(path)
    assert again.attrs == known.attrs and float(again["gain"]) == pytest.approx(0.95)
    values = sensor.values(Scripted("scripted"), lambda line: pytest.fail(line))
    assert set(values) == set(window.UNKNOWN) and values["gain"] == pytest.approx(0.95)
    assert values["gain_bound"] == 0.01


def test_without_a_card_a_run_looks_for_two_seconds_and_assumes_the_rest(
    gpu, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    gpu(fake.constant(80), epoch=time.monotonic(), tick=0.05)
    said = []
    values = sensor.values(instrument.opened("cuda:0"), said.append)
    assert values["counter_tick_s"] == pytest.approx(0.05, rel=0.1)
    assert np.isnan(values["power_duty"])
    assert values["gain_bound"] == sensor.GAIN_BOUND and "footprint sensor" in said[0]
    assert all(
        np.isnan(value) for value in sensor.values(instrument.opened("cpu"), said.append).values()
    )


def test_the_page_gets_a_table(card):
    table = sensor.table(card)
    assert {"counter tick", "idle power weights", "cost of a call both"} <= set(table["what"])


def test_nonsense_is_refused(card, gpu, tmp_path, capsys):
    (tmp_path / "x.nc4").write_text("no card")
    with pytest.raises(Refused, match="not a sensor card"):
        sensor.load(tmp_path / "x.nc4")
    sensor.save(card.drop_vars("gain"), tmp_path)
    with pytest.raises(Refused, match="gain"):
        sensor.load(next(tmp_path.rglob("sensor-*.nc4")))
    gpu(faults=[(call, 3, *fake.ALWAYS) for call in ("fields", "power", "counter")])
    with pytest.raises(Refused, match="tells no power"):
        sensor.measure(instrument.opened("cuda:0"), sensor.Load(list, list, time.sleep))


def test_a_gpu_that_is_lost_meanwhile_has_no_card(gpu):
    gpu(faults=[("fields", 15, 20, 0.0, 10**9)])
    short = {"pulses": 2, "pulse_s": 0.1, "rest_s": 0.1}
    with pytest.raises(Refused, match=r"ended early \(gpu_lost\); no card was made"):
        sensor.measure(instrument.opened("cuda:0"), sensor.Load(list, list, time.sleep), **short)

    def broken(seconds):
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")

    gpu()
    with pytest.raises(Refused, match=r"gave up \(CUDA error: unspecified launch failure\); no"):
        sensor.measure(instrument.opened("cuda:0"), sensor.Load(list, list, broken), **short)


def test_a_call_that_fails_later_has_no_cost(gpu):
    gpu()
    seen = instrument.opened("cuda:0")
    assert np.isfinite(sensor.cost(seen)["call_s"]).all()
    gpu(faults=[("power", 15, *fake.ALWAYS)])
    assert np.isnan(sensor.cost(seen)["call_s"]).tolist() == [False, True, False, False]


def test_a_cpu_has_no_card(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("FOOTPRINT_FAKE_GPU", raising=False)
    monkeypatch.setenv("FOOTPRINT_LOCKS", str(tmp_path))
    assert __main__.main(["sensor", "--device", "cpu"]) == 2
    assert "CPU has no power sensor" in capsys.readouterr().err

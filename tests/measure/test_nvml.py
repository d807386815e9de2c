"""The NVML instrument on a scripted GPU: readings, fallbacks, refusals and faults."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pynvml
import pytest

import fake_nvml as fake
from footprint import Refused
from footprint.measure import nvml, sampler
from footprint.measure.instrument import Absent, Lost, opened
from footprint.trace.schema import WINDOW_STATUS

NEVER = 10**9
CODES = {
    3: "not_supported",
    4: "no_permission",
    13: "not_supported",
    15: "gpu_lost",
    18: "driver_mismatch",
    999: "unknown",
}


def always(call: str, code: int) -> tuple:
    return (call, code, *fake.ALWAYS)


# -- which card ------------------------------------------------------------------------------------


def test_gpus_are_counted_in_pci_order_as_torch_counts_them(gpu, monkeypatch):
    gpu(cards=2)  # the fake puts NVML's first card on the later bus
    names = [opened(f"cuda:{i}").identity().name for i in range(2)]
    assert names == ["FAKE GPU 2", "FAKE GPU"]
    assert opened("cuda:1").identity() == ("FAKE GPU", "GPU-FAKE-0", "FAKE 1.0")
    assert opened("GPU-FAKE-1").identity().name == "FAKE GPU 2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert opened("cuda").identity().name == "FAKE GPU"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-FAKE-1")
    assert opened("cuda:0").identity().name == "FAKE GPU 2"
    with pytest.raises(Refused, match=r"no GPU 'cuda:1'; this machine shows 1"):
        opened("cuda:1")


def test_a_number_keeps_its_gpu_when_another_is_lost(gpu):
    gpu(cards=3)
    before = [opened(f"cuda:{number}").identity().uuid for number in range(3)]
    gpu(cards=3, faults=[always("all@1", 15)])
    assert [opened(f"cuda:{number}").identity().uuid for number in (0, 2)] == before[::2]
    for name in ("cuda:1", before[1]):
        with pytest.raises(Lost, match=rf"The GPU '{name}' does not answer: gpu_lost; see nvidia"):
            opened(name)


@pytest.mark.parametrize(("call", "code"), [("handle", 15), ("handle", 4), ("uuid", 999)])
def test_a_gpu_that_does_not_answer_has_no_number_as_torch_gives_it_none(gpu, call, code):
    gpu(cards=3, faults=[always(f"{call}@1", code)])
    assert [opened(f"cuda:{i}").identity().uuid for i in range(2)] == ["GPU-FAKE-2", "GPU-FAKE-0"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-FAKE-2,GPU-FAKE-0"
    with pytest.raises(Lost, match=f"'GPU-FAKE-1' does not answer: {CODES[code]}"):
        opened("GPU-FAKE-1")
    with pytest.raises(Absent, match="no GPU 'cuda:3'"):
        opened("cuda:3")


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", [2]),
        ("2, 0", [0, 2]),
        ("1,7,0", [1]),
        ("0,0", []),
        ("0,GPU-5ca1ab1e", [2, 0]),
        ("GPU-5ca1ab20,x,0", [2]),
        ("GPU-5ca1ab1", []),  # the beginning of two UUIDs
        ("GPU-5ca1ab2,GPU-5ca1ab20-9d1c", []),  # one GPU twice
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(gpu, monkeypatch, listed, shown):
    gpu(cards=3, uuids=1)  # in PCI order they end in 20, 1f and 1e
    whole = [f"GPU-{0x5CA1AB1E + card:08x}-9d1c-4b6a-8f20-3c5e7a9b1d42" for card in range(3)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    for _ in range(2):  # the list that it leaves says the same again
        for number, card in enumerate(shown):
            assert opened(f"cuda:{number}").identity().uuid == whole[card]
            assert opened(whole[card][:20]).identity().uuid == whole[card]
        with pytest.raises(Absent, match=f"shows {len(shown)}, .*hides {3 - len(shown)}") as absent:
            opened(f"cuda:{len(shown)}")
        assert "GPU-" not in str(absent.value), "a UUID is private"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(whole[card] for card in shown)


def test_visible_devices_that_are_no_whole_gpus_here_are_refused(gpu, monkeypatch):
    gpu()
    for listed, said in (("MIG-1", "MIG slice"), ("7", "no GPU"), ("GPU-x", "not answer")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        with pytest.raises(Refused, match=said):
            opened("cuda")


@pytest.mark.parametrize(
    ("keys", "device", "said"),
    [
        ({}, "MIG-1", "MIG slice has no energy of its own"),
        ({"mig": 1}, "cuda:0", "cut into MIG slices"),
        ({"virtualisation": 2}, "cuda:0", "vGPU"),
        ({"virtualisation": 3}, "cuda:0", "vGPU"),
        ({}, "cuda:7", "no GPU 'cuda:7'"),
        ({}, "GPU-other", "no GPU 'GPU-other'"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(gpu, keys, device, said):
    gpu(**keys)
    with pytest.raises(Refused, match=said):
        opened(device)


@pytest.mark.parametrize(
    ("code", "said"), [(18, "driver_mismatch.*reload"), (9, "gpu_lost.*reload"), (999, "unknown")]
)
def test_a_driver_that_does_not_start_says_why(gpu, code, said):
    gpu(faults=[always("init", code)])
    with pytest.raises(Refused, match=said):
        opened("cuda:0")


def test_without_a_driver_one_sentence(monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    with pytest.raises(Refused, match="no NVIDIA driver here"):
        opened("cuda:0")


def test_the_old_unofficial_bindings_are_refused(monkeypatch):
    monkeypatch.delattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons")
    with pytest.raises(Refused, match="pip install nvidia-ml-py"):
        nvml.bindings()


def test_only_a_fake_gpu_may_stand_in(gpu, monkeypatch):
    gpu()
    assert not opened("cpu").present and opened("cuda:0").device == "cuda:0"
    monkeypatch.setenv("FOOTPRINT_FAKE_GPU", "cuda:0")
    assert opened("cpu").device == "cuda:0"
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda card: "Tesla T4")
    with pytest.raises(Refused, match="only a card whose own name says FAKE"):
        opened("cpu")


# -- what it tells ---------------------------------------------------------------------------------


def test_state_and_counter(gpu):
    gpu(temperature=55, throttle=("0x40", 0), others=(2, 0), latency=0)
    seen, (joules, status) = opened("cuda:0").state(), opened("cuda:0").counter()
    assert (seen.temperature_C, seen.sm_clock_MHz, seen.memory_clock_MHz) == (55, 1500, 7000)
    assert (seen.power_limit_W, seen.throttle, len(seen.processes)) == (400, 0x40, 2)
    assert seen.throttled and seen.status == status == "ok" and joules > 0


def test_a_machine_without_a_gpu_tells_nothing():
    nothing = opened("cpu")
    seen, (joules, status) = nothing.state(), nothing.counter()
    assert seen.status == status == nothing.reader()().status == "not_supported"
    assert np.isnan(joules) and np.isnan(seen.temperature_C)
    assert seen.throttle == -1 and seen.processes is None and not seen.throttled


@pytest.mark.parametrize(("code", "status"), CODES.items())
def test_each_error_of_the_counter_is_a_status_and_never_a_zero(gpu, code, status):
    gpu(faults=[always("counter", code)])
    joules, said = opened("cuda:0").counter()
    assert np.isnan(joules) and said == status and status in WINDOW_STATUS


def test_unknown_states_are_not_zero(gpu):
    gpu(
        faults=[
            always(call, 4) for call in ("temperature", "clock", "limit", "throttle", "processes")
        ]
    )
    seen = opened("cuda:0").state()
    assert all(
        np.isnan(getattr(seen, name))
        for name in ("temperature_C", "sm_clock_MHz", "memory_clock_MHz", "power_limit_W")
    )
    assert seen.throttle == -1 and seen.processes is None


@pytest.mark.parametrize(
    ("zeros", "source", "joules", "limit"),
    [
        (["counter", "counter_field"], "nvml_instant", False, True),
        (["counter_field"], "nvml_counter", True, True),
        (["limit"], "nvml_counter", True, False),
        (["instant", "counter", "counter_field"], "nvml_average", False, True),
        (["instant", "power", "counter", "counter_field"], "none", False, True),
    ],
)
def test_a_zero_with_success_is_no_reading(gpu, zeros, source, joules, limit):
    gpu(fake.constant(123), faults=[always(call, fake.ZERO) for call in zeros])
    seen = opened("cuda:0")
    value, status = seen.counter()
    assert seen.source == source and np.isfinite(seen.state().power_limit_W) == limit
    assert (np.isfinite(value), status) == (joules, "ok" if joules else "not_supported")
    read = seen.reader()()
    assert np.isfinite(read.counter_J) == joules and np.isfinite(read.power_W) == (source != "none")


def test_a_counter_that_starts_at_zero_is_waited_for(gpu, monkeypatch):
    zeros = [always(call, fake.ZERO) for call in ("counter", "counter_field")]
    gpu(faults=zeros)
    monkeypatch.setattr(nvml.time, "sleep", lambda seconds: gpu())
    assert opened("cuda:0").source == "nvml_counter"


def test_a_passing_error_is_tried_twice_more_a_lasting_one_not(gpu):
    gpu(faults=[("counter", 999, 0, 0.0, 2)])
    assert opened("cuda:0").counter()[1] == "ok"
    gpu(faults=[("counter", 999, 0, 0.0, 3)])
    assert opened("cuda:0").counter()[1] == "unknown"
    gpu(faults=[("counter", 4, 0, 0.0, 1)])
    assert opened("cuda:0").counter()[1] == "no_permission"


@pytest.mark.parametrize(
    ("missing", "power", "counter", "calls"),
    [
        ([], "nvml_instant", True, {"fields"}),
        (["counter_field"], "nvml_instant", True, {"fields", "counter"}),
        (["instant"], "nvml_average", True, {"power", "counter"}),
        (["counter", "counter_field"], "nvml_instant", False, {"fields"}),
        (["fields", "counter"], "nvml_average", False, {"power"}),
        (["fields", "power", "counter"], "none", False, set()),
    ],
)
def test_it_falls_back_and_says_to_what(gpu, missing, power, counter, calls):
    gpu(fake.constant(123), latency=0, faults=[always(call, 3) for call in missing])
    seen = opened("cuda:0")
    watts, joules, status = seen.reader()()
    assert (seen.power, seen.source == "nvml_counter") == (power, counter)
    assert status == ("ok" if power != "none" else "not_supported")
    assert watts == (123 if power != "none" else pytest.approx(np.nan, nan_ok=True))
    assert np.isfinite(joules) == counter


# -- the sampler -----------------------------------------------------------------------------------


def test_slow_calls_are_made_less_often(gpu, tmp_path):
    time_ = fake.VirtualTime(tmp_path / "clock")
    for latency, rate in ((0.00017, 20.0), (0.0024, 1 / 0.12), (0.02, 1.0)):
        gpu(clock=str(time_.path), latency=latency)
        time_.set(0.0)
        clock, rows = time_.clock(), []

        def stopped(pause, clock=clock):
            clock.sleep(pause)
            return clock.now() > 60

        sampler.sample(
            opened("cuda:0").reader(),
            lambda *row, rows=rows: rows.append(row),
            stopped,
            clock=clock,
        )
        seen = np.array(rows)
        assert len(seen) / 60 == pytest.approx(rate, rel=0.03)
        assert len(seen) * latency / 60 <= sampler.BUSIEST * 1.01
        assert np.diff(seen[:, 0]).std() > 0.005 or latency > 0.001, (
            "samples keep step with nothing"
        )


def test_the_sampler_follows_the_load_in_a_process_of_its_own(gpu):
    points = fake.square(50, 250, 0.4)
    gpu(points, epoch=time.monotonic(), update=0.02, span=0.02, tick=0.02)
    with sampler.sampling(opened("cuda:0"), rate_hz=100.0, busiest=0.5) as recording:
        time.sleep(1.5)
    seen = recording.columns
    assert (seen["code"] == 0).all() and (np.diff(seen["time_s"]) > 0).all()
    assert len(seen["time_s"]) > 80
    assert set(np.round(seen["power_W"])) >= {50.0, 250.0}
    passed = seen["time_s"][-1] - seen["time_s"][0]
    assert seen["counter_J"][-1] - seen["counter_J"][0] == pytest.approx(150 * passed, rel=0.1)
    assert 0 < seen["cpu_s"][-1] - seen["cpu_s"][0] < 0.5 * passed


def test_a_sampler_that_dies_is_started_again_twice(gpu):
    gpu()
    with sampler.sampling(opened("cuda:0"), rate_hz=50.0) as recording:
        for _ in range(3):
            recording._child.kill()
            recording._child.wait()
            recording.revive()
        assert not recording.alive()
    assert len(recording.columns["time_s"]) >= 3 and np.isfinite(recording.columns["power_W"]).all()


def test_a_lost_gpu_ends_the_sampler_with_its_reason(gpu):
    gpu(faults=[("fields", 15, 8, 0.0, NEVER)])
    with sampler.sampling(opened("cuda:0"), rate_hz=50.0) as recording:
        time.sleep(1.0)
        assert not recording.alive()
    last = recording.columns
    assert WINDOW_STATUS[last["code"][-1]] == "gpu_lost" and np.isnan(last["power_W"][-1])
    assert np.isfinite(last["power_W"][0])


def test_a_gpu_that_is_lost_before_its_sampler_starts_is_said_in_a_sentence(gpu, capfd):
    gpu()
    seen = opened("cuda:0")
    gpu(faults=[always("handle", 15)])
    with sampler.sampling(seen) as recording:
        assert not recording.alive()
    assert not len(recording.columns["time_s"])
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "does not answer: gpu_lost" in said


def test_a_sampler_that_hangs_in_the_driver_is_killed(gpu, monkeypatch):
    gpu()
    monkeypatch.setattr(sampler, "LAST_CALL_S", 0.2)
    with sampler.sampling(opened("cuda:0")) as recording:
        os.kill(recording._child.pid, signal.SIGSTOP)
    assert not recording.alive() and len(recording.columns["time_s"])


def test_it_ends_with_the_process_that_started_it(gpu):
    gpu()
    code = """if True:
        import os; from footprint.measure import sampler
        from footprint.measure.instrument import Absent, Lost, opened
        with sampler.sampling(opened("cuda:0")) as recording:
            print(recording._child.pid, flush=True)
            os._exit(0)
    """
    child = int(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )
    gone, _ = psutil.wait_procs(
        [psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=5
    )
    assert gone or not psutil.pid_exists(child)


def test_a_signal_to_the_group_of_a_run_leaves_its_sampler_alive(gpu):
    gpu()
    code = """if True:
        import signal, time
        from footprint.measure import sampler
        from footprint.measure.instrument import opened
        signal.signal(signal.SIGINT, lambda *_: None)
        with sampler.sampling(opened("cuda:0")) as recording:
            print("ready", flush=True)
            time.sleep(0.5)
            print(recording.alive(), flush=True)
    """
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with run.stdout:
        assert run.stdout.readline() == "ready\n"
        os.killpg(run.pid, signal.SIGINT)
        assert run.stdout.readline() == "True\n"
    assert run.wait() == 0


def test_a_cpu_has_nothing_to_sample():
    with sampler.sampling(opened("cpu")) as recording:
        recording.revive()
    assert set(recording.columns) == set(sampler.COLUMNS)
    assert not any(len(column) for column in recording.columns.values())

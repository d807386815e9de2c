"""A run of a small random model: its windows and steps, and what happens when things go wrong."""

import os
import signal
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from footprint import trace, workload
from footprint.energy import window as energy
from footprint.measure import profile
from footprint.measure.eager import Eager
from footprint.measure.instrument import Clock, NoInstrument
from footprint.measure.window import Setup
from footprint.trace.schema import OPTIONAL_ATTRS
from scripted_engine import Scripted


@pytest.fixture(scope="module")
def request_():
    return workload.request(
        "profile",
        model="llama-24m",
        batches=[1, 2],
        prompt_tokens=[8],
        output_tokens=[5],
        repeats=2,
        window_s=0.05,
        warmup_s=0.0,
        threads=1,
    )


@pytest.fixture(scope="module")
def run(request_):
    said = []
    engine, tree = profile.run(request_, said.append)
    return engine, tree, said


def test_every_phase_of_every_point_and_repeat_has_a_window(run):
    table = trace.frame(run[1]["windows"].to_dataset())
    assert list(table["phase"][:2]) == ["idle_bare", "idle_loaded"]
    work = table[table["batch"] > 0]
    assert (work.groupby(["phase", "batch", "repeat"]).size() == 1).all() and len(work) == 3 * 2 * 2
    assert ((work["stop_s"] - work["start_s"]) >= 0.05).all()
    assert (np.diff(table["start_s"]) > 0).all(), "windows follow each other"


def test_tokens_are_counted_a_phase(run):
    table = trace.frame(run[1]["windows"].to_dataset())
    each = (table["tokens"] / table["iterations"]).groupby([table["phase"], table["batch"]]).first()
    assert each["prefill"].to_dict() == {1: 8, 2: 16}
    assert each["decode"].to_dict() == {1: 4, 2: 8}
    assert each["generate"].to_dict() == {1: 5, 2: 10}


def test_every_step_has_a_time_and_steps_fill_their_window(run):
    windows, steps = (trace.frame(run[1][name].to_dataset()) for name in ("windows", "steps"))
    count = steps.groupby("window")["step_s"].agg(["size", "sum"]).join(windows)
    per = count["phase"].map({"prefill": 1, "decode": 4, "generate": 5})
    assert (count["size"] == per * count["iterations"]).all()
    assert (count["sum"] <= count["stop_s"] - count["start_s"]).all()
    assert (steps["step_s"] > 0).all()


def test_a_machine_without_instrument_has_no_energy_and_says_so(run):
    derived = energy.windows(run[1])
    assert run[1].attrs["energy_source"] == "none"
    assert np.isnan(derived["energy_J"]).all()
    assert set(derived["energy_status"].values) <= {"not_supported", "disturbed"}


def test_the_run_says_what_it_was(run, request_):
    _, tree, said = run
    assert tree.attrs["threads"] == 1 and tree.attrs["device"].endswith("-1t")
    assert tree.attrs["weights"] == "random" and tree.attrs["parameters"] == 24407712
    assert tree.attrs["read_bandwidth_GBps"] > 0 and tree.attrs["matmul_GFLOPs"] > 0
    assert said[0].startswith("loading llama-24m") and "s left" in said[-1]


def test_random_weights_have_no_answers(run, request_):
    assert profile.answers(run[0], request_ | {"answers": 2}) == []


def test_out_of_memory_is_a_row_and_larger_points_are_not_tried(run, request_, monkeypatch):
    def too_small(engine, phase, point, seed):
        if point["batch"] >= 2:
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return real(engine, phase, point, seed)

    real = Eager.iteration
    monkeypatch.setattr(Eager, "iteration", too_small)
    asked = request_ | {"batches": [1, 2, 4], "repeats": 1}
    rows = [window for window, _ in profile.measured(run[0], asked, Setup(), lambda line: None)]
    status = {(row["batch"], row["phase"]): (row["status"], row["reason"]) for row in rows}
    assert {state for (batch, _), (state, _) in status.items() if batch == 1} <= {"ok", "disturbed"}
    larger = {key: value for key, value in status.items() if key[0] > 1}
    tried = [batch for (batch, _), (state, _) in larger.items() if state == "oom"]
    assert {state for state, _ in larger.values()} == {"oom", "skipped"} and tried
    for (batch, phase), (state, reason) in larger.items():
        assert reason.startswith("Ran out of memory" if state == "oom" else "Not tried: ")
        assert ("memory here" in reason) == (state == "skipped" and batch in tried), (batch, phase)


def test_a_probe_without_room_is_the_end_of_the_run_and_its_reason(request_, monkeypatch, tmp_path):
    def full(engine):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.\nSee ...")

    monkeypatch.setattr(Eager, "probe", full)
    _, tree = profile.run(request_, lambda line: None)
    run = trace.load(trace.save(tree, tmp_path / "run.nc"))
    assert run.attrs["status"] == "oom" and np.isnan(run.attrs["read_bandwidth_GBps"])
    assert "ran out of memory (CUDA out of memory. Tried" in run.attrs["reason"]
    assert set(run["windows"]["phase"].values) == {"idle_bare", "idle_loaded"}


def test_a_probe_that_fails_otherwise_is_no_full_memory(request_, monkeypatch):
    def broken(engine):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Eager, "probe", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        profile.run(request_, lambda line: None)


def test_all_that_an_error_held_is_free_before_the_next_point(run, request_, monkeypatch):
    seen = []

    def full(engine, phase, point, seed):
        large = torch.zeros(1)
        seen.append(weakref.ref(large))
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(Eager, "iteration", full)
    monkeypatch.setattr(
        Eager, "free_bytes", lambda engine: seen.append(seen[0]()) if seen else 1e12
    )
    point = workload.windows(request_)[0]
    window, _ = profile.attempt(run[0], request_, Setup(), point, "prefill", set())
    assert window["status"] == "oom" and len(seen) == 2 and seen[1] is None


def test_a_point_that_cannot_fit_is_not_even_tried(run, request_, monkeypatch):
    monkeypatch.setattr(Eager, "free_bytes", lambda engine: 1e3)
    point = workload.windows(request_)[0]
    window, steps = profile.attempt(run[0], request_, Setup(), point, "decode", set())
    assert window["status"] == "skipped" and steps == []
    assert window["reason"].startswith("Not tried") and "are free" in window["reason"]


@pytest.mark.parametrize(
    ("phase", "lengths", "why"),
    [
        ("prefill", (4, 128, 32), ""),
        ("decode", (4, 128, 32), "Not tried: decode ran out of memory here."),
        ("generate", (4, 128, 32), "Not tried: decode ran out of memory here."),
        (
            "decode",
            (8, 128, 32),
            "Not tried: decode ran out of memory at batch 4, prompt 128, output 32.",
        ),
        ("decode", (8, 64, 32), ""),
        (
            "prefill",
            (16, 512, 32),
            "Not tried: prefill ran out of memory at batch 8, prompt 512, output 32.",
        ),
    ],
)
def test_what_follows_from_a_full_memory(phase, lengths, why):
    full = [("decode", (4, 128, 32)), ("prefill", (8, 512, 32))]
    assert profile._hopeless(phase, lengths, full) == why


def test_an_unfused_kernel_on_a_gpu_is_told_once_a_phase():
    told, gpu = set(), Setup(SimpleNamespace(present=True))
    row = {"phase": "decode", "attention_backend": "math"}
    assert profile._unfused(row, Setup(), told) == "" and not told
    said = profile._unfused(row, gpu, told)
    assert said.startswith("In decode, attention runs on torch's unfused kernel (math)")
    assert profile._unfused(row, gpu, told) == ""
    assert profile._unfused(row | {"phase": "prefill"}, gpu, told).startswith("In prefill")
    fused = {"phase": "generate", "attention_backend": "efficient, repeated"}
    assert profile._unfused(fused, gpu, told) == profile._unfused({"phase": "x"}, gpu, told) == ""


def test_every_measured_window_names_its_kernel_of_attention(run):
    table = trace.frame(run[1]["windows"].to_dataset())
    assert set(table.loc[table["batch"] > 0, "attention_backend"]) == {"cpu_flash"}
    assert set(table.loc[table["batch"] == 0, "attention_backend"]) == {""}


class Noted(Scripted):
    """An engine that notes what it is asked for; batch 4 does not fit, nothing takes time."""

    def __init__(self, request, clock):
        super().__init__(request)
        self.asked, self.clock = [], clock

    def iteration(self, phase, point, seed):
        if point["batch"] >= 4:
            raise MemoryError
        self.asked.append((phase, point["batch"], point["prompt_tokens"], point["output_tokens"]))

        def once():
            self.clock.sleep(0.02 * point["output_tokens"])
            return [0.02] * point["output_tokens"]

        return once


class Board(NoInstrument):
    """A GPU that is always steady."""

    present = True


def noted(request_, **asked):
    """An engine on a virtual clock, and what it is measured with."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    clock = Clock(lambda: now[0], sleep, lambda: now[0])
    request = request_ | {"window_s": 5.0, "output_tokens": [65], **asked}
    return Noted(request, clock), request, Setup(Board("cuda:0"), clock=clock)


def test_a_gpu_is_heated_at_a_middle_batch_that_fits_and_a_processor_is_not(request_):
    asked = {"batches": [1, 2, 4, 8, 16], "prompt_tokens": [8, 32]}
    engine, request, setup = noted(request_, **asked)
    found = profile.heat(engine, request, setup, lambda line: None)
    assert engine.asked == [("decode", 2, 32, 65)] and 60 <= found["soak_s"] < 63
    assert found["soak_drift"] == pytest.approx(0)
    assert set(found) <= set(OPTIONAL_ATTRS)
    quiet = lambda line: None  # noqa: E731
    assert profile.heat(engine, request | {"quick": True}, setup, quiet) == {}
    assert profile.heat(engine, request, Setup(), quiet) == {}


def test_what_runs_before_a_window_is_short_and_runs_once(request_):
    """A warm-up leads into the first window of a shape; a lead of few tokens into the others."""
    engine, request, setup = noted(request_, batches=[1])
    rows = [row for row, _ in profile.measured(engine, request, setup, lambda line: None)]
    before = np.diff([0.0, *(row["stop_s"] for row in rows)])
    before -= [row["stop_s"] - row["start_s"] for row in rows]
    assert [row["warmup_s"] > 0 for row in rows] == [True] * 3 + [False] * 3
    assert np.allclose(before[3:], 0.54, atol=0.01), "three times nine tokens, not 65"
    assert {tokens for _, _, _, tokens in engine.asked} == {9, 65}


def test_other_errors_are_not_swallowed(run, request_, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Eager, "iteration", broken)
    point = workload.windows(request_)[0]
    with pytest.raises(RuntimeError, match="a bug"):
        profile.attempt(run[0], request_, Setup(), point, "decode", set())


@pytest.mark.slow
def test_the_keyboard_stops_it_with_everything_kept(request_, monkeypatch):
    real, calls = Eager.iteration, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(Eager, "iteration", interrupted)
    _, tree = profile.run(request_, lambda line: None)
    assert tree.attrs["status"] == "interrupted" and tree.attrs["reason"]
    assert tree["windows"].sizes["window"] == 2 + 3


# -- Ctrl-C once between windows, twice at once ----------------------------------------------------


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_noted_and_raised_between_windows():
    with profile.patient() as between:
        between()
        press()
        seen = "the window went on"
        with pytest.raises(KeyboardInterrupt):
            between()
    assert seen


def test_the_second_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt), profile.patient():
        press()
        press()


def test_afterwards_all_is_as_before():
    before = signal.getsignal(
        signal.SIGINT
    )  # of a job in the background it is to ignore the signal
    with profile.patient():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_thread_has_nothing_to_listen_to():
    found = []

    def work():
        with profile.patient() as between:
            found.append(between())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]

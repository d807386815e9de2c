"""What a run's own page shows, for a run of each kind."""

import json

import pytest
import xarray as xr

from footprint import predict, trace, workload
from footprint.charts import runpage
from footprint.trace.schema import ATTRS

EMPTY = {str: "", int: 0, float: float("nan")}
RUN = {
    name: EMPTY[cast] for name, (cast, _) in ATTRS.items() if name not in ("schema_version", "kind")
}
RUN |= {
    "status": "ok",
    "model": "llama-24m",
    "energy_source": "none",
    "request": json.dumps({"seed": 3, "model": "x"}),
}


def measured(samples=(), kernel="") -> xr.DataTree:
    rows = [
        {"phase": "idle_bare", "lengths": "idle", "status": "ok", "start_s": 0.0, "stop_s": 1.0}
    ]
    for repeat, seconds in enumerate((1.0, 3.0)):
        rows.append(
            {
                "phase": "decode",
                "batch": 2,
                "prompt_tokens": 8,
                "output_tokens": 5,
                "repeat": repeat,
                "iterations": 4,
                "tokens": 32,
                "lengths": "grid",
                "status": "ok",
                "start_s": 1.0,
                "stop_s": 1.0 + seconds,
                "peak_memory_B": 2.0**30,
                "attention_backend": kernel,
            }
        )
    steps = {"window": [1] * 3000, "step_s": [0.001 * (1 + i % 7) for i in range(3000)]}
    columns = {"time_s": [t for t, _ in samples], "power_W": [p for _, p in samples]}
    return trace.new("measured", RUN, rows, columns, steps)


@pytest.fixture
def modelled():
    return predict.trace(workload.request("predict", model="llama-7b", gpu="t4", batches=[1, 64]))


def test_the_account_shows_what_is_known_and_asked(modelled):
    page = runpage.account(measured())
    assert "seed 3, model x" in page and "llama-24m" in page
    assert "load average" not in page, "what is NaN is left out"
    assert "Llama" in runpage.account(modelled) or "llama-7b" in runpage.account(modelled)


@pytest.mark.parametrize(
    ("kernel", "warned"), [("math", True), ("cpu_math", False), ("efficient, repeated", False)]
)
def test_the_page_names_the_kernel_of_attention_and_says_if_it_is_unfused(kernel, warned):
    page, table = (
        show(measured(kernel=kernel)) for show in (runpage.account, runpage.windows_table)
    )
    assert f"decode: {kernel}" in page and (">attention<" in table and kernel in table)
    assert ("unfused kernel" in page) == warned


def test_a_run_that_does_not_know_its_kernel_says_nothing_of_it():
    assert "attention kernels" not in runpage.account(measured())
    assert ">attention<" not in runpage.windows_table(measured())


def test_the_table_of_a_measured_run_has_medians_and_ranges():
    page = runpage.windows_table(measured())
    for text in (">500<", ">250<", ">750<", ">decode<"):
        assert text in page
    assert "idle_bare" not in page


def test_the_table_of_a_modelled_run_has_intervals_and_what_does_not_fit(modelled):
    page = runpage.windows_table(modelled)
    assert ">oom<" in page and "–" in page and ">ok<" in page


def test_steps_are_thinned_and_drawn_a_strip_a_shape():
    chart = runpage.steps(measured()).to_dict()
    (rows,) = chart["datasets"].values()
    assert 0 < len(rows) <= runpage.MOST_STEPS
    assert {row["shape"] for row in rows} == {"batch 2, prompt 8"}


def test_power_is_drawn_or_its_absence_said():
    assert "none" in runpage.power(measured())
    chart = runpage.power(measured([(0.5, 100.0), (2.0, 120.0)])).to_dict()
    assert len(chart["layer"]) == 2


def test_a_modelled_page_draws_only_what_fits(modelled):
    (rows,) = runpage.modelled(modelled).to_dict()["datasets"].values()
    assert {row["batch"] for row in rows} == {1}


def test_answers_are_shown_or_their_absence_said():
    assert "Paris" in runpage.answers([{"task": "qa", "prompt": "Capital?", "answer": "Paris"}])
    assert "say nothing" in runpage.answers([])

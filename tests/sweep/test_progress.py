"""What a person sees: lines, a live table, a plan, a verdict."""

import io
import math

import pytest
from rich.console import Console

from footprint import predict, spec, trace, workload
from footprint.sweep import cost, progress
from footprint.sweep.runner import Run

GRID = spec.grid("CA-QC")
SHORT = {"prompt_tokens": [64], "output_tokens": [32]}


def runs(count=3):
    return [
        Run("profile", workload.request("profile", seed=seed, device="cuda:0"))
        for seed in range(count)
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(math.nan, "?"), (3, "3 s"), (99, "99 s"), (600, "10 min"), (7200, "2.0 h")],
)
def test_lengths_for_people(seconds, said):
    assert progress.length(seconds) == said


def test_lines_where_the_output_is_no_terminal():
    out, (first, second, third) = io.StringIO(), runs()
    with progress.showing([first, second, third], [10.0, 10.0, 20.0], GRID, out) as tell:
        tell("end", first, status="ok", reason="Already there.", seconds=0.0, file="x.nc")
        tell("start", second)
        tell("line", second, line="1/2: batch 1")
        tell("retry", second, reason="The kernel died.")
        tell("end", second, status="ok", reason="", seconds=20.0, joules=3.6e3, file="y.nc")
        tell("start", third)
        tell("line", line="stopping")
        tell("end", third, status="failed", reason="No.", seconds=1.0, joules=math.nan)
    lines = out.getvalue().splitlines()
    assert lines[0] == "  ok: x.nc (Already there.)" and lines[1].endswith("(about 30 s left)")
    assert lines[2] == "  1/2: batch 1" and "tried again" in lines[3] and lines[4] == "  ok: y.nc"
    assert lines[5].startswith("[3/3]")
    assert lines[5].endswith("(about 40 s left)"), "twice as slow as expected"
    assert lines[6] == "  stopping"
    assert lines[7].startswith("  failed: profile") and lines[7].endswith("(No.)")


def test_a_table_where_it_is_one():
    out, (first, second, _) = io.StringIO(), runs()
    console = Console(file=out, force_terminal=True, width=140)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "Console", lambda file: console)
        with progress.showing(runs(), [math.nan] * 3, GRID) as tell:
            tell("start", first)
            tell("line", first, line="3/9: batch 4")
            tell("end", first, status="ok", reason="", seconds=10.0, joules=3.6e6, file="x.nc")
            tell("start", second)
            tell("end", second, status="timeout", reason="Too long.", seconds=4.0, joules=math.nan)
            tell("line", line="stopping")
    text = out.getvalue()
    assert "running" in text or "waiting" in text
    assert "2 of 3 done, 1 timeout; about 7 s left; 3.6e+05 W, 1e+03 Wh, 31 g CO2e so far" in text
    assert "so far (CA-QC 2023: 31 g/kWh)" in text
    assert "timeout. Too long." in text and "stopping" in text


def test_what_is_unknown_is_not_added_up():
    states = [progress.State("a", 5.0, status="ok", seconds=5.0), progress.State("b")]
    said = progress.summary(states, GRID)
    assert said == "1 of 2 done; about 5 s left"


def test_a_plan_in_words():
    asked = [*runs(1), Run("predict", workload.request("predict"))]
    text = progress.plan(asked, cost.costs(asked, GRID, "t4"), GRID)
    lines = text.splitlines()
    assert lines[0].split()[:4] == ["run", "time", "memory", "energy"] and "T4" not in lines[1]
    assert "All is modelled. 2 runs, about" in lines[-1]
    assert "the energy of 1 runs is unknown" in lines[-1]
    assert "g CO2e of electricity (CA-QC 2023: 31 g/kWh)" in lines[-1] and "cannot fit" in lines[-2]


def test_a_plan_without_any_energy_says_so():
    text = progress.plan(runs(2), [cost.Cost(note="No card.")] * 2, GRID)
    unknown = "about 0 s and 2 of unknown time; the energy of 2 runs is unknown."
    assert text.endswith(f"2 runs, {unknown}") and "No card." in text


def test_the_verdict_names_what_failed(tmp_path):
    good, bad, _ = runs()
    outcomes = [
        {"run": good, "status": "ok", "reason": ""},
        {"run": bad, "status": "failed", "reason": "No.", "page": tmp_path / "page.ipynb"},
    ]
    first, second = progress.verdict(outcomes).splitlines()
    assert first == "1 ok, 1 failed of 2 runs"
    assert second.startswith(f"failed       {bad.label}: No. See ")
    assert second.endswith("page.ipynb.")


def test_what_was_found_is_each_point_with_its_interval_and_kind(tmp_path):
    asked = workload.request("predict", model="llama-1b", gpu="t4", batches=[1, 4], **SHORT)
    tree = predict.trace(asked)
    file = trace.save(tree, tmp_path / "run.nc")
    head, first, second, said = progress.found([file], GRID).splitlines()
    assert head.split("  ")[0] == "batch" and "J a token" in head and "mg CO2e a token" in head
    rows = tree["windows"].to_dataset().to_dataframe().set_index(["phase", "batch"])
    prefill, decode = rows.loc["prefill", 4], rows.loc["decode", 4]
    cells = [cell for cell in second.split("  ") if cell.strip()]
    assert [cell.strip() for cell in cells[:3]] == ["4", "64", "32"]
    low_ms, high_ms = 1e3 * prefill["duration_s_low"], 1e3 * prefill["duration_s_high"]
    assert cells[3].strip() == f"{1e3 * prefill['duration_s']:.3g} [{low_ms:.3g}, {high_ms:.3g}]"
    assert cells[4].strip().startswith(f"{1e3 * decode['duration_s'] / 31:.3g} [")
    rate = 4 * 32 / (prefill["duration_s"] + decode["duration_s"])
    joules = (prefill["energy_J"] + decode["energy_J"]) / (4 * 32)
    assert cells[5].strip().startswith(f"{rate:.3g} [")
    assert cells[6].strip().startswith(f"{joules:.3g} [")
    assert cells[7].strip().startswith(f"{joules / 3.6e6 * GRID.g_per_kwh * 1e3:.3g} [")
    assert first.endswith("modelled") and "90 %" in said and "CA-QC 2023: 31 g/kWh" in said


def test_what_was_not_found_is_said(tmp_path):
    damaged, full = tmp_path / "damaged.nc", tmp_path / "full.nc"
    damaged.write_bytes(b"no trace")
    assert progress.found([damaged], GRID).endswith("No point was measured.")
    tree = predict.trace(workload.request("predict", gpu="t4", batches=[1, 512], **SHORT))
    trace.save(tree, full)
    lines = progress.found([damaged, full], GRID).splitlines()
    assert lines[2].endswith("out of memory") and lines[2].count("?") == 5
    assert "damaged.nc is not a trace" in lines[3] and "unknown" not in lines[3]

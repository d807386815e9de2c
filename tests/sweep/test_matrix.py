"""The matrix: products, exclusions, changes, and what is refused."""

import os
import time

import pytest

from footprint import Refused, workload
from footprint.sweep import matrix


def planned(tmp_path, text, name="m", **changes):
    file = tmp_path / "sweep.toml"
    file.write_text(text, encoding="utf-8")
    return matrix.runs(file, name, **changes)


MANY = list(range(1, 3001))
TWO = """
[[m]]
notebook = "predict"
each = { model = ["llama-1b", "llama-7b"], gpu = ["t4", "l4"] }
batches = [1, 2]
"""


def test_lists_multiply_in_order(tmp_path):
    found = planned(tmp_path, TWO)
    assert [(run.request["model"], run.request["gpu"]) for run in found] == [
        ("llama-1b", "t4"),
        ("llama-1b", "l4"),
        ("llama-7b", "t4"),
        ("llama-7b", "l4"),
    ]
    assert all(run.request["batches"] == [1, 2] and run.request["dtype"] == "fp16" for run in found)


def test_a_list_replaces_what_holds_for_the_block(tmp_path):
    found = planned(tmp_path, TWO + 'gpu = "a10"\n')
    assert [run.request["gpu"] for run in found] == ["t4", "l4"] * 2


def test_blocks_of_a_matrix_follow_each_other(tmp_path):
    found = planned(tmp_path, TWO + '[[m]]\nnotebook = "profile"\nlimit_s = 60\n')
    assert [run.notebook for run in found] == ["predict"] * 4 + ["profile"]
    assert (found[-1].limit_s, found[0].limit_s) == (60, matrix.LIMIT_S)
    assert found[-1].request == workload.request("profile")


def test_excluded_combinations_are_left_out(tmp_path):
    found = planned(tmp_path, TWO + 'exclude = [{ model = "llama-7b", gpu = ["t4", "a10"] }]')
    assert [(run.request["model"], run.request["gpu"]) for run in found] == [
        ("llama-1b", "t4"),
        ("llama-1b", "l4"),
        ("llama-7b", "l4"),
    ]


def test_overrides_change_what_they_match_and_nothing_else(tmp_path):
    found = planned(
        tmp_path,
        TWO + 'override = [{ when = { model = "llama-7b" }, batches = [8], dtype = "int8" }]',
    )
    assert [(run.request["batches"], run.request["dtype"]) for run in found] == [
        ([1, 2], "fp16")
    ] * 2 + [([8], "int8")] * 2


def test_a_change_from_outside_holds_for_the_runs_that_know_it(tmp_path):
    found = planned(tmp_path, TWO + '[[m]]\nnotebook = "profile"\n', device="cuda:1", seed=3)
    assert [run.request["seed"] for run in found] == [3] * 5
    assert found[-1].device == "cuda:1" and found[0].device == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[other]]\nnotebook = 'predict'", "there are other"),
        ("m = 3", "no matrix 'm'"),
        ("m = [1, 2]", "no matrix 'm'"),
        ("[[m]]", "notebook of matrix 'm' is None"),
        ("[[m]]\nnotebook = 'train'", "profile or predict"),
        ("[[m]]\nnotebook = 'predict'\neach = { model = 'llama-1b' }", "lists of values"),
        ("[[m]]\nnotebook = 'predict'\neach = { model = [] }", "lists of values"),
        ("[[m]]\nnotebook = 'predict'\nbatch = [1]", "batches"),
        ("[[m]]\nnotebook = 'predict'\nlimit_s = 0", "limit_s"),
        ("[[m]]\nnotebook = 'predict'\nlimit_s = true", "limit_s"),
        ("[[m]]\nnotebook = 'predict'\nexclude = { gpu = 't4' }", "a list of tables"),
        ("[[m]]\nnotebook = 'predict'\nexclude = [{ gpu = 'l4' }]", "matches none"),
        ("[[m]]\nnotebook = 'predict'\nexclude = [{ gpu = 't4' }]", "holds no run"),
        ("[[m]]\nnotebook = 'predict'\noverride = [{ batches = [1] }]", "no `when`"),
        (
            "[[m]]\nnotebook = 'predict'\noverride = [{ when = { gpu = 't5' }, batches = [1] }]",
            "t4",
        ),
        ("[[m]]\nnotebook = 'predict'\n[[m]]\nnotebook = 'predict'", "the same run twice"),
        ("[[m", "cannot be read as TOML"),
        ("[[m]]\nnotebook = []", "is \\[\\]; allowed"),
        ("[[m]]\nnotebook = 'predict'\nlimit_s = 1" + "0" * 400, "limit_s of matrix"),
        ("[[m]]\nnotebook = 'predict'\nlimit_s = 0x1" + "0" * 9000, "a int too large to show"),
        ("[[m]]\nnotebook = 'predict'\nseed = 0x1" + "0" * 9000, "a int too large to show"),
        ("[[m]]\nnotebook = 'predict'\nlimit_s = 1" + "0" * 5000, "cannot be read as TOML"),
        ("[[m]]\nnotebook = 'predict'\nlimit_s = inf", "below 10\\^9"),
        ("[[m]]\nnotebook = 'predict'\nbatches = " + "[" * 2000 + "]" * 2000, "as TOML"),
        ("[[m]]\nnotebook = 'predict'\nout = 'x.nc'", "names its files itself"),
        (
            f"[[m]]\nnotebook = 'predict'\neach = {{ seed = {MANY}, prompt_tokens = {MANY} }}",
            "makes 9,000,000 runs",
        ),
        (
            f"[[m]]\nnotebook = 'profile'\nrepeats = 50000\neach = {{ seed = {MANY[:20]} }}",
            "has 2,000,000 points",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, text, said):
    with pytest.raises(Refused, match=said) as refused:
        planned(tmp_path, text)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(Refused, match="no sweep file"):
        matrix.runs(tmp_path / "none.toml", "quick")


def test_a_sweep_file_is_regular_and_small(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (matrix.MOST_B + 1))
    for place, said in ((tmp_path / "pipe", "no regular"), (tmp_path / "large", "more than")):
        with pytest.raises(Refused, match=said):
            matrix.runs(place, "m")


def test_many_runs_are_planned_in_seconds(tmp_path):
    began = time.monotonic()
    lists = f"{{ seed = {[*range(100)]}, prompt_tokens = {[*range(1, 21)]} }}"
    assert len(planned(tmp_path, f"[[m]]\nnotebook = 'profile'\neach = {lists}")) == 2000
    assert time.monotonic() - began < 10


def test_the_shipped_matrices_are_sound():
    sizes = {
        name: len(matrix.runs("notebooks/sweep.toml", name))
        for name in ("quick", "cpu", "modelled", "paper", "full")
    }
    assert min(sizes.values()) >= 2 and sizes["modelled"] == 6 and sizes["paper"] == 3


def test_the_key_is_of_what_is_asked_not_of_where(tmp_path):
    first, second = (
        planned(tmp_path, '[[m]]\nnotebook = "profile"\n', device=device)[0]
        for device in ("cuda:0", "cuda:1")
    )
    other = planned(tmp_path, '[[m]]\nnotebook = "profile"\nseed = 1\n')[0]
    assert first.key == second.key != other.key

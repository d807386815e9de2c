"""workload: typed parameters, one-sentence refusals, seeded points and lengths."""

import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from footprint import Refused, spec, workload

# Quantiles (10, 25, 50, 75, 90 %) and mean of the 8,819 (code) and 19,366 (conv) requests of Azure.
FULL = {
    ("code", "prompt_tokens"): ([147.0, 578.0, 1469.0, 2744.5, 5187.6], 2047.8),
    ("code", "output_tokens"): ([7.0, 9.0, 13.0, 24.0, 55.0], 27.88),
    ("conv", "prompt_tokens"): ([207.0, 396.0, 1020.0, 1189.0, 2734.5], 1154.7),
    ("conv", "output_tokens"): ([54.0, 85.0, 129.0, 395.0, 424.0], 211.1),
}


def refused(kind="profile", **parameters) -> str:
    with pytest.raises(Refused) as error:
        workload.request(kind, **parameters)
    said = str(error.value)
    assert said.endswith(".") and "\n" not in said and len(said) < 250
    return said


def test_without_parameters_the_defaults_hold():
    profile, predict = workload.request(), workload.request("predict")
    names = ("model", "device", "engine", "batches", "prompt_tokens", "output_tokens")
    defaults = ["smollm2-135m", "cpu", "eager", [1, 4], [64], [32]]
    assert [profile[name] for name in names] == defaults
    assert (predict["model"], predict["gpu"], predict["dtype"]) == ("llama-7b", "t4", "fp16")
    assert predict["batches"] == [1, 2, 4, 8, 16, 32, 64] and predict["prompt_tokens"] == [128, 512]
    for kind, request in (("profile", profile), ("predict", predict)):
        assert workload.request(kind, **request) == request
        assert json.loads(json.dumps(request)) == request


def test_a_default_cannot_be_changed_by_a_caller():
    workload.request()["batches"].append(0)
    assert workload.request()["batches"] == [1, 4]


@pytest.mark.parametrize(
    "value",
    ["[1, 2]", " [1,2] ", "1, 2", [1, 2], (1, 2), ["1", "2"], np.array([1, 2]), range(1, 3)],
)
def test_lists_arrive_in_many_forms(value):
    assert workload.request(batches=value)["batches"] == [1, 2]


def test_text_and_bare_values_are_understood():
    request = workload.request(
        repeats="8", batches=3, prompt_tokens="16", window_s="0.5", seed=np.int64(7), quick="True"
    )
    assert (request["repeats"], request["batches"], request["prompt_tokens"]) == (8, [3], [16])
    assert (request["window_s"], request["seed"], request["quick"]) == (0.5, 7, True)
    assert workload.request(batches=[2, 1, 2])["batches"] == [2, 1]


@pytest.mark.parametrize(
    "device",
    ["cpu", "cuda", "cuda:0", "cuda:11", "GPU-8f3a0c5e-1b2d", "MIG-8f3a0c5e", "MIG-GPU-8f/1/0"],
)
def test_devices_are_named_as_tools_print_them(device):
    assert workload.request(device=device)["device"] == device


@pytest.mark.parametrize("model", ["llama-24m", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_a_model_is_an_id_or_a_hub_name(model):
    assert workload.request(model=model)["model"] == model


def test_a_model_is_a_path_that_is_read_at_once(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "bert"}')
    assert "'bert'" in refused(model=str(path))
    assert "'bert'" in refused(model=str(tmp_path))
    assert "no readable config file" in refused(model="no/such/config.json")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"modle": "x"}, "no parameter named 'modle'; the nearest names are model"),
        ({"device": "tpu"}, "device = 'tpu' is refused; cpu, cuda, cuda:N"),
        ({"device": "cuda:"}, "device"),
        ({"device": 0}, "device = 0"),
        ({"batches": "[0]"}, "batches = '[0]' is refused; whole numbers from 1"),
        ({"batches": [-1]}, "batches = [-1]"),
        ({"batches": []}, "at least one value"),
        ({"batches": "[1, 2"}, "a list like [1, 2]"),
        ({"batches": "[" * 100_000}, "a list like [1, 2]"),
        ({"batches": [1.5]}, "whole numbers"),
        ({"batches": [[1]]}, "whole numbers"),
        ({"batches": {"a": 1}}, "whole numbers"),
        ({"batches": None}, "batches = None"),
        ({"batches": [True]}, "batches = [True]"),
        ({"batches": "[1e400]"}, "whole numbers"),
        ({"batches": 10**30}, "to 1048576"),
        ({"prompt_tokens": 0}, "prompt_tokens = 0"),
        ({"output_tokens": 1}, "prefill makes the first output token and decode the others"),
        ({"repeats": 0}, "repeats = 0"),
        ({"repeats": True}, "repeats = True"),
        ({"repeats": "many"}, "repeats = 'many'"),
        ({"window_s": "nan"}, "window_s = 'nan'"),
        ({"window_s": float("inf")}, "window_s = inf"),
        ({"window_s": 0}, "window_s = 0"),
        ({"warmup_s": -1}, "warmup_s = -1"),
        ({"warmup_s": True}, "warmup_s = True"),
        ({"quick": "perhaps"}, "quick = 'perhaps'"),
        ({"quick": 1}, "quick = 1"),
        ({"engine": "graphs"}, "allowed is eager or compiled"),
        ({"dtype": "fp8"}, "auto or fp32 or fp16 or bf16"),
        ({"weights": "good"}, "auto or random or trained"),
        ({"model": "llama-9b"}, "llama-7b"),
        ({"model": "../x/y"}, "no model named '../x/y'"),
        ({"model": ""}, "no model named ''"),
        ({"model": "z" * 5000}, "org/name"),
        ({"seed": -1}, "seed = -1"),
        ({"azure": -1}, "azure = -1"),
        ({"answers": 33}, "from 0 to 32"),
        ({"out": "trace.txt"}, "ends in .nc"),
        ({"out": 7}, "out = 7"),
    ],
)
def test_what_profile_refuses(parameters, said):
    assert said in refused(**parameters)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"device": "cpu"}, "no parameter named 'device'"),
        ({"gpu": "t5"}, "no GPU named 't5'; the nearest names are t4"),
        ({"gpu": 4}, "no GPU named '4'"),
        ({"engine": "fast"}, "eager or graphs or serving"),
        ({"model": "some/hub-model"}, "the path of a config.json is allowed too"),
        ({"output_tokens": [2, 1]}, "prefill"),
    ],
)
def test_what_predict_refuses(parameters, said):
    assert said in refused("predict", **parameters)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@drawn(st.sampled_from(["profile", "predict"]), st.data())
def test_any_value_gives_a_request_or_one_sentence(kind, data):
    name = data.draw(st.sampled_from(sorted(workload.PARAMETERS[kind])))
    try:
        request = workload.request(kind, **{name: data.draw(JSON)})
    except Refused as error:
        assert "\n" not in str(error)
    else:
        assert workload.request(kind, **request) == request


def test_values_too_large_to_show_are_refused_by_their_type():
    deep = []
    for _ in range(5000):
        deep = [deep]
    for name in workload.request():
        for value in (deep, 10**5000, -(10**5000)):
            assert "too large to show is refused" in refused(**{name: value})


def test_the_points_of_a_run_are_counted_before_they_are_made():
    assert "1,001,000 points" in refused(azure=1000, repeats=1000, batches=[1])
    many = list(range(1, 101))
    lists = {"batches": many, "prompt_tokens": many, "output_tokens": list(range(2, 102))}
    assert "1,000,000 points" in refused("predict", **lists)


def test_given_finds_what_was_set_and_nothing_else():
    space = {
        "__name__": "__main__",
        "_i1": "x = 1",
        "In": [""],
        "Out": {},
        "exit": sys.exit,
        "open": open,
        "np": np,
        "workload": workload,
        "request": workload.request,
        "Refused": Refused,
        "table": np.zeros(2),
        "model": "llama-24m",
        "batches": "[1, 2]",
        "seed": 3,
    }
    expected = workload.request(model="llama-24m", batches=[1, 2], seed=3)
    assert workload.given(space) == expected
    assert workload.given({**space, "run": expected}) == expected
    assert workload.given({"gpu": "l4"}, "predict")["gpu"] == "l4"


@pytest.mark.parametrize("value", ["x", 1, None, [1], {"a": 1}, True])
def test_given_refuses_what_nobody_knows(value):
    with pytest.raises(Refused, match="'modle'"):
        workload.given({"modle": value})


def test_given_in_a_real_kernel_namespace():
    cells = [
        "batches = [2]; 1 + 1",
        "from footprint import workload; r = workload.given(globals()); print(r['batches'])",
        "r = workload.given(globals()); print(r['model'])",
        "modle = 1; workload.given(globals())",
    ]
    shell = "from IPython.core.interactiveshell import InteractiveShell\n"
    shell += "from traitlets.config import Config\n"
    shell += "config = Config(HistoryManager={'enabled': False})\n"
    shell += "shell = InteractiveShell(config=config)\n"
    shell += f"for cell in {cells!r}: shell.run_cell(cell)\n"
    done = subprocess.run(
        [sys.executable, "-c", shell], capture_output=True, text=True, timeout=60, check=True
    )
    assert "[2]\n" in done.stdout and "smollm2-135m\n" in done.stdout
    assert "Refused: There is no parameter named 'modle'" in done.stdout
    assert "Traceback" not in done.stdout


def test_windows_are_the_product_of_the_lists_and_the_azure_draws():
    request = workload.request(
        batches=[1, 2, 4],
        prompt_tokens=[16, 32],
        output_tokens=[4, 8],
        repeats=3,
        azure=5,
        max_tokens=100,
        seed=9,
    )
    points = workload.windows(request)
    assert len(points) == 3 * (3 * 2 * 2 + 5) and points == workload.windows(request)
    names = ("batch", "prompt_tokens", "output_tokens", "source")
    orders = [
        [tuple(p[name] for name in names) for p in points if p["repeat"] == repeat]
        for repeat in range(3)
    ]
    assert [p["repeat"] for p in points] == sorted(p["repeat"] for p in points)
    grid = {(b, p, o, "grid") for b in (1, 2, 4) for p in (16, 32) for o in (4, 8)}
    draws = [(1, p, o, "azure") for p, o in workload.lengths(5, seed=9, max_tokens=100).tolist()]
    for order in orders:
        assert Counter(order) == Counter(grid) + Counter(draws)
    assert orders[0] != orders[1] != orders[2] != sorted(orders[2])
    assert points != workload.windows({**request, "seed": 10})
    assert json.loads(json.dumps(points)) == points


def test_prompts_are_of_many_tasks_and_lengths():
    rows = workload.prompts()
    tasks = Counter(row["task"] for row in rows)
    assert len(rows) == 32 and len(tasks) == 8 and set(tasks.values()) == {4}
    assert {row["task"] for row in workload.prompts(8)} == set(tasks)
    assert all(row["words"] == len(row["text"].split()) for row in rows)
    words = [row["words"] for row in rows]
    assert min(words) <= 10 and max(words) >= 400 and len({row["text"] for row in rows}) == 32
    rows[0]["text"] = "changed"
    assert workload.prompts(1)[0]["text"] != "changed"
    with pytest.raises(Refused, match="from 0 to 32"):
        workload.prompts(33)


@pytest.mark.parametrize(("service", "column"), FULL)
def test_the_azure_sample_looks_like_the_whole_trace(service, column):
    quantiles, mean = FULL[service, column]
    sample = np.array(
        [int(row[column]) for row in spec.table("azure_lengths") if row["service"] == service]
    )
    assert len(sample) == 500
    np.testing.assert_allclose(
        np.quantile(sample, [0.1, 0.25, 0.5, 0.75, 0.9]), quantiles, rtol=0.05, atol=1
    )
    assert sample.mean() == pytest.approx(mean, rel=0.02)


def test_lengths_are_drawn_from_the_sample():
    table = spec.table("azure_lengths")
    sample = {(int(row["prompt_tokens"]), int(row["output_tokens"])) for row in table}
    pairs = workload.lengths(50, seed=3)
    assert pairs.shape == (50, 2) and pairs.dtype.kind == "i"
    assert {tuple(pair) for pair in pairs.tolist()} <= sample
    assert (pairs == workload.lengths(50, seed=3)).all()
    assert (pairs != workload.lengths(50, seed=4)).any()
    assert (np.minimum(pairs, 64) == workload.lengths(50, seed=3, max_tokens=64)).all()
    assert workload.lengths(0).shape == (0, 2)
    both = workload.lengths(20_000, seed=1)
    means = [FULL[service, "prompt_tokens"][1] for service in ("code", "conv")]
    assert both[:, 0].mean() == pytest.approx(np.mean(means), rel=0.03)
    for wrong in ({"n": -1}, {"n": 1, "max_tokens": 1}):
        with pytest.raises(Refused):
            workload.lengths(**wrong)


@drawn(st.text())
def test_a_slug_is_a_safe_piece_of_a_file_name(text):
    slug = workload.slug(text)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,78}[a-z0-9])?", slug)
    assert workload.slug(slug) == slug


def test_slugs_of_names():
    assert workload.slug("NVIDIA RTX 6000 Ada Generation") == "nvidia-rtx-6000-ada-generation"
    assert workload.slug("../Llama-3.2/1B__x") == "llama-3.2-1b-x"
    assert workload.slug("../..") == "unnamed"


def test_workload_is_light():
    code = "import sys, footprint.workload; "
    code += "print({'torch', 'pandas', 'xarray'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

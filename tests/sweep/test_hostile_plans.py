"""Generated parameters and sweep files, sound and hostile: a plan or one sentence, in seconds."""

import json
import os
import random
import time

import pytest

from footprint import Refused, spec, sweep, workload
from footprint.measure import provenance
from footprint.sweep import progress

LONGEST_S = 10.0
PRICED = 5  # runs of each plan
GRID = spec.grid("US")
pytestmark = pytest.mark.slow


def deep(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


SOUND = {
    "batches": [8, "[1, 2]", "4", [1, 64]],
    "prompt_tokens": [1, "[8, 16]", 2**20],
    "azure": [0, "3", 100],
    "repeats": [1, 2, "3"],
    "window_s": [0.01, "2", 3600],
    "seed": [0, 2**32 - 1, "5"],
    "dtype": ["fp16", "bf16"],
    "quick": ["true", False],
}


def values(chance: random.Random, folder, name: str) -> object:
    """A value that somebody, or something, may give to this parameter."""
    if name in SOUND and chance.random() < 0.6:
        return chance.choice(SOUND[name])
    paths = ["/dev/zero", "/dev/null", "/", str(folder), str(folder / "pipe.json"), "a\0b.json"]
    paths += [str(folder / f"{name}.json") for name in ("good", "bad", "huge", "none")]
    pools = [
        [0, 1, -1, 2, 7, 2**20, 2**31, 2**63, 10**400, 10**5000, -(10**5000)],
        [0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), -float("inf")],
        ["", " ", "x" * 10_000, "\ud800", "ü\n\x1b[31m", "=cmd|' /C calc'!A0", "{{7*7}}", "%s%n"],
        ["[1, 2]", "[" * 5000, "1e400", "nan", "9" * 5000, "[1, 2", "[[]]", "true", "0x10"],
        paths,
        ["t4", "llama-7b", "cpu", "cuda:0", "cuda:9999", "fp16", "eager", "GPU-x", "org/name"],
        [None, True, False, b"1", {}, {"a": 1}, [], [[]], deep(50), deep(5000)],
        [list(range(1, 1000)), list(range(1, 50)), [1, 1, 1], [1, "2", 3.0], (1, 2), {3}],
    ]
    return chance.choice(chance.choice(pools))


@pytest.fixture
def folder(tmp_path):
    """Configs of models, sound, damaged, huge, and a pipe."""
    good = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2}
    good |= {"num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100}
    (tmp_path / "good.json").write_text(json.dumps(good))
    (tmp_path / "huge.json").write_text(json.dumps(good | {"num_hidden_layers": 10**8}))
    (tmp_path / "bad.json").write_text(json.dumps(good)[:-9])
    os.mkfifo(tmp_path / "pipe.json")
    return tmp_path


def plan(runs: list) -> None:
    """Price the first runs and print their plan."""
    few = runs[:PRICED]
    progress.plan(few, sweep.costs(few, GRID, "a10"), GRID)


def test_a_thousand_parameter_sets_give_a_run_or_one_sentence(folder):
    chance, accepted = random.Random(0), 0
    for case in range(1000):
        kind = chance.choice(["profile", "predict"])
        names = [*workload.PARAMETERS[kind], "modle", "out", "", "kind", "gpu"]
        chosen = chance.choices(names, k=chance.randint(1, 3))
        given = {name: values(chance, folder, name) for name in chosen}
        began = time.monotonic()
        try:
            request = workload.request(kind, **given)
        except Refused as refused:
            said = str(refused)
            assert said and "\n" not in said and len(said) < 600, (case, given)
        else:
            accepted += 1
            json.loads(provenance.asked(request))
            plan([sweep.Run(kind, request)])
        assert time.monotonic() - began < LONGEST_S, (case, kind, given)
    assert accepted > 50, "the generator reaches what is sound, too"


PIECES = """
notebook = "profile"
notebook = "predict"
notebook = []
notebook = {}
each = { model = ["llama-1b", "llama-7b"] }
each = { seed = [1, 2], gpu = ["t4", "l4"] }
each = { seed = SEEDS, prompt_tokens = SEEDS }
each = { model = [] }
each = []
each = { "" = [1] }
device = "cpu"
gpu = "t4"
gpu = 4
batches = [1, 2]
batches = DEEP
batches = 0xDIGITS
repeats = DIGITS
limit_s = 1DIGITS
limit_s = -1
limit_s = inf
limit_s = nan
limit_s = 1e400
seed = 1979-05-27T07:32:00Z
seed = true
azure = 1000000
model = "/dev/zero"
model = "\\u0000.json"
out = "x.nc"
dtype = ["fp16"]
exclude = [{ seed = 1 }]
exclude = [{ model = ["llama-1b", [1]] }]
exclude = { seed = 1 }
exclude = [{ nonsense = 1 }]
override = [{ when = { seed = 1 }, repeats = 2 }]
override = [{ when = 3, repeats = 2 }]
override = [{ when = {} }]
a.b.c = 1
[m.x]
[[m]]
[[n]]
[m]
""".strip().splitlines()
LARGE = {"SEEDS": str(list(range(1, 2000))), "DIGITS": "9" * 5000, "DEEP": "[" * 600 + "]" * 600}


def written(chance: random.Random) -> bytes:
    """A sweep file: a matrix of some lines, now and then with damaged bytes."""
    pieces = chance.choices(PIECES, k=chance.randint(0, 6))
    lines = ["[[m]]", chance.choice(PIECES[:2]), *pieces]
    keys = [line.partition(" =")[0] for line in lines]
    if chance.random() < 0.8:  # TOML refuses a key twice
        lines = [line for at, line in enumerate(lines) if keys.index(keys[at]) == at]
    text = "\n".join(lines)
    for name, value in LARGE.items():
        text = text.replace(name, value)
    data = bytearray(text.encode())
    for _ in range(chance.choice([0, 0, 0, 1, 5])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def test_five_hundred_sweep_files_give_a_plan_or_one_sentence(tmp_path):
    chance, accepted, file = random.Random(0), 0, tmp_path / "sweep.toml"
    fixed = [b"", b"\xff", b"m = " + b"[" * 10**5, b"a." * 10**4 + b"a = 1", b'"' * 9999]
    for case in range(500):
        file.write_bytes(fixed[case] if case < len(fixed) else written(chance))
        began = time.monotonic()
        try:
            runs = sweep.runs(file, "m")
        except Refused as refused:
            said = str(refused)
            assert said and "\n" not in said and len(said) < 900, (case, said)
        else:
            accepted += 1
            plan(runs)
        assert time.monotonic() - began < LONGEST_S, (case, file.read_bytes()[:500])
    assert accepted > 50, "the generator reaches what is sound, too"

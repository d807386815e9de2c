"""The parameters of a run, the points it measures, its prompts and lengths; all seeded."""

import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from footprint import Refused, shown, spec

# Registries of `measure`: module and class by name.
ENGINES = {
    "eager": "footprint.measure.eager:Eager",
    "compiled": "footprint.measure.compiled:Compiled",
}
INSTRUMENTS = {  # the name is a pattern of devices
    r"cpu": "footprint.measure.instrument:NoInstrument",
    r"cuda(:\d{1,3})?|(GPU|MIG)-[\w/-]{1,80}": "footprint.measure.nvml:Nvml",
}
MOST = 2**20
MOST_POINTS = 100_000  # of a run, repeats counted
AXES = ("batches", "prompt_tokens", "output_tokens")
SEEDS = 2**32 - 1
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
DEVICES = "cpu, cuda, cuda:N, or the GPU-... or MIG-... name that nvidia-smi -L prints are allowed"
TWO_OUTPUTS = "prefill makes the first output token and decode the others, so "


def _number(parse: Callable, least: float, most: float, what: str) -> Callable:
    """A reader of numbers between two bounds, also as text; bools, NaN and infinity are refused."""

    def read(value):
        try:
            number = math.nan if isinstance(value, bool) else parse(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not least <= number <= most:
            raise ValueError(f"{what} from {least} to {most} are allowed")
        return number

    return read


def _whole(least: int, most: int = MOST, reason: str = "") -> Callable:
    """A reader of whole numbers."""

    def parse(value) -> int:
        return int(value) if isinstance(value, str) else operator.index(value)

    return _number(parse, least, most, f"{reason}whole numbers")


def _list(read_one: Callable) -> Callable:
    """A reader of lists: a sequence, a single value, or their text, as papermill passes it."""

    def read(value) -> list:
        if isinstance(value, str):
            text = value.strip()
            try:
                value = json.loads(text if text.startswith("[") else f"[{text}]")
            except (ValueError, RecursionError):
                raise ValueError("a list like [1, 2] is allowed") from None
        many = isinstance(value, Iterable) and not isinstance(value, dict)
        unique = dict.fromkeys(read_one(item) for item in (value if many else [value]))
        if not unique:
            raise ValueError("a list of at least one value is allowed")
        return list(unique)

    return read


def _one_of(patterns: Iterable[str], allowed: str = "") -> Callable:
    """A reader of a text that matches one of these patterns."""

    def read(value) -> str:
        text = value if isinstance(value, str) else ""
        if not any(re.fullmatch(pattern, text, re.ASCII) for pattern in patterns):
            raise ValueError(allowed or f"allowed is {' or '.join(patterns)}")
        return value

    return read


def _model(or_hub: str) -> Callable:
    """A reader of models: an id of the table, a path of a config.json, perhaps a hub name."""

    def read(value) -> str:
        name = str(value)
        try:
            spec.model(name)
        except KeyError as unknown:
            if not (or_hub and HUB_ID.fullmatch(name)):
                near, too = unknown.args[0].rstrip("."), f"the path of a config.json {or_hub}"
                raise Refused(f"{near}; {too}is allowed too.") from None
        return name

    return read


def _out(value) -> str:
    if not isinstance(value, str | Path) or (str(value) and Path(value).suffix != ".nc"):
        raise ValueError("the path of a file that ends in .nc, or nothing, is allowed")
    return str(value)


_COMMON = {
    "engine": ("eager", _one_of(ENGINES)),
    "prompt_tokens": ([64], _list(_whole(1))),
    "output_tokens": ([32], _list(_whole(2, reason=TWO_OUTPUTS))),
    "seed": (0, _whole(0, SEEDS)),
    "out": ("", _out),
}
PARAMETERS = {
    "profile": {
        "model": ("smollm2-135m", _model(or_hub="or a hub name like org/name ")),
        "device": ("cpu", _one_of(INSTRUMENTS, DEVICES)),
        "dtype": ("auto", _one_of(("auto", "fp32", "fp16", "bf16"))),
        "weights": ("auto", _one_of(("auto", "random", "trained"))),
        "batches": ([1, 4], _list(_whole(1))),
        **_COMMON,
        "azure": (0, _whole(0)),
        "max_tokens": (512, _whole(2)),
        "answers": (0, lambda value: _whole(0, len(spec.table("prompts")))(value)),
        "repeats": (3, _whole(1)),
        "window_s": (1.0, _number(float, 0.01, 3600, "seconds")),
        "warmup_s": (1.0, _number(float, 0, 3600, "seconds")),
        "quick": (False, lambda value: _one_of(("true", "false"))(str(value).lower()) == "true"),
        "threads": (0, _whole(0)),
    },
    "predict": {
        "model": ("llama-7b", _model(or_hub="")),
        "gpu": ("t4", lambda value: spec.gpu(str(value)).id),
        "dtype": ("fp16", _one_of(spec.DTYPE_BYTES)),
        "batches": ([1, 2, 4, 8, 16, 32, 64], _list(_whole(1))),
        **_COMMON,
        "engine": ("eager", _one_of(spec.ENGINES.values())),
        "prompt_tokens": ([128, 512], _COMMON["prompt_tokens"][1]),
        "output_tokens": ([128], _COMMON["output_tokens"][1]),
    },
}


def _accept(name: str, value, read: Callable):
    """The value as its reader returns it; `Refused` says what is allowed."""
    try:
        return read(value)
    except Refused:
        raise
    except KeyError as unknown:
        raise Refused(unknown.args[0]) from None
    except (ValueError, RecursionError) as allowed:
        raise Refused(f"{name} = {shown(value)} is refused; {allowed}.") from None


def request(kind: str = "profile", /, **parameters) -> dict:
    """The parameters of a run of this kind (`profile` or `predict`), typed, with defaults.

    Values may be text, as a shell or papermill passes them: '8', '[1, 2]', and 8 for [8]. Raises
    `Refused` for an unknown name or a malformed value.
    """
    known = PARAMETERS[kind]
    for name in parameters:
        if name not in known:
            raise Refused(spec.nearest("parameter", name, list(known)).args[0])
    found = {
        name: _accept(name, parameters.get(name, value), read)
        for name, (value, read) in known.items()
    }
    if points(found) > MOST_POINTS:
        asked = f"The run has {points(found):,} points, repeats counted"
        raise Refused(f"{asked}; at most {MOST_POINTS:,} are allowed.")
    return found


def points(request: dict) -> int:
    """How many points a run has, repeats counted."""
    grid = math.prod(len(request[name]) for name in AXES)
    return (grid + request.get("azure", 0)) * request.get("repeats", 1)


def given(namespace: dict, kind: str = "profile") -> dict:
    """The request in a notebook's `globals()`; an unknown papermill parameter is refused.

    Ignored are values that no parameter has (modules, functions, arrays), the names of IPython, and
    the request of an earlier call.
    """
    known, parameters = PARAMETERS[kind], {}
    for name, value in namespace.items():
        earlier = isinstance(value, dict) and value.keys() == known.keys()
        plain = value is None or isinstance(value, str | int | float | list | tuple | set | dict)
        own = earlier or name.startswith("_") or name in ("In", "Out")
        if name in known or (plain and not own):
            parameters[name] = value
    return request(kind, **parameters)


def windows(request: dict) -> list[dict]:
    """The points of a run in order: batch, prompt_tokens, output_tokens, source and repeat.

    source: grid or azure. Each repeat has its own order, so that drift spreads over the points.
    """
    axes = [request[name] for name in AXES]
    pairs = lengths(request["azure"], request["seed"], request["max_tokens"]).tolist()
    points = [*itertools.product(*axes, ["grid"]), *((1, *pair, "azure") for pair in pairs)]
    names = ("batch", "prompt_tokens", "output_tokens", "source")
    shuffle = np.random.default_rng(request["seed"]).permutation
    orders = [shuffle(len(points)) for _ in range(request["repeats"])]
    return [
        dict(zip(names, points[index], strict=True), repeat=repeat)
        for repeat, order in enumerate(orders)
        for index in order
    ]


def prompts(n: int | None = None) -> list[dict]:
    """The first `n` rows of `data/prompts.csv`, else all; the first eight are of eight tasks."""
    rows = [dict(row) for row in spec.rows("prompts")]
    return rows if n is None else rows[: _accept("n", n, _whole(0, len(rows)))]


def lengths(n: int, seed: int = 0, max_tokens: int = MOST) -> np.ndarray:
    """Prompt and output tokens (n, 2) of requests, drawn with replacement from the Azure sample.

    max_tokens: longer prompts and longer outputs are cut to it.
    """
    n = _accept("n", n, _whole(0))
    max_tokens = _accept("max_tokens", max_tokens, _whole(2))
    names = ("prompt_tokens", "output_tokens")
    pairs = np.array([[row[name] for name in names] for row in spec.rows("azure_lengths")])
    samples = np.random.default_rng(seed).integers(len(pairs), size=n)
    return np.clip(pairs[samples], [1, 2], max_tokens)


def slug(text: str) -> str:
    """The text as a safe piece of a file name: a-z, 0-9, dot and hyphen, 1 to 80 characters."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:80].rstrip("-.") or "unnamed"

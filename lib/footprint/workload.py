"""What is asked: the parameters of a run, the points it visits, its prompts and its lengths; all of it seeded."""

import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from footprint import Refused, spec

# Who serves what is asked: `measure` opens these by name, each a module and the class in it.
ENGINES = {"eager": "footprint.measure.eager:Eager"}
INSTRUMENTS = {  # by a pattern of the names of devices
    r"cpu": "footprint.measure.instrument:NoInstrument",
    r"cuda(:\d{1,3})?|(GPU|MIG)-[\w/-]{1,80}": "footprint.measure.nvml:Nvml",
}
MOST = 2**20
SEEDS = 2**32 - 1
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
DEVICES = "cpu, cuda, cuda:N, or the GPU-... or MIG-... name that nvidia-smi -L prints are allowed"
TWO_OUTPUTS = "prefill makes the first output token and decode the others, so "


def _number(parse: Callable, least: float, most: float, what: str) -> Callable:
    """A reader of numbers between two bounds, also as text, never a bool; NaN and infinity lie between none."""

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
    """A reader of lists: a sequence, one bare value, or their text (papermill hands over '[1, 2]' as text)."""

    def read(value) -> list:
        if isinstance(value, str):
            text = value.strip()
            try:
                value = json.loads(text if text.startswith("[") else f"[{text}]")
            except (ValueError, RecursionError):
                raise ValueError("a list like [1, 2] is allowed") from None
        many = isinstance(value, Iterable) and not isinstance(value, dict)
        found = dict.fromkeys(read_one(item) for item in (value if many else [value]))
        if not found:
            raise ValueError("a list of at least one value is allowed")
        return list(found)

    return read


def _one_of(patterns: Iterable[str], allowed: str = "") -> Callable:
    """A reader of one word out of a few, or of one that a pattern describes."""

    def read(value) -> str:
        known = patterns if isinstance(value, str) else ()
        if not any(re.fullmatch(pattern, value, re.ASCII) for pattern in known):
            raise ValueError(allowed or f"allowed is {' or '.join(patterns)}")
        return value

    return read


def _model(or_hub: str) -> Callable:
    """A reader of model names: an id of the table, the path of a config.json, and, where wanted, an org/name."""

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
    """The value as its reader understands it, or one sentence on what is allowed."""
    try:
        return read(value)
    except Refused:
        raise
    except KeyError as unknown:
        raise Refused(unknown.args[0]) from None
    except ValueError as allowed:
        raise Refused(f"{name} = {value!r:.80} is refused; {allowed}.") from None


def request(kind: str = "profile", /, **parameters) -> dict:
    """The parameters of a run of this kind (`profile` or `predict`), typed and complete; without any, the defaults.

    Raises `Refused` for an unknown name or a malformed value. Values may be text, as a shell or papermill
    hands them over: '8', '[1, 2]', and 8 for [8].
    """
    known = PARAMETERS[kind]
    for name in parameters:
        if name not in known:
            raise Refused(spec.nearest("parameter", name, list(known)).args[0])
    return {
        name: _accept(name, parameters.get(name, value), read)
        for name, (value, read) in known.items()
    }


def given(namespace: dict, kind: str = "profile") -> dict:
    """The request that a notebook's `globals()` hold, so that an unknown papermill parameter is refused by its name.

    Of the names that are no parameter only plain values (text, numbers, lists, ...) count: what a notebook imports and
    builds does not, nor what IPython keeps there, nor the result of an earlier call when the cell is run again.
    """
    known, found = PARAMETERS[kind], {}
    for name, value in namespace.items():
        earlier = isinstance(value, dict) and value.keys() == known.keys()
        plain = value is None or isinstance(value, str | int | float | list | tuple | set | dict)
        own = earlier or name.startswith("_") or name in ("In", "Out")
        if name in known or (plain and not own):
            found[name] = value
    return request(kind, **found)


def windows(request: dict) -> list[dict]:
    """The points a run measures, in order: batch, prompt_tokens, output_tokens, source (grid or azure) and repeat.

    Each repeat visits all points in an order of its own, so that drift of the machine spreads over the points.
    """
    axes = [request[name] for name in ("batches", "prompt_tokens", "output_tokens")]
    drawn = lengths(request["azure"], request["seed"], max_tokens=request["max_tokens"])
    points = [
        *itertools.product(*axes, ["grid"]),
        *((1, *pair, "azure") for pair in drawn.tolist()),
    ]
    names = ("batch", "prompt_tokens", "output_tokens", "source")
    shuffle = np.random.default_rng(request["seed"]).permutation
    orders = [shuffle(len(points)) for _ in range(request["repeats"])]
    return [
        dict(zip(names, points[index], strict=True), repeat=repeat)
        for repeat, order in enumerate(orders)
        for index in order
    ]


def token_ids(vocab: int, batch: int, length: int, seed: int = 0) -> np.ndarray:
    """Random token ids, int64 of shape (batch, length), for models whose weights are random."""
    sizes = {"vocab": vocab, "batch": batch, "length": length}
    vocab, *shape = [_accept(name, value, _whole(1)) for name, value in sizes.items()]
    return np.random.default_rng(seed).integers(vocab, size=shape, dtype=np.int64)


def prompts(n: int | None = None, task: str | None = None) -> list[dict]:
    """The first `n` rows of `data/prompts.csv` (of one task, where it is named); the first eight are of eight tasks."""
    rows = [dict(row) for row in spec.rows("prompts")]
    if task is not None:
        _accept("task", task, _one_of(dict.fromkeys(row["task"] for row in rows)))
        rows = [row for row in rows if row["task"] == task]
    return rows if n is None else rows[: _accept("n", n, _whole(0, len(rows)))]


def lengths(
    n: int, seed: int = 0, service: str | None = None, max_tokens: int | None = None
) -> np.ndarray:
    """Lengths of `n` requests, (n, 2) of prompt and output tokens, drawn with replacement from the Azure sample.

    service: `conv` (chat) or `code`; None draws from both alike (the sample holds as many rows of each).
    max_tokens: longer prompts and longer outputs are cut to it (None: as they are).
    """
    n, rows = _accept("n", n, _whole(0)), spec.rows("azure_lengths")
    most = MOST if max_tokens is None else _accept("max_tokens", max_tokens, _whole(2))
    if service is not None:
        _accept("service", service, _one_of(dict.fromkeys(row["service"] for row in rows)))
        rows = [row for row in rows if row["service"] == service]
    pairs = np.array([[row["prompt_tokens"], row["output_tokens"]] for row in rows])
    return np.clip(pairs[np.random.default_rng(seed).integers(len(pairs), size=n)], [1, 2], most)


def slug(text: str) -> str:
    """A piece of a file name: lower case, only a-z, 0-9, dot and hyphen, at most 80 characters, never empty."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:80].rstrip("-.") or "unnamed"

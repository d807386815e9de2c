"""What there is: models, GPUs and electricity grids, each a frozen record read from a table in `data/`."""

import csv
import difflib
import math
import re
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.resources import files
from os.path import exists

from footprint import Refused
from footprint.spec import architecture

DTYPE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int4": 0.5}
# Engines that run -> the class of engines that the model describes.
ENGINES = {"eager": "eager", "compiled": "graphs", "server": "serving"}


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of `data/<name>.csv`, every cell a string."""
    with (
        files("footprint")
        .joinpath("data", f"{name}.csv")
        .open(newline="", encoding="utf-8") as lines
    ):
        return tuple(csv.DictReader(lines))


def record(cls, row: dict[str, str]):
    """A frozen record of `cls` from one row of strings, by the types of its fields; `-` leaves the default."""
    read = {bool: lambda text: text == "1", int: int, float: float, str: str}
    given = {}
    for field in fields(cls):
        cell = row.get(field.name)
        if cell is not None and (cell != "-" or field.default is MISSING):
            given[field.name] = read[field.type](cell)
    return cls(**given)


def nearest(what: str, wanted: str, known: list[str]) -> KeyError:
    """The error for an unknown name: one sentence with the nearest known ones."""
    close = difflib.get_close_matches(wanted.lower(), known, n=4, cutoff=0.4)
    offered = (
        f"the nearest names are {', '.join(close)}"
        if close
        else f"some known names are {', '.join(known[:4])}"
    )
    return KeyError(f"There is no {what} named {wanted!r:.80}; {offered}.")


@dataclass(frozen=True)
class Model:
    """A decoder of the LLaMA family: RMS norms, rotary positions, grouped-query attention, a gated feed-forward."""

    id: str
    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    max_position: int = 2048
    rope_theta: float = 10000.0
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norms_per_layer: int = 2
    package: str = "-"
    hub_id: str = "-"

    @property
    def layer_parameters(self) -> int:
        """Weights in the matrices of one decoder layer (norms and biases left out)."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.hidden * (2 * query + 2 * key_value) + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """Number of weights, exact: tied embeddings are counted once."""
        small = self.norms_per_layer * self.hidden
        small += (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        small += self.hidden if self.output_bias else 0
        small += 2 * self.intermediate + self.hidden if self.mlp_bias else 0
        small += 2 * self.head_dim if self.qk_norm else 0
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * (self.layer_parameters + small) + self.hidden

    @property
    def streamed_parameters(self) -> int:
        """Weights that one decode step reads: all layers and the output head, not the input embedding table."""
        return self.parameters - (0 if self.tied else self.vocab * self.hidden)

    def weight_bytes(self, dtype: str = "fp16") -> float:
        """Bytes of all weights in `dtype` (fp32, fp16, bf16, int8 or int4; scales of quantised formats left out)."""
        return self.parameters * bytes_of(dtype)

    def kv_bytes_per_token(self, dtype: str = "fp16") -> float:
        """Bytes of keys and values that one token of one sequence adds to the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_of(dtype)

    def flops(self, new_tokens, past_tokens=0, batch=1, logits=1):
        """Floating-point operations of one forward pass (scalars or arrays that broadcast).

        Matrices: 2 x weights x tokens. Attention scores and values: 4 x heads x head_dim for each pair of a new token
        and a token it may look at (causal). Output head: for `logits` positions of each sequence.
        """
        pairs = new_tokens * past_tokens + new_tokens * (new_tokens + 1) / 2
        matrices = 2 * self.layers * self.layer_parameters * new_tokens
        attention = 4 * self.layers * self.heads * self.head_dim * pairs
        return batch * (matrices + attention + 2 * self.hidden * self.vocab * logits)

    @classmethod
    def from_config(cls, source) -> "Model":
        """A model from a Hugging Face `config.json`: its path, its folder, or the dictionary itself.

        Mistral, Qwen2, Qwen3, Yi, Phi-3 and Gemma count exactly, as LLaMA does. Sliding windows are read as full attention:
        beyond the window KV cache and scores are upper bounds; soft caps of Gemma-2 cost nothing here. Raises `Refused` for
        an architecture whose arithmetic this class does not describe (MoE, encoders, state spaces, vision, ...).
        """
        return cls(**architecture.read(source))


@dataclass(frozen=True)
class GPU:
    """A GPU as published: peak rates, memory, power limit, die and what of its chip changes times or energy.

    What is left out takes a default: idle_W is modelled; memory_family comes from memory_type (HBM... is `hbm`, all else
    `gddr`); node_class_nm is the number in `node`, and 5 where that is smaller or missing. inline_ecc: error correction
    takes bandwidth and capacity of the memory. half_rate_accumulation: sums in fp32 run at half the rate of sums in fp16.
    cache_MB: last-level cache. bf16_tensor_cores: whether tensor cores multiply bf16. probed: rates are what a program
    reached (`predict.gpu_from_probe`), so that tdp_W and die_mm2 may be unknown. Raises `Refused` for impossible values.
    """

    id: str
    name: str
    peak_fp16_tflops: float
    bandwidth_GBps: float
    memory_GiB: float
    memory_type: str
    tdp_W: float
    die_mm2: float
    node: str
    idle_W: float = math.nan
    architecture: str = "unknown"
    release_year: int = 0
    node_class_nm: float = math.nan
    memory_family: str = "-"
    inline_ecc: bool = False
    half_rate_accumulation: bool = False
    cache_MB: float = 6.0
    bf16_tensor_cores: bool = True
    probed: bool = False

    def __post_init__(self):
        if self.memory_family == "-":
            stacked = self.memory_type.upper().startswith("HBM")
            object.__setattr__(self, "memory_family", "hbm" if stacked else "gddr")
        if math.isnan(self.node_class_nm):
            number = re.match(r"\d+(\.\d+)?", self.node)
            object.__setattr__(self, "node_class_nm", max(5.0, float(number[0]) if number else 0))
        if self.memory_family not in ("hbm", "gddr"):
            raise Refused(
                f"memory_family of {self.id} is {self.memory_family!r}; hbm or gddr is allowed."
            )
        needed = ["peak_fp16_tflops", "bandwidth_GBps", "memory_GiB", "node_class_nm"]
        needed += [] if self.probed else ["tdp_W", "die_mm2"]
        for field in needed:
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise Refused(
                    f"{field} of {self.id} is {value}; a finite number above 0 is allowed."
                )
        for field in ("idle_W", "tdp_W", "die_mm2", "cache_MB"):
            value = getattr(self, field)
            if math.isinf(value) or value < 0:
                raise Refused(
                    f"{field} of {self.id} is {value}; 0 or more, or NaN if unknown, is allowed."
                )


@dataclass(frozen=True)
class Grid:
    """The carbon intensity of a zone's electricity in one year."""

    zone: str
    name: str
    country: str
    year: int
    kind: str
    g_per_kwh: float
    source: str
    status: str


def bytes_of(dtype: str) -> float:
    """Bytes of one weight in `dtype`."""
    if dtype not in DTYPE_BYTES:
        raise Refused(f"The dtype {dtype!r} is unknown; allowed are {', '.join(DTYPE_BYTES)}.")
    return DTYPE_BYTES[dtype]


@cache
def _models() -> dict[str, Model]:
    return {row["id"]: record(Model, row) for row in table("models")}


@cache
def _gpus() -> dict[str, GPU]:
    return {row["id"]: record(GPU, row) for row in table("gpus")}


def models() -> list[str]:
    """Ids of the models in the table."""
    return list(_models())


def gpus() -> list[str]:
    """Ids of the cards in the table."""
    return list(_gpus())


def model(name: str) -> Model:
    """The model with this id, or the one that the `config.json` at this path describes."""
    if name in _models():
        return _models()[name]
    if name.endswith(".json") or ("/" in name and exists(name)):
        return Model.from_config(name)
    raise nearest("model", name, models())


def gpu(name: str) -> GPU:
    """The card with this id."""
    if name in _gpus():
        return _gpus()[name]
    raise nearest("GPU", name, gpus())


def label(name: str) -> str:
    """The printed name of a model or GPU by its id; the id itself if no table has it."""
    found = _models().get(name) or _gpus().get(name)
    return found.name if found else name


@cache
def _zones() -> dict[str, dict[str, str]]:
    return {row["zone"]: row for row in table("zones")}


@cache
def _also() -> dict[str, str]:
    return {name: zone for zone, row in _zones().items() for name in row["also"].split("|")}


def zone_name(zone: str) -> str:
    """The printed name of a grid zone by its code; the code itself if no table has it."""
    if zone in _zones():
        return _zones()[zone]["name"]
    return next((item.name for item in _grids().values() if item.zone == zone), zone)


def utc_offset_h(zone: str) -> int:
    """Hours that the standard time of a zone is ahead of UTC (California: -8)."""
    if zone not in _zones():
        known = ", ".join(_zones())
        raise Refused(f"The local time of {zone!r} is unknown; known zones are {known}.")
    return int(_zones()[zone]["utc_offset_h"])


@cache
def _grids() -> dict[tuple[str, int, str], Grid]:
    return {
        (row["zone"], int(row["year"]), row["kind"]): record(Grid, row) for row in table("grids")
    }


@cache
def grid(zone: str, year: int = 2023, kind: str = "lifecycle") -> Grid:
    """The grid of a zone, found by its code (`CA-QC`), its name (`Pacificorp East`) or its country (`France`).

    kind: `lifecycle` (fuel chains included), `direct` (stacks only) or `lifecycle-hourly-mean` (another vintage); the
    last two exist for the paper's three regions in 2023. Raises KeyError with the nearest names.
    """
    wanted = _also().get(zone.lower(), zone).lower()
    found = []
    for field in ("zone", "name", "country"):
        found = found or [
            item for item in _grids().values() if wanted == getattr(item, field).lower()
        ]
    zones = sorted({item.zone for item in found})
    if len(zones) > 1:
        raise KeyError(f"{zone!r} names {len(zones)} zones; choose one of {', '.join(zones)}.")
    if not found:
        known = {
            text.lower()
            for item in _grids().values()
            for text in (item.zone, item.name, item.country)
        }
        raise nearest("grid zone", zone, sorted(known))
    if (zones[0], year, kind) not in _grids():
        offered = sorted((item.year, item.kind) for item in found)
        listed = ", ".join(f"{kind} {year}" for year, kind in offered)
        raise KeyError(f"{zones[0]} has no {kind} value for {year}; there is {listed}.")
    return _grids()[zones[0], year, kind]

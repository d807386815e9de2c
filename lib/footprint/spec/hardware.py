"""GPUs as their makers publish them, and the classes of engines that serve models on them."""

import math
import re
from dataclasses import dataclass
from functools import cache

from footprint import Refused
from footprint.spec.decoders import Model
from footprint.spec.tables import nearest, records

# Engines that run -> the class of engines that the model describes.
ENGINES = {"eager": "eager", "compiled": "graphs", "server": "serving"}


@dataclass(frozen=True)
class GPU:
    """A GPU as published: peak rates, memory, power limit, die, and what else its times depend on.

    idle_W: W at rest. loaded_W: W with a model in its memory and nothing to do, NaN where nobody
    published it. What is left out takes a default: idle_W is modelled; memory_family comes from
    memory_type (HBM... is `hbm`, all else `gddr`); node_class_nm is the number in `node`, and 5
    where that is smaller or missing. inline_ecc: error correction takes bandwidth and capacity of
    the memory. half_rate_accumulation: sums in fp32 run at half the rate of sums in fp16. cache_MB:
    last-level cache. bf16_tensor_cores: whether tensor cores multiply bf16. probed: rates are what
    a program reached (`predict.gpu_from_probe`), so that tdp_W and die_mm2 may be unknown. Raises
    `Refused` for impossible values.
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
    loaded_W: float = math.nan
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
        for field in ("idle_W", "loaded_W", "tdp_W", "die_mm2", "cache_MB"):
            value = getattr(self, field)
            if math.isinf(value) or value < 0:
                raise Refused(
                    f"{field} of {self.id} is {value}; 0 or more, or NaN if unknown, is allowed."
                )


def gpus() -> list[str]:
    """Ids of the GPUs in the table."""
    return list(records(GPU, "gpus"))


def gpu(name: str) -> GPU:
    """The GPU with this id."""
    known = records(GPU, "gpus")
    if name in known:
        return known[name]
    raise nearest("GPU", name, list(known))


@cache
def known() -> dict[str, Model | GPU]:
    """Every model and GPU by id: of the book, and those that only published measurements name."""
    tables = {"measured_models": Model, "measured_gpus": GPU, "models": Model, "gpus": GPU}
    return {name: one for table, cls in tables.items() for name, one in records(cls, table).items()}


def label(name: str) -> str:
    """The printed name of a model or GPU by its id; the id itself if no table has it."""
    return known()[name].name if name in known() else name

"""The schema of a trace: every attribute and variable with its type, units and meaning."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

VERSION = 1
RUN_STATUS = ("ok", "oom", "timeout", "dead_kernel", "gpu_lost", "interrupted", "failed", "skipped")
WINDOW_STATUS = (  # a sample stores the index: only ever append
    "ok",
    "oom",
    "window_too_short",
    "disturbed",
    "throttled",
    "not_supported",
    "no_permission",
    "gpu_lost",
    "driver_mismatch",
    "sampler_died",
    "clock_jump",
    "counter_stuck",
    "counter_backwards",
    "mig",
    "vgpu",
    "shared_gpu",
    "unknown",
    "skipped",  # not tried: it would not fit
)
PHASES = ("idle_bare", "idle_loaded", "prefill", "decode", "generate")
NOTEBOOKS = {"measured": "profile", "modelled": "predict"}  # of a trace that does not name its own
KINDS = tuple(NOTEBOOKS)

# Root attributes: name -> (type, meaning).
ATTRS = {
    "schema_version": (int, "version of this schema"),
    "run_id": (str, "hash of what was asked and of where and when it ran"),
    "request": (str, "what was asked: the notebook's parameters as JSON"),
    "status": (str, f"how the run ended: {', '.join(RUN_STATUS)}"),
    "reason": (str, "one sentence when the status is not ok; else empty"),
    "kind": (str, "measured or modelled"),
    "model": (str, "id of the model"),
    "revision": (str, "where the weights or the shape come from, to the version"),
    "parameters": (int, "number of weights of the model"),
    "weights": (str, "trained or random (random weights change the power: never compare the two)"),
    "device": (str, "id of the GPU, or a slug of the processor's name"),
    "device_name": (str, "name that the device gives of itself"),
    "device_hash": (str, "hash of the device's serial identity; empty when it has none"),
    "engine": (str, "eager, compiled or server; of a modelled run eager, graphs or serving"),
    "dtype": (str, "number format of weights and activations"),
    "attention": (str, "attention implementation"),
    "threads": (int, "CPU threads that the run may use; 0 for a modelled run"),
    "load_average": (float, "one-minute load average before the run; NaN for a modelled run"),
    "memory_GiB": (float, "memory of the device in GiB"),
    "read_bandwidth_GBps": (float, "GB/s that a matrix-vector product read in this run, or NaN"),
    "matmul_GFLOPs": (float, "GFLOP/s of a square matrix product in this run, or NaN"),
    "software": (str, "versions of the packages that took part"),
    "driver": (str, "driver version; empty without a GPU"),
    "git_commit": (str, "commit of the code; empty when unknown"),
    "seed": (int, "seed of token ids, order and samples"),
    "start_utc": (str, "start of the run, UTC, ISO 8601; of a modelled run: empty"),
    "energy_source": (str, "nvml_counter, nvml_instant, nvml_average, model or none"),
    "window_s": (float, "shortest measured window that was asked, in s; NaN for a modelled run"),
}
# Root attributes that become words of a page, and what they may hold: nothing that is Markdown.
WORDS = ("model", "weights", "device", "engine", "dtype")
WORD = re.compile(r"[\w .+/()-]*")
# Root attributes that a trace may lack.
OPTIONAL_ATTRS = {
    "notebook": (str, "the notebook that made the run: profile, predict, serve, ..."),
    "tries": (int, "how often the run was begun; windows of tries that were killed are kept"),
    "soak_s": (float, "how long a GPU was heated before its first window, in s"),
    "soak_drift": (float, "how much longer a step took at the end of that time than at its start"),
    "checksum": (str, "SHA-256 of all other attributes and of all values"),
    "host_cpu": (str, "name of the host's processor"),
    "governor": (str, "CPU frequency governor of the host; unknown where Linux does not tell"),
    "cuda": (str, "CUDA version that torch is built for; empty without"),
    "launch_ms": (float, "milliseconds that Python takes to start one operation, in a probe"),
    "sync_ms": (float, "milliseconds that a decode step takes longer if it is waited for"),
    "probe_sm_clock_MHz": (float, "SM clock at the end of the matrix products; NaN when unknown"),
    "probe_power_W": (float, "power at the end of the matrix products; NaN when unknown"),
    "driver_cuda": (str, "newest CUDA version that the driver serves; unknown where it is silent"),
    "compute_capability": (str, "of the GPU, as in 7.5; unknown where it is silent"),
    "default_power_limit_W": (float, "power limit in W if nobody sets another; NaN when unknown"),
    "persistence_mode": (str, "of the driver: on, off or unknown"),
    "ecc": (str, "error correction of the GPU's memory: on, off or unknown"),
    "pcie": (str, "link of the GPU to its host: newest generation and lanes; unknown when silent"),
    "memory_used_before_GiB": (float, "GPU memory in use before, without the driver's own; or NaN"),
}


class Variable(NamedTuple):
    """A variable of the schema; dtype is U (text), i (whole number) or f (float, may be NaN)."""

    dtype: str
    units: str
    long_name: str
    meaning: str
    interval_level: float | None = None  # of a bound: the probability between it and its partner

    @property
    def attrs(self) -> dict:
        """Attributes of the variable in a file."""
        level = {} if self.interval_level is None else {"interval_level": self.interval_level}
        return {"units": self.units, "long_name": self.long_name, **level}


# Variables: name -> (dtype, units, long name, meaning).
_WINDOWS = {
    "phase": ("U", "", "phase", f"what ran: {', '.join(PHASES)}"),
    "batch": ("i", "1", "batch size", "sequences side by side; 0 when idle"),
    "prompt_tokens": ("i", "1", "prompt length", "tokens of each prompt"),
    "output_tokens": ("i", "1", "output length", "tokens generated for each sequence"),
    "repeat": ("i", "1", "repeat", "number of the repetition of the same point"),
    "iterations": ("i", "1", "iterations", "how often the phase ran inside the window"),
    "tokens": ("i", "1", "tokens", "of the window: prompt tokens in prefill, else new ones"),
    "lengths": ("U", "", "origin of the lengths", "grid, azure (the Azure trace) or idle"),
    "status": ("U", "", "window status", f"one of {', '.join(WINDOW_STATUS)}"),
    "reason": ("U", "", "reason", "one sentence when the status is not ok; else empty"),
}
_MEASURED_WINDOWS = {
    "start_s": ("f", "s", "start", "monotonic clock at the start of the window"),
    "stop_s": ("f", "s", "stop", "monotonic clock at the end of the window"),
    "boot_s": ("f", "s", "length by the other clock", "which also counts suspension: tells a jump"),
    "paused_s": ("f", "s", "pauses", "random, between iterations: no part of the energy"),
    "warmup_s": ("f", "s", "warm-up", "run at the same shape before the window, until settled"),
    "cooled_s": ("f", "s", "cool-down", "waited by earlier versions for the GPU to cool"),
    "compile_s": ("f", "s", "compilation", "before the warm-up; 0 where it had been done before"),
    "attention_backend": (
        "U",
        "",
        "attention kernel",
        "flash, efficient, cudnn, math (unfused)...",
    ),
    "protocol": ("U", "", "protocol", "full, or quick (shorter windows, for CI and laptops)"),
    "counter_start_J": ("f", "J", "energy counter at the start", "NaN when there is no counter"),
    "counter_stop_J": ("f", "J", "energy counter at the end", "NaN when there is no counter"),
    "peak_memory_B": ("f", "B", "peak memory", "largest use of GPU memory, or resident on a CPU"),
    "temperature_start_C": ("f", "degC", "temperature at the start", "NaN when unknown"),
    "temperature_C": ("f", "degC", "temperature", "at the end of the window; NaN when unknown"),
    "sm_clock_start_MHz": ("f", "MHz", "SM clock at the start", "NaN when unknown"),
    "sm_clock_MHz": ("f", "MHz", "SM clock", "at the end of the window; NaN when unknown"),
    "memory_clock_start_MHz": ("f", "MHz", "memory clock at the start", "NaN when unknown"),
    "memory_clock_MHz": ("f", "MHz", "memory clock", "at the end of the window; NaN when unknown"),
    "power_limit_start_W": ("f", "W", "power limit at the start", "enforced; NaN when unknown"),
    "power_limit_W": ("f", "W", "power limit", "enforced at the end; NaN when unknown"),
    "throttle_start": ("i", "1", "throttle reasons at the start", "NVML's bit mask; -1 unknown"),
    "throttle": ("i", "1", "throttle reasons", "NVML's bit mask at the end; -1 when unknown"),
    "other_processes": ("i", "1", "other processes", "that compute on the GPU; -1 when unknown"),
    "cpu_share": ("f", "1", "busy share of the cores", "share of the usable cores that was busy"),
    "foreign_cpu_share": (
        "f",
        "1",
        "foreign CPU share",
        "share that others than runs of ours used",
    ),
    "package_start_J": ("f", "J", "processor energy at the start", "by RAPL; NaN without"),
    "package_stop_J": ("f", "J", "processor energy at the end", "by RAPL, wrap-around removed"),
    "dram_start_J": ("f", "J", "host memory energy at the start", "by RAPL; NaN without"),
    "dram_stop_J": ("f", "J", "host memory energy at the end", "by RAPL, wrap-around removed"),
    "host_status": ("U", "", "host status", "ok, or the window status that explains the NaN"),
    "counter_tick_s": ("f", "s", "counter tick", "period of the counter; NaN when unknown"),
    "power_update_s": ("f", "s", "power update period", "by the sensor card; NaN when unknown"),
    "power_average_s": ("f", "s", "averaging window", "length that one power reading averages"),
    "power_duty": ("f", "1", "duty cycle", "share of the time that the power readings see"),
    "gain": ("f", "1", "gain", "reading over truth by an external meter; 1 when never calibrated"),
    "gain_bound": ("f", "1", "bound of the gain", "largest relative error the gain may have left"),
}
_PAUSES = {
    "window": ("i", "1", "window", "index of the window that the pause lies in"),
    "start_s": ("f", "s", "start", "monotonic clock at the start of the pause"),
    "stop_s": ("f", "s", "stop", "monotonic clock at the end of the pause"),
}
_MODELLED_QUANTITIES = {
    "duration_s": ("f", "s", "duration", "modelled time of one iteration of the phase"),
    "power_W": ("f", "W", "power", "modelled mean power of the GPU"),
    "energy_J": ("f", "J", "energy", "modelled energy of one iteration, the whole batch"),
    "memory_B": ("f", "B", "memory", "modelled peak memory"),
}
_MODELLED_WINDOWS = {
    name + end: (dtype, units, long_name + quantile, meaning + quantile, level)
    for name, (dtype, units, long_name, meaning) in _MODELLED_QUANTITIES.items()
    for end, quantile, level in (
        ("", "", None),
        ("_low", ", 5 % quantile", 0.9),
        ("_high", ", 95 % quantile", 0.9),
    )
}
_SAMPLES = {
    "time_s": ("f", "s", "time", "monotonic clock of the sample"),
    "power_W": ("f", "W", "power", "instantaneous, or as energy_source says; NaN on failure"),
    "counter_J": ("f", "J", "energy counter", "read together with the power; NaN without"),
    "code": ("i", "1", "status of the reading", "index in the list of window statuses, from 0"),
    "cpu_s": ("f", "s", "processor time", "that the sampling process had used so far"),
}
_STEPS = {
    "window": ("i", "1", "window", "index of the window that the step belongs to"),
    "step_s": ("f", "s", "step time", "one decode step of the whole batch, or one prefill"),
}


def _typed(*known: Mapping) -> dict[str, dict[str, Variable]]:
    """The variables of a group: those of all traces, of measured and of modelled ones."""
    return {
        kind: {name: Variable(*entry) for name, entry in entries.items()}
        for kind, entries in zip(("shared", *KINDS), known, strict=True)
    }


SCHEMA = {
    "windows": _typed(_WINDOWS, _MEASURED_WINDOWS, _MODELLED_WINDOWS),
    "samples": _typed({}, _SAMPLES, {}),
    "steps": _typed({}, _STEPS, {}),
    "pauses": _typed({}, _PAUSES, {}),
}
# Variables that earlier traces lack, read as empty, unknown (-1) or NaN; and groups, read as empty.
LATER = {"attention_backend", "compile_s", "pauses"}
DIMS = {"windows": "window", "samples": "sample", "steps": "step", "pauses": "pause"}
NUMPY = {"U": object, "i": np.int64, "f": np.float64}


def variables(group: str, kind: str) -> dict[str, Variable]:
    """Variables that `group` of a trace of this kind holds, by name."""
    return SCHEMA[group]["shared"] | SCHEMA[group][kind]


def notebook(attrs: Mapping) -> str:
    """The notebook that made a run: as its attributes say, else what its kind stood for."""
    return attrs.get("notebook") or NOTEBOOKS[attrs["kind"]]

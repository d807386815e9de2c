"""The schema of a trace, one literal: every attribute and variable with its type, units and meaning."""

import numpy as np

VERSION = 1
RUN_STATUS = ("ok", "oom", "timeout", "dead_kernel", "gpu_lost", "interrupted", "failed", "skipped")
WINDOW_STATUS = (  # a sample stores the place: only ever add at the end
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
)
PHASES = ("idle_bare", "idle_loaded", "prefill", "decode", "generate")
KINDS = ("measured", "modelled")

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
    "weights": (
        str,
        "trained or random (random weights change power: never compare the two unmarked)",
    ),
    "device": (str, "id of the device: a card's id or a slug of the processor's name"),
    "device_name": (str, "name that the device gives of itself"),
    "device_hash": (str, "hash of the device's serial identity; empty when it has none"),
    "engine": (str, "eager, graphs or serving"),
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
    "seed": (int, "seed of token ids, order and draws"),
    "start_utc": (str, "start of the run, UTC, ISO 8601; of a modelled run: empty"),
    "energy_source": (
        str,
        "instrument of the energy: nvml_counter, nvml_instant, nvml_average, model or none",
    ),
    "window_s": (
        float,
        "shortest length that was asked of a measured window, in s; NaN for a modelled run",
    ),
}

# Groups: variable -> (dtype kind, units, long name, meaning). Kinds: U text, i whole number, f float (may be NaN).
_SHARED = {
    "phase": ("U", "", "phase", f"what ran: {', '.join(PHASES)}"),
    "batch": ("i", "1", "batch size", "sequences side by side; 0 when idle"),
    "prompt_tokens": ("i", "1", "prompt length", "tokens of each prompt"),
    "output_tokens": (
        "i",
        "1",
        "output length",
        "tokens generated for each sequence; prefill gives the first one",
    ),
    "repeat": ("i", "1", "repeat", "number of the repetition of the same point"),
    "iterations": ("i", "1", "iterations", "how often the phase ran inside the window"),
    "tokens": (
        "i",
        "1",
        "tokens",
        "tokens that the whole window processed: prompt tokens in prefill, new tokens else",
    ),
    "lengths": (
        "U",
        "",
        "origin of the lengths",
        "grid, azure (drawn from the Azure trace 2023) or idle",
    ),
    "status": ("U", "", "window status", f"one of {', '.join(WINDOW_STATUS)}"),
    "reason": ("U", "", "reason", "one sentence when the status is not ok; else empty"),
}
_MEASURED = {
    "start_s": ("f", "s", "start", "monotonic clock at the start of the window"),
    "stop_s": ("f", "s", "stop", "monotonic clock at the end of the window"),
    "boot_s": (
        "f",
        "s",
        "length by the other clock",
        "by a clock that also counts suspension: tells a clock that jumped",
    ),
    "paused_s": (
        "f",
        "s",
        "pauses",
        "random pauses between iterations inside the window; their idle energy is taken off",
    ),
    "warmup_s": (
        "f",
        "s",
        "warm-up",
        "run at the same shape before the window until times and clocks had settled",
    ),
    "cooled_s": ("f", "s", "cool-down", "waited before the warm-up for the card to cool"),
    "protocol": ("U", "", "protocol", "full, or quick (shorter windows, for CI and laptops)"),
    "counter_start_J": ("f", "J", "energy counter at the start", "NaN when there is no counter"),
    "counter_stop_J": ("f", "J", "energy counter at the end", "NaN when there is no counter"),
    "peak_memory_B": (
        "f",
        "B",
        "peak memory",
        "largest use in the window: of device memory, or resident on a CPU",
    ),
    "temperature_start_C": (
        "f",
        "degC",
        "temperature at the start",
        "of the device; NaN when unknown",
    ),
    "temperature_C": (
        "f",
        "degC",
        "temperature",
        "of the device at the end of the window; NaN when unknown",
    ),
    "sm_clock_start_MHz": ("f", "MHz", "SM clock at the start", "NaN when unknown"),
    "sm_clock_MHz": ("f", "MHz", "SM clock", "at the end of the window; NaN when unknown"),
    "memory_clock_start_MHz": ("f", "MHz", "memory clock at the start", "NaN when unknown"),
    "memory_clock_MHz": ("f", "MHz", "memory clock", "at the end of the window; NaN when unknown"),
    "power_limit_start_W": (
        "f",
        "W",
        "power limit at the start",
        "enforced limit of the device; NaN when unknown",
    ),
    "power_limit_W": (
        "f",
        "W",
        "power limit",
        "enforced limit of the device at the end; NaN when unknown",
    ),
    "throttle_start": (
        "i",
        "1",
        "throttle reasons at the start",
        "NVML's bit mask; -1 when unknown",
    ),
    "throttle": (
        "i",
        "1",
        "throttle reasons",
        "NVML's bit mask at the end of the window; -1 when unknown",
    ),
    "other_processes": (
        "i",
        "1",
        "other processes",
        "of others that compute on the card, at either end; -1 when unknown",
    ),
    "cpu_share": (
        "f",
        "1",
        "busy share of the cores",
        "share of all cores that was busy in the window",
    ),
    "foreign_cpu_share": (
        "f",
        "1",
        "foreign CPU share",
        "share of all cores that other processes used in the window",
    ),
    "package_start_J": (
        "f",
        "J",
        "processor energy at the start",
        "RAPL, summed over packages; NaN without",
    ),
    "package_stop_J": (
        "f",
        "J",
        "processor energy at the end",
        "RAPL, wrap-around taken out; NaN without",
    ),
    "dram_start_J": (
        "f",
        "J",
        "host memory energy at the start",
        "RAPL, summed over packages; NaN without",
    ),
    "dram_stop_J": (
        "f",
        "J",
        "host memory energy at the end",
        "RAPL, wrap-around taken out; NaN without",
    ),
    "host_status": (
        "U",
        "",
        "host status",
        "ok, or why there is no host energy: one of the window statuses",
    ),
    "counter_tick_s": (
        "f",
        "s",
        "counter tick",
        "period in which the counter moves, by the sensor card; NaN unknown",
    ),
    "power_update_s": ("f", "s", "power update period", "by the sensor card; NaN unknown"),
    "power_average_s": (
        "f",
        "s",
        "averaging window",
        "length that one power reading averages, by the sensor card",
    ),
    "power_duty": (
        "f",
        "1",
        "duty cycle",
        "share of the time that the power readings see, by the sensor card",
    ),
    "gain": ("f", "1", "gain", "reading over truth by an external meter; 1 when never calibrated"),
    "gain_bound": (
        "f",
        "1",
        "bound of the gain",
        "largest relative error that the gain may have left",
    ),
}
_MODELLED = {
    f"{name}{bound}": ("f", units, long_name + said, f"{meaning}{said}")
    for name, units, long_name, meaning in (
        ("duration_s", "s", "duration", "modelled time of one iteration of the phase"),
        ("power_W", "W", "power", "modelled mean power of the device"),
        (
            "energy_J",
            "J",
            "energy",
            "modelled energy of the device for one iteration, the whole batch",
        ),
        ("memory_B", "B", "memory", "modelled peak memory"),
    )
    for bound, said in (("", ""), ("_low", ", 5 % quantile"), ("_high", ", 95 % quantile"))
}
SCHEMA = {
    "windows": {"shared": _SHARED, "measured": _MEASURED, "modelled": _MODELLED},
    "samples": {
        "shared": {},
        "measured": {
            "time_s": ("f", "s", "time", "monotonic clock of the sample"),
            "power_W": (
                "f",
                "W",
                "power",
                "instantaneous power, or what energy_source names; NaN where a call failed",
            ),
            "counter_J": ("f", "J", "energy counter", "read together with the power; NaN without"),
            "code": (
                "i",
                "1",
                "status of the reading",
                "its place in the list of window statuses, from 0",
            ),
            "cpu_s": ("f", "s", "processor time", "that the sampling process had used so far"),
        },
        "modelled": {},
    },
    "steps": {
        "shared": {},
        "measured": {
            "window": ("i", "1", "window", "index of the window that the step belongs to"),
            "step_s": ("f", "s", "step time", "one decode step of the whole batch, or one prefill"),
        },
        "modelled": {},
    },
}
DIMS = {"windows": "window", "samples": "sample", "steps": "step"}
NUMPY = {"U": object, "i": np.int64, "f": np.float64}


def variables(group: str, kind: str) -> dict[str, tuple[str, str, str, str]]:
    """Variables that `group` of a trace of this kind holds: name -> (dtype kind, units, long name, meaning)."""
    return SCHEMA[group]["shared"] | SCHEMA[group][kind]

"""The export in MLPerf's proposed field names: measured points only, unknown energies as null with a reason."""

import json

import numpy as np
import pytest

from footprint import Refused
from footprint.sweep import mlperf
from footprint.trace import file as trace
from footprint.trace.schema import ATTRS

RUN = {name: cast() for name, (cast, _) in ATTRS.items() if name not in ("schema_version", "kind")}
RUN |= {"status": "ok", "model": "llama-24m", "device": "t4", "device_name": "Tesla T4"}
FIELDS = {
    "prefill_energy_joules",
    "generation_energy_joules",
    "total_energy_joules",
    "energy_per_token_joules",
    "batch_size",
    "sampling_rate_hz",
    "measurement_method",
    "thermal_stabilization_seconds",
    "output_token_count",
}


def run(source: str):
    """Five seconds each of prefill (100 W), decode (200 W) and generate (160 W), batch 4, twice; 20 Hz."""
    watts = {"prefill": 100.0, "decode": 200.0, "generate": 160.0}
    time_s = np.arange(0, 70, 0.05)
    rows, power = [], np.full(len(time_s), 50.0)
    for i, (phase, k) in enumerate((phase, k) for phase in watts for k in range(2)):
        start = 2.0 + 10 * i
        power[(time_s > start - 1) & (time_s < start + 6)] = watts[phase]
        ends = {
            "start_s": start,
            "stop_s": start + 5,
            "boot_s": 5.0,
            "warmup_s": 3.0,
            "status": "ok",
        }
        shape = {
            "batch": 4,
            "prompt_tokens": 64,
            "output_tokens": 9,
            "iterations": 10,
            "tokens": 360,
        }
        rows.append({"phase": phase, "repeat": k, **shape, **ends})
    samples = {"time_s": time_s, "power_W": power} if source != "none" else {}
    return trace.new("measured", RUN | {"energy_source": source}, rows, samples)


def test_a_measured_point_is_one_record(tmp_path):
    (record,) = json.loads(mlperf.write(run("nvml_instant"), tmp_path / "mlperf.json").read_text())
    assert set(record) > FIELDS
    assert (record["prefill_energy_joules"], record["generation_energy_joules"]) == (
        pytest.approx(50),
        pytest.approx(100),
    )
    assert record["total_energy_joules"] == pytest.approx(80) and record["gpu_power_draw_watts"][
        "mean"
    ] == pytest.approx(160)
    assert record["energy_per_token_joules"]["mean"] == pytest.approx(800 / 360)
    assert record["measurement_method"] == "nvml" and record["sampling_rate_hz"] == pytest.approx(
        20, rel=0.02
    )
    assert (
        record["thermal_stabilization_seconds"] == 3
        and record["scenario"] == "offline"
        and record["reason"] == ""
    )
    assert record["output_token_count"] == 36


def test_what_nobody_measured_is_null_with_a_reason():
    (record,) = mlperf.records(run("none"))
    assert record["prefill_energy_joules"] is None and record["energy_per_token_joules"] == {
        "mean": None,
        "std": None,
    }
    assert record["measurement_method"] is None and record["reason"] == "not_supported"


def test_a_modelled_run_is_refused():
    with pytest.raises(Refused, match="is modelled"):
        mlperf.records(
            trace.new("modelled", RUN, [{"phase": "decode", "batch": 1, "status": "ok"}])
        )

"""The runs at hand: places, list, closure of the phases, and runs of processors."""

import numpy as np
import pytest
import xarray as xr

from footprint import energy, trace
from footprint.trace.schema import ATTRS

RUN = {
    name: cast() for name, (cast, _) in ATTRS.items() if name not in ("schema_version", "kind")
} | {
    "status": "ok",
    "model": "llama-1b",
    "engine": "eager",
    "dtype": "fp16",
    "weights": "random",
    "energy_source": "none",
    "read_bandwidth_GBps": 10.0,
    "matmul_GFLOPs": 90.0,
    "memory_GiB": 23.5,
    "parameters": 7,
}
SHARES = {"prefill": 0.5, "decode": 1.0, "generate": 1.5}  # time of an iteration over a decode's


def measured(seconds: list[float], device="xeon", prompt=128, **attrs) -> xr.DataTree:
    """Two iterations of each phase for each repeat, whose decode takes so many seconds."""
    rows = [
        {
            "phase": phase,
            "batch": 1,
            "prompt_tokens": prompt,
            "output_tokens": 11,
            "repeat": repeat,
            "iterations": 2,
            "status": "ok",
            "lengths": "grid",
            "start_s": 1.0,
            "stop_s": 1.0 + 2 * share * each,
        }
        for repeat, each in enumerate(seconds)
        for phase, share in SHARES.items()
    ]
    return trace.new("measured", RUN | {"device": device} | attrs, rows)


def modelled() -> xr.DataTree:
    row = {"phase": "decode", "batch": 1, "status": "ok", "lengths": "grid", "duration_s": 1.0}
    return trace.new("modelled", RUN | {"device": "t4", "energy_source": "model"}, [row])


@pytest.fixture
def gathered(tmp_path):
    """A function that gathers committed traces, and others of this machine."""

    def gather(*committed: xr.DataTree, local=()) -> xr.Dataset:
        for folder, trees in (("runs", committed), ("local", local)):
            for index, tree in enumerate(trees):
                trace.save(tree, tmp_path / folder / f"{index}.nc")
        return energy.gather_runs(tmp_path)

    return gather


def test_local_runs_are_told_from_committed_ones(gathered):
    data = gathered(modelled(), local=[measured([1.0])])
    places = dict(zip(data["device"].values, data["place"].values, strict=True))
    assert places == {"t4": "committed", "xeon": "this machine"}


def test_the_list_has_a_row_a_run(gathered):
    table = energy.list_runs(gathered(measured([1.0]), modelled()))
    assert sorted(table["windows"]) == [1, 3] and "run status" in table


def test_closure_compares_the_parts_with_the_whole(gathered):
    table = energy.closure(gathered(measured([1.0, 2.0])))
    assert table["closure"].to_numpy() == pytest.approx([1.0, 1.0])
    assert list(table["repeat"]) == [0, 1] and set(table["place"]) == {"committed"}


def test_closure_leaves_disturbed_windows_out(gathered):
    data = gathered(measured([1.0, 2.0]))
    disturbed = data.assign(status=data["status"].where(data["repeat"] == 0, "disturbed"))
    assert list(energy.closure(disturbed)["repeat"]) == [0]


def test_processors_have_the_rate_of_their_decode_and_its_range(gathered):
    runs = [measured([2.0, 4.0, 2.5]), measured([9.0], prompt=512)]
    table = energy.processors(gathered(*runs))
    (row,) = table.to_dict("records")
    assert (row["prompt_tokens"], row["output_tokens"]) == (128, 11)
    assert (row["time_s"], row["tokens_per_s"]) == pytest.approx((2.5, 4.0))
    assert (row["least"], row["most"]) == pytest.approx((2.5, 5.0))
    assert (row["bandwidth"], row["matmul"], row["parameters"]) == (10.0, 90.0, 7)


def test_engines_and_weights_of_a_processor_are_runs_of_their_own(gathered):
    runs = [measured([2.0]), measured([1.0], engine="compiled"), measured([3.0], weights="trained")]
    table = energy.processors(gathered(*runs)).set_index(["engine", "weights"])
    assert table["time_s"].to_dict() == {
        ("eager", "random"): 2.0,
        ("compiled", "random"): 1.0,
        ("eager", "trained"): 3.0,
    }
    assert table["compile_s"].isna().all()


def test_a_gpu_is_no_processor_though_no_table_knows_it(gathered):
    runs = [measured([2.0]), measured([2.0], device="homemade-9000", device_hash="board")]
    assert list(energy.processors(gathered(*runs))["device"]) == ["xeon"]


def test_without_runs_all_is_empty(gathered):
    data = gathered()
    assert data.sizes["window"] == len(energy.list_runs(data)) == 0
    assert len(energy.closure(data)) == len(energy.processors(data)) == 0
    data = gathered(modelled())
    assert len(energy.closure(data)) == len(energy.processors(data)) == 0
    assert np.isnan(data["energy_J"]).all()

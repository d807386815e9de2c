"""The points Dataset: what it holds, what it fills in, what it refuses."""

import numpy as np
import pytest
import xarray as xr

from footprint import Refused, trace
from footprint.trace import points

AXES = {
    "model": ["llama-1b"],
    "gpu": ["t4", "a100"],
    "engine": ["eager"],
    "batch": [1, 4],
    "prompt": [64],
    "output": [1, 11],
}
SD = {f"{name}_{end}_sd": 0.1 for name in points.BOUNDED for end in ("low", "high")}
VALUES = SD | {
    "time_s": 2.0,
    "energy_J": np.nan,
    "idle_W": [9.0, 50.0],
    "evidence": "measured",
    "status": "ok",
    "dtype": "fp16",
    "weights": "trained",
    "place": "committed",
}


def build(**changes) -> xr.Dataset:
    return points.build_points(AXES, VALUES | changes)


def test_the_room_hands_on_the_builder_and_the_tokens():
    assert trace.build_points is points.build_points and trace.phase_tokens is points.phase_tokens


def test_the_dataset_is_what_the_literal_describes():
    data = build()
    assert set(data.data_vars) == set(points.VALUES)
    assert set(data.coords) == {*points.DIMS, *points.LABELS}
    for name, (dims, units, meaning) in points.VALUES.items():
        assert data[name].dims == dims
        assert data[name].attrs == {"units": units, "long_name": meaning}
    assert list(data["phase"].values) == ["prefill", "decode"]
    assert (data["time_s"] == 2).all() and (data["gain_sd"] == 0).all()


def test_generated_tokens_are_batch_times_output():
    assert build()["generated"].values.tolist() == [[1, 11], [4, 44]]


def test_the_first_token_belongs_to_prefill():
    tokens = points.phase_tokens(build())
    assert tokens.dims == ("batch", "prompt", "output", "phase")
    assert tokens.sel(phase="prefill").values.ravel().tolist() == [64, 64, 256, 256]
    assert tokens.sel(phase="decode").values.ravel().tolist() == [0, 10, 0, 40]


def test_labelled_arrays_are_put_in_order_by_their_labels():
    time_s = xr.DataArray(
        [[1.0, 3.0], [2.0, 4.0]], {"phase": ["prefill", "decode"], "gpu": ["t4", "a100"]}
    )
    data = build(time_s=time_s)
    assert data["time_s"].dims == points.DIMS
    assert (data["time_s"].sel(gpu="a100", phase="decode") == 4).all()
    with pytest.raises(Refused, match="time_s does not fit the axes"):
        build(time_s=time_s.assign_coords(gpu=["t4", "h100"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time_s": -1.0}, "time_s holds -1.0"),
        ({"energy_J": np.inf}, "energy_J holds inf"),
        ({"time_s_low_sd": -0.1}, "time_s_low_sd holds -0.1"),
        ({"time_s_high_sd": np.nan}, "time_s has a value without its deviation time_s_high_sd"),
        ({"evidence": "guessed"}, "evidence holds 'guessed'"),
        ({"evidence": "not run"}, "time_s has a number at a point that was not run"),
        ({"status": "fine"}, "status holds 'fine'"),
        ({"idle_W": [1.0, 2.0, 3.0]}, r"idle_W does not fit the axes of the points \(gpu 2\)"),
        ({"watts": 3.0}, "no variable 'watts'"),
    ],
)
def test_what_is_unsound_is_refused_in_a_sentence(change, said):
    with pytest.raises(Refused, match=said):
        build(**change)


def test_a_variable_that_is_missing_or_misshapen_is_named():
    with pytest.raises(Refused, match="The variable idle_W of the points is missing"):
        points.build_points(AXES, {name: VALUES[name] for name in VALUES if name != "idle_W"})
    with pytest.raises(Refused, match="dtype of the points is missing"):
        points.check_points(build().drop_vars("dtype"))
    with pytest.raises(Refused, match="idle_W has dimensions"):
        points.check_points(build().assign(idle_W=3.0))
    with pytest.raises(Refused, match="batch holds 0"):
        points.build_points(AXES | {"batch": [0, 1]}, VALUES)
    with pytest.raises(Refused, match="phase is"):
        points.check_points(build().isel(phase=[1, 0]))


def test_a_point_without_memory_keeps_its_place_without_numbers():
    data = build(time_s=np.nan, status="oom")
    assert (data["status"] == "oom").all() and np.isnan(data["time_s"]).all()

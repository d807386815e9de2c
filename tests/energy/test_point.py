"""From windows to points: budgets become intervals, kinds of runs never mix, GPUs alone count."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr, ndtri, stdtrit

import scripted_loads as loads
from footprint import energy, trace
from footprint.trace import file
from footprint.trace.schema import ATTRS

RUN = {
    name: cast() for name, (cast, _) in ATTRS.items() if name not in ("schema_version", "kind")
} | {
    "status": "ok",
    "model": "llama-1b",
    "device": "t4",
    "device_hash": "board-1",
    "engine": "eager",
    "dtype": "fp16",
    "weights": "trained",
    "energy_source": "nvml_instant",
}
WINDOW_S, SLOT_S = 5.0, 6.0


def row(phase="decode", batch=1, repeat=0, **given) -> dict:
    known = {"phase": phase, "batch": batch, "repeat": repeat, "prompt_tokens": 64}
    known |= {"output_tokens": 11, "iterations": 10, "tokens": 100, "status": "ok"}
    return known | {"lengths": "grid"} | given


def measured(rows: list[dict], watts=200.0, sensor=loads.SENSOR, steps=(), **attrs) -> xr.DataTree:
    """A measured trace at constant power: windows in a row, of 5 s unless told.

    steps: step times of the first window.
    """
    placed = []
    for index, given in enumerate(rows):
        start = 1 + index * SLOT_S
        ends = {"start_s": start, "stop_s": start + given.pop("length_s", WINDOW_S)}
        ends["boot_s"] = ends["stop_s"] - ends["start_s"]
        placed.append(sensor | ends | given)
    time_s = np.arange(0, 2 + len(rows) * SLOT_S, 0.05)
    samples = {"time_s": time_s, "power_W": np.full(len(time_s), watts)}
    taken = {"window": np.zeros(len(steps), int), "step_s": list(steps)}
    return file.new("measured", RUN | attrs, placed, samples, taken)


def modelled(seconds=1.0, **attrs) -> xr.DataTree:
    window = row(iterations=1)
    for end, factor in (("", 1.0), ("_low", 0.8), ("_high", 1.25)):
        window |= {f"duration_s{end}": seconds * factor, f"energy_J{end}": 50 * seconds * factor}
    attrs = {"device_hash": "", "energy_source": "model"} | attrs
    return file.new("modelled", RUN | attrs, [window])


@pytest.fixture
def gathered(tmp_path):
    """A function that gathers traces, each with its place."""

    def gather(*trees: xr.DataTree, places=()) -> xr.Dataset:
        found = []
        for index, tree in enumerate(trees):
            file.save(tree, tmp_path / str(index) / "run.nc")
            data = energy.gather(tmp_path / str(index))
            place = places[index] if places else "committed"
            found.append(data.assign_coords(place=("window", [place] * data.sizes["window"])))
        return xr.concat(found, "window", join="outer", combine_attrs="drop")

    return gather


def one(points: xr.Dataset, **at) -> dict:
    """Values of the decode point at batch 1; the first model, GPU and engine unless told."""
    chosen = points.sel({"batch": 1, "phase": "decode"} | at)
    chosen = chosen.isel({dim: 0 for dim in chosen.sizes})
    return {name: chosen[name].item() for name in chosen.variables}


def test_a_measured_point_is_one_iteration_of_the_whole_batch(gathered):
    point = one(energy.points(gathered(measured([row(), row("prefill")]))))
    assert point["time_s"] == pytest.approx(0.5) and point["energy_J"] == pytest.approx(100)
    assert (point["evidence"], point["status"], point["generated"]) == ("measured", "ok", 11)
    assert (point["dtype"], point["weights"], point["place"]) == ("fp16", "trained", "committed")


def test_two_boards_three_per_cent_apart_cannot_be_told_apart_by_their_sensors(gathered):
    rows = [row(repeat=k) for k in range(3)]
    data = gathered(
        measured(list(map(dict, rows)), 200.0),
        measured(list(map(dict, rows)), 206.0, device="l4", device_hash="board-2"),
    )
    points = energy.points(data)
    more, less = one(points, gpu="l4"), one(points, gpu="t4")
    apart = np.log(more["energy_J"] / less["energy_J"])
    assert apart == pytest.approx(np.log(1.03))
    assert 0.05 < ndtr(apart / np.hypot(more["energy_J_low_sd"], less["energy_J_high_sd"])) < 0.95


def test_the_gain_cancels_on_one_board(gathered):
    points = energy.points(gathered(measured([row(), row(batch=4)])))
    gain = points["gain_sd"].item()
    assert gain == pytest.approx(0.05 / np.sqrt(3))
    own = np.sqrt(one(points)["energy_J_low_sd"] ** 2 - gain**2)
    assert 0 < own < one(points)["energy_J_low_sd"]


def test_the_interval_is_the_budget(gathered):
    lengths = [5.0, 5.1, 5.3]
    data = gathered(measured([row(repeat=k, length_s=s) for k, s in enumerate(lengths)]))
    point, (t, n) = one(energy.points(data)), (stdtrit(2, 0.975) / 1.959964, 3)
    repeat = t * np.std(lengths, ddof=1) / np.median(lengths) / np.sqrt(n)
    share = {
        name: (data[name] / data["energy_J"]).max().item() for name in data if name[:2] == "u_"
    }
    terms = (repeat, share["u_quantisation"] / np.sqrt(n), share["u_sampling"], share["u_gain"])
    assert point["time_s_low_sd"] == point["time_s_high_sd"] == pytest.approx(repeat)
    assert point["energy_J_high_sd"] == pytest.approx(np.sqrt(np.square(terms).sum()))
    assert point["energy_J"] == pytest.approx(102) and point["time_s"] == pytest.approx(0.51)


def test_a_single_repeat_has_the_spread_of_the_run_s_other_points(gathered):
    lengths = [5.0, 5.2, 5.0, 5.3]
    repeated = [row(batch=2 + k // 2, repeat=k % 2, length_s=s) for k, s in enumerate(lengths)]
    point = one(energy.points(gathered(measured([row(), *repeated]))))
    relative = np.array([0.2 / 5.1, 0.3 / 5.15]) / np.sqrt(2)
    pooled = np.sqrt((relative**2).mean()) * stdtrit(2, 0.975) / 1.959964
    assert point["time_s_low_sd"] == pytest.approx(pooled)
    assert point["energy_J_low_sd"] > pooled


def test_a_run_without_repeats_has_the_spread_of_its_steps(gathered):
    steps = [0.05, 0.06, 0.04, 0.05]
    point = one(energy.points(gathered(measured([row()], steps=steps))))
    assert point["time_s_low_sd"] == pytest.approx(np.std(steps, ddof=1) / 0.05)
    point = one(energy.points(gathered(measured([row()]))))
    assert 0 < point["time_s_low_sd"] < 0.1 and point["energy_J_low_sd"] > point["time_s_low_sd"]


def test_equal_repeats_are_not_exact(gathered):
    point = one(energy.points(gathered(measured([row(repeat=k) for k in range(3)]))))
    assert point["time_s_low_sd"] == pytest.approx(0.001)


def test_a_modelled_point_keeps_its_interval(gathered):
    point = one(energy.points(gathered(modelled(2.0))))
    assert (point["time_s"], point["energy_J"], point["gain_sd"]) == (2.0, 100.0, 0.0)
    z = 1.6448536
    assert point["time_s_low_sd"] == pytest.approx(-np.log(0.8) / z)
    assert point["energy_J_high_sd"] == pytest.approx(np.log(1.25) / z)
    assert point["evidence"] == "modelled" and np.isnan(point["idle_W"])


def test_measured_runs_stand_before_modelled_ones_of_their_pair_only(gathered):
    data = gathered(modelled(), measured([row()]), modelled(device="l4"))
    points = energy.points(data)
    assert one(points, gpu="t4")["evidence"] == "measured"
    assert one(points, gpu="l4")["evidence"] == "modelled"


def test_two_number_formats_never_mix(gathered):
    half, brain = measured([row()]), measured([row(), row(batch=4)], 100.0, dtype="bf16")
    data = gathered(brain, half)
    points = energy.points(data)
    assert points["dtype"].item() == "fp16" and one(points)["energy_J"] == pytest.approx(100)
    assert list(points["batch"].values) == [1]
    asked = energy.points(data, dtype="bf16")
    assert asked["dtype"].item() == "bf16" and one(asked)["energy_J"] == pytest.approx(50)
    assert energy.points(data, dtype="int8").sizes["model"] == 0


def test_trained_weights_and_this_machine_come_first(gathered):
    random, trained = measured([row()], 100.0, weights="random"), measured([row()])
    here = measured([row()], 300.0)
    places = ("this machine", "committed", "this machine")
    points = energy.points(gathered(random, trained, here, places=places))
    assert one(points)["energy_J"] == pytest.approx(150)
    assert (points["weights"].item(), points["place"].item()) == ("trained", "this machine")
    points = energy.points(gathered(random, trained, places=places), weights="random")
    assert one(points)["energy_J"] == pytest.approx(50)


def test_two_engines_stand_side_by_side_under_the_model_s_names(gathered):
    data = gathered(measured([row()]), measured([row()], 100.0, engine="compiled"))
    points = energy.points(data, engines={"eager": "eager", "compiled": "graphs"})
    assert list(points["engine"].values) == ["eager", "graphs"]
    assert one(points, engine="graphs")["energy_J"] == pytest.approx(50)


def test_a_gpu_that_no_table_knows_is_a_gpu_and_a_processor_is_not(gathered):
    unknown = measured([row()], device="homemade-9000", energy_source="none")
    processor = measured([row()], device="epyc", device_hash="", energy_source="none")
    points = energy.points(gathered(unknown, processor))
    assert list(points["gpu"].values) == ["homemade-9000"]
    point = one(points)
    assert point["time_s"] == pytest.approx(0.5) and np.isnan(point["energy_J"])
    assert point["status"] == "not_supported", "which says why there is no energy"


def test_idle_power_is_that_with_the_model_in_memory(gathered):
    rest = {"batch": 0, "iterations": 0, "lengths": "idle"}
    bare, loaded = row("idle_bare", **rest), row("idle_loaded", **rest)
    data = gathered(measured([bare], 30.0), measured([loaded, row()], 40.0, dtype="bf16"))
    assert energy.points(data)["idle_W"].item() == pytest.approx(40)
    data = gathered(measured([bare, row()], 30.0))
    assert energy.points(data)["idle_W"].item() == pytest.approx(30)


def test_what_ran_out_of_memory_stays_without_numbers(gathered):
    full = row(batch=64, status="oom", start_s=np.nan, stop_s=np.nan, boot_s=np.nan)
    points = energy.points(gathered(measured([row(), row("prefill", batch=64), full])))
    point = one(points, batch=64)
    assert (point["status"], point["evidence"]) == ("oom", "measured")
    assert np.isnan(point["time_s"]) and np.isnan(point["energy_J_low_sd"])
    assert one(points, phase="prefill", batch=64)["time_s"] > 0
    assert one(points, phase="prefill")["evidence"] == "not run"


def test_what_was_not_tried_was_not_run(gathered):
    no = {"status": "skipped", "start_s": np.nan, "stop_s": np.nan, "boot_s": np.nan}
    rows = [row(), row("prefill", batch=64), row(batch=64, **no)]
    point = energy.points(gathered(measured([*rows, row(batch=64, repeat=1, **no)])))
    at = one(point, batch=64)
    assert (at["status"], at["evidence"]) == ("skipped", "not run") and np.isnan(at["time_s"])
    assert one(point, phase="prefill", batch=64)["evidence"] == "measured"


def test_lengths_from_a_trace_of_requests_are_no_points(gathered):
    drawn = row(lengths="azure", prompt_tokens=374)
    points = energy.points(gathered(measured([row(), drawn])))
    assert list(points["prompt"].values) == [64]


def test_no_run_at_all_gives_no_point(tmp_path):
    points = energy.points(energy.gather(tmp_path))
    assert set(points.sizes.values()) == {0, 2} and trace.check_points(points) is points


def test_runs_of_other_lengths_and_models_leave_gaps_that_were_not_run(gathered):
    other = row(prompt_tokens=128, output_tokens=21)
    data = gathered(measured([row()]), measured([other], model="llama-3b", engine="graphs"))
    points = energy.points(data)
    gap = points.sel(model="llama-1b", engine="eager", prompt=128, output=11)
    assert gap["status"].item() == "not run" and gap["time_s"].isnull().all()
    assert points["dtype"].sel(model="llama-1b", engine="graphs").item() == ""


def test_a_request_is_its_prefill_and_its_decode(gathered):
    data = gathered(measured([row("prefill", iterations=100), row(), row(batch=4, status="oom")]))
    table = energy.requests(energy.points(data)).set_index("batch")
    found = table.loc[1]
    assert found["ttft_s"] == pytest.approx(0.05) and found["tpot_s"] == pytest.approx(0.05)
    assert found["tokens_per_s"] == pytest.approx(11 / 0.55)
    assert found["token_J"] == pytest.approx(200 * 0.55 / 11)
    point, reach = one(energy.points(data)), ndtri(0.95)
    highest_s = 0.55 * np.exp(reach * point["time_s_high_sd"])
    assert found["tokens_per_s_low"] == pytest.approx(11 / highest_s)
    lowest_J = found["token_J"] * np.exp(-reach * point["energy_J_low_sd"])
    assert found["token_J_low"] == pytest.approx(lowest_J, rel=1e-3)
    assert (found["evidence"], table.loc[4, "status"]) == ("measured", "oom")
    assert np.isnan(table.loc[4, "token_J"])


def test_a_processor_is_a_point_only_if_asked(gathered):
    rows = [row("prefill"), row()]
    data = gathered(measured(rows, device="xeon", device_hash="", energy_source="none"))
    assert energy.points(data).sizes["gpu"] == 0 and energy.requests(energy.points(data)).empty
    (found,) = energy.requests(energy.points(data, processors=True)).to_dict("records")
    assert found["gpu"] == "xeon" and found["status"] == "not_supported"
    assert found["tpot_s"] == pytest.approx(0.05) and np.isnan(found["token_J"])

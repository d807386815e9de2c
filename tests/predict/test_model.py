"""The model: physics that holds for any shape, GPU and load; closed forms; refusals."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from footprint import Refused, predict, spec, trace, workload
from footprint.predict import roofline
from footprint.predict.intervals import READABLE
from footprint.predict.model import DIMS, LOADS
from footprint.predict.roofline import Dtype, Engine

ENGINES = ("eager", "graphs", "serving")
TIMES = ("ttft_s", "tpot_s")
PHASES = {"prefill": "ttft_s", "decode": "tpot_s"}
MISTRAL = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
}

shapes = st.builds(
    lambda width, layers, heads, group, ratio, vocab: spec.Model(
        id="m",
        name="m",
        hidden=64 * width,
        layers=layers,
        heads=heads * group,
        kv_heads=heads,
        head_dim=64,
        intermediate=64 * width * ratio,
        vocab=vocab,
        tied=False,
    ),
    st.integers(8, 96),
    st.integers(4, 80),
    st.integers(1, 16),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(2, 5),
    st.integers(1000, 200_000),
)
gpus = st.builds(
    lambda ecc, half_rate, peak, bandwidth, memory, cap, idle, node: spec.GPU(
        id="g",
        name="g",
        peak_fp16_tflops=peak,
        bandwidth_GBps=bandwidth,
        memory_GiB=80,
        memory_type=memory,
        tdp_W=cap,
        die_mm2=600,
        node=node,
        idle_W=idle * cap,
        inline_ecc=ecc,
        half_rate_accumulation=half_rate,
        cache_MB=40,
    ),
    st.booleans(),
    st.booleans(),
    st.floats(20, 2000),
    st.floats(100, 8000),
    st.sampled_from(["HBM3", "GDDR6"]),
    st.floats(60, 1000),
    st.floats(0.02, 0.3),
    st.sampled_from(["12nm", "8nm", "7nm", "4N"]),
)
loads = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 256),
        "prompt": st.integers(1, 4096),
        "output": st.integers(2, 2048),
        "engine": st.sampled_from(ENGINES),
    }
)
drawn = settings(max_examples=60, deadline=None)


def point(model, gpu, **load) -> xr.Dataset:
    load = {"batch": 1, "prompt": 128, "output": 64} | load
    return predict.windows(model, gpu, **load).squeeze(drop=True)


def altered(record, **changes):
    return type(record)(**{**vars(record), **changes})


@drawn
@given(
    shapes, gpus, loads, st.sampled_from(["bandwidth_GBps", "peak_fp16_tflops"]), st.floats(1.01, 4)
)
def test_no_time_rises_with_bandwidth_or_compute(model, gpu, load, rate, factor):
    slow, fast = (
        point(model, gpu, **load),
        point(model, altered(gpu, **{rate: getattr(gpu, rate) * factor}), **load),
    )
    for name in TIMES:
        assert fast[name] <= slow[name] * (1 + 1e-12)


@drawn
@given(shapes, gpus, loads)
def test_times_rise_with_size_prompt_output_and_batch(model, gpu, load):
    small = point(model, gpu, **load)
    more = [point(model, gpu, **load | {name: load[name] + 1}) for name in ("batch", "prompt")]
    for large in (point(altered(model, layers=model.layers + 1), gpu, **load), *more):
        assert large.ttft_s > small.ttft_s * (1 - 1e-9) and large.tpot_s > small.tpot_s * (1 - 1e-9)
    longer = point(model, gpu, **load | {"output": load["output"] + 2})
    assert longer.tpot_s >= small.tpot_s and longer.decode_energy_J > small.decode_energy_J


@drawn
@given(shapes, gpus, loads)
def test_nothing_beats_the_published_rates(model, gpu, load):
    data, half_rate = point(model, gpu, **load), 2 if load["engine"] == "graphs" else 1
    weights = 2.0 * (model.layers * model.layer_parameters + model.hidden * model.vocab)
    context = load["prompt"] + (load["output"] - 2) / 2
    cache = model.kv_bytes_per_token() * load["batch"] * context
    assert data.tpot_s >= (weights + (cache if load["engine"] != "eager" else 0)) / (
        gpu.bandwidth_GBps * 1e9
    )
    assert data.ttft_s >= model.flops(load["prompt"], batch=load["batch"]) / (
        half_rate * gpu.peak_fp16_tflops * 1e12
    )


@drawn
@given(shapes, gpus, loads)
def test_energy_lies_between_idle_and_cap(model, gpu, load):
    data = point(model, gpu, **load)
    for phase, time in PHASES.items():
        seconds = data[time] * (1 if phase == "prefill" else load["output"] - 1)
        assert gpu.idle_W < data[f"{phase}_power_W"] <= gpu.tdp_W
        assert gpu.idle_W * seconds < data[f"{phase}_energy_J"] <= gpu.tdp_W * seconds * (1 + 1e-9)
        assert data[f"{phase}_energy_J"] == pytest.approx(float(data[f"{phase}_power_W"] * seconds))


@drawn
@given(shapes, gpus, loads, st.sampled_from([2, 4, 8]))
def test_a_larger_batch_costs_no_more_energy_a_token_within_the_interval(model, gpu, load, times):
    gpu = altered(gpu, cache_MB=0)  # a larger batch may outgrow the cache, and then costs more
    small, large = (point(model, gpu, **load | {"batch": load["batch"] * k}) for k in (1, times))
    for phase in PHASES:
        name = f"{phase}_energy_J"
        assert large[name] / times <= small[name] * (large[f"{name}_high"] / large[name])


@drawn
@given(shapes, gpus, loads)
def test_intervals_hold_their_value_and_the_shares_of_the_causes_add_up(model, gpu, load):
    data = point(model, gpu, **load)
    for name in (
        *TIMES,
        "prefill_power_W",
        "decode_power_W",
        "prefill_energy_J",
        "decode_energy_J",
    ):
        assert 0 < data[f"{name}_low"] <= data[name] <= data[f"{name}_high"] < math.inf
    p = predict.parameters()
    m, g = roofline.model_arrays([model]), roofline.gpu_arrays(p, [gpu])
    rates = roofline.rates(p, m, g, np.array([Engine[load["engine"]]]), np.array([Dtype.fp16]))
    work = roofline.forward_pass(p, m, rates, load["batch"], load["prompt"], 0.0)
    assert sum(work.shares.values()) == pytest.approx(1)
    assert all((share >= -1e-12).all() for share in work.shares.values())


def test_the_shares_are_the_derivatives_of_the_time():
    p, model, gpu = predict.parameters(), spec.model("llama-7b"), spec.gpu("t4")
    m, g = roofline.model_arrays([model]), roofline.gpu_arrays(p, [gpu])
    rates = roofline.rates(p, m, g, np.array([Engine.eager]), np.array([Dtype.fp16]))
    work = roofline.forward_pass(p, m, rates, 8, 1.0, 300.0)
    step = 1e-6
    for cause, field in (("multiplying", "compute"), ("host", "host_s"), ("reading", "read")):
        sign = 1 if field == "host_s" else -1
        moved = roofline.forward_pass(
            p,
            m,
            rates._replace(**{field: getattr(rates, field) * (1 + sign * step)}),
            8,
            1.0,
            300.0,
        )
        assert math.log(moved.time[0] / work.time[0]) / step == pytest.approx(
            work.shares[cause][0], abs=1e-4
        )


def test_the_causes_of_a_step_add_up_to_it_and_a_launched_step_has_no_host():
    asked = {"batch": [1, 64], "prompt": [128], "output": [8, 128], "engine": ["eager", "serving"]}
    parts, whole = (
        predict.causes("llama-1b", ["t4", "l4"], **asked),
        predict.windows("llama-1b", ["t4", "l4"], **asked),
    )
    xr.testing.assert_allclose(parts.sum("cause"), whole["tpot_s"].drop_attrs(), rtol=1e-9)
    host = parts.sel(cause="host")
    assert (host.sel(engine="eager", batch=1) > 0).all() and np.allclose(
        host.sel(engine="serving"), 0, atol=1e-15
    )


def test_an_array_gives_what_single_calls_give():
    axes = {"batch": [1, 7, 64], "prompt": [16, 900], "output": [2, 50], "engine": list(ENGINES)}
    whole = predict.windows(["llama-1b", "llama-7b"], ["t4", "h100-80gb-sxm"], **axes)
    assert tuple(whole["ttft_s"].dims) == DIMS and whole["ttft_s"].shape == (2, 2, 3, 3, 2, 2)
    at = {
        "model": "llama-7b",
        "gpu": "h100-80gb-sxm",
        "engine": "serving",
        "batch": 7,
        "prompt": 900,
        "output": 50,
    }
    one = predict.windows(**at)
    for name in one:
        assert whole[name].sel(at).item() == one[name].item()


def test_ids_records_and_configs_are_taken_alike():
    record = predict.windows(spec.model("llama-1b"), spec.gpu("l4"), batch=1, prompt=8, output=8)
    assert record.equals(
        predict.windows("llama-1b", ["l4"], batch=[1], prompt=np.array([8]), output=8)
    )
    mistral = spec.Model.from_config(MISTRAL)
    assert point(mistral, "l4").tpot_s < point("llama-3.1-8b", "l4").tpot_s


def test_a_probed_processor_follows_the_closed_form_and_has_no_power():
    p, model = predict.parameters(), spec.model("llama-1b")
    card = predict.gpu_from_probe("cpu", bandwidth_GBps=25, matmul_GFLOPs=120, memory_GiB=24)
    data = point(model, card, dtype="fp32", prompt=1, output=2)
    read = (
        4
        * (model.layers * model.layer_parameters + model.hidden * model.vocab)
        / (p["bandwidth_probed"] * 25e9)
    )
    assert data.tpot_s == pytest.approx(read + model.layers * p["host_cpu_s"], rel=0.02)
    assert (
        math.isnan(data.decode_power_W)
        and math.isnan(data.prefill_energy_J_high)
        and bool(data.fits)
    )


def test_memory_is_weights_and_cache_and_the_largest_batch_is_the_last_that_fits():
    model = spec.model("llama-7b")
    for engine in ENGINES:
        for gpu in ("t4", "a100-80gb-sxm"):
            most = predict.largest_batch(model, gpu, prompt=512, output=128, engine=engine).item()
            sizes = predict.windows(
                model, gpu, batch=[max(most, 1), most + 1], prompt=512, output=128, engine=engine
            )
            assert sizes.fits.values.ravel().tolist() == [most > 0, False]
    base = point(model, "t4", engine="serving")
    more = point(model, "t4", engine="serving", context=1192)
    assert more.memory_B - base.memory_B == pytest.approx(1000 * model.kv_bytes_per_token())
    assert base.memory_B > model.weight_bytes()


def test_a_faster_host_speeds_up_eager_alone():
    for engine, faster in (("eager", True), ("graphs", False), ("serving", False)):
        one, half = (
            point("llama-1b", "h100-80gb-sxm", engine=engine, host=host).tpot_s
            for host in (1.0, 0.5)
        )
        assert (half < 0.6 * one) == faster and (half == one) != faster


def test_a_reading_narrows_what_it_settles_and_moves_nothing():
    base, host = (point("llama-1b", "t4", known=known) for known in ((), ("host",)))
    floor, all_ = (point("llama-1b", "t4", known=known) for known in (("floor",), READABLE))

    def widths(data) -> list[float]:
        names = ("tpot_s", "decode_energy_J")
        return [float(np.log(data[f"{name}_high"] / data[f"{name}_low"])) for name in names]

    for other in (host, floor, all_):
        assert (
            other["tpot_s"] == base["tpot_s"] and other["decode_power_W"] == base["decode_power_W"]
        )
    assert widths(host)[0] < widths(base)[0] == widths(floor)[0]
    assert widths(floor)[1] < widths(base)[1] and widths(all_)[1] < widths(floor)[1]


def test_published_watts_of_a_loaded_gpu_are_its_floor_and_narrow_its_power():
    unknown = replace(spec.gpu("l40s"), loaded_W=math.nan)
    known = spec.gpu("l40s")
    p = predict.parameters()
    arrays = roofline.gpu_arrays(p, [known, unknown])
    m = roofline.model_arrays([spec.model("llama-1b")] * 2)
    r = roofline.rates(p, m, arrays, np.array([0, 0]), np.array([1, 1]))
    share = p["floor_gddr"] * (unknown.tdp_W - unknown.idle_W)
    assert r.floor_W.tolist() == pytest.approx([known.loaded_W - known.idle_W, share])

    def width(gpu) -> float:
        data = point("llama-1b", gpu)
        return float(data["decode_power_W_high"] / data["decode_power_W_low"])

    assert width(known) < width(unknown)
    a30 = spec.known()["a30"]
    assert roofline.idle_W(p, a30) == a30.loaded_W, "no GPU rests at more than it draws loaded"


def test_few_tokens_reach_a_part_of_the_peak():
    p = predict.parameters()
    gpu, engine = roofline.gpu_arrays(p, [spec.gpu("t4")]), np.array([2])
    m = roofline.model_arrays([spec.model("llama-7b")])
    r = roofline.rates(p, m, gpu, engine, np.array([1]))
    endless = r._replace(read=np.array([1e30]), bandwidth=np.array([1e30]), room_W=np.array([1e30]))
    endless = endless._replace(layer_s=np.array([0.0]), sequence_s=np.array([0.0]))
    weights = m.layers * m.layer_weights + m.head_weights
    one = roofline.forward_pass(p, m, endless._replace(half_tokens=np.array([0.0])), 1.0, 1.0, 0.0)
    two = roofline.forward_pass(p, m, endless, 1.0, 1.0, 0.0)
    extra = 2 * p["half_tokens"] * weights / r.compute
    assert two.time - one.time == pytest.approx(extra, rel=1e-6)


def test_bf16_is_emulated_on_old_gpus_alone_and_decode_does_not_mind():
    for gpu, slow in (("t4", True), ("rtx-6000-ada", False)):
        half, brain = (
            point("llama-7b", gpu, prompt=512, dtype=dtype) for dtype in ("fp16", "bf16")
        )
        assert (brain.ttft_s > 3 * half.ttft_s) == slow and brain.tpot_s == pytest.approx(
            half.tpot_s.item(), rel=0.1
        )


def test_a_closed_loop_takes_longer_and_more_energy_within_the_cap():
    full, closed = (
        point("llama-7b", "a100-80gb-sxm", engine="serving", load=load) for load in LOADS
    )
    assert closed.tpot_s > full.tpot_s and full.decode_energy_J < closed.decode_energy_J
    assert closed.decode_power_W <= spec.gpu("a100-80gb-sxm").tdp_W


def test_a_gpu_that_nobody_calibrated_on_has_the_wider_interval():
    t4 = spec.gpu("t4")
    known, unknown = (point("llama-7b", card, batch=4) for card in (t4, altered(t4, id="another")))
    for name in (*TIMES, "decode_energy_J", "prefill_energy_J"):
        assert unknown[name] == known[name]
        assert unknown[f"{name}_high"] / unknown[name] >= known[f"{name}_high"] / known[name]
    assert unknown.tpot_s_high > known.tpot_s_high


def test_published_readings_lie_in_their_intervals():
    prefill = point("llama-7b", "t4", prompt=256, output=64)
    assert (
        prefill.ttft_s_low < 0.201
        and prefill.ttft_s_high > 0.215
        and prefill.tpot_s_low < 0.059 < prefill.tpot_s_high
    )
    ada = point("llama-3.1-8b", "rtx-6000-ada", engine="graphs", prompt=1, output=512)
    assert ada.tpot_s_low < 1 / 52.3 < ada.tpot_s_high


def test_a_modelled_trace_follows_the_schema_and_adds_up(tmp_path):
    asked = {"batches": [1, 64], "prompt_tokens": [128], "output_tokens": [128], "seed": 3}
    tree = predict.trace(workload.request("predict", model="llama-7b", gpu="t4", **asked))
    loaded = trace.load(trace.save(tree, tmp_path / "run.nc"))
    rows = trace.frame(loaded["windows"].to_dataset())
    assert (
        loaded.attrs["kind"] == "modelled"
        and loaded.attrs["device"] == "t4"
        and loaded.attrs["seed"] == 3
    )
    assert rows["phase"].tolist() == 2 * ["prefill", "decode", "generate"]
    assert (
        rows["status"].tolist() == 3 * ["ok"] + 3 * ["oom"]
        and rows.loc[3:, "energy_J"].isna().all()
    )
    for end in ("", "_low", "_high"):
        for name in ("duration_s", "energy_J"):
            assert rows.loc[2, name + end] == pytest.approx(
                rows.loc[0, name + end] + rows.loc[1, name + end]
            )
    assert rows.loc[2, "power_W"] * rows.loc[2, "duration_s"] == pytest.approx(
        rows.loc[2, "energy_J"]
    )
    assert rows["tokens"].tolist() == [128, 127, 128, 64 * 128, 64 * 127, 64 * 128]
    assert (rows["memory_B"] > 0).all()


def test_a_request_gives_the_same_trace():
    request = {
        "model": "llama-1b",
        "gpu": "l4",
        "engine": "serving",
        "dtype": "fp16",
        "batches": [1, 2],
        "prompt_tokens": [16],
        "output_tokens": [4],
        "seed": 0,
    }
    typed = workload.request("predict", **request)
    assert predict.trace(request).identical(predict.trace(typed))
    assert json.loads(predict.trace(typed).attrs["request"]) == request


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 0}, "batch = 0"),
        ({"prompt": [1, math.nan]}, "prompt ="),
        ({"output": -1}, "output = -1"),
        ({"prompt": math.inf}, "prompt = inf"),
        ({"batch": "four"}, "batch = four"),
        ({"engine": "magic"}, "engine 'magic'"),
        ({"dtype": "fp8"}, "dtype 'fp8'"),
        ({"load": "open"}, "load 'open'"),
        ({"host": 0}, "host = 0"),
        ({"known": ["weather"]}, "cause 'weather'"),
    ],
)
def test_malformed_numbers_and_words_are_refused(change, said):
    with pytest.raises(Refused, match=said):
        point("llama-1b", "t4", **change)


def test_what_a_gpu_is_called_changes_nothing():
    trial = altered(spec.gpu("rtx-4090"), id="rtx-5090", bandwidth_GBps=1792.0, node="4NP")
    for dtype in ("fp16", "bf16", "int4"):
        for engine in ENGINES:
            one, other = (
                point("llama-7b", altered(trial, name=name), engine=engine, dtype=dtype)
                for name in ("RTX 5090", "GeForce RTX 5090")
            )
            assert one.equals(other)
    batches = [
        predict.largest_batch("llama-7b", altered(trial, name=name), prompt=512, output=128).item()
        for name in ("RTX 5090", "GeForce RTX 5090")
    ]
    assert batches[0] == batches[1] > 1


def test_a_process_that_the_model_was_not_fitted_to_is_known_by_its_class():
    base = point("llama-7b", "t4", prompt=512)
    small = point("llama-7b", altered(spec.gpu("t4"), node="3nm", node_class_nm=3.0), prompt=512)
    assert small.prefill_power_W < base.prefill_power_W or small.ttft_s < base.ttft_s


def test_unknown_things_are_refused_by_name():
    with pytest.raises(KeyError, match="rtx-6000-ada"):
        point("llama-1b", "rtx-6000")
    with pytest.raises(Refused, match="idle_W of t4 is 70"):
        point("llama-1b", altered(spec.gpu("t4"), idle_W=70.0))
    with pytest.raises(Refused, match="mixtral"):
        spec.Model.from_config(MISTRAL | {"model_type": "mixtral"})


def test_a_hundred_thousand_points_are_quick_and_need_no_loop():
    counts = np.arange(1, 48)
    data = predict.windows("llama-7b", "t4", batch=counts, prompt=counts * 16, output=counts + 1)
    assert data.ttft_s.size == 47**3 and data.sizes["batch"] == 47


def test_points_are_the_windows_by_phase_with_the_standard_deviations_of_their_intervals():
    asked = {"batch": [1, 64], "prompt": [64, 2048], "output": [2, 65]}
    asked |= {"engine": list(ENGINES), "dtype": "bf16"}
    models, gpus = spec.models()[:3], ["t4", "l4", "h200-sxm"]
    found, whole = predict.points(models, gpus, **asked), predict.windows(models, gpus, **asked)
    assert found["time_s"].dims == (*DIMS, "phase")
    decode, prefill = found.sel(phase="decode"), found.sel(phase="prefill")
    fits = whole["fits"]
    times = whole["ttft_s"].where(fits), (whole["tpot_s"] * (whole.output - 1)).where(fits)
    for phase, time in zip((prefill, decode), times, strict=True):
        assert np.array_equal(phase["time_s"], time, equal_nan=True)
    for phase, name, source in (
        (prefill, "time_s", "ttft_s"),
        (decode, "time_s", "tpot_s"),
        (prefill, "energy_J", "prefill_energy_J"),
        (decode, "energy_J", "decode_energy_J"),
    ):
        for end in ("low", "high"):
            ratio = np.abs(np.log(whole[f"{source}_{end}"] / whole[source])).where(fits)
            assert np.array_equal(phase[f"{name}_{end}_sd"], ratio / ndtri(0.95), equal_nan=True)
    assert np.isnan(found["energy_J"].where(found["status"] == "oom")).all()
    assert (found["status"] == xr.where(fits, "ok", "oom")).all() and not fits.all()
    assert (found["evidence"] == "modelled").all() and (found["dtype"] == "bf16").all()
    assert found["idle_W"].sel(gpu="t4") == 9.5 and found["idle_W"].sel(gpu="l4") > 0
    assert (found["generated"] == found.batch * found.output).all()


def test_the_decode_of_a_single_token_takes_nothing_and_an_unknown_power_stays_unknown():
    decode = predict.points("llama-1b", "t4", batch=1, prompt=8, output=1).sel(phase="decode")
    assert not decode[["time_s", "energy_J", "energy_J_low_sd"]].to_array().any()
    cpu = predict.gpu_from_probe("cpu", bandwidth_GBps=25, matmul_GFLOPs=120, memory_GiB=24)
    found = predict.points("llama-1b", cpu, batch=1, prompt=8, output=4)
    assert (found["time_s"] > 0).all() and found[["energy_J", "idle_W"]].to_array().isnull().all()


def test_inline_error_correction_keeps_a_sixteenth_of_the_memory():
    assert predict.usable_bytes("t4") == 16 * 2**30 * 15 / 16
    plain = altered(spec.gpu("t4"), inline_ecc=False)
    assert predict.usable_bytes(plain) == pytest.approx(16 * 2**30 * 0.985)

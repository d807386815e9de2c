"""Matrix products: the table is sane, the physics has its limits, and its errors stay small."""

import numpy as np
import pandas as pd
import pytest

from footprint import predict, spec
from footprint.predict import fit, gemm, roofline

P = predict.parameters()
COPIES = 6  # of each matrix, used in turns


@pytest.fixture(scope="module")
def rows():
    """The table, with each GPU's published rates and the seconds of each product at them."""
    table = spec.frame("gemm")
    gpus = table["gpu"].map(spec.known())
    read = 2 * table["n"] * table["k"] / gpus.map(lambda gpu: gpu.bandwidth_GBps * 1e9)
    peak = gpus.map(lambda gpu: gpu.peak_fp16_tflops * 1e12)
    flops = 2.0 * table["m"] * table["n"] * table["k"]
    cache = gpus.map(lambda gpu: gpu.cache_MB * 1e6)
    return table.assign(read_us=1e6 * read, multiply_us=1e6 * flops / peak, cache=cache)


def product(m: int, n: int = 8192, k: int = 8192, gpu: str = "a100-80gb-sxm") -> pd.DataFrame:
    return pd.DataFrame([{"gpu": gpu, "dtype": "bf16", "m": m, "n": n, "k": k}])


def test_every_gpu_has_each_shape_at_each_number_of_tokens(rows):
    assert set(rows["gpu"]) <= set(spec.known())
    assert set(rows["dtype"]) <= set(roofline.Dtype.__members__)
    assert not rows.duplicated(["gpu", "m", "n", "k"]).any()
    assert set(rows["m"]) == {2**power for power in range(14)}
    shapes = rows.groupby(["gpu", "m"]).size()
    assert shapes.nunique() == 1 and rows.groupby(["n", "k"]).ngroups == shapes.iloc[0]
    assert (rows.groupby("gpu")["version"].nunique() == 1).all()


def test_no_product_is_faster_than_its_gpu(rows):
    assert (COPIES * 2 * rows["n"] * rows["k"] > 2 * rows["cache"]).all()
    assert (rows["us"] > 0.8 * rows["read_us"]).all()
    assert (rows["us"] > rows["multiply_us"]).all()


def test_more_tokens_take_longer(rows):
    times = np.log(rows.pivot(index=["gpu", "n", "k"], columns="m", values="us"))
    step = times.diff(axis=1).groupby("gpu").mean()
    assert (step.iloc[:, 1:] > -0.06).all(axis=None)  # scatter where the time is that of reading
    assert (step.loc[:, 128:] > 0).all(axis=None)


def test_the_limits_are_reading_and_multiplying():
    gpu = spec.gpu("a100-80gb-sxm")
    latency = 1e6 * P["layer_s"] * (gpu.node_class_nm / 5) ** P["layer_node"] / fit.PRODUCTS
    read = 1e6 * 2 * 8192**2 / (P["bandwidth_hbm"] * gpu.bandwidth_GBps * 1e9)
    share = P["compute_serving"] * gpu.peak_fp16_tflops * 1e12
    one, many = (fit.products_us(P, product(m)).item() for m in (1, 2**20))
    assert one == pytest.approx(read + latency, rel=1e-2)
    assert many == pytest.approx(1e6 * 2 * (2**20 + P["half_tokens"]) * 8192**2 / share, rel=1e-3)


def test_a_layer_takes_its_four_products(rows):
    """The same physics as that of whole layers, where no cap is near."""
    model, gpu = spec.known()["llama-7b"], "a100-80gb-sxm"
    kv = (model.heads + 2 * model.kv_heads) * model.head_dim
    wide = [(kv, model.hidden), (model.hidden, model.heads * model.head_dim)]
    wide += [(2 * model.intermediate, model.hidden), (model.hidden, model.intermediate)]
    parts = pd.concat([product(1, n, k, gpu) for n, k in wide])
    table = fit.measurements()
    one = table[(table["quantity"] == "layer_matrices_s") & (table["model"] == "llama-7b")]
    one = one[(one["gpu"] == gpu) & (one["batch"] * one["prompt_tokens"] == 1)]
    layer = fit.expected(P, one)["value"].item()
    assert fit.products_us(P, parts).sum() == pytest.approx(1e6 * layer, rel=0.02)


def test_expected_times_never_fall_with_tokens_nor_below_the_published_rates(rows):
    mine = rows.assign(expected=fit.products_us(P, rows)).sort_values("m")
    assert (mine.groupby(["gpu", "n", "k"])["expected"].diff().dropna() > 0).all()
    assert (mine["expected"] > mine[["read_us", "multiply_us"]].max(axis=1)).all()


def test_the_physics_alone_is_off_by_a_tenth_at_most_and_a_wrong_share_is_seen(rows):
    errors = gemm.errors(P)
    assert set(errors.index) == set(rows["gpu"]) and (errors < 0.1).all()
    for name in ("compute_serving", "bandwidth_hbm3", "layer_s"):
        wrong = gemm.errors(P | {name: (4 if name == "layer_s" else 0.5) * P[name]})
        assert wrong["h100-80gb-sxm"] > 1.5 * errors["h100-80gb-sxm"]

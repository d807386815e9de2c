"""Numbers of Together and of the explorer: parts add up, and equal GPUs are even."""

import numpy as np
import pandas as pd
import pytest

import made_points
from footprint import carbon, decide, predict, spec
from footprint.chapters.book import Book, load, numbers
from footprint.decide.world import ZONES


class Made(Book):
    """A book of points that are made up: both GPUs alike, at 100 W and with no error."""

    def at(self, engine: str = "eager"):
        return made_points.points().squeeze(["engine", "prompt", "output"])

    @property
    def length(self):
        return {"prompt": 128, "output": 101}


@pytest.fixture(scope="module")
def together():
    return numbers("together", Made())


def test_both_carbons_of_a_token_add_up(together):
    rows = together["total"].set_index(["gpu", "zone", "carbon"])["g"].unstack()
    assert len(rows) == 6 and (rows > 0).all(axis=None)
    bounds = together["total"].groupby(["gpu", "zone"])[["low", "high"]].first()
    whole = rows.sum(axis=1)
    assert (bounds["low"] < whole).all() and (whole < bounds["high"]).all()


def test_the_balance_point_is_that_of_the_closed_form(together):
    """Both GPUs draw 100 W: I = kg x 1000 x 3.6e6 / (lifetime x 100)."""
    rows = together["balance"]
    assert rows["W while it works"].tolist() == pytest.approx([100.0] * len(rows))
    expected = rows["kg"] * 1e3 * 3.6e6 / (5 * 365.25 * 86400) / 100
    assert rows["equal at (g/kWh)"].to_numpy() == pytest.approx(expected.to_numpy())


def test_the_share_at_the_balance_point_is_one_half(together):
    """The embodied share is I / (I + grid), with I the balance point."""
    equal = together["equal"].sel(embodied_method="ACT")
    grid = spec.grid("CA-QC").g_per_kwh
    shares = equal / (equal + grid)
    assert together["clean"].sel(embodied_method="ACT") == pytest.approx(float(shares.median()))


def test_equal_gpus_differ_by_their_embodied_carbon_alone(together):
    """The GPU of fewer kilograms emits less, whatever the grid and the batch."""
    rows = together["odds"].query("embodied_method == 'ACT'")
    assert set(rows["probability"].dropna()) == {1.0} and together["older_wins"] == 9
    fates = together["fates"]
    assert fates.sum() == together["odds_cases"] and fates["newer_surely"] == 0
    assert together["ratio"].max() < 1


def test_a_token_in_use_is_charged_more_than_one_of_a_gpu_that_always_works(together):
    assert together["used_ratio"] > 1 and together["host_share"] > together["clean"].sel(
        embodied_method=carbon.MAIN
    )


def test_more_carbon_of_the_river_leaves_less_to_the_embodied_part(together):
    assert (together["north"] > together["world"]).all()
    at = together["rivers"].set_index("hydropower counted").loc["as in the table of grids"]
    assert (
        at[f"making, {carbon.MAIN}"]
        == f"{float(together['clean'].sel(embodied_method=carbon.MAIN)):.1%}"
    )


def test_the_score_is_the_sum_of_its_parts(together):
    terms = together["sci"].set_index("term")["value"]
    assert terms["SCI"] == pytest.approx((terms["O"] + terms["M"]) / terms["R"])
    assert terms["O"] == pytest.approx(terms["E"] * terms["I"]) and terms["R"] == 101
    assert together["sci_mg"] == pytest.approx(terms["SCI"] * 1e3)


@pytest.fixture(scope="module")
def explorer():
    return numbers("explorer", load())


def test_first_order_in_logarithms_is_as_good_as_the_samples(explorer):
    """Energy and time of a token from the slopes of a point and from the library."""
    n = 400
    world = load().market.isel(sample=slice(n))
    for engine, batch, model in (
        ("eager", 1, "llama-1b"),
        ("serving", 16, "llama-7b"),
        ("eager", 8, "llama-7b"),
    ):
        sizes = {"batch": [batch], "prompt": [128], "output": [128]}
        points = predict.points(model, spec.gpus(), engine=[engine], **sizes)
        tokens = decide.tokens(points, world, methods=["ACT"]).squeeze(drop=True)
        rows = explorer["points"].query("model == @model and engine == @engine and batch == @batch")
        assert len(rows) > 10
        for row in rows.itertuples():
            one, exact = world.sel(gpu=row.gpu), tokens.sel(gpu=row.gpu)
            moved = {
                name: np.where(z < 0, getattr(row, f"{name}_low"), getattr(row, f"{name}_high")) * z
                for name, z in (
                    ("time", one["time_error"].values),
                    ("shared", one["time_error"].values),
                    ("power", one["power_error"].values),
                )
            }
            joules = row.token_J * np.exp(moved["shared"] + moved["power"])
            seconds = row.token_s * np.exp(moved["time"])
            for ours, theirs in ((joules, exact["token_J"]), (seconds, exact["token_s"])):
                ends = [np.quantile(values, [0.05, 0.5, 0.95]) for values in (ours, theirs.values)]
                assert ends[0] == pytest.approx(ends[1], rel=0.02)


def test_the_year_of_each_sample_is_that_of_its_grid(explorer):
    world, grids = explorer["world"], explorer["grids"]
    for zone in ZONES:
        years = grids.loc[zone].drop("name").to_numpy()
        assert list(years[world["year"].values]) == list(world["g_per_kwh"].sel(zone=zone).values)


def test_every_zone_has_its_years_and_the_papers_come_first(explorer):
    grids = explorer["grids"]
    assert list(grids.index[:3]) == list(ZONES) and len(grids) > 300
    assert list(grids.columns) == ["name", *decide.grid_years()["year"].values]
    assert grids.notna().all().all() and grids["name"].is_unique
    assert grids.loc["CA-QC", 2023] == spec.grid("CA-QC", 2023).g_per_kwh


def test_only_what_fits_is_carried(explorer):
    points = explorer["points"]
    assert points.notna().all().all()
    assert not points.duplicated(["model", "engine", "batch", "gpu"]).any()
    one = points.query("model == 'llama-7b' and gpu == 't4'")
    assert one["batch"].max() < points["batch"].max()


def test_a_host_speaks_for_the_faster_gpu(explorer):
    assert (
        explorer["most"]["name"] == "T4"
        and explorer["most"]["grew"] > explorer["least"]["grew"] > 1
    )
    assert isinstance(explorer["carried"], pd.Series)

"""explore: what the page carries gives what the library computes; charts_explore: a valid figure, all of it with controls."""

import json

import numpy as np
import pytest

from footprint import spec
from footprint.carbon import served, totals
from footprint.charts import explore, theme
from footprint.charts import explorer as charts_explore
from footprint.decide import compare as decide
from footprint.predict import model as predict

MODELS = ["llama-1b", "llama-7b"]


@pytest.fixture(scope="module")
def points():
    return explore.points(MODELS)


def test_first_order_in_logarithms_is_as_good_as_the_draws(points):
    """Energy and time of a token, draw by draw, from a point's five numbers and from both phases of the library."""
    n = 400
    worlds = explore.worlds(n=n).set_index(["gpu", "draw"])
    for engine, batch, model in (
        ("eager", 1, "llama-1b"),
        ("serving", 16, "llama-7b"),
        ("eager", 8, "llama-7b"),
    ):
        windows = predict.windows(
            model, spec.gpus(), engine=[engine], batch=[batch], prompt=[128], output=[128]
        )
        tokens = totals.per_token(served.predicted(windows), approaches=["ACT"], n=n).squeeze(
            drop=True
        )
        rows = points.query("model == @model and engine == @engine and batch == @batch")
        assert len(rows) > 10
        for row in rows.itertuples():
            one, exact = worlds.loc[row.gpu], tokens.sel(gpu=row.gpu)
            slopes = {
                name: np.where(
                    one[z] < 0, getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
                )
                * one[z]
                for name, z in (("time", "z_time"), ("shared", "z_time"), ("power", "z_power"))
            }
            joules = row.energy_J * np.exp(slopes["shared"] + slopes["power"])
            seconds = row.busy_s * np.exp(slopes["time"])
            for ours, theirs in ((joules, exact["energy_J"]), (seconds, exact["busy_s"])):
                ends = [np.quantile(values, [0.05, 0.5, 0.95]) for values in (ours, theirs.values)]
                assert ends[0] == pytest.approx(ends[1], rel=0.02)


def test_the_states_of_the_world_are_the_library_s_own():
    worlds = explore.worlds(n=7, seed=3)
    wrong, kg = served.errors(["l4"], 7, 3), totals.card_kg(["l4"], ["teardown"], 7, 3)
    one = worlds[worlds["gpu"] == "l4"]
    assert np.array_equal(one["z_power"], wrong["power"].sel(gpu="l4")) and np.array_equal(
        one["teardown"], kg.values.ravel()
    )
    assert one["paper"].isna().all() and worlds[worlds["gpu"] == "t4"]["paper"].notna().all()
    drawn = totals.drawn_grids(["CA-QC"], 7, 3)[0]
    assert [explore.grids().loc["CA-QC"].iloc[1 + year] for year in one["year"]] == list(
        drawn.values
    )


def test_every_zone_has_its_years_and_the_papers_come_first():
    grids = explore.grids()
    assert list(grids.index[:3]) == list(totals.ZONES) and len(grids) > 300
    assert (
        list(grids.columns) == ["name", *totals.YEARS_KNOWN]
        and grids.notna().all().all()
        and grids["name"].is_unique
    )
    assert grids.loc["CA-QC", 2023] == spec.grid("CA-QC", 2023).g_per_kwh


def test_only_what_fits_is_carried(points):
    assert (
        points.notna().all().all()
        and not points.duplicated(["model", "engine", "batch", "gpu"]).any()
    )
    assert (
        points.query("model == 'llama-7b' and gpu == 't4'")["batch"].max() < points["batch"].max()
    )


def test_the_figure_is_valid_and_every_setting_has_a_control(points):
    theme.enable()
    figure = charts_explore.figure(points, explore.worlds(), explore.grids()).to_dict()
    controls = {param["name"]: param["bind"] for param in figure["params"] if "bind" in param}
    assert set(controls) == set(charts_explore.ITS)
    for name, bind in controls.items():
        first = charts_explore.ITS[name]
        assert (
            first in bind["options"] if "options" in bind else bind["min"] <= first <= bind["max"]
        )
        assert len(bind.get("labels") or bind.get("options", [])) == len(bind.get("options", []))
    assert len(json.dumps(figure)) < 500_000


def test_the_ranking_is_that_of_the_optimum_and_a_host_speaks_for_the_faster_card():
    """Against `decide.optimum`, which prices the same cards in draws of its own number, and grams by hand for a host."""
    for batch, engine in ((1, "eager"), (8, "serving")):
        ours = explore.ranked("llama-7b", engine, batch, "CA-QC", n=400, utilisation=0.5).set_index(
            "gpu"
        )
        theirs = decide.optimum(
            "llama-7b", "CA-QC", batch=[batch], engine=engine, n=400, utilisation=0.5
        ).set_index("gpu")
        theirs = theirs.loc[ours.index]
        for name, other in (
            ("mean_g", "mean_g"),
            ("low_g", "low_g"),
            ("high_g", "high_g"),
            ("best", "least"),
        ):
            assert ours[name].values == pytest.approx(theirs[other].values, rel=1e-9, abs=1e-15), (
                name
            )
    plain, beside = (
        explore.ranked("llama-7b", "serving", 1, "CA-QC", host_W=watts).set_index("gpu")
        for watts in (0, 300)
    )
    grew = (beside["mean_g"] / plain["mean_g"]).sort_values()
    assert grew.index[-1] == "t4" and (grew > 1).all()
    assert plain["best"].sum() == pytest.approx(1) and plain["mean_g"].is_monotonic_increasing

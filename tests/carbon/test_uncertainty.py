"""Samples: priors as in scipy, seeds that repeat, shared causes, indices as in SALib."""

import numpy as np
import pytest
from SALib.analyze import sobol as analyse
from SALib.sample import sobol as sample
from scipy import stats

from footprint import Refused, spec
from footprint.carbon.methods import embodied
from footprint.carbon.uncertainty import (
    embodied_draws,
    prior_of,
    priors,
    quantile,
    sensitivity,
    summary,
    use_draws,
)

PRIORS = spec.rows("priors")
U = np.linspace(0.001, 0.999, 99)


def reference(prior: dict[str, str]):
    """The prior as a scipy distribution."""
    low, high, mode, mean, sd = (
        float(prior[name]) for name in ("low", "high", "mode", "mean", "sd")
    )
    return {
        "uniform": lambda: stats.uniform(low, high - low),
        "loguniform": lambda: stats.loguniform(low, high),
        "triangular": lambda: stats.triang((mode - low) / (high - low), low, high - low),
        "normal": lambda: stats.truncnorm((low - mean) / sd, (high - mean) / sd, mean, sd),
    }[prior["shape"]]()


@pytest.mark.parametrize(
    "prior", PRIORS, ids=lambda row: f"{row['method']}/{row['parameter']}/{row['group']}"
)
def test_quantiles_are_those_of_scipys_distributions(prior):
    assert np.allclose(quantile(prior, U), reference(prior).ppf(U), rtol=1e-9)


@pytest.mark.parametrize("method", ["act", "teardown"])
def test_each_parameter_of_each_gpu_has_a_prior(method):
    prior, known = prior_of(method)
    for gpu in map(spec.gpu, spec.gpus()):
        assert set(prior.parameters(gpu).items()) <= set(known)


def test_teardown_priors_are_the_spread_of_the_torn_down_gpus():
    rows = spec.table("teardown")
    for name, (emission, size) in {
        "die_scale": ("die_kgco2e", "die_with_losses_mm2"),
        "board_scale": ("board_kgco2e", "board_cm2"),
        "cooling_scale": ("heatsink_kgco2e", "heatsink_kg"),
        "transport_scale": ("transport_kgco2e", "mass_kg"),
    }.items():
        ratios = np.array([float(row[emission]) / float(row[size]) for row in rows])
        ratios /= ratios.mean()
        prior = priors("teardown")[name, "all"]
        expected = (ratios.min(), ratios.max(), ratios.std(ddof=1))
        assert tuple(float(prior[part]) for part in ("low", "high", "sd")) == pytest.approx(
            expected, abs=0.001
        )


@pytest.mark.parametrize("method", ["act", "teardown"])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(method):
    first, again, other = (embodied_draws("t4", 100, seed, method) for seed in (1, 1, 2))
    assert first.dims == ("sample",) and first.attrs["units"] == "kg"
    assert np.array_equal(first, again) and not np.isclose(first, other).any()


def test_a_gpu_has_the_same_samples_alone_and_among_others():
    company = embodied_draws(spec.gpus(), 50, 3)
    assert company.dims == ("gpu", "sample") and company.shape == (len(spec.gpus()), 50)
    assert np.array_equal(company.sel(gpu="l4"), embodied_draws("l4", 50, 3))


def test_gpus_of_one_node_err_together():
    both = embodied_draws(["l40s", "rtx-6000-ada", "l4", "v100-32gb"], 2000, 0).values
    related = np.corrcoef(both)
    assert related[0, 1] == pytest.approx(1) and related[1, 2] > 0.9 and related[1, 3] < 0.5


def test_at_the_middle_of_its_priors_act_is_act():
    card = spec.gpu("t4")
    prior, known = prior_of("act")
    middle = {
        key[0]: quantile(known[key], np.array([0.5])) for key in prior.parameters(card).items()
    }
    settings = {
        "packages": True,
        "yield_model": "murphy",
        "defects_per_cm2": float(middle["defects_per_cm2"][0]),
        "fab": float(middle["fab_g_per_kwh"][0]),
        "memory": float(middle["memory_kg_per_gb"][0]),
    }
    kg = prior.samples(card, middle)[0]
    assert kg == pytest.approx(float(embodied(card, "act", **settings).total_kg), rel=0.01)


def test_intervals_lie_near_those_found_before():
    # An earlier check (Murphy, memory triangular 0.048-0.074-0.23 kg/GB): mean, 5 and 95 %.
    before = {
        "t4": (16.8, 12.9, 21.5),
        "rtx-6000-ada": (34.9, 26.9, 43.5),
        "h100-80gb-sxm": (51.6, 38.2, 66.6),
    }
    found = summary(embodied_draws(list(before), 40_000, 0, memory="act"))
    for card, values in before.items():
        mine = [float(found[name].sel(gpu=card)) for name in ("mean", "low", "high")]
        assert mine == pytest.approx(values, rel=0.15)


def test_the_scaled_teardown_lies_within_its_own_interval():
    cards = [card for card in spec.gpus() if np.isfinite(embodied(card, "teardown").total_kg)]
    point, found = (
        embodied(cards, "teardown").total_kg,
        summary(embodied_draws(cards, 5000, 0, "teardown")),
    )
    assert ((found["low"] < point) & (point < found["high"])).all() and len(cards) >= 15


def test_published_footprints_do_not_spread_and_say_so():
    fixed = embodied_draws("t4", 5, 0, "paper")
    assert (
        np.array_equal(fixed, np.full(5, 10.3))
        and "none is published" in fixed.attrs["uncertainty"]
    )
    assert fixed.attrs["status"] == "unverified"


def test_a_missing_mass_makes_every_sample_nan_with_its_reason():
    gap = embodied_draws(["t4", "v100-16gb"], 5, 0, "teardown")
    assert np.isnan(gap.sel(gpu="v100-16gb")).all() and np.isfinite(gap.sel(gpu="t4")).all()
    assert "mass" in str(gap.embodied_reason.sel(gpu="v100-16gb").values)
    assert np.isnan(summary(gap)["median"].sel(gpu="v100-16gb"))


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 0, "act"),
        (5, -1, "act"),
        (5, 0, "guess"),
        (5, 0, "act", "guess"),
        (5, 0, "teardown", "act"),
        (5, 0, "paper", "act"),
    ],
)
def test_samples_that_make_no_sense_are_refused(arguments):
    with pytest.raises(Refused):
        embodied_draws("t4", *arguments)


def test_summary_is_a_central_interval():
    kg = embodied_draws("t4", 1001, 0)
    found = summary(kg, 0.8)
    inside = ((kg >= found.low) & (kg <= found.high)).mean()
    assert float(inside) == pytest.approx(0.8, abs=0.003) and found.attrs["level"] == 0.8
    assert float(found["median"]) == float(np.median(kg)) and float(found["mean"]) == pytest.approx(
        float(kg.mean())
    )


def test_use_is_sampled_within_its_bounds():
    use = use_draws(1000, 1)
    assert set(use) == {"lifetime_years", "utilisation", "pue"}
    assert ((use.utilisation > 0) & (use.utilisation <= 1)).all() and (use.pue >= 1.1).all()
    assert float(use.lifetime_years.min()) >= 3 and float(use.lifetime_years.max()) <= 6


@pytest.mark.parametrize("method", ["act", "teardown"])
def test_sobol_indices_agree_with_salib(method):
    card = spec.gpu("t4")
    prior, known = prior_of(method)
    keys = list(prior.parameters(card).items())
    names = [name for name, _ in keys]
    problem = {"num_vars": len(keys), "names": names, "bounds": [[0, 1]] * len(keys)}
    u = sample.sample(problem, 4096, calc_second_order=False, seed=1)
    values = {key[0]: quantile(known[key], u[:, at]) for at, key in enumerate(keys)}
    theirs = analyse.analyze(problem, prior.samples(card, values), calc_second_order=False, seed=1)
    mine = sensitivity("t4", method, 1024)
    assert set(names) - set(mine.parameter.values) <= {
        "casing_scale"
    }  # a T4 has no casing: nothing to vary
    for at, name in enumerate(names):
        if name in mine.parameter:
            assert float(mine.first_order.sel(parameter=name)) == pytest.approx(
                theirs["S1"][at], abs=0.03
            )
            assert float(mine.total_order.sel(parameter=name)) == pytest.approx(
                theirs["ST"][at], abs=0.03
            )


def test_sensitivity_gives_the_same_bootstrap_for_the_same_seed():
    assert sensitivity("t4", "act", 256).identical(sensitivity("t4", "act", 256))
    assert not sensitivity("t4", "act", 256).identical(sensitivity("t4", "act", 256, seed=1))


def test_sensitivity_is_sorted_bounded_and_swings_about_the_median():
    found = sensitivity("rtx-6000-ada", "act", 256, use=True)
    assert (np.diff(found.total_order) <= 0).all() and found.parameter.values[0] == "utilisation"
    assert (found.total_order_low <= found.total_order_high).all() and found.attrs[
        "units"
    ] == "g per busy hour"
    inside = (np.minimum(found.low, found.high) <= found.attrs["median"]) & (
        found.attrs["median"] <= np.maximum(found.low, found.high)
    )
    assert inside.all()
    with pytest.raises(Refused, match="lacks an input"):
        sensitivity("v100-16gb", "teardown", 64)

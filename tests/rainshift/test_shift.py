"""Distances of climates against closed forms, their null where there is no shift, and the Mantel test."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from geoml.cli.compose import compose
from geoml.errors import UserError
from rainshift.benchmarking.climate_distance import (
    CONDITIONAL,
    LEVELS,
    TARGET,
    ClimateHistograms,
    climates,
    hellinger,
    jensen_shannon,
    measure_shifts,
    wasserstein,
)
from rainshift.benchmarking.mantel import mantel
from rainshift.benchmarking.transfer import transfer_loss
from rainshift.data.archive import archive_of


def gaussian(mean: float, std: float, edges: np.ndarray) -> np.ndarray:
    cumulative = stats.norm(mean, std).cdf(edges)
    cumulative[[0, -1]] = 0, 1
    return np.diff(cumulative)


EDGES = np.linspace(-12, 12, 400)


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0, 5.0])
def test_wasserstein_of_shifted_gaussians_is_the_shift(shift: float) -> None:
    p, q = gaussian(0, 1, EDGES), gaussian(shift, 1, EDGES)
    assert wasserstein(p, q, EDGES) == pytest.approx(shift, abs=1e-6)
    assert wasserstein(1000 * q, p, EDGES) == pytest.approx(shift, abs=1e-6)


def test_wasserstein_of_other_widths_and_against_scipy() -> None:
    # Of equal means: E|σ₁ − σ₂| |Z| = |σ₁ − σ₂| √(2/π).
    narrow, wide = gaussian(0, 1, EDGES), gaussian(0, 2, EDGES)
    assert wasserstein(narrow, wide, EDGES) == pytest.approx(np.sqrt(2 / np.pi), rel=1e-3)
    rng = np.random.default_rng(0)
    x, y = rng.gamma(0.5, 2, 4000), rng.gamma(1.0, 3, 5000)
    edges = np.unique(np.quantile(np.concatenate([x, y]), LEVELS))
    made = wasserstein(np.histogram(x, edges)[0], np.histogram(y, edges)[0], edges)
    assert made == pytest.approx(stats.wasserstein_distance(x, y), rel=0.01)


def test_hellinger_and_jensen_shannon_of_gaussians() -> None:
    p = gaussian(0, 1, EDGES)
    for mean, std in ((0, 1), (1, 1), (0.5, 2)):
        q = gaussian(mean, std, EDGES)
        overlap = np.sqrt(2 * std / (1 + std**2)) * np.exp(-(mean**2) / (4 * (1 + std**2)))
        assert hellinger(p, q) == pytest.approx(np.sqrt(1 - overlap), abs=2e-3)
        x = np.linspace(-12, 14, 20_001)
        f, g = stats.norm.pdf(x), stats.norm.pdf(x, mean, std)
        m = (f + g) / 2
        integrand = (f * np.log(f / m) + g * np.log(g / m)) / 2
        assert jensen_shannon(p, q) == pytest.approx(np.trapezoid(integrand, x), abs=2e-4)


def test_what_has_nothing_in_common_is_as_far_as_can_be() -> None:
    p, q = np.eye(4)[:2]
    assert jensen_shannon(p, q) == pytest.approx(np.log(2))
    assert hellinger(p, q) == 1
    assert jensen_shannon(p, p) == hellinger(p, p) == wasserstein(p, p, np.arange(5)) == 0


# --- null ---------------------------------------------------------------------------------------------------------


def made(seed: int, shift: float, blocks: int = 20) -> dict[str, ClimateHistograms]:
    """Two climates of blocks whose values hang together: each block has a mean of its own."""
    rng = np.random.default_rng(seed)
    edges = np.linspace(-8, 8, 60)
    values = rng.normal(size=(2, blocks, 1)) + 0.3 * rng.normal(size=(2, blocks, 200))
    values[1] += shift
    counts = [np.stack([np.histogram(row, edges)[0] for row in part]).astype(float) for part in values]
    return {
        name: ClimateHistograms({"t": part}, {"t": edges}, {"t": 1.0}) for name, part in zip("ab", counts, strict=True)
    }


def test_null_is_calibrated_although_values_hang_together() -> None:
    measures = ("wasserstein", "jensen_shannon", "hellinger")
    found = [measure_shifts(made(seed, 0.0), permutations=99, seed=seed) for seed in range(120)]
    for name in measures:
        p = np.array([float(item[f"{name}_p"][0, 0, 1]) for item in found])
        assert stats.kstest(p, "uniform").pvalue > 1e-3
        above = np.mean([float(item[name][0, 0, 1] > item[f"{name}_null"][0, 0, 1]) for item in found])
        assert 0.0 <= above <= 0.12


def test_a_shift_is_found_and_measured() -> None:
    found = measure_shifts(made(0, 2.5, blocks=60), permutations=199)
    assert float(found["wasserstein"].sel(variable="t", region="a", other="b")) == pytest.approx(2.5, abs=0.5)
    assert float(found["wasserstein_p"].sel(variable="t", region="b", other="a")) == pytest.approx(1 / 200)
    assert np.isnan(found["wasserstein"].sel(region="a", other="a"))


def test_joined_climates_are_those_of_all_their_blocks() -> None:
    one, two = made(0, 1.0), made(1, 2.0)
    names = {"a": one["a"], "b": one["b"], "c": two["b"]}
    against = measure_shifts(names, {"a": ["b", "c"], "c": ["b"]}, permutations=50)
    both = np.concatenate([one["b"].counts["t"], two["b"].counts["t"]]).sum(axis=0)
    expected = wasserstein(one["a"].counts["t"].sum(axis=0), both, one["a"].edges["t"])
    assert float(against["wasserstein"].sel(variable="t", region="a")) == pytest.approx(float(expected))
    assert np.isnan(against["wasserstein"].sel(region="b"))
    with pytest.raises(UserError, match="region 'd' unknown"):
        measure_shifts(names, {"a": ["d"]})


def test_rain_given_coarse_rain_may_shift_where_neither_does() -> None:
    # Both halves of the joint law have the same margins; which wet class goes with much rain is exchanged.
    edges, flat = np.arange(5.0), np.full((30, 1, 1), 1.0)
    straight = flat * np.array([[4, 0, 0, 0], [0, 0, 0, 4]])
    crossed = flat * np.array([[0, 0, 0, 4], [4, 0, 0, 0]])
    found = {
        name: ClimateHistograms(
            {CONDITIONAL: joint, TARGET: joint.sum(axis=1)},
            {CONDITIONAL: edges, TARGET: edges},
            {CONDITIONAL: 2.0, TARGET: 2.0},
        )
        for name, joint in (("a", straight), ("b", crossed))
    }
    shifts = measure_shifts(found, permutations=99).sel(region="a", other="b")
    assert float(shifts["wasserstein"].sel(variable=TARGET)) == 0
    assert float(shifts["wasserstein"].sel(variable=CONDITIONAL)) == pytest.approx(3 / 2)
    assert float(shifts["wasserstein_p"].sel(variable=CONDITIONAL)) == pytest.approx(0.01)


# --- regions of the planet ----------------------------------------------------------------------------------------


def planet(tmp_path, equal: str | None):
    overrides = [
        f"archive={tmp_path}",
        "data.size_deg=1.5",
        "data.splits_at.train.hours=192",
        *(f"data.splits_at.{split}.hours=24" for split in ("validation", "test")),
        f"data.equal={equal or 'null'}",
    ]
    archive = archive_of(compose("rainshift.conf", "benchmark", overrides))
    names = ["melanesia", "arabian-peninsula", "europe_west"]
    for name in names:
        archive.prepare(name, "train")
    return climates(archive, names, hours=192)


def test_climates_of_the_planet_differ_and_equal_ones_do_not(tmp_path) -> None:
    found = measure_shifts(planet(tmp_path / "planet", None), permutations=99)
    assert {TARGET, CONDITIONAL, "tp"} <= set(found["variable"].values)
    p = found["wasserstein_p"].sel(variable=["tp", TARGET], region="melanesia", other="arabian-peninsula")
    assert (p <= 0.05).all()
    assert (found["jensen_shannon"].max() <= np.log(2)) & (found["hellinger"].max() <= 1)
    equal = measure_shifts(planet(tmp_path / "equal", "melanesia"), permutations=99)
    mean = {name: float(data["wasserstein"].mean()) for name, data in (("planet", found), ("equal", equal))}
    assert mean["planet"] > 3 * mean["equal"]
    assert float((equal["wasserstein_p"] < 0.05).sum() / equal["wasserstein_p"].notnull().sum()) < 0.25


def test_mistakes_are_answered(tmp_path) -> None:
    archive = archive_of(compose("rainshift.conf", "benchmark", [f"archive={tmp_path}"]))
    with pytest.raises(UserError, match="two or more different regions"):
        climates(archive, ["melanesia"])


# --- Mantel -------------------------------------------------------------------------------------------------------


def distances(seed: int, count: int = 8) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 2))
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def test_mantel_finds_what_goes_together_and_takes_any_order_of_regions() -> None:
    shift = distances(0)
    drop = shift**2 + 0.2 * np.random.default_rng(1).normal(size=shift.shape)  # not symmetric
    found = mantel(shift, drop, permutations=999)
    assert found.correlation > 0.9
    assert found.p == pytest.approx(0.001)
    assert (found.regions, found.pairs) == (8, 56)
    order = np.random.default_rng(2).permutation(8)
    again = mantel(shift[np.ix_(order, order)], drop[np.ix_(order, order)], permutations=999)
    assert again.correlation == pytest.approx(found.correlation)
    assert mantel(shift, -drop, permutations=999).p > 0.9


def test_mantel_of_unrelated_matrices_is_uniform_where_a_test_of_pairs_would_not_be() -> None:
    found, naive = [], []
    for seed in range(200):
        a, b = distances(seed), distances(1000 + seed)
        found.append(mantel(a, b, permutations=99, seed=seed).p)
        upper = np.triu_indices(8, 1)
        naive.append(stats.spearmanr(a[upper], b[upper], alternative="greater").pvalue)
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert np.mean(np.array(found) <= 0.05) < 0.1
    assert stats.kstest(naive, "uniform").pvalue < stats.kstest(found, "uniform").pvalue


def test_mantel_tries_all_arrangements_of_few_regions_and_leaves_out_what_is_missing() -> None:
    shift = distances(3, 4)
    found = mantel(shift, shift)
    assert (found.arrangements, found.correlation) == (24, pytest.approx(1))
    assert found.p == pytest.approx(1 / 24)
    drop = distances(0).copy()
    drop[2, 5] = np.nan
    assert mantel(distances(0), drop, permutations=99).pairs == 55
    with pytest.raises(UserError, match="3 are too few"):
        mantel(shift[:3, :3], shift[:3, :3])
    with pytest.raises(UserError, match="differ between pairs"):
        mantel(shift, np.ones((4, 4)))


def test_transfer_loss_is_relative_to_training_at_home() -> None:
    names = ["a", "b", "c", "d"]
    scores = xr.DataArray(
        np.arange(1.0, 51.0).reshape(5, 5, 2),
        {"train_set": [*names, "a+b"], "test_region": [*names, "e"], "seed": [0, 1]},
    )
    loss = transfer_loss(scores)
    one, own = (scores.sel(train_set=name, test_region="b").mean() for name in ("c", "b"))
    assert float(loss.sel(region="b", other="c")) == pytest.approx(float(one / own - 1))
    assert (np.diagonal(loss.values) == 0).all()
    with pytest.raises(UserError, match="trained on single regions"):
        transfer_loss(scores.sel(train_set=["a+b"]))

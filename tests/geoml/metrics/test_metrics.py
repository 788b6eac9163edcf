"""Every metric of the registry, by the same properties; then each against theory."""

from __future__ import annotations

import inspect
import math
from importlib import resources

import numpy as np
import pytest
import scoringrules
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from geoml.errors import DataError, UserError
from geoml.metrics import METRICS, StatisticsTable, Suite, merge
from geoml.metrics.kernels import ensemble_terms, sorting_network

THRESHOLDS = (0.5, 2.0)
EVERYTHING = Suite(tuple(METRICS), thresholds=THRESHOLDS)


def case(samples: int = 6, members: int = 5, space: tuple[int, ...] = (4, 7), seed: int = 0):
    """Prediction, truth and mask of a skilful but imperfect ensemble, with NaN at what is masked."""
    rng = np.random.default_rng(seed)
    signal = rng.gamma(0.7, 2.0, (samples, *space))
    truth = (signal * rng.lognormal(0, 0.3, signal.shape)).astype(np.float32)
    noise = rng.lognormal(0, 0.3, (samples, members, *space))
    prediction = (signal[:, None] * noise).astype(np.float32)
    mask = rng.random(truth.shape) < 0.8
    mask[:, 0, 0] = True
    return prediction, np.where(mask, truth, np.nan).astype(np.float32), mask


def scores(prediction, truth, mask=None, weights=None, suite: Suite = EVERYTHING) -> dict[str, float]:
    return suite.evaluate(suite.update(prediction, truth, mask=mask, weights=weights, ids=np.arange(len(truth))))


# --- what holds for all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", EVERYTHING.metrics)
def test_metric_is_described(label: str) -> None:
    metric = EVERYTHING.metrics[label]
    assert METRICS[metric.name] is type(metric)
    assert metric.unit in ("field", "1")
    assert metric.direction in ("lower", "higher", "nearer")
    doc = inspect.cleandoc(vars(type(metric))["__doc__"])
    assert "`" in doc.split("\n")[0], "the first line holds the formula"


@pytest.mark.parametrize("label", EVERYTHING.metrics)
@pytest.mark.parametrize("members", [1, 4])
def test_perfect_prediction_has_the_perfect_value(label: str, members: int) -> None:
    _, truth, mask = case()
    filled = np.where(mask, truth, 0)
    value = scores(np.repeat(filled[:, None], members, axis=1), truth, mask)[label]
    if label == "spread_skill":  # 0/0 here; its own test draws members and truth from one distribution
        assert math.isnan(value)
    else:
        assert value == pytest.approx(EVERYTHING.metrics[label].perfect, abs=1e-6)


@pytest.mark.parametrize("label", EVERYTHING.metrics)
def test_worse_prediction_has_a_worse_value(label: str) -> None:
    prediction, truth, mask = case()
    good = scores(prediction, truth, mask)[label]
    rng = np.random.default_rng(1)
    worse = prediction * np.float32(1.5) + rng.gamma(1, 1, prediction.shape).astype(np.float32)
    if label == "spread_skill":  # an ensemble that is too sure of itself
        worse = prediction.mean(axis=1, keepdims=True) + 0.1 * (prediction - prediction.mean(axis=1, keepdims=True))
    metric = EVERYTHING.metrics[label]
    bad = scores(worse, truth, mask)[label]
    assert metric.worse(bad, good)
    assert not metric.worse(good, bad)
    assert not metric.worse(good, good)


def test_masked_cells_never_count() -> None:
    prediction, truth, mask = case()
    for junk in (np.nan, np.inf, -1e30):
        other_truth, other_prediction = truth.copy(), prediction.copy()
        other_truth[~mask] = junk
        other_prediction[np.repeat(~mask[:, None], prediction.shape[1], axis=1)] = junk
        assert scores(other_prediction, other_truth, mask) == scores(prediction, truth, mask)
    one = np.zeros_like(mask)
    one[2, 1, 3] = True
    truth = np.where(one, 2.0, np.nan)
    alone = scores(prediction, truth, one)
    only = scores(prediction[2:3, :, 1:2, 3:4], truth[2:3, 1:2, 3:4])
    assert alone == pytest.approx(only, nan_ok=True)


def test_order_and_dtype_of_members_do_not_matter() -> None:
    prediction, truth, mask = case(members=7)
    first = scores(prediction, truth, mask)
    shuffled = np.random.default_rng(2).permuted(prediction, axis=1)
    assert scores(shuffled, truth, mask) == pytest.approx(first, rel=1e-12)
    assert scores(prediction.astype(np.float64), truth, mask) == pytest.approx(first, rel=1e-6)
    assert scores(np.asfortranarray(prediction), np.asfortranarray(truth), np.asfortranarray(mask)) == first


def test_constant_weights_do_not_matter_and_others_are_averages_with_weights() -> None:
    prediction, truth, mask = case()
    assert scores(prediction, truth, mask, 3.0) == pytest.approx(scores(prediction, truth, mask), rel=1e-12)
    weights = np.random.default_rng(3).integers(1, 4, truth.shape[2])
    repeated = [np.repeat(array, weights, axis=-1) for array in (prediction, truth, mask)]
    assert scores(prediction, truth, mask, weights) == pytest.approx(scores(*repeated), rel=1e-9)


def test_zero_weight_is_a_mask() -> None:
    prediction, truth, mask = case()
    weights = np.ones(truth.shape[1:])
    weights[:, 3:] = 0
    expected = scores(prediction[..., :3], truth[..., :3], mask[..., :3])
    assert scores(prediction, truth, mask, weights) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 9), max_size=4), order=st.permutations(range(9)), reverse=st.booleans())
def test_chunks_and_their_order_change_no_bit(cuts: list[int], order: list[int], reverse: bool) -> None:
    prediction, truth, mask = case(samples=9)
    whole = EVERYTHING.update(prediction, truth, mask=mask, ids=np.arange(9))
    parts = [
        EVERYTHING.update(prediction[rows], truth[rows], mask=mask[rows], ids=rows)
        for rows in map(np.array, np.split(np.array(order), sorted(cuts)))
        if len(rows)
    ]
    merged = EVERYTHING.merge(parts[::-1] if reverse else parts)
    assert np.array_equal(merged.sums, whole.sums)
    assert np.array_equal(merged.weights, whole.weights)
    assert EVERYTHING.evaluate(merged) == EVERYTHING.evaluate(whole)


def test_tiles_of_space_add_up() -> None:
    prediction, truth, mask = case()
    weights = np.cos(np.radians(np.linspace(30, 60, 4)))[:, None]
    whole = EVERYTHING.update(prediction, truth, mask=mask, weights=weights, ids=np.arange(6))
    tiles = [
        EVERYTHING.update(
            prediction[..., cut, :], truth[..., cut, :], mask=mask[..., cut, :], weights=weights[cut], ids=np.arange(6)
        )
        for cut in (slice(0, 1), slice(1, 4))
    ]
    assert EVERYTHING.evaluate(merge(tiles, tiles=True)) == pytest.approx(EVERYTHING.evaluate(whole), rel=1e-9)
    with pytest.raises(DataError, match="sample 0 is scored twice"):
        merge(tiles)


def test_small_steps_through_the_samples_change_no_bit(monkeypatch) -> None:
    prediction, truth, mask = case()
    expected = scores(prediction, truth, mask)
    monkeypatch.setattr("geoml.metrics.suite.VALUES_AT_A_TIME", 1)
    assert scores(prediction, truth, mask) == expected


def test_three_dims_are_scored_like_two() -> None:
    prediction, truth, mask = case(space=(2, 3, 4))
    flat = (array.reshape(*array.shape[:-3], 6, 4) for array in (prediction, truth, mask))
    assert scores(prediction, truth, mask) == scores(*flat)


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_unexpected_nan_is_named() -> None:
    prediction, truth, mask = case()
    ids = np.datetime64("2021-01-01T00", "h") + np.arange(6)
    mask[3, 2, 1], truth[3, 2, 1] = True, np.nan
    with pytest.raises(DataError, match=r"truth of sample 2021-01-01T03 is nan at cell \(2, 1\), which is not masked"):
        EVERYTHING.update(prediction, truth, mask=mask, ids=ids)
    truth[3, 2, 1] = 0
    prediction[4, 1, 0, 0] = np.inf
    with pytest.raises(DataError, match=r"prediction of sample 2021-01-01T04 is inf at cell \(0, 0\)"):
        EVERYTHING.update(prediction, truth, mask=mask, ids=ids)
    prediction[4, 1, 0, 0] = 0
    huge = prediction.astype(np.float64)
    huge[5] = 1e300
    with pytest.raises(DataError, match=r"statistic squared_error_of_mean of sample 2021-01-01T05 is not finite"):
        Suite(("rmse",)).update(huge, truth, mask=mask, ids=ids)


def test_mistakes_in_a_suite_are_answered() -> None:
    with pytest.raises(UserError, match="did you mean 'crps_fair'"):
        Suite(("crps_fiar",))
    with pytest.raises(UserError, match="'csi' needs thresholds"):
        Suite(("csi",))
    with pytest.raises(UserError, match="no metrics"):
        Suite(())
    with pytest.raises(UserError, match="did you mean 'thresholds'"):
        Suite.from_config({"metrics": ["csi"], "threshold": [1]})
    suite = Suite.from_config({"metrics": ["mae", "csi"], "thresholds": [1, 0.1]})
    assert list(suite.metrics) == ["mae", "csi_1", "csi_0.1"]


def test_shipped_suites_are_built() -> None:
    files = [item for item in resources.files("geoml.conf.metrics").iterdir() if item.name.endswith(".yaml")]
    assert files
    for item in files:
        suite = Suite.from_config(OmegaConf.create(item.read_text()))
        assert set(suite.evaluate(suite.update(*case()[:2], mask=case()[2], ids=np.arange(6)))) == set(suite.metrics)


def test_wrong_shapes_are_refused() -> None:
    prediction, truth, mask = case()
    for bad in (prediction[:, 0], prediction[:5], prediction[..., :3], prediction[:, :0]):
        with pytest.raises(ValueError, match="must be"):
            EVERYTHING.update(bad, truth, mask=mask, ids=np.arange(6))
    with pytest.raises(ValueError, match="expected bool"):
        EVERYTHING.update(prediction, truth, mask=mask.astype(int), ids=np.arange(6))
    with pytest.raises(ValueError, match="5,"):
        EVERYTHING.update(prediction, truth, mask=mask, ids=np.arange(5))
    with pytest.raises(DataError, match="not negative"):
        EVERYTHING.update(prediction, truth, mask=mask, ids=np.arange(6), weights=-1.0)


def test_nothing_valid_is_an_error_not_a_score() -> None:
    prediction, truth, mask = case()
    with pytest.raises(DataError, match="no valid cell"):
        scores(prediction, truth, np.zeros_like(mask))
    table = EVERYTHING.update(prediction, truth, mask=mask & (np.arange(6) != 2)[:, None, None], ids=np.arange(6))
    assert np.isnan(table.per_sample("crps")).tolist() == [False, False, True, False, False, False]


# --- the table ----------------------------------------------------------------------------------------------------


def test_table_survives_xarray_and_a_file(tmp_path) -> None:
    prediction, truth, mask = case()
    ids = np.datetime64("2021-01-01T00", "ns") + np.arange(6) * np.timedelta64(1, "h")
    table = EVERYTHING.update(prediction, truth, mask=mask, ids=ids)
    table.to_dataset().to_netcdf(tmp_path / "table.nc")
    with xr.open_dataset(tmp_path / "table.nc") as data:
        again = StatisticsTable.from_dataset(data.load())
    assert np.array_equal(again.sums, table.sums)
    assert np.array_equal(again.ids, table.ids)
    assert EVERYTHING.evaluate(again) == EVERYTHING.evaluate(table)
    with pytest.raises(DataError, match="weight missing"):
        StatisticsTable.from_dataset(table.to_dataset().drop_vars("weight"))


def test_groups_partition_the_average() -> None:
    prediction, truth, mask = case()
    table = EVERYTHING.update(prediction, truth, mask=mask, ids=np.arange(6))
    groups = table.group_by(np.array(["djf", "mam", "djf", "mam", "djf", "djf"]))
    assert {key: group.ids.tolist() for key, group in groups.items()} == {"djf": [0, 2, 4, 5], "mam": [1, 3]}
    expected = scores(prediction[[1, 3]], truth[[1, 3]], mask[[1, 3]])
    assert EVERYTHING.evaluate(groups["mam"]) == expected
    assert EVERYTHING.evaluate(merge(groups.values())) == EVERYTHING.evaluate(table)
    assert table.aligned([4, 1]).ids.tolist() == [1, 4]
    with pytest.raises(DataError, match="1 of 2 samples are not in the table, the first is 9"):
        table.aligned([4, 9])


def test_rmse_is_the_root_of_the_mean_not_the_mean_of_roots() -> None:
    suite = Suite(("rmse",))
    table = suite.update(np.array([[[3.0]], [[4.0]]]), np.zeros((2, 1)), ids=[0, 1])
    assert suite.evaluate(table)["rmse"] == pytest.approx(math.sqrt(12.5))


def test_skill_against_a_reference() -> None:
    prediction, truth, mask = case()
    table = EVERYTHING.update(prediction, truth, mask=mask, ids=np.arange(6))
    poor = EVERYTHING.update(prediction * 2, truth, mask=mask, ids=np.arange(6))
    expected = 1 - EVERYTHING.evaluate(table)["crps"] / EVERYTHING.evaluate(poor)["crps"]
    assert EVERYTHING.skill(table, poor, metric="crps") == pytest.approx(expected)
    assert EVERYTHING.skill(table, table) == 0
    with pytest.raises(DataError, match="not of the same samples"):
        EVERYTHING.skill(table, poor.select(slice(0, 5)))
    other = EVERYTHING.update(prediction, truth, mask=mask, weights=np.arange(1.0, 8.0), ids=np.arange(6))
    with pytest.raises(DataError, match="masks or weights"):
        EVERYTHING.skill(table, other)
    with pytest.raises(UserError, match="0 when perfect"):
        EVERYTHING.skill(table, poor, metric="correlation")


# --- theory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*range(1, 13)])
def test_sorting_network_sorts(size: int) -> None:
    # A network that sorts all lists of zeros and ones sorts all lists (Knuth, vol. 3, sect. 5.3.4, theorem Z).
    lists = (np.arange(2**size) >> np.arange(size)[:, None]) & 1
    for i, j in sorting_network(size):
        lists[[i, j]] = np.minimum(lists[i], lists[j]), np.maximum(lists[i], lists[j])
    assert (np.diff(lists, axis=0) >= 0).all()


@pytest.mark.parametrize("members", [2, 3, 8, 16, 33, 50, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_crps_agrees_with_scoringrules(members: int, dtype: type) -> None:
    rng = np.random.default_rng(members)
    x = (rng.normal(280, 20, (members, 700)) * rng.choice([0, -1, 1], (members, 700))).astype(dtype)
    y = rng.normal(280, 20, 700)
    mean, variance, error, difference = ensemble_terms(x, y)
    wide = x.T.astype(np.float64)
    for estimator, value in (
        ("nrg", error - difference / 2),
        ("fair", error - difference / 2 * members / (members - 1)),
    ):
        expected = scoringrules.crps_ensemble(y, wide, estimator=estimator, backend="numpy")
        np.testing.assert_allclose(value, expected, rtol=3e-6, atol=3e-6 * 280)
    np.testing.assert_allclose(mean, wide.mean(axis=1), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(variance, wide.var(axis=1, ddof=1), rtol=1e-10)


def gaussian_crps(mean: float, std: float, y: np.ndarray) -> np.ndarray:
    """Closed form (Gneiting et al. 2005, eq. 5)."""
    z = (y - mean) / std
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    cumulative = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    return std * (z * (2 * cumulative - 1) + 2 * density - 1 / math.sqrt(math.pi))


def test_crps_of_a_gaussian_ensemble_is_the_closed_form() -> None:
    rng = np.random.default_rng(5)
    y = np.linspace(-2, 5, 40)
    members = rng.normal(1.0, 1.5, (1, 2000, 40))
    suite = Suite(("crps", "crps_fair"))
    value = suite.evaluate(suite.update(members, y[None], ids=[0]))
    expected = gaussian_crps(1.0, 1.5, y).mean()
    assert value["crps_fair"] == pytest.approx(expected, rel=0.01)
    assert value["crps"] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("members", [2, 4, 8, 16])
def test_fair_crps_does_not_depend_on_the_number_of_members(members: int) -> None:
    rng = np.random.default_rng(members)
    cells = 100_000
    y = rng.normal(0, 1, cells)
    x = rng.normal(0.3, 0.8, (members, cells))
    _, _, error, difference = ensemble_terms(x, y)
    fair = error - difference / 2 * members / (members - 1)
    standard = error - difference / 2
    # y − x ~ N(−0.3, 1 + 0.8²): the expectation of |y − x| less half that of |x − x'| = 2·0.8/√π.
    std = math.hypot(1, 0.8)
    folded = std * math.sqrt(2 / math.pi) * math.exp(-(0.3**2) / (2 * std**2)) + 0.3 * math.erf(
        0.3 / (std * math.sqrt(2))
    )
    gmd = 2 * 0.8 / math.sqrt(math.pi)
    expected = folded - gmd / 2
    assert abs(fair.mean() - expected) < 4 * fair.std() / math.sqrt(cells)
    assert abs(standard.mean() - expected - gmd / (2 * members)) < 4 * standard.std() / math.sqrt(cells)


@settings(max_examples=40, deadline=None)
@given(members=st.integers(2, 20), seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_bounds_and_identity_of_the_two_estimators(members: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = scale * rng.gamma(0.5, 1, (members, 30)), scale * rng.gamma(0.5, 1, 30)
    suite = Suite(("crps", "crps_fair", "mae"))
    value = suite.evaluate(suite.update(x[None], y[None], ids=[0]))
    _, _, error, difference = ensemble_terms(x, y)
    crps = error - difference / 2
    assert (crps >= -1e-12 * scale).all()
    assert (crps <= error + 1e-12 * scale).all()
    gmd = difference.mean() * members / (members - 1)
    assert value["crps"] - value["crps_fair"] == pytest.approx(gmd / (2 * members), rel=1e-9, abs=1e-12 * scale)


def test_one_member_is_a_point_forecast() -> None:
    prediction, truth, mask = case(members=1)
    value = scores(prediction, truth, mask)
    assert value["crps"] == value["crps_fair"] == value["mae"]
    assert value["spread"] == value["spread_skill"] == 0


@pytest.mark.parametrize("members", [2, 8])
def test_exchangeable_ensemble_has_spread_skill_1(members: int) -> None:
    rng = np.random.default_rng(members)
    signal = rng.normal(0, 2, (20, 1, 5000))
    drawn = signal + rng.normal(0, 1.3, (20, members + 1, 5000))
    suite = Suite(("spread_skill", "spread", "rmse"))
    value = suite.evaluate(suite.update(drawn[:, 1:], drawn[:, 0], ids=np.arange(20)))
    assert value["spread_skill"] == pytest.approx(1, abs=0.02)
    assert value["spread"] == pytest.approx(1.3, rel=0.02)
    assert value["rmse"] == pytest.approx(1.3 * math.sqrt(1 + 1 / members), rel=0.02)


def test_contingency_table_by_hand() -> None:
    truth = np.array([[1.0, 1.0, 1.0, 0.0, 0.0, 1.0]])
    prediction = np.array([[[1.0, 2.0, 0.0, 1.0, 0.0, 0.9]]])  # 2 hits, 2 misses, 1 false alarm
    suite = Suite(("csi", "frequency_bias", "exceedance_bias"), thresholds=(1,))
    value = suite.evaluate(suite.update(prediction, truth, ids=[0]))
    assert value == pytest.approx({"csi_1": 2 / 5, "frequency_bias_1": 3 / 4, "exceedance_bias_1": -1 / 6})
    none = suite.evaluate(suite.update(prediction * 0, truth * 0, ids=[0]))
    assert math.isnan(none["csi_1"])
    assert math.isnan(none["frequency_bias_1"])


def test_area_weights_of_a_latitude_grid_give_the_mean_over_the_sphere() -> None:
    # The mean of sin² of the latitude over a sphere is 1/3; over latitudes taken alike it would be 1/2.
    edges = np.radians(np.linspace(-90, 90, 181))
    lat = (edges[1:] + edges[:-1]) / 2
    area = np.diff(np.sin(edges))[:, None]
    error = np.broadcast_to(np.sin(lat)[:, None], (180, 4))
    suite = Suite(("rmse", "bias"))
    value = suite.evaluate(suite.update(error[None, None], np.zeros((1, 180, 4)), weights=area, ids=[0]))
    assert value["rmse"] ** 2 == pytest.approx(1 / 3, rel=1e-3)
    assert value["bias"] == pytest.approx(0, abs=1e-12)


def test_correlation_with_a_constant_is_undefined() -> None:
    truth = np.random.default_rng(0).random((3, 40)).astype(np.float32)
    for constant in (0.1, 273.15):
        prediction = np.full((3, 1, 40), constant, np.float32)
        assert math.isnan(scores(prediction, truth)["correlation"])


def test_pointwise_scores_against_numpy() -> None:
    prediction, truth, mask = case()
    mean = prediction.astype(np.float64).mean(axis=1)
    x, y = mean[mask], truth[mask].astype(np.float64)
    value = scores(prediction, truth, mask)
    assert value["mae"] == pytest.approx(np.abs(x - y).mean())
    assert value["rmse"] == pytest.approx(np.sqrt(np.square(x - y).mean()))
    assert value["bias"] == pytest.approx((x - y).mean())
    assert value["mean_ratio"] == pytest.approx(x.mean() / y.mean())
    assert value["correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)

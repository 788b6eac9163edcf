"""A suite and its table: what they hold, and what they answer to mistakes."""

from __future__ import annotations

import math
from importlib import resources

import numpy as np
import pytest
import xarray as xr
from omegaconf import OmegaConf

from geoml.errors import DataError, UserError
from geoml.metrics import METRICS, StatisticsTable, Suite, merge

NAMES = ("crps_fair", "crps", "mae", "rmse", "correlation", "spread_skill", "csi")
EVERYTHING = Suite(NAMES, thresholds=(0.5, 2.0))


def test_unexpected_nan_is_named(case) -> None:
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
    with pytest.raises(UserError, match=r"metrics of the metrics is 'mae'; expected a list: metrics=\[mae\]"):
        Suite.from_config({"metrics": "mae"})
    with pytest.raises(UserError, match=r"expected a list: thresholds=\[5\]"):
        Suite.from_config({"metrics": ["csi"], "thresholds": 5})
    suite = Suite.from_config({"metrics": ["mae", "csi"], "thresholds": [1, 0.1]})
    assert list(suite.metrics) == ["mae", "csi_1", "csi_0.1"]


def test_shipped_suites_are_built(case) -> None:
    files = [item for item in resources.files("geoml.conf.metrics").iterdir() if item.name.endswith(".yaml")]
    assert {"default.yaml", "scorecard.yaml", "sequences.yaml"} <= {item.name for item in files}
    times = np.datetime64("2021-01-01T00", "h") + np.arange(6)
    for item in files:
        suite = Suite.from_config(OmegaConf.create(item.read_text()))
        prediction, truth, mask = case()
        assert set(suite.evaluate(suite.update(prediction, truth, mask=mask, ids=times))) == set(suite.metrics)


def test_shipped_suites_know_every_metric() -> None:
    listed = [
        OmegaConf.create((resources.files("geoml.conf.metrics") / f"{name}.yaml").read_text()).metrics
        for name in ("scorecard", "sequences")
    ]
    assert sorted(listed[0] + listed[1]) == sorted(METRICS)


def test_wrong_shapes_are_refused(case) -> None:
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


def test_nothing_valid_is_an_error_not_a_score(scores, case) -> None:
    prediction, truth, mask = case()
    with pytest.raises(DataError, match="no valid cell"):
        scores(EVERYTHING, prediction, truth, np.zeros_like(mask))
    table = EVERYTHING.update(prediction, truth, mask=mask & (np.arange(6) != 2)[:, None, None], ids=np.arange(6))
    assert (table.weights[:, table.names.index("crps")] == 0).tolist() == [False, False, True, False, False, False]


def test_table_survives_xarray_and_a_file(case, tmp_path) -> None:
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


def test_groups_partition_the_average(scores, case) -> None:
    prediction, truth, mask = case()
    table = EVERYTHING.update(prediction, truth, mask=mask, ids=np.arange(6))
    season = np.array(["djf", "mam", "djf", "mam", "djf", "djf"])
    groups = {name: table.select(season == name) for name in ("djf", "mam")}
    expected = scores(EVERYTHING, prediction[[1, 3]], truth[[1, 3]], mask[[1, 3]])
    assert EVERYTHING.evaluate(groups["mam"]) == expected
    assert EVERYTHING.evaluate(merge(groups.values())) == EVERYTHING.evaluate(table)
    assert table.aligned([4, 1]).ids.tolist() == [1, 4]
    with pytest.raises(DataError, match="1 of 2 samples are not in the table, the first is 9"):
        table.aligned([4, 9])


def test_rmse_is_the_root_of_the_mean_not_the_mean_of_roots() -> None:
    suite = Suite(("rmse",))
    table = suite.update(np.array([[[3.0]], [[4.0]]]), np.zeros((2, 1)), ids=[0, 1])
    assert suite.evaluate(table)["rmse"] == pytest.approx(math.sqrt(12.5))


def test_skill_against_a_reference(case) -> None:
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

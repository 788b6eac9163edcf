"""`geoml.scores` against what others compute: scoringrules, numpy by hand, and the suites of the verbs."""

import dask.array as da
import numpy as np
import pytest
import scoringrules
import xarray as xr

import geoml
from geoml.errors import DataError, UserError
from geoml.metrics import Suite


@pytest.fixture
def fields():
    rng = np.random.default_rng(3)
    coords = {
        "time": np.datetime64("2021-01-01", "ns") + np.arange(6) * np.timedelta64(1, "h"),
        "lat": 40 + 0.5 * np.arange(8),
        "lon": 5 + 0.5 * np.arange(9),
    }
    truth = xr.DataArray(rng.gamma(0.5, 2, (6, 8, 9)), coords, tuple(coords), attrs={"units": "mm h-1"})
    rain = xr.DataArray(rng.gamma(0.5, 2, (5, 6, 8, 9)), coords, ("member", *coords))
    return truth, rain


def test_they_are_those_of_scoringrules_and_numpy(fields):
    truth, rain = fields
    each = scoringrules.crps_ensemble(truth.values, rain.values, m_axis=0, estimator="nrg")
    fair = scoringrules.crps_ensemble(truth.values, rain.values, m_axis=0, estimator="fair")
    np.testing.assert_allclose(geoml.scores.crps(truth, rain, member="member"), each.mean())
    np.testing.assert_allclose(geoml.scores.crps_fair(truth, rain, over=("lat", "lon")), fair.mean((1, 2)))
    over_time = geoml.scores.crps(truth, rain, over="time")
    assert over_time.dims == ("lat", "lon")
    np.testing.assert_allclose(over_time, each.mean(0))
    error = rain.mean("member") - truth
    np.testing.assert_allclose(geoml.scores.rmse(truth, rain), np.sqrt((error**2).mean()))
    area = np.diff(np.sin(np.radians(39.75 + 0.5 * np.arange(9))))
    np.testing.assert_allclose(
        geoml.scores.mae(truth, rain, weights="area"), abs(error).mean(("time", "lon")).weighted(
            xr.DataArray(area, dims="lat")).mean()
    )  # fmt: skip
    assert geoml.scores.crps(truth, rain).attrs["units"] == "mm h-1"


def test_order_of_dims_and_places_does_not_matter(fields):
    truth, rain = fields
    suite = {"metrics": ["crps_fair", "fss", "ralsd", "diurnal_error", "csi"], "thresholds": [1.0], "windows": [2]}
    plain = geoml.scores.scorecard(truth, rain, **suite)
    turned = (
        rain.transpose("lon", "member", "lat", "time").isel(lat=slice(None, None, -1)).sortby("time", ascending=False)
    )
    xr.testing.assert_allclose(
        plain, geoml.scores.scorecard(truth, turned.rename(member="number"), member="number", **suite)
    )
    lazy = geoml.scores.scorecard(truth.chunk({"time": 2}), rain.chunk({"time": 4, "member": 2}), **suite)
    xr.testing.assert_allclose(plain, lazy)
    assert isinstance(rain.chunk().data, da.Array)
    by_hand = Suite.from_config(suite)
    table = by_hand.update(rain.transpose("time", "member", ...).values, truth.values, ids=truth["time"].values)
    for name, value in by_hand.evaluate(table).items():
        assert float(plain[name]) == pytest.approx(value), name


def test_what_is_unknown_does_not_count(fields):
    truth, rain = fields
    known = truth.where(truth["lat"] > 41)
    np.testing.assert_allclose(
        geoml.scores.crps(known, rain),
        geoml.scores.crps(*(a.where(truth["lat"] > 41, drop=True) for a in (truth, rain))),
    )
    with pytest.raises(DataError, match="not masked"):
        geoml.scores.crps(truth, rain.where(rain["lat"] > 41))


def test_sequences(fields):
    truth, rain = fields
    found = geoml.scores.lag1_error(truth, rain)
    x, y = (
        (a.stack(cell=("lat", "lon")) if "member" not in a.dims else a.stack(cell=("lat", "lon", "member")))
        for a in (rain, truth)
    )
    r = [
        np.corrcoef(a.isel(time=slice(None, -1)).values.ravel(), a.isel(time=slice(1, None)).values.ravel())[0, 1]
        for a in (x, y)
    ]
    assert float(found) == pytest.approx(r[0] - r[1], abs=1e-6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda t, p: geoml.scores.csi(t, p), "csi needs a threshold"),
        (lambda t, p: geoml.scores.mae(t, p, over="height"), "over names 'height'"),
        (lambda t, p: geoml.scores.fss(t, p, threshold=1, window=2, over="time"), "whole fields"),
        (lambda t, p: geoml.scores.mae(t, p, member="number"), "dims differ"),
        (lambda t, p: geoml.scores.mae(t, p.isel(lat=slice(2, None))), "'lat' has size 8"),
        (lambda t, p: geoml.scores.mae(t, p.assign_coords(lat=p["lat"] + 0.2)), "'lat' differs"),
        (lambda t, p: geoml.scores.scorecard(t, p, metrics="scorcard"), "did you mean 'scorecard'"),
        (lambda t, p: geoml.scores.scorecard(t, p, metrics=["csi"]), "thresholds"),
        (lambda t, p: geoml.scores.mae(p, t), "pass the truth first"),
    ],
)
def test_what_cannot_be_scored_is_said(fields, call, said):
    with pytest.raises(UserError, match=said):
        call(*fields)


def test_grids_may_be_xarray(fields):
    truth, _ = fields
    coarse = geoml.Grid.latlon(39.75, 43.75, 4.75, 8.75, 1.0)
    here = geoml.Regridder(truth, coarse)(truth)
    assert here.dims == ("time", "lat", "lon")
    back = geoml.Regridder(here, truth, "bilinear")(here)
    np.testing.assert_allclose(back["lat"], truth["lat"])
    assert dir(geoml) == ["Grid", "Regridder", "scores"]

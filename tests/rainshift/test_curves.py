"""Curves behind the scores: pooled over regions as their definitions say, and the pictures made of them."""

from __future__ import annotations

import numpy as np
import pytest

from geoml.metrics import Suite
from rainshift.benchmarking.analysis import Analysis
from rainshift.benchmarking.curves import calibration, gather, spectral_ratio
from rainshift.benchmarking.plan import BenchmarkPlan, Cell
from rainshift.benchmarking.transfer import between, transfer_losses, transfer_test
from rainshift.evaluation import Scores
from rainshift.report.figures import calibration_chart, heat_maps, rain_viewer, spectrum_chart, transfer_chart
from rainshift.training import TrainSet

SUITE = Suite(("crps_fair", "rank_deviation", "reliability", "ralsd"), thresholds=(1.0,))
TIMES = np.datetime64("2001-01-01", "h") + np.arange(40)
HOME, AWAY = TrainSet(("a", "b"), 8), TrainSet(("b",), 8)


def scored(prediction: np.ndarray, truth: np.ndarray, *, clipped: float = 0.0) -> Scores:
    return Scores(SUITE.update(prediction, truth, ids=TIMES), prediction.shape[1], clipped)


def case(seed: int = 0) -> tuple[BenchmarkPlan, dict[Cell, Scores]]:
    """A fixed row that doubles the truth, and an ensemble that is perfect at home and diverged away."""
    rng = np.random.default_rng(seed)
    scores, cells = {}, []
    for region in ("a", "b"):
        truth = rng.gamma(0.5, 2.0, (40, 16, 16))
        doubled, home, away = (Cell("doubled", None, region), Cell("net", HOME, region), Cell("net", AWAY, region))
        scores[doubled] = scored(2 * truth[:, None], truth)
        scores[home] = scored(np.repeat(truth[:, None], 4, axis=1), truth)
        scores[away] = scored(rng.gamma(0.5, 2.0, (40, 4, 16, 16)), truth, clipped=0.5)
        cells += [doubled, home, away]
    return BenchmarkPlan(tuple(cells), {"a": AWAY, "b": AWAY}, {"a": HOME, "b": HOME}), scores


def test_curves_keep_sides_apart_and_leave_out_what_diverged() -> None:
    plan, scores = case()
    curves = gather(plan, scores, Analysis(SUITE))
    assert list(curves["distribution"].values) == ["in", "out"]
    power = curves["ralsd.predicted"].sel(model="net")
    assert np.isfinite(power.sel(distribution="in")).all()
    assert np.isnan(power.sel(distribution="out")).all()
    fixed = curves["ralsd.predicted"].sel(model="doubled")
    np.testing.assert_array_equal(fixed.sel(distribution="in"), fixed.sel(distribution="out"))


def test_a_doubled_field_has_four_times_the_power_at_every_wave() -> None:
    ratio = spectral_ratio(gather(*case(), Analysis(SUITE)))
    np.testing.assert_allclose(ratio.sel(model="doubled").dropna("wavenumber"), 10 * np.log10(4), atol=1e-6)
    np.testing.assert_allclose(ratio.sel(model="net", distribution="in").dropna("wavenumber"), 0, atol=1e-6)


def test_reliability_of_all_regions_is_that_of_their_cells_together() -> None:
    plan, scores = case()
    pooled = calibration(gather(plan, scores, Analysis(SUITE)), "reliability_1")
    perfect = pooled.sel(model="net", distribution="in").dropna("probability")
    np.testing.assert_allclose(perfect["observed"], perfect["forecast"])
    # Twice the truth is above the threshold wherever the truth is above half of it.
    rng = np.random.default_rng(0)
    first = rng.gamma(0.5, 2.0, (40, 16, 16))
    rng.gamma(0.5, 2.0, (40, 4, 16, 16))
    second = rng.gamma(0.5, 2.0, (40, 16, 16))
    truth = np.stack([first, second])
    forecast = truth >= 0.5
    sure = pooled.sel(model="doubled", distribution="in", probability=1.0)
    assert float(sure["observed"]) == pytest.approx((truth >= 1)[forecast].mean())
    assert float(sure["share"]) == pytest.approx(forecast.mean())


def test_charts_have_a_line_per_model_and_side() -> None:
    curves = gather(*case(), Analysis(SUITE))
    chart = calibration_chart(curves, {"net": "#0072b2"})
    assert chart is not None
    assert len(chart.subplots) == 4
    assert calibration_chart(curves, {}) is None
    spectra = spectrum_chart(curves, {"doubled": "#0072b2", "net": "#d55e00"})
    assert spectra is not None
    assert [[line.name for line in part.content] for part in spectra.subplots] == [["doubled", "net", ""]] * 2
    doubled = spectra.subplots[0].content[0]
    np.testing.assert_allclose(doubled.y, 10 * np.log10(4), atol=1e-6)
    assert spectrum_chart(curves.drop_vars(["ralsd.predicted"]), {"net": "#0072b2"}) is None


def test_transfer_maps_show_per_cents_of_each_pair() -> None:
    import xarray as xr

    names = list("abcd")
    scores = np.add.outer(np.arange(4.0), np.arange(4.0)) + 1 + 3 * (1 - np.eye(4))
    results = xr.Dataset(
        {"matrix": (("metric", "model", "train_set", "test_region", "seed"), scores[None, None, ..., None])},
        {"metric": ["crps_fair"], "model": ["net"], "train_set": names, "test_region": names, "seed": [0]},
        {"skill_metric": "crps_fair", "networks": ["net"]},
    )
    losses = transfer_losses(results)
    assert float(losses.sel(model="net", region="a", other="b")) == pytest.approx(100 * (5 / 1 - 1))
    shown = heat_maps(losses, unit="%", diverging=True).subplots[0]
    assert (shown.x.title, shown.y.title) == ("tested on", "trained on")
    assert shown.content.values[1, 0] == pytest.approx(400)
    distance = losses.sel(model="net", drop=True).expand_dims(variable=["tp"])
    shifts = xr.Dataset({"between_wasserstein": distance})
    found = transfer_test(shifts, losses)
    assert found is not None
    assert found.correlation == pytest.approx(1)
    first = transfer_chart(*between(shifts, losses)).subplots[0].content[0]
    assert first.name == "tested on a"
    np.testing.assert_allclose(first.y, losses.sel(model="net", region="a", other=["b", "c", "d"]))
    np.testing.assert_array_equal(first.x, first.y)
    assert transfer_test(shifts.isel(region=slice(3)), losses.isel(region=slice(3), other=slice(3))) is None
    failed = losses.where((losses["region"] != "a") | (losses["other"] != "b")).assign_coords(model=["failed"])
    both = xr.concat([losses, failed], "model")
    assert transfer_test(shifts, both) is None  # means of other models for one pair than for the rest


def test_times_closer_than_an_hour_stand_apart_in_the_viewer() -> None:
    import xarray as xr

    times = np.datetime64("2016-08-01T10:00", "ns") + np.arange(4) * np.timedelta64(15, "m")
    rain = np.arange(4.0)[:, None, None] * np.ones((4, 3, 5))
    data = xr.Dataset(
        {"target": (("time", "lat", "lon"), rain)},
        {"time": times, "lat": np.arange(3.0), "lon": np.arange(5.0)},
        {"wettest": str(times[2]), "region": "event"},
    )
    viewer = rain_viewer({"event": data})
    axis = next(axis for axis in viewer.axes if axis.name == "time")
    assert (list(axis.values), axis.start) == (["-30 min", "-15 min", "+0 h", "+15 min"], 2)
    assert {f.place["time"]: float(f.values[0, 0]) for f in viewer.fields} == dict(
        zip(axis.values, range(4), strict=True)
    )

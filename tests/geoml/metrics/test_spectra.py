"""Spectra of waves, of noise, and against masks ring by ring; the variogram score of ramps."""

from __future__ import annotations

import numpy as np
import pytest
import scoringrules

from geoml.metrics import Suite
from geoml.metrics.spectra import ralsd, rapsd
from geoml.metrics.variogram import LAGS


@pytest.mark.parametrize("shape", [(16, 16), (15, 15), (16, 17), (12, 20), (21, 6), (7, 1), (2, 2)])
def test_rapsd_is_the_mean_of_each_ring_of_the_whole_plane(shape: tuple[int, int]) -> None:
    field = np.random.default_rng(0).normal(size=shape)
    power = np.abs(np.fft.fft2(field)) ** 2 / field.size
    radius = max(shape) * np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))
    made = rapsd(field)
    assert len(made) == (max(shape) + 1) // 2
    for k, value in enumerate(made):
        assert value == pytest.approx(power[np.rint(radius) == k].mean(), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spectra_of_many_fields_in_any_layout_are_those_of_each(dtype: type) -> None:
    fields = np.random.default_rng(0).normal(size=(13, 2, 3, 18)).astype(dtype).transpose(2, 1, 0, 3)[:, :, :, ::2]
    made = rapsd(fields)
    assert made.shape == (3, 2, 7)
    for i, j in np.ndindex(3, 2):
        assert np.array_equal(made[i, j], rapsd(np.ascontiguousarray(fields[i, j], np.float64)))
    fields[1, 0, 4, 4] = np.nan
    assert np.isnan(rapsd(fields)[1, 0]).all()
    assert np.isfinite(rapsd(fields)[0]).all()


@pytest.mark.parametrize("k", [1, 3, 7])
def test_a_wave_has_all_its_power_at_its_wavenumber(k: int) -> None:
    wave = np.sin(2 * np.pi * k * np.arange(32) / 32)[:, None] * np.ones(32)
    spectrum = rapsd(wave)
    assert spectrum.argmax() == k
    assert np.delete(spectrum, k).max() < 1e-20 * spectrum[k]
    ring = np.rint(32 * np.hypot(*np.meshgrid(*[np.fft.fftfreq(32)] * 2))) == k
    assert spectrum[k] * ring.sum() == pytest.approx(np.square(wave).sum(), rel=1e-12)  # Parseval


def test_white_noise_is_flat_and_noise_of_a_slope_has_it() -> None:
    rng = np.random.default_rng(0)
    white = rapsd(rng.normal(0, 2, (400, 32, 32))).mean(axis=0)
    assert white[1:] == pytest.approx(4.0, rel=0.1)
    k = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64))
    k[0, 0] = np.inf
    red = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(100, 64, 64))) * k**-1.5)
    spectrum = rapsd(red).mean(axis=0)
    slope = np.polyfit(np.log(np.arange(4, 32)), np.log(spectrum[4:]), 1)[0]
    assert slope == pytest.approx(-3, abs=0.1)


def test_ralsd_of_a_factor_is_the_factor_in_db() -> None:
    field = np.random.default_rng(0).normal(size=(24, 24))
    assert ralsd(np.sqrt(2) * field, field) == pytest.approx(10 * np.log10(2), rel=1e-12)
    assert ralsd(field + 7, field) == pytest.approx(0, abs=1e-6)  # wavenumber 0 is left out
    assert ralsd(np.zeros((8, 8)), np.random.default_rng(0).normal(size=(8, 8))) == np.inf
    assert np.isnan(ralsd(np.zeros((8, 8)), np.ones((8, 8))))


def test_spectra_are_averaged_before_the_logarithm_and_members_are_not_averaged() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 4, 16, 16)), rng.normal(size=(5, 16, 16))
    x[0], y[0] = 0, 0  # a dry sample harms nothing
    suite = Suite(("ralsd",))
    table = suite.update(x, y, ids=np.arange(5))
    predicted, observed = rapsd(x).mean(axis=(0, 1))[1:], rapsd(y).mean(axis=0)[1:]
    expected = np.sqrt(np.mean(np.square(10 * np.log10(predicted / observed))))
    assert suite.evaluate(table)["ralsd"] == pytest.approx(expected, rel=1e-9)
    curve = suite.curves(table)["ralsd"]
    np.testing.assert_allclose(curve["predicted"], predicted)
    np.testing.assert_allclose(curve["observed"], observed)
    smooth = suite.evaluate(suite.update(x.mean(axis=1, keepdims=True), y, ids=np.arange(5)))["ralsd"]
    assert smooth == pytest.approx(10 * np.log10(4), abs=1)


def test_variogram_score_of_ramps_is_the_closed_form() -> None:
    # |xᵢ − xⱼ| of a ramp along x is slope × dx, whatever the place: all pairs of a lag have one value.
    ramp = np.arange(12.0) * np.ones((10, 1))
    suite = Suite(("variogram_score",))
    value = suite.evaluate(suite.update((4 * ramp)[None, None], ramp[None], ids=[0]))["variogram_score"]
    pairs = np.array([(10 - dy) * (12 - abs(dx)) / np.hypot(dy, dx) for dy, dx in LAGS])
    wrong = np.array([(np.sqrt(4 * abs(dx)) - np.sqrt(abs(dx))) ** 2 for _, dx in LAGS])
    assert value == pytest.approx((pairs * wrong).sum() / pairs.sum(), rel=1e-12)
    same = suite.evaluate(suite.update((ramp + 9)[None, None], ramp[None], ids=[0]))["variogram_score"]
    assert same == pytest.approx(0, abs=1e-12)


def test_variogram_score_agrees_with_scoringrules() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.gamma(0.5, 2, (5, 6, 7)), rng.gamma(0.5, 2, (6, 7))
    at = np.stack(np.meshgrid(np.arange(6), np.arange(7), indexing="ij"), -1).reshape(-1, 2)
    apart = at[None] - at[:, None]
    weights = np.zeros((42, 42))
    for lag in LAGS:
        weights[(apart == lag).all(axis=-1)] = 1 / np.hypot(*lag)
    expected = scoringrules.vs_ensemble(y.ravel(), x.reshape(5, -1), w=weights, m_axis=0, p=0.5, backend="numpy")
    suite = Suite(("variogram_score",))
    value = suite.evaluate(suite.update(x[None], y[None], ids=[0]))["variogram_score"]
    assert value * weights.sum() == pytest.approx(float(expected), rel=1e-9)

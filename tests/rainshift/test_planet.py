"""The synthetic planet obeys its climates: every number of the YAML that can be measured is."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from geoml.errors import UserError
from geoml.regrid import Regridder
from rainshift.places.climate import Climate
from rainshift.places.regions import region, regions
from rainshift.planet.latent import BLOCK_HOURS, Drift, SpectralField, isotropic, ring
from rainshift.planet.rainfall import WET_MM_H, RainLaw, rate, shifted_probability
from rainshift.planet.weather import COARSE_PAD, FINE_PAD, PREDICTORS
from rainshift.sources import open_source
from rainshift.sources.synthetic import SyntheticSource, block_starts

PERFECT = {"analysis_bias": 1.0, "analysis_noise": 0.0, "analysis_shift_km": 0.0}
STILL = Drift(0, "still", (0.0, 0.0), 0.0)


def _field(**changes):
    values = {
        "seed": 1, "key": "field", "shape": (96, 96), "spacing_km": (11.0, 11.0), "spectrum": isotropic(3.0, 400.0),
        "drift": STILL, "life_hours": 12.0, "life_km": 400.0, "wander_deg": 0.0,
    }  # fmt: skip
    return SpectralField(**{**values, **changes})


# ---- latent fields


def test_latent_fields_are_standard_normal_at_every_hour_of_a_block():
    field = _field(shape=(48, 48), spectrum=ring(80.0))
    hours = np.array([list(field.fields(block)) for block in range(40)])
    variance = hours.var(axis=(0, 2, 3))  # of each hour of the day over 40 independent days
    assert abs(hours.mean()) < 0.01
    np.testing.assert_allclose(variance, 1.0, atol=0.06)
    assert stats.kstest(hours[:, ::8, ::12, ::12].ravel(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("slope", [2.0, 3.0])
def test_spectral_slope(slope):
    field = _field(shape=(128, 128), spectrum=isotropic(slope, 1000.0))
    power = sum(np.abs(spectrum) ** 2 for block in range(4) for spectrum in field.block(block))
    north, east = np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None, :]
    radius = np.hypot(north, east)
    edges = np.geomspace(0.03, 0.45, 12)
    middles = np.sqrt(edges[1:] * edges[:-1])
    density = [power[(radius >= a) & (radius < b)].mean() for a, b in itertools.pairwise(edges)]
    fitted = np.polyfit(np.log(middles), np.log(np.array(density) * middles), 1)[0]
    assert fitted == pytest.approx(-slope, abs=0.12)


def test_fields_move_with_the_wind_and_across_block_boundaries():
    kilometres = 2 * 11.0
    field = _field(drift=Drift(0, "wind", (kilometres / 3.6, -kilometres / 3.6), 0.0))
    hours = np.array([*field.fields(5), *field.fields(6)])

    def correlation(hour, rows, columns):
        moved = np.roll(hours[hour + 1], (-rows, -columns), (0, 1))
        return np.corrcoef(hours[hour].ravel(), moved.ravel())[0, 1]

    for hour in (0, 10, BLOCK_HOURS - 1, BLOCK_HOURS):
        assert correlation(hour, -2, 2) > 0.85
        assert correlation(hour, -2, 2) > correlation(hour, 0, 0) + 0.05
        assert correlation(hour, -2, 2) > correlation(hour, 2, -2) + 0.1


def test_bands_lie_along_their_angle():
    field = _field(anisotropy=4.0, band_angle_deg=0.0)
    fields = np.array(list(field.fields(0)))
    along = (fields * np.roll(fields, 6, 2)).mean()
    across = (fields * np.roll(fields, 6, 1)).mean()
    assert along > across + 0.2


# ---- rates


def test_rates_have_their_law():
    normal = np.random.default_rng(0).standard_normal(400_000)
    rain = rate(normal, 0.2, 3.0, 0.7)
    wet = rain[rain > 0]
    assert len(wet) / len(rain) == pytest.approx(0.2, abs=0.003)
    assert wet.min() >= WET_MM_H
    assert wet.mean() == pytest.approx(3.0, rel=0.02)
    scale = (3.0 - WET_MM_H) / special.gamma(1 + 1 / 0.7)
    assert stats.kstest(wet - WET_MM_H, stats.weibull_min(0.7, scale=scale).cdf).pvalue > 1e-3


def test_shifts_keep_the_mean_probability():
    shift = np.random.default_rng(1).gamma(0.3, 2.0, (140, 140)) - 1
    for mean in (0.01, 0.2, 0.6):
        assert shifted_probability(mean, shift).mean() == pytest.approx(mean, rel=0.1)


def test_law_gives_wet_fraction_and_convective_share():
    for name, found in regions().items():
        climate, law = found.climate, RainLaw.of(found.climate)
        amounts = law.stratiform * climate.stratiform_mm_h, law.convective * climate.convective_mm_h
        assert amounts[1] / sum(amounts) == pytest.approx(climate.convective_share, rel=1e-6), name
        covariance = [[1, climate.organisation], [climate.organisation, 1]]
        dry = stats.multivariate_normal([0, 0], covariance).cdf(
            [-special.ndtri(law.stratiform), -special.ndtri(law.convective)]
        )
        assert 1 - dry == pytest.approx(climate.wet_fraction, abs=1e-4), name


# ---- weather


@pytest.fixture(scope="module")
def year():
    """Days spread over a year in three unlike regions, 5 degrees wide: {name: (weather, rain, predictors)}."""
    source = SyntheticSource(seed=3, size_deg=5, climate={**PERFECT, "wind_spread_m_s": 2.0})
    found = {}
    for name in ("europe_west", "melanesia", "west-africa"):
        weather = source.weather(name)
        blocks = [weather.block(int(day)) for day in block_starts("2001-01-01", "2005-01-01", 26 * 24)]
        found[name] = (weather, np.array([b.rain for b in blocks]), np.array([b.predictors for b in blocks]))
    return found


def test_wet_fraction_of_the_year(year):
    for name, (weather, rain, _) in year.items():
        assert (rain > 0).mean() == pytest.approx(weather.climate.wet_fraction, rel=0.2), name


def test_convective_share_and_tail_order_the_regions(year):
    share, heavy = {}, {}
    for name, (weather, rain, predictors) in year.items():
        means = {key: predictors[:, :, PREDICTORS.index(key)].mean() for key in ("tp", "cp")}
        share[name] = means["cp"] / means["tp"]
        assert share[name] == pytest.approx(weather.climate.convective_share, abs=0.1), name
        heavy[name] = np.quantile(rain[rain > 0], 0.999) / rain[rain > 0].mean()
    assert heavy["west-africa"] > heavy["europe_west"]


def test_diurnal_peak_comes_at_its_hour(year):
    weather, rain, _ = year["west-africa"]
    convective = rain > 5.0
    land = weather.land.lsm[FINE_PAD:-FINE_PAD, FINE_PAD:-FINE_PAD] == 1
    by_hour = convective[..., land].mean(axis=(0, 2))
    angle = 2 * np.pi * np.arange(24) / 24
    peak = np.angle((by_hour * np.exp(1j * angle)).sum()) * 24 / (2 * np.pi)
    longitude = weather.fine["lon"].coordinates.mean() / 15
    difference = (peak + longitude - weather.climate.diurnal_peak_hour + 12) % 24 - 12
    assert abs(difference) < 2


def test_rain_moves_with_the_wind(year):
    rain = year["west-africa"][1]  # westwards at 9 m/s: 3 pixels an hour
    logs = np.log1p(rain[:30])

    def together(shift):
        earlier, later = logs[:, :-1], logs[:, 1:]
        if shift > 0:
            return np.corrcoef(earlier[..., :-shift].ravel(), later[..., shift:].ravel())[0, 1]
        return np.corrcoef(earlier[..., -shift:].ravel(), later[..., :shift].ravel())[0, 1]

    assert together(-3) > together(3) + 0.1


def test_without_error_coarse_rain_is_the_exact_mean(year):
    for weather, rain, predictors in year.values():
        inside = weather.coarse.crop(lat=slice(0, -1), lon=slice(1, None))  # rim cells reach beyond the fine box
        mean = Regridder(weather.fine, inside)(rain[:4])
        tp = predictors[:4, :, PREDICTORS.index("tp"), :-1, 1:]
        np.testing.assert_allclose(tp, mean, atol=2e-5)


def test_mountains_catch_rain_on_the_windward_side():
    source = SyntheticSource(seed=1, size_deg=6, climate={"wind_spread_m_s": 0.0, "convective_share": 0.05})
    weather = source.weather("northamerica-west")
    days = block_starts("2001-01-01", "2003-01-01", 14 * 24)
    rain = np.mean([weather.block(int(day)).rain for day in days], axis=(0, 1))
    inner = slice(FINE_PAD, -FINE_PAD)
    climate = weather.climate
    slopes = weather.land.slope_east[inner, inner], weather.land.slope_north[inner, inner]
    lift = climate.wind_east_m_s * slopes[0] + climate.wind_north_m_s * slopes[1]
    assert rain[lift > 0.03].mean() > 2 * rain[lift < -0.03].mean()


def test_predictors_are_plausible(year):
    for name, (weather, _, predictors) in year.items():
        field = dict(zip(PREDICTORS, np.moveaxis(predictors, 2, 0), strict=True))
        assert np.isfinite(predictors).all(), name
        for key in ("cape", "cp", "tclw", "tcw", "tisr", "tp"):
            assert field[key].min() >= 0, (name, key)
        assert (field["cp"] <= field["tp"] + 1e-5).all(), name
        assert 45_000 < field["sp"].min() <= field["sp"].max() < 105_000, name
        assert field["tisr"].max() < 1361, name
        assert field["u"].mean() == pytest.approx(weather.climate.wind_east_m_s, abs=1.5), name
        assert np.corrcoef(field["tcw"].ravel(), field["tp"].ravel())[0, 1] > 0.1, name


def test_analysis_errors_are_those_of_the_climate():
    box, quiet = SyntheticSource(seed=2, size_deg=4), SyntheticSource(seed=2, size_deg=4, climate=PERFECT)
    name, days = "tibetan-plateau", block_starts("2001-06-01", "2001-09-01", 10 * 24)
    seen = np.array([box.weather(name).block(int(day)).predictors for day in days])
    true = np.array([quiet.weather(name).block(int(day)).predictors for day in days])
    tp = PREDICTORS.index("tp")
    assert seen[:, :, tp].mean() / true[:, :, tp].mean() == pytest.approx(region(name).climate.analysis_bias, rel=0.2)
    assert np.corrcoef(seen[:, :, tp].ravel(), true[:, :, tp].ravel())[0, 1] < 0.97


# ---- the source


def test_any_slice_equals_that_of_a_longer_run():
    source = open_source("synthetic", seed=5, size_deg=2)
    days = np.arange(12_000, 12_004)
    whole, part = source.blocks("caribbean", days), source.blocks("caribbean", days[2:3])
    chosen = slice(2 * BLOCK_HOURS, 3 * BLOCK_HOURS)
    np.testing.assert_array_equal(whole.isel(chosen).target["precipitation"], part.target["precipitation"])
    for name in PREDICTORS:
        np.testing.assert_array_equal(whole.isel(chosen).condition[name], part.condition[name])
    again = open_source("synthetic", seed=5, size_deg=2).blocks("caribbean", days[1:3])
    np.testing.assert_array_equal(again.target["precipitation"], whole.target["precipitation"][24:72])


def test_a_law_travels_without_what_it_has_computed():
    weather = SyntheticSource(size_deg=2).weather("caribbean")
    rain = weather.block(12_000).rain
    sent = pickle.dumps(weather)
    assert len(sent) < 4000
    np.testing.assert_array_equal(pickle.loads(sent).block(12_000).rain, rain)


def test_seeds_and_regions_are_different_weather():
    day = np.array([12_000])
    draws = [
        SyntheticSource(seed=seed, size_deg=2, equal="melanesia").blocks(name, day).target["precipitation"].values
        for seed, name in ((0, "melanesia"), (1, "melanesia"), (0, "caribbean"))
    ]
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_equal_regions_have_one_law():
    source = SyntheticSource(seed=4, size_deg=2, equal="melanesia")
    one, other = source.weather("caribbean"), source.weather("tibetan-plateau")
    assert replace(one, key="") == replace(other, key="")
    np.testing.assert_array_equal(one.land.height_m, other.land.height_m)
    days = block_starts("2001-01-01", "2003-01-01", 25 * 24)
    means = [[w.block(int(day)).rain.mean() for day in days] for w in (one, other)]
    assert stats.ks_2samp(*means).pvalue > 0.01


def test_regions_differ_without_equal(year):
    means = [[block.mean() for block in rain] for _, rain, _ in year.values()]
    assert stats.ks_2samp(means[0], means[1]).pvalue < 1e-3


def test_region_data_is_lazy_and_canonical():
    data = open_source("synthetic", size_deg=2).open("europe_west", "test")
    assert data.target["precipitation"].chunks is not None
    assert (data.coarse.shape, data.fine.shape) == ((8, 8), (20, 20))
    assert data.target["precipitation"].attrs["units"] == "mm h-1"
    assert set(data.static.data_vars) == {"lsm", "z"}
    assert str(data.time[0]) >= "2022"
    assert len(data) == 480
    assert COARSE_PAD * 0.25 < FINE_PAD * 0.1


def test_options_are_checked():
    with pytest.raises(UserError, match="did you mean 'melanesia'"):
        open_source("synthetic", include=["melanesa"]).names  # noqa: B018
    with pytest.raises(UserError, match="did you mean 'size_deg'"):
        open_source("synthetic", size_dg=2)
    with pytest.raises(UserError, match=r"multiple of 0\.5"):
        open_source("synthetic", size_deg=2.3).open("melanesia")
    with pytest.raises(UserError, match="did you mean 'train'"):
        open_source("synthetic").open("melanesia", "trian")
    with pytest.raises(UserError, match="which contains 216 hours"):
        block_starts("2001-01-01", "2001-01-10", 240)
    with pytest.raises(UserError, match="did you mean 'synthetic'"):
        open_source("synthetc")
    with pytest.raises(UserError, match="expected a number from"):
        Climate.from_mapping({**region("melanesia").climate.as_dict(), "wet_fraction": 2.0})

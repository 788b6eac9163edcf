"""Climates drawn at random: pure functions of their seed, within their ranges or beyond; the named regions stay."""

from __future__ import annotations

import numpy as np
import pytest

from geoml.regrid import Regridder
from rainshift.places.regions import regions
from rainshift.planet.climates import INSIDE, OUTSIDE, ROUGH, random_climate
from rainshift.planet.relation import Relation
from rainshift.planet.texture import SMOOTH, Texture
from rainshift.sources import open_source

#: Of one day in boxes of two degrees: wet cell-hours, mean rain in mm/h, mean of four predictors.
FROZEN = {
    "africa-south": (168, 0.0110969, 141.4606),
    "amazon-basin": (1022, 0.140858, 301.4395),
    "arabian-peninsula": (312, 0.027626, 115.3943),
    "australasia-east": (784, 0.148272, 162.6342),
    "blacksea": (404, 0.0247723, 109.852),
    "cape-horn": (1674, 0.116374, 15.3427),
    "caribbean": (884, 0.117071, 356.4242),
    "east-asia-north-east": (283, 0.021138, 53.58493),
    "east-asia-south": (28, 0.00697451, 145.5039),
    "europe_west": (2204, 0.183273, 66.71966),
    "horn-of-africa": (498, 0.118549, 207.8193),
    "melanesia": (3663, 0.648365, 360.1331),
    "northamerica-east": (340, 0.0205365, 144.2064),
    "northamerica-west": (2466, 0.225104, 28.24976),
    "southamerica-east": (78, 0.0101301, 291.0061),
    "southeastasia-west": (1163, 0.285987, 444.0298),
    "tibetan-plateau": (83, 0.00487767, 30.56379),
    "west-africa": (21, 0.00112648, 217.6004),
}


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_the_weather_of_the_named_regions_does_not_change(name):
    """Scores of all versions are of one planet: whoever changes this makes another planet and says so."""
    made = open_source("synthetic", size_deg=2).weather(name).block(11323)
    wet, mean, predictors = FROZEN[name]
    assert abs(int((made.rain >= 0.1).sum()) - wet) <= 1  # rounding of another processor may tip a cell
    assert made.rain.mean() == pytest.approx(mean, rel=1e-3)
    assert made.predictors[:, [1, 3, 4, 0]].mean() == pytest.approx(predictors, rel=1e-4)


def test_every_named_region_is_frozen():
    assert sorted(FROZEN) == sorted(name for name, found in regions().items() if found.source and found.climate)


@pytest.mark.parametrize("outside", [False, True])
def test_numbers_are_drawn_within_their_ranges_and_outside_beyond_them(outside):
    for number in range(40):
        drawn = random_climate(3, number, outside=outside)
        values = drawn.climate.as_dict()
        values |= {"noise": values["analysis_noise"], "shift_km": values["analysis_shift_km"],
                   "bias": values["analysis_bias"]}  # fmt: skip
        values["wind_m_s"] = np.hypot(values["wind_east_m_s"], values["wind_north_m_s"])
        values["latitude"] = (drawn.region.lat_min + drawn.region.lat_max) / 2
        slack = {"latitude": 0.5}
        beyond = [
            key for key, (low, high) in INSIDE.items()
            if not low - slack.get(key, 1e-9) <= values[key] <= high + slack.get(key, 1e-9)
        ]  # fmt: skip
        assert len(beyond) == (2 if outside else 0)
        assert set(beyond) <= set(OUTSIDE)


def test_ranges_outside_do_not_meet_those_inside():
    for key, (low, high) in OUTSIDE.items():
        assert high < INSIDE[key][0] or low > INSIDE[key][1], key


def test_the_weather_outside_does_not_change_and_has_no_texture():
    """Nor do the ranges of training reach it."""
    for number in (0, 7):
        assert random_climate(1, number, outside=True).texture == SMOOTH
    made = open_source("synthetic_climates", seed=1, count=20, outside=True).blocks("climate-0007", np.array([18993]))
    rain = made.target["precipitation"].values
    assert abs(int((rain >= 0.1).sum()) - 2244) <= 1
    assert rain.mean() == pytest.approx(0.1468253, rel=1e-3)


def test_texture_is_in_most_climates_and_leaves_the_mean_of_a_coarse_cell_more_open():
    drawn = [random_climate(3, number).texture for number in range(60)]
    rough = [texture for texture in drawn if texture.any]
    assert 25 < len(rough) < 50
    for texture in rough:
        assert all(low <= getattr(texture, key) <= high for key, (low, high) in ROUGH.items())
    from dataclasses import replace

    from rainshift.sources.synthetic_climates import _weather

    climate = next(found for number in range(50) if (found := random_climate(0, number)).climate.wet_fraction > 0.2)
    spreads = []
    for texture in (SMOOTH, Texture(deviation=0.6, share=0.1, slope=2.0, outer_km=40.0)):
        rain = _weather(0, replace(climate, texture=texture)).block(12000).rain
        parts = rain.reshape(len(rain), rain.shape[1] // 2, 2, -1, 2)
        spreads.append(float(parts.std((2, 4)).mean() / rain.mean()))
    assert spreads[1] > 1.3 * spreads[0]


def test_a_climate_is_the_same_each_time_and_no_two_are():
    one = random_climate(0, 5)
    assert one == random_climate(0, 5)
    assert one != random_climate(0, 6)
    assert one.climate != random_climate(1, 5).climate


def test_an_exact_climate_has_the_mean_of_its_rain_as_predictor_and_says_so():
    source = open_source("synthetic_climates", size_deg=2)
    exact = next(name for name in source.names if source.drawn(name).exact)
    other = next(name for name in source.names if not source.drawn(name).exact)
    for name, wanted in ((exact, True), (other, False)):
        data = source.blocks(name, np.array([12000]))
        rain, seen = data.target["precipitation"].values, data.condition["tp"].values
        means = Regridder(data.fine, data.coarse)(rain)
        same = np.allclose(means[:, 1:-1, 1:-1], seen[:, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
        assert same == wanted or not rain.any()
        assert (data.condition["exact"].values == float(wanted)).all()


def test_predictors_that_know_nothing_of_the_rain_are_no_predictors():
    """With a share of 1 of what is foreign, water has no correlation with the rain systems that it has otherwise."""
    from dataclasses import replace

    from rainshift.planet.weather import Weather

    drawn = next(found for number in range(50) if (found := random_climate(0, number)).climate.wet_fraction > 0.2)
    from rainshift.places.regions import grids

    coarse, fine = grids(drawn.region)
    found = []
    for relation in (Relation(), replace(Relation(), foreign=1.0)):
        weather = Weather(0, "one", replace(drawn.climate, relief_m=0.0), coarse, fine, "one", relation)
        days = [weather.block(number) for number in range(12000, 12160, 20)]
        rain = np.concatenate([day.predictors[::6, 6] for day in days]).mean((1, 2))
        water = np.concatenate([day.predictors[::6, 4] for day in days]).mean((1, 2))
        found.append(np.corrcoef(np.log(rain + 0.1), np.log(water))[0, 1])
    assert found[0] > 0.4
    assert abs(found[1]) < 0.4

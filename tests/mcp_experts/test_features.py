"""What experts look at, against closed forms: tones in noise, plane waves and fading over antennas, shifted delays."""

from math import gamma, pi, sqrt

import numpy as np
import pytest

from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS
from mcp_experts.inference.classical import ESTIMATORS, estimate
from mcp_experts.inference.features import extract, names
from mcp_experts.train.impairments import IMPAIRMENTS

BAND, TIME = np.arange(SUBCARRIERS)[:, None], np.arange(SNAPSHOTS)
COLUMN = {name: number for number, name in enumerate(names())}


def path(delay_cells=10.0, doppler_cells=0.0):
    """One path over `[subcarrier, time]`."""
    return np.exp(2j * np.pi * (doppler_cells * TIME / SNAPSHOTS - delay_cells * BAND / SUBCARRIERS))


def feature(csi, name):
    return extract(csi.astype(np.complex64))[:, COLUMN[name]]


def white(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / sqrt(2)


def beta(a, b):
    return gamma(a) * gamma(b) / gamma(a + b)


@pytest.mark.parametrize("antennas", [1, 2])
@pytest.mark.parametrize("noise_to_signal", [0.02, 0.5])
def test_a_tone_in_noise_has_the_share_of_its_power(antennas, noise_to_signal):
    """At the path's delay: signal and one snapshot's part of the noise, over signal and noise."""
    rng = np.random.default_rng(0)
    # A Hann window keeps a quarter of the path's power, and of the noise 3/8 spread over all delays.
    power = noise_to_signal * 0.25 / (0.375 / SUBCARRIERS)
    clean = path(doppler_cells=2.25)[None, :, :, None]
    csi = clean + sqrt(power) * white(rng, 400, SUBCARRIERS, SNAPSHOTS, antennas)
    expected = (1 + noise_to_signal / SNAPSHOTS) / (1 + noise_to_signal)
    assert feature(csi, "tone_share[0]").mean() == pytest.approx(expected, rel=0.03)


def test_two_tones_of_the_same_power_share_it():
    csi = (path(doppler_cells=1) + path(doppler_cells=-3))[None, :, :, None]
    assert feature(csi, "tone_share[0]") == pytest.approx(0.5, abs=1e-5)


def test_a_tone_between_the_lines_loses_what_the_sinc_says():
    csi = path(doppler_cells=1.125)[None, :, :, None]
    assert feature(csi, "tone_share[0]") == pytest.approx(np.sinc(0.125) ** 2, abs=1e-3)


@pytest.mark.parametrize("phase", [0.0, 1.0, pi])
def test_a_plane_wave_is_coherent_on_all_antennas(phase):
    csi = path(doppler_cells=1.3)[None, :, :, None] * np.exp(1j * phase * np.arange(3))
    assert feature(csi, "antenna_coherence[0]") == pytest.approx(1, abs=1e-5)
    assert feature(csi, "antenna_balance[0]") == pytest.approx(1, abs=1e-5)


def test_one_antenna_agrees_with_itself():
    csi = path()[None, :, :, None]
    assert feature(csi, "antenna_coherence[3]") == feature(csi, "antenna_balance[-1]") == 1


def test_antennas_that_fade_apart_correlate_as_often_as_chance_has_it():
    """Of independent normal samples the squared correlation is Beta(1, T − 1), the share of energy Beta(T, T)."""
    fading = white(np.random.default_rng(1), 3000, 1, SNAPSHOTS, 2)
    csi = path()[None, :, :, None] * fading
    correlation = gamma(1.5) * gamma(SNAPSHOTS) / gamma(SNAPSHOTS + 0.5)
    balance = 2 * beta(SNAPSHOTS + 0.5, SNAPSHOTS + 0.5) / beta(SNAPSHOTS, SNAPSHOTS)
    assert feature(csi, "antenna_coherence[0]").mean() == pytest.approx(correlation, rel=0.02)
    assert feature(csi, "antenna_balance[0]").mean() == pytest.approx(balance, rel=0.002)


def test_profiles_do_not_mind_where_between_cells_paths_fall():
    """One path falls as the Hann window says, half its amplitude in the next cells, at whatever fraction it comes."""
    shifts = np.linspace(0, 1, 9)
    profiles = np.concatenate([extract(path(20 + shift)[None, :, :, None].astype(np.complex64)) for shift in shifts])
    near = profiles[:, [COLUMN[f"delay_profile_db[{cell}]"] for cell in (-1, 0, 1)]]
    assert near == pytest.approx(np.tile(10 * np.log10([1 / 6, 4 / 6, 1 / 6]), (9, 1)), abs=0.01)
    both = np.concatenate(
        [
            extract((path(20 + shift) + 0.5 * path(24.7 + shift))[None, :, :, None].astype(np.complex64))
            for shift in shifts
        ]
    )
    kept = both[:, : COLUMN["frequency_correlation[1]"]]
    strong = kept.max(axis=0) > -25
    assert np.ptp(kept[:, strong], axis=0).max() < 0.5


def estimated(csi, name):
    return estimate(csi.astype(np.complex64), np.full(len(csi), 1e8))[:, list(ESTIMATORS).index(name)]


@pytest.mark.parametrize("apart", [4, 9])
@pytest.mark.parametrize("weaker", [0.25, 0.5])
def test_a_weak_first_path_shows_in_rise_share_and_excess(apart, weaker):
    """Under a Hann window a path fills its cell and its neighbours, with 1/6, 4/6 and 1/6 of its power."""
    csi = (sqrt(weaker) * path(20) + path(20 + apart))[None, :, :, None]
    assert estimated(csi, "rise_cells") == pytest.approx(apart + 1, abs=0.1)  # from the first path's own rise
    assert estimated(csi, "first_path_db") == pytest.approx(10 * np.log10(weaker / (1 + weaker)), abs=0.2)
    assert estimated(csi, "excess_cells") == pytest.approx(1 + apart / (1 + weaker), rel=0.05)


def test_amplitudes_over_delays_are_more_peaked_for_one_path_than_for_many():
    rng = np.random.default_rng(2)
    one = path(20)[None, :, :, None]
    many = sum(path(20 + 2 * each) * np.exp(2j * pi * rng.random()) for each in range(12))[None, :, :, None]
    assert estimated(one, "kurtosis_db")[0] > estimated(many, "kurtosis_db")[0] + 5


def test_clipping_shows_in_the_share_of_largest_samples():
    csi = np.repeat((path(20, 1.3) + 0.01 * white(np.random.default_rng(0), SUBCARRIERS, SNAPSHOTS))[None], 2, axis=0)
    csi = csi[..., None]
    clipped = IMPAIRMENTS["clipping"].apply(csi.astype(np.complex64), np.random.default_rng(1))
    assert estimated(csi, "clipped_share").max() < 0.1
    assert estimated(clipped, "clipped_share").min() > 0.3

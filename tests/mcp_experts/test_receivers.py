"""What receivers do to channels: alignment, padding, gaps, bands; and what experts then refuse to say."""

import numpy as np
import pytest

from geoml.errors import DataError
from mcp_experts.channels.alignment import align, coherent, level
from mcp_experts.channels.channel import Channel, from_taps
from mcp_experts.channels.loading import channel_from_file
from mcp_experts.channels.noise import low_quarter, noise_share
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.classical import ESTIMATORS, estimate
from mcp_experts.inference.registry import Registry
from mcp_experts.inference.validity import contradiction
from mcp_experts.inference.verdicts import ChannelView, describe, judge

REGISTRY = Registry()


def white(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return np.sqrt(0.5) * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def channel(csi, spacing=312.5e3):
    return Channel(csi=csi, subcarrier_spacing_hz=spacing, snapshot_interval_s=1e-3)


def estimates(found):
    window = found.window()
    row = estimate(window.csi[None], np.array([window.bandwidth_hz]), window.snapshots)[0]
    return dict(zip(ESTIMATORS, row, strict=True)), window


@pytest.mark.parametrize("count", [1, 2, 6, 28])
def test_the_lowest_quarter_of_noise_powers_is_as_low_as_a_gamma_distribution_says(count):
    gamma = pytest.importorskip("scipy.stats").gamma
    exact = 4 * gamma.cdf(gamma.ppf(0.25, count), count + 1)
    assert low_quarter(count) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("size", [(300, 14, 1), (300, 1, 1), (64, 14, 2), (1000, 1, 1)])
def test_noise_alone_has_no_signal_above_it_at_any_length(size):
    found, _ = estimates(from_taps(white(*size), sample_rate_hz=20e6, snapshot_interval_s=1e-3))
    assert found["snr_db"] < -3


@pytest.mark.parametrize("snr_db", [5, 15, 25])
def test_padding_and_zeros_before_a_response_do_not_change_its_snr(snr_db):
    one = synthesize(snr_db=snr_db, delay_spread_s=1e-7, seed=3)
    taps = np.fft.ifft(one.csi, axis=0)
    shifted = np.fft.ifft(np.fft.ifftshift(one.csi, axes=0), axis=0)  # what a receiver of that band would sample
    padded = np.concatenate([np.zeros((40, 14, 1)), shifted, np.zeros((200, 14, 1))])
    plain = estimates(one)[0]["snr_db"]
    as_taps = from_taps(padded, sample_rate_hz=20e6, snapshot_interval_s=1e-3)
    finer = channel(np.fft.fft(taps, n=256, axis=0), 312.5e3 / 4)
    for found in (as_taps, finer):
        assert estimates(found)[0]["snr_db"] == pytest.approx(plain, abs=0.5)
        assert found.window().bandwidth_hz == pytest.approx(20e6)
    assert "padding" in finer.window().warnings[0]


def test_noise_is_measured_within_the_occupied_band():
    one = synthesize(snr_db=20, delay_spread_s=5e-8, seed=1)
    csi = 0.01 * np.abs(one.csi).mean() * white(256, 14, 1)
    csi[96:160] += one.csi
    found, window = estimates(channel(csi))
    assert window.bandwidth_hz == pytest.approx(20e6, rel=0.1)
    assert "the signal occupies" in window.warnings[0]
    assert found["snr_db"] == pytest.approx(estimates(one)[0]["snr_db"], abs=2)


def moved(csi, how, seed=0):
    rng = np.random.default_rng(seed)
    if how == "phase":
        return csi * np.exp(2j * np.pi * rng.random((1, csi.shape[1], 1)))
    cells = rng.normal(0, 0.5, (1, csi.shape[1], 1))
    return csi * np.exp(-2j * np.pi * cells * np.arange(len(csi))[:, None, None] / len(csi))


@pytest.mark.parametrize("how", ["phase", "timing"])
def test_snapshots_that_a_receiver_moved_are_aligned_and_say_nothing_about_time(how):
    csi = synthesize(doppler_hz=10, delay_spread_s=1.5e-7, snr_db=30, seed=2).csi
    window = channel(moved(csi, how)).window()
    assert not window.coherent
    assert not window.shows_time
    reference = align(csi[None])[0]
    likeness = abs(np.vdot(window.csi, reference)) / (np.linalg.norm(window.csi) * np.linalg.norm(reference))
    assert likeness > 0.98
    found = describe(REGISTRY, ChannelView(channel(moved(csi, how))))
    for name in ("doppler", "coherence_time"):
        assert found[name].label is None
        assert "do not show how the channel changes" in found[name].refused
    assert found["delay_spread"].label == describe(REGISTRY, ChannelView(channel(csi)))["delay_spread"].label


@pytest.mark.parametrize("doppler_hz", [1, 50, 150, 300])
def test_snapshots_of_a_moving_channel_are_not_taken_for_moved_ones(doppler_hz):
    each = [synthesize(doppler_hz=doppler_hz, delay_spread_s=2e-7, snr_db=20, seed=seed).csi for seed in range(20)]
    windows = np.stack(each)
    assert coherent(windows, noise_share(windows, 14)).mean() >= 0.95


def test_gain_steps_are_taken_out_where_only_a_gain_can_have_made_them():
    steps = 10 ** (np.round(np.random.default_rng(0).normal(0, 1, (1, 1, 14, 1))) / 20)
    for kept in (True, False):
        csi = synthesize(doppler_hz=3, delay_spread_s=2e-7, snr_db=40, seed=5).csi[None]
        levelled = level((csi * steps).astype(np.complex64), np.array([kept]))
        power = np.sum(np.abs(levelled) ** 2, axis=(1, 3))
        assert np.ptp(power) / power.mean() < 1e-3


@pytest.mark.parametrize("doppler_hz", [20, 80, 160])
def test_fading_is_not_taken_for_gain_steps(doppler_hz):
    """A flat channel fades in amplitude and phase alike, and has no shape that would tell."""
    flat = [synthesize(doppler_hz=doppler_hz, delay_spread_s=1e-9, snr_db=30, seed=seed).csi for seed in range(30)]
    windows = np.stack(flat)
    for kept in (True, False):
        same = level(windows, np.full(len(windows), kept))
        assert np.isclose(same, windows, rtol=1e-4).all(axis=(1, 2, 3)).mean() >= 0.9


def test_notches_are_interpolated_and_fades_are_left_as_they_were():
    two_paths = np.ones(64) + np.exp(2j * np.pi * 3.3 * np.arange(64) / 64)  # cancels three times over the band
    csi = np.repeat(two_paths[:, None, None], 14, axis=1) * np.exp(0.2j * np.arange(14))[:, None]
    assert np.abs(channel(csi).window().csi - channel(csi).csi).max() < 0.05
    notched = csi.copy()
    notched[36:39] *= 0.1
    window = channel(notched).window()
    assert "were interpolated" in window.warnings[0]
    assert np.abs(window.csi - channel(csi).csi).max() < 0.1


def test_one_snapshot_of_one_antenna_is_answered_but_for_time():
    csi = synthesize(delay_spread_s=3e-7, snr_db=25, seed=1).csi[:, :1]
    found = describe(REGISTRY, ChannelView(channel(csi)))
    assert found["doppler"].label is found["coherence_time"].label is None
    assert "one snapshot" in found["doppler"].warnings[0]
    assert estimates(channel(csi))[0]["delay_spread_cells"] == pytest.approx(6, rel=0.35)


@pytest.mark.parametrize("count", [32, 48, 52, 56, 100, 114, 242])
def test_sweeps_and_the_subcarriers_of_wifi_keep_their_delay_spread(count, tmp_path):
    places = {52: (26, 1), 56: (28, 1), 114: (58, 2), 242: (122, 2)}.get(count)
    index = (
        np.arange(count)
        if places is None
        else np.array([place for place in range(-places[0], places[0] + 1) if abs(place) >= places[1]])
    )
    delays = np.array([0.0, 3.2]) / 10e6  # two equal paths: half their distance is the spread
    spacing = 10e6 / np.ptp(index)
    csi = np.exp(-2j * np.pi * np.outer(index * spacing, delays)).sum(axis=1)[:, None, None] * np.ones((1, 14, 1))
    csi = csi * np.exp(0.05j * np.arange(14))[:, None] + 0.01 * white(count, 14, 1)
    np.savez(tmp_path / "a.npz", csi=csi, subcarrier_spacing_hz=spacing, snapshot_interval_s=1e-3)
    found, window = estimates(channel_from_file(tmp_path / "a.npz"))
    assert window.bandwidth_hz == pytest.approx(10e6, rel=0.06)
    assert found["delay_spread_cells"] == pytest.approx(1.6, rel=0.1)


def test_files_may_say_where_their_subcarriers_are(tmp_path):
    index = np.array([place for place in range(64) if place % 21 != 5])
    csi = synthesize(seed=4).csi[index, 0, 0]
    np.savez(tmp_path / "a.npz", csi=csi, subcarrier_index=index, subcarrier_spacing_hz=312.5e3)
    assert channel_from_file(tmp_path / "a.npz").csi.shape == (64, 1, 1)
    np.savez(tmp_path / "b.npz", csi=csi, subcarrier_index=index[::-1], subcarrier_spacing_hz=312.5e3)
    with pytest.raises(DataError, match="one ascending whole number each"):
        channel_from_file(tmp_path / "b.npz")


def test_an_expert_is_silent_outside_the_band_of_its_card():
    wide = ChannelView(channel(synthesize(k_factor_db=10, snr_db=30).csi, 500e6 / 64))
    narrow = replace_card(REGISTRY.expert("los"), bandwidth_hz=[3e6, 80e6])
    found = judge(narrow, wide, REGISTRY)
    assert found.label is None
    assert found.interval == ""
    if wide.ood_score(REGISTRY.gate) <= 1:
        assert "500 MHz is outside the 3 MHz to 80 MHz" in found.refused


def replace_card(expert, **valid):
    changed = type(expert)(expert.definition, expert.folder)
    vars(changed)["card"] = expert.card | {"valid": expert.card["valid"] | valid}
    return changed


def test_experts_that_contradict_each_other_are_silent():
    def sure(name):
        classes = REGISTRY.expert(name).definition.classes

        def of(label):
            return np.where(np.array(classes) == label, 0.97, 0.03 / (len(classes) - 1)).astype(np.float32)

        return of

    experts = REGISTRY.experts
    said = {"los": "blocked", "profile": "TDL-D", "doppler": "fast", "coherence_time": "static", "fading": "rayleigh"}
    look = lambda expert: sure(expert.name)(said[expert.name])  # noqa: E731
    assert "contradict" in contradiction("los", experts, look)
    assert "contradict" in contradiction("doppler", experts, look)
    assert contradiction("delay_spread", experts, look) is None
    said |= {"los": "clear", "fading": "specular"}
    assert contradiction("los", experts, look) is None
    assert contradiction("doppler", experts, look) is None


def test_prediction_sets_widen_with_the_distance_from_calibration():
    gate, network = REGISTRY.gate, REGISTRY.expert("delay_spread").network
    nearness = gate.nearness(np.array([0.0, gate.usual, (1 + gate.usual) / 2, 1.0]))
    assert nearness == pytest.approx([1, 1, 0.5, 0])
    probabilities = np.tile(np.array([0.55, 0.3, 0.12, 0.03], np.float32), (4, 1))
    sizes = network.members(probabilities, nearness).sum(axis=1)
    assert (np.diff(sizes) >= 0).all()
    assert sizes[-1] == 4

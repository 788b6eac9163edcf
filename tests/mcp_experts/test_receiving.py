"""Links in training look as files of receivers do, and their truths follow the part of the band that is seen."""

import numpy as np
import pytest

from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS
from mcp_experts.channels.window import LEAST_SUBCARRIERS, window_of
from mcp_experts.train import receiving
from mcp_experts.train.impairments import COLOURED_DB, IMPAIRMENTS, impair
from mcp_experts.train.rays import ray_links
from mcp_experts.train.truths import TRUTHS, log_uniform, observe, truths


def links(count, seed=0):
    rng = np.random.default_rng(seed)
    return ray_links(
        count,
        rng,
        k_factor_db=rng.normal(9, 4, count),
        bandwidth_hz=log_uniform(rng, (5e6, 8e7), count),
        delay_cells=log_uniform(rng, (0.3, 3.0), count),
        doppler_cells=log_uniform(rng, (0.05, 1.5), count),
        latest_cells=52.0,
    )


def test_samplings_are_of_every_kind_and_all_have_a_window():
    several = links(200)
    rng = np.random.default_rng(1)
    csi, _ = observe(several, rng)
    shapes = [receiving.sampled(one, rng) for one in csi]
    snapshots, subcarriers = ({shape.shape[axis] for shape in shapes} for axis in (1, 0))
    assert {1, SNAPSHOTS} < snapshots
    assert min(subcarriers) >= LEAST_SUBCARRIERS
    assert max(subcarriers) > SUBCARRIERS
    assert all(window_of(shape, 1.0, 1.0).csi.shape[:2] == (SUBCARRIERS, SNAPSHOTS) for shape in shapes)


def test_truths_in_cells_follow_the_bandwidth_that_is_seen(monkeypatch):
    monkeypatch.setattr(receiving, "sampled", lambda csi, rng: csi[:32])
    monkeypatch.setattr(receiving, "impair", lambda csi, rng, snr_db: (csi, snr_db))
    several = links(40)
    ((rows, features, _, known),) = receiving.received(several, np.random.default_rng(2))
    expected = truths(several, np.zeros(40))
    column = TRUTHS.index("delay_spread")
    assert rows.tolist() == list(range(40))
    assert np.isfinite(features).all()
    assert known[:, column] == pytest.approx(0.5 * expected[:, column], rel=1e-6)


def test_coloured_noise_counts_in_the_snr_and_other_errors_hide_it():
    csi, snr_db = observe(links(400), np.random.default_rng(3))
    found, known = impair(csi, np.random.default_rng(4), snr_db)
    moved = np.isfinite(known) & (known != snr_db)
    assert found.shape == csi.shape
    assert 0.02 < moved.mean() < 0.2
    assert (known[moved] < COLOURED_DB).all()
    assert 0.15 < np.isnan(known).mean() < 0.6
    assert len(IMPAIRMENTS) == 12

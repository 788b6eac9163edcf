"""The likelihood bound: its posteriors are calibrated on links drawn from its own model, and certain in easy cases."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from docs.experts_pages.likelihood_bound import Profile, doppler_posterior, draw_link, los_posterior
from mcp_experts.train.truths import DOPPLER_CELLS, log_uniform

PROFILES = (
    Profile(np.array([0.0, 0.5, 1.5]), np.array([0.5, 0.3, 0.2]), direct=False),
    Profile(np.array([0.0, 1.0, 2.0]), np.array([0.4, 0.4, 0.2]), direct=True),
)
EASY = {"spread_cells": 2.0, "timing_cells": 1.0, "snr_db": 25.0, "antennas": 2}


@pytest.mark.parametrize("number", [0, 1])
def test_line_of_sight_is_certain_where_it_shows(number):
    rng = np.random.default_rng(0)
    for _ in range(5):
        link = draw_link(PROFILES, number, rng, doppler_cells=3.0, k_factor=10.0, **EASY)
        assert (los_posterior(link, PROFILES, np.array([3.0, 10.0, 30.0])) > 0.5) == PROFILES[number].direct


def test_posteriors_are_calibrated():
    """Of an exact posterior the mean probability of the likeliest class is the share of times it is right."""
    rng = np.random.default_rng(1)
    edges, factors = (0.1, 0.5, 2.0), np.array([0.3, 1.0, 3.0])
    right, sure = [], []
    for _ in range(60):
        number = int(rng.integers(2))
        cells = float(log_uniform(rng, DOPPLER_CELLS, 1)[0])
        link = draw_link(
            PROFILES, number, rng, spread_cells=0.3, timing_cells=0.0, doppler_cells=cells,
            k_factor=float(rng.choice(factors)), snr_db=0.0, antennas=1,
        )  # fmt: skip
        los = los_posterior(link, PROFILES, factors)
        shift = doppler_posterior(link, PROFILES, edges)
        assert shift.sum() == pytest.approx(1)
        right += [(los > 0.5) == PROFILES[number].direct, shift.argmax() == np.digitize(cells, edges)]
        sure += [max(los, 1 - los), shift.max()]
    # 120 answers: three standard deviations of their share.
    spread = 3 * np.sqrt(np.mean(np.array(sure) * (1 - np.array(sure))) / len(sure))
    assert np.mean(right) == pytest.approx(np.mean(sure), abs=spread)


def test_the_likelihood_is_that_of_the_whole_covariance():
    """Against the density of the window as one Gaussian vector, without a specular path and frequency offset."""
    from docs.experts_pages import likelihood_bound as bounds

    rng = np.random.default_rng(2)
    link = draw_link(PROFILES, 0, rng, doppler_cells=1.0, k_factor=0.0, **EASY)
    view = bounds._Projection(link, PROFILES[0])
    steering = bounds._steering(PROFILES[0], link.spread_cells, link.timing_cells)

    def density(doppler):
        taps = (steering * PROFILES[0].powers) @ steering.conj().T
        covariance = np.kron(taps, bounds._clarke(doppler)) + link.noise * np.eye(64 * 14)
        _, determinant = np.linalg.slogdet(covariance)
        vectors = link.csi.reshape(2, -1)
        return -sum(np.vdot(v, np.linalg.solve(covariance, v)).real for v in vectors) - 2 * determinant

    old, bounds.OFFSET_CELLS = bounds.OFFSET_CELLS, 0.0
    try:
        found = view.score(1.0, 0.0) - view.score(2.5, 0.0)
    finally:
        bounds.OFFSET_CELLS = old
    assert found == pytest.approx(density(1.0) - density(2.5), rel=1e-6)

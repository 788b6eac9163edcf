"""Links of a few random plane waves, independent of a standard, so that experts do not depend on one model.

In TR 38.901 every cluster fades; in a street canyon there may be only a few steady reflections.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import SNAPSHOTS
from mcp_experts.train.truths import NO_SPECULAR_DB, Links, crossing

__all__ = ["ray_links"]

MOST_RAYS, LEAST_RAYS = 24, 2
ANTENNAS = 2
SHADOWING_DB, DECAY = 6.0, 5.0


def ray_links(
    count: int,
    rng: np.random.Generator,
    *,
    k_factor_db: NDArray[np.float64],
    bandwidth_hz: NDArray[np.float64],
    delay_cells: NDArray[np.float64],
    doppler_cells: NDArray[np.float64],
    latest_cells: float,
) -> Links:
    """Generate `count` links of 2 to 24 plane waves.

    With probability 1/2 the first wave is a direct path, `k_factor_db` above the sum of the others. Delays are
    exponential; powers decrease with delay and vary by 6 dB; directions are spread over the circle or around a mean.
    The two antennas are half a wavelength apart, or of two polarisations.
    """
    shape = (count, MOST_RAYS)
    number = np.exp(rng.uniform(np.log(LEAST_RAYS), np.log(MOST_RAYS + 1), count)).astype(int)
    present = np.arange(MOST_RAYS) < number[:, None]
    delays = np.where(present, rng.exponential(1.0, shape), 0)
    delays[:, 0] = 0
    decay = rng.uniform(0, DECAY, (count, 1))
    power = np.exp(-decay * delays) * 10 ** (rng.normal(0, SHADOWING_DB, shape) / 10)
    power = np.where(present, power, 0)
    los = rng.random(count) < 0.5
    others = power[:, 1:].sum(axis=1)
    power[:, 0] = np.where(los, others * 10 ** (k_factor_db / 10), power[:, 0])
    middle = rng.uniform(0, 2 * np.pi, (count, 1))
    narrow = rng.random((count, 1)) < 0.5
    angle = middle + np.where(narrow, rng.normal(0, 0.7, shape), rng.uniform(-np.pi, np.pi, shape))
    cells = doppler_cells[:, None] * np.cos(angle)
    time = np.arange(SNAPSHOTS) / SNAPSHOTS
    start = rng.uniform(0, 2 * np.pi, (*shape, ANTENNAS))
    apart = np.pi * np.sin(angle)[..., None] * np.arange(ANTENNAS)
    polarised = rng.random((count, 1, 1)) < 0.5
    lean = 10 ** (rng.normal(0, SHADOWING_DB, (*shape, ANTENNAS)) / 20)
    antenna = np.where(polarised, lean * np.exp(1j * start), np.exp(1j * (start[..., :1] + apart)))
    turn = np.exp(2j * np.pi * cells[..., None] * time)
    gains = (np.sqrt(power)[:, :, None] * turn)[..., None] * antenna[:, :, None]
    lags = np.geomspace(1e-3, 4, 400)
    received = np.mean(np.abs(gains) ** 2, axis=(2, 3))
    correlation = np.abs(np.einsum("np,npl->nl", received, np.exp(2j * np.pi * cells[..., None] * lags)))
    # The faster powers decrease, the later the last path for the same spread.
    scale = np.minimum(delay_cells * (1 + decay[:, 0]), latest_cells / np.maximum(delays.max(axis=1), 1e-12))
    rest = received[:, 1:].sum(axis=1)
    unknown = np.full(count, np.nan)
    return Links(
        gains=gains.astype(np.complex64),
        delays_s=delays * (scale / bandwidth_hz)[:, None],
        bandwidth_hz=bandwidth_hz,
        los=los.astype(float),
        k_factor_db=np.where(los, 10 * np.log10(received[:, 0] / rest), NO_SPECULAR_DB),
        doppler_cells=doppler_cells,
        coherence_time_cells=crossing(correlation / received.sum(axis=1, keepdims=True), lags),
        profile=unknown,
        scenario=unknown,
    )

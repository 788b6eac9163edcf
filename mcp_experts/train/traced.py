"""Links of ray-traced cities, from path tables written by `radiomaps paths`. `radiomaps` is not imported.

A path without bounces is the direct path. Profile and scenario of such links are unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels.channel import SNAPSHOTS
from mcp_experts.channels.path_tables import LinkPaths, read_path_table
from mcp_experts.train.truths import (
    BANDWIDTH_HZ,
    DOPPLER_CELLS,
    LATEST_CELLS,
    NO_SPECULAR_DB,
    Links,
    crossing,
    log_uniform,
)

__all__ = ["traced_links"]

LEAST_PATHS = 2
#: Split of five consecutive transmitters. With ten or more scenes, `SCENE_PARTS` splits scenes instead, so that
#: calibration and test use scenes that are not in training.
PARTS = ("train", "train", "train", "calibration", "test")
SCENE_PARTS = (*("train",) * 4, "calibration", *("train",) * 4, "test")


def traced_links(
    tables: Sequence[str | Path], seed: int, part: str | None = None, *, draws: int = 1
) -> Iterator[Links]:
    """Yield the links of path tables that have two paths or more, each with a random bandwidth and duration.

    The links of a transmitter are yielded together, `draws` times with new random values. `part` ("train",
    "calibration", "test"; None for all) selects transmitters, or scenes if there are ten tables or more. Parts share no
    transmitter.
    """
    number = 0
    for index, path in enumerate(tables):
        scene = SCENE_PARTS[index % len(SCENE_PARTS)] if len(tables) >= len(SCENE_PARTS) else None
        table = read_path_table(Path(path))
        known = (np.isfinite(table.delays_s).sum(axis=1) >= LEAST_PATHS) & (table.doppler_max_hz > 0)
        for one in range(table.transmitters):
            usable = np.flatnonzero(known & (table.transmitter == one))
            if len(usable) and part in (None, scene or PARTS[number % len(PARTS)]):
                for draw in range(draws):
                    yield _links(table, usable, np.random.default_rng([seed, number, draw]))
            number += 1


def _links(table: LinkPaths, chosen: NDArray[np.int64], rng: np.random.Generator) -> Links:
    delays = table.delays_s[chosen]
    present = np.isfinite(delays)
    gains = _antennas(table, chosen, rng)
    shifts = np.where(present, table.doppler_hz[chosen], 0)
    delays = np.where(present, delays, np.nanmin(delays, axis=1, keepdims=True))
    delays = delays - delays.min(axis=1, keepdims=True)
    bandwidth = log_uniform(rng, BANDWIDTH_HZ, len(chosen))
    bandwidth = np.minimum(bandwidth, LATEST_CELLS / np.maximum(delays.max(axis=1), 1e-12))
    doppler = log_uniform(rng, DOPPLER_CELLS, len(chosen))
    duration = doppler / table.doppler_max_hz[chosen]
    time = duration[:, None] * np.arange(SNAPSHOTS) / SNAPSHOTS
    turn = np.exp(2j * np.pi * shifts[:, :, None] * time[:, None])
    powers = np.mean(np.abs(gains) ** 2, axis=2)
    direct = np.where(present & (table.bounces[chosen] == 0), powers, 0).sum(axis=1)
    rest = powers.sum(axis=1) - direct
    lags = np.geomspace(1e-3, 4, 400)
    cells = shifts * duration[:, None]
    correlation = np.abs(np.einsum("np,npl->nl", powers, np.exp(2j * np.pi * cells[:, :, None] * lags)))
    with np.errstate(divide="ignore"):
        k_factor = np.where(direct > 0, 10 * np.log10(direct / np.maximum(rest, 1e-6 * direct)), NO_SPECULAR_DB)
    unknown = np.full(len(chosen), np.nan)
    return Links(
        gains=(gains[:, :, None, :] * turn[..., None]).astype(np.complex64),
        delays_s=delays,
        bandwidth_hz=bandwidth,
        los=(direct > 0).astype(float),
        k_factor_db=np.nan_to_num(k_factor, nan=NO_SPECULAR_DB),
        doppler_cells=doppler,
        coherence_time_cells=crossing(correlation / powers.sum(axis=1, keepdims=True), lags),
        profile=unknown,
        scenario=unknown,
        alike=True,
    )


def _antennas(table: LinkPaths, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.complex64]:
    """Gains of two antennas, `[n, path, 2]`.

    The antennas have two polarisations, or, with probability 1/2, one polarisation and a distance of half a wavelength
    along x.
    """
    gains = np.where(np.isfinite(table.delays_s[chosen])[..., None], table.gains[chosen], 0)
    across = table.across[chosen]
    apart = np.stack([gains[..., 0], gains[..., 0] * np.exp(1j * np.pi * np.nan_to_num(across))], axis=-1)
    array = (rng.random(len(chosen)) < 0.5) & np.isfinite(across).any(axis=1)
    return np.where(array[:, None, None], apart, gains).astype(np.complex64)

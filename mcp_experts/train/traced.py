"""Links of ray-traced cities, from the path tables that `radiomaps paths` writes: read as files, never imported.

A path without a bounce is the direct one. Profiles and scenarios are not known of such links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcp_experts.channels import SNAPSHOTS
from mcp_experts.tables import PathTable, read_path_table
from mcp_experts.train.truths import NO_SPECULAR_DB, Links, crossing

__all__ = ["traced_links"]

BANDWIDTH_HZ = (3e6, 80e6)
DOPPLER_CELLS = (0.02, 6.0)
LATEST_CELLS = 52.0
TOGETHER = 32
LEAST_PATHS = 2


def traced_links(tables: Sequence[str | Path], seed: int) -> Iterator[Links]:
    """All links of some path tables that have two paths or more, a bandwidth and a rate of snapshots drawn for each."""
    for number, path in enumerate(tables):
        table = read_path_table(Path(path))
        rng = np.random.default_rng([seed, number])
        usable = np.flatnonzero((np.isfinite(table.delays_s).sum(axis=1) >= LEAST_PATHS) & (table.doppler_max_hz > 0))
        for start in range(0, len(usable), TOGETHER):
            yield _links(table, usable[start : start + TOGETHER], rng)


def _links(table: PathTable, chosen: NDArray[np.int64], rng: np.random.Generator) -> Links:
    delays = table.delays_s[chosen]
    present = np.isfinite(delays)
    gains = np.where(present[..., None], table.gains[chosen], 0)
    shifts = np.where(present, table.doppler_hz[chosen], 0)
    delays = np.where(present, delays, np.nanmin(delays, axis=1, keepdims=True))
    delays = delays - delays.min(axis=1, keepdims=True)
    bandwidth = np.exp(rng.uniform(np.log(BANDWIDTH_HZ[0]), np.log(BANDWIDTH_HZ[1]), len(chosen)))
    bandwidth = np.minimum(bandwidth, LATEST_CELLS / np.maximum(delays.max(axis=1), 1e-12))
    doppler = np.exp(rng.uniform(np.log(DOPPLER_CELLS[0]), np.log(DOPPLER_CELLS[1]), len(chosen)))
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
    )

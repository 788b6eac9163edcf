"""Channels from files, and from numbers sent inline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from mcp_experts.channels.arrays import Contents, read_arrays
from mcp_experts.channels.axes import in_order
from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS, Channel, from_paths, from_taps
from mcp_experts.channels.path_tables import (
    DEEPMIMO,
    NEEDED,
    LinkPaths,
    deepmimo_matrices,
    from_deepmimo,
    from_radiomaps,
)

__all__ = ["NoChannel", "channel_from_file", "channel_from_lists"]

MOST_INLINE = 16384
#: Sampling of channels from path tables, which hold paths without a sampling.
TABLE_BANDWIDTH_HZ, TABLE_DURATION_S = 20e6, 0.014


class NoChannel(DataError):
    """A readable file that holds no channel."""


def channel_from_file(path: Path, index: int = 0) -> Channel:
    """The channel with number `index`, from 0, in a file.

    Accepted are `csi[subcarrier, time, antenna]`, with a first axis `channel` for several channels, and
    `subcarrier_spacing_hz` and `snapshot_interval_s`; `taps[tap, time, antenna]` with `sample_rate_hz` and
    `snapshot_interval_s`; path tables of `radiomaps paths`; and DeepMIMO's matrices, in one file or in one file each,
    of which any is named. Path tables are sampled over 20 MHz and 14 ms.

    Raises `UserError` for a negative index and unknown formats, `NoChannel` for a file with other contents, and
    `DataError` for missing or invalid values.
    """
    if index < 0:
        raise UserError(f"index is {index}; the first channel of a file is 0")
    found = read_arrays(path)
    arrays, attributes = found.arrays, dict(found.attributes)
    if all(name in arrays for name in NEEDED):
        return _from_path_table(path, from_radiomaps(path.name, arrays, attributes), index)
    if len(arrays) == 1 and re.match(r"[a-z_]+_t\d+_tx\d+_r\d+\.", path.name):
        arrays = deepmimo_matrices(path)
    if all(name in arrays for name in DEEPMIMO):
        return _from_path_table(path, from_deepmimo(arrays), index)
    for name, number in ((name, array.item()) for name, array in arrays.items() if array.size == 1):
        attributes.setdefault(name, number)
    if not {"csi", "csi_real", "taps", "taps_real"} & set(arrays):
        raise NoChannel(
            f"{path.name} holds neither csi nor taps and is not a path table; expected csi[subcarrier, time, antenna] "
            "with subcarrier_spacing_hz and snapshot_interval_s, or taps[tap, time, antenna] with sample_rate_hz too"
        )
    interval = _number(path, attributes, "snapshot_interval_s")
    if "csi" in arrays or "csi_real" in arrays:
        return Channel(
            csi=_one(path, _complex(found, "csi"), index),
            subcarrier_spacing_hz=_number(path, attributes, "subcarrier_spacing_hz"),
            snapshot_interval_s=interval,
        )
    rate = _number(path, attributes, "sample_rate_hz")
    taps = _one(path, _complex(found, "taps"), index)
    return from_taps(taps, sample_rate_hz=rate, snapshot_interval_s=interval)


def channel_from_lists(
    csi_real: list[float],
    csi_imag: list[float],
    *,
    subcarriers: int,
    snapshots: int,
    subcarrier_spacing_hz: float,
    snapshot_interval_s: float,
    antennas: int = 1,
) -> Channel:
    """A channel from flat lists; antennas vary fastest, then snapshots, then subcarriers."""
    if len(csi_real) != len(csi_imag):
        raise DataError(f"{len(csi_real)} real parts and {len(csi_imag)} imaginary parts; expected equal numbers")
    if len(csi_real) > MOST_INLINE:
        raise DataError(f"{len(csi_real)} values inline; at most {MOST_INLINE} are accepted: write them to a file")
    if min(subcarriers, snapshots, antennas) < 1 or subcarriers * snapshots * antennas != len(csi_real):
        raise DataError(
            f"{len(csi_real)} values for {subcarriers} subcarriers × {snapshots} snapshots × {antennas} antennas; "
            f"expected {subcarriers * snapshots * antennas}"
        )
    grid = np.asarray(csi_real, np.float64) + 1j * np.asarray(csi_imag, np.float64)
    return Channel(
        csi=grid.reshape(subcarriers, snapshots, antennas),
        subcarrier_spacing_hz=subcarrier_spacing_hz,
        snapshot_interval_s=snapshot_interval_s,
    )


def _from_path_table(path: Path, table: LinkPaths, index: int) -> Channel:
    usable = np.flatnonzero(np.isfinite(table.delays_s).any(axis=1))
    if index >= len(usable):
        raise DataError(f"{path.name} has {len(usable)} links with paths; index {index} is beyond the last")
    link = usable[index]
    present = np.isfinite(table.delays_s[link])
    time = TABLE_DURATION_S * np.arange(SNAPSHOTS) / SNAPSHOTS
    turn = np.exp(2j * np.pi * np.multiply.outer(table.doppler_hz[link, present], time))
    delays = table.delays_s[link, present]
    # The earliest path has delay 0, as after synchronisation in a receiver.
    latest = (SUBCARRIERS - 1) / max(float(np.ptp(delays)), 1e-12)
    return from_paths(
        table.gains[link, present][:, None, :] * turn[..., None],
        delays - delays.min(),
        bandwidth_hz=min(TABLE_BANDWIDTH_HZ, latest),
        snapshot_interval_s=TABLE_DURATION_S / SNAPSHOTS,
    )


def _complex(found: Contents, name: str) -> NDArray[Any]:
    """Complex numbers, or two arrays, since NetCDF has no complex type; named axes are brought into order."""
    arrays = found.arrays
    if name in arrays:
        return in_order(arrays[name], found.axes.get(name, ()), name)
    real, imag = arrays[f"{name}_real"], arrays.get(f"{name}_imag")
    if imag is None or imag.shape != real.shape:
        raise DataError(f"{name}_real needs {name}_imag of the same shape")
    if real.dtype.kind not in "iuf" or imag.dtype.kind not in "iuf":
        raise DataError(f"{name}_real and {name}_imag are of types {real.dtype} and {imag.dtype}; expected numbers")
    return in_order(real + 1j * imag, found.axes.get(f"{name}_real", ()), name)


def _one(path: Path, array: NDArray[Any], index: int) -> NDArray[Any]:
    if array.ndim == 4:
        if index >= len(array):
            raise DataError(f"{path.name} has {len(array)} channels; index {index} is beyond the last")
        return np.asarray(array[index])
    if index:
        raise DataError(f"{path.name} has one channel; index {index} is beyond it")
    return array


def _number(path: Path, attributes: dict[str, Any], name: str) -> float:
    value = attributes.get(name)
    if isinstance(value, np.generic | np.ndarray):
        value = value.item() if value.size == 1 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{path.name} has no {name}; the file must hold a number of that name")
    return float(value)

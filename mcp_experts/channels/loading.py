"""Channels from files, and from numbers sent inline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from mcp_experts.channels.arrays import Contents, read_arrays
from mcp_experts.channels.axes import in_order
from mcp_experts.channels.channel import MOST, SNAPSHOTS, SUBCARRIERS, Channel, from_paths, from_taps
from mcp_experts.channels.importing import apply, folder_options
from mcp_experts.channels.path_tables import (
    DEEPMIMO,
    NEEDED,
    LinkPaths,
    deepmimo_matrices,
    from_deepmimo,
    from_radiomaps,
)

__all__ = ["NoChannel", "channel_from_file", "channel_from_lists", "labelled_channels"]

MOST_INLINE = 16384
#: Number of occupied subcarriers in IEEE 802.11: largest and smallest absolute subcarrier index. 20 MHz (legacy, HT),
#: 40 MHz, 80 MHz or HE 20.
WIFI = {52: (26, 1), 56: (28, 1), 114: (58, 2), 242: (122, 2)}
#: Bandwidth and duration of channels from path tables, which do not state any.
TABLE_BANDWIDTH_HZ, TABLE_DURATION_S = 20e6, 0.014


class NoChannel(DataError):
    """A readable file that holds no channel."""


def channel_from_file(path: Path, index: int = 0, options: Mapping[str, str] | None = None) -> Channel:
    """The channel with number `index`, from 0, in a file.

    Accepted are `csi[subcarrier, time, antenna]`, with a first axis `channel` for several channels, and
    `subcarrier_spacing_hz` and `snapshot_interval_s`; `taps[tap, time, antenna]` with `sample_rate_hz` and
    `snapshot_interval_s`; path tables of `radiomaps paths`; and DeepMIMO's matrices, in one file or in one file each,
    of which any is named. Path tables are sampled over 20 MHz and 14 ms. `options` say how to read files of others (see
    `importing.KEYS`); without any, those of the folder's `import.yaml` hold.

    Raises `UserError` for a negative index and unknown formats, `NoChannel` for a file with other contents, and
    `DataError` for missing or invalid values.
    """
    if index < 0:
        raise UserError(f"index is {index}; the first channel of a file is 0")
    found = _imported(path, read_arrays(path), options)
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
        there = ", ".join(f"{name} {'×'.join(map(str, array.shape))}" for name, array in [*arrays.items()][:8])
        raise NoChannel(
            f"{path.name} holds neither csi nor taps and is not a path table, but {there or 'no arrays'}; expected "
            "csi[subcarrier, time, antenna] with subcarrier_spacing_hz and snapshot_interval_s, or taps[tap, time, "
            "antenna] with sample_rate_hz too; options such as csi=NAME axes=time,subcarrier bandwidth=20MHz say how "
            "another file is read (mcp-experts check --help)"
        )
    kind = "csi" if {"csi", "csi_real"} & set(arrays) else "taps"
    values = _one(path, _complex(found, kind), index)
    return _sampled(path, kind, values, attributes, arrays.get("subcarrier_index"))


def _imported(path: Path, found: Contents, options: Mapping[str, str] | None) -> Contents:
    """Apply `options`, by default those of the folder's `import.yaml`, which files in this package's layouts ignore."""
    if options:
        return apply(found, options, path.name)
    if any(all(name in found.arrays for name in table) for table in (NEEDED, DEEPMIMO)):
        return found
    beside = folder_options(path)
    named = [name.strip() for name in (beside.get("csi") or beside.get("taps") or "").split(",")]
    if {"csi", "csi_real", "taps", "taps_real"} & set(found.arrays) and not set(named) <= {"", *found.arrays}:
        return found
    return apply(found, beside, path.name) if beside else found


def labelled_channels(path: Path) -> tuple[list[Channel], NDArray[np.str_], NDArray[Any]]:
    """All channels of a file with their labels and links: `label[channel]`, and `link[channel]` if the file has it.

    Raises `DataError` for a file without labels, and for numbers of labels and channels that differ.
    """
    found = _imported(path, read_arrays(path), None)
    arrays, attributes = found.arrays, dict(found.attributes)
    kinds = [name for name in ("csi", "taps") if {name, f"{name}_real"} & set(arrays)]
    if not kinds or "label" not in arrays:
        raise DataError(
            f"{path.name} needs taps[channel, tap, time, antenna] or csi[channel, subcarrier, time, antenna], and "
            "label[channel] with the names of classes; link[channel] says which of them belong to one link"
        )
    values, labels = _complex(found, kinds[0]), np.asarray(arrays["label"]).astype(str)
    links = np.asarray(arrays.get("link", np.arange(len(labels))))
    if values.ndim < 2 or labels.shape != (len(values),) or links.shape != labels.shape:
        raise DataError(
            f"{path.name}: {kinds[0]} of shape {values.shape} with label of shape {labels.shape} and link of shape "
            f"{links.shape}; expected one label and one link for each channel, the first axis"
        )
    index = arrays.get("subcarrier_index")
    channels = []
    for number, each in enumerate(values):
        try:
            channels.append(_sampled(path, kinds[0], each, attributes, index))
        except UserError as error:
            raise DataError(f"{path.name}, channel {number}: {error}") from error
    return channels, labels, links


def _sampled(
    path: Path, kind: str, values: NDArray[Any], attributes: dict[str, Any], index: NDArray[Any] | None
) -> Channel:
    """Create a channel from coefficients or taps with the file's sampling; one snapshot needs no interval."""
    one = values.ndim == 1 or values.shape[1] == 1
    interval = 1.0e-3 if one else _number(path, attributes, "snapshot_interval_s")
    if kind == "taps":
        rate = _number(path, attributes, "sample_rate_hz")
        return from_taps(values, sample_rate_hz=rate, snapshot_interval_s=interval)
    spacing = _number(path, attributes, "subcarrier_spacing_hz")
    return Channel(csi=_spaced(path, values, index), subcarrier_spacing_hz=spacing, snapshot_interval_s=interval)


def _spaced(path: Path, csi: NDArray[Any], index: NDArray[Any] | None) -> NDArray[Any]:
    """Place coefficients on an even grid at the subcarriers `index`. Zeros between them are interpolated later.

    Without `index`, 52, 56, 114 and 242 subcarriers get the indices of IEEE 802.11, which omits the middle of the band.
    """
    if index is None:
        if len(csi) not in WIFI:
            return csi
        most, middle = WIFI[len(csi)]
        index = np.array([place for place in range(-most, most + 1) if abs(place) >= middle])
    index = np.asarray(index).astype(np.int64, casting="unsafe")
    if index.shape != (len(csi),) or not (np.diff(index) > 0).all() or np.ptp(index) >= MOST["subcarrier"]:
        raise DataError(
            f"{path.name}: subcarrier_index of shape {index.shape} for {len(csi)} subcarriers; expected one ascending "
            f"whole number each, spanning at most {MOST['subcarrier']}"
        )
    spaced = np.zeros((int(index[-1] - index[0]) + 1, *csi.shape[1:]), csi.dtype)
    spaced[index - index[0]] = csi
    return spaced


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
        option = {"snapshot_interval_s": "snapshot_interval=1ms", "sample_rate_hz": "sample_rate=20MHz"}
        raise DataError(
            f"{path.name} has no {name}; the file must hold a number of that name, or give an option such as "
            f"{option.get(name, 'subcarrier_spacing=30kHz')}"
        )
    return float(value)

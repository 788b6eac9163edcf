"""Order the axes of channels by their names in files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

__all__ = ["AXES", "arranged", "in_order"]

#: Axes of a grid or of taps, in order, each with its names in other tools.
AXES = {
    "channel": ("channel", "channels", "link", "links", "user", "users", "sample", "samples", "realization", "batch"),
    "subcarrier": (
        *("subcarrier", "subcarriers", "frequency", "frequencies", "freq", "f", "tone", "tones", "sc", "carrier"),
        *("tap", "taps", "delay", "delays", "bin", "k"),
    ),
    "time": ("time", "times", "t", "snapshot", "snapshots", "symbol", "symbols", "slot", "frame", "frames", "ofdm"),
    "antenna": (
        *("antenna", "antennas", "ant", "a", "rx", "receiver", "element", "elements", "port", "ports"),
        *("polarisation", "polarization", "rx_ant", "num_rx_ant"),
    ),
}
#: Names of axes of transmit antennas, which count as antennas.
TRANSMIT = ("tx", "tx_ant", "transmitter", "stream", "streams", "layer")
KNOWN = {name: axis for axis, names in AXES.items() for name in names}


def in_order(array: NDArray[Any], names: Sequence[str], what: str) -> NDArray[Any]:
    """Transpose an array with named axes to [channel, subcarrier, time, antenna], without the axes it lacks.

    Generic names (`dim_0`, `phony_dim_1`) leave the order unchanged. One axis with an unknown name is taken for the
    missing one if only one is missing; otherwise a `DataError` names it.
    """
    found = [KNOWN.get(_plain(name)) for name in names]
    if array.ndim not in (2, 3, 4) or not any(found):
        return array
    order = {2: ["subcarrier", "time"], 3: list(AXES)[1:], 4: list(AXES)}[array.ndim]
    missing = [axis for axis in order if axis not in found]
    unknown = [place for place, axis in enumerate(found) if axis is None]
    if len(missing) == len(unknown) == 1:
        found[unknown[0]] = missing[0]
    if sorted(map(str, found)) != sorted(order):
        raise DataError(
            f"{what} has axes {', '.join(map(str, names))}; expected {', '.join(order)}, in any order: rename them"
        )
    return np.transpose(array, [found.index(axis) for axis in order])


def _plain(name: str) -> str:
    return str(name).lower().removeprefix("num_").removeprefix("n_").removesuffix("_index")


def arranged(array: NDArray[Any], names: Sequence[str], what: str) -> NDArray[Any]:
    """Transpose an array with the axes `names` to [channel, subcarrier, time, antenna], or without channel.

    Missing axes get length 1. Several antenna axes (receive and transmit) are merged into one. The axis `parts` (real,
    imaginary) is skipped, since it has been joined before. Raises `DataError` if names and shape do not match.

    >>> arranged(np.zeros((14, 2, 64, 4)), ["time", "rx", "subcarrier", "tx"], "csi").shape
    (64, 14, 8)
    """
    kept = [_plain(name) for name in names if name != "parts"]
    found = [KNOWN.get(name, "antenna" if name in TRANSMIT else None) for name in kept]
    if len(found) != array.ndim or None in found:
        known = "subcarrier (or tap), time, antenna, channel"
        raise DataError(
            f"{what} of shape {array.shape} with axes {', '.join(names)}; expected one name for each of its "
            f"{array.ndim} axes, of {known}"
        )
    for axis in ("channel", "subcarrier", "time"):
        if found.count(axis) > 1 or (axis == "subcarrier" and axis not in found):
            raise DataError(f"{what} has {found.count(axis)} axes {axis} in {', '.join(names)}; expected one")
    order = [place for axis in AXES for place, name in enumerate(found) if name == axis]
    moved = np.transpose(array, order)
    first = moved.shape[: found.count("channel")]
    times = array.shape[found.index("time")] if "time" in found else 1
    return moved.reshape(*first, array.shape[found.index("subcarrier")], times, -1)

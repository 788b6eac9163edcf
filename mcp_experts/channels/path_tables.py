"""Path tables of ray-traced links, in the layouts of `radiomaps paths` and DeepMIMO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import DataError
from mcp_experts.channels.arrays import read_arrays

__all__ = [
    "DEEPMIMO",
    "NEEDED",
    "LinkPaths",
    "deepmimo_matrices",
    "from_deepmimo",
    "from_radiomaps",
    "read_path_table",
]

#: Arrays that identify a path table of `radiomaps paths`, or of DeepMIMO.
NEEDED = ("amplitude_real", "amplitude_imag", "delay_s", "doppler_hz", "bounces")
DEEPMIMO = ("power", "phase", "delay")


@dataclass(frozen=True, eq=False, kw_only=True)
class LinkPaths:
    """`n` links of up to `p` paths: `gains[n, p, polarisation]`, other arrays `[n, p]`; unused delays are NaN.

    `across[n, p]` is the cosine between a path's direction of arrival and the x axis, NaN if the table has no
    directions. `doppler_max_hz[n]` is speed over wavelength, `transmitter[n]` the number of the link's transmitter.
    """

    gains: NDArray[np.complex64]
    delays_s: NDArray[np.float64]
    doppler_hz: NDArray[np.float64]
    bounces: NDArray[np.int64]
    across: NDArray[np.float64]
    doppler_max_hz: NDArray[np.float64]
    transmitter: NDArray[np.int64]

    @property
    def transmitters(self) -> int:
        """Number of transmitters."""
        return int(self.transmitter.max()) + 1


def read_path_table(path: Path) -> LinkPaths:
    """The links of a path table's file; see `from_radiomaps`."""
    found = read_arrays(path)
    return from_radiomaps(path.name, found.arrays, found.attributes)


def from_radiomaps(file: str, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> LinkPaths:
    """The links of a table of `radiomaps paths`, in the order of transmitters, then receivers.

    Amplitudes are `[tx, rx, polarisation, path]`, other arrays `[tx, rx, path]`; delays in s, Doppler shifts in Hz.
    `file` is the name for messages. A `DataError` names what is missing.
    """
    missing = [name for name in NEEDED if name not in arrays]
    if missing or "frequency_hz" not in attributes:
        raise DataError(
            f"{file} is not a path table: {', '.join(missing) or 'attribute frequency_hz'} missing; "
            "radiomaps paths writes one"
        )
    delays = arrays["delay_s"].astype(np.float64)
    if delays.ndim != 3:
        raise DataError(f"{file}: delay_s of shape {delays.shape}; expected [tx, rx, path]")
    for name in ("doppler_hz", "bounces"):
        if arrays[name].shape != delays.shape:
            raise DataError(f"{file}: {name} of shape {arrays[name].shape}; expected {delays.shape}, as delay_s")
    tx, rx, paths = delays.shape
    amplitude = arrays["amplitude_real"] + 1j * arrays["amplitude_imag"]
    if amplitude.ndim != 4 or amplitude.shape[:2] != (tx, rx) or amplitude.shape[3] != paths:
        raise DataError(f"{file}: amplitudes of shape {amplitude.shape}; expected [tx, rx, polarisation, path]")
    carrier = float(attributes["frequency_hz"])
    shifts = arrays["doppler_hz"].astype(np.float64).reshape(-1, paths)
    return LinkPaths(
        gains=amplitude.reshape(tx * rx, -1, paths).transpose(0, 2, 1).astype(np.complex64),
        delays_s=delays.reshape(-1, paths),
        doppler_hz=shifts,
        bounces=arrays["bounces"].astype(np.int64).reshape(-1, paths),
        across=_across(arrays, delays.shape).reshape(-1, paths),
        doppler_max_hz=_largest_shift(arrays, shifts, tx, carrier),
        transmitter=np.repeat(np.arange(tx), rx),
    )


def _across(arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Cosines of the directions of arrival with the x axis."""
    angles = [arrays.get(f"arrival_{name}") for name in ("azimuth", "zenith")]
    if any(angle is None or angle.shape != shape for angle in angles):
        return np.full(shape, np.nan)
    azimuth, zenith = (np.asarray(angle, np.float64) for angle in angles)
    cosines: NDArray[np.float64] = np.sin(zenith) * np.cos(azimuth)
    return cosines


def _largest_shift(
    arrays: Mapping[str, NDArray[Any]], shifts: NDArray[np.float64], tx: int, carrier: float
) -> NDArray[np.float64]:
    """Speed over wavelength; without speeds in the table, the largest shift among a link's paths."""
    names = [f"rx_velocity_{letter}" for letter in "xyz"]
    if all(name in arrays for name in names):
        speed = np.sqrt(sum(arrays[name].astype(np.float64) ** 2 for name in names))
        return np.tile(speed * carrier / SPEED_OF_LIGHT, tx)
    return np.abs(np.nan_to_num(shifts)).max(axis=1, initial=0.0)


def from_deepmimo(arrays: Mapping[str, NDArray[Any]]) -> LinkPaths:
    """The links of DeepMIMO's matrices `[user, path]`: `power` in dB, `phase` in degrees, `delay` in s, unused NaN.

    Optional: `doppler` in Hz, by default 0, and `inter`, whose digits are the interactions of a path, 0 for line of
    sight. One antenna.
    """
    power, phase, delay = (np.atleast_2d(np.asarray(arrays[name], np.float64)) for name in DEEPMIMO)
    if not power.shape == phase.shape == delay.shape or power.ndim != 2:
        shapes = ", ".join(f"{name} {np.shape(arrays[name])}" for name in DEEPMIMO)
        raise DataError(f"DeepMIMO matrices differ in shape: {shapes}; expected one shape [user, path]")
    present = np.isfinite(power) & np.isfinite(phase) & np.isfinite(delay)
    gains = np.where(present, 10 ** (np.where(present, power, 0) / 20), 0) * np.exp(
        1j * np.deg2rad(np.nan_to_num(phase))
    )
    shifts = np.nan_to_num(np.asarray(arrays.get("doppler", np.zeros_like(power)), np.float64))
    if shifts.shape != power.shape:
        raise DataError(f"doppler has shape {shifts.shape}, power {power.shape}; expected equal shapes")
    codes = np.nan_to_num(np.asarray(arrays.get("inter", np.full(power.shape, np.nan)), np.float64), nan=-1)
    if codes.shape != power.shape:
        raise DataError(f"inter has shape {codes.shape}, power {power.shape}; expected equal shapes")
    digits = np.where(codes > 0, np.floor(np.log10(np.maximum(codes, 1))) + 1, codes)
    return LinkPaths(
        gains=gains[..., None].astype(np.complex64),
        delays_s=np.where(present, delay, np.nan),
        doppler_hz=shifts,
        bounces=digits.astype(np.int64),
        across=np.full(power.shape, np.nan),
        doppler_max_hz=np.abs(shifts).max(axis=1, initial=0.0),
        transmitter=np.zeros(len(power), np.int64),
    )


def deepmimo_matrices(path: Path) -> dict[str, NDArray[Any]]:
    """Read DeepMIMO's matrices of a pair of transmitter and receiver sets. Each is one file in the folder of `path`."""
    pair = re.sub(r"^[a-z_]+?_(?=t\d)", "", path.name)
    found = {}
    for name in (*DEEPMIMO, "doppler", "inter"):
        other = path.with_name(f"{name}_{pair}")
        if other.is_file() and not other.is_symlink():
            arrays = read_arrays(other).arrays
            if name in arrays:
                found[name] = arrays[name]
    missing = [name for name in DEEPMIMO if name not in found]
    if missing:
        raise DataError(f"{path.name}: {missing[0]}_{pair} must be in the same folder and hold {missing[0]}")
    return found

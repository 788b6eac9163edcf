"""The field radiated by a transmitter's antenna: pattern, polarisation, orientation, and weights of its array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radiomaps.antennas.pattern import POLARIZATIONS, gain_dbi

if TYPE_CHECKING:
    from radiomaps.maps.layout import Transmitter

__all__ = [
    "antenna_field",
    "array_factor",
    "element_weights",
    "omnidirectional",
    "rotation",
    "spherical_basis",
    "steering_weights",
]


def omnidirectional(transmitter: Transmitter) -> bool:
    """Return True if the antenna's gain is independent of azimuth."""
    return transmitter.pattern in ("iso", "dipole", "hw_dipole") and transmitter.rows * transmitter.columns == 1


def rotation(orientation: tuple[float, float, float]) -> NDArray[np.float64]:
    """Matrix from the antenna's frame to the scene's: yaw about z, then pitch about y, then roll about x."""
    (sa, sb, sc), (ca, cb, cc) = np.sin(orientation), np.cos(orientation)
    return np.array(
        [
            [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
            [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
            [-sb, cb * sc, cb * cc],
        ]
    )


def spherical_basis(direction: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Zenith and azimuth angles of unit vectors `(…, 3)`, and unit vectors along which they increase (V and H)."""
    x, y, z = np.moveaxis(direction, -1, 0)
    level = np.hypot(x, y)
    zenith, azimuth = np.arctan2(level, z), np.arctan2(y, x)
    st, ct, sp, cp = np.sin(zenith), np.cos(zenith), np.sin(azimuth), np.cos(azimuth)
    return zenith, azimuth, np.stack([ct * cp, ct * sp, -st], -1), np.stack([-sp, cp, np.zeros_like(sp)], -1)


def element_weights(transmitter: Transmitter) -> NDArray[np.complex128]:
    """Weights `(rows, columns)` of the array's elements, normalised to unit power. Equal if none are given."""
    shape = (transmitter.rows, transmitter.columns)
    weights = np.array(transmitter.weights or np.ones(shape), complex).reshape(shape)
    return weights / np.linalg.norm(weights)


def steering_weights(rows: int, columns: int, *, tilt_deg: float = 0.0, azimuth_deg: float = 0.0) -> NDArray[Any]:
    """Weights that steer an array's beam below the horizon and clockwise from boresight, in the antenna's frame.

    Rows are numbered from below, columns from the right as seen from behind the antenna. Elements are half a wavelength
    apart.

    >>> steering_weights(2, 1, tilt_deg=30.0).ravel().round(3).tolist()
    [(0.707-0.707j), (0.707+0.707j)]
    """
    tilt, turn = np.radians(tilt_deg), np.radians(-azimuth_deg)
    y, z = np.cos(tilt) * np.sin(turn), -np.sin(tilt)
    row, column = (np.arange(count) - (count - 1) / 2 for count in (rows, columns))
    return np.exp(-1j * np.pi * (row[:, None] * z + column[None, :] * y))


def antenna_field(transmitter: Transmitter, direction: NDArray[Any]) -> NDArray[np.complex128]:
    """Radiated field `(…, 2)` along unit vectors `(…, 3)`: the V and H components in the scene's frame.

    V is along the zenith angle, H along the azimuth; |field|² is the gain. Both ports of a dual-polarised antenna get
    the same signal. The elements of an array without weights get the same signal too.
    """
    turn = rotation(transmitter.orientation)
    local = np.asarray(direction, float) @ turn
    zenith, azimuth, along_zenith, along_azimuth = spherical_basis(local)
    amplitude = 10 ** (gain_dbi(transmitter.pattern, zenith, azimuth) / 20)
    slants = POLARIZATIONS[transmitter.polarization]
    theta = sum(np.cos(slant) for slant in slants) / np.sqrt(len(slants)) * amplitude
    phi = sum(np.sin(slant) for slant in slants) / np.sqrt(len(slants)) * amplitude
    field = (theta[..., None] * along_zenith + phi[..., None] * along_azimuth) @ turn.T
    _, _, vertical, horizontal = spherical_basis(np.asarray(direction, float))
    sent = np.stack([(field * vertical).sum(-1), (field * horizontal).sum(-1)], -1)
    return sent * array_factor(transmitter, direction)[..., None]


def array_factor(transmitter: Transmitter, direction: NDArray[Any]) -> NDArray[np.complex128]:
    """The array factor along unit vectors `(…, 3)`; 1 for a single antenna."""
    if transmitter.rows * transmitter.columns == 1:
        return np.ones(direction.shape[:-1], complex)
    local = np.asarray(direction, float) @ rotation(transmitter.orientation)
    weights = element_weights(transmitter)
    row, column = (np.arange(count) - (count - 1) / 2 for count in weights.shape)
    phases = np.exp(1j * np.pi * local[..., 2, None] * row) @ weights
    return (phases * np.exp(1j * np.pi * local[..., 1, None] * column)).sum(-1)

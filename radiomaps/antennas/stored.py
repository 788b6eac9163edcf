"""Antennas applied to stored paths: other patterns, directions and weights without another trace.

A stored path has a direction of departure and a 2 × 2 matrix over the polarisations V and H, sent and received. Its
elements are the complex amplitudes at an isotropic receiver for a source of unit gain in each polarisation. The
received field is the antenna's field along the path times this matrix. The path gain of a voxel is the sum of the
powers of its paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.errors import DataError
from radiomaps.antennas.arrays import antenna_field

if TYPE_CHECKING:
    from radiomaps.maps.layout import Transmitter

__all__ = ["PATH_DIMS", "PATH_VARIABLES", "amplitudes", "apply_antenna", "departures", "path_powers", "with_paths"]

_PATH, _PAIR = ("path",), ("path", "sent", "received")
#: Variables of stored paths, padded with NaN: dimensions in addition to the voxel's, units, description.
PATH_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "path_delay_s": (_PATH, "s", "delay of the path"),
    "path_departure_azimuth": (_PATH, "rad", "azimuth of departure at the transmitter"),
    "path_departure_zenith": (_PATH, "rad", "zenith angle of departure at the transmitter"),
    "path_arrival_azimuth": (_PATH, "rad", "azimuth of arrival, from the receiver towards the source of the path"),
    "path_arrival_zenith": (_PATH, "rad", "zenith angle of arrival, from the receiver towards the source of the path"),
    "path_amplitude_db": (_PAIR, "dB", "magnitude of the path's amplitude, by polarisation sent and received"),
    "path_amplitude_rad": (_PAIR, "rad", "phase of the path's amplitude without the phase of its delay"),
}
PATH_DIMS = ("path", "sent", "received")


def with_paths(maps: xr.Dataset, kept: Mapping[str, NDArray[Any]]) -> xr.Dataset:
    """Maps with the stored paths of a trace, `(tx, z, y, x, path, …)`, NaN in buildings."""
    if not kept:
        return maps
    fields: dict[str, Any] = {}
    building = maps["building"].values[None, ..., None]
    for name, (dims, units, long_name) in PATH_VARIABLES.items():
        nowhere = building[..., None, None] if len(dims) > 1 else building
        values = np.where(nowhere, np.float32(np.nan), kept[name])
        fields[name] = (("tx", "z", "y", "x", *dims), values, {"units": units, "long_name": long_name})
    return maps.assign(fields).assign_coords(sent=["V", "H"], received=["V", "H"])


def amplitudes(paths: xr.Dataset) -> NDArray[np.complex128]:
    """Complex amplitudes `(…, path, sent, received)` without the phase of the delay; 0 in unused path slots."""
    level = paths["path_amplitude_db"].transpose(..., *PATH_DIMS).values
    phase = paths["path_amplitude_rad"].transpose(..., *PATH_DIMS).values
    known = np.isfinite(level)
    found = 10 ** (np.where(known, level, 0.0).astype(float) / 20) * np.exp(1j * np.where(known, phase, 0.0))
    return np.where(known, found, 0.0)


def departures(paths: xr.Dataset) -> NDArray[np.float64]:
    """Unit vectors `(…, path, 3)` of departure; +x in unused path slots."""
    zenith, azimuth = (
        np.nan_to_num(paths[f"path_departure_{angle}"].transpose(..., "path").values.astype(float), nan=fill)
        for angle, fill in (("zenith", np.pi / 2), ("azimuth", 0.0))
    )
    return np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], -1)


def path_powers(paths: xr.Dataset, transmitter: Transmitter) -> NDArray[np.float64]:
    """Power gain `(…, path)` of each path with this antenna and an isotropic receiver; 0 in unused path slots."""
    field = antenna_field(transmitter, departures(paths))
    received = np.einsum("...s,...sr->...r", field, amplitudes(paths))
    return np.asarray((np.abs(received) ** 2).sum(-1))


def apply_antenna(paths: xr.Dataset, transmitter: Transmitter) -> xr.Dataset:
    """Compute the map of stored paths `(z, y, x, path)` with another antenna at the same position.

    Pattern, orientation, polarisation and weights are those of `transmitter`; its position is ignored. Returns path
    gain, and time and direction of arrival of the strongest path; NaN in voxels without a path. Raises `DataError` for
    maps without stored paths.
    """
    from radiomaps.maps.layout import VARIABLES

    missing = [name for name in PATH_VARIABLES if name not in paths]
    if missing:
        raise DataError(
            f"{missing[0]} missing: these maps have no stored paths; trace them with solver.options.paths_per_voxel=16"
        )
    layers = []
    dims = tuple(str(dim) for dim in paths["path_delay_s"].dims if dim != "path")
    for index in range(paths.sizes[dims[0]]):  # one layer at a time to limit memory
        layer = paths.isel({dims[0]: index}).transpose(..., *PATH_DIMS)
        power = path_powers(layer, transmitter)
        best = power.argmax(-1)[..., None]
        columns = [10 * np.log10(np.where(power.sum(-1) > 0, power.sum(-1), np.nan))]
        for name in ("path_delay_s", "path_arrival_azimuth", "path_arrival_zenith"):
            strongest = np.take_along_axis(layer[name].values, best, -1)[..., 0]
            columns.append(np.where(np.isfinite(columns[0]), strongest, np.nan))
        layers.append(np.stack(columns).astype(np.float32))
    names = ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith")
    fields: dict[str, Any] = {}
    for number, name in enumerate(names):
        about = {"units": VARIABLES[name].units, "long_name": VARIABLES[name].long_name}
        fields[name] = (dims, np.stack([layer[number] for layer in layers]), about)
    coords = {name: value for name, value in paths.coords.items() if not set(value.dims) & set(PATH_DIMS)}
    return xr.Dataset(fields, coords, paths.attrs)

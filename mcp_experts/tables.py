"""Path tables of ray-traced links, read from NetCDF, Zarr or npz files in the layout that `radiomaps paths` writes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

__all__ = ["PathTable", "read_arrays", "read_path_table"]

SPEED_OF_LIGHT = 299_792_458.0
NEEDED = ("amplitude_real", "amplitude_imag", "delay_s", "doppler_hz", "bounces")


@dataclass(frozen=True, eq=False, kw_only=True)
class PathTable:
    """`n` links of up to `p` paths: `gains[n, p, polarisation]`, and `[n, p]` each; delays are NaN beyond the last.

    `doppler_max_hz[n]` is speed over wavelength.
    """

    gains: NDArray[np.complex64]
    delays_s: NDArray[np.float64]
    doppler_hz: NDArray[np.float64]
    bounces: NDArray[np.int64]
    doppler_max_hz: NDArray[np.float64]
    carrier_hz: float


def read_path_table(path: Path) -> PathTable:
    """The links, transmitter by receiver, of a path table; a `DataError` that names what is missing."""
    arrays, attributes = read_arrays(path)
    missing = [name for name in NEEDED if name not in arrays]
    if missing or "frequency_hz" not in attributes:
        raise DataError(
            f"{path.name} is no path table: {', '.join(missing) or 'attribute frequency_hz'} missing; "
            "radiomaps paths writes one"
        )
    delays = arrays["delay_s"].astype(np.float64)
    if delays.ndim != 3:
        raise DataError(f"{path.name}: delay_s of shape {delays.shape}; expected [tx, rx, path]")
    tx, rx, paths = delays.shape
    amplitude = arrays["amplitude_real"] + 1j * arrays["amplitude_imag"]
    if amplitude.ndim != 4 or amplitude.shape[:2] != (tx, rx) or amplitude.shape[3] != paths:
        raise DataError(f"{path.name}: amplitudes of shape {amplitude.shape}; expected [tx, rx, polarisation, path]")
    carrier = float(attributes["frequency_hz"])
    shifts = arrays["doppler_hz"].astype(np.float64).reshape(-1, paths)
    return PathTable(
        gains=amplitude.reshape(tx * rx, -1, paths).transpose(0, 2, 1).astype(np.complex64),
        delays_s=delays.reshape(-1, paths),
        doppler_hz=shifts,
        bounces=arrays["bounces"].astype(np.int64).reshape(-1, paths),
        doppler_max_hz=_largest_shift(arrays, shifts, tx, carrier),
        carrier_hz=carrier,
    )


def _largest_shift(
    arrays: Mapping[str, NDArray[Any]], shifts: NDArray[np.float64], tx: int, carrier: float
) -> NDArray[np.float64]:
    """Speed over wavelength; where the table does not tell speeds, the largest shift among a link's paths."""
    names = [f"rx_velocity_{letter}" for letter in "xyz"]
    if all(name in arrays for name in names):
        speed = np.sqrt(sum(arrays[name].astype(np.float64) ** 2 for name in names))
        return np.tile(speed * carrier / SPEED_OF_LIGHT, tx)
    return np.nan_to_num(np.abs(np.nan_to_num(shifts)).max(axis=1))


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """All arrays and attributes of an npz, NetCDF or Zarr file; the last two need xarray, named where it is missing.

    In an npz file attributes are arrays without axes, or a JSON text `attributes`. Nothing is unpickled.
    """
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                every = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path.name} cannot be read as npz without pickles ({error})") from error
        plain = {name: array.item() for name, array in every.items() if not array.ndim}
        return {name: array for name, array in every.items() if array.ndim}, plain | _texts(plain)
    if path.suffix not in (".nc", ".zarr"):
        raise DataError(f"{path.name}: formats are .npz, .nc (NetCDF) and .zarr")
    try:
        import xarray as xr
    except ModuleNotFoundError:
        raise DataError(f"reading {path.suffix} needs xarray; pip install 'geoml[data]' brings it") from None
    try:
        with xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path) as opened:
            dataset = opened.load()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from error
    return {str(name): variable.values for name, variable in dataset.variables.items()}, dict(dataset.attrs)


def _texts(plain: dict[str, Any]) -> dict[str, Any]:
    """The attributes of the whole table where they are kept as JSON, under an empty name."""
    try:
        found = json.loads(plain["attributes"])[""]
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

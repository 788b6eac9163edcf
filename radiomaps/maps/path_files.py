"""Path tables in files: CF NetCDF, or npz, which can be read with NumPy alone.

An npz contains one array per variable (no pickles), and two JSON texts: `dims` maps variables to their dimensions,
`attributes` contains those of the table under "" and those of each variable under its name.

Dimensions: `tx` transmitters, `rx` receivers (or one receiver at times `time_s`), `path` by descending power,
`polarisation` V and H of the receiver.

| variable | dims | units |
|---|---|---|
| `gain_db`, `delay_s`, `doppler_hz` | tx, rx, path | dB, s, Hz |
| `arrival_azimuth`, `arrival_zenith`, `departure_azimuth`, `departure_zenith` | tx, rx, path | rad |
| `amplitude_real`, `amplitude_imag` | tx, rx, polarisation, path | 1 |
| `bounces`, `diffracted` | tx, rx, path | 1 |
| `reflections` | tx, rx, path, material | 1 |
| `path_count`, `path_gain_db`, `coherent_gain_db` | tx, rx | 1, dB, dB |
| `tx_x` … `tx_z`, `rx_x` … `rx_z`, `rx_velocity_x` … `rx_velocity_z`, `time_s` | tx or rx | m, m/s, s |

Beyond `path_count` there are NaN, amplitudes 0. The amplitude of a path includes its phase at the carrier, so that the
channel at the offset `f` Hz from the carrier and `t` s later is Σ a exp(-2πi f τ) exp(2πi ν t) with delay τ and Doppler
ν.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import xarray as xr

from geoml.data.netcdf import read_dataset, write_netcdf
from geoml.errors import DataError, UserError
from geoml.runs.files import atomic_path

__all__ = ["read_paths", "require_suffix", "write_paths"]

_TEXTS = ("dims", "attributes")


def write_paths(path: str | os.PathLike[str], table: xr.Dataset) -> Path:
    """Write the table of `radiomaps.raytrace.find_paths` as `.npz` or `.nc`, atomically."""
    path = Path(path)
    require_suffix(path)
    if path.suffix == ".nc":
        masks = {name: array.astype("int8") for name, array in table.data_vars.items() if array.dtype == bool}
        write_netcdf(path, table.assign(masks))
        return path
    arrays = {str(name): np.asarray(array.values) for name, array in table.variables.items()}
    arrays = {name: values.astype(str) if values.dtype == object else values for name, values in arrays.items()}
    dims = {str(name): [str(dim) for dim in array.dims] for name, array in table.variables.items()}
    attributes = {str(name): dict(array.attrs) for name, array in table.variables.items()}
    texts = {"dims": json.dumps(dims), "attributes": json.dumps({"": table.attrs, **attributes})}
    with atomic_path(path) as partial, open(partial, "wb") as stream:
        np.savez_compressed(stream, **arrays, **{name: np.array(text) for name, text in texts.items()})  # type: ignore[arg-type]
    return path


def read_paths(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a table of `write_paths`; raises `DataError` for a missing, damaged or other file."""
    path = Path(path)
    require_suffix(path)
    if path.suffix == ".nc":
        table = read_dataset(path).load()
        return table.assign({"diffracted": table["diffracted"].astype(bool)})
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        dims, attributes = (json.loads(str(arrays.pop(name))) for name in _TEXTS)
        variables = {name: (dims[name], values, attributes[name]) for name, values in arrays.items()}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no path table, or it is damaged ({error})") from error
    table = xr.Dataset(variables, attrs=attributes[""])
    places = [name for name in table.data_vars if str(name).startswith(("tx_", "rx_")) or name == "time_s"]
    return table.set_coords(places)


def require_suffix(path: Path) -> None:
    """Raise `UserError` for a file name with another suffix."""
    if path.suffix not in (".npz", ".nc"):
        raise UserError(f"path tables are .npz or .nc files, not {path.name!r}")

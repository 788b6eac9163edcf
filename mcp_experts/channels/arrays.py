"""Arrays and attributes of files: npz, and NetCDF, Zarr, HDF5 and MATLAB if their libraries are installed.

Nothing is unpickled. Links to other files are not followed. A file that would unpack to more than the limit is refused
before it is unpacked.
"""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from mcp_experts.channels.opening import FORMATS

__all__ = ["Contents", "opened", "read_arrays"]

#: Largest total size of a file's arrays in memory, in bytes. Compressed arrays and fill values take little space on
#: disk.
MOST_UNPACKED = 2**30
#: Largest number of arrays in a file; size, in bytes, of the end record of a zip archive without a comment.
MOST_ARRAYS, END = 256, 22
#: Deepest structure of a MATLAB file that is read.
DEEPEST = 4
LARGEST_NUMBER = np.dtype(np.complex128).itemsize
HDF5 = b"\x89HDF\r\n\x1a\n"
#: Field names of complex numbers stored as pairs: h5py and netCDF4 write the first, MATLAB the second, radios the last.
PAIRS = (("r", "i"), ("real", "imag"), ("re", "im"), ("i", "q"))


@dataclass(frozen=True)
class Contents:
    """Contents of a file: arrays, attributes, and the names of the arrays' axes if the file has any."""

    arrays: dict[str, NDArray[Any]]
    attributes: dict[str, Any]
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_arrays(path: Path) -> Contents:
    """All arrays and attributes of a file, with the names of axes.

    In an npz file, attributes are arrays without axes or a JSON text `attributes`. Data sets in groups of an HDF5 file,
    and fields of MATLAB's structures, are named with the path to them, as `group/data` and `struct.field`. MATLAB 7.3
    files are HDF5 with axes in reverse order, which is restored. Nothing is unpickled. A `UserError` names a library
    that is missing, a `DataError` what is wrong with the file.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path.name}: expected one of {', '.join(FORMATS)}; numpy.savez writes the first")
    try:
        if path.suffix.lower() == ".npz":
            return _npz(path)
        if path.suffix.lower() in (".h5", ".hdf5", ".mat"):
            return _hdf5(path) if _is_hdf5(path) else _matlab(path)
        with opened(path) as (dataset,):
            _refuse_large(path, dataset.nbytes)
            loaded = dataset.load()
    except ModuleNotFoundError:
        needed = "h5py" if path.suffix.lower() == ".mat" and _is_hdf5(path) else FORMATS[path.suffix.lower()]
        raise DataError(f"reading {path.suffix.lower()} needs {needed}; pip install 'geoml[data]'") from None
    except DataError:
        raise
    except Exception as error:  # OSError, ValueError, zipfile.BadZipFile: errors of SciPy and HDF5 have no common base
        raise DataError(
            f"{path.name} is truncated or not a {path.suffix.lower()} file ({type(error).__name__}: {error})"
        ) from error
    variables = {str(name): variable for name, variable in loaded.variables.items()}
    return Contents(
        {name: _plain(variable.values) for name, variable in variables.items()},
        {str(name): _single(value) for name, value in loaded.attrs.items()},
        {name: tuple(map(str, variable.dims)) for name, variable in variables.items()},
    )


def _npz(path: Path) -> Contents:
    if not zipfile.is_zipfile(path):  # NumPy's message would suggest to unpickle it
        raise DataError(f"{path.name} is truncated or not an .npz file: write it with numpy.savez")
    _refuse_many(path)
    with np.load(path, allow_pickle=False) as file:
        _refuse_large(path, sum(member.file_size for member in file.zip.infolist()))
        try:
            every = {name: file[name] for name in file.files}
        except ValueError as error:
            raise DataError(
                f"{path.name} holds other values than numbers ({error}); write only arrays of numbers"
            ) from error
    return _split(every)


def _refuse_many(path: Path) -> None:
    """Refuse an archive with too many arrays. Reads only its end record, since the directory could exhaust memory."""
    with open(path, "rb") as stream:
        stream.seek(max(0, path.stat().st_size - END - 2**16))
        tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    count = int.from_bytes(tail[at + 10 : at + 12], "little")
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    if count > MOST_ARRAYS or size > MOST_ARRAYS * 2**10:
        raise DataError(f"{path.name} holds {count} arrays or more; at most {MOST_ARRAYS} are read")


def _is_hdf5(path: Path) -> bool:
    """Return True if the file has the signature of HDF5, at its start or after MATLAB's header of 512 bytes."""
    with open(path, "rb") as stream:
        head = stream.read(520)
    return head.startswith(HDF5) or head[512:] == HDF5


def _hdf5(path: Path) -> Contents:
    import h5py

    turn = path.suffix.lower() == ".mat"
    _refuse_pointers(path)
    with h5py.File(path, "r") as file:
        items: dict[str, Any] = {}

        def keep(name: str, item: Any) -> bool | None:
            if isinstance(item, h5py.Dataset) and not name.startswith("#"):
                items[name] = item
            return True if len(items) > MOST_ARRAYS else None

        if len(file) > MOST_ARRAYS or file.visititems(keep):
            raise DataError(f"{path.name} holds more than {MOST_ARRAYS} data sets; at most {MOST_ARRAYS} are read")
        _refuse_objects(path, {name: item.dtype for name, item in items.items()})
        _refuse_large(path, sum(item.nbytes for item in items.values()))
        every = {name: _plain(item[()]) for name, item in items.items()}
        attributes = {name: _single(value) for name, value in file.attrs.items() if np.size(value) == 1}
        axes = {} if turn else {name: tuple(map(_axis, item.dims)) for name, item in items.items()}
    found = _split({name: array.T if turn else array for name, array in every.items()})
    return Contents(found.arrays, found.attributes | attributes, axes)


def _refuse_objects(path: Path, types: Mapping[str, Any]) -> None:
    """Refuse objects: lists of varying length and references. Texts pass, since attributes may be texts."""
    import h5py

    for name, kind in types.items():
        if kind.kind == "O" and h5py.check_string_dtype(kind) is None:
            raise DataError(f"{path.name}: {name} holds {kind} objects; only arrays of numbers are read")


def _axis(dimension: Any) -> str:
    """Name of an HDF5 dimension: its label, or the name of its dimension scale (written by NetCDF and h5netcdf)."""
    scale = dimension[0].name if len(dimension) else ""
    return str(dimension.label or scale.rpartition("/")[2])


def _single(value: Any) -> Any:
    """An attribute with one element as a number or text: MATLAB writes every attribute as an array."""
    return value.item() if isinstance(value, np.ndarray | np.generic) and np.size(value) == 1 else value


def _matlab(path: Path) -> Contents:
    if path.suffix.lower() != ".mat":
        raise ValueError("not an HDF5 file")
    from scipy.io import loadmat, whosmat

    _refuse_large(path, sum(LARGEST_NUMBER * math.prod(shape) for _, shape, _ in whosmat(path)))
    found = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    flat = dict(_fields(found))
    _refuse_large(path, sum(array.nbytes for array in flat.values()))
    return _split(flat)


def _fields(found: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, NDArray[Any]]]:
    """Arrays of numbers and texts, also those in structures."""
    for name, array in found.items():
        if array.dtype.names and array.size == 1 and depth < DEEPEST:
            one = array.reshape(-1)[0]
            inner = {f"{name}.{field}": np.asarray(one[field]) for field in array.dtype.names}
            yield from _fields(inner, depth + 1)
        elif array.dtype.kind in "biufcU":
            yield name, array


def _refuse_large(path: Path, size: int) -> None:
    if size > MOST_UNPACKED:
        raise DataError(
            f"the arrays of {path.name} take {size} bytes; at most {MOST_UNPACKED} are read: split it into parts"
        )


def _refuse_pointers(path: Path) -> None:
    """Refuse an HDF5 file with links to other files, or with arrays whose values are in other files."""
    import h5py

    found: list[str] = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            found.append(name)

    def look_at_link(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            found.append(name)

    with h5py.File(path, "r") as file:
        file.visititems(look)
        file.visititems_links(look_at_link)
    if found:
        raise DataError(
            f"{path.name}: {found[0]} is stored in another file, which is not read; write all arrays into one file"
        )


def _plain(value: Any) -> NDArray[Any]:
    """Convert to an array; pairs of real and imaginary parts become complex numbers."""
    array = np.asarray(value)
    names = {name.lower(): name for name in array.dtype.names or ()}
    for pair in PAIRS:
        if set(names) == set(pair):
            real, imag = (array[names[name]] for name in pair)
            joined: NDArray[Any] = real + 1j * imag
            return joined
    return array


def _split(every: dict[str, NDArray[Any]]) -> Contents:
    """Split into arrays, and attributes from arrays without axes."""
    plain = {name: array.item() for name, array in every.items() if not array.ndim}
    return Contents({name: array for name, array in every.items() if array.ndim}, plain | _texts(plain))


@contextlib.contextmanager
def opened(path: Path, groups: Sequence[str] = ()) -> Iterator[list[Any]]:
    """Open a NetCDF file or Zarr store lazily: the root data set, or in a store those of `groups` that exist."""
    if path.suffix.lower() not in (".nc", ".zarr"):
        raise DataError(f"{path.name}: expected .npz, .nc (NetCDF) or .zarr")
    try:
        import xarray as xr
    except ModuleNotFoundError:
        raise DataError(f"reading {path.suffix.lower()} needs xarray; pip install 'geoml[data]'") from None
    with contextlib.ExitStack() as stack:
        try:
            if path.suffix.lower() == ".nc":
                _check_netcdf(path)
                found = [xr.open_dataset(path, create_default_indexes=False)]
            else:
                found = _groups_of_store(path, groups)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path.name} is truncated or not a {path.suffix.lower()} file ({type(error).__name__}: {error})"
            ) from error
        yield [stack.enter_context(dataset) for dataset in found]


def _groups_of_store(path: Path, groups: Sequence[str]) -> list[Any]:
    """Data sets of the groups that exist, or of the root; coordinates are read on first use."""
    import xarray as xr

    from mcp_experts.channels.piecewise import PiecewiseStore

    store = PiecewiseStore(path)
    inner = [group for group in groups if store.read(f"{group}/zarr.json") or store.read(f"{group}/.zgroup")]
    options: dict[str, Any] = {"chunks": None, "consolidated": False, "create_default_indexes": False}
    return [xr.open_zarr(store, group=group, **options) for group in inner or (None,)]


def _check_netcdf(path: Path) -> None:
    """Refuse links in NetCDF version 4, which is HDF5: the libraries would follow them."""
    import h5py

    if h5py.is_hdf5(path):
        _refuse_pointers(path)


def _texts(plain: dict[str, Any]) -> dict[str, Any]:
    """Global attributes of a path table: the entry with an empty name in the JSON text `attributes`."""
    try:
        found = json.loads(plain["attributes"])[""]
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

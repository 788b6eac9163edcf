"""Radio map at a point: path gain, line of sight and time of arrival, with free space for comparison.

Maps are files of `radiomaps`, which is not imported: sets of traced maps (`maps.zarr`), single maps, and predictions,
whose members give the uncertainty. The variables `path_gain_db`, `toa_s`, `los`, `no_path` and `building` have the axes
`(z, y, x)` in metres, and axes of transmitters, scenes, samples or members in any order. Only one voxel is read.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import DataError, UserError
from mcp_experts.channels.arrays import opened, read_arrays

__all__ = ["RadioMaps", "open_maps", "query_map"]

#: Difference, in voxels, between distance and time of arrival in line of sight above which there is a warning.
SLACK_VOXELS = 2.0


MEMBER, SPACE = "member", ("z", "y", "x")
NEEDED = ("path_gain_db", "x", "y", "z", "tx_x", "tx_y", "tx_z", "frequency_hz")
#: Axes of maps in an npz file without names, from the innermost outwards.
UNNAMED = ("tx", "scene")


@dataclass(frozen=True, eq=False)
class NamedArray:
    """An array with named axes, of which only the indexed part is read."""

    dims: tuple[str, ...]
    array: Any

    def at(self, place: Mapping[str, int]) -> NDArray[Any]:
        """Values at these positions along axes; axes that the array lacks are ignored."""
        return np.asarray(self.array[tuple(place.get(dim, slice(None)) for dim in self.dims)])


@dataclass(frozen=True, eq=False)
class RadioMaps:
    """Variables of one or several maps by name; the axes of `path_gain_db` distinguish the maps."""

    variables: Mapping[str, NamedArray]

    def transmitter(self, number: int) -> dict[str, int]:
        """Positions of map `number` along the axes of maps; a `UserError` if there are fewer."""
        gain = self.variables["path_gain_db"]
        axes = {dim: size for dim, size in zip(gain.dims, gain.array.shape, strict=True) if dim not in (MEMBER, *SPACE)}
        count = math.prod(axes.values())
        if not 0 <= number < count:
            raise UserError(f"the map has {count} transmitters, numbered from 0; there is no number {number}")
        return dict(zip(axes, map(int, np.unravel_index(number, tuple(axes.values()))), strict=True)) if axes else {}

    def voxel(self, point: Mapping[str, float]) -> tuple[dict[str, int], float]:
        """Positions of the voxel that holds a point, and the longest edge of a voxel, in m."""
        place, longest = {}, 0.0
        for name in SPACE:
            centres = self.variables[name].at({}).astype(np.float64)
            half = float(np.diff(centres).mean()) / 2 if len(centres) > 1 else 0.5
            low, high = float(centres[0]) - half, float(centres[-1]) + half
            if not low <= point[name] <= high:
                raise UserError(f"{name}_m is {point[name]:g}; the map covers {low:g} to {high:g} m")
            place[name] = int(np.argmin(np.abs(centres - point[name])))
            longest = max(longest, 2 * half)
        return place, longest

    def values(self, place: Mapping[str, int]) -> dict[str, float]:
        """Each variable at these positions, averaged over members.

        `uncertainty_db` is the standard deviation of the members, or the error that the map states.
        """
        names = ("path_gain_db", "toa_s", "los", "no_path", "building", "tx_x", "tx_y", "tx_z", "frequency_hz")
        found = {name: self.variables[name].at(place) for name in names if name in self.variables}
        values = {name: float(np.mean(array)) for name, array in found.items()}
        if found["path_gain_db"].size > 1:
            values["uncertainty_db"] = float(np.std(found["path_gain_db"]))
        elif "error_db" in self.variables:
            values["uncertainty_db"] = float(np.mean(self.variables["error_db"].at(place)))
        return values


def describe_map(path: Path) -> dict[str, Any] | None:
    """The extent of a radio map, in metres, and its frequency in GHz; None for a file that is not a radio map."""
    try:
        with open_maps(path) as found:
            gain = found.variables["path_gain_db"]
            sizes = dict(zip(gain.dims, gain.array.shape, strict=True))
            limits = {}
            for name in SPACE:
                centres = found.variables[name].at({}).astype(np.float64)
                limits[name] = [float(f"{edge:.6g}") for edge in (centres.min(), centres.max())]
            carrier = float(np.mean(found.variables["frequency_hz"].at({})))
    except DataError:
        return None
    members = int(sizes.get(MEMBER, 1))
    maps = math.prod(size for dim, size in sizes.items() if dim not in (MEMBER, *SPACE))
    return {
        "transmitters": maps,
        "members": members,
        "limits_m": limits,
        "frequency_ghz": float(f"{carrier / 1e9:.4g}"),
    }


def query_map(path: Path, *, x_m: float, y_m: float, z_m: float = 1.5, transmitter: int = 0) -> dict[str, Any]:
    """The voxel that holds the point `(x, y, z)`, in metres of the map; a `UserError` for a point outside it."""
    begin = time.perf_counter()
    with open_maps(path) as found:
        chosen = found.transmitter(transmitter)
        place, voxel_m = found.voxel({"x": x_m, "y": y_m, "z": z_m})
        values = found.values(chosen | place)
    distance = math.dist((x_m, y_m, z_m), [values[f"tx_{letter}"] for letter in "xyz"])
    if not values["frequency_hz"] > 0:
        raise DataError(f"{path.name}: frequency_hz is {values['frequency_hz']:g}; expected a carrier in Hz")
    wavelength = SPEED_OF_LIGHT / values["frequency_hz"]
    # Friis, which does not hold below a wavelength: smaller distances count as one wavelength.
    free_db = 20 * math.log10(wavelength / (4 * math.pi * max(distance, wavelength)))
    inside = values.get("building", 0.0) > 0.5
    gain = values["path_gain_db"]
    no_path = values.get("no_path", float(not math.isfinite(gain))) > 0.5 and not inside
    los = values["los"] > 0.5 if "los" in values and not inside else None
    toa = values.get("toa_s", math.nan)
    warnings = []
    if inside:
        warnings.append("the point is inside a building, where the map has no values")
    if no_path:
        warnings.append("no path reaches the point in this map; there may be paths that the map does not model")
    if los and math.isfinite(toa) and abs(toa * SPEED_OF_LIGHT - distance) > SLACK_VOXELS * voxel_m:
        warnings.append("time of arrival and distance disagree although the point is in line of sight")
    uncertainty = values.get("uncertainty_db", math.nan)
    return {
        "path_gain_db": _round(gain),
        "los": los,
        "toa_s": _round(toa),
        "inside_building": inside,
        "no_path": no_path,
        "distance_m": float(f"{distance:.4g}"),
        "uncertainty_db": _round(uncertainty),
        "abstained": not math.isfinite(gain),
        "classical": {"estimator": "free_space", "label": None, "value": float(f"{free_db:.4g}"), "unit": "dB"},
        "warnings": warnings,
        "latency_ms": float(f"{1e3 * (time.perf_counter() - begin):.4g}"),
    }


@contextlib.contextmanager
def open_maps(path: Path) -> Iterator[RadioMaps]:
    """Open the maps of a file or store; a `DataError` says what is missing."""
    with _named(path) if path.suffix.lower() != ".npz" else contextlib.nullcontext(_from_npz(path)) as variables:
        missing = [name for name in NEEDED if name not in variables]
        if missing:
            raise DataError(f"{path.name} is not a radio map: {', '.join(missing[:4])} missing")
        gain = variables["path_gain_db"]
        sizes = dict(zip(gain.dims, gain.array.shape, strict=True))
        shape = tuple(variables[name].array.shape[0] for name in SPACE)
        if tuple(sizes.get(name) for name in SPACE) != shape:
            raise DataError(
                f"{path.name}: path_gain_db of shape {gain.array.shape} over {', '.join(gain.dims)}; expected axes "
                f"z, y, x of {shape}"
            )
        yield RadioMaps(variables)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[dict[str, NamedArray]]:
    """Variables of NetCDF or Zarr, from all groups of a set of maps."""
    with opened(path, groups=("target", "condition", "transmitter")) as datasets:
        variables = {
            str(name): NamedArray(tuple(map(str, variable.dims)), variable)
            for dataset in datasets
            for name, variable in dataset.variables.items()
        }
        for dataset in datasets:
            if "frequency_hz" in dataset.attrs:
                variables.setdefault("frequency_hz", NamedArray((), np.asarray(dataset.attrs["frequency_hz"])))
        yield variables


def _from_npz(path: Path) -> dict[str, NamedArray]:
    """Variables of an npz file; axes are named by position: members, scenes, transmitters, then z, y, x."""
    found = read_arrays(path)
    arrays, attributes = found.arrays, found.attributes
    space = tuple(len(arrays[name]) for name in SPACE if name in arrays)
    variables = {}
    for name, array in arrays.items():
        on_grid = array.ndim >= 3 and array.shape[-3:] == space
        dims: tuple[str, ...] = SPACE if on_grid else (name,) if name in (*SPACE, MEMBER) else ()
        ahead = list(array.shape[: array.ndim - len(dims)])
        first = (MEMBER,) if on_grid and ahead and MEMBER in arrays and ahead[0] == len(arrays[MEMBER]) else ()
        others = UNNAMED[: len(ahead) - len(first)][::-1]
        if len(first) + len(others) == len(ahead):
            variables[name] = NamedArray((*first, *others, *dims), array)
    if "frequency_hz" in attributes:
        variables.setdefault("frequency_hz", NamedArray((), np.asarray(attributes["frequency_hz"])))
    return variables


def _round(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None

"""The layout of radio maps: transmitters, variables with units, masks, and the checks of every solver's output.

A map is an `xarray.Dataset` on `(tx, z, y, x)`, metres in the scene's frame (x east, y north, z up). Directions are
directions of arrival and point from the receiver towards the source of the wave: azimuth from east, counter-clockwise,
0 … 2π; zenith from +z, 0 … π; both in radians. A voxel without a path, or inside a building, is NaN in every field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import DataError, UserError
from radiomaps.antennas.pattern import Pattern

if TYPE_CHECKING:
    import xarray as xr

    from geoml.grids.grid import Grid

__all__ = [
    "DIMS",
    "VARIABLES",
    "MapVariable",
    "Transmitter",
    "assemble",
    "at_most_pi",
    "check_maps",
    "direction_angles",
    "friis_gain_db",
    "wrapped",
]

DIMS = ("tx", "z", "y", "x")


@dataclass(frozen=True)
class Transmitter:
    """A transmitter in the scene's metres; `orientation` is yaw, pitch, roll in radians.

    `pattern` is a name of `radiomaps.antennas.pattern.PATTERNS` or a `MeasuredPattern`, `polarization` "V", "H", "VH"
    or "cross". `rows` and `columns` define a planar array with a spacing of half a wavelength, with complex `weights`
    row by row from below (none: equal weights), normalised to unit power. `frequency_hz` is the carrier, if it differs
    from that of the trace. The dominant-path solver supports isotropic transmitters only.
    """

    position: tuple[float, float, float]
    power_dbm: float = 23.0
    name: str = ""
    pattern: Pattern = "iso"
    polarization: str = "V"
    orientation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rows: int = 1
    columns: int = 1
    weights: tuple[complex, ...] = ()
    frequency_hz: float | None = None

    def __post_init__(self) -> None:
        for name in ("position", "orientation"):
            value = tuple(float(part) for part in getattr(self, name))
            if len(value) != 3 or not all(math.isfinite(part) for part in value):
                raise UserError(f"transmitter {self.name or '?'}: {name} {value} is not three finite numbers")
            object.__setattr__(self, name, value)
        if not math.isfinite(self.power_dbm):
            raise UserError(f"transmitter {self.name or '?'}: power {self.power_dbm} dBm is not a number")
        if self.rows < 1 or self.columns < 1:
            raise UserError(f"transmitter {self.name or '?'}: an array of {self.rows} × {self.columns} has no element")
        object.__setattr__(self, "weights", tuple(complex(weight) for weight in self.weights))
        if self.weights and len(self.weights) != self.rows * self.columns:
            raise UserError(
                f"transmitter {self.name or '?'}: {len(self.weights)} weights for an array of {self.rows} × "
                f"{self.columns}"
            )

    def turned(self, *, azimuth_deg: float | None = None, tilt_deg: float | None = None) -> Transmitter:
        """The same antenna in another direction: azimuth clockwise from north, tilt below the horizon, in degrees.

        >>> Transmitter((0, 0, 30)).turned(azimuth_deg=90).orientation
        (0.0, 0.0, 0.0)
        """
        yaw, pitch, roll = self.orientation
        yaw = yaw if azimuth_deg is None else math.radians(90.0 - azimuth_deg)
        pitch = pitch if tilt_deg is None else math.radians(tilt_deg)
        return replace(self, orientation=(yaw, pitch, roll))


@dataclass(frozen=True)
class MapVariable:
    """A variable of a map: its units, description, dimensions, and whether it is a float field or a mask."""

    units: str
    long_name: str
    kind: Literal["field", "mask"] = "field"
    dims: tuple[str, ...] = DIMS
    limits: tuple[float, float] = (-math.inf, math.inf)


#: Every variable a solver may write; `path_gain_db`, `toa_s`, `doa_azimuth`, `doa_zenith` and the masks always.
VARIABLES: dict[str, MapVariable] = {
    "path_gain_db": MapVariable("dB", "path gain: power received over power transmitted, isotropic receiver"),
    "toa_s": MapVariable("s", "time of arrival of the strongest path", limits=(0, math.inf)),
    "doa_azimuth": MapVariable("rad", "azimuth of arrival of the strongest path", limits=(0, 2 * math.pi)),
    "doa_zenith": MapVariable("rad", "zenith angle of arrival of the strongest path", limits=(0, math.pi)),
    "first_arrival_s": MapVariable("s", "time of arrival of the first path", limits=(0, math.inf)),
    "mean_delay_s": MapVariable("s", "power-weighted mean delay", limits=(0, math.inf)),
    "delay_spread_s": MapVariable("s", "power-weighted root-mean-square delay spread", limits=(0, math.inf)),
    "mean_direction_x": MapVariable("1", "east part of the power-weighted mean direction of arrival, a unit vector"),
    "mean_direction_y": MapVariable("1", "north part of the power-weighted mean direction of arrival, a unit vector"),
    "mean_direction_z": MapVariable("1", "upward part of the power-weighted mean direction of arrival, a unit vector"),
    "angular_spread": MapVariable("1", "direction spread, sqrt(1 - |mean of unit vectors|^2)", limits=(0, 1)),
    "k_factor_db": MapVariable("dB", "power in line of sight over the power of all other paths"),
    "los_fraction": MapVariable("1", "part of the voxel in line of sight", limits=(0, 1)),
    "error_db": MapVariable("dB", "estimated error of path_gain_db outside line of sight", dims=("tx",)),
    "los": MapVariable("1", "voxel centre in line of sight of the transmitter", "mask"),
    "no_path": MapVariable("1", "outside buildings, and no path was found", "mask"),
    "filled": MapVariable("1", "no path was traced; the values are those of the dominant-path solver", "mask"),
    "building": MapVariable("1", "voxel centre inside a building or below the ground", "mask", dims=DIMS[1:]),
}
_ALWAYS = ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith", "los", "no_path", "building")


def friis_gain_db(distance_m: Any, frequency_hz: float) -> Any:
    """Free-space path gain between isotropic antennas, (c / 4πfd)² in dB (Friis 1946).

    >>> round(float(friis_gain_db(100.0, 5.9e9)), 2)
    -87.86
    """
    return 20.0 * np.log10(SPEED_OF_LIGHT / (4 * np.pi * frequency_hz * np.asarray(distance_m)))


def direction_angles(vector: NDArray[Any], axis: int = -1) -> tuple[NDArray[Any], NDArray[Any]]:
    """Azimuth (0 … 2π) and zenith (0 … π) of vectors along `axis`, which need not have length 1.

    >>> [round(float(angle), 4) for angle in direction_angles(np.array([0.0, -1.0, 0.0]))]
    [4.7124, 1.5708]
    """
    x, y, z = np.moveaxis(np.asarray(vector), axis, 0)
    azimuth = np.arctan2(y, x) % (2 * np.pi)
    return np.where(azimuth >= 2 * np.pi, 0.0, azimuth), np.arctan2(np.hypot(x, y), z)


def wrapped(azimuth: NDArray[Any], step: float = 0.0) -> NDArray[Any]:
    """Azimuths with 0 in place of values that rounding to their type, or to multiples of `step`, would raise to 2π."""
    with np.errstate(invalid="ignore"):
        return np.where(azimuth >= np.float32(2 * np.pi) - step / 2, azimuth.dtype.type(0), azimuth)


def at_most_pi(zenith: NDArray[Any], step: float = 0.0) -> NDArray[Any]:
    """Zenith angles that rounding to float32, or to multiples of `step`, does not raise above π."""
    most = math.floor(math.pi / step) * step if step else np.nextafter(np.float32(math.pi), np.float32(0))
    return np.minimum(zenith, zenith.dtype.type(most))


def assemble(
    grid: Grid,
    transmitters: Sequence[Transmitter],
    fields: Mapping[str, NDArray[Any]],
    *,
    attrs: Mapping[str, Any],
    ground_m: NDArray[Any] | None = None,
) -> xr.Dataset:
    """The Dataset of a solver's result: float32 fields and boolean masks with units, checked by `check_maps`.

    `fields` is keyed by names of `VARIABLES`, each of its dims' shape. `attrs` needs `frequency_hz`, `solver`,
    `solver_version`, `scene`, `scene_hash`; licence, seed, rays and the rest belong there too. Float fields become
    NaN where `no_path` or `building`. With `ground_m` `(y, x)`, z is the height above that ground.
    """
    import xarray as xr

    if grid.names != DIMS[1:]:
        raise ValueError(f"maps live on axes {DIMS[1:]}, not {grid.names}")
    unknown = sorted(set(fields) - set(VARIABLES))
    if unknown:
        raise ValueError(f"{unknown} are no variables of a map; known: {sorted(VARIABLES)}")
    nowhere = np.asarray(fields["no_path"], bool) | np.asarray(fields["building"], bool)[None]
    variables = {}
    for name, variable in VARIABLES.items():
        if name not in fields:
            continue
        values = np.asarray(fields[name])
        if variable.kind == "mask":
            values = values.astype(bool)
        elif variable.dims == DIMS:
            values = np.where(nowhere, np.float32(np.nan), values).astype(np.float32)
            if name == "doa_azimuth":
                values = wrapped(values)
            elif name == "doa_zenith":
                values = at_most_pi(values)
        about = {"units": variable.units, "long_name": variable.long_name}
        variables[name] = (variable.dims, values, about)
    dataset = xr.Dataset(variables, coords={**grid.coords(), **_coordinates(transmitters, attrs["frequency_hz"])})
    if ground_m is not None:
        dataset = dataset.assign_coords(ground_m=(DIMS[2:], ground_m, {"units": "m", "long_name": "ground"}))
        dataset["z"].attrs["long_name"] = "height above the ground"
    dataset.attrs = {"Conventions": "CF-1.11", "crs": grid.crs, "angles": "receiver to source", **attrs}
    check_maps(dataset)
    return dataset


def _coordinates(
    transmitters: Sequence[Transmitter], frequency_hz: float
) -> dict[str, tuple[str, list[Any], dict[str, str]]]:
    """Names, places, powers and frequencies of transmitters as coordinates along `tx`."""
    names = [transmitter.name or f"tx{index}" for index, transmitter in enumerate(transmitters)]
    coords: dict[str, tuple[str, list[Any], dict[str, str]]] = {
        "tx": ("tx", names, {"long_name": "transmitter"}),
        "tx_power_dbm": ("tx", [t.power_dbm for t in transmitters], {"units": "dBm"}),
        "frequency_hz": ("tx", [float(frequency_hz)] * len(names), {"units": "Hz", "long_name": "carrier"}),
    }
    for index, letter in enumerate("xyz"):
        coords[f"tx_{letter}"] = ("tx", [t.position[index] for t in transmitters], {"units": "m"})
    return coords


def check_maps(dataset: xr.Dataset, *, source: str = "maps") -> None:
    """Raise `DataError` for maps that violate the layout: dims, units, limits, overlapping or incomplete masks."""
    missing = [name for name in _ALWAYS if name not in dataset] + [
        f"attribute {name}"
        for name in ("frequency_hz", "solver", "solver_version", "scene", "scene_hash")
        if name not in dataset.attrs
    ]
    if missing:
        raise DataError(f"{source}: {', '.join(missing)} missing; these are no radio maps, or an older layout")
    for name in dataset.data_vars:
        variable = VARIABLES.get(str(name))
        if variable is None:
            continue
        array = dataset[name]
        if array.dims != variable.dims or array.attrs.get("units") != variable.units:
            found = f"dims {array.dims}, units {array.attrs.get('units')!r}"
            raise DataError(f"{source}: {name} has {found}; expected {variable.dims}, {variable.units!r}")
        if variable.kind == "field" and variable.limits != (-math.inf, math.inf):
            low, high = (float(bound) for bound in (array.min(), array.max()))
            slack = 1e-5 * max(1.0, *(abs(limit) for limit in variable.limits if math.isfinite(limit)))
            if low < variable.limits[0] - slack or high > variable.limits[1] + slack:
                raise DataError(f"{source}: {name} runs {low:g} … {high:g}; it lies within {variable.limits}")
    nowhere = dataset["no_path"] | dataset["building"]
    if bool((dataset["no_path"] & dataset["building"]).any()) or bool((dataset["los"] & nowhere).any()):
        raise DataError(f"{source}: masks overlap: no_path, building and los exclude each other")
    if bool((dataset["path_gain_db"].notnull() == nowhere).any()):
        raise DataError(f"{source}: path_gain_db has to be NaN exactly where no_path or building")

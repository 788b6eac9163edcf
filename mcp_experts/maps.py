"""A radio map at a point: path gain, line of sight and time of arrival, with free space beside it.

Maps are those that `radiomaps` writes, traced or made by a model: variables `path_gain_db`, `toa_s`, `los`, `no_path`
and `building` on `(tx, z, y, x)` in metres; a model's members give the uncertainty.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from mcp_experts.tables import SPEED_OF_LIGHT, read_arrays

__all__ = ["RadioMap", "query_map", "read_map"]

#: In line of sight time of arrival and distance may differ by so many voxels before it is worth a warning.
SLACK_VOXELS = 2.0


@dataclass(frozen=True, eq=False, kw_only=True)
class RadioMap:
    """One transmitter's map: fields `[z, y, x]` by name, coordinates in metres, the carrier."""

    fields: dict[str, NDArray[Any]]
    coordinates: dict[str, NDArray[np.float64]]
    transmitter_m: tuple[float, float, float]
    frequency_hz: float


def query_map(path: Path, *, x_m: float, y_m: float, z_m: float = 1.5, transmitter: int = 0) -> dict[str, Any]:
    """The voxel that holds the point, `(x, y, z)` in the map's metres; a `UserError` for a point beside the map."""
    begin = time.perf_counter()
    found = read_map(path, transmitter)
    place, voxel_m = _voxel(found, {"x": x_m, "y": y_m, "z": z_m})
    distance = max(math.dist((x_m, y_m, z_m), found.transmitter_m), 1e-3)
    free_db = 20 * math.log10(SPEED_OF_LIGHT / (4 * math.pi * found.frequency_hz * distance))
    values = {name: float(field[place]) for name, field in found.fields.items()}
    inside = values.get("building", 0.0) > 0.5
    gain = values["path_gain_db"]
    no_path = values.get("no_path", float(not math.isfinite(gain))) > 0.5 and not inside
    los = values["los"] > 0.5 if "los" in values and not inside else None
    toa = values.get("toa_s", math.nan)
    warnings = []
    if inside:
        warnings.append("the point lies in a building: the map says nothing there")
    if no_path:
        warnings.append("no path reaches the point in this map; that is no proof of silence")
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


def read_map(path: Path, transmitter: int = 0) -> RadioMap:
    """One transmitter's map out of a file; a `DataError` that says what is missing."""
    arrays, attributes = read_arrays(path)
    carriers = np.ravel(arrays.get("frequency_hz", attributes.get("frequency_hz", [])))
    missing = [name for name in ("path_gain_db", "x", "y", "z", "tx_x", "tx_y", "tx_z") if name not in arrays]
    if missing or not carriers.size:
        raise DataError(f"{path.name} is no radio map: {', '.join([*missing, 'frequency_hz'][:4])} missing")
    gains = arrays["path_gain_db"]
    shape = tuple(len(arrays[name]) for name in "zyx")
    if gains.shape[-3:] != shape:
        raise DataError(f"{path.name}: path_gain_db of shape {gains.shape}; expected [tx, z, y, x] ending in {shape}")
    members = gains.reshape(len(arrays.get("member", [0])), -1, *shape)
    count = members.shape[1]
    if not 0 <= transmitter < count:
        raise UserError(f"the map has {count} transmitters; number {transmitter} is none of them")

    def own(array: NDArray[Any]) -> Any:
        """The part of this transmitter: of several scenes each has its share, what all share is one."""
        return array[transmitter * len(array) // count]

    fields: dict[str, NDArray[Any]] = {"path_gain_db": members[:, transmitter].mean(axis=0)}
    if len(members) > 1:
        fields["uncertainty_db"] = members[:, transmitter].std(axis=0)
    for name in ("toa_s", "los", "no_path", "building"):
        if name in arrays:
            fields[name] = own(arrays[name].reshape(-1, *shape))
    if "error_db" in arrays and "uncertainty_db" not in fields:
        fields["uncertainty_db"] = np.broadcast_to(own(np.ravel(arrays["error_db"])), shape)
    return RadioMap(
        fields=fields,
        coordinates={name: arrays[name].astype(np.float64) for name in "xyz"},
        transmitter_m=tuple(float(own(np.ravel(arrays[f"tx_{letter}"]))) for letter in "xyz"),  # type: ignore[arg-type]
        frequency_hz=float(own(carriers)),
    )


def _voxel(found: RadioMap, point: dict[str, float]) -> tuple[tuple[int, ...], float]:
    """Index of the voxel that holds a point, in the fields' order, and the longest edge of a voxel."""
    place, longest = [], 0.0
    for name in "zyx":
        centres = found.coordinates[name]
        half = float(np.diff(centres).mean()) / 2 if len(centres) > 1 else 0.5
        low, high = float(centres[0]) - half, float(centres[-1]) + half
        if not low <= point[name] <= high:
            raise UserError(f"{name}_m is {point[name]:g}; the map covers {low:g} to {high:g} m")
        place.append(int(np.argmin(np.abs(centres - point[name]))))
        longest = max(longest, 2 * half)
    return tuple(place), longest


def _round(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None

"""Radio map along a route or over an area: share covered, gaps, strongest transmitters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError
from mcp_experts.serve.maps import MEMBER, SPACE, RadioMaps, open_maps

__all__ = ["corners_of", "survey_map"]

#: Largest number of corners of a route, of cells along it, and of gaps that are listed.
MOST_CORNERS, MOST_CELLS, MOST_GAPS = 32, 100_000, 8
#: Distance between samples of a route, in voxels.
STEP = 0.5


def corners_of(text: str) -> list[tuple[float, float]]:
    """Corners from text.

    >>> corners_of("0,0; 10,5")
    [(0.0, 0.0), (10.0, 5.0)]
    """
    try:
        found = [tuple(float(part) for part in pair.split(",")) for pair in text.split(";") if pair.strip()]
    except ValueError:
        found = []
    if not 2 <= len(found) <= MOST_CORNERS or any(len(pair) != 2 or not np.isfinite(pair).all() for pair in found):
        raise UserError(
            f"{text[:80]!r} is not a list of corners; expected 2 to {MOST_CORNERS}, as 'x,y; x,y' in metres"
        )
    return [(pair[0], pair[1]) for pair in found]


def survey_map(
    path: Path, *, corners: Sequence[Sequence[float]], area: bool, z_m: float, least_gain_db: float
) -> dict[str, Any]:
    """Coverage of the cells along a route, or in the rectangle of two corners.

    A cell is covered if the strongest transmitter has at least `least_gain_db`. Cells in buildings do not count.
    """
    with open_maps(path) as maps:
        axes = {name: maps.variables[name].at({}).astype(np.float64) for name in SPACE}
        layer = _nearest(axes["z"], z_m, "z_m")
        gain = _layer(maps, "path_gain_db", layer)
        los = _layer(maps, "los", layer) if "los" in maps.variables else None
        building = _layer(maps, "building", layer) if "building" in maps.variables else np.zeros_like(gain[:1])
    rows, columns = _cells(axes, corners, area)
    outdoors = building[0][rows, columns] < 0.5
    rows, columns = rows[outdoors], columns[outdoors]
    if not len(rows):
        raise UserError("all cells of this place are inside buildings, where the map has no values")
    there = np.where(np.isfinite(gain), gain, -np.inf)[:, rows, columns]
    server, best = there.argmax(axis=0), there.max(axis=0)
    covered = best >= least_gain_db
    finite = best[np.isfinite(best)]
    worst = int(best.argmin())
    found: dict[str, Any] = {
        "cells": len(rows),
        "share_outdoors": _round(float(outdoors.mean())),
        "share_covered": _round(float(covered.mean())),
        "share_clear": None if los is None else _round(float((los[server, rows, columns] > 0.5).mean())),
        "gain_db": [_round(float(value)) for value in np.percentile(finite, (5, 50, 95))] if len(finite) else None,
        "weakest_at": [_round(float(axes["x"][columns[worst]])), _round(float(axes["y"][rows[worst]]))],
        "weakest_db": _round(float(best[worst])),
        "servers": {
            str(number): _round(float((server[covered] == number).mean()))
            for number in range(len(gain))
            if covered.any() and (server[covered] == number).any()
        },
        "gaps_m": [],
        "handovers": 0,
    }
    if not area:
        found |= _along(axes["x"][columns], axes["y"][rows], covered, server)
    return found


def _layer(maps: RadioMaps, name: str, layer: int) -> NDArray[np.float64]:
    """One height of a variable, with axes (map, y, x); members are averaged."""
    variable = maps.variables[name]
    values = variable.at({"z": layer}).astype(np.float64)
    dims = [dim for dim in variable.dims if dim != "z"]
    if MEMBER in dims:
        values = values.mean(axis=dims.index(MEMBER))
        dims.remove(MEMBER)
    values = np.moveaxis(values, [dims.index("y"), dims.index("x")], [-2, -1])
    count = math.prod(
        size
        for dim, size in zip(
            maps.variables["path_gain_db"].dims, maps.variables["path_gain_db"].array.shape, strict=True
        )
        if dim not in (MEMBER, *SPACE)
    )
    flat = values.reshape(-1, *values.shape[-2:])
    return flat if len(flat) == count else np.repeat(flat, max(1, count // len(flat)), axis=0)


def _nearest(centres: NDArray[np.float64], value: float, name: str) -> int:
    half = abs(float(np.diff(centres).mean())) / 2 if len(centres) > 1 else 0.5
    low, high = float(centres.min()) - half, float(centres.max()) + half
    if not low <= value <= high:
        raise UserError(f"{name} is {value:g}; the map covers {low:g} to {high:g} m")
    return int(np.argmin(np.abs(centres - value)))


def _cells(
    axes: dict[str, NDArray[np.float64]], corners: Sequence[Sequence[float]], area: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the cells of a place, in the order of a route."""
    ends = [(_nearest(axes["y"], y, "y"), _nearest(axes["x"], x, "x")) for x, y in corners]
    if area:
        if len(ends) != 2:
            raise UserError(f"an area has two opposite corners; {len(ends)} are given")
        (top, left), (bottom, right) = ends
        rows, columns = np.mgrid[min(top, bottom) : max(top, bottom) + 1, min(left, right) : max(left, right) + 1]
        return rows.ravel(), columns.ravel()
    step = STEP * min(abs(float(np.diff(axes[name]).mean())) if len(axes[name]) > 1 else 1.0 for name in ("x", "y"))
    points: list[tuple[int, int]] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        count = max(2, math.ceil(math.hypot(x1 - x0, y1 - y0) / step) + 1)
        if len(points) + count > MOST_CELLS:
            raise UserError(f"the route has more than {MOST_CELLS} cells; ask for a part of it")
        for share in np.linspace(0, 1, count):
            x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
            cell = int(np.argmin(np.abs(axes["y"] - y))), int(np.argmin(np.abs(axes["x"] - x)))
            if not points or points[-1] != cell:
                points.append(cell)
    found = np.array(points, np.int64)
    return found[:, 0], found[:, 1]


def _along(
    x: NDArray[np.float64], y: NDArray[np.float64], covered: NDArray[np.bool_], server: NDArray[np.int64]
) -> dict[str, Any]:
    """Stretches of a route that are not covered, in metres from its start, and changes of the strongest transmitter."""
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    gaps, place = [], 0
    for open_, group in itertools.groupby(covered):
        size = len(list(group))
        if not open_:
            gaps.append([_round(float(way[place])), _round(float(way[place + size - 1]))])
        place += size
    both = covered[1:] & covered[:-1]
    changes = int(np.sum(both & (server[1:] != server[:-1])))
    return {"gaps_m": gaps[:MOST_GAPS], "handovers": changes}


def _round(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None

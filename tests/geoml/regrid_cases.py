"""Grids and fields that the tests of regridding share."""

from __future__ import annotations

import numpy as np

from geoml.grids.grid import Grid
from geoml.regrid import Regridder

FINE = Grid.latlon(40, 60, -5, 15, 0.1)
COARSE = Grid.latlon(40, 60, -5, 15, 0.25, "node", half_open=True)
METHODS = ("conservative", "bilinear", "nearest")


def areas(grid):
    area = np.ones(())
    for axis in grid.axes:
        area = area[..., None] * axis.widths
    return area


def integrals(source, target, fields):
    """The integral over the cells both grids share: of the fields, and of what regridding makes of them."""
    there, back = Regridder(source, target), Regridder(target, source)
    axes = tuple(range(-len(source.shape), 0))
    before = (fields.astype(np.float64) * areas(source) * back.covered).sum(axis=axes)
    return before, (there(fields).astype(np.float64) * areas(target) * there.covered).sum(axis=axes)


def random_fields(grid, lead=(3,), *, seed=0, dtype="float64", gaps=0.0):
    rng = np.random.default_rng(seed)
    fields = rng.gamma(0.3, 2.0, (*lead, *grid.shape)).astype(dtype)
    return np.where(rng.random(fields.shape) < gaps, np.array(np.nan, dtype), fields)


def plane(grid, slopes=(2.0, -0.5), constant=3.0):
    parts = np.meshgrid(*(axis.coordinates for axis in grid.axes), indexing="ij")
    return constant + sum(slope * part for slope, part in zip(slopes, parts, strict=True))


def smooth_fields(grid, count=4):
    y, x = (axis.coordinates for axis in grid.axes)
    rng = np.random.default_rng(2)
    waves = [
        np.sin(f * y[:, None] + g * x + p)
        for f, g, p in zip(*rng.uniform(1, 6, (2, 12)), rng.uniform(0, 6, 12), strict=True)
    ]
    return np.stack([np.exp(sum(waves[i::count])) for i in range(count)])

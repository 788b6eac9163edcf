"""Fill voxels in which another solver found no path with dominant paths, for example in courtyards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from geoml.errors import UserError
from geoml.grids.grid import Axis, Grid, grid_of
from radiomaps.maps.layout import DIMS, VARIABLES, Transmitter, check_maps
from radiomaps.scenes import Scene

if TYPE_CHECKING:
    import xarray as xr

    from radiomaps.dominant import DominantOptions

__all__ = ["fill_shadows"]

_FILLED = ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith")


def fill_shadows(maps: xr.Dataset, scene: Scene, options: DominantOptions | None = None) -> xr.Dataset:
    """Fill path gain, time and direction of arrival of voxels with `no_path` with those of the dominant path.

    Returns a copy of `maps` with the mask `filled`. Other fields stay NaN in these voxels. `scene` must be the scene of
    the maps. The frequency is that of the maps.
    """
    from radiomaps.dominant import DominantOptions, trace

    if len(np.unique(maps["frequency_hz"])) > 1:
        raise UserError("shadows are filled at one frequency at a time; select the maps of one")
    if maps.attrs["scene_hash"] != scene.hash:
        raise ValueError(f"the maps are of scene {maps.attrs['scene']!r}, not of {scene.name!r}")
    shadow = maps["no_path"]
    filled = maps.copy()
    about = {"units": VARIABLES["filled"].units, "long_name": VARIABLES["filled"].long_name}
    if bool(shadow.any()):
        chosen = replace(
            options or DominantOptions(),
            frequency_hz=float(maps["frequency_hz"][0]),
            above_ground="ground_m" in maps.coords,
        )
        prior = trace(scene, _isotropic(maps), _grid(maps), chosen)
        for name in _FILLED:
            values = np.where(shadow.values, prior[name].values, maps[name].values)
            filled[name] = maps[name].copy(data=values)
        filled["no_path"] = shadow.copy(data=np.zeros_like(shadow.values))
    filled["filled"] = (DIMS, shadow.values.copy(), about)
    check_maps(filled)
    return filled


def _grid(maps: xr.Dataset) -> Grid:
    """Grid of the maps. An axis with one coordinate gets a spacing of 1 m; paths depend on voxel centres only."""
    single = [name for name in DIMS[1:] if maps.sizes[name] == 1]
    if not single:
        return grid_of(maps[["building"]])
    axes = (Axis(name, float(maps[name][0]), 1.0, 1, "m") if name in single else _axis(maps, name) for name in DIMS[1:])
    return Grid(tuple(axes), "local")


def _axis(maps: xr.Dataset, name: str) -> Axis:
    values = maps[name].values
    return Axis(name, float(values[0]), float(values[-1] - values[0]) / (len(values) - 1), len(values), "m")


def _isotropic(maps: xr.Dataset) -> list[Transmitter]:
    places = zip(maps["tx_x"].values, maps["tx_y"].values, maps["tx_z"].values, strict=True)
    return [Transmitter((float(x), float(y), float(z))) for x, y, z in places]

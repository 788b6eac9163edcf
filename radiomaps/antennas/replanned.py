"""Maps of the cells of a store, with the antennas of the trace or with the antennas of a sites file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoml.errors import UserError
from radiomaps.antennas.arrays import omnidirectional
from radiomaps.antennas.sites import RadioCell, cells_of
from radiomaps.antennas.stored import apply_antenna
from radiomaps.maps.store import SceneRecord, in_scene, open_maps, open_paths, scene_records

if TYPE_CHECKING:
    from radiomaps.maps.layout import Transmitter

__all__ = ["maps_of_store"]

#: Largest distance (m) between a cell and the traced transmitter whose paths it uses.
_NEAR_M = 0.05
_DEGREES = {"units": "degree", "long_name": "azimuth of boresight, clockwise from north"}


def maps_of_store(
    store: str | os.PathLike[str], sites: str | os.PathLike[str] | Sequence[Any] | None = None, *, scene: int = 0
) -> xr.Dataset:
    """Maps `(tx, z, y, x)` of one scene of a store, in the scene's metres.

    `store` is a store or the run folder of its trace. With `sites` (a file, or an argument of `cells_of`) the antenna
    of each cell is applied to the stored paths of its position and carrier. No rays are traced again. Transmit powers
    are taken from the sites. Raises `UserError` for a cell at a position that was not traced, and `DataError` for a
    store without paths.
    """
    store = Path(store) / "maps.zarr" if (Path(store) / "maps.zarr").exists() else store
    records = scene_records(store)
    if not 0 <= scene < len(records):
        raise UserError(f"scene={scene}, but the store has {len(records)} scenes; expected a number from 0")
    record, maps = records[scene], open_maps(store)
    one = maps.isel(scene=scene)
    if sites is None:
        return _placed(_named(one.load(), record), record)
    cells = cells_of(sites)
    transmitters = [_transmitter(cell, one, record) for cell in cells]
    kept = open_paths(store).isel(scene=scene)
    parts = []
    for cell, transmitter in zip(cells, transmitters, strict=True):
        number = _traced(transmitter, one, record, cell.name)
        applied = apply_antenna(kept.isel(tx=number).load(), transmitter)
        fields = {name: applied[name] for name in ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith")}
        made = one.isel(tx=number)[["los", "no_path"]].load().assign(fields)
        made["no_path"] = made["path_gain_db"].isnull() & ~one["building"].load()
        azimuth = np.nan if omnidirectional(transmitter) else cell.azimuth_deg
        parts.append(made.assign_coords(tx=cell.name, tx_power_dbm=cell.power_dbm, tx_azimuth_deg=azimuth))
    each = ["tx_x", "tx_y", "tx_z", "tx_power_dbm", "tx_azimuth_deg", "frequency_hz"]
    joined = xr.concat(parts, "tx", data_vars="all", coords=each, compat="override", join="exact")
    joined["building"] = one["building"].load()
    return _placed(joined.assign_attrs(maps.attrs), record)


def _transmitter(cell: RadioCell, one: xr.Dataset, record: SceneRecord) -> Transmitter:
    """Convert a cell to a transmitter in the scene's metres.

    A store does not contain the terrain. A height above the ground is therefore replaced by the height of the
    transmitter that was traced at the same position.
    """
    if cell.lat is not None and cell.lon is not None:
        from radiomaps.scenes.projection import WGS84, project

        if record["crs"] in ("", "local"):
            raise UserError(f"cell {cell.name!r} has lat and lon, but the store's scene is not georeferenced")
        x, y = project(np.array([[cell.lon, cell.lat]]), WGS84, record["crs"])[0]
        cell = replace(cell, lat=None, lon=None, x=float(x), y=float(y))
    if cell.z is None:  # the cell has a height above the ground: use the traced transmitter's height
        x, y = float(cell.x or 0.0), float(cell.y or 0.0)
        places = np.array(record["transmitters_m"])
        away = np.hypot(places[:, 0] - x, places[:, 1] - y)
        if away.min() > _NEAR_M:
            raise _untraced(cell.name, (x, y), record)
        cell = replace(cell, height_m=None, z=float(places[away.argmin(), 2]))
    return cell.transmitter()


def _traced(transmitter: Transmitter, one: xr.Dataset, record: SceneRecord, name: str) -> int:
    """Index of the traced transmitter at this position and carrier."""
    placed = in_scene(one)
    places = np.stack([placed[f"tx_{axis}"].values for axis in "xyz"], -1)
    near = np.linalg.norm(places - np.array(transmitter.position), axis=1) < _NEAR_M
    if not near.any():
        raise _untraced(name, transmitter.position, record)
    carriers = one["frequency_hz"].values
    if transmitter.frequency_hz is not None:
        near &= np.isclose(carriers, transmitter.frequency_hz, rtol=1e-6)
    if not near.any():
        known = ", ".join(f"{value / 1e9:g}" for value in sorted(set(carriers.tolist())))
        raise UserError(f"cell {name!r} sends at {transmitter.frequency_hz:g} Hz; the store has paths at {known} GHz")
    return int(np.flatnonzero(near)[0])


def _untraced(name: str, place: Sequence[float], record: SceneRecord) -> UserError:
    known = "; ".join(f"({', '.join(f'{part:g}' for part in spot)})" for spot in record["transmitters_m"][:5])
    where = ", ".join(f"{part:g}" for part in place)
    return UserError(
        f"cell {name!r} is at ({where}) m, which was not traced; the store has paths of transmitters at {known}"
    )


def _named(one: xr.Dataset, record: SceneRecord) -> xr.Dataset:
    """Add names and azimuths of the traced cells as coordinates, repeated for each carrier of a sweep."""
    count = one.sizes["tx"]
    cells = record.get("cells") or [{"name": f"tx{index}", "azimuth_deg": None} for index in range(count)]
    rows = [cells[index % len(cells)] for index in range(count)]
    names = record.cell_names(one["frequency_hz"].values)
    azimuths = [np.nan if row["azimuth_deg"] is None else row["azimuth_deg"] for row in rows]
    return one.assign_coords(tx=names, tx_azimuth_deg=("tx", azimuths, _DEGREES))


def _placed(one: xr.Dataset, record: SceneRecord) -> xr.Dataset:
    """Convert coordinates to the scene's metres, and add the scene's name, hash and licence."""
    about = {"scene": record["name"], "scene_hash": record["hash"], "licence": record["licence"]}
    return in_scene(one).assign_attrs(about)

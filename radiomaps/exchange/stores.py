"""Write imported maps as a store with the layout of traced maps; an interrupted import resumes."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.cli.progress import progress_bar
from geoml.data.manifest import JOURNAL
from geoml.data.store import StoreWriter
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from geoml.runs.files import read_json, write_json
from radiomaps.exchange.grey import SaturationCount
from radiomaps.generation.generate import PACKING, PLACE, SAMPLE, store_template
from radiomaps.maps.layout import VARIABLES, friis_gain_db
from radiomaps.maps.store import SceneRecord
from radiomaps.scenes import Footprint

__all__ = ["Imported", "write_imported"]

#: Offset (dB) from which the range of path gain is considered wrong.
_WRONG_DB = 3.0
_MOST_LOOKED_AT = 4000


@dataclass(frozen=True)
class Imported:
    """One map: its scene, the transmitter's position in the window, fields `(z, y, x)` and known buildings."""

    scene: str
    transmitter_m: tuple[float, float, float]
    power_dbm: float
    fields: Mapping[str, NDArray[Any]]
    building: NDArray[np.bool_]
    footprints: Sequence[Footprint] = ()
    saturation: SaturationCount = field(default_factory=SaturationCount)

    def offset_db(self, grid: Grid, frequency_hz: float, high_db: float) -> float | None:
        """Median path gain in line of sight relative to free space, in dB; values saturated at `high_db` are excluded.

        The median is over cells in line of sight (by the building mask) at distances of 5 m and more. None for fewer
        than 20 cells.
        """
        gain = self.fields["path_gain_db"]
        known = np.argwhere(np.isfinite(gain) & (gain < high_db - 1e-6))
        known = known[:: max(1, len(known) // _MOST_LOOKED_AT)]
        places = np.stack([grid[name].coordinates[known[:, k]] for k, name in enumerate("zyx")], axis=1)
        towards = np.array(self.transmitter_m[::-1]) - places
        distance = np.linalg.norm(towards, axis=1)
        seen = distance >= 5.0
        for share in (np.arange(count := 2 * max(grid.shape)) + 0.5) / count:
            cells = [
                np.rint((places[:, k] + share * towards[:, k] - grid[name].start) / grid[name].step).astype(int)
                for k, name in enumerate("zyx")
            ]
            above, inside = cells[0] >= grid.shape[0], np.ones(len(known), bool)
            for k in (1, 2):
                inside &= (cells[k] >= 0) & (cells[k] < grid.shape[k])
            cells = [np.clip(cell, 0, grid.shape[k] - 1) for k, cell in enumerate(cells)]
            seen &= above | ~inside | ~self.building[tuple(cells)]
        if seen.sum() < 20:
            return None
        excess = gain[tuple(known[seen].T)] - friis_gain_db(distance[seen], frequency_hz)
        return float(np.median(excess))

    def groups(self, variables: Sequence[str]) -> dict[str, Any]:
        """The map as a store's slab of one sample."""
        import xarray as xr

        target = {name: ((SAMPLE, *VARIABLES[name].dims[1:]), self.fields[name][None]) for name in variables}
        transmitter: dict[str, Any] = {
            f"tx_{letter}": ((SAMPLE,), np.array([value]))
            for letter, value in zip("xyz", self.transmitter_m, strict=True)
        }
        transmitter["tx_power_dbm"] = ((SAMPLE,), np.array([self.power_dbm]))
        condition = {"building": ((SAMPLE, "z", "y", "x"), self.building[None])}
        contents: dict[str, dict[str, Any]] = {"target": target, "condition": condition, "transmitter": transmitter}
        return {name: xr.Dataset(content) for name, content in contents.items()}


def write_imported(
    path: str | os.PathLike[str],
    grid: Grid,
    variables: Sequence[str],
    names: Sequence[tuple[str, str]],
    read: Callable[[int], Imported],
    *,
    attrs: Mapping[str, Any],
    licence: str,
) -> list[dict[str, Any]]:
    """Write the maps that `read` returns by number, in the order of `names` (scene and transmitter), one at a time.

    `attrs` contain `frequency_hz` and `path_gain_range_db`. An interrupted import resumes; a complete store, or one
    that was begun with other `attrs` or from other files, is refused.

    Returns one row per variable with the shares of saturated values, and for path gain its offset from free space in
    line of sight (median over maps). An offset of 3 dB or more gives a warning, because the range is then probably
    wrong.
    """
    path = Path(path)
    pieces = {scene: number for number, scene in enumerate(dict.fromkeys(scene for scene, _ in names))}
    maps_of: dict[str, list[int]] = {scene: [] for scene in pieces}
    tx_of = []
    for number, (scene, _) in enumerate(names):
        tx_of.append(len(maps_of[scene]))
        maps_of[scene].append(number)
    origin = hashlib.sha256(json.dumps([list(names), dict(attrs)]).encode()).hexdigest()
    _require_unfinished(path, origin)
    carriers = [attrs["frequency_hz"]] * len(names)
    gain = "path_gain_db" in variables
    root = {"title": "Radio maps, imported", "crs": "local", **attrs, "origin": origin}
    with StoreWriter.create(
        path,
        store_template(grid, variables, [pieces[scene] for scene, _ in names], tx_of, carriers),
        slab=1,
        packing={name: PACKING[name] for name in (*variables, "building")},
        float64=PLACE,
        attrs=root,
    ) as writer:
        todo = writer.missing()
        with progress_bar("importing", len(names), unit="maps") as bar:
            bar.advance(len(names) - len(todo))
            for start in todo:
                one = read(start)
                # The note is written first, so that every existing slab has one.
                offset = one.offset_db(grid, carriers[start], attrs["path_gain_range_db"][1]) if gain else None
                note = {"tx": one.transmitter_m, "saturation": one.saturation.counts, "offset_db": offset}
                write_json(_note(path, start), note)
                writer.write(start, one.groups(variables))
                bar.advance(1)
        saturation, places, offsets = SaturationCount(), [], []
        for start in range(len(names)):
            note = read_json(_note(path, start))
            places.append(note["tx"])
            saturation.merge(note["saturation"])
            offsets.append(note["offset_db"])
        for scene, index in pieces.items():
            one = read(maps_of[scene][0])
            # There are no meshes to hash, so scenes with equal building masks have the same hash.
            digest = hashlib.sha256(np.packbits(one.building).tobytes()).hexdigest()
            transmitters_m = [places[start] for start in maps_of[scene]]
            record = SceneRecord.of(one.scene, digest, one.footprints, licence=licence, transmitters_m=transmitters_m)
            write_json(path / "scenes" / f"{index:05d}.json", record)
        writer.finish()
    offset = _told_offset(path, offsets, carriers[0], attrs["path_gain_range_db"])
    return [
        {**row, "off_free_space_db": offset if row["variable"] == "path_gain_db" else None} for row in saturation.rows()
    ]


def _told_offset(
    path: Path, offsets: Sequence[float | None], frequency_hz: float, range_db: Sequence[float]
) -> float | None:
    """The median offset of maps from free space; logs a warning if it is large."""
    known = [value for value in offsets if value is not None]
    if not known:
        return None
    offset = round(float(np.median(known)), 1)
    if abs(offset) >= _WRONG_DB:
        low, high = (value - offset for value in range_db)
        warnings.warn(
            f"{path}: path gain in line of sight is {offset:+.1f} dB from free space at {frequency_hz / 1e9:g} GHz, so "
            "the range of the grey levels is probably wrong; "
            f"path_gain_range_db=[{low:.1f},{high:.1f}] would agree with free space",
            stacklevel=4,
        )
    return offset


def _note(path: Path, start: int) -> Path:
    return path / JOURNAL / f"map-{start:010d}.json"


def _require_unfinished(path: Path, origin: str) -> None:
    """Raise an error for a store that is complete, or was begun with other settings or from other files."""
    if not path.exists():
        return
    if (path / "manifest.json").exists() or not (path / "zarr.json").exists():
        raise DataError(f"{path} exists; delete it, or choose another name")
    if json.loads((path / "zarr.json").read_text(encoding="utf-8")).get("attributes", {}).get("origin") != origin:
        raise UserError(f"{path} was begun with other settings or files; delete it, or choose another name")

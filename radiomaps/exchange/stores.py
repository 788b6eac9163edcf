"""What importers hand over, written as a store of the same layout as maps of our own, and resumed where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
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
from radiomaps.generation.generate import PACKING, SAMPLE, store_template
from radiomaps.maps.layout import VARIABLES
from radiomaps.maps.store import SceneRecord
from radiomaps.scenes import Footprint

__all__ = ["Imported", "write_imported"]


@dataclass(frozen=True)
class Imported:
    """One map: its scene, the transmitter's place in the window, fields `(z, y, x)` and what is known of buildings."""

    scene: str
    transmitter_m: tuple[float, float, float]
    power_dbm: float
    fields: Mapping[str, NDArray[Any]]
    building: NDArray[np.bool_]
    footprints: Sequence[Footprint] = ()
    saturation: SaturationCount = field(default_factory=SaturationCount)

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
) -> SaturationCount:
    """Write the maps that `read` gives by number, in the order of `names` (scene and transmitter), one at a time.

    Returns the saturated values of all. What a stopped import has written is kept; a complete store is refused, as is
    one that was begun with other `attrs` or from other files.
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
    root = {"title": "Radio maps, imported", "crs": "local", **attrs, "origin": origin}
    with StoreWriter.create(
        path,
        store_template(grid, variables, [pieces[scene] for scene, _ in names], tx_of, carriers),
        slab=1,
        packing={name: PACKING[name] for name in (*variables, "building")},
        attrs=root,
    ) as writer:
        todo = writer.missing()
        with progress_bar("importing", len(names), unit="maps") as bar:
            bar.advance(len(names) - len(todo))
            for start in todo:
                one = read(start)
                # The note comes first: a slab that is there has one.
                write_json(_note(path, start), {"tx": one.transmitter_m, "saturation": one.saturation.counts})
                writer.write(start, one.groups(variables))
                bar.advance(1)
        saturation, places = SaturationCount(), []
        for start in range(len(names)):
            note = read_json(_note(path, start))
            places.append(note["tx"])
            saturation.merge(note["saturation"])
        for scene, index in pieces.items():
            one = read(maps_of[scene][0])
            # There are no meshes to hash: scenes of one building mask are one.
            digest = hashlib.sha256(np.packbits(one.building).tobytes()).hexdigest()
            transmitters_m = [places[start] for start in maps_of[scene]]
            record = SceneRecord.of(one.scene, digest, one.footprints, licence=licence, transmitters_m=transmitters_m)
            write_json(path / "scenes" / f"{index:05d}.json", record)
        writer.finish()
    return saturation


def _note(path: Path, start: int) -> Path:
    return path / JOURNAL / f"map-{start:010d}.json"


def _require_unfinished(path: Path, origin: str) -> None:
    """Refuse a store that is complete, or was begun with other settings or from other files."""
    if not path.exists():
        return
    if (path / "manifest.json").exists() or not (path / "zarr.json").exists():
        raise DataError(f"{path} exists; delete it, or choose another name")
    if json.loads((path / "zarr.json").read_text()).get("attributes", {}).get("origin") != origin:
        raise UserError(f"{path} was begun with other settings or files; delete it, or choose another name")

"""What importers hand over, written as a store of the same layout as maps of our own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.data.store import StoreWriter
from geoml.errors import DataError
from geoml.files import write_json
from geoml.grids import Grid
from geoml.progress import track
from radiomaps.generate import PACKING, SAMPLE, store_template
from radiomaps.maps import VARIABLES
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


def write_imported(
    path: str | os.PathLike[str],
    grid: Grid,
    variables: Sequence[str],
    names: Sequence[tuple[str, str]],
    maps: Iterable[Imported],
    *,
    attrs: Mapping[str, Any],
    licence: str,
) -> Path:
    """Write maps in the order of `names` (scene and transmitter), one at a time; a store that is there is refused."""
    import hashlib

    import xarray as xr

    path = Path(path)
    if path.exists():
        raise DataError(f"{path} exists; delete it, or choose another name")
    pieces = {scene: number for number, scene in enumerate(dict.fromkeys(scene for scene, _ in names))}
    numbers: dict[str, int] = {}
    scene_of, tx_of = [], []
    for scene, _ in names:
        scene_of.append(pieces[scene])
        tx_of.append(numbers.get(scene, 0))
        numbers[scene] = tx_of[-1] + 1
    template = store_template(grid, variables, scene_of, tx_of, [attrs["frequency_hz"]] * len(names))
    packing = {name: PACKING[name] for name in (*variables, "building")}
    records: dict[str, dict[str, Any]] = {}
    with StoreWriter.create(
        path, template, slab=1, packing=packing, attrs={"title": "Radio maps, imported", "crs": "local", **attrs}
    ) as writer:
        for start, one in enumerate(track(maps, "importing", total=len(names), unit="maps")):
            space = ("z", "y", "x")
            target = {name: ((SAMPLE, *VARIABLES[name].dims[1:]), one.fields[name][None]) for name in variables}
            transmitter: dict[str, Any] = {
                f"tx_{letter}": ((SAMPLE,), np.array([value]))
                for letter, value in zip("xyz", one.transmitter_m, strict=True)
            }
            transmitter["tx_power_dbm"] = ((SAMPLE,), np.array([one.power_dbm]))
            groups: dict[str, dict[str, Any]] = {
                "target": target,
                "condition": {"building": ((SAMPLE, *space), one.building[None])},
                "transmitter": transmitter,
            }
            writer.write(start, {group: xr.Dataset(content) for group, content in groups.items()})
            if one.scene not in records:
                digest = hashlib.sha256(np.packbits(one.building).tobytes()).hexdigest()
                records[one.scene] = _record(one, digest, licence)
            records[one.scene]["transmitters_m"].append(list(one.transmitter_m))
        for scene, index in pieces.items():
            write_json(path / "scenes" / f"{index:05d}.json", records[scene])
        writer.finish()
    return path


def _record(one: Imported, digest: str, licence: str) -> dict[str, Any]:
    """As `generate.scene_record`; the hash is that of the building mask, as there are no meshes."""
    import shapely

    footprints = [
        {"wkt": shapely.to_wkt(f.polygon, rounding_precision=3), "base_m": f.base_m, "top_m": f.top_m}
        for f in one.footprints
    ]
    return {
        "name": one.scene,
        "hash": digest,
        "crs": "local",
        "licence": licence,
        "repairs": [],
        "origin_m": [0.0, 0.0],
        "transmitters_m": [],
        "footprints": footprints,
    }

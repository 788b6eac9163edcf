"""Opening stores of radio maps: by sample for loaders, or as `(scene, tx, z, y, x)`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import shapely

from geoml.data.store import Store
from geoml.errors import DataError
from geoml.runs.files import read_json
from radiomaps.materials import ITU_MATERIALS
from radiomaps.scenes import Footprint

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["MapStore", "SceneRecord", "file_names", "in_scene", "open_maps", "open_paths", "scene_records"]


class SceneRecord(dict[str, Any]):
    """The record of a scene in a store, with its footprints as prisms."""

    @classmethod
    def of(
        cls,
        name: str,
        digest: str,
        footprints: Sequence[Footprint],
        *,
        licence: str,
        transmitters_m: Sequence[Sequence[float]],
        origin_m: Sequence[float] = (0.0, 0.0),
        crs: str = "local",
        repairs: Sequence[str] = (),
        cells: Sequence[Mapping[str, Any]] = (),
    ) -> SceneRecord:
        """The record of a scene with this hash; `origin_m` is the origin of its maps' axes, in its metres.

        `cells` are the name and `azimuth_deg` (None: omnidirectional) of each transmitter.
        """
        rows = [
            {
                "wkt": shapely.to_wkt(f.polygon, rounding_precision=3),
                "base_m": f.base_m,
                "top_m": f.top_m,
                "material": f.material,
            }
            for f in footprints
        ]
        return cls(
            name=name,
            hash=digest,
            crs=crs,
            licence=licence,
            repairs=list(repairs),
            origin_m=list(origin_m),
            transmitters_m=[list(place) for place in transmitters_m],
            footprints=rows,
            cells=[dict(cell) for cell in cells],
        )

    @property
    def footprints(self) -> list[Footprint]:
        """Footprints in the metres of the scene; walls whose material is unknown or from a table are concrete."""
        found = []
        for entry in self["footprints"]:
            material = entry.get("material") if entry.get("material") in ITU_MATERIALS else "concrete"
            base, top = entry["base_m"], entry["top_m"]
            found.append(Footprint(shapely.from_wkt(entry["wkt"]), top - base, base, material))
        return found

    def cell_names(self, carriers: Sequence[float] | NDArray[Any]) -> list[str]:
        """The names of the cells of maps with these carriers in Hz, in the order of the store.

        Without a sites file cells are `tx0`, `tx1`, …; in a sweep of carriers each name ends in its carrier.

        >>> SceneRecord(cells=[{"name": "roof"}], transmitters_m=[[0, 0, 9]]).cell_names([2.4e9, 5.9e9])
        ['roof-2.4GHz', 'roof-5.9GHz']
        """
        cells = self.get("cells") or [{"name": f"tx{index}"} for index in range(len(carriers))]
        names = [str(cells[index % len(cells)]["name"]) for index in range(len(carriers))]
        if len(cells) >= len(names):
            return names
        return [f"{name}-{float(carrier) / 1e9:g}GHz" for name, carrier in zip(names, carriers, strict=True)]

    @property
    def local_footprints(self) -> list[Footprint]:
        """Footprints in the metres of the maps' axes."""
        origin = np.asarray(self["origin_m"])
        return [
            replace(footprint, polygon=shapely.transform(footprint.polygon, lambda points: points - origin))
            for footprint in self.footprints
        ]


def file_names(names: Sequence[str]) -> list[str]:
    """Convert names to parts of file names: letters, digits, underscores and dashes. Equal names are numbered.

    >>> file_names(["São Paulo/1", "west?", "west!"])
    ['S_o_Paulo_1', 'west_-tx1', 'west_-tx2']
    """
    plain = [re.sub(r"[^A-Za-z0-9-]+", "_", name) for name in names]
    lower = [name.lower() for name in plain]  # some file systems ignore case
    return [name if lower.count(name.lower()) == 1 else f"{name}-tx{index}" for index, name in enumerate(plain)]


def scene_records(path: str | os.PathLike[str]) -> list[SceneRecord]:
    """The scenes of a store, in its order."""
    return [SceneRecord(read_json(file)) for file in _scene_files(Path(path))]


def _scene_files(path: Path) -> list[Path]:
    files = sorted((path / "scenes").glob("*.json"))
    if not files:
        if (path / "plan.json").exists() and not (path / "manifest.json").exists():
            raise DataError(f"{path} is an unfinished set of maps{_failure(path.parent)}")
        inside = path / "maps.zarr"
        hint = f"; did you mean {inside}?" if inside.exists() else ""
        found = "holds no records of scenes; it is no set of radio maps" if path.exists() else "does not exist"
        raise DataError(f"{path} {found}{hint}")
    return files


def _failure(run: Path) -> str:
    """Text for a message: the error with which the run ended (from its log), and how to continue."""
    log = run / "log.txt"
    last = log.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2] if log.is_file() else ""
    name, _, text = last.partition(": ")
    if text and re.fullmatch(r"[\w.]*Error", name):
        return f", whose run ended with an error ({text}); correct that and trace again"
    return "; the command that began it resumes"


class MapStore(Store):
    """A complete store of radio maps, opened and verified once for a verb."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the store in a folder, or return an open store; raises `DataError` for a folder without radio maps."""
        if not isinstance(path, Store) and not (Path(path) / "zarr.json").exists():
            _scene_files(Path(path))  # names the store within a run folder
        return super().open(path)

    @cached_property
    def records(self) -> list[SceneRecord]:
        """The scenes, in the order of the store."""
        return scene_records(self.path)

    @cached_property
    def scenes(self) -> NDArray[np.int64]:
        """Index of the scene of each map, `(sample,)`."""
        found: NDArray[np.int64] = self.groups["target"]["scene"].values
        return found

    @cached_property
    def companions(self) -> dict[str, Store]:
        """Open stores of priors for the same maps, by name."""
        return {}


def open_maps(path: str | os.PathLike[str]) -> xr.Dataset:
    """All maps of a complete store as `(scene, tx, z, y, x)`, as Dask arrays with the chunks on disk.

    `x`, `y` and the transmitters are in the scene's metres, and `origin_x`, `origin_y` are 0. If scenes have windows at
    different positions, the axes start at the corner of each window, whose position in the scene is the origin: see
    `in_scene`. `scene` is a name and `tx` a number. Masks are boolean. If heights are above the ground, `ground_m` is
    its height. Maps of several frequencies are concatenated along `tx`, with `frequency_hz` as a coordinate, by scene
    too where scenes have different carriers.
    """
    store = MapStore.open(path)
    if "transmitter" not in store.names:
        raise DataError(f"{path} is no set of radio maps (it has groups {store.names})")
    records = store.records
    flat = store.open_group("target", chunks={})
    for name in ("condition", "transmitter"):
        flat = flat.merge(store.open_group(name, chunks={}), compat="override", join="exact")
    counts = np.bincount(flat["scene"].values, minlength=len(records))
    if (counts != counts[0]).any():
        raise DataError(
            f"{path}: scenes have {counts.min()} to {counts.max()} transmitters; read it by sample with open_store"
        )
    number = int(counts[0])
    flat = flat.drop_vars(("scene", "tx", "sample"))
    maps = flat.coarsen(sample=number).construct(sample=("scene", "tx"))
    maps = maps.set_coords([name for name in ("tx_x", "tx_y", "tx_z", "tx_power_dbm") if name in maps])
    maps["building"] = maps["building"].isel(tx=0)
    if "ground_m" in maps:
        maps = maps.assign_coords(ground_m=maps["ground_m"].isel(tx=0).variable)
    carriers = maps["frequency_hz"]
    same = bool((carriers.values == carriers.values[0]).all())
    labels = ("tx", carriers.values[0], carriers.attrs) if same else (("scene", "tx"), carriers.values, carriers.attrs)
    maps = maps.drop_vars("frequency_hz").assign_coords(frequency_hz=labels)
    for name in ("los", "no_path", "building"):
        if name in maps:
            attrs = maps[name].attrs
            maps[name] = (maps[name] > 0.5).assign_attrs(attrs)
    maps.attrs = {**store.attributes, "licence": "; ".join(sorted({record["licence"] for record in records}))}
    maps = maps.assign_coords(
        scene=[record["name"] for record in records],
        tx=range(number),
        scene_hash=("scene", [record["hash"] for record in records]),
        origin_x=("scene", [record["origin_m"][0] for record in records]),
        origin_y=("scene", [record["origin_m"][1] for record in records]),
    )
    return in_scene(maps) if len({tuple(record["origin_m"]) for record in records}) == 1 else maps


def in_scene(maps: xr.Dataset) -> xr.Dataset:
    """Maps with axes and transmitters in the metres of their scene; several scenes need windows at one position."""
    if "origin_x" not in maps.coords:
        return maps
    moved: dict[str, Any] = {}
    for axis in "xy":
        origin = float(maps[f"origin_{axis}"].values.flat[0])
        names = (name for name in (axis, f"tx_{axis}") if name in maps.coords)
        moved |= {name: (maps[name] + origin).assign_attrs(maps[name].attrs) for name in names}
        moved[f"origin_{axis}"] = maps[f"origin_{axis}"] * 0.0
    return maps.assign_coords(moved)


def open_paths(path: str | os.PathLike[str]) -> xr.Dataset:
    """The stored paths of each voxel, `(scene, tx, z, y, x, path)`, lazily; see `radiomaps.antennas`.

    Raises `DataError` for a store that was traced without `paths_per_voxel`.
    """
    store = MapStore.open(path)
    if "paths" not in store.names:
        raise DataError(f"{path} has no stored paths; trace it with solver.options.paths_per_voxel=16")
    records = store.records
    flat = store.open_group("paths", chunks={})
    number = flat.sizes["sample"] // len(records)
    flat = flat.drop_vars([name for name in ("scene", "tx", "sample", "frequency_hz") if name in flat.coords])
    kept = flat.coarsen(sample=number).construct(sample=("scene", "tx"))
    return kept.assign_coords(scene=[record["name"] for record in records], tx=range(number))

"""Export of maps in the layout of UrbanRadio3D, for code that was written for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geoml.cli.progress import progress_bar
from geoml.errors import DataError
from geoml.runs.files import atomic_path, write_json
from radiomaps.exchange.grey import RANGES, URBANRADIO3D, GreyCodec, SaturationCount, write_grey
from radiomaps.exchange.orientation import to_picture
from radiomaps.maps.store import SceneRecord, in_scene, open_maps, scene_records
from radiomaps.scenes.urbanradio3d import HEIGHT_SCALE_M

__all__ = ["export_urbanradio3d"]

_FOLDERS = {"path_gain_db": "pathLoss", "toa_s": "ToA", "doa_azimuth": "Doa_Azi", "doa_zenith": "Doa_Ele"}


def export_urbanradio3d(
    store: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    path_gain_range_db: tuple[float, float] | None = None,
) -> list[dict[str, Any]]:
    """Write `{pathLoss,ToA,Doa_Azi,Doa_Ele}/hN/{map}_{X}X_{Y}Y.png` and the buildings; returns saturated shares.

    `path_gain_range_db`: path gains of grey levels 0 and 255. None uses -129 … -52 dB if at most 1 % of the values are
    outside, else integer limits that contain all but 1 %. `ranges.json` records the ranges.

    Layers become h1, h2, … from the lowest. Two transmitters of a scene in one cell, or one at two frequencies, raise
    `DataError`, because their files would have the same name. The folder is written atomically.
    """
    maps, records = open_maps(store), scene_records(store)
    if maps.sizes["x"] != maps.sizes["y"]:
        raise DataError(f"{store}: maps of {maps.sizes['y']} × {maps.sizes['x']} cells; UrbanRadio3D's are square")
    codecs = dict(URBANRADIO3D)
    if "path_gain_db" in maps:
        codecs["path_gain_db"] = GreyCodec(*map(float, path_gain_range_db or _range_of(maps)))
    names = [name for name in _FOLDERS if name in maps]
    step = float(maps["x"][1] - maps["x"][0])
    saturation = SaturationCount()
    with atomic_path(folder) as partial, progress_bar("exporting", maps["tx_x"].size, unit="maps") as bar:
        for index, record in enumerate(records):
            piece = f"{index}"
            _write_buildings(partial / "Building_Infomation", piece, record, maps.isel(scene=index), step)
            used: set[tuple[int, int]] = set()
            for tx in range(maps.sizes["tx"]):
                one = maps.isel(scene=index, tx=tx).load()
                x, y = (float(one[f"tx_{axis}"]) - float(one[axis][0]) + step / 2 for axis in "xy")
                cell = (int(x // step), int(y // step))
                if cell in used:
                    raise DataError(
                        f"{store}: two maps of {record['name']} have their transmitter in cell {cell}; this layout "
                        "allows one map per scene and cell, so export one frequency and one transmitter per cell"
                    )
                used.add(cell)
                for name in names:
                    values = one[name].transpose("z", "y", "x").values
                    saturation.note(name, values, codecs[name])
                    for layer, field in enumerate(codecs[name].encode(values), start=1):
                        file = partial / _FOLDERS[name] / f"h{layer}" / f"{piece}_{cell[0]}X_{cell[1]}Y.png"
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(write_grey(to_picture(field, name)))
                bar.advance()
        write_json(partial / RANGES, {name: [codecs[name].low, codecs[name].high] for name in names})
    return saturation.rows()


def _range_of(maps: Any) -> tuple[float, float]:
    """The published range if at most 1 % of the path gains are outside, else a range with this property."""
    published = URBANRADIO3D["path_gain_db"]
    edges = np.arange(-400.0, 101.0)
    counts = np.zeros(len(edges) - 1, np.int64)
    for scene in range(maps.sizes["scene"]):
        gain = maps["path_gain_db"].isel(scene=scene).values
        counts += np.histogram(gain[np.isfinite(gain)], edges)[0]
    share = np.concatenate([[0.0], np.cumsum(counts)]) / max(int(counts.sum()), 1)
    outside = share[edges <= published.low].max() + 1 - share[edges >= published.high].min()
    if outside <= 0.01:
        return published.low, published.high
    return float(edges[share <= 0.005][-1]), float(edges[share >= 0.995][0])


def _write_buildings(folder: Path, piece: str, record: SceneRecord, maps: Any, step: float) -> None:
    """Polygons in cells of the window, and the picture of heights (upright; grey 255 is 19.8 m and all above)."""
    for name in ("buildings", "buildingsWHeight"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    placed = in_scene(maps)
    corner = np.array([float(placed[axis][0]) - step / 2 for axis in "xy"])
    for footprint in record.footprints:
        local = shapely.transform(footprint.polygon, lambda points: (points - corner) / step)
        if local.intersects(shapely.box(0, 0, maps.sizes["x"], maps.sizes["y"])):
            ring, *holes = (
                [[round(x, 3), round(y, 3)] for x, y in line.coords] for line in (local.exterior, *local.interiors)
            )
            row: dict[str, Any] = {"polygon": ring, "height": round(footprint.top_m, 3)}
            if holes:  # courtyards, which the published files do not have
                row["holes"] = holes
            if footprint.base_m > 0:
                row["base"] = round(footprint.base_m, 3)
            rows.append(row)
    (folder / "buildings" / f"{piece}.json").write_text(json.dumps({"buildings": rows}), encoding="utf-8")
    mask = maps["building"].transpose("z", "y", "x").values
    z = maps["z"].values
    spacing = float(z[1] - z[0]) if len(z) > 1 else 0.0
    # The mask does not give the roof's exact height: assume half-way between the last layer inside and the next.
    tops = np.where(mask.any(axis=0), z[np.maximum(mask.sum(axis=0) - 1, 0)] + spacing / 2, 0.0)
    levels = np.clip(np.rint(tops / HEIGHT_SCALE_M * 255), 0, 255).astype(np.uint8)
    (folder / "buildingsWHeight" / f"{piece}.png").write_bytes(write_grey(to_picture(levels, "toa_s")))

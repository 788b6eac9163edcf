"""GeoTIFF."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio import Affine

from radiomaps.scenes import Scene
from tests.formats.case import Case, size
from tests.formats.files import raster

FORM = "GeoTIFF (`.tif`)"
_case = partial(Case, FORM)
ONE = ((200, 0, 12),)


def heights(value: float = 12.0) -> np.ndarray:
    """40 × 40 cells of 1 m with a building of 20 m by 10 m."""
    field = np.zeros((40, 40))
    field[10:20, 10:30] = value
    return field


def place(step: float = 1.0, x: float = 691_000.0, y: float = 5_335_000.0) -> Affine:
    return Affine(step, 0, x, 0, -step, y)


def plain(folder: Path, value: float = 12.0, **about: Any) -> Path:
    return raster(folder / "h.tif", heights(value), **about)


def on_terrain(folder: Path, *, void: float | None = None, step: float = 1.0) -> Any:
    """A surface over ground that climbs 1 m in 10 m to the east, from 500 m; terrain of other cells, with a void."""
    east = np.arange(40) + 0.5
    surface = np.broadcast_to(500 + east / 10, (40, 40)) + heights()
    count = int(60 / step)
    terrain = np.broadcast_to(500 + (np.arange(count) + 0.5) * step / 10 - 1, (count, count)).copy()
    if void is not None:
        terrain[30:35, 35:38] = void
    at = place(step, 691_000 - 10, 5_335_000 + 10)
    return {"path": raster(folder / "s.tif", surface), "terrain": raster(folder / "t.tif", terrain, transform=at)}


def picture(folder: Path) -> Path:
    import rasterio

    path = folder / "p.tif"
    about: Any = {"driver": "GTiff", "height": 40, "width": 40, "count": 3, "dtype": "uint8", "crs": "EPSG:25832"}
    with rasterio.open(path, "w", **about, transform=place(), photometric="RGB") as file:
        file.write(np.stack([heights()] * 3).astype("uint8"))
    return path


def own_bounds(folder: Path) -> Any:
    return {**on_terrain(folder), "bounds_m": [-5, -5, 45, 45]}


def with_void(folder: Path, value: float, nodata: float | None) -> Path:
    field = heights()
    field[30:35, 30:35] = value
    return raster(folder / "h.tif", field, nodata=nodata)


def turned(folder: Path, degrees: float) -> Path:
    return plain(folder, transform=place() @ Affine.rotation(degrees))


def middle(scene: Scene) -> tuple[float, float]:
    centre = scene.footprints[0].polygon.centroid
    return centre.x, centre.y


def south_up(folder: Path) -> Path:
    """The first row is the south: the building of rows 10 … 20 lies 10 … 20 m from the southern edge."""
    return plain(folder, transform=Affine(1, 0, 691_000, 0, 1, 5_335_000))


def text(folder: Path, content: bytes) -> Path:
    path = folder / "h.tif"
    path.write_bytes(content)
    return path


def cut(folder: Path) -> Path:
    whole = raster(folder / "h.tif", np.random.default_rng(0).uniform(0, 20, (200, 200)))
    return text(folder, whole.read_bytes()[: whole.stat().st_size // 2])


def huge(folder: Path) -> Path:
    """A million by a million cells, none of them written."""
    import rasterio

    path = folder / "huge.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=1_000_000, width=1_000_000, count=1, dtype="uint8", crs="EPSG:25832",
        transform=place(), sparse_ok=True, tiled=True, blockxsize=16384, blockysize=16384, bigtiff="yes",
    ):  # fmt: skip
        pass
    return path


STEP = 1 / 111_320
CASES = [
    _case("heights in metres, in UTM", "prisms, counted from the south-west corner", plain, ONE,
          check=lambda scene: scene.extent[0][:2] == (0, 0) and middle(scene) == (20, 25)),
    _case("a scale of 0.1", "12 m of 120", lambda f: plain(f, 120, dtype="int16", scales=0.1), ONE),
    _case("an offset of -100", "12 m of 112, and ground of 100",
          lambda f: raster(f / "h.tif", heights() + 100, dtype="int16", offsets=-100.0), ONE),
    _case("a unit of ft", "12 m", lambda f: plain(f, 12 / 0.3048, units="ft"), ONE),
    _case("a unit of cm", "12 m", lambda f: plain(f, 1200, units="cm"), ONE),
    _case("a unit nobody knows", "refused", lambda f: plain(f, units="furlong"), error="'furlong' are not understood"),
    _case("coordinates in feet, heights of no unit", "refused",
          lambda f: plain(f, crs="EPSG:2263", transform=place(3.28, 980_000, 190_000)), error="state the band's unit"),
    _case("coordinates in feet, heights with their unit", "true metres",
          lambda f: plain(f, 12 / 0.3048, units="us-ft", crs="EPSG:2263", transform=place(3.2808, 980_000, 190_000)),
          ONE),
    _case("Web Mercator at 60° N", "cells of half their size",
          lambda f: plain(f, crs="EPSG:3857", transform=place(1, 1_200_000, 8_400_000)), ((50.2, 0, 12),),
          check=lambda scene: abs(size(scene)[0] - 20) < 0.1),
    _case("degrees", "metres around the middle",
          lambda f: plain(f, crs="EPSG:4326", transform=Affine(STEP * 2, 0, 11, 0, -STEP, 60)), ((200, 0, 12),)),
    _case("degrees on both sides of 180°", "one place",
          lambda f: plain(f, crs="EPSG:4326", transform=Affine(STEP, 0, 180 - 20 * STEP, 0, -STEP, 0)),
          ((198.8, 0, 12),), check=lambda scene: abs(size(scene)[0] - 40) < 0.2),
    _case("a rotation", "the same building, turned", lambda f: turned(f, 30), ONE,
          check=lambda scene: abs(size(scene)[0] - 40 * (math.cos(math.pi / 6) + 0.5)) < 0.01),
    _case("rows from the south", "the same, not mirrored", south_up, ONE,
          check=lambda scene: middle(scene) == (20, 15)),
    _case("columns from the east", "the same, not mirrored",
          lambda f: plain(f, transform=Affine(-1, 0, 691_040, 0, -1, 5_335_000)), ONE,
          check=lambda scene: middle(scene) == (20, 25)),
    _case("no data, declared", "ground", lambda f: with_void(f, -9999, -9999), ONE),
    _case("-9999, -3.4e38 or 32767, not declared", "ground, counted", lambda f: with_void(f, -9999, None), ONE,
          ("impossible heights taken as no data: 25",)),
    _case("NaN", "ground", lambda f: with_void(f, float("nan"), None), ONE),
    _case("a surface and `terrain` of other cells", "buildings on that ground", on_terrain, ((200, 500.05, 513.5),),
          check=lambda scene: scene.report.ground.startswith("500")),
    _case("terrain with -9999, not declared", "filled from the cells around, counted",
          lambda f: on_terrain(f, void=-9999), ((200, 500.05, 513.5),),
          ("impossible heights", "filled from their neighbours")),
    _case("terrain of coarser cells", "buildings on that ground", lambda f: on_terrain(f, step=5.0),
          ((200, 500.05, 513.5),)),
    _case("`terrain` and `bounds_m`", "the ground over the bounds", own_bounds, ((200, 500.05, 513.5),),
          check=lambda scene: size(scene) == (50, 50)),
    _case("terrain that does not reach", "refused",
          lambda f: {**on_terrain(f), "bounds_m": [0, 0, 500, 500]}, error="does not reach"),
    _case("no reference system", "refused without `crs`", lambda f: plain(f, crs=None),
          error="names no reference system"),
    _case("no reference system, and `crs=local`", "metres, counted from the corner where they are large",
          lambda f: {"path": plain(f, crs=None), "crs": "local"}, ONE, check=lambda scene: middle(scene) == (20, 25)),
    _case("no georeference, and `crs=local`", "cells of 1 m, the first row in the north, noted",
          lambda f: {"path": plain(f, crs=None, transform=Affine.identity()), "crs": "local"}, ONE,
          ("no georeference",), check=lambda scene: middle(scene) == (20, 25)),
    _case("a surface model, and no `terrain`", "refused, with the way out",
          lambda f: raster(f / "s.tif", heights() + 500), error="has no ground: its lowest cell is 500 m high"),
    _case("a picture of three colours", "refused", picture, error="is a picture"),
    _case("no cell that is a building", "refused", lambda f: plain(f, 1.0), error="no cell 2.5 m or more"),
    _case("text", "refused", lambda f: text(f, b"no picture"), error="no readable raster"),
    _case("its end cut off", "refused", cut, error="no readable raster"),
    _case("10¹² cells", "refused", huge, error="cut a part out"),
]  # fmt: skip

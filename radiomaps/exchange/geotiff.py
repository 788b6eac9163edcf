"""Maps as georeferenced GeoTIFF: one file per variable, one band per height."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from geoml.errors import DataError
from geoml.runs.files import atomic_path
from radiomaps.maps.layout import VARIABLES
from radiomaps.maps.store import file_names, in_scene, open_maps, scene_records

__all__ = ["export_geotiff"]


def export_geotiff(store: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Write `{scene}-{cell}-{variable}.tif` for every map, cells without a name as `tx{n}`; returns one row per file.

    Fields are float32, NaN without a path and in buildings; masks are bytes. The reference system is that of the scene;
    local scenes have none. Bands are named by height, north is up.
    """
    import rasterio
    from rasterio.crs import CRS
    from rasterio.transform import from_origin

    maps, rows = open_maps(store), []
    step_x, step_y = (float(maps[axis][1] - maps[axis][0]) for axis in "xy")
    for index, record in enumerate(scene_records(store)):
        crs = None if record["crs"] == "local" else CRS.from_string(record["crs"])
        placed = in_scene(maps.isel(scene=index))
        west, north = float(placed["x"][0]) - step_x / 2, float(placed["y"][-1]) + step_y / 2
        cells = file_names(record.cell_names(maps["frequency_hz"].values))
        for tx in range(maps.sizes["tx"]):
            one = maps.isel(scene=index, tx=tx)
            for name in (n for n in one.data_vars if n in VARIABLES and set(one[n].dims) == {"z", "y", "x"}):
                values = one[name].transpose("z", "y", "x").values[:, ::-1]
                values = values.astype(np.uint8 if values.dtype == bool else np.float32)
                path = Path(folder) / f"{file_names([record['name']])[0]}-{cells[tx]}-{name}.tif"
                nodata = np.nan if values.dtype == np.float32 else None
                with warnings.catch_warnings(), atomic_path(path) as partial:
                    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                    with rasterio.open(
                        partial, "w", driver="GTiff", width=values.shape[2], height=values.shape[1],
                        count=values.shape[0], dtype=values.dtype, crs=crs, nodata=nodata, compress="deflate",
                        transform=from_origin(west, north, step_x, step_y),
                    ) as file:  # fmt: skip
                        file.write(values)
                        for band, height in enumerate(maps["z"].values, start=1):
                            file.set_band_description(band, f"z = {float(height):g} m")
                            file.set_band_unit(band, VARIABLES[str(name)].units)
                        file.update_tags(
                            licence=record["licence"], scene=record["name"], scene_hash=record["hash"],
                            long_name=VARIABLES[str(name)].long_name, frequency_hz=float(one["frequency_hz"]),
                        )  # fmt: skip
                rows.append({"file": str(path), "bands": values.shape[0]})
    if not rows:
        raise DataError(f"{store} holds nothing to export")
    return rows

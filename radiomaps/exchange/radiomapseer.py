"""RadioMapSeer (Levie et al., arXiv 1911.09002; Yapar et al., 2212.11777) into a store: path gain at one height."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from geoml.errors import DataError, unknown
from geoml.grids.grid import Grid
from radiomaps.exchange.files import FileTree
from radiomaps.exchange.grey import RADIOMAPSEER, GreyCodec, SaturationCount, read_grey
from radiomaps.exchange.stores import Imported, write_imported

__all__ = ["import_radiomapseer"]

_GAIN = re.compile(r"^(?:.*/)?gain/(?P<model>\w+)/(?P<map>\d+)_(?P<tx>\d+)\.png$")


def import_radiomapseer(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    model: str = "DPM",
    range_db: tuple[float, float] = (RADIOMAPSEER.low, RADIOMAPSEER.high),
    height_m: float = 1.5,
    licence: str = "",
) -> list[dict[str, Any]]:
    """Read `gain/MODEL/{map}_{tx}.png` with `png/buildings_complete` and `png/antennas`; returns saturated shares.

    Pictures lie with north up. The transmitter is the brightest cell of its antenna picture, or, where there is none,
    of the map. Level 0 outdoors becomes `no_path`: it is the noise floor.
    """
    tree = FileTree(source)
    found = [match for name in tree.names if (match := _GAIN.match(name))]
    models = sorted({match["model"] for match in found})
    if not found:
        raise DataError(f"{source} holds no pictures named as RadioMapSeer's, as gain/DPM/0_12.png")
    if model not in models:
        raise unknown("model", model, models)
    chosen = sorted((m for m in found if m["model"] == model), key=lambda m: (int(m["map"]), int(m["tx"])))
    root = chosen[0].string[: -len(f"gain/{model}/{chosen[0]['map']}_{chosen[0]['tx']}.png")]
    codec = GreyCodec(*map(float, range_db))
    shape = read_grey(tree.read(chosen[0].string), chosen[0].string).shape
    lower, upper = {"z": height_m - 0.5, "y": 0, "x": 0}, {"z": height_m + 0.5, "y": shape[0], "x": shape[1]}
    grid = Grid.box(lower, upper, 1.0)
    known = set(tree.names)

    def read(number: int) -> Imported:
        match = chosen[number]
        levels = read_grey(tree.read(match.string), match.string)[::-1]
        plan = f"{root}png/buildings_complete/{match['map']}.png"
        building = read_grey(tree.read(plan), plan)[::-1] > 0
        if levels.shape != shape or building.shape != shape:
            raise DataError(f"{match.string} has {levels.shape} pixels, its buildings {building.shape}, others {shape}")
        antenna = f"{root}png/antennas/{match['map']}_{match['tx']}.png"
        bright = read_grey(tree.read(antenna), antenna)[::-1] if antenna in known else np.where(building, 0, levels)
        row, column = np.unravel_index(int(np.argmax(bright)), shape)
        saturation = SaturationCount()
        saturation.note_levels("path_gain_db", levels, ~building)
        gain = np.where(building, np.nan, codec.decode(levels))
        fields = {"path_gain_db": gain[None], "no_path": (np.isnan(gain) & ~building)[None]}
        place = (float(column) + 0.5, float(row) + 0.5, height_m)
        return Imported(match["map"], place, 23.0, fields, building[None], saturation=saturation)

    return write_imported(
        store, grid, ("path_gain_db", "no_path"), [(m["map"], m["tx"]) for m in chosen], read,
        attrs={"source": "RadioMapSeer", "frequency_hz": 5.9e9, "solver": f"WinProp {model}",
               "solver_version": "unknown", "path_gain_range_db": list(range_db), "transmitter_height_m": height_m},
        licence=licence or "CC BY 4.0 (RadioMapSeer)",
    )  # fmt: skip

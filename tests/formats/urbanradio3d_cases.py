"""UrbanRadio3D's buildings."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.formats.case import Case
from tests.formats.files import box

JSON, PNG = "UrbanRadio3D polygons (`.json`)", "Pictures of heights (`.png`)"
_json, _png = partial(Case, JSON), partial(Case, PNG)


def polygons(folder: Path, *rows: Any) -> Path:
    path = folder / "7.json"
    path.write_text(json.dumps({"buildings": list(rows)}))
    return path


def picture(folder: Path, values: np.ndarray) -> Path:
    from PIL import Image

    path = folder / "7.png"
    Image.fromarray(values).save(path)
    return path


def levels(dtype: str = "u1", scale: int = 1) -> np.ndarray:
    field = np.zeros((64, 64), dtype)
    field[10:20, 30:50] = 255 * scale
    return field


def text(folder: Path, content: bytes, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


ROW = {"polygon": box(0, 0, 20, 20), "height": 12}
CASES = [
    _json("a list of polygons and heights", "a square of `size_m`", lambda f: polygons(f, ROW), ((400, 0, 12),)),
    _json("`holes`, as our export writes them", "courtyards",
          lambda f: polygons(f, {"polygon": box(0, 0, 60, 60), "holes": [box(10, 10, 50, 50)], "height": 12}),
          ((2000, 0, 12),)),
    _json("polygons of two corners", "left out, counted",
          lambda f: polygons(f, ROW, {**ROW, "polygon": [[1, 1], [9, 1]]}),
          ((400, 0, 12),), ("fewer than three corners left out: 1",)),
    _json("no other polygon than of two corners", "refused",
          lambda f: polygons(f, {**ROW, "polygon": [[1, 1], [9, 1]]}),
          error="holds no building that can be used"),
    _json("a building without a height", "refused", lambda f: polygons(f, {"polygon": ROW["polygon"]}),
          error="building 0 has no polygon or no height"),
    _json("a height of 1e9, or of text", "refused", lambda f: polygons(f, {**ROW, "height": 1e9}),
          error="building 0 is 1000000000.0 m high"),
    _png("grey levels", "heights: 255 is `scale_m` (19.8 m), a pixel `step_m` (1 m)", lambda f: picture(f, levels()),
         ((200, 0, 19.8),)),
    _png("16 bits", "refused", lambda f: picture(f, levels("u2", 256)), error="8-bit"),
    _png("colours", "refused", lambda f: picture(f, np.stack([levels(), levels() * 0, levels()], -1)),
         error="coloured picture"),
    _png("one grey alone", "refused", lambda f: picture(f, levels() * 0), error="holds no building"),
    _png("text", "refused", lambda f: text(f, b"no picture", "7.png"), error="no readable picture"),
]  # fmt: skip

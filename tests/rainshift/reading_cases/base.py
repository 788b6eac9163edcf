"""What a case of reading is, and the rain that files of cases hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

#: Six hours on 30 x 40 cells of 0.1 degree, in steps of 0.5 mm/h, some of it dry, all of it exact in every packing.
SHAPE = (6, 30, 40)
RAIN = np.floor(np.random.default_rng(0).gamma(0.5, 4.0, SHAPE).clip(0, 60)) * 0.5
HOURS = np.datetime64("2020-06-01T01", "ns") + np.arange(6) * np.timedelta64(1, "h")
LAT, LON = 50.05 + 0.1 * np.arange(30), 2.05 + 0.1 * np.arange(40)


@dataclass(frozen=True)
class Case:
    """One file: what it is, what comes of it, how it is written, and the settings it is read with."""

    kind: str
    what: str
    how: str
    write: Callable[[Path], Any]
    settings: dict[str, Any] = field(default_factory=dict)
    expected: Any = None  # the rain to be read, RAIN unless given
    refused: str | None = None  # a pattern of the error


CASES: list[Case] = []


def case(kind: str, what: str, how: str, *, refused: str | None = None, expected: Any = None, **settings: Any) -> Any:
    def add(write: Callable[[Path], Any]) -> Callable[[Path], Any]:
        CASES.append(Case(kind, what, how, write, settings, expected, refused))
        return write

    return add


def dataset(values: Any = RAIN, time: Any = HOURS, units: str | None = "mm h-1", **attrs: Any) -> xr.Dataset:
    said = attrs if units is None else {"units": units, **attrs}
    coords = {
        "time": time,
        "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"}),
    }
    return xr.Dataset({"precipitation": (("time", "lat", "lon"), np.asarray(values, "f4"), said)}, coords)


def steps(values: Any, minutes: list[int], **attrs: Any) -> xr.Dataset:
    time = HOURS[0] + np.cumsum(np.array(minutes) * 60_000_000_000).astype("m8[ns]")
    return dataset(np.asarray(values), time=time, **attrs)

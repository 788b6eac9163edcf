"""Pairs of files whose every value is known: a field that is linear in place and time, on any grid and interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

START = np.datetime64("2020-06-01T00", "ns")
HOUR = np.timedelta64(1, "h")


def truth(lat: Any, lon: Any, hours: Any, factor: float = 1.0) -> np.ndarray:
    """Rain in mm/h `(time, lat, lon)`: the mean over a cell or an interval is the value in its middle."""
    lat, lon, hours = (np.asarray(x, float) for x in (lat, lon, hours))
    where = 0.5 * (lat[:, None] - 50) + 0.3 * (lon[None, :] - 5)
    return factor * (6 + where[None] - 0.01 * hours[:, None, None])


def axis(low: float, high: float, step: float) -> np.ndarray:
    return np.round(np.arange(low, high + step / 4, step), 10)


def rain_file(
    path: Path,
    lat: np.ndarray,
    lon: np.ndarray,
    *,
    minutes: float,
    count: int,
    stamp: str = "end",
    units: str = "mm h-1",
    name: str = "precipitation",
    begin: float = 0.0,
    bounds: bool = False,
    **attrs: Any,
) -> Path:
    """Rates or amounts of steps of `minutes` from `begin` hours on, stamped at one place of their interval."""
    step = minutes / 60
    first = begin + step * np.arange(count)
    middle = first + (0 if stamp == "point" else step / 2)
    label = {"start": first, "end": first + step, "middle": first + step / 2, "point": first}[stamp]
    values = truth(lat, lon, middle)
    values = values * {"mm h-1": 1.0, "mm": step, "m": step / 1000}[units]
    data = xr.Dataset(
        {name: (("time", "lat", "lon"), values.astype("f4"), {"units": units, **attrs})},
        {
            "time": START + (label * 3600e9).astype("timedelta64[ns]"),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    )
    if bounds:
        data["time"].attrs["bounds"] = "time_bnds"
        edges = np.stack([first, first + step], 1)
        data["time_bnds"] = ("time", "nv"), START + (edges * 3600e9).astype("timedelta64[ns]")
    write(data, path)
    return path


def write(data: xr.Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zarr":
        data.to_zarr(path, zarr_format=2)
    else:
        data.to_netcdf(path)


def hours_of(time: np.ndarray) -> np.ndarray:
    return (time - START) / HOUR


#: Coarse steps in degrees over fine ones of 0.1.
RATIOS = {"1.5": 0.15, "2.5": 0.25, "3.37": 0.337, "2.8125": 0.28125, "7.3": 0.73, "10": 1.0, "20": 2.0}

#: Fine and coarse minutes, stamps and units, and the length of a sample in hours.
LABELS = {
    "alike": (60, "end", "mm h-1", 60, "end", "mm h-1", 1),
    "sums that end, rates that begin": (30, "start", "mm h-1", 60, "end", "m", 1),
    "bounds in the middle": (60, "middle", "mm", 60, "start", "mm", 1),
    "snapshots under means": (5, "point", "mm h-1", 60, "end", "mm", 1),
    "coarse days": (60, "end", "mm", 1440, "start", "mm", 24),
    "coarse half hours": (180, "end", "mm", 30, "end", "mm h-1", 3),
    "out of step by ten minutes": (60, "end", "mm", 60, "end", "mm", 1),
}


def pair_rows() -> list[str]:
    """What `data=pair` brings together, as rows of a table."""
    grids = [
        f"| grids | {name} : 1, aligned or shifted | {'as they are' if name in EVEN else INTERPOLATED} |"
        for name in RATIOS
    ]
    times = []
    for fine, stamp, units, coarse, its_stamp, its_units, length in LABELS.values():
        one = f"fine {units} {_kind(fine, stamp)}; coarse {its_units} {_kind(coarse, its_stamp)}"
        times.append(f"| times | {one} | samples of {length} h |")
    return [*grids, *times]


EVEN = ("1.5", "2.5", "10", "20")
INTERPOLATED = "the coarse one interpolated to a multiple of half a fine cell, the cost said"


def _kind(minutes: int, stamp: str) -> str:
    return f"at moments {minutes} min apart" if stamp == "point" else f"of {minutes} min, stamped at the {stamp}"

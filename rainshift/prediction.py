"""Predictions of whole regions: as xarray, or streamed into a CF file a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.cli.progress import track
from geoml.grids.grid import grid_of
from geoml.models.predictor import members_of
from geoml.runs.files import atomic_path
from rainshift.data.archive import Archive
from rainshift.data.selection import choose, hourly, whole_fields
from rainshift.evaluation import window_of
from rainshift.models.spec import Downscaler
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

    from geoml.grids.grid import Grid
    from rainshift.models.trust import Trust, TrustMap

__all__ = ["TRUST_MAPS", "predict_maps", "write_prediction"]


def predict_maps(
    downscaler: Downscaler,
    archive: Archive,
    region: str,
    *,
    positions: np.ndarray,
    role: str = "test",
    members: int = 8,
    seed: int = 0,
    trust: Trust | None = None,
) -> xr.Dataset:
    """`precipitation` in mm/h `(member, time, lat, lon)` at some positions among a role's samples, in memory.

    With `trust` also its maps `(time, lat, lon)` as in `write_prediction`.
    """
    import xarray as xr

    drawn = members_of(downscaler, members)
    grid = grid_of(archive.open(region, archive.samples(region, role)[0])["target"])
    rain = np.empty((drawn, len(positions), *grid.shape), np.float32)
    maps = {name: np.empty(rain.shape[1:], np.float32) for name in (() if trust is None else TRUST_MAPS)}
    for rows, part, _, said in _batches(downscaler, archive, region, positions, role, drawn, seed, trust):
        rain[:, rows] = part
        for name, values in maps.items():
            values[rows] = getattr(said, name.removeprefix("error_")).numpy()
    coords = {"member": np.arange(drawn), "time": archive.times(region, role, positions), **grid.coords()}
    made = xr.Dataset({name: (("time", *grid.names), values) for name, values in maps.items()}, coords)
    made["precipitation"] = (("member", "time", *grid.names), rain, VARIABLES["precipitation"].attrs)
    if trust is not None:
        made["error_bound"].attrs |= _bound_attrs(trust)
    return made


def write_prediction(
    path: Path,
    downscaler: Downscaler,
    archive: Archive,
    region: str,
    *,
    role: str = "test",
    samples: int | None = None,
    members: int = 8,
    seed: int = 0,
    attrs: dict[str, Any] | None = None,
    trust: Trust | None = None,
) -> dict[str, Any]:
    """Predict a region into a NetCDF file, whole or not at all; returns the row that says what was written.

    The file is CF-1.11 with `precipitation(member, time, lat, lon)` in mm/h; memory holds one batch. With `trust` it
    also has `expected_error` of the ensemble mean, `error_bound`, `novelty` and `familiar`, `(time, lat, lon)`.
    """
    positions = choose(archive, region, role, samples)
    drawn = members_of(downscaler, members)
    grid = grid_of(archive.open(region, archive.samples(region, role)[0])["target"])
    clipped = 0.0
    with atomic_path(path) as partial:
        import netCDF4

        with netCDF4.Dataset(partial, "w") as file:
            rain = _define(file, grid, archive.times(region, role, positions), drawn, attrs or {})
            maps = {} if trust is None else _define_trust(file, grid, trust)
            batches = _batches(downscaler, archive, region, positions, role, drawn, seed, trust)
            for rows, part, share, drawn_map in track(batches, f"predicting {region}", unit="batches"):
                rain[:, rows] = part
                clipped += share * len(rows)
                for name, variable in maps.items():
                    variable[rows] = getattr(drawn_map, name).numpy()
    return {
        "region": region,
        "hours": len(positions),
        "members": drawn,
        "clipped_share": clipped / max(len(positions), 1),
        "file": str(path),
    }


def _batches(
    downscaler: Downscaler,
    archive: Archive,
    region: str,
    positions: np.ndarray,
    role: str,
    members: int,
    seed: int,
    trust: Trust | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, float, TrustMap | None]]:
    """Which of the positions, `(member, time, lat, lon)` at them, clipped share and trust map of each batch."""
    window = window_of(downscaler)
    for batch, rows in whole_fields(archive, region, role, positions, window):
        prediction, share = downscaler.predict(batch, members=members, seed=seed)
        wanted = np.flatnonzero(rows.ravel() >= 0)
        hours = hourly(prediction, window is not None)[wanted, :, 0]
        drawn = None if trust is None else trust(batch, prediction)
        yield rows.ravel()[wanted], hours.numpy().swapaxes(0, 1), share, drawn


def _define(file: Any, grid: Grid, times: np.ndarray, members: int, attrs: dict[str, Any]) -> Any:
    """Dimensions, coordinates and the empty rain variable of a CF file."""
    file.setncatts({"Conventions": "CF-1.11", **{key: str(value) for key, value in attrs.items()}})
    for name, size in (("member", members), ("time", len(times)), *zip(grid.names, grid.shape, strict=True)):
        file.createDimension(name, size)
    member = file.createVariable("member", "i4", ("member",))
    member.setncatts({"standard_name": "realization", "units": "1"})
    member[:] = np.arange(members)
    time = file.createVariable("time", "i8", ("time",))
    time.setncatts({"standard_name": "time", "units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"})
    time[:] = times.astype("datetime64[s]").astype(np.int64)
    for axis in grid.axes:
        coordinate = file.createVariable(axis.name, "f8", (axis.name,))
        coordinate.setncatts(axis.attrs)
        coordinate[:] = axis.coordinates
    rain = file.createVariable(
        "precipitation",
        "f4",
        ("member", "time", *grid.names),
        compression="zlib",
        complevel=1,
        chunksizes=(1, 1, *grid.shape),
        fill_value=np.float32(np.nan),
    )
    rain.setncatts(VARIABLES["precipitation"].attrs)
    return rain


#: What a trust map says, for the reader of a file: type, unit and long name by variable.
TRUST_MAPS = {
    "expected_error": ("f4", "mm h-1", "expected absolute error of the ensemble mean"),
    "error_bound": ("f4", "mm h-1", "bound of the absolute error of the ensemble mean"),
    "novelty": ("f4", "1", "distance from the weather that trust was learnt from, about 1 where it is familiar"),
    "familiar": ("i1", "1", "1 where the novelty is within what trust was learnt from"),
}


def _define_trust(file: Any, grid: Grid, trust: Trust) -> dict[str, Any]:
    """The empty variables of a trust map, by the name of its field."""
    made = {}
    for name, (kind, units, long_name) in TRUST_MAPS.items():
        variable = file.createVariable(
            name,
            kind,
            ("time", *grid.names),
            compression="zlib",
            complevel=1,
            chunksizes=(1, *grid.shape),
        )
        variable.setncatts({"units": units, "long_name": long_name})
        made[name.removeprefix("error_")] = variable
    made["bound"].setncatts(_bound_attrs(trust))
    return made


def _bound_attrs(trust: Trust) -> dict[str, Any]:
    comment = f"holds for {trust.level:.0%} of the cells of weather like that of training"
    return {"comment": comment, "level": trust.level}

"""The hours of a region that pages show: what came in, what every model made of it, and what fell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from geoml.data.store import read_dataset, write_netcdf
from rainshift.matrix import Cell
from rainshift.prediction import predict

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from numpy.typing import NDArray

    from rainshift.experiment import Experiment

__all__ = ["FOLDER", "panels", "read", "showcase", "write"]

#: Where a run keeps them, a file a region.
FOLDER = "maps"
#: Hours before and after the wettest one, and members of each model, that are kept.
BEFORE, AFTER, MEMBERS = 2, 3, 4


def showcase(experiment: Experiment, region: str) -> xr.Dataset:
    """The wettest test hour of a region and those around it, in mm/h.

    `input(time, coarse_lat, coarse_lon)` where the data have coarse rain, `target(time, lat, lon)` and
    `prediction(model, member, time, lat, lon)` of every model trained without the region; NaN where it gives fewer
    members. `wettest` is a time of the coordinate.
    """
    import xarray as xr

    archive = experiment.archive
    split, indices = archive.samples(region, "test")
    groups = archive.open(region, split)
    target = groups["target"]["precipitation"].isel(time=indices)
    wettest = int(np.nanargmax(np.nan_to_num(target.mean(("lat", "lon")).values, nan=-1.0)))
    positions = _around(target["time"].values, wettest)
    data = xr.Dataset({"target": target.isel(time=positions).load()}, attrs={"units": "mm h-1", "region": region})
    guess = dict(archive.channels.first_guess).get("precipitation", "precipitation")
    if guess in groups["condition"]:
        coarse = groups["condition"][guess].isel(time=indices[positions]).load()
        data["input"] = coarse.rename(lat="coarse_lat", lon="coarse_lon").assign_coords(time=data["time"])
    outside = experiment.plan.outside.get(region)
    made = {}
    for name, spec in experiment.specs.items():
        cell = Cell(name, outside if spec.learns else None, region)
        folder = experiment.trained_in(cell)
        if spec.learns and (folder is None or not (folder / "summary.json").exists()):
            continue
        rain = predict(experiment.downscaler(cell), archive, region, positions=positions, members=MEMBERS)
        made[name] = rain.reindex(member=np.arange(MEMBERS)).drop_vars(("lat", "lon"))
    if made:
        every = xr.concat(list(made.values()), "model", coords="minimal", compat="override", join="override")
        data["prediction"] = every.assign_coords(model=list(made), **{k: data[k] for k in ("lat", "lon")})
    return data.assign_attrs(wettest=str(target["time"].values[wettest]))


def _around(times: NDArray[np.datetime64], wettest: int) -> NDArray[np.int64]:
    """Positions of the wettest hour and of those around it that follow each other without a gap."""
    chosen = np.arange(max(0, wettest - BEFORE), min(len(times), wettest + AFTER + 1))
    steps = np.diff(times)
    step = steps.min() if len(steps) else np.timedelta64(0)
    broken = np.cumsum(np.r_[0, np.diff(times[chosen]) != step])
    return chosen[broken == broken[chosen == wettest][0]]


def write(path: Path, data: xr.Dataset) -> None:
    """Keep the hours of one region, whole or not at all."""
    write_netcdf(path / FOLDER / f"{data.attrs['region']}.nc", data)


def read(path: Path) -> dict[str, xr.Dataset]:
    """What `write` kept in a run folder, by region; nothing where a run kept none."""
    found = {}
    for file in sorted((path / FOLDER).glob("*.nc")):
        with read_dataset(file) as stored:
            found[file.stem] = stored.load()
    return found


def panels(data: xr.Dataset) -> Mapping[str, xr.DataArray]:
    """Input, first members and target of the wettest hour, by name, for a picture."""
    now = data.sel(time=np.datetime64(data.attrs["wettest"]))
    fields = {"input": now["input"].rename(coarse_lat="lat", coarse_lon="lon")} if "input" in data else {}
    if "prediction" in data:
        fields |= {str(name): now["prediction"].sel(model=name, member=0) for name in now["model"].values}
    return fields | {"target": now["target"]}

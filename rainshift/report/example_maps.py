"""Example maps of a region for reports: coarse input, predictions of every model, and target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geoml.cli.progress import track
from geoml.data.store import read_dataset, write_netcdf
from geoml.grids.grid import conform
from rainshift.benchmarking.plan import Cell
from rainshift.data.matching import matched
from rainshift.data.prediction_file import TRUST_MAPS
from rainshift.data.selection import choose
from rainshift.prediction import predict_maps

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from numpy.typing import NDArray

    from rainshift.benchmarking.run import Experiment
    from rainshift.data.archive import Archive
    from rainshift.data.inputs import CoarseFields
    from rainshift.models.spec import Downscaler
    from rainshift.models.trust import Trust

__all__ = ["FOLDER", "of_file", "of_model", "read", "showcase", "write"]

#: Folder of a run that holds the maps, one file per region.
FOLDER = "maps"
#: Number of times before and after the wettest one, and of members of each model, that are saved.
BEFORE, AFTER, MEMBERS = 2, 3, 4
#: Maximum number of cells times hours of a model's maps: of large regions, fewer hours are predicted.
MOST = 400_000
#: Maximum number of cells along each side for the map of a prediction without a target.
LARGEST = 400


def showcase(experiment: Experiment, region: str) -> xr.Dataset:
    """Predict the wettest test hour of a region and the hours around it with every model, in mm/h.

    Returns `input(time, coarse_lat, coarse_lon)` if the data have coarse rain, `target(time, lat, lon)`, and
    `prediction(model, member, time, lat, lon)` of every model trained without the region, filled with NaN if a model
    gives fewer members. The attribute `wettest` is the wettest time.
    """
    import xarray as xr

    archive, whole = experiment.archive, region
    region = _wettest_block(experiment, region)
    data, positions = _weather(archive, region, "test")
    data.attrs["region"] = whole
    trained = {cell.model: cell for cell in experiment.plan.cells if cell.test_region == region and cell.seed == 0}
    outside = experiment.plan.outside.get(region)
    made = {}
    trained_first = sorted(experiment.specs.items(), key=lambda entry: not entry[1].is_network)
    for name, spec in track(trained_first, f"predicting maps of {whole}", unit="models"):
        chosen = outside if outside is not None else trained[name].train_set if name in trained else None
        cell = Cell(name, chosen if spec.learns else None, region)
        folder = experiment.trained_in(cell)
        if spec.learns and (folder is None or not (folder / "summary.json").exists()):
            continue
        drawn = predict_maps(experiment.downscaler(cell), archive, region, positions=positions, members=MEMBERS)
        made[name] = drawn["precipitation"].reindex(member=np.arange(MEMBERS)).drop_vars(("lat", "lon"))
    if made:
        every = xr.concat(list(made.values()), "model", coords="minimal", compat="override", join="override")
        data["prediction"] = every.assign_coords({"model": list(made), **{k: data[k] for k in ("lat", "lon")}})
    return data


def _wettest_block(experiment: Experiment, region: str) -> str:
    """Return the fold that contains the wettest hour of a record with folds; other regions are returned unchanged."""
    go = experiment.first_go
    if go is None or region not in go.folds:
        return region
    rain = experiment.archive.open(region, "all")["target"]["precipitation"].mean(("lat", "lon"))
    wettest = rain["time"].values[int(np.nanargmax(rain.fillna(-1.0).values))]
    return next(part for part in go.folds[region] if wettest in experiment.archive.times(part, "test"))


def of_model(
    downscaler: Downscaler,
    archive: Archive,
    region: str,
    role: str,
    *,
    samples: int | None = None,
    members: int = 8,
    seed: int = 0,
    trust: Trust | None = None,
) -> xr.Dataset:
    """Predict the wettest of the hours that `evaluate` scores and the hours around it, in the layout of `showcase`.

    `prediction` has a single model named "prediction". The result also has `mean(time, lat, lon)` over all members
    and, with `trust`, `expected_error`, `error_bound`, `novelty` and `familiar`.
    """
    data, positions = _weather(archive, region, role, choose(archive, region, role, samples))
    made = predict_maps(
        downscaler, archive, region, positions=positions, role=role, members=members, seed=seed, trust=trust
    )  # fmt: skip
    return _beside(data, made)


def of_file(file: Path, archive: Archive, region: str, role: str) -> xr.Dataset:
    """Return the same as `of_model` for the hours in a prediction file written by `rainshift predict`."""
    stored, split = read_dataset(file), archive.samples(region, role)[0]
    truth = archive.open(region, split)["target"]["precipitation"].sel(time=archive.times(region, role))
    rain, _ = matched(stored, truth, what=(str(file), region))
    among = np.flatnonzero(np.isin(archive.times(region, role), rain["time"].values))
    data, _ = _weather(archive, region, role, among)
    made = rain.to_dataset(name="precipitation").sel(time=data["time"]).load()
    cells = {name: data["target"][name] for name in ("lat", "lon")}
    made = made.reindex(cells, method="nearest", tolerance=1e-3)
    maps = {name: conform(stored[name]).sel(time=data["time"]).load() for name in TRUST_MAPS if name in stored}
    return _beside(data, made.assign(maps) if rain.shape[-2:] == truth.shape[-2:] else made)


def of_coarse(file: Path, fields: CoarseFields, name: str) -> xr.Dataset | None:
    """Return the wettest time of coarse fields and the times around it, without a target.

    Returns None if the fields are too large for a page.
    """
    import xarray as xr

    with read_dataset(file) as stored:
        made = conform(stored)
        if max(made.sizes["lat"], made.sizes["lon"]) > LARGEST:
            return None
        if "time" not in made.dims:
            made = made.expand_dims(time=fields.times)
        rain = made["precipitation"].mean("member")
        wettest = int(np.argmax([float(np.nan_to_num(field.mean().values)) for field in rain]))
        near = _around(made["time"].values, wettest, made.sizes["lat"] * made.sizes["lon"])
        made = made.isel(time=near).load()
        data = xr.Dataset(
            attrs={"units": "mm h-1", "region": name, "wettest": str(made["time"].values[near == wettest][0])}
        )
        if "tp" in fields.arrays:
            coarse = fields.arrays["tp"].isel(time=near).load() * fields.factors["tp"]
            data["input"] = coarse.reset_coords(drop=True).rename(lat="coarse_lat", lon="coarse_lon")
        data = data.assign_coords(time=made["time"], lat=made["lat"], lon=made["lon"])
        return _beside(data, made)


def _beside(data: xr.Dataset, made: xr.Dataset) -> xr.Dataset:
    """Add the prediction of a model to input and target, limited to the members that the page shows."""
    made = made.drop_vars(("lat", "lon"))
    rain = made["precipitation"].transpose("member", "time", ...)
    shown = rain.isel(member=slice(MEMBERS)).drop_vars("member", errors="ignore").expand_dims(model=["prediction"])
    data["prediction"], data["mean"] = shown, rain.mean("member")
    return data.assign({name: made[name] for name in TRUST_MAPS if name in made})


def _weather(
    archive: Archive, region: str, role: str, among: NDArray[np.int64] | None = None
) -> tuple[xr.Dataset, NDArray[np.int64]]:
    """Return input and target of the wettest hour and the hours around it, and their positions in the role.

    If given, `among` contains the positions to choose from.
    """
    import xarray as xr

    split, indices = archive.samples(region, role)
    places = np.arange(len(indices)) if among is None else among
    groups = archive.open(region, split)
    target = groups["target"]["precipitation"].isel(time=indices[places])
    wettest = int(np.nanargmax(np.nan_to_num(target.mean(("lat", "lon")).values, nan=-1.0)))
    near = _around(target["time"].values, wettest, target.sizes["lat"] * target.sizes["lon"])
    positions = places[near]
    data = xr.Dataset({"target": target.isel(time=near).load()}, attrs={"units": "mm h-1", "region": region})
    guess = dict(archive.channels.first_guess).get("precipitation", "precipitation")
    if guess in groups["condition"]:
        coarse = groups["condition"][guess].isel(time=indices[positions]).load()
        data["input"] = coarse.rename(lat="coarse_lat", lon="coarse_lon").assign_coords(time=data["time"])
    return data.assign_attrs(wettest=str(target["time"].values[wettest])), positions


def _around(times: NDArray[np.datetime64], wettest: int, cells: int) -> NDArray[np.int64]:
    """Return the positions of the wettest hour and of the consecutive hours around it: fewer if there are many cells.

    >>> _around(np.datetime64("2020-01-01T00", "h") + np.arange(9), 4, 1000)
    array([2, 3, 4, 5, 6, 7])
    >>> _around(np.datetime64("2020-01-01T00", "h") + np.arange(9), 4, 200_000)
    array([4, 5])
    """
    hours = max(1, MOST // cells)
    before = min(BEFORE, (hours - 1) // 2)
    after = min(AFTER, hours - 1 - before)
    chosen = np.arange(max(0, wettest - before), min(len(times), wettest + after + 1))
    steps = np.diff(times)
    step = steps.min() if len(steps) else np.timedelta64(0)
    broken = np.cumsum(np.r_[0, np.diff(times[chosen]) != step])
    return chosen[broken == broken[chosen == wettest][0]]


def write(path: Path, data: xr.Dataset) -> None:
    """Write the hours of one region to a run folder, atomically."""
    write_netcdf(path / FOLDER / f"{data.attrs['region']}.nc", data)


def read(path: Path) -> dict[str, xr.Dataset]:
    """Read the maps that `write` saved in a run folder, by region; empty if there are none."""
    found = {}
    for file in sorted((path / FOLDER).glob("*.nc")):
        with read_dataset(file) as stored:
            found[file.stem] = stored.load()
    return found

"""Maps sampled from a trained model: members, their mean and uncertainty, in physical units as CF files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geoml.cli.progress import track
from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import atomic_path
from radiomaps.evaluation import some_of
from radiomaps.maps.layout import VARIABLES
from radiomaps.maps.store import scene_records
from radiomaps.tasks.dataset import TaskLoader, TaskSource, loader
from radiomaps.tasks.encoding import AZIMUTH

if TYPE_CHECKING:
    import os

    import xarray as xr
    from numpy.typing import NDArray

    from geoml.data.fields import Batch
    from radiomaps.tasks import Task
    from radiomaps.training import Trained

__all__ = [
    "FORMATS",
    "conditions_of_scene",
    "draw_samples",
    "mean_and_spread",
    "sample_maps",
    "samples_of",
    "truth_of",
    "write_samples",
]

FORMATS = {"netcdf": ".nc", "zarr": ".zarr"}


def mean_and_spread(
    name: str, members: Float[Tensor, "member ..."]
) -> tuple[Float[Tensor, "*space"], Float[Tensor, "*space"]]:
    """Mean and standard deviation of a physical field over its members; circular ones for an azimuth, in radians.

    The circular deviation is √(−2 ln R), R the length of the mean unit vector (Mardia & Jupp 2000, eq. 2.3.14).

    >>> mean, spread = mean_and_spread("doa_azimuth", torch.tensor([0.1, 2 * torch.pi - 0.1]))
    >>> round(float(mean), 3) % 6.283, round(float(spread), 3)
    (0.0, 0.1)
    """
    if name != AZIMUTH:
        return members.mean(0), members.std(0, correction=1 if len(members) > 1 else 0)
    east, north = members.cos().mean(0), members.sin().mean(0)
    length = torch.hypot(east, north).clamp(1e-6, 1.0)
    return torch.atan2(north, east) % (2 * torch.pi), (-2 * length.log()).clamp(min=0).sqrt()


def sample_maps(
    trained: Trained,
    store: str | os.PathLike[str],
    samples: Sequence[int] | NDArray[Any],
    *,
    members: int = 8,
    seed: int = 0,
) -> Iterator[tuple[int, xr.Dataset]]:
    """Number and members of each map, one map in memory at a time.

    A Dataset has each target as `(member, z, y, x)` in dB, s or rad, and `NAME_mean` and `NAME_uncertainty`
    `(z, y, x)`, NaN in buildings, in the scene's metres. Members are keyed on (seed, number of the map): the same
    whatever else is sampled.
    """
    made = _loader(trained.task, store, samples)
    source = made.sources[0]
    assert isinstance(source, TaskSource)
    records = scene_records(store)
    for batch in made:
        numbers = [made.sample_of(item) for item in batch.ids]
        batch = batch.map(ids=tuple(numbers), target=None, mask=None)
        fields, _ = trained.predict(batch, members=members, seed=seed)
        for number, row, building in zip(numbers, fields, _buildings(trained.task, batch), strict=True):
            site = source.site(number)
            record = records[int(source.scenes[number])]
            yield number, _dataset(trained.task, row, building, batch, record, site)


def truth_of(task: Task, store: str | os.PathLike[str], sample: int) -> xr.Dataset:
    """The targets of a map as they are in its store, `(z, y, x)`, NaN where they do not count."""
    import xarray as xr

    batch = next(iter(_loader(task, store, [sample])))
    assert batch.target is not None
    assert batch.mask is not None
    fields = task.decode(batch.target[0])
    known = batch.mask[0].all(dim=0)
    return xr.Dataset(
        {name: (("z", "y", "x"), torch.where(known, values, torch.nan).numpy()) for name, values in fields.items()}
    )


def write_samples(
    folder: Path,
    trained: Trained,
    store: str | os.PathLike[str],
    samples: Sequence[int] | NDArray[Any],
    *,
    members: int = 8,
    seed: int = 0,
    kind: str = "netcdf",
    attrs: Mapping[str, Any] | None = None,
    truth: bool = False,
) -> Iterator[dict[str, Any]]:
    """Write each map to one file, atomically; yields a row about each as it is done.

    With `truth` the store's own targets are written as `NAME_truth`, so that pages and pictures need the file alone.
    """
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    maps = track(sample_maps(trained, store, samples, members=members, seed=seed), "sampling", unit="maps")
    for number, dataset in maps:
        dataset.attrs |= {key: str(value) for key, value in (attrs or {}).items()}
        if truth:
            known = truth_of(trained.task, store, number)
            dataset = dataset.assign(
                {f"{name}_truth": known[name].assign_attrs(dataset[f"{name}_mean"].attrs) for name in known}
            )
        path = folder / f"map-{number:05d}{FORMATS[kind]}"
        with atomic_path(path) as partial:
            if kind == "zarr":
                dataset.to_zarr(partial)
            else:
                squeezed = {str(name): {"zlib": True, "complevel": 1} for name in dataset.data_vars}
                dataset.to_netcdf(partial, engine="netcdf4", encoding=squeezed)
        row: dict[str, Any] = {"map": number, "scene": dataset.attrs["scene"], "members": members}
        for name in trained.task.targets:
            spread = dataset[f"{name}_uncertainty"]
            row[f"{name} ±"] = f"{float(spread.median()):.3g} {spread.attrs['units']}"
        yield {**row, "file": str(path)}


def conditions_of_scene(
    path: Path,
    scene: Mapping[str, Any],
    transmitters: Mapping[str, Any],
    window: Mapping[str, Any],
    frequency_hz: float,
) -> Path:
    """A store at `path` from which a task of a scene's buildings and transmitters can be read.

    It holds the dominant paths too, as every store has maps; an aware task looks at none of them.
    """
    from radiomaps.generation.generate import generate
    from radiomaps.generation.plan import Placement, Plan, Window

    options = {"frequency_hz": frequency_hz}
    plan = Plan((dict(scene),), Placement(**transmitters), Window(**window), "dominant", options)
    return generate(plan, path)


def _loader(task: Task, store: str | os.PathLike[str], samples: Sequence[int] | NDArray[Any]) -> TaskLoader:
    return loader(store, sorted(map(int, samples)), task, batch_size=1, shuffle=False)


def _buildings(task: Task, batch: Batch) -> NDArray[np.bool_]:
    return batch.condition[:, task.channels.condition.index("building")].numpy() > 0.5


def _dataset(
    task: Task, fields: Tensor, building: NDArray[np.bool_], batch: Batch, record: Mapping[str, Any], site: Any
) -> xr.Dataset:
    """One map's members, mean and uncertainty in the scene's metres."""
    import xarray as xr

    space = ("z", "y", "x")
    outdoors = torch.as_tensor(~building)
    variables: dict[str, Any] = {"building": (space, building.astype(np.int8), {"long_name": "inside a building"})}
    for name, members in task.decode(fields.float()).items():
        about = VARIABLES[name]
        units = {"units": about.units}
        parts = dict(zip(("mean", "uncertainty"), mean_and_spread(name, members), strict=True))
        members = torch.where(outdoors, members, torch.nan)
        variables[name] = (("member", *space), members.numpy(), {**units, "long_name": about.long_name})
        for part, values in parts.items():
            what = "mean" if part == "mean" else "standard deviation"
            text = f"{what} over the members: {about.long_name}"
            values = torch.where(outdoors, values, torch.nan)
            variables[f"{name}_{part}"] = (space, values.numpy(), {**units, "long_name": text})
    coords: dict[str, Any] = dict(batch.target_grid.coords())
    origin = dict(zip("xy", record["origin_m"], strict=True))
    for axis, begin in origin.items():
        dims, labels, about_axis = coords[axis]
        coords[axis] = (dims, labels + begin, about_axis)
    coords["member"] = ("member", np.arange(len(fields)), {"standard_name": "realization", "units": "1"})
    for axis, place in zip("xyz", site.position_m, strict=True):
        coords[f"tx_{axis}"] = ((), place + origin.get(axis, 0.0), {"units": "m", "long_name": "transmitter"})
    coords["frequency_hz"] = ((), site.frequency_hz, {"units": "Hz"})
    attrs = {"Conventions": "CF-1.11", "scene": record["name"], "licence": record["licence"]}
    return xr.Dataset(variables, coords, attrs)


def samples_of(trained: Trained, values: Mapping[str, Any], folder: Path) -> tuple[Path, list[int]]:
    """The store and the maps that a configuration of `radiomaps sample` asks for.

    Without a store, one is made of the scene and its transmitters in `folder`, on a grid like that of the training.
    """
    from radiomaps.training import parts_of

    if values["store"] is None:
        if trained.task.observations is not None:
            raise UserError("this model reads observed voxels; name a store of measured or traced maps: store=MAPS")
        window = {name: value for name, value in values["window"].items() if value is not None}
        scene = {name: value for name, value in values["scene"].items() if value is not None}
        carrier, window = float(values["frequency_hz"]), {**trained.window, **window}
        store = folder / "conditions.zarr"
        conditions_of_scene(store, scene, values["transmitters"], window, frequency_hz=carrier)
        return store, _chosen({"all": range(_count(store))}, None, values["samples"], values["count"])
    store = Path(values["store"])
    parts: Mapping[str, Any] = {"all": range(_count(store))}
    if values["part"] is not None:
        if trained.split is None:
            raise UserError(f"{values['checkpoint']} does not say how its maps were split; name some: samples=[…]")
        parts = parts_of(store, trained.split)
    return store, _chosen(parts, values["part"], values["samples"], values["count"])


def _count(store: Path) -> int:
    from geoml.data.store import open_store

    return int(open_store(store, "target").sizes["sample"])


def _chosen(parts: Mapping[str, Any], part: str | None, wanted: Sequence[int], count: int | None) -> list[int]:
    """Maps that are named, or those of a part, evenly spread where fewer are wanted."""
    if part is not None and part not in parts:
        raise unknown("part", part, parts)
    found = sorted(int(number) for name, numbers in parts.items() if part in (None, name) for number in numbers)
    if lacking := sorted(set(map(int, wanted)) - set(found)):
        raise UserError(f"map {lacking[0]} is not among the {len(found)} maps to choose from")
    found = sorted(map(int, wanted)) or found
    if not found:
        raise DataError(f"part {part!r} has no map")
    return some_of(found, count)


def draw_samples(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a picture next to each written file, with the truth that the file holds."""
    import xarray as xr

    from radiomaps.report.charts import stored_truth
    from radiomaps.report.figures import save_figure
    from radiomaps.report.prediction_figures import draw_prediction

    for row in rows:
        path = Path(row["file"])
        opened = xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path)
        with opened as made:
            title = f"{row['scene']}, map {row['map']}"
            picture = draw_prediction(made.load(), stored_truth(made), title=title)
            save_figure(picture, path.with_suffix(".png"))

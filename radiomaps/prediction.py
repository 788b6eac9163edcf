"""Prediction with a trained model: members, their mean and uncertainty, in physical units as CF files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from geoml.cli.progress import track
from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import atomic_path
from radiomaps.generation.plan import Window
from radiomaps.maps.layout import VARIABLES
from radiomaps.maps.store import MapStore
from radiomaps.scores.physical import QUANTITIES
from radiomaps.tasks.dataset import TaskLoader, TaskSource, loader
from radiomaps.tasks.encoding import AZIMUTH, TARGETS, within_a_turn
from radiomaps.tasks.scene_batch import observed_on, scene_batch
from radiomaps.tasks.splits import parts_of, some_of

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from geoml.data.fields import Batch
    from geoml.grids.grid import Grid
    from radiomaps.maps.layout import Transmitter
    from radiomaps.scenes import Scene
    from radiomaps.tasks import Task
    from radiomaps.tasks.conditions import Site
    from radiomaps.trained import Trained

__all__ = [
    "FORMATS",
    "chosen_maps",
    "mean_and_spread",
    "predicted_maps",
    "predicted_scene",
    "training_grid",
    "truth_of",
    "window_of",
    "with_truth",
    "write_predictions",
]

logger = logging.getLogger(__name__)

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
    return within_a_turn(torch.atan2(north, east)), (-2 * length.log()).clamp(min=0).sqrt()


def predicted_maps(
    trained: Trained,
    store: str | os.PathLike[str],
    samples: Sequence[int] | NDArray[Any],
    *,
    members: int = 8,
    seed: int = 0,
) -> Iterator[tuple[int, xr.Dataset]]:
    """Yield number and prediction of each of a store's maps, with one map in memory at a time.

    A Dataset has each target as `(member, z, y, x)` in dB, s or rad, and `NAME_mean` and `NAME_uncertainty`
    `(z, y, x)`, NaN in buildings, in the scene's metres. Members are keyed on (seed, number of the map) and do not
    depend on what else is predicted.
    """
    store = MapStore.open(store)
    made = _loader(trained.task, store, samples)
    source = made.sources[0]
    assert isinstance(source, TaskSource)
    for batch in made:
        numbers = [made.sample_of(item) for item in batch.ids]
        batch = batch.map(ids=tuple(numbers), target=None, mask=None)
        fields, _ = trained.predict(batch, members=members, seed=seed)
        for number, row, building in zip(numbers, fields, _buildings(trained.task, batch), strict=True):
            record = store.records[int(source.scenes[number])]
            attrs = {"scene": record["name"], "licence": record["licence"]}
            site, origin = source.site(number), record["origin_m"]
            yield number, _dataset(trained.task, row, building, batch, site, origin, attrs)


def predicted_scene(
    trained: Trained,
    scene: Scene,
    transmitters: Sequence[Transmitter],
    grid: Grid,
    *,
    members: int = 8,
    seed: int = 0,
    frequency_hz: float = 5.9e9,
    observed: xr.Dataset | None = None,
) -> Iterator[tuple[int, xr.Dataset]]:
    """Yield number and prediction for each transmitter of a scene, as `predicted_maps` does, without a store."""
    _warn_of_another_grid(trained, grid)
    above_ground = bool(trained.window.get("above_ground", False))
    attrs = {"scene": scene.name, "licence": scene.licence}
    origin = (grid["x"].extent[0], grid["y"].extent[0])
    for number, transmitter in enumerate(transmitters):
        known = None if observed is None else observed_on(grid, trained.task, observed, number=number)
        batch, site = scene_batch(
            trained.task, scene, transmitter, grid, number=number, frequency_hz=frequency_hz,
            above_ground=above_ground, observed=known,
        )  # fmt: skip
        fields, _ = trained.predict(batch, members=members, seed=seed)
        (building,) = _buildings(trained.task, batch)
        yield number, _dataset(trained.task, fields[0], building, batch, site, origin, attrs)


def _warn_of_another_grid(trained: Trained, grid: Grid) -> None:
    """Warn if voxel sizes or heights differ from those of the training."""
    if not trained.window:
        return
    first, last, spacing = trained.window["heights_m"]
    step, z = trained.window["step_m"], grid["z"]
    found = [grid["x"].step, grid["y"].step, *([z.step] if z.size > 1 else [])]
    top = z.start + z.step * (z.size - 1)
    if not np.allclose(found, [step, step, spacing][: len(found)]) or z.start < first - 1e-6 or top > last + 1e-6:
        logger.warning(
            "the model was trained on voxels of %g m × %g m at heights %g … %g m, not of %g m × %g m at %g … %g m: "
            "its errors there are unknown", step, spacing, first, last, grid["x"].step, z.step, z.start, top,
        )  # fmt: skip


def truth_of(task: Task, store: str | os.PathLike[str], sample: int) -> xr.Dataset:
    """Targets of one map of a store, `(z, y, x)`, NaN in voxels that are not scored."""
    batch = next(iter(_loader(task, store, [sample])))
    assert batch.target is not None
    assert batch.mask is not None
    fields = task.decode(batch.target[0])
    known = batch.mask[0].all(dim=0)
    return xr.Dataset(
        {name: (("z", "y", "x"), torch.where(known, values, torch.nan).numpy()) for name, values in fields.items()}
    )


def with_truth(
    maps: Iterable[tuple[int, xr.Dataset]], task: Task, store: str | os.PathLike[str]
) -> Iterator[tuple[int, xr.Dataset]]:
    """Predictions of a store's maps with its targets added as `NAME_truth`, for pages and figures."""
    for number, made in maps:
        known = truth_of(task, store, number)
        yield (
            number,
            made.assign({f"{name}_truth": known[name].assign_attrs(made[f"{name}_mean"].attrs) for name in known}),
        )


def write_predictions(
    folder: Path,
    maps: Iterable[tuple[int, xr.Dataset]],
    *,
    total: int,
    kind: str = "netcdf",
    attrs: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Write each map to one file, atomically; yields a row for each."""
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    for number, dataset in track(maps, "predicting", unit="maps", total=total):
        dataset.attrs |= {key: str(value) for key, value in (attrs or {}).items()}
        path = folder / f"map-{number:05d}{FORMATS[kind]}"
        with atomic_path(path) as partial:
            if kind == "zarr":
                dataset.to_zarr(partial)
            else:
                squeezed = {str(name): {"zlib": True, "complevel": 1} for name in dataset.data_vars}
                dataset.to_netcdf(partial, engine="netcdf4", encoding=squeezed)
        row: dict[str, Any] = {"map": number, "scene": dataset.attrs["scene"], "members": dataset.sizes["member"]}
        for name in TARGETS:
            if f"{name}_uncertainty" in dataset:
                shown = QUANTITIES[name]
                row[f"{name} ± {shown.unit}"] = shown.factor * float(dataset[f"{name}_uncertainty"].median())
        yield {**row, "file": str(path)}


def _loader(task: Task, store: str | os.PathLike[str], samples: Sequence[int] | NDArray[Any]) -> TaskLoader:
    return loader(store, sorted(map(int, samples)), task, batch_size=1, shuffle=False)


def _buildings(task: Task, batch: Batch) -> NDArray[np.bool_]:
    return batch.condition[:, task.channels.condition.index("building")].numpy() > 0.5


def _dataset(
    task: Task,
    fields: Tensor,
    building: NDArray[np.bool_],
    batch: Batch,
    site: Site,
    origin_m: Sequence[float],
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """One map's members, mean and uncertainty in the scene's metres."""
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
    origin = dict(zip("xy", origin_m, strict=True))
    for axis, begin in origin.items():
        dims, labels, about_axis = coords[axis]
        coords[axis] = (dims, labels + begin, about_axis)
    coords["member"] = ("member", np.arange(len(fields)), {"standard_name": "realization", "units": "1"})
    for axis, place in zip("xyz", site.position_m, strict=True):
        coords[f"tx_{axis}"] = ((), place + origin.get(axis, 0.0), {"units": "m", "long_name": "transmitter"})
    coords["frequency_hz"] = ((), site.frequency_hz, {"units": "Hz"})
    return xr.Dataset(variables, coords, {"Conventions": "CF-1.11", **attrs})


def chosen_maps(
    trained: Trained, store: MapStore, *, part: str | None, samples: Sequence[int] = (), count: int | None = None
) -> list[int]:
    """Numbers of the maps of a store to predict.

    These are the maps in `samples`, or else all maps of `part` of the training's split (None: of the store). With
    `count`, an evenly spread selection of them.
    """
    parts: Mapping[str, Any] = {"all": range(len(store.scenes))}
    if part is not None:
        if trained.split is None:
            raise UserError("the run has no record of its split of the maps; give numbers of maps: samples=[…]")
        parts = parts_of(store, trained.split)
    return _chosen(parts, part, samples, count)


def training_grid(trained: Trained, scene: Scene, *, size_m: float = 256.0) -> Grid:
    """A grid of at most `size_m` in the middle of a scene, with the voxels of the training."""
    step = float(trained.window.get("step_m", 4.0))
    lower, upper = scene.extent
    width = min(size_m, *(high - low for low, high in zip(lower[:2], upper[:2], strict=True)))
    return Window(**{**trained.window, "size_m": width // step * step}).grid(scene)


def window_of(trained: Trained, values: Mapping[str, Any]) -> Window:
    """The window of a configuration, with steps and heights of the training as defaults."""
    return Window(**{**trained.window, **{name: value for name, value in values.items() if value is not None}})


def _chosen(parts: Mapping[str, Any], part: str | None, wanted: Sequence[int], count: int | None) -> list[int]:
    """The requested maps, or those of a part, evenly thinned to `count`."""
    if part is not None and part not in parts:
        raise unknown("part", part, parts)
    found = sorted(int(number) for name, numbers in parts.items() if part in (None, name) for number in numbers)
    if lacking := sorted(set(map(int, wanted)) - set(found)):
        raise UserError(f"map {lacking[0]} is not among the {len(found)} maps to choose from")
    found = sorted(map(int, wanted)) or found
    if not found:
        raise DataError(f"part {part!r} has no map")
    return some_of(found, count)

"""Maps of a store as the batches of a task, through the core's block loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoml.data.blocks import FieldSource
from geoml.data.fields import Batch
from geoml.data.loader import BlockLoader
from geoml.data.patches import PatchSpec
from geoml.data.sources import Block, BlockSource, Stack, select_samples
from geoml.data.store import Store
from geoml.errors import DataError, UserError
from geoml.grids.grid import Axis, Grid
from geoml.runs.files import read_json
from radiomaps.maps.store import MapStore, SceneRecord
from radiomaps.tasks.channels import base_height_m, map_channels
from radiomaps.tasks.conditions import Site, roof_map
from radiomaps.tasks.features import ONCE_FEATURE
from radiomaps.tasks.priors import dominant_store
from radiomaps.tasks.task import SIGHT, Task

__all__ = ["TaskLoader", "TaskSource", "loader"]

Array = NDArray[Any]
#: Priors that are kept in a separate store.
_BESIDE: dict[str, Callable[[MapStore, Task], Store]] = {
    "dominant": lambda store, task: dominant_store(store, version=task.dominant_version),
}


class TaskSource(BlockSource):
    """The maps of a store with a task's channels, made on whole fields as blocks are read.

    A crop therefore has the same inputs as the full map: a transmitter outside it, the observed voxels, the prior.
    """

    static: tuple[str, ...] = ()

    def __init__(
        self,
        store: str | os.PathLike[str],
        task: Task,
        samples: slice | Iterable[int] | NDArray[Any] | None = None,
    ) -> None:
        self.store, self.task = MapStore.open(store), task
        gain = ("path_gain_db",) if task.threshold_dbm is not None else ()
        self._variables = tuple(dict.fromkeys((*task.targets, *gain)))
        self._maps = FieldSource(self.store, condition=["building"], target=self._variables, static=[])
        self.name = self._maps.name
        self.condition, self.target = task.channels.condition, task.channels.target
        target, sites = self.store.groups["target"], self.store.groups["transmitter"]
        #: Whether heights are those above the ground.
        self.above_ground = "ground" in str(target["z"].attrs.get("long_name", ""))
        self.scenes = self.store.scenes
        names = ("tx_x", "tx_y", "tx_z", "tx_power_dbm", "frequency_hz")
        self._sites = np.stack([np.asarray(sites[name].values, np.float64) for name in names], axis=1)
        self._layers, self.target_grid = _layers(self._maps.target_grid, task.heights, self.store)
        self.condition_grid, self.times, self.block_samples = self.target_grid, None, self._maps.block_samples
        self.selected = select_samples(samples, len(self._sites), self.name)
        self._prior, self._once = self._open_prior(), self._open_once()
        self._roofs: dict[int, NDArray[np.float32]] = {}
        self._bases: dict[int, float] = {}
        #: The epoch, shared with reading processes; fresh observations are keyed on it.
        self.epoch = torch.zeros(1, dtype=torch.int64)

    def _open_prior(self) -> FieldSource | None:
        if self.task.prior not in _BESIDE:
            return None
        beside = _BESIDE[self.task.prior](self.store, self.task)
        return FieldSource(beside, condition=["building"], target=[*self.task.targets, "los"], static=[])

    def _open_once(self) -> FieldSource | None:
        if ONCE_FEATURE not in self.task.features:
            return None
        beside = dominant_store(self.store, version=self.task.dominant_version, once=True)
        return FieldSource(beside, condition=["building"], target=["path_gain_db"], static=[])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_roofs": {}}

    @property
    def sample_bytes(self) -> int:
        return 4 * (len(self.condition) + len(self.target)) * self.target_grid.size

    def site(self, sample: int) -> Site:
        """The transmitter of a sample, in the metres of its window."""
        x, y, z, power, frequency = (float(value) for value in self._sites[sample])
        if self.above_ground:
            z -= self._ground_m(sample)
        return Site((x, y, z), power, frequency)

    def sight(self, samples: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Which voxels of some maps are in line of sight `(sample, z, y, x)`; None if the store does not say."""
        target = self.store.groups["target"]
        if "los" not in target:
            return None
        return target["los"].isel(sample=samples).values[:, self._layers] > 0.5

    def _ground_m(self, sample: int) -> float:
        """Height of the ground that the footprints of a scene stand on."""
        scene = int(self.scenes[sample])
        if scene not in self._bases:
            self._bases[scene] = base_height_m(self._record(sample).footprints)
        return self._bases[scene]

    def _record(self, sample: int) -> SceneRecord:
        return SceneRecord(read_json(self.store.path / "scenes" / f"{int(self.scenes[sample]):05d}.json"))

    def read_block(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> Block:
        stored = self._maps.read(start, stop)
        building = stored["condition"][:, 0, self._layers] > 0.5
        fields = stored["target"][:, :, self._layers]
        guesses = None if self._prior is None else self._prior.read(start, stop)["target"][:, :, self._layers]
        once = None if self._once is None else self._once.read(start, stop)["target"][:, 0, self._layers]
        rows: dict[str, list[Array]] = {"condition": [], "target": []}
        for row, sample in enumerate(range(start, stop)):
            known = dict(zip(self._variables, fields[row], strict=True))
            guess = None if guesses is None else dict(zip((*self.task.targets, SIGHT), guesses[row], strict=True))
            channels = self._channels(sample, building[row], known, guess, None if once is None else once[row])
            for role, made in rows.items():
                made.append(np.stack([channels[name] for name in getattr(self, role)]))
        return Block(start, stop, {role: (_stack(made),) for role, made in rows.items() if getattr(self, role)})

    def _channels(
        self,
        sample: int,
        building: NDArray[np.bool_],
        known: dict[str, Array],
        guess: dict[str, Array] | None,
        once: Array | None,
    ) -> dict[str, Array]:
        """Every channel of a map, each `(z, y, x)`; targets are NaN where they are masked."""
        task, site = self.task, self.site(sample)
        if task.threshold_dbm is not None:
            weak = known["path_gain_db"] + site.power_dbm < task.threshold_dbm
            known = {name: np.where(weak, np.nan, values) for name, values in known.items()}
        observed = None if task.observations is None else self._observed(sample, building, known)
        channels = map_channels(
            task, self.target_grid, site, building, self._roof(sample, building), observed=observed, guess=guess,
            once=once,
        )  # fmt: skip
        return channels | dict(zip(task.target_channels, task.encode(known), strict=True))

    def _roof(self, sample: int, building: NDArray[np.bool_]) -> NDArray[np.float32]:
        scene = int(self.scenes[sample])
        if scene not in self._roofs:
            footprints = self._record(sample).local_footprints
            self._roofs[scene] = roof_map(building, footprints, self.target_grid, above_ground=self.above_ground)
        return self._roofs[scene]

    def _observed(self, sample: int, building: NDArray[np.bool_], known: dict[str, Array]) -> dict[str, Array]:
        """Values at the observed voxels, NaN elsewhere."""
        assert self.task.observations is not None
        observations, epoch = self.task.observations, int(self.epoch[0])
        heard = np.isfinite(known[self.task.targets[0]])
        here = observations.places(building, self.target_grid, sample, epoch) & heard
        return {
            name: np.where(here, observations.read(name, known[name], sample, epoch), np.nan)
            for name in self.task.targets
        }

    def read_static(self) -> NDArray[np.float32]:
        return np.zeros((0, *self.target_grid.shape), np.float32)

    def _narrow(self, role: str, numbers: list[int]) -> None:
        """Channels are picked by name as they are made."""


class TaskLoader(BlockLoader):
    """A block loader that passes the epoch to its source, for observations that change with it."""

    def __iter__(self) -> Iterator[Batch]:
        for source in self.sources:
            assert isinstance(source, TaskSource)
            source.epoch[0] = self.epoch
        return super().__iter__()

    def sample_of(self, item_id: int) -> int:
        """The index in the store of the map of an item."""
        return self.locate(item_id)[1]


def loader(
    store: str | os.PathLike[str],
    samples: slice | Iterable[int] | NDArray[Any] | None,
    task: Task,
    *,
    batch_size: int,
    patch: int | tuple[int, int, int] | None = None,
    patches_per_sample: int = 1,
    shuffle: bool = True,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> TaskLoader:
    """Batches of a task over samples of a store, already encoded: see `Task` and `geoml.data.loader.BlockLoader`.

    `mask` is True where a target is valid: outdoors, with a path, above the threshold. `patch` is the horizontal edge
    of crops with all layers, or one number per axis z, y, x; None takes full maps.
    """
    source = TaskSource(store, task, samples)
    if task.observations is not None and task.observations.fresh:
        source.epoch.share_memory_()
    spec = None
    if patch is not None:
        layers = source.target_grid["z"].size
        size = (layers, patch, patch) if isinstance(patch, int) else tuple(patch)
        spec = PatchSpec(size, None, halo=0)
    return TaskLoader(
        [source], batch_size=batch_size, patch=spec, patches_per_sample=patches_per_sample, shuffle=shuffle, seed=seed,
        workers=workers, rank=rank, world_size=world_size,
    )  # fmt: skip


def _stack(rows: list[Array]) -> Stack:
    values = np.stack(rows, axis=1).astype(np.float32, copy=False)
    return Stack(tuple(range(len(values))), values, (None,) * len(values))


def _layers(grid: Grid, heights: tuple[float, ...] | None, store: MapStore) -> tuple[list[int], Grid]:
    """Indices of the layers at these heights, and the grid of these layers."""
    z = grid["z"]
    if heights is None:
        return list(range(z.size)), grid
    found = np.rint((np.asarray(heights) - z.start) / z.step).astype(int)
    there = (found >= 0) & (found < z.size) & np.isclose(z.start + z.step * found, heights, atol=1e-3)
    if not there.all():
        lacking = ", ".join(f"{height:g}" for height in np.asarray(heights)[~there])
        raise UserError(f"{store} has no layer at {lacking} m; there are {z.size} from {z.start:g} by {z.step:g} m")
    steps = np.diff(found)
    if (steps <= 0).any() or len(set(steps.tolist())) > 1:
        raise DataError(f"heights {list(heights)} must ascend in equal steps")
    step = z.step * (int(steps[0]) if len(steps) else 1)
    chosen = Axis("z", float(heights[0]), step, len(found), z.units, z.registration)
    return found.tolist(), Grid((chosen, *grid.axes[1:]), grid.crs)

"""Training of one model of radio maps on the maps of a store."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.models.base import Model
from geoml.models.predictor import load_predictor
from geoml.runs.files import read_json, write_json
from geoml.train import Trainer, train
from geoml.train.checkpoint import chosen, start_from
from geoml.train.device import ProcessGroup, choose_device, process_group, world
from geoml.train.memory import available_memory, training_memory
from radiomaps.maps.store import MapStore
from radiomaps.models import build
from radiomaps.models.corrdiff3d import CorrDiff3D
from radiomaps.models.gating import GATE_FILE, described, fit_gate
from radiomaps.models.radiodiff3d import RadioDiff3D
from radiomaps.models.symmetry import corner, flip_error
from radiomaps.tasks import Task
from radiomaps.tasks.augment import Flips
from radiomaps.tasks.dataset import TaskLoader, TaskSource, loader
from radiomaps.tasks.splits import some_of
from radiomaps.trained import GRID_FILE, TASK_FILE, identity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geoml.train.loop import MetricsSink

__all__ = [
    "Recipe",
    "fit",
    "training_loader",
]

logger = logging.getLogger(__name__)

ALONE = ProcessGroup()
Parts = Mapping[str, "NDArray[Any] | Sequence[int]"]


@dataclass(frozen=True)
class Recipe:
    """Options of a training, in addition to the model and its maps.

    `patch` is the horizontal edge of training crops in voxels, or their size along z, y, x (None for complete maps),
    with `patches_per_sample` crops per map. `augment` applies a random one of the 8 symmetries of a square to each.
    `validation_samples` is the number of validation maps, evenly spread over their part.
    """

    trainer: Trainer
    batch_size: int = 8
    patch: int | tuple[int, int, int] | None = None
    patches_per_sample: int = 1
    workers: int = 0
    augment: bool = True
    validation_samples: int = 64

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("patches_per_sample", 1), ("patch", 0), ("validation_samples", 0)):
            value = getattr(self, name)
            if name == "patch" and isinstance(value, Sequence) and not isinstance(value, str):
                if len(value) != 3 or min(map(int, value)) < 1:
                    raise UserError(f"loader.patch={list(value)}; expected voxels along z, y, x, each 1 or more")
                object.__setattr__(self, "patch", tuple(map(int, value)))
            elif value is not None and int(value) < least:
                raise UserError(f"loader.{name}={value}; expected a whole number, {least} or more")
        object.__setattr__(self, "patch", self.patch or None)


def fit(
    model: str | Mapping[str, Any],
    task: Task,
    store: str | os.PathLike[str],
    parts: Parts,
    *,
    recipe: Recipe,
    folder: Path,
    seed: int = 0,
    log: MetricsSink | None = None,
    watch: Callable[[Model, int], None] | None = None,
    allow: Sequence[str] = (),
    start: Path | None = None,
) -> dict[str, Any]:
    """Train a model and write it to `folder`; returns cost and result of the training.

    `model` is an argument of `radiomaps.models.build`, `parts` the samples of the store by part: "train", and
    optionally "validation". An interrupted training resumes from its newest checkpoint. Processes started by `torchrun`
    train together, each on its share of the maps, with the result of a single process. The memory that the training
    needs is logged before it starts. `watch` is that of `geoml.train.train`. `start`, a run or checkpoint of the same
    model and task, provides the initial weights.
    """
    with process_group():
        maps = MapStore.open(store)
        return _fit(
            model, task, maps, parts, recipe, Path(folder), seed, log=log, watch=watch, allow=allow, start=start
        )


def _fit(
    entry: str | Mapping[str, Any],
    task: Task,
    store: MapStore,
    parts: Parts,
    recipe: Recipe,
    folder: Path,
    seed: int,
    *,
    log: MetricsSink | None,
    watch: Callable[[Model, int], None] | None,
    allow: Sequence[str],
    start: Path | None,
) -> dict[str, Any]:
    if not len(parts.get("train", ())):
        found = ", ".join(f"{name}: {len(numbers)}" for name, numbers in parts.items())
        raise UserError(f"part train of {store} has no map (maps by part: {found}); change split.parts")
    group = world()
    built = build(entry, task.channels, allow=allow, seed=seed)
    if start is not None:
        start_from(built, start)
    with group.first_alone():  # the first process computes a prior next to the store, the others read it
        batches = training_loader(store, task, parts["train"], recipe, seed=seed)
        _require_same_task(task, folder)
        write_json(folder / GRID_FILE, _window_of(batches))
    if group.size > 1:
        batches = training_loader(store, task, parts["train"], recipe, seed=seed, group=group)
        if batches.blocks < 4 * group.size and group.rank == 0:
            logger.warning("%d blocks of maps are few for %d processes: some will wait", batches.blocks, group.size)
    config = replace(recipe.trainer, seed=seed)
    if group.rank == 0:
        _state_memory(built, store, task, parts["train"][0], config, recipe, batches)
    transforms = identity(task)
    validation = _validation(store, task, parts.get("validation", ()), recipe)
    result = train(
        built, transforms, batches, config=config, folder=folder, validation=validation, log=log, watch=watch
    )
    if group.rank == 0 and validation is not None:
        _gate(chosen(folder), validation, folder, allow)  # of the weights that are loaded
    shown = validation if validation is not None else loader(store, [int(parts["train"][0])], task, batch_size=1)
    return {
        "parameters": sum(p.numel() for p in built.parameters()),
        "samples_seen": result.samples,
        "seconds": result.seconds,
        "validation_loss": result.validation,
        "flip_error": _flip_error(result.checkpoint, next(iter(shown)), allow),
        "memory_bytes_loader": batches.memory_bytes(),
    }


def _gate(checkpoint: Path, validation: TaskLoader, folder: Path, allow: Sequence[str]) -> None:
    """Fit the gate of a model that has one on the validation maps, and write it next to the checkpoints."""
    model = load_predictor(checkpoint, device="cpu", allow=allow).model
    if isinstance(model, CorrDiff3D):
        write_json(folder / GATE_FILE, described(fit_gate(model, validation), model.channels.target))


def _flip_error(checkpoint: Path, batch: Batch, allow: Sequence[str]) -> float | None:
    """Deviation of the averaged weights from equivariance under mirror images, on the corner of a map.

    None for models that sample layers in groups.
    """
    model = load_predictor(checkpoint, device="cpu", allow=allow).model
    if isinstance(model, RadioDiff3D) and model.layers_at_once is not None:
        return None
    first = batch.map(condition=batch.condition[:1], target=None, mask=None, ids=tuple(batch.ids[:1]))
    return flip_error(model, corner(first))


def training_loader(
    store: str | os.PathLike[str],
    task: Task,
    samples: NDArray[Any] | Sequence[int],
    recipe: Recipe,
    *,
    seed: int = 0,
    group: ProcessGroup = ALONE,
) -> TaskLoader:
    """Shuffled crops or complete maps; with `augment`, each in a symmetry keyed on (seed, epoch, item)."""
    made = loader(
        store,
        list(map(int, samples)),
        task,
        batch_size=recipe.batch_size,
        patch=recipe.patch,
        patches_per_sample=recipe.patches_per_sample if recipe.patch else 1,
        seed=seed,
        workers=recipe.workers,
        rank=group.rank,
        world_size=group.size,
    )
    if recipe.augment:
        flips = Flips(task.channels, seed=seed)

        def turned(batch: Batch) -> Batch:
            flips.epoch = made.epoch
            return flips(batch)

        made.transform = turned
    return made


def _window_of(batches: TaskLoader) -> dict[str, Any]:
    """Steps and heights of the maps, as fields of `radiomaps.generation.plan.Window`."""
    source = batches.sources[0]
    assert isinstance(source, TaskSource)
    z, y, _ = source.target_grid.axes
    heights = [float(value) for value in (z.start, z.start + z.step * (z.size - 1), z.step)]
    return {"step_m": float(y.step), "heights_m": heights, "above_ground": source.above_ground}


def _validation(
    store: MapStore, task: Task, samples: NDArray[Any] | Sequence[int], recipe: Recipe
) -> TaskLoader | None:
    """Validation maps, or crops if the training uses crops, evenly spread and the same in every epoch."""
    if not len(samples) or recipe.validation_samples < 1:
        return None
    chosen = some_of(samples, recipe.validation_samples)
    steady = task
    if task.observations is not None and task.observations.fresh:
        steady = task.changed(observations=replace(task.observations, fresh=False))
    return loader(store, chosen, steady, batch_size=recipe.batch_size, patch=recipe.patch, shuffle=False)


def _require_same_task(task: Task, folder: Path) -> None:
    """Write the task next to the checkpoints, for loading; refuse to resume with another task."""
    path = folder / TASK_FILE
    if path.exists():
        if read_json(path) != task.describe():
            raise UserError(f"{folder} holds a training of another task; choose another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, task.describe())


def _state_memory(
    built: Model, store: MapStore, task: Task, sample: int, config: Trainer, recipe: Recipe, batches: TaskLoader
) -> None:
    """Log the memory that the training needs before it starts, and warn if the device has less."""
    from geoml.train.device import to_channels_last

    device = choose_device(config.device)
    probe = next(iter(loader(store, [int(sample)], task, batch_size=1, patch=recipe.patch, shuffle=False)))
    if config.channels_last:
        to_channels_last(built)
    precision = config.precision if device.type != "cpu" or config.precision != "fp16" else "fp32"
    needed = training_memory(built.to(device), probe, batch_size=recipe.batch_size, precision=precision)
    logger.info("training needs about %s on %s, and %.2f GB to read maps", needed, device, batches.memory_bytes() / 1e9)
    there = available_memory(device)
    if there is not None and needed.total > 0.9 * there:
        logger.warning(
            "%s has %.2f GB; take a smaller batch_size or patch, model.network.recompute=true, trainer.precision=bf16",
            device, there / 1e9,
        )  # fmt: skip

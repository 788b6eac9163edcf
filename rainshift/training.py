"""Train one downscaler on a set of regions."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.cli.config import instantiate
from geoml.data.loader import BlockLoader
from geoml.data.patches import PatchSpec
from geoml.data.transforms import Transforms
from geoml.errors import DataError, UserError
from geoml.models.base import Channels, Model
from geoml.models.predictor import Predictor, load_predictor
from geoml.runs.files import read_json, write_json
from geoml.runs.folder import RunFolder, plain
from geoml.train import Trainer, train
from geoml.train.checkpoint import chosen, start_from
from geoml.train.device import Precision, ProcessGroup, process_group, world
from geoml.train.tensorboard import log_of
from rainshift.baselines import Baseline
from rainshift.data.archive import Archive, archive_of
from rainshift.data.geometry import Geometry
from rainshift.data.selection import FIELDS_AT_A_TIME, choose
from rainshift.data.settings import note_trained
from rainshift.models.general import weights_of
from rainshift.models.spec import Downscaler, ModelSpec, Windowed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from geoml.train.loop import MetricsSink

logger = logging.getLogger(__name__)

__all__ = ["Recipe", "TrainSet", "fit", "load", "load_trained", "loader_of", "seeded_build", "started", "train_run"]

ALONE = ProcessGroup()
BASELINE_FILE = "baseline.json"
#: File next to the checkpoints of a model over time, with its number of consecutive hours.
WINDOW_FILE = "window.json"


@dataclass(frozen=True, order=True)
class TrainSet:
    """Regions whose training samples are pooled: `samples` in total, in equal shares."""

    regions: tuple[str, ...]
    samples: int

    @property
    def name(self) -> str:
        """Names of the regions joined by `+`. Sets with equal regions have the same name."""
        return "+".join(self.regions)

    def share(self, region: str) -> int:
        """Return the number of samples from `region`: equal shares; the first regions get the remainder.

        >>> [TrainSet(("a", "b", "c"), 8).share(region) for region in "abc"]
        [3, 3, 2]
        """
        position = self.regions.index(region)
        each, rest = divmod(self.samples, len(self.regions))
        return each + (position < rest)


@dataclass(frozen=True)
class Recipe:
    """Settings of a training, except the model and the regions.

    Attributes:
        trainer: optimiser settings and number of samples.
        transforms: configuration of `geoml.data.transforms`.
        batch_size: number of patches per batch.
        patch: side of the training patches in fine cells; 0 for complete fields.
        patches_per_sample: number of patches per hour.
        workers: number of loader processes.
        validation_samples: number of validation hours per region.

    Raises `UserError` for numbers out of range.
    """

    trainer: Trainer
    transforms: Mapping[str, Any]
    batch_size: int = 16
    patch: int = 64
    patches_per_sample: int = 1
    workers: int = 0
    validation_samples: int = 48

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("patches_per_sample", 1), ("patch", 0), ("validation_samples", 0)):
            if (value := getattr(self, name)) is not None and int(value) < least:
                raise UserError(f"loader.{name}={value}; expected a whole number, {least} or more")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Recipe:
        """Return the recipe in a command's configuration: its `trainer`, `transforms` and `loader`."""
        return cls(instantiate(config["trainer"]), plain(config["transforms"]), **plain(config["loader"]))


def train_run(config: Mapping[str, Any], run: RunFolder) -> dict[str, Any]:
    """Run the training of a configuration of `rainshift train` in its run folder. Returns the summary.

    Processes started by `torchrun` train together.
    """
    if config["start"]:
        chosen(_started(config["start"]))  # detects an invalid checkpoint before data are prepared
    archive = archive_of(config)
    names = tuple(sorted(archive.among(config["train_regions"])))
    if not names:
        raise UserError("train_regions is empty; add at least one region, or remove it and set region=NAME")
    with process_group() as group:
        with group.first_alone():
            for name in names:
                for split in archive.splits:
                    archive.prepare(name, split)
        return _train_prepared(config, run, archive, names)


def _started(name: Any) -> Path:
    """Return the run, checkpoint or shipped weights in the setting `start`."""
    return weights_of(str(name)) or Path(str(name))


def _train_prepared(
    config: Mapping[str, Any], run: RunFolder, archive: Archive, names: tuple[str, ...]
) -> dict[str, Any]:
    counts = [len(archive.samples(name, "train")[1]) for name in names]
    limit = config["train_samples"]
    each = min(counts if limit is None else [*counts, int(limit)])
    spec = ModelSpec.of({**plain(config["model"]), "window": config["window"]}, allow=config["allow_targets"])
    if not spec.learns:
        raise UserError(f"{spec.name} needs no training; `rainshift benchmark` scores it along with trained models")
    if run.finished:
        return run.summary
    summary = fit(
        spec,
        TrainSet(names, each * len(names)),
        archive,
        recipe=Recipe.of(config),
        seed=int(config["seed"]),
        folder=run.checkpoints,
        log=log_of(run, tensorboard=bool(config["run"]["tensorboard"])),
        start=_started(config["start"]) if config["start"] else None,
    )
    row = {"model": spec.name, "regions": "+".join(names), **summary, "run": str(run.path)}
    run.write_summary(row)
    return row


def fit(
    spec: ModelSpec,
    train_set: TrainSet,
    archive: Archive,
    *,
    recipe: Recipe,
    seed: int,
    folder: Path,
    log: MetricsSink | None = None,
    start: Path | None = None,
    hours: Mapping[str, NDArray[np.int64]] | None = None,
) -> dict[str, Any]:
    """Train a downscaler and save it in `folder`. Returns its cost and final losses.

    An interrupted training resumes from its newest checkpoint. Processes started by `torchrun` train together, each on
    a part of the data, with the same result as a single process. The transforms are fitted to the training regions
    only. `start`, a run or checkpoint of the same model, provides the initial weights and the transforms. `hours`
    contains the positions of the training hours of each region; by default they are evenly spaced.
    """
    with process_group():
        return _fit(spec, train_set, archive, hours, recipe=recipe, seed=seed, folder=folder, log=log, start=start)


def _fit(
    spec: ModelSpec,
    train_set: TrainSet,
    archive: Archive,
    hours: Mapping[str, NDArray[np.int64]] | None,
    *,
    recipe: Recipe,
    seed: int,
    folder: Path,
    log: MetricsSink | None,
    start: Path | None,
) -> dict[str, Any]:
    channels, group, window = archive.channels, world(), spec.window
    built = seeded_build(spec, channels, seed)
    positions = hours or _spread(train_set, archive, window)
    loader = loader_of(positions, archive, channels, recipe, seed=seed, window=window)
    if isinstance(built, Baseline):
        if group.size > 1:
            raise UserError(f"{spec.name} is fitted by a single process; run the command without torchrun")
        if start is not None:
            raise UserError(f"{spec.name} is fitted in one step and has no initial weights; remove start")
        summary = _fit_baseline(built, loader, folder)
        Geometry.of(archive, train_set.regions[0]).save(folder)
        return summary
    with group.first_alone():
        transforms = started(built, start, recipe, loader, folder)
        if window:
            write_json(folder / WINDOW_FILE, {"hours": window})
    loader = loader_of(positions, archive, channels, recipe, seed=seed, window=window, group=group)
    if group.size > 1 and loader.blocks < 4 * group.size and group.rank == 0:
        logger.warning("%d blocks of hours are too few for %d processes: some will idle", loader.blocks, group.size)
    validation = _validation(train_set, archive, channels, recipe, window)
    if group.rank == 0:
        Geometry.of(archive, train_set.regions[0]).save(folder)
        note_trained(folder, archive, train_set.regions, list(positions.values()))
    config = replace(recipe.trainer, seed=seed)
    result = train(built, transforms, loader, config=config, folder=folder, validation=validation, log=log)
    return {
        "parameters": sum(p.numel() for p in built.parameters()),
        "samples_seen": result.samples,
        "seconds": result.seconds,
        "validation_loss": result.validation,
        "memory_bytes_loader": loader.memory_bytes(),
    }


def started(model: Model, start: Path | None, recipe: Recipe, loader: BlockLoader, folder: Path) -> Transforms:
    """Load the weights of `start`, if any. Returns its transforms, or transforms fitted to `loader`.

    Weights for any predictors have fixed scales: their transforms are identities, without the bounds of training
    values, since few local hours may be dry. Raises `UserError` for other transforms with such weights.
    """
    if start is None:
        return _fitted_transforms(recipe, model.channels, loader, folder)
    chosen_start = start_from(model, start)
    if not getattr(model, "any_channels", False):
        return Transforms.load(chosen_start / "transform.json")
    made = Transforms.from_config(_options(recipe, model.channels), model.channels)
    if other := {each.kind for role in (made.condition, made.target, made.static) for each in role} - {"identity"}:
        raise UserError(
            f"{start} was trained on physical fields, and the transforms are {', '.join(sorted(other))}; set "
            "transforms=physical"
        )
    return made


def load(spec: ModelSpec, folder: Path | None, channels: Channels, *, precision: Precision = "fp32") -> Downscaler:
    """Load the downscaler that `fit` saved in `folder`. `folder` is None for a baseline without training."""
    built = spec.build(channels)
    if isinstance(built, Baseline):
        if built.learns:
            if folder is None:
                raise ValueError(f"{spec.name} is fitted to data; pass the folder of its fit")
            built.load_state(read_json(folder / BASELINE_FILE))
        return built
    if folder is None:
        raise ValueError(f"{spec.name} is a trained model; pass the folder of its training")
    return _with_window(load_predictor(folder, precision=precision, allow=spec.allow), folder)


def load_trained(path: Path, *, precision: Precision = "fp32", allow: Sequence[str] = ()) -> Downscaler:
    """Load the downscaler of a run of `rainshift train` or of a checkpoint folder. `allow` lists user packages.

    `precision` is that of the forward passes; "bf16" is faster on hardware that supports it. Raises `UserError` if
    there is no such run.
    """
    if not path.is_dir():
        raise UserError(f"{path} does not exist; expected the run folder that `rainshift train` printed")
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if (folder / BASELINE_FILE).exists():
        raise UserError(f"{path} contains a fitted baseline, which only `rainshift benchmark` can score")
    return _with_window(load_predictor(folder, precision=precision, allow=allow), folder)


def _with_window(predictor: Predictor, folder: Path) -> Downscaler:
    """Return the predictor; a model over time is wrapped with its number of consecutive hours."""
    path = next((p for p in (folder / WINDOW_FILE, folder.parent / WINDOW_FILE) if p.exists()), None)
    return predictor if path is None else Windowed(predictor, int(read_json(path)["hours"]))


def seeded_build(spec: ModelSpec, channels: Channels, seed: int) -> Model | Baseline:
    """Build the model with initial weights that depend only on the seed. The global random state is unchanged."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return spec.build(channels)


def _spread(train_set: TrainSet, archive: Archive, window: int | None) -> dict[str, NDArray[np.int64]]:
    """Return positions of training hours of each region, evenly spaced within its share."""
    return {region: choose(archive, region, "train", train_set.share(region), window) for region in train_set.regions}


def loader_of(
    positions: Mapping[str, NDArray[np.int64]],
    archive: Archive,
    channels: Channels,
    recipe: Recipe,
    *,
    seed: int,
    window: int | None,
    group: ProcessGroup = ALONE,
) -> BlockLoader:
    """Return a loader of training samples at the given positions of each region."""
    return BlockLoader(
        [archive.field_source(region, "train", chosen) for region, chosen in positions.items()],
        batch_size=recipe.batch_size,
        channels=channels,
        expected_gaps=archive.expected_gaps,
        patch=_patch(archive, tuple(positions), recipe.patch),
        patches_per_sample=recipe.patches_per_sample,
        window=window,
        seed=seed,
        workers=recipe.workers,
        rank=group.rank,
        world_size=group.size,
    )


@functools.cache
def _say_once(message: str) -> None:
    logger.warning(message)


def _patch(archive: Archive, regions: tuple[str, ...], edge: int) -> PatchSpec | None:
    """Return patches with the side of the recipe, limited by the smallest field; None for complete fields."""
    shapes = [
        archive.open(region, archive.samples(region, "train")[0])["target"]["precipitation"].shape[1:]
        for region in regions
    ]
    least = min(min(shape) for shape in shapes)
    if not edge or edge < least:
        return PatchSpec(edge) if edge else None
    if len(set(shapes)) == 1:
        _say_once(
            f"fields of {'+'.join(regions)} are not larger than patches of {edge} cells; training uses complete fields"
        )
        return None
    smaller = max(1, least // 10 * 10 or least)
    _say_once(f"patches of {edge} cells do not fit into all fields of {'+'.join(regions)}: using {smaller} cells")
    return PatchSpec(smaller)


def _validation(
    train_set: TrainSet, archive: Archive, channels: Channels, recipe: Recipe, window: int | None
) -> BlockLoader | None:
    """Return a loader of complete fields in validation hours of the training regions; None without such hours."""
    wanted = recipe.validation_samples
    if wanted < 1 or not archive.has_role("validation"):
        return None
    return BlockLoader(
        [
            archive.field_source(region, "validation", choose(archive, region, "validation", wanted, window))
            for region in train_set.regions
        ],
        batch_size=max(1, FIELDS_AT_A_TIME // (window or 1)),
        channels=channels,
        expected_gaps=archive.expected_gaps,
        window=window,
        shuffle=False,
    )


def _options(recipe: Recipe, channels: Channels) -> dict[str, Any]:
    """Return the options of the transforms of these channels."""
    known = {*channels.condition, *channels.target, *channels.static, "default"}
    return {name: options for name, options in recipe.transforms.items() if name in known}


def _fitted_transforms(recipe: Recipe, channels: Channels, loader: BlockLoader, folder: Path) -> Transforms:
    """Fit transforms to one epoch and save them in `folder`, so that a resumed training uses the same."""
    path = folder / "transform.json"
    if path.exists():
        return Transforms.load(path)
    transforms = Transforms.from_config(_options(recipe, channels), channels).fit(loader)
    folder.mkdir(parents=True, exist_ok=True)
    transforms.save(path)
    return transforms


def _fit_baseline(baseline: Baseline, loader: BlockLoader, folder: Path) -> dict[str, Any]:
    if not baseline.learns:
        raise DataError("this baseline has no training; use it without a fit")
    baseline.fit(loader)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BASELINE_FILE, baseline.state())
    return {"parameters": 0, "samples_seen": loader.items}

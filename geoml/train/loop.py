"""The training loop: explicit, counted in samples, resumed bit for bit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from geoml.cli.progress import progress_bar
from geoml.data.fields import Batch
from geoml.errors import DataError, Diverged, unknown
from geoml.models.base import Model, Phase
from geoml.models.noise import seed_of
from geoml.train import checkpoint
from geoml.train.device import autocast, choose_device, compile_networks, process_group, to_channels_last, world
from geoml.train.ema import EMA
from geoml.train.interrupt import Interrupt
from geoml.train.schedule import learning_rate
from geoml.train.trainer import Trainer, optimiser_of
from geoml.train.validation import known_cells, validation_loss

if TYPE_CHECKING:
    from geoml.data.transforms import Transforms

__all__ = ["Loader", "MetricsSink", "Result", "Trainer", "train"]

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """The protocol of a loader: an iteration is one epoch, and the state is the position in it."""

    def __iter__(self) -> Iterator[Batch]: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class MetricsSink(Protocol):
    """The protocol of a log of metrics; see `geoml.runs.folder.MetricsLog`."""

    def append(self, row: Mapping[str, Any], /) -> None: ...
    def keep_until(self, samples: int) -> None: ...


@dataclass(frozen=True)
class Result:
    """Training result: the checkpoint and the losses (None if not measured)."""

    checkpoint: Path
    samples: int
    seconds: float
    loss: float | None
    validation: float | None
    stopped_early: bool = False


def train(
    model: Model,
    transforms: Transforms,
    loader: Loader,
    *,
    config: Trainer,
    folder: Path,
    validation: Iterable[Batch] | None = None,
    log: MetricsSink | None = None,
    watch: Callable[[Model, int], None] | None = None,
) -> Result:
    """Train `model` until `config.samples` have been seen, resuming from the newest checkpoint in `folder`.

    On a CPU, k and then N − k steps equal N steps bit for bit: checkpoints hold the optimisers', the loader's and the
    generators' states, and random numbers are keyed on (seed, step, sample ids). Ctrl-C and SIGTERM finish the step,
    write a checkpoint and raise `KeyboardInterrupt`.

    Under `torchrun` each process trains on its part of every batch (a loader with its rank) and all take the step that
    one process would take on the full batch: gradients are weighted by the number of known target cells. The first
    process writes checkpoints and log. All processes must see the same folder. After each validation the first process
    calls `watch` with the averaged model and the number of samples seen, for example to draw predictions.

    Raises `Diverged` if a loss or gradient is not finite (with step, phase and samples), `UserError` if the checkpoint
    has another architecture, and `DataError` if no checkpoint in `folder` is valid.
    """
    with process_group():
        run = _Run(model, transforms, loader, config=config, folder=Path(folder), validation=validation, log=log)
        run.watch = watch if run.world.rank == 0 else None
        with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []), Interrupt() as interrupt:
            run.resume()
            return run.until_done(interrupt)


class _Run:
    """State of one call of `train`, as saved in a checkpoint."""

    def __init__(
        self,
        model: Model,
        transforms: Transforms,
        loader: Loader,
        *,
        config: Trainer,
        folder: Path,
        validation: Iterable[Batch] | None,
        log: MetricsSink | None,
    ) -> None:
        self.config, self.folder, self.validation, self.world = config, folder, validation, world()
        self.log = log if self.world.rank == 0 else None
        self.device = choose_device(config.device)
        self.model, self.transforms, self.loader = model.to(self.device), transforms, loader
        if config.channels_last:
            to_channels_last(model)
        self.ema = EMA(model, half_life=config.ema_half_life)
        self.phases = tuple(model.phases())
        for name in config.phases:
            if name not in {phase.name for phase in self.phases}:
                raise unknown("phase", name, [phase.name for phase in self.phases])
        self.moving = {phase.name: [p for p in phase.parameters if p.requires_grad] for phase in self.phases}
        self.optimisers = {phase.name: optimiser_of(phase, config) for phase in self.phases}
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        autocast(self.device, config.precision)  # fail now rather than after reading the data
        if config.compile:
            compile_networks(model, self.device)
        self.samples = self.step = self.epoch = 0
        self.least, self.bad_validations, self.last_validation = math.inf, 0, math.nan
        self.batches: Iterator[Batch] | None = None
        self.watch: Callable[[Model, int], None] | None = None
        self.meter = _Meter()

    # -- the state that a checkpoint holds

    def resume(self) -> None:
        """Resume from the newest valid checkpoint, if there is one."""
        self.world.share([*self.model.parameters(), *self.model.buffers()])
        path = checkpoint.latest(self.folder)
        if path is None:
            self.require_together()
            if self.log is not None:  # rows of a run that was killed before its first checkpoint
                self.log.keep_until(0)
            return
        checkpoint.load_weights(self.model, path / "model.safetensors")
        checkpoint.load_weights(self.ema.model, path / "ema.safetensors")
        state = checkpoint.load_resume(path)
        try:
            for name, optimiser in self.optimisers.items():
                optimiser.load_state_dict(state["optimisers"][name])
            self.scaler.load_state_dict(state["scaler"])
            self.loader.load_state_dict(state["loader"])
            self.samples, self.step, self.epoch = state["samples"], state["step"], state["epoch"]
            self.least, self.bad_validations, self.last_validation = state["validation"]
            torch.set_rng_state(state["rng"])
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path / 'resume.pt'} does not fit this run ({error!r})") from error
        self.require_together()
        self.batches = iter(self.loader)
        if self.log is not None:
            self.log.keep_until(self.samples)
        logger.info("resuming from %s", path)

    def require_together(self) -> None:
        """Raise an error if processes found different checkpoints, because their folders differ."""
        total = self.world.sum(torch.tensor(self.samples, dtype=torch.int64, device=self.device))
        if int(total) != self.samples * self.world.size:
            raise DataError(f"{self.folder} is not the same for all processes; choose a folder that all of them see")

    def save(self) -> Path:
        """Write a checkpoint of the state after the latest step; only the first process does."""
        if self.world.rank > 0:
            return self.folder / checkpoint.name_of(self.samples)
        state = {
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "scaler": self.scaler.state_dict(),
            "loader": self.loader.state_dict(),
            "samples": self.samples,
            "step": self.step,
            "epoch": self.epoch,
            "validation": (self.least, self.bad_validations, self.last_validation),
            "rng": torch.get_rng_state(),
        }
        path = checkpoint.save(
            self.folder / checkpoint.name_of(self.samples),
            model=self.model,
            ema=self.ema.model,
            transforms=self.transforms,
            resume=state,
            trainer=asdict(self.config),
        )
        checkpoint.prune(self.folder, keep=self.config.keep)
        return path

    # -- one step

    def next_batch(self) -> Batch:
        """Return the next batch, in transformed space on the device; starts a new epoch after the last batch."""
        fresh = False
        while True:
            if self.batches is None:
                self.loader.set_epoch(self.epoch)
                self.batches, fresh = iter(self.loader), True
            batch = next(self.batches, None)
            if batch is not None:
                return self.transforms.forward(batch.to(self.device))
            if fresh:
                raise DataError("the loader gave no batch in an epoch; are there fewer samples than the batch size?")
            self.batches, self.epoch = None, self.epoch + 1

    def take_step(self) -> dict[str, float]:
        """Run all phases; returns the numbers to log."""
        row: dict[str, float] = {}
        for phase in self.phases:
            self.let_move(phase)
            for repeat in range(phase.repeats):
                suffix = "" if len(self.phases) == 1 else f"_{phase.name}"
                loss, norm, rate = self.turn(phase, repeat)
                row |= {f"loss{suffix}": loss, f"gradient_norm{suffix}": norm, f"learning_rate{suffix}": rate}
        self.step += 1
        return row

    def let_move(self, phase: Phase) -> None:
        """Enable gradients for the parameters of this phase only."""
        if len(self.phases) > 1:
            for name in (*self.moving, phase.name):  # shared parameters are updated in every phase that lists them
                for parameter in self.moving[name]:
                    parameter.requires_grad_(name == phase.name)

    def turn(self, phase: Phase, repeat: int) -> tuple[float, float, float]:
        """One update of a phase's parameters: (loss, gradient norm before clipping, learning rate)."""
        config, optimiser = self.config, self.optimisers[phase.name]
        optimiser.zero_grad(set_to_none=True)
        total, ids = 0.0, []
        for part in range(config.accumulate):
            batch = self.next_batch()
            ids += list(batch.ids)
            key = (config.seed, self.step, phase.name, repeat, part)
            # Dropout draws from the global generator, which `train` restores; processes must draw different numbers.
            torch.manual_seed(seed_of(*key, *map(int, batch.ids)))
            # `sample_noise` depends only on this seed and the sample, not on the process.
            generator = torch.Generator(self.device).manual_seed(seed_of(*key))
            value = self.add_gradient(batch, phase, generator)
            self.require_finite("loss", value, phase, ids)
            total += value
        self.world.sum_gradients(phase.parameters)
        self.scaler.unscale_(optimiser)
        norm = torch.nn.utils.clip_grad_norm_(phase.parameters, config.clip if config.clip > 0 else math.inf)
        if not self.scaler.is_enabled():  # in fp16 the scaler skips the step and scales down instead
            self.require_finite("gradient norm", float(norm), phase, ids)
        rate = learning_rate(
            self.samples,
            peak=config.option(phase, "learning_rate"),
            total=config.samples,
            warmup=config.warmup * config.samples,
            floor=config.floor,
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        self.scaler.step(optimiser)
        self.scaler.update()
        return total, float(norm), rate

    def add_gradient(self, batch: Batch, phase: Phase, generator: torch.Generator) -> float:
        """Accumulate the gradient of a batch's loss divided by `accumulate`, and return that loss.

        With several processes each adds its share of the total loss, and all return the total.
        """
        known, loss = known_cells(batch), None
        if self.world.size == 1 or known:
            with autocast(self.device, self.config.precision):
                loss = self.model.loss(batch, phase=phase.name, generator=generator) / self.config.accumulate
        value = 0.0 if loss is None else loss.item()
        everywhere = torch.tensor([len(batch), known, known * value], dtype=torch.float64)
        counts = self.world.sum(everywhere.to(self.device, torch.float32 if self.device.type == "mps" else None))
        samples, cells, weighted = counts.tolist()
        self.samples += int(samples)
        if self.world.size > 1:
            value = weighted / max(cells, 1.0)
            loss = None if loss is None else loss * (known / cells)
        if loss is not None and math.isfinite(value):
            self.scaler.scale(loss).backward()
        return value

    def require_finite(self, what: str, value: float, phase: Phase, ids: list[int]) -> None:
        """Raise `Diverged` if a value is not finite, with step, phase and samples."""
        if not math.isfinite(value):
            shown = ", ".join(map(str, ids[:16])) + (", …" if len(ids) > 16 else "")
            raise Diverged(
                f"{what} is {value} at step {self.step}, phase {phase.name!r}, samples [{shown}]; "
                "lower trainer.learning_rate, or look at these samples' data"
            )

    # -- the loop

    def until_done(self, interrupt: Interrupt) -> Result:
        """Step, log, validate and save until all samples are seen."""
        config, start = self.config, time.perf_counter()
        loss: float | None = None
        stopped = self.out_of_patience
        self.model.train()
        with progress_bar("training", max(config.samples - self.samples, 0), unit="samples") as bar:
            while self.samples < config.samples and not stopped:
                before, began = self.samples, time.perf_counter()
                try:
                    row = self.take_step()
                    self.hear(interrupt)
                except RuntimeError as error:
                    if interrupt.came:  # a terminal's Ctrl-C ends the loader's processes too, perhaps within a step
                        raise KeyboardInterrupt("stopped within a step; the newest checkpoint is kept") from error
                    raise
                self.ema.update(self.model, batch=self.samples - before, samples=self.samples)
                loss = row.get("loss", row.get(f"loss_{self.phases[-1].name}"))
                bar.advance(self.samples - before, note=f"loss {loss:.4g}")
                self.meter.add(row, self.samples - before, time.perf_counter() - began)
                done = self.samples >= config.samples
                if done or _passed(before, self.samples, config.log_every):
                    self.write(self.meter.row())
                    self.meter = _Meter()
                is_best = False
                if done or _passed(before, self.samples, config.validate_every):
                    is_best, stopped = self.validate()
                if is_best or done or stopped or _passed(before, self.samples, config.checkpoint_every):
                    path = self.save()
                    if is_best:
                        checkpoint.mark_best(self.folder, path, self.least)
                if interrupt.came:
                    self.save()
                    raise KeyboardInterrupt(
                        f"stopped after {self.samples} samples; the same command resumes from there"
                    )
        path = self.save()
        self.world.wait()
        value = None if math.isnan(self.last_validation) else self.last_validation
        return Result(path, self.samples, time.perf_counter() - start, loss, value, stopped_early=stopped)

    def hear(self, interrupt: Interrupt) -> None:
        """Stop all processes after the same step if one of them received a signal."""
        if self.world.size > 1:
            interrupt.came = bool(self.world.sum(torch.tensor(int(interrupt.came), device=self.device)))

    def write(self, row: Mapping[str, float]) -> None:
        if self.log is not None:
            self.log.append({"samples": self.samples, "step": self.step, "epoch": self.epoch, **row})

    def validate(self) -> tuple[bool, bool]:
        """Validate; returns (True if the loss is the smallest so far, True if patience is exhausted)."""
        if self.validation is None:
            return False, False
        self.last_validation = validation_loss(
            self.ema.model, self.transforms, self.validation, phase=self.phases[-1].name, seed=self.config.seed
        )
        self.write({"validation_loss": self.last_validation})
        improved = self.last_validation < self.least
        self.least = min(self.least, self.last_validation)
        self.bad_validations = 0 if improved else self.bad_validations + 1
        if self.watch is not None:
            self.watch(self.ema.model, self.samples)
        return improved, self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Return whether validation has not improved within the configured patience."""
        return 0 < self.config.patience <= self.bad_validations


def _passed(before: int, after: int, every: int) -> bool:
    """Return whether a multiple of `every` lies in (before, after]."""
    return every > 0 and after // every > before // every


class _Meter:
    """Means over steps, and samples per second of training."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps, self.samples, self.seconds = 0, 0, 0.0

    def add(self, row: Mapping[str, float], samples: int, seconds: float) -> None:
        for name, value in row.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps, self.samples, self.seconds = self.steps + 1, self.samples + samples, self.seconds + seconds

    def row(self) -> dict[str, float]:
        means = {name: value / self.steps for name, value in self.sums.items()}
        return {**means, "samples_per_s": self.samples / max(self.seconds, 1e-9)}

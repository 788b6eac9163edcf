"""Training: resumed bit for bit, stopped with the place named, each option doing what it says."""

from __future__ import annotations

import hashlib
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from geoml.models.base import Channels, Model, Phase
from geoml.models.registry import build
from geoml.runs.files import sha256
from geoml.runs.folder import MetricsLog
from geoml.testing import toy_batch
from geoml.train import Trainer, checkpoint, train
from geoml.train.device import to_channels_last
from geoml.train.ema import EMA
from geoml.train.loop import validation_loss
from geoml.train.schedule import learning_rate

sys.path.insert(0, str(Path(__file__).parent))
from toy import CHANNELS, Halving, MemoryLoader, run, toy_model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in one order: what several threads give is not the same bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digest(path: Path) -> str:
    """Hash of everything that goes on from a checkpoint."""
    state = checkpoint.load_resume(path)
    parts = [sha256(path / "model.safetensors"), sha256(path / "ema.safetensors")]
    for name, value in sorted(state.items()):
        parts.append(name + "".join(_walk(value)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _walk(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _walk(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item)
    else:
        yield str(value.tolist() if isinstance(value, Tensor) else value)


class SignallingLoader(MemoryLoader):
    """Sends this process a signal with its n-th batch."""

    def __init__(self, at: int, number: signal.Signals = signal.SIGINT) -> None:
        super().__init__()
        self.left, self.number = at, number

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(self.number)
            yield batch


# -- resuming


@pytest.mark.parametrize(
    ("steps", "number"),  # an epoch has 4 steps
    [(1, signal.SIGINT), (4, signal.SIGINT), (5, signal.SIGTERM), (11, signal.SIGINT), (23, signal.SIGINT)],
)
@pytest.mark.fault("Ctrl-C or SIGTERM in training", "a checkpoint; the resumed state equals the uninterrupted one")
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, steps: int, number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT)  # of a shell's background job: ignored
    whole = run(tmp_path / "whole")
    config = Trainer(samples=96, log_every=8, learning_rate=1e-2, device="cpu")
    loader = SignallingLoader(steps, number)
    with pytest.raises(KeyboardInterrupt, match="resumes"):
        train(toy_model(), Halving(), loader, config=config, folder=tmp_path / "parts")
    assert [path.name for path in checkpoint.found(tmp_path / "parts")] == [checkpoint.name_of(4 * steps)]
    parts = run(tmp_path / "parts", checkpoint_every=0)
    assert parts.checkpoint.name == whole.checkpoint.name
    assert digest(parts.checkpoint) == digest(whole.checkpoint)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loader_that_dies_of_the_same_signal_is_no_crash(tmp_path: Path) -> None:
    class Dying(SignallingLoader):
        def __iter__(self) -> Iterator[Batch]:
            for batch in super().__iter__():
                if self.left == 0:
                    raise RuntimeError("worker exited unexpectedly")
                yield batch

    config = Trainer(samples=96, checkpoint_every=8, device="cpu")
    with pytest.raises(KeyboardInterrupt, match="newest checkpoint"):
        train(toy_model(), Halving(), Dying(4), config=config, folder=tmp_path)
    assert checkpoint.latest(tmp_path) == tmp_path / checkpoint.name_of(8)


def test_global_random_state_is_left_alone_and_without_influence(tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run(tmp_path / "a", 16)
    torch.randn(5)
    torch.set_rng_state(before)
    assert digest(first.checkpoint) == digest(run(tmp_path / "b", 16).checkpoint)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_matters(tmp_path: Path) -> None:
    assert digest(run(tmp_path / "a", 16).checkpoint) != digest(run(tmp_path / "b", 16, seed=1).checkpoint)


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    first = run(tmp_path, 16)
    again = run(tmp_path, 16)
    assert again.checkpoint == first.checkpoint
    assert again.loss is None


def test_the_log_has_each_row_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    config = Trainer(samples=96, log_every=8, checkpoint_every=0, device="cpu", validate_every=32)
    options: dict[str, Any] = {"folder": tmp_path / "c", "log": log, "validation": list(MemoryLoader())}
    with pytest.raises(KeyboardInterrupt):
        train(toy_model(), Halving(), SignallingLoader(7), config=config, **options)
    log.append(samples=40, loss=-1.0)  # written after the checkpoint by a run that was then killed
    train(toy_model(), Halving(), MemoryLoader(), config=config, **options)
    rows = log.rows()
    training = [row["samples"] for row in rows if "loss" in row]
    assert training == list(range(8, 97, 8))
    assert [row["samples"] for row in rows if "validation_loss" in row] == [32, 64, 96]
    assert {"samples", "step", "epoch", "loss", "gradient_norm", "learning_rate", "samples_per_s"} <= set(rows[0])


def test_rows_before_the_first_checkpoint_are_not_repeated(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append(samples=8, loss=-1.0)  # the run was killed here
    config = Trainer(samples=16, log_every=8, device="cpu")
    train(toy_model(), Halving(), MemoryLoader(), config=config, folder=tmp_path / "c", log=log)
    assert [row["samples"] for row in log.rows()] == [8, 16]
    assert all(row["loss"] > 0 for row in log.rows())


# -- what goes wrong


class PoisonLoader(MemoryLoader):
    """Sample 7 has a target that no loss survives."""

    def __init__(self) -> None:
        super().__init__()
        target = self.all.target
        assert target is not None
        target[7] = math.inf


@pytest.mark.fault("NaN loss", "stops with step, phase and samples; the checkpoint before is kept")
def test_a_loss_that_is_not_finite_stops_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loss is (inf|nan) at step \d, phase 'main', samples \[.*\b7\b.*\]"):
        train(toy_model(), Halving(), PoisonLoader(), config=Trainer(device="cpu"), folder=tmp_path)
    assert checkpoint.latest(tmp_path) is None


def test_a_loader_without_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no batch"):
        train(toy_model(), Halving(), MemoryLoader(3), config=Trainer(device="cpu"), folder=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"warmup": 2.0}, "warmup"),
        ({"precision": "fp8"}, "precision 'fp8' unknown"),
        ({"precision": "fp16"}, "CUDA"),
        ({"device": "gpu"}, "device 'gpu' unknown"),
        ({"phases": {"critic": {}}}, "phase 'critic' unknown"),
        ({"phases": {"main": {"lr": 1.0}}}, "option of phase"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, **options)


# -- options


def test_bf16_trains(tmp_path: Path) -> None:
    losses = [run(tmp_path / p, 96, precision=p).loss for p in ("fp32", "bf16")]
    assert losses[1] == pytest.approx(losses[0], rel=0.2)


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_last_changes_rounding_only(dims: int) -> None:
    model, batch = build("unet", CHANNELS, dims), toy_batch(CHANNELS, dims)
    nn.init.normal_(model.get_parameter("network.head.conv.weight"))
    expected = model.predict(batch)
    to_channels_last(model)
    weight = model.get_parameter("network.stem.conv.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)
    torch.testing.assert_close(model.predict(batch), expected, rtol=1e-3, atol=1e-4)


def test_the_accelerator_options_train_here_too(tmp_path: Path) -> None:
    assert run(tmp_path, 96, channels_last=True, fused=True).loss == pytest.approx(run(tmp_path / "b").loss, rel=0.5)


@pytest.mark.fault("no compiler for torch.compile", "a message, and training without")
def test_without_a_compiler_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler found")

    monkeypatch.setattr(torch, "compile", broken)
    result = run(tmp_path, 16, compile=True)
    assert "no compiler found" in caplog.text
    assert result.samples == 16


class Linear(Model):
    """One gain and, as a second phase, one offset."""

    def __init__(self, channels: Channels = CHANNELS, dims: int = 2, *, scale: float = 1.0, repeats: int = 0) -> None:
        super().__init__(channels, dims)
        self.gain, self.offset = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.ones(1, 1))
        self.scale, self.repeats, self.turns = scale, repeats, []  # type: ignore[var-annotated]
        self.config = {"_target_": "somewhere.Linear"}

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        self.turns.append((phase, tuple(batch.ids), self.gain.requires_grad, self.offset.requires_grad))
        return self.scale * ((batch.condition * self.gain + self.offset) ** 2).mean()

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        raise NotImplementedError

    def phases(self) -> tuple[Phase, ...]:
        if not self.repeats:
            return (Phase("main", (self.gain, self.offset)),)
        return (Phase("critic", (self.gain,), self.repeats), Phase("generator", (self.offset,)))


def fit(model: Model, folder: Path, **options: Any) -> None:
    train(model, Halving(), MemoryLoader(), config=Trainer(device="cpu", **options), folder=folder)


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    for scale, norm in ((1e4, 0.5), (1e-4, None)):
        model = Linear(scale=scale)
        fit(model, tmp_path / str(scale), samples=4, clip=0.5)
        assert model.gain.grad is not None
        assert model.offset.grad is not None
        total = math.hypot(float(model.gain.grad), float(model.offset.grad))
        assert total == pytest.approx(norm, rel=1e-4) if norm else 0 < total < 0.01


def test_accumulated_batches_are_one_larger_batch(tmp_path: Path) -> None:
    model = Linear()
    fit(model, tmp_path, samples=8, accumulate=2, clip=0.0)
    chosen = [i for turn in model.turns for i in turn[1]]
    x = MemoryLoader().all.condition[chosen] / 2
    assert model.gain.grad is not None
    assert float(model.gain.grad) == pytest.approx(float((2 * (x + 1) * x).mean()), rel=1e-5)
    assert len(chosen) == 8


def test_phases_take_turns_on_batches_of_their_own(tmp_path: Path) -> None:
    model = Linear(repeats=3)
    phases = {"critic": {"learning_rate": 0.0}}
    fit(model, tmp_path, samples=32, phases=phases, warmup=0.0, learning_rate=0.1, weight_decay=0.0)
    assert [turn[0] for turn in model.turns] == ["critic", "critic", "critic", "generator"] * 2
    ids = [turn[1] for turn in model.turns[:4]]
    assert len({i for part in ids for i in part}) == 16  # no sample twice within an epoch
    assert all((gain, offset) == (phase == "critic", phase != "critic") for phase, _, gain, offset in model.turns)
    assert model.gain.item() == 1.0
    assert model.offset.item() < 1.0
    state = checkpoint.load_resume(tmp_path / checkpoint.name_of(32))
    assert set(state["optimisers"]) == {"critic", "generator"}


def test_frozen_parameters_stay(tmp_path: Path) -> None:
    model = Linear()
    model.gain.requires_grad_(False)
    fit(model, tmp_path / "one", samples=16)
    assert model.gain.item() == 1.0
    model = Linear(repeats=1)
    model.gain.requires_grad_(False)
    with pytest.raises(UserError, match="'critic' has no parameter"):
        fit(model, tmp_path / "two", samples=16)


def test_training_stops_when_validation_gets_no_better(tmp_path: Path) -> None:
    config = Trainer(samples=400, validate_every=8, patience=3, learning_rate=1e-9, ema_half_life=0, device="cpu")
    validation = list(MemoryLoader())
    for _ in range(2):  # the second time it is found stopped
        result = train(toy_model(), Halving(), MemoryLoader(), config=config, folder=tmp_path, validation=validation)
        assert result.stopped_early
        assert result.samples < 400


def test_the_best_and_the_newest_are_kept(tmp_path: Path) -> None:
    validation = list(MemoryLoader())
    config = Trainer(
        samples=160, validate_every=16, checkpoint_every=16, keep=2, device="cpu", ema_half_life=0,
        learning_rate=3e-2, warmup=0.0, floor=1.0,
    )  # fmt: skip
    log = MetricsLog(tmp_path / "log.jsonl")
    result = train(
        toy_model(), Halving(), MemoryLoader(), config=config, folder=tmp_path / "c", validation=validation, log=log
    )
    losses = {row["samples"]: row["validation_loss"] for row in log.rows() if "validation_loss" in row}
    least = min(losses, key=losses.__getitem__)
    best = checkpoint.best(tmp_path / "c")
    assert best is not None
    assert best.name == checkpoint.name_of(least)
    kept = {path.name for path in checkpoint.found(tmp_path / "c")}
    assert kept == {checkpoint.name_of(n) for n in (144, 160, least)}
    assert result.validation == pytest.approx(losses[160])
    model = toy_model()
    checkpoint.load_weights(model, best / "ema.safetensors")
    assert validation_loss(model.eval(), Halving(), validation) == pytest.approx(losses[least])


def test_validation_does_not_depend_on_the_cut() -> None:
    whole = toy_batch(CHANNELS, batch=7, factor=1.0)
    model = toy_model().eval()

    def cut(*ends: int) -> Iterator[Batch]:
        for start, end in zip((0, *ends), (*ends, 7), strict=True):
            tensors = {name: getattr(whole, name)[start:end] for name in ("condition", "target", "mask")}
            yield whole.map(ids=whole.ids[start:end], **tensors)

    losses = [validation_loss(model, Halving(), cut(*ends)) for ends in ((), (1,), (2, 3), (6,))]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)


def test_validation_without_a_known_cell_is_refused() -> None:
    batch = toy_batch(CHANNELS, factor=1.0)
    assert batch.mask is not None
    with pytest.raises(DataError, match="no known target"):
        validation_loss(toy_model(), Halving(), [batch.map(mask=torch.zeros_like(batch.mask))])


# -- closed forms


def test_schedule_follows_its_formula() -> None:
    options = {"peak": 2.0, "total": 1000.0, "warmup": 100.0, "floor": 0.1}
    for samples in range(0, 1200, 7):
        if samples < 100:
            expected = 2.0 * samples / 100
        else:
            phase = min(1.0, (samples - 100) / 900)
            expected = 0.2 + 1.8 * math.cos(math.pi * phase / 2) ** 2
        assert learning_rate(samples, **options) == pytest.approx(expected)
    assert learning_rate(0, peak=1.0, total=10) == 1.0


def test_ema_of_a_constant_approaches_it_by_half_lives() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, half_life=100, ramp=math.inf)
    nn.init.ones_(model.weight)
    for step in range(1, 21):
        ema.update(model, batch=25, samples=25 * step)
        assert float(ema.model.weight) == pytest.approx(1 - 0.5 ** (25 * step / 100), rel=1e-5)


def test_ema_ramps_up_and_can_be_off() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ramped, off = EMA(model, half_life=1e6, ramp=0.5), EMA(model, half_life=0)
    nn.init.ones_(model.weight)
    for ema in (ramped, off):
        ema.update(model, batch=10, samples=20)
    assert float(ramped.model.weight) == pytest.approx(0.5)
    assert float(off.model.weight) == 1.0

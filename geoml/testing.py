"""Conformance checks for models, including user-defined ones."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from geoml.data.fields import Batch
from geoml.grids.grid import Grid
from geoml.models.base import Channels, Model
from geoml.models.noise import seed_of

__all__ = ["TOY_CHANNELS", "check_model", "toy_batch"]

#: Channels of the checks: one target with a first guess, one without, another predictor, and a static field.
TOY_CHANNELS = Channels(condition=("amount", "wind"), target=("amount", "other"), static=("height",))


def toy_batch(
    channels: Channels = TOY_CHANNELS,
    dims: int = 2,
    *,
    batch: int = 3,
    factor: float = 2.5,
    cells: Sequence[int] = (6, 4, 4),
    seed: int = 0,
) -> Batch:
    """Make random fields on a coarse grid and a grid `factor` times as fine; the target depends on the condition.

    A tenth of the target is masked and NaN there. Samples have the ids 0, 1, ….
    """
    names = ("z", "y", "x")[3 - dims :]
    coarse = Grid.box(dict.fromkeys(names, 0.0), dict(zip(names, map(float, cells), strict=False)), 1.0)
    fine = coarse.refine(factor)
    parts: dict[str, list[torch.Tensor]] = {"condition": [], "target": [], "static": [], "mask": []}
    for sample in range(batch):
        generator = torch.Generator().manual_seed(seed_of("toy", seed, sample))
        condition = torch.randn(len(channels.condition), *coarse.shape, generator=generator)
        blocky = condition.mean(0)
        for axis, (few, many) in enumerate(zip(coarse.shape, fine.shape, strict=True)):
            nearest = ((torch.arange(many) + 0.5) / factor).long().clamp(max=few - 1)
            blocky = blocky.index_select(axis, nearest)
        target = torch.stack([blocky * (1 + i) + 0.5 for i in range(len(channels.target))])
        mask = torch.rand(target.shape, generator=generator) > 0.1
        parts["condition"].append(condition)
        parts["target"].append(target.masked_fill(~mask, float("nan")))
        parts["mask"].append(mask)
        parts["static"].append(torch.randn(len(channels.static), *fine.shape, generator=generator))
    stacked = {name: torch.stack(tensors) for name, tensors in parts.items()}
    return Batch(
        stacked["condition"],
        coarse,
        fine,
        target=stacked["target"],
        static=stacked["static"] if channels.static else None,
        mask=stacked["mask"],
        ids=tuple(range(batch)),
    )


def check_model(
    build: Callable[[Channels, int], Model], dims: int, *, channels: Channels = TOY_CHANNELS, steps: int = 30
) -> None:
    """Raise `AssertionError` if a model violates the contract of `geoml.models.base.Model`.

    `build(channels, dims)` returns an untrained model. The checks are: shapes at any factor, a loss that does not
    depend on masked cells, gradients for every parameter, determinism, members keyed on (seed, sample id, member), a
    save and load round trip, and a loss that decreases on a toy batch.
    """
    torch.manual_seed(0)
    model = build(channels, dims)
    batch = toy_batch(channels, dims)
    for check in (_shapes, _mask, _gradients, _members, _round_trip):
        check(copy.deepcopy(model), batch)
    _other_geometries(copy.deepcopy(model), channels)
    _loss_falls(model, batch, steps)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _shapes(model: Model, batch: Batch) -> None:
    model.eval()
    assert batch.target is not None
    expected = (len(batch), 2, *batch.target.shape[1:])
    prediction = model.predict(batch.map(target=None, mask=None), members=2)
    assert prediction.shape == expected, f"predict gives {tuple(prediction.shape)}, expected {expected}"
    assert not prediction.requires_grad, "predict keeps the graph; wrap it in torch.no_grad()"
    assert torch.isfinite(prediction).all(), "predict gives values that are not finite"


def _mask(model: Model, batch: Batch) -> None:
    """Check that values in masked cells do not change loss and gradient."""
    assert batch.target is not None
    assert batch.mask is not None
    model.eval()
    losses, gradients = [], []
    for value in (float("nan"), 0.0, 1e6):
        model.zero_grad()
        filled = batch.map(target=batch.target.masked_fill(~batch.mask, value))
        for phase in model.phases():
            loss = model.loss(filled, phase=phase.name, generator=_generator())
            assert loss.ndim == 0, f"loss of phase {phase.name!r} has shape {tuple(loss.shape)}; expected a scalar"
            assert torch.isfinite(loss), f"loss of phase {phase.name!r} is {loss.item()} with {value} in masked cells"
            loss.backward()
            losses.append(loss.item())
        gradients.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    count = len(losses) // 3
    assert losses[:count] == losses[count : 2 * count] == losses[2 * count :], f"masked cells change the loss: {losses}"
    for ours, theirs in zip(gradients[0], gradients[1], strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs), "masked cells change the gradient"  # type: ignore[arg-type]


def _gradients(model: Model, batch: Batch) -> None:
    """Check that every trainable parameter belongs to a phase and gets a gradient."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached = set()
    for phase in model.phases():
        model.zero_grad()
        model.loss(batch, phase=phase.name, generator=_generator()).backward()
        for parameter in phase.parameters:
            if parameter.grad is not None and bool(parameter.grad.abs().sum() > 0):
                reached.add(id(parameter))
    missed = [name for key, name in names.items() if key not in reached]
    assert not missed, f"no gradient reaches {missed}"


def _members(model: Model, batch: Batch) -> None:
    """Check that members depend on seed, sample and member only, not on batching or the number of members."""
    model.eval()
    whole = model.predict(batch, members=3, seed=5)
    assert torch.equal(whole, model.predict(batch, members=3, seed=5)), "predict is not deterministic"
    torch.manual_seed(99)
    single = torch.cat([model.predict(_sample(batch, i), members=3, seed=5) for i in range(len(batch))])
    assert _close(whole, single), "members depend on how batches are cut"
    fewer = model.predict(batch, members=2, seed=5)
    assert _close(whole[:, :2], fewer), "a member depends on how many there are"
    changed = batch.map(target=torch.zeros_like(batch.target))  # type: ignore[arg-type]
    assert torch.equal(whole, model.predict(changed, members=3, seed=5)), "predict reads the target"
    spread = float((whole[:, 0] - whole[:, 1]).abs().max())
    assert (spread > 0) is model.stochastic, f"stochastic is {model.stochastic}, but members differ by {spread}"
    if model.stochastic:
        assert not torch.equal(whole, model.predict(batch, members=3, seed=6)), "the seed changes nothing"


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """True if equal within rounding: the order of summation depends on the batch size."""
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _sample(batch: Batch, index: int) -> Batch:
    part = slice(index, index + 1)
    tensors = {name: getattr(batch, name) for name in ("condition", "target", "static", "mask")}
    return batch.map(ids=batch.ids[part], **{k: v[part] for k, v in tensors.items() if v is not None})


def _round_trip(model: Model, batch: Batch) -> None:
    """Check that weights saved to safetensors and loaded into a perturbed copy give the same prediction."""
    model.eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
        other.load_state_dict(load_file(path))
    assert torch.equal(model.predict(batch), other.predict(batch)), "state_dict() does not hold all that predict needs"


def _other_geometries(model: Model, channels: Channels) -> None:
    """Check the shapes of one model at several factors and sizes."""
    model.eval()
    for factor, cells in ((1.0, (5, 7, 3)), (2.0, (4, 3, 5)), (2.5, (2, 6, 4)), (4.0, (3, 2, 1))):
        batch = toy_batch(channels, model.dims, batch=1, factor=factor, cells=cells)
        shape = model.predict(batch).shape[3:]
        assert shape == batch.target_grid.shape, f"factor {factor}: {shape} instead of {batch.target_grid.shape}"


def _loss_falls(model: Model, batch: Batch, steps: int) -> None:
    """Check that a few steps of Adam on one batch reduce the validation loss by at least a tenth."""
    phases = tuple(model.phases())
    optimisers = [torch.optim.Adam(phase.parameters, lr=3e-3) for phase in phases]
    before = _validated(model, batch, phases[-1].name)
    model.train()
    for _ in range(steps):
        for phase, optimiser in zip(phases, optimisers, strict=True):
            for _ in range(phase.repeats):
                optimiser.zero_grad()
                model.loss(batch, phase=phase.name, generator=_generator()).backward()
                optimiser.step()
    after = _validated(model, batch, phases[-1].name)
    assert after < 0.9 * before, f"the loss does not fall on one batch: {before:.4g} to {after:.4g}"


@torch.no_grad()
def _validated(model: Model, batch: Batch, phase: str) -> float:
    return float(model.eval().loss(batch, phase=phase, generator=_generator()))

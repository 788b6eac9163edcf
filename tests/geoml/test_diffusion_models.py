"""Diffusion models: what they are before training, what they learn of a law that is known, what keeps members apart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from geoml.models.corrdiff import CorrDiff
from geoml.models.diffusion import Diffusion
from geoml.models.registry import build, changed, preset
from geoml.models.regression import masked_loss
from geoml.testing import TOY_CHANNELS, check_model, toy_batch
from geoml.train.ema import EMA

NAMES = ("edm", "ddpm", "flow", "corrdiff")
SMALL: dict[str, Any] = {"base": 8, "multipliers": [1, 2]}


def small(name: str, channels: Channels = TOY_CHANNELS, dims: int = 2, **options: Any) -> Diffusion:
    torch.manual_seed(0)
    model = build(changed(changed(preset(name), SMALL), options), channels, dims)
    assert isinstance(model, Diffusion)
    return model


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- before training


@pytest.mark.parametrize("name", ["edm", "corrdiff", "ddpm"])
@pytest.mark.parametrize("residual", [True, False])
def test_untrained_members_are_normal_about_the_first_guess(name: str, residual: bool) -> None:
    """A network that gives 0 is, by its preconditioning, the exact denoiser of N(0, scale²)."""
    model = small(name, residual=residual).eval()
    with torch.no_grad():
        model.log_scale.copy_(torch.tensor([0.0, math.log(3) / 10]))  # scales 1 and 3
    batch = toy_batch()
    predictors = model.predictors(batch)
    guess = torch.stack((predictors[:, 0], torch.zeros_like(predictors[:, 0])), 1) * float(residual)
    away = model.predict(batch, members=30) - guess[:, None]
    count = away[:, :, 0].numel()
    for channel, scale in enumerate((1.0, 3.0)):
        values = away[:, :, channel] / scale
        assert float(values.mean()) == pytest.approx(0, abs=4 / math.sqrt(count))
        # DDIM and the solver narrow the law a little in few steps.
        assert float(values.std()) == pytest.approx(1, abs=0.13 if name == "ddpm" else 0.05)


# -- what is learned


AMOUNT = Channels(("amount",), ("amount",))
SQUARE = Grid.box({"y": 0.0, "x": 0.0}, {"y": 10.0, "x": 10.0}, 1.0)


def smooth(noise: Tensor) -> Tensor:
    """Correlated fields of unit variance from white noise."""
    weights = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0]))
    weights = weights / weights.square().sum().sqrt()
    return F.conv2d(F.pad(noise, (1, 1, 1, 1), mode="circular"), weights[None, None])


def known_law(count: int, seed: int) -> tuple[Batch, Tensor, Tensor]:
    """A batch whose target is normal given the condition c: mean 0.5 c + 0.3, deviation 0.6 where c > 0, else 0.2."""
    condition, noise = torch.randn(2, count, 1, 10, 10, generator=seeded(seed))
    condition = smooth(condition)
    mean, deviation = 0.5 * condition + 0.3, torch.where(condition > 0, 0.6, 0.2)
    target = mean + deviation * smooth(noise)
    ids = tuple(range(1000 * seed, 1000 * seed + count))
    return (
        Batch(condition=condition, condition_grid=SQUARE, target_grid=SQUARE, target=target, ids=ids),
        mean,
        deviation,
    )


def trained(name: str, steps: int, **options: Any) -> Diffusion:
    """The averaged weights after so many steps of Adam on fresh draws of the known law."""
    model = small(name, AMOUNT, **options).train()
    average = EMA(model, half_life=800)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.99))
    for step in range(steps):
        batch, _, _ = known_law(16, step + 1)
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 30) * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.zero_grad()
        model.loss(batch, generator=seeded(step)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model, batch=16, samples=16 * (step + 1))
    return average.model


@pytest.mark.parametrize("name", ["edm", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_a_known_law_is_learned(name: str) -> None:
    """Mean and deviation given the condition, the correlation of neighbours, and a spread that matches the error."""
    model = trained(name, 600)
    batch, mean, deviation = known_law(64, 0)
    assert batch.target is not None
    left = batch.target - (mean if name == "corrdiff" else batch.condition)
    assert float(model.scale) == pytest.approx(float(left.square().mean().sqrt()), rel=0.12)
    members = model.predict(batch.map(target=None), members=16)
    away = members - members.mean(1, keepdim=True)
    spread = (away.square().sum(1) / 15).sqrt()
    wet = deviation > 0.4
    assert float((members.mean(1) - mean)[wet].square().mean().sqrt()) < 0.6 / 4 + 0.08
    # Minutes of training would sharpen the edge where c changes sign; seconds leave it smeared.
    assert float(spread[wet].square().mean().sqrt()) == pytest.approx(0.57, abs=0.09)
    assert float(spread[~wet].square().mean().sqrt()) == pytest.approx(0.26, abs=0.09)
    ratio = (17 / 16 * spread.square().mean()).sqrt() / (members.mean(1) - batch.target).square().mean().sqrt()
    assert float(ratio) == pytest.approx(1, abs=0.1)
    neighbours = float((away[..., 1:] * away[..., :-1]).mean() / away.square().mean())
    assert neighbours == pytest.approx(0.6, abs=0.08)  # (1·2 + 2·1)/(1 + 4 + 1) = 0.67 within a regime


def test_the_scale_follows_the_data_and_nothing_else_moves_it() -> None:
    """The term's gradient is that of a normal law's −ln likelihood, and 0 at the standard deviation of the residual."""
    batch = toy_batch(batch=8).map(mask=None)
    assert batch.target is not None
    model = small("edm", residual=False)
    target = torch.randn(batch.target.shape, generator=seeded(3)) * torch.tensor([0.3, 2.0])[:, None, None]
    batch = batch.map(target=target)
    optimiser = torch.optim.Adam([model.log_scale], lr=6e-3)
    for step in range(70):
        optimiser.zero_grad()
        model.loss(batch, generator=seeded(step)).backward()
        optimiser.step()
    torch.testing.assert_close(model.scale.detach(), target.square().mean((0, 2, 3)).sqrt(), rtol=0.05, atol=0)


def test_the_mean_of_corrdiff_learns_from_its_own_error_alone() -> None:
    model, batch = small("corrdiff"), toy_batch()
    assert isinstance(model, CorrDiff)
    assert batch.target is not None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.loss(batch, generator=seeded()).backward()
    joint = [parameter.grad.clone() for parameter in model.mean.parameters() if parameter.grad is not None]
    model.zero_grad()
    masked_loss(model.mean(batch), batch.target, batch.mask).backward()
    alone = [parameter.grad for parameter in model.mean.parameters() if parameter.grad is not None]
    assert len(joint) == len(alone) == len(list(model.mean.parameters()))
    torch.testing.assert_close(joint, alone)


# -- members


@pytest.mark.parametrize("sampler", ["stochastic_heun", {"name": "ddim", "eta": 1.0}], ids=str)
def test_fresh_noise_is_keyed_too(sampler: Any) -> None:
    check_model(lambda channels, dims: small("edm", channels, dims, sampler=sampler, steps=4), 2, steps=20)


@pytest.mark.parametrize("sampler", ["dpm_solver_2m", "stochastic_heun"])
def test_members_in_parts_are_the_same(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by `CELLS`: no more fields meet the network at a time than fit in it."""
    model, batch = small("edm", sampler=sampler, steps=3).eval(), toy_batch()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    sizes: list[int] = []
    model.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    whole = model.predict(batch, members=5)
    sizes.clear()
    monkeypatch.setattr(Diffusion, "CELLS", 2 * len(batch) * batch.target_grid.size)
    parts = model.predict(batch, members=5)
    assert max(sizes) == 2 * len(batch)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parameterisation", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_every_discrete_diffusion_passes(parameterisation: str, schedule: str) -> None:
    def begun(channels: Channels, dims: int) -> Diffusion:
        """Not untrained: a network that gives 0 for the clean field would make all members one."""
        model = small("ddpm", channels, dims, parameterisation=parameterisation, schedule=schedule, steps=3)
        torch.nn.init.normal_(model.network.unet.head.conv.weight, std=0.1)
        return model

    check_model(begun, 2)


@pytest.mark.parametrize("name", NAMES)
def test_samples_need_ids_and_a_loss_its_noise(name: str) -> None:
    model, batch = small(name), toy_batch()
    with pytest.raises(ValueError, match="keyed on samples' ids"):
        model.predict(batch.map(ids=()))
    with pytest.raises(ValueError, match="generator"):
        model.loss(batch)
    with pytest.raises(ValueError, match="target"):
        model.loss(batch.map(target=None, mask=None), generator=seeded())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("edm", {"sampler": "huen"}, "did you mean 'heun'"),
        ("edm", {"sampler": {"name": "ddim", "eta": 3}}, "eta 3"),
        ("edm", {"spacing": "karas"}, "did you mean 'karras'"),
        ("edm", {"sigma_min": 100}, "sampling steps"),
        ("edm", {"sampling": {"step": 8}}, "did you mean 'sampling.steps'"),
        ("corrdiff", {"steps": 0}, "sampling steps"),
        ("ddpm", {"steps": 2000}, "1 to"),
        ("ddpm", {"schedule": "cos"}, "did you mean 'cosine'"),
        ("ddpm", {"parameterisation": "eps"}, "did you mean 'epsilon'"),
        ("flow", {"steps": 0}, "sampling steps"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(name, **options)

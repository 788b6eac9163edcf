"""The adversarial model against theory: its losses, its critic, and the phases it trains in."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from geoml.errors import UserError
from geoml.models.gan import ensemble_loss
from geoml.models.registry import build, preset
from geoml.nn.critic import Critic, gradient_penalty
from geoml.testing import TOY_CHANNELS, toy_batch
from geoml.train.trainer import Trainer, optimiser_of


@pytest.mark.parametrize("count", [2, 5])
def test_the_fair_crps_of_draws_has_the_closed_form_of_the_gaussian(count: int) -> None:
    """E over ensembles of any size is the CRPS of the law itself: σ·(z(2Φ(z) − 1) + 2φ(z) − 1/√π)."""
    generator = torch.Generator().manual_seed(0)
    members = 2 * torch.randn(40_000, count, 1, 1, dtype=torch.float64, generator=generator)
    z = 0.75
    pdf, cdf = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(z / math.sqrt(2)))
    exact = 2 * (z * (2 * cdf - 1) + 2 * pdf - 1 / math.sqrt(math.pi))
    assert float(ensemble_loss(members, torch.full((40_000, 1, 1), 2 * z))) == pytest.approx(exact, abs=0.02)


def test_the_fair_crps_is_the_sum_over_pairs() -> None:
    members, target = torch.randn(3, 4, 2, 5), torch.randn(3, 2, 5)
    pairs = (members.unsqueeze(1) - members.unsqueeze(2)).abs().sum((1, 2)) / (4 * 3)
    by_hand = ((members - target.unsqueeze(1)).abs().mean(1) - pairs / 2).mean()
    torch.testing.assert_close(ensemble_loss(members, target), by_hand)


def test_unknown_cells_have_no_say() -> None:
    members, mask = torch.randn(1, 3, 1, 6, requires_grad=True), torch.arange(6).view(1, 1, 6) < 4
    target = torch.randn(1, 1, 6).masked_fill(~mask, float("nan"))
    for content in ("crps", "mean_mse"):
        loss = ensemble_loss(members, target, mask, content=content)
        torch.testing.assert_close(loss, ensemble_loss(members[..., :4], target[..., :4], content=content))
        (gradient,) = torch.autograd.grad(loss, members)
        assert not gradient[..., 4:].any()


class Plane(nn.Module):
    """A critic whose gradient is `slope` everywhere."""

    def __init__(self, slope: torch.Tensor) -> None:
        super().__init__()
        self.slope = nn.Parameter(slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, 1:] * self.slope).flatten(1).sum(1)


@pytest.mark.parametrize("norm", [0.0, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic_is_known(norm: float) -> None:
    slope = torch.randn(1, 4, 5)
    critic = Plane(norm * slope / slope.norm())
    fields = (torch.randn(7, 1, 4, 5) for _ in range(3))
    penalty = gradient_penalty(critic, *fields, share=torch.rand(7))
    assert float(penalty.detach()) == pytest.approx((norm - 1) ** 2, abs=1e-4)
    penalty.backward()
    assert critic.slope.grad is not None
    assert bool(critic.slope.grad.isfinite().all())


def test_the_penalty_of_a_compiled_critic_is_that_of_the_critic() -> None:
    critic = Critic(2, dims=2, width=4, levels=1)
    fields = [torch.randn(3, 1, 4, 4) for _ in range(3)]
    expected = gradient_penalty(critic, *fields, share=torch.full((3,), 0.3))
    critic.compile(backend="aot_eager")
    penalty = gradient_penalty(critic, *fields, share=torch.full((3,), 0.3))
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    assert all(parameter.grad is not None for parameter in critic.blocks.parameters())


def test_the_reference_recipe_gives_amounts_above_zero_and_trains() -> None:
    """No first guess, softplus, noise on the coarse grid alone, the error of the members' mean."""
    options = preset("gan-large") | {"width": 4, "critic_width": 4, "members": 2}
    model, batch = build(options, TOY_CHANNELS, 2), toy_batch()
    generator = torch.Generator().manual_seed(0)
    for phase in model.phases():
        model.loss(batch, phase=phase.name, generator=generator).backward()
    assert float(model.predict(batch, members=2).min()) > 0


@pytest.mark.parametrize("dims", [2, 3])
def test_a_critic_tells_fields_of_one_mean_apart(dims: int) -> None:
    """Smooth against rough of equal mean and variance: an ensemble loss alone does not see that."""
    torch.manual_seed(0)
    critic = Critic(1, dims=dims, width=8, levels=1)
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-2)
    size = (6,) * dims
    distance = torch.zeros(())
    for _ in range(25):
        rough = torch.randn(8, 1, *size)
        smooth = torch.randn(8, 1, *(1,) * dims).expand_as(rough)
        optimiser.zero_grad()
        distance = critic(rough).mean() - critic(smooth).mean()
        nothing = rough[:, :0]
        (10 * gradient_penalty(critic, nothing, rough, smooth, torch.rand(8)) - distance).backward()
        optimiser.step()
    assert float(distance.detach()) > 1


def test_every_phase_has_the_optimiser_it_needs_and_the_user_the_last_word() -> None:
    critic, generator = build({**preset("gan"), "critic_steps": 5}, TOY_CHANNELS, 2).phases()
    config = Trainer(phases={"critic": {"learning_rate": 5e-4, "betas": [0.0, 0.9]}})
    ours, theirs = optimiser_of(generator, config).param_groups[0], optimiser_of(critic, config).param_groups[0]
    assert (ours["betas"], ours["weight_decay"], ours["lr"]) == ((0.5, 0.9), 0.0, config.learning_rate)
    assert (theirs["betas"], theirs["weight_decay"], theirs["lr"]) == ((0.0, 0.9), 0.0, 5e-4)
    assert (critic.repeats, generator.repeats) == (5, 1)


def test_memory_is_bounded_by_cells_and_members_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build("gan", TOY_CHANNELS, 2).eval(), toy_batch()
    whole = model.predict(batch, members=5, seed=1)
    monkeypatch.setattr(type(model), "CELLS", 2 * batch.target_grid.size * len(batch))
    torch.testing.assert_close(model.predict(batch, members=5, seed=1), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"content": "crsp"}, "did you mean 'crps'"),
        ({"members": 1}, "needs at least 2"),
        ({"noise": [0, 0]}, "not both 0"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(preset("gan") | options, TOY_CHANNELS, 2)

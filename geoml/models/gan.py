"""Wasserstein GAN with gradient penalty: a ResNet generator with noise inputs and an ensemble loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from geoml.data.fields import Batch
from geoml.errors import UserError, unknown
from geoml.models.base import Channels, Model, Phase
from geoml.models.conditioning import first_guess, with_static
from geoml.models.noise import member_noise, sample_noise, seed_of
from geoml.nn.blocks import ResidualBlock
from geoml.nn.critic import Critic, gradient_penalty, leaky_relu
from geoml.nn.ops import Conv
from geoml.nn.upsampling import GridUpsample

__all__ = ["CONTENTS", "Content", "WassersteinGAN", "ensemble_loss"]

Content = Literal["crps", "mean_mse"]
CONTENTS: tuple[Content, ...] = ("crps", "mean_mse")


def ensemble_loss(
    members: Float[Tensor, "batch member channel *space"],
    target: Float[Tensor, "batch channel *space"],
    mask: Bool[Tensor, "batch channel *space"] | None = None,
    *,
    content: Content = "crps",
) -> Float[Tensor, ""]:
    """Mean over the True cells of `mask` of the fair CRPS (Ferro 2014), or of the squared error of the members' mean.

    The fair CRPS, E|X − y| − ½·E|X − X'| over *different* members, is minimal in expectation if the members are drawn
    from the target's distribution, for any number of members.

    >>> float(ensemble_loss(torch.tensor([[[0.0], [2.0]]]), torch.tensor([[4.0]])))
    2.0
    """
    if mask is not None:
        target = torch.where(mask, target, members.detach().mean(1))
    if content == "mean_mse":
        value = (members.mean(1) - target).square()
    else:
        count = members.shape[1]
        ordered = members.sort(dim=1).values
        rank = torch.arange(count, device=members.device, dtype=members.dtype)
        weight = (2 * rank - count + 1).view(-1, *[1] * (members.ndim - 2)) / (count * (count - 1))
        value = (members - target.unsqueeze(1)).abs().mean(1) - (weight * ordered).sum(1)
    return value.mean() if mask is None else (value * mask).sum() / mask.sum().clamp(min=1)


class Generator(nn.Module):
    """Map condition and noise to the target: residual blocks on the coarse grid, exact upsampling, more blocks."""

    def __init__(
        self,
        condition: int,
        static: int,
        target: int,
        *,
        dims: int,
        width: int,
        coarse_blocks: int,
        fine_blocks: int,
        noise: tuple[int, int],
    ) -> None:
        super().__init__()

        def stack(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                ResidualBlock(width, width, dims=dims, norm="none", activation=leaky_relu) for _ in range(count)
            )

        self.to_target = GridUpsample()
        self.stem = Conv(condition + noise[0], width, dims=dims, gain=0.5**0.5)
        self.coarse = stack(coarse_blocks)
        self.join = Conv(width + condition + static + noise[1], width, dims=dims, gain=0.5**0.5)
        self.fine = stack(fine_blocks)
        self.head = Conv(width, target, dims=dims, kernel=1, gain=0.1)

    def forward(self, batch: Batch, interpolated: Tensor, coarse_noise: Tensor, fine_noise: Tensor) -> Tensor:
        h = self.stem(torch.cat((batch.condition, coarse_noise), dim=1))
        for block in self.coarse:
            h = block(h)
        h = self.to_target(h, batch.condition_grid, batch.target_grid)
        h = self.join(torch.cat((h, interpolated, fine_noise), dim=1))
        for block in self.fine:
            h = block(h)
        return self.head(leaky_relu(h))


class WassersteinGAN(Model):
    """Members from a generator trained against a critic, after Harris et al. 2022, at any factor.

    The critic sees condition, static fields and target together, so that it judges the conditional distribution
    (WGAN-GP: Gulrajani et al. 2017, arXiv 1704.00028); it takes `critic_steps` steps before each step of the generator.
    The generator's loss is the critic's score + `content_weight` × `ensemble_loss` of `members` members. The latter
    keeps the ensemble calibrated, since the critic alone allows mode collapse (Harris et al. 2022, arXiv 2204.02028,
    sect. 3). One noise field enters on the condition's grid and one on the target's; `noise` = channels of the two.

    Its optimisers use Adam with β = (0.5, 0.9) and no weight decay; `trainer.phases` overrides that. In evaluation
    mode the generator's loss is the ensemble loss alone, because scores of the critic at different steps are not
    comparable and cannot identify the best checkpoint.
    """

    stochastic: ClassVar[bool] = True
    #: Cells on the target grid that `predict` works on at a time, which limits its memory.
    CELLS: ClassVar[int] = 1 << 20

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        width: int = 32,
        coarse_blocks: int = 3,
        fine_blocks: int = 2,
        noise: tuple[int, int] = (4, 4),
        critic_width: int = 32,
        critic_levels: int = 3,
        critic_steps: int = 5,
        penalty: float = 10.0,
        content: Content = "crps",
        content_weight: float = 100.0,
        members: int = 4,
        residual: bool = True,
        positive: bool = False,
    ) -> None:
        super().__init__(channels, dims)
        if content not in CONTENTS:
            raise unknown("content", content, CONTENTS)
        if members < 2:
            raise UserError(f"gan.members is {members}; an ensemble loss needs at least 2")
        if len(noise) != 2 or min(noise) < 0 or max(noise) == 0:
            raise UserError(f"gan.noise is {noise}; expected channels on the coarse and on the fine grid, not both 0")
        condition, static, target = len(channels.condition), len(channels.static), len(channels.target)
        self.noise = (int(noise[0]), int(noise[1]))
        self.critic_steps, self.penalty, self.members = critic_steps, penalty, members
        self.content, self.content_weight, self.positive = content, content_weight, positive
        self.guesses = [channels.guess_index(name) if residual else None for name in channels.target]
        self.to_target = GridUpsample()
        self.generator = Generator(
            condition,
            static,
            target,
            dims=dims,
            width=width,
            coarse_blocks=coarse_blocks,
            fine_blocks=fine_blocks,
            noise=self.noise,
        )
        self.critic = Critic(condition + static + target, dims=dims, width=critic_width, levels=critic_levels)

    def phases(self) -> Iterable[Phase]:
        """The critic's phase, then the generator's."""
        options: Mapping[str, Any] = {"betas": (0.5, 0.9), "weight_decay": 0.0}
        return (
            Phase("critic", tuple(self.critic.parameters()), self.critic_steps, options),
            Phase("generator", tuple(self.generator.parameters()), 1, options),
        )

    def loss(self, batch: Batch, *, phase: str = "generator", generator: torch.Generator | None = None) -> Tensor:
        """The critic's or the generator's loss; masked cells are 0 in the critic's inputs, real and fake."""
        if batch.target is None or generator is None:
            raise ValueError("the loss of a GAN needs a batch with a target, and a generator of its noise")
        predictors = self._predictors(batch)
        if phase == "critic":
            return self._critic_loss(batch, predictors, batch.target, generator)
        if phase != "generator":
            raise unknown("phase", phase, ("critic", "generator"))
        members = self._draw(batch, predictors, self.members, generator)
        content = self.content_weight * ensemble_loss(members.float(), batch.target, batch.mask, content=self.content)
        if not self.training:
            return content
        seen = _known(members[:, 0], batch.mask)
        with torch.no_grad():  # shifts the value, not the gradient: the loss is then a distance, near 0 at the start
            truth = self.critic(torch.cat((predictors, _known(batch.target, batch.mask)), dim=1)).mean()
        return content + truth - self.critic(torch.cat((predictors, seen), dim=1)).mean()

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """Independent members, each from its own noise."""
        predictors = self._predictors(batch)
        at_once = max(1, self.CELLS // (batch.target_grid.size * len(batch)))
        parts = []
        for start in range(0, members, at_once):
            some = range(start, min(start + at_once, members))
            coarse, fine = (
                member_noise(shape, batch.ids, members=some, seed=seed_of(seed, name), device=batch.condition.device)
                for name, shape in self._noise_shapes(batch)
            )
            parts.append(self._generate(batch, predictors, coarse, fine))
        return torch.cat(parts, dim=1).float()

    def _critic_loss(
        self, batch: Batch, predictors: Tensor, target: Tensor, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Mean score of fake minus real fields, plus gradient penalty (Gulrajani et al. 2017, algorithm 1)."""
        with torch.no_grad():
            fake = _known(self._draw(batch, predictors, 1, generator)[:, 0], batch.mask)
        real = _known(target, batch.mask)
        both = self.critic(torch.cat((predictors.repeat(2, *[1] * (fake.ndim - 1)), torch.cat((fake, real))), dim=1))
        share = sample_noise((1,), batch.ids, generator, draw="share", uniform=True).flatten()
        penalty = gradient_penalty(self.critic, predictors, real, fake, share)
        return both[: len(batch)].mean() - both[len(batch) :].mean() + self.penalty * penalty

    def _draw(self, batch: Batch, predictors: Tensor, members: int, generator: torch.Generator) -> Tensor:
        """Generate members for a loss; their noise is keyed by `generator` and sample id."""
        coarse, fine = (
            sample_noise((members, *shape), batch.ids, generator, draw=name)
            for name, shape in self._noise_shapes(batch)
        )
        return self._generate(batch, predictors, coarse, fine)

    def _noise_shapes(self, batch: Batch) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name and shape of a member's two noise fields."""
        return (
            ("coarse", (self.noise[0], *batch.condition_grid.shape)),
            ("fine", (self.noise[1], *batch.target_grid.shape)),
        )

    def _generate(
        self, batch: Batch, predictors: Tensor, coarse: Tensor, fine: Tensor
    ) -> Float[Tensor, "batch member target *space"]:
        """The members of noise `(batch, member, channel, *space)`."""
        members = coarse.shape[1]

        def each(fields: Tensor) -> Tensor:
            return fields.repeat_interleave(members, dim=0)

        many = batch.map(condition=each(batch.condition), target=None, mask=None, static=None, ids=())
        fields = self.generator(many, each(predictors), coarse.flatten(0, 1), fine.flatten(0, 1))
        fields = fields + each(first_guess(self.guesses, predictors))
        fields = F.softplus(fields) if self.positive else fields
        return fields.unflatten(0, (len(batch), members))

    def _predictors(self, batch: Batch) -> Float[Tensor, "batch predictor *space"]:
        """Conditions interpolated to the target's grid, then static fields."""
        interpolated = self.to_target(batch.condition, batch.condition_grid, batch.target_grid)
        return with_static(self.channels, batch, interpolated)


def _known(fields: Tensor, mask: Tensor | None) -> Tensor:
    """Set masked cells of fields to 0."""
    return fields if mask is None else fields.masked_fill(~mask, 0.0)

"""Conditional diffusion: the scaled residual, the loss of a denoiser, members from a sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geoml.cli.config import check_arguments
from geoml.data.fields import Batch
from geoml.data.points import Points
from geoml.diffusion.cuda_graph import CUDAGraphed
from geoml.diffusion.denoiser import Denoiser, expand
from geoml.diffusion.guidance import Known, guided
from geoml.diffusion.network import DenoisingUNet
from geoml.diffusion.posterior import Observed, given
from geoml.diffusion.preconditioning import noise_label
from geoml.diffusion.process import SAMPLING, Process, Sampling, process_of
from geoml.diffusion.samplers import sampler_of
from geoml.errors import UserError, unknown
from geoml.models.base import Channels, Model
from geoml.models.conditioning import first_guess, with_static
from geoml.models.noise import Lengths, correlated, member_noise, sample_noise, seed_of
from geoml.models.regression import LOSSES, Loss, masked_loss
from geoml.nn.context import Conditioning
from geoml.nn.options import NETWORK, UNetOptions
from geoml.nn.upsampling import GridUpsample

__all__ = ["Diffusion"]

#: Factor by which the logarithm of a scale learns faster than a weight.
SCALE_SPEED = 10.0
#: Largest noise level, in units of the fields, at which covariances are taken from the network's Jacobian.
NOISIEST = 8.0
#: Largest change of a cell per step, in units of the largest misfit of the points.
LARGEST_MOVE = 1.0
#: Weight of the loss term of the scales: it is small, so that their gradient hardly affects the clipping of gradients.
SCALE_WEIGHT = 0.01


class Diffusion(Model):
    """A conditional diffusion of `(target − centre) / scale`.

    The centre is the first guess if `residual` is set and there is one, else `middle`; masked cells do not count.
    The scale of a target channel is the standard deviation of `target − centre`. It is a parameter that is trained
    only by the likelihood of a normal distribution; this term contributes gradients but no value to the loss. So the
    scale does not depend on batching, is stored in checkpoints, and needs no pass over the data before training. Its
    initial value is `scale`; without `learn_scale` it is constant.

    Args:
        process: "edm", "flow" or "ddpm", or a mapping of `name` and its options: see `geoml.diffusion.process`.
        network: of the U-Net: see `geoml.nn.options.UNetOptions`.
        conditioning: ways of conditioning on predictors: see `geoml.diffusion.network.DenoisingUNet`.
        sampling: options of sampling: see `geoml.diffusion.process.Sampling`. For the same error the default sampler,
            spacing and `sigma_min` need half the evaluations of Heun's method on the levels of Karras et al., as
            `benchmarks/sampling.py` measures.
        more_predictors: predictors that a subclass adds to those of the channels.
        noise_lengths: correlation of the noise along the last axes, in cells; see `geoml.models.noise.correlated`. A
            network with zero output then samples a Gaussian field with this correlation. Empty: independent cells.
    """

    stochastic: ClassVar[bool] = True
    takes_points: ClassVar[bool] = True
    #: Largest number of target cells times members that `predict` samples at once; limits its memory.
    CELLS: ClassVar[int] = 1 << 19
    #: Value of `CELLS` for batches with points: gradients then need the memory of all layers.
    GUIDED_CELLS: ClassVar[int] = 1 << 16

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        process: Process | str | Mapping[str, Any] = "edm",
        network: UNetOptions | Mapping[str, Any] = NETWORK,
        conditioning: Sequence[Conditioning] = ("concat",),
        residual: bool = True,
        middle: float = 0.0,
        loss: Loss = "mse",
        scale: float = 1.0,
        learn_scale: bool = True,
        sampling: Sampling | Mapping[str, Any] = SAMPLING,
        more_predictors: int = 0,
        noise_lengths: Sequence[float] = (),
    ) -> None:
        super().__init__(channels, dims)
        if len(noise_lengths) > dims or any(not length >= 0 for length in noise_lengths):
            raise UserError(f"noise_lengths={list(noise_lengths)}; expected up to {dims} lengths in cells, 0 or more")
        self.noise_lengths: Lengths = tuple(map(float, noise_lengths))
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        self.loss_kind, self.middle = loss, middle
        self.process = process_of(process)
        self.preconditioning, self.levels, self.unit = (
            self.process.preconditioning, self.process.levels, self.process.unit,
        )  # fmt: skip
        self.guesses = [channels.guess_index(name) if residual else None for name in channels.target]
        self.to_target = GridUpsample()
        start = torch.full((len(channels.target),), math.log(scale) / SCALE_SPEED)
        self.log_scale = nn.Parameter(start, requires_grad=learn_scale)
        predictors = len(channels.condition) + len(channels.static) + more_predictors
        self.network = DenoisingUNet(
            len(channels.target), predictors, dims=dims, network=UNetOptions.of(network), conditioning=conditioning
        )
        self._graphed = CUDAGraphed(self.network)
        self.sampling = Sampling.of(sampling)
        self.sample_by()

    def sample_by(self, **options: Any) -> None:
        """Change sampling options, named as the fields of `Sampling`; the other options keep their values."""
        check_arguments(Sampling, options)
        sampling = replace(self.sampling, **options)
        path, sampler = self.process.path(sampling), sampler_of(sampling.sampler)
        Known(torch.zeros(1), torch.zeros(1, dtype=torch.bool), sampling.guidance, sampling.keep)
        self.sampling, self.path, self.sampler = sampling, path, sampler

    @property
    def evaluations(self) -> int:
        """Number of network evaluations per member."""
        return self.sampler.evaluations(self.path)

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        """Weighted mean error of the network's output over the True cells of the mask."""
        predictors = self.predictors(batch)
        return self.denoising_loss(batch, predictors, self.centre(predictors), generator)

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """Sample members from independent noise, conditioned on `batch.points`; `CELLS` limits members at a time."""
        predictors = self.predictors(batch)
        known = self.known(predictors)
        return self.sample(batch, predictors, self.centre(predictors), members=members, seed=seed, known=known)

    def known(self, predictors: Float[Tensor, "batch predictor *space"]) -> Known | None:
        """Known target values among the predictors; None for a model without observations as input."""
        return None

    def predictors(self, batch: Batch) -> Float[Tensor, "batch predictor *space"]:
        """Interpolated conditions and static fields, stacked."""
        interpolated = self.to_target(batch.condition, batch.condition_grid, batch.target_grid)
        return with_static(self.channels, batch, interpolated)

    def centre(self, predictors: Float[Tensor, "batch predictor *space"]) -> Float[Tensor, "batch target *space"]:
        """Field that is subtracted from the targets: their first guesses, or `middle` for targets without one."""
        guess = first_guess(self.guesses, predictors)
        without = [index is None for index in self.guesses]
        return guess + self.middle * expand(guess.new_tensor(without), guess[0]) if any(without) else guess

    def scales(self, predictors: Float[Tensor, "batch predictor *space"]) -> Float[Tensor, "some target *space"]:
        """Scale of the residual at each cell, for each sample or one for all. By default `scale` everywhere.

        The loss divides errors by `scale` at every cell, so these scales do not change its weights.
        """
        return expand(self.scale, predictors[0]).unsqueeze(0)

    def importance(self, scales: Float[Tensor, "some target *space"]) -> Tensor:
        """Factor of the error of each cell in the loss: its scale relative to `scale`."""
        return scales / expand(self.scale.detach(), scales[0])

    @property
    def scale(self) -> Float[Tensor, " target"]:
        """Divisor of each target channel after its centre is subtracted; at least 1e-6."""
        return torch.exp(SCALE_SPEED * self.log_scale).clamp(min=1e-6)

    def denoiser(self, predictors: Float[Tensor, "batch predictor *space"]) -> Denoiser:
        """Denoiser of scaled residuals; `predictors` has one row per field. Clipped to the `bound` of the sampling."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            def network(scaled: Tensor, label: Tensor) -> Tensor:
                return self._graphed(scaled, predictors, label)

            clean = self.preconditioning.denoise(network, x, sigma)
            bound = self.sampling.bound
            return clean if bound is None else clean.clamp(-bound * self.unit, bound * self.unit)

        return denoise

    def denoising_loss(
        self, batch: Batch, predictors: Tensor, centre: Tensor, generator: torch.Generator | None
    ) -> Float[Tensor, ""]:
        """Loss of the denoiser of `target − centre`; it also contributes the gradient of the scales."""
        if batch.target is None or generator is None:
            raise ValueError("the loss of a diffusion needs a batch with a target, and a generator of its noise")
        away = batch.target - centre
        if batch.mask is not None:
            away = torch.where(batch.mask, away, 0.0)
        scale = self.scales(predictors)
        clean = away * (self.unit / scale.detach())
        noise = correlated(sample_noise(clean.shape[1:], batch.ids, generator, draw="noise"), self.noise_lengths)
        sigma = self.levels.quantile(sample_noise((), batch.ids, generator, draw="level", uniform=True))
        into = expand(self.preconditioning.coefficients(sigma).into, clean)
        given = self.network(into * (clean + expand(sigma, clean) * noise), predictors, noise_label(sigma)).float()
        root = expand(self.preconditioning.weight(sigma).sqrt(), clean) * self.importance(scale.detach())
        wanted = self.preconditioning.target(clean, noise, sigma)
        logs = scale.log().expand_as(away)
        level = logs.mean() if batch.mask is None else (logs * batch.mask).sum() / batch.mask.sum().clamp(min=1)
        surprise = masked_loss(away / scale, torch.zeros_like(away), batch.mask) / 2 + level
        own = SCALE_WEIGHT * (surprise - surprise.detach())
        return masked_loss(root * given, root * wanted, batch.mask, loss=self.loss_kind) + own

    def sample(
        self,
        batch: Batch,
        predictors: Tensor,
        centre: Tensor,
        *,
        members: int | range,
        seed: int,
        known: Known | None = None,
        layers: slice = slice(None),
        temperature: Float[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch member target *space"]:
        """Sample `centre` plus residuals; noise is keyed on (seed, step, sample id, member).

        `temperature` multiplies the initial noise of each sample, and thus the spread of its members. `members` is a
        number of members or a range of their indices. Only the `layers` of the first axis are sampled; `predictors`,
        `centre` and `known` are those of these layers. `batch.points` are in transformed space.
        """
        if len(batch.ids) != len(batch):
            raise ValueError(f"members are keyed on samples' ids: {len(batch.ids)} ids for a batch of {len(batch)}")
        members = range(members) if isinstance(members, int) else members
        cells = self.CELLS if batch.points is None else self.GUIDED_CELLS
        at_once = max(1, cells // (batch.target_grid.size * len(batch)))
        factor = self.scales(predictors) / self.unit
        observed = None if batch.points is None else _observed(batch.points, centre, factor)
        shape = (centre.shape[1], *batch.target_grid.shape)
        parts = []
        for start in range(0, len(members), at_once):
            some = members[start : start + at_once]

            def draw(step: int, some: range = some) -> Tensor:
                key = seed_of(seed, "step", step)
                noise = member_noise(
                    shape, batch.ids, members=some, seed=key, device=centre.device, lengths=self.noise_lengths
                )
                noise = noise.flatten(0, 1)[:, :, layers]
                if temperature is None or step != -1:
                    return noise
                return noise * expand(temperature.repeat_interleave(len(some)), noise)

            denoiser = self.denoiser(predictors.repeat_interleave(len(some), dim=0))
            if known is not None:
                denoiser = guided(denoiser, known.scaled(centre, factor).repeated(len(some)))
            if observed is not None:
                noisiest = NOISIEST * self.unit
                denoiser = given(denoiser, observed.repeated(len(some)), noisiest=noisiest, limit=LARGEST_MOVE)
            fields = self.sampler(denoiser, draw(-1), self.path, draw)
            parts.append(centre.unsqueeze(1) + factor.unsqueeze(1) * fields.unflatten(0, (len(batch), len(some))))
        sampled = torch.cat(parts, dim=1)
        if known is None or known.keep == "never":
            return sampled
        return torch.where(known.mask.unsqueeze(1), known.values.unsqueeze(1).to(sampled.dtype), sampled)


def _observed(points: Points, centre: Tensor, factor: Tensor) -> Observed:
    """Points of the first target as observations of the scaled residual."""
    index = points.flat(centre.shape[2:])
    middle, scale = (part[:, 0].flatten(1)[:, index] for part in (centre, factor.expand_as(centre)))
    return Observed(index, (points.values - middle) / scale, points.errors / scale)

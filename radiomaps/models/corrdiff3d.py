"""A regression of mean and scale of every voxel, and a diffusion of the standardised residual."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from geoml.data.fields import Batch
from geoml.diffusion.denoiser import Denoiser, expand
from geoml.diffusion.guidance import Known
from geoml.diffusion.process import SAMPLING, Process, Sampling
from geoml.errors import UserError
from geoml.models.base import Channels
from geoml.models.diffusion import SCALE_WEIGHT, Diffusion
from geoml.models.regression import masked_loss
from geoml.nn.context import Conditioning
from geoml.nn.options import NETWORK, UNetOptions
from geoml.nn.unet import UNet
from radiomaps.models.observed import observed_values
from radiomaps.tasks.task import SIGHT

__all__ = ["CorrDiff3D", "CorrectionGate"]

#: Bounds of the logarithm of a voxel's scale over the scale of its target.
NARROWEST, WIDEST = -5.0, 3.0
#: Errors above this number of units of their target have a linear loss, so that a few late paths do not dominate it.
LARGE = 3.0
#: The diffusion is trained on standardised residuals clipped to ± this value.
FARTHEST = 4.0


@dataclass(frozen=True)
class CorrectionGate:
    """Thresholds for using the correction of the prior, and the spread of members; fitted on validation maps.

    By class of voxels (out of the prior's line of sight, in it) and target channel: `threshold`, the number of
    predicted scales that a correction must exceed (infinite: the prior is kept), and `spread`, the factor of the
    members' deviations. `opened` is the share of voxels with a correction. `lengths`: of a model without a diffusion,
    correlation of members by target channel along z, y and x, in voxels.
    """

    threshold: tuple[tuple[float, ...], tuple[float, ...]]
    spread: tuple[tuple[float, ...], tuple[float, ...]]
    opened: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    lengths: tuple[tuple[float, ...], ...] = ()


class CorrDiff3D(Diffusion):
    """Members of a radio map: mean of a 3-D U-Net ± its scale × a diffused, standardised residual.

    After CorrDiff (Mardani et al. 2023, arXiv 2309.15214), with a scale for every voxel. The U-Net gives mean and
    logarithm of the scale. The mean is trained on its squared error in units of each target's mean scale, linear from
    `LARGE` of them on, the scale by the CRPS of a normal distribution around the current mean. (The gradient of a
    likelihood has no bound where the scale is small and the error is not, as at a strong reflection in line of sight;
    such steps drown the mean's.) The diffusion learns what is left, divided by the scale and cut at `FARTHEST` scales,
    and sees mean and scale; it has no gradient to the first stage. All is one training. Its noise may be correlated
    (`noise_lengths`).

    - Members come in pairs on opposite sides of the mean, so that the mean of an even number of members is the
      regression's.
    - With a prior the mean is a correction of it. A `CorrectionGate`, fitted after the training, shuts the correction
      where the prior is better and fits the size of the spread.
    - `share`: part of each batch on which the diffusion learns; `residual_network`: its network, None for `network`.
      With 0 there is no diffusion: members are the mean plus a Gaussian field with the predicted scale and the
      correlation of `noise_lengths`.

    Other arguments are those of `Diffusion`.
    """

    supported_dims: ClassVar[tuple[int, ...]] = (3,)
    threshold: Tensor
    spread: Tensor

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        process: Process | str | Mapping[str, Any] = "edm",
        network: UNetOptions | Mapping[str, Any] = NETWORK,
        residual_network: UNetOptions | Mapping[str, Any] | None = None,
        conditioning: Sequence[Conditioning] = ("concat",),
        residual: bool = True,
        middle: float = 0.5,
        scale: float = 0.1,
        share: float = 0.5,
        noise_lengths: Sequence[float] = (),
        sampling: Sampling | Mapping[str, Any] = SAMPLING,
    ) -> None:
        if not 0 <= share <= 1:
            raise UserError(f"share={share}; expected a part of each batch, 0 to 1")
        count = len(channels.target)
        super().__init__(
            channels, dims, process=process, network=residual_network or network, conditioning=conditioning,
            residual=residual, middle=middle, scale=scale, sampling=sampling, more_predictors=2 * count,
            noise_lengths=noise_lengths,
        )  # fmt: skip
        self.share = share
        if not share:
            del self.network, self._graphed
        self.regression = UNet(
            len(channels.condition) + len(channels.static), 2 * count, dims=dims, **vars(UNetOptions.of(network))
        )
        self.sight = channels.condition.index(SIGHT) if residual and SIGHT in channels.condition else None
        self.register_buffer("threshold", torch.zeros(2, count), persistent=False)
        self.register_buffer("spread", torch.ones(2, count), persistent=False)

    def gated(self, gate: CorrectionGate | Mapping[str, Any] | None) -> CorrDiff3D:
        """Set the gate and return the model. None uses the correction everywhere."""
        with torch.no_grad():
            self.threshold.zero_()
            self.spread.fill_(1.0)
            if gate is not None:
                values = vars(gate) if isinstance(gate, CorrectionGate) else gate
                self.threshold.copy_(torch.tensor(values["threshold"]))
                self.spread.copy_(torch.tensor(values["spread"]))
                if values.get("lengths"):
                    self.noise_lengths = tuple(map(tuple, values["lengths"]))
        return self

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        """Squared error of the mean (linear from `LARGE` on), CRPS of the scale, and the diffusion's loss, added."""
        if batch.target is None:
            raise ValueError("a loss needs a batch with a target")
        inputs = super().predictors(batch)
        mean, log_scale = self._first(inputs)
        away = batch.target - mean
        if batch.mask is not None:
            away = torch.where(batch.mask, away, 0.0)
        unit = expand(self.scale, away[0]).unsqueeze(0)
        zero = torch.zeros_like(away)
        error = 2 * masked_loss(away / unit.detach(), zero, batch.mask, loss="huber", huber_delta=LARGE)
        width = log_scale.exp()
        score = _mean(normal_crps(away.detach() / width) * width / unit.detach(), batch.mask)
        surprise = masked_loss(away.detach() / unit, zero, batch.mask) / 2 + _mean(unit.log() + zero, batch.mask)
        own = SCALE_WEIGHT * (surprise - surprise.detach())
        if not self.share:
            return error + score + own
        some = slice(0, max(1, round(self.share * len(batch))))
        limit = FARTHEST * width.detach()
        near = mean.detach() + torch.maximum(torch.minimum(away.detach(), limit), -limit)
        part = batch.map(
            condition=batch.condition[some], target=near[some], ids=tuple(batch.ids[some]),
            mask=None if batch.mask is None else batch.mask[some],
            static=None if batch.static is None else batch.static[some],
        )  # fmt: skip
        known = torch.cat((inputs[some], mean[some].detach(), log_scale[some].detach()), dim=1)
        return error + score + own + self.denoising_loss(part, known, mean[some].detach(), generator)

    def denoiser(self, predictors: Float[Tensor, "batch predictor *space"]) -> Denoiser:
        """As `Diffusion.denoiser`; without a diffusion that of a Gaussian field with the correlation of the noise."""
        if self.share:
            return super().denoiser(predictors)
        return lambda x, sigma: expand(self.preconditioning.coefficients(sigma).skip, x) * x

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """Pairs of members on opposite sides of the mean; observed voxels are treated as `keep` specifies."""
        predictors = self.predictors(batch)
        mean, known = self.centre(predictors), self.known(predictors)
        pairs = -(-members // 2)
        away = self.sample(batch, predictors, mean, members=pairs, seed=seed) - mean.unsqueeze(1)
        away = away * self._by_class(self.spread, predictors).unsqueeze(1)
        both = torch.stack((mean.unsqueeze(1) + away, mean.unsqueeze(1) - away), dim=2).flatten(1, 2)[:, :members]
        if known is None or known.keep == "never":
            return both
        return torch.where(known.mask.unsqueeze(1), known.values.unsqueeze(1).to(both.dtype), both)

    def known(self, predictors: Float[Tensor, "batch predictor *space"]) -> Known | None:
        """The observed voxels of a task."""
        return observed_values(self.channels, predictors, keep=self.sampling.keep)

    def predictors(self, batch: Batch) -> Float[Tensor, "batch predictor *space"]:
        """Conditions, static fields, the regression's mean, and the logarithm of its scale."""
        inputs = super().predictors(batch)
        mean, log_scale = self._first(inputs)
        guess = self.prior(inputs)
        correction = mean - guess
        opened = correction.abs() > self._by_class(self.threshold, inputs) * log_scale.exp()
        return torch.cat((inputs, guess + correction * opened, log_scale), dim=1)

    def prior(self, predictors: Float[Tensor, "batch predictor *space"]) -> Float[Tensor, "batch target *space"]:
        """The prior of each target, `middle` where there is none."""
        return super().centre(predictors)

    def centre(self, predictors: Float[Tensor, "batch predictor *space"]) -> Float[Tensor, "batch target *space"]:
        """Select the channels of the regression's mean from the predictors."""
        count = len(self.channels.target)
        return predictors[:, -2 * count : -count]

    def scales(self, predictors: Float[Tensor, "batch predictor *space"]) -> Float[Tensor, "batch target *space"]:
        """Select the channels of the regression's scale from the predictors, as a positive scale."""
        return predictors[:, -len(self.channels.target) :].exp()

    def importance(self, scales: Float[Tensor, "some target *space"]) -> Tensor:
        """Return equal weights: standardised residuals have the same weight in all voxels."""
        return torch.ones_like(scales)

    def _first(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the scale, from conditions and static fields."""
        unit = expand(self.scale.detach(), inputs[0]).unsqueeze(0)
        made = self.regression(inputs).float()
        correction, wider = made.chunk(2, dim=1)
        return self.prior(inputs) + unit * correction, unit.log() + wider.clamp(NARROWEST, WIDEST)

    def _by_class(self, values: Tensor, predictors: Tensor) -> Tensor:
        """Values by class and target channel at every voxel."""
        outside, inside = (expand(row, predictors[0]).unsqueeze(0) for row in values)
        if self.sight is None:
            return outside
        return torch.where(predictors[:, self.sight : self.sight + 1] > 0.5, inside, outside)


def normal_crps(standard: Tensor) -> Tensor:
    """CRPS of a normal distribution in units of its deviation, at a standardised value.

    Gneiting & Raftery 2007, eq. 21.

    >>> round(float(normal_crps(torch.tensor(0.0))), 4)
    0.2337
    """
    density = torch.exp(-standard.square() / 2) / math.sqrt(2 * math.pi)
    return standard * torch.erf(standard / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the True cells of a mask."""
    return values.mean() if mask is None else (values * mask).sum() / mask.sum().clamp(min=1)

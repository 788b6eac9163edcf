"""Conditional diffusion of radio maps, for all layers of a volume or one group of layers after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geoml.data.fields import Batch
from geoml.diffusion.denoiser import expand
from geoml.diffusion.guidance import Known
from geoml.diffusion.process import SAMPLING, Process, Sampling
from geoml.errors import UserError
from geoml.models.base import Channels
from geoml.models.diffusion import SCALE_SPEED, Diffusion
from geoml.models.noise import sample_noise
from geoml.models.regression import Loss
from geoml.nn.context import Conditioning
from geoml.nn.options import NETWORK, UNetOptions
from radiomaps.models.observed import observed_values
from radiomaps.tasks.task import SIGHT

__all__ = ["RadioDiff3D"]

#: Smallest scale in line of sight (on 0 … 1), where a prior may have no error.
LEAST_SCALE = 2e-3


class RadioDiff3D(Diffusion):
    """Members of a volume's radio map by diffusion, after RadioDiff-3D (arXiv 2507.12166).

    - With `residual` a task's prior is subtracted from each target that has one, `middle` from others. The residual is
      divided by a scale: learned with the initial value `scale`, or fixed. With a physical prior there is another scale
      in its line of sight, where residuals, and so differences of members, are small. `middle` and `scale` 0.5, fixed,
      give maps from −1 to 1.
    - `layers_at_once`: number of layers sampled together; the next group is conditioned on the layer below (section IV
      of the paper, "autoregression over height"); None samples the volume at once.
    - `guidance` of the sampling is eq. 14 of the paper.

    Other arguments are those of `Diffusion`.
    """

    supported_dims: ClassVar[tuple[int, ...]] = (3,)

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        process: Process | str | Mapping[str, Any] = "edm",
        network: UNetOptions | Mapping[str, Any] = NETWORK,
        conditioning: Sequence[Conditioning] = ("concat",),
        residual: bool = True,
        middle: float = 0.5,
        loss: Loss = "mse",
        scale: float = 0.1,
        learn_scale: bool = True,
        sampling: Sampling | Mapping[str, Any] = SAMPLING,
        layers_at_once: int | None = None,
    ) -> None:
        if layers_at_once is not None and layers_at_once < 1:
            raise UserError(f"layers_at_once is {layers_at_once}; expected at least 1, or null for all")
        super().__init__(
            channels, dims, process=process, network=network, conditioning=conditioning, residual=residual,
            middle=middle, loss=loss, scale=scale, learn_scale=learn_scale, sampling=sampling,
            more_predictors=0 if layers_at_once is None else len(channels.target) + 1,
        )  # fmt: skip
        self.layers_at_once = layers_at_once
        self.sight = channels.condition.index(SIGHT) if residual and SIGHT in channels.condition else None
        if self.sight is not None:
            self.log_scale_in_sight = nn.Parameter(self.log_scale.detach().clone(), requires_grad=learn_scale)

    def known(self, predictors: Float[Tensor, "batch predictor *space"]) -> Known | None:
        """The observed voxels of a task, with the guidance of the sampling."""
        return observed_values(self.channels, predictors, guidance=self.sampling.guidance, keep=self.sampling.keep)

    def scales(self, predictors: Float[Tensor, "batch predictor *space"]) -> Float[Tensor, "some target *space"]:
        """`scale`, and the separate scale where the prior has line of sight."""
        apart = super().scales(predictors)
        if self.sight is None:
            return apart
        inside = torch.exp(SCALE_SPEED * self.log_scale_in_sight).clamp(min=LEAST_SCALE)
        seen = predictors[:, self.sight : self.sight + 1] > 0.5
        return torch.where(seen, expand(inside, predictors[0]).unsqueeze(0), apart)

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        """The weighted mean error of the network's output, over the True cells of the mask.

        With `layers_at_once`, of one group of layers of each sample, keyed on its id.
        """
        if self.layers_at_once is None:
            return super().loss(batch, generator=generator)
        if batch.target is None or generator is None:
            raise ValueError("the loss of a diffusion needs a batch with a target, and a generator of its noise")
        predictors = self.predictors(batch)
        centre = self.centre(predictors)
        height = batch.target_grid.shape[0]
        size = min(self.layers_at_once, height)
        uniform = sample_noise((), batch.ids, generator, draw="group", uniform=True)
        starts = [min(int(share * -(-height // size)) * size, height - size) for share in uniform.tolist()]

        def cut(fields: Tensor) -> Tensor:
            return torch.stack([row[:, start : start + size] for row, start in zip(fields, starts, strict=True)])

        away = batch.target - centre
        if batch.mask is not None:
            away = torch.where(batch.mask, away, 0.0)
        below = torch.stack([self._below(row, start) for row, start in zip(away, starts, strict=True)])
        grid = batch.target_grid.crop(**{batch.target_grid.names[0]: slice(0, size)})
        inputs = self._with_below(cut(predictors), below)
        mask = None if batch.mask is None else cut(batch.mask)
        group = Batch(inputs, grid, grid, cut(batch.target), mask=mask, ids=batch.ids)
        return self.denoising_loss(group, inputs, cut(centre), generator)

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """Members sampled from independent noise; observed voxels are treated as `keep` specifies."""
        if self.layers_at_once is None:
            return super().predict(batch, members=members, seed=seed)
        predictors = self.predictors(batch)
        centre, known = self.centre(predictors), self.known(predictors)
        return torch.cat(
            [self._upwards(batch, predictors, centre, known, member, seed) for member in range(members)], 1
        )

    def _upwards(
        self, batch: Batch, predictors: Tensor, centre: Tensor, known: Known | None, member: int, seed: int
    ) -> Float[Tensor, "batch one target *space"]:
        """One member, sampled in groups of layers, from below."""
        height, size = batch.target_grid.shape[0], self.layers_at_once or 1
        made = torch.zeros_like(centre)
        outdoors: Tensor | float = 1.0
        if "building" in self.channels.condition:
            at = self.channels.condition.index("building")
            outdoors = 1 - predictors[:, at : at + 1]
        for start in range(0, height, size):
            layers = slice(start, min(start + size, height))
            below = torch.stack([self._below(row, start) for row in (made - centre) * outdoors])
            here = None if known is None else Known(
                known.values[:, :, layers], known.mask[:, :, layers], known.guidance, known.keep
            )  # fmt: skip
            fields = self.sample(
                batch, self._with_below(predictors[:, :, layers], below), centre[:, :, layers],
                members=range(member, member + 1), seed=seed, known=here, layers=layers,
            )  # fmt: skip
            made[:, :, layers] = fields[:, 0]
        return made.unsqueeze(1)

    def _below(self, away: Float[Tensor, "target z y x"], start: int) -> Float[Tensor, "below y x"]:
        """The scaled residual in the layer below `start`, and whether there is one."""
        if start == 0:
            return away.new_zeros((len(away) + 1, *away.shape[2:]))
        scaled = away[:, start - 1] / self.scale.detach()[:, None, None]
        return torch.cat((scaled, torch.ones_like(scaled[:1])))

    def _with_below(self, predictors: Tensor, below: Tensor) -> Tensor:
        """Append the layer below as additional channels of the predictors, repeated at every height."""
        return torch.cat((predictors, below.unsqueeze(2).expand(-1, -1, predictors.shape[2], -1, -1)), dim=1)

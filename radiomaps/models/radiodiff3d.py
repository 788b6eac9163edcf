"""Conditional diffusion of radio maps, layers of a volume together or one group after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geoml.data.fields import Batch
from geoml.diffusion import preconditioning
from geoml.diffusion.denoiser import Denoiser, expand
from geoml.diffusion.guidance import Keep, Known
from geoml.diffusion.levels import DiscreteLevels, Levels, LogNormalLevels, UniformTimeLevels, schedule
from geoml.diffusion.preconditioning import Preconditioning, parameterisation
from geoml.diffusion.samplers import sampler_of
from geoml.diffusion.spacing import spaced, strided, uniform_time
from geoml.errors import UserError, unknown
from geoml.models.base import Channels
from geoml.models.diffusion import SCALE_SPEED, Diffusion
from geoml.models.noise import sample_noise
from geoml.models.regression import Loss
from geoml.nn.blocks import Norm
from geoml.nn.context import Conditioning
from geoml.nn.ops import Operator
from radiomaps.models.observed import observed_values
from radiomaps.tasks.task import SIGHT

__all__ = ["PROCESSES", "RadioDiff3D"]

Process = Literal["edm", "flow", "ddpm"]
#: Of 0 … 1: no scale in line of sight is less, where a prior may leave nothing at all.
LEAST_SCALE = 2e-3
PROCESSES: tuple[Process, ...] = ("edm", "flow", "ddpm")


class RadioDiff3D(Diffusion):
    """Members of a volume's radio map by diffusion, after RadioDiff-3D (arXiv 2507.12166).

    - `process`: "edm" (`sigma_data`, `p_mean`, `p_std`, `wiener`), "flow" (matching), or "ddpm" in `diffusion_steps`
      of a `schedule`, whose network predicts what `parameterisation` names (epsilon, x0, v).
    - With `residual` a task's prior is taken off each target that has one, `middle` off any other. What is left is
      divided by a scale: learned from `scale` on, or fixed; with a prior from physics by another one in its line of
      sight, where little is left, so that members differ there by little too. `middle` and `scale` 0.5, fixed, are maps
      from −1 to 1.
    - `sampler`, `steps`, and for "edm" `spacing`, `sigma_min`, `sigma_max`, say how members are sampled.
    - `layers_at_once`: that many layers are sampled together, then the next, told the layer below (section IV of the
      paper, "autoregression over height"); None samples the volume as one.
    - `bound` cuts the scaled maps that the denoiser gives while members are sampled to ±`bound`, as is usual for DDPM:
      from much noise a noise predictor's maps are far out. None leaves them.
    - `guidance` (eq. 14) and `keep`: how members agree with observed voxels, see `geoml.diffusion.guidance.Known`.
    """

    supported_dims: ClassVar[tuple[int, ...]] = (3,)

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        base: int = 16,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        norm: Norm = "group",
        dropout: float = 0.0,
        operator: Operator = "full",
        first_axis_halvings: int | None = 0,
        conditioning: Sequence[Conditioning] = ("concat",),
        recompute: bool = False,
        process: Process = "edm",
        parameterisation: str = "epsilon",
        schedule: str = "cosine",
        diffusion_steps: int = 1000,
        sigma_data: float = 0.5,
        p_mean: float = -1.2,
        p_std: float = 1.2,
        wiener: bool = False,
        loss: Loss = "mse",
        residual: bool = True,
        middle: float = 0.5,
        scale: float = 0.1,
        learn_scale: bool = True,
        sampler: str | Mapping[str, Any] = "dpm_solver_2m",
        steps: int = 8,
        spacing: str = "log_snr",
        sigma_min: float = 0.02,
        sigma_max: float = 80.0,
        layers_at_once: int | None = None,
        bound: float | None = None,
        guidance: float = 0.0,
        keep: Keep = "end",
    ) -> None:
        if layers_at_once is not None and layers_at_once < 1:
            raise UserError(f"layers_at_once is {layers_at_once}; expected at least 1, or null for all")
        edm = preconditioning.Karras(sigma_data, wiener), LogNormalLevels(p_mean, p_std)
        factors, levels = edm if process == "edm" else _process(process, parameterisation, schedule, diffusion_steps)
        super().__init__(
            channels, dims, preconditioning=factors, levels=levels, unit=sigma_data if process == "edm" else 1.0,
            residual=residual, sampler=sampler, loss=loss, scale=scale, learn_scale=learn_scale,
            more_predictors=0 if layers_at_once is None else len(channels.target) + 1, base=base,
            multipliers=multipliers, blocks=blocks, attention=attention, norm=norm, dropout=dropout, operator=operator,
            first_axis_halvings=first_axis_halvings, conditioning=conditioning, recompute=recompute,
        )  # fmt: skip
        self.middle, self.layers_at_once = middle, layers_at_once
        self.sight = channels.condition.index(SIGHT) if residual and SIGHT in channels.condition else None
        if self.sight is not None:
            self.log_scale_in_sight = nn.Parameter(self.log_scale.detach().clone(), requires_grad=learn_scale)
        self.sampling: dict[str, Any] = {}
        self.sample_by(
            sampler=sampler, steps=steps, spacing=spacing, sigma_min=sigma_min, sigma_max=sigma_max,
            bound=bound, guidance=guidance, keep=keep,
        )  # fmt: skip

    def sample_by(self, **options: Any) -> None:
        """Change how members are sampled, by the options of that name; others stay as they are."""
        chosen = {"bound": None} | self.sampling | options
        if chosen["bound"] is not None and not chosen["bound"] > 0:
            raise UserError(f"bound is {chosen['bound']}; expected more than 0, or null for none")
        bounds = {"smallest": chosen["sigma_min"], "largest": chosen["sigma_max"]}
        if isinstance(self.preconditioning, preconditioning.Karras):
            self.path = spaced(chosen["spacing"], chosen["steps"], **bounds)
        elif isinstance(self.preconditioning, preconditioning.Flow):
            self.path = uniform_time(chosen["steps"], largest=bounds["largest"])
        else:
            assert isinstance(self.levels, DiscreteLevels)
            self.path = strided(self.levels.table, chosen["steps"], largest=bounds["largest"])
        self.sampler = sampler_of(chosen["sampler"])
        Known(torch.zeros(1), torch.zeros(1, dtype=torch.bool), chosen["guidance"], chosen["keep"])
        self.sampling = chosen

    def sigmas(self) -> Sequence[float]:
        return self.path

    def denoiser(self, predictors: Float[Tensor, "batch predictor *space"]) -> Denoiser:
        """That of all diffusions, what it gives cut to `bound`."""
        free, bound = super().denoiser(predictors), self.sampling["bound"]
        if bound is None:
            return free
        return lambda x, sigma: free(x, sigma).clamp(-bound * self.unit, bound * self.unit)

    @property
    def evaluations(self) -> int:
        """How many times the network is asked for a member."""
        return self.sampler.evaluations(self.path)

    def centre(self, predictors: Float[Tensor, "batch predictor *space"]) -> Float[Tensor, "batch target *space"]:
        """What is taken off the targets: their priors, `middle` where there are none."""
        guess = super().centre(predictors)
        without = [index is None for index in self.guesses]
        return guess + self.middle * expand(guess.new_tensor(without), guess[0])

    def scales(self, predictors: Float[Tensor, "batch predictor *space"]) -> Float[Tensor, "some target *space"]:
        """`scale`, and another one where the prior has line of sight."""
        apart = super().scales(predictors)
        if self.sight is None:
            return apart
        inside = torch.exp(SCALE_SPEED * self.log_scale_in_sight).clamp(min=LEAST_SCALE)
        seen = predictors[:, self.sight : self.sight + 1] > 0.5
        return torch.where(seen, expand(inside, predictors[0]).unsqueeze(0), apart)

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        """The weighted mean error of what the network gives, over the True cells of the mask.

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
        told = self._told(cut(predictors), below)
        mask = None if batch.mask is None else cut(batch.mask)
        group = Batch(told, grid, grid, cut(batch.target), mask=mask, ids=batch.ids)
        return self.denoising_loss(group, told, cut(centre), generator)

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """Members sampled from noise of their own; observed voxels as `keep` says."""
        predictors = self.predictors(batch)
        centre = self.centre(predictors)
        options = {"guidance": self.sampling["guidance"], "keep": self.sampling["keep"]}
        known = observed_values(self.channels, predictors, **options)
        if self.layers_at_once is None:
            return self.sample(batch, predictors, centre, members=members, seed=seed, known=known)
        return torch.cat(
            [self._upwards(batch, predictors, centre, known, member, seed) for member in range(members)], 1
        )

    def _upwards(
        self, batch: Batch, predictors: Tensor, centre: Tensor, known: Known | None, member: int, seed: int
    ) -> Float[Tensor, "batch one target *space"]:
        """One member, group of layers by group, from below."""
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
                batch, self._told(predictors[:, :, layers], below), centre[:, :, layers],
                members=range(member, member + 1), seed=seed, known=here, layers=layers,
            )  # fmt: skip
            made[:, :, layers] = fields[:, 0]
        return made.unsqueeze(1)

    def _below(self, away: Float[Tensor, "target z y x"], start: int) -> Float[Tensor, "told y x"]:
        """The scaled residual in the layer below `start`, and whether there is one."""
        if start == 0:
            return away.new_zeros((len(away) + 1, *away.shape[2:]))
        scaled = away[:, start - 1] / self.scale.detach()[:, None, None]
        return torch.cat((scaled, torch.ones_like(scaled[:1])))

    def _told(self, predictors: Tensor, below: Tensor) -> Tensor:
        """Predictors with the layer below at every height."""
        return torch.cat((predictors, below.unsqueeze(2).expand(-1, -1, predictors.shape[2], -1, -1)), dim=1)


def _process(name: str, predicts: str, table: str, steps: int) -> tuple[Preconditioning, Levels]:
    """What the network of any other process is asked for, and the noise levels it is trained on."""
    if name == "flow":
        return preconditioning.Flow(), UniformTimeLevels()
    if name == "ddpm":
        return parameterisation(predicts), schedule(table, steps)
    raise unknown("process", name, PROCESSES)

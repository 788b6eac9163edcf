"""Downscalers with a bounded correction of the coarse rain, and with separate occurrence and amount of rain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoml.data.fields import Batch
from geoml.diffusion.process import SAMPLING, Process, Sampling
from geoml.errors import UserError, unknown
from geoml.models.base import Channels, Model
from geoml.models.diffusion import Diffusion
from geoml.models.regression import masked_loss
from geoml.nn.context import Conditioning
from geoml.nn.options import NETWORK, UNetOptions
from geoml.nn.unet import UNet
from rainshift.models.amounts import LEAST_MM_H, from_latent, from_root, to_latent, to_root
from rainshift.models.slots import SLOT_FIELDS, Slots

__all__ = ["AnchoredDiffusion", "AnchoredRegression"]

AMOUNTS = ("log", "root")
#: Largest ratio of fine rain to interpolated coarse rain, as a power of ten: 10^1.5 = 32.
BOUND = 1.5


def _require_rain(channels: Channels) -> None:
    if len(channels.target) != 1 or channels.guess_index(channels.target[0]) is None:
        raise UserError(
            "anchored models predict rain from its coarse version; set data.first_guess={precipitation: tp}, and "
            "remove other targets"
        )


class AnchoredDiffusion(Diffusion):
    """Diffusion of rain in physical units around the coarse rain; train it with `transforms=physical`.

    The model predicts the rain minus the interpolated coarse rain, as a logarithm (`amounts="log"`) or a fourth root
    ("root"). Dry cells have a different value from the smallest wet rate. The rain in a cell is at most 10^`BOUND`
    times the coarse rain plus 0.1 mm/h. `Slots` reads the predictors; any of them may be missing, and no statistics of
    a region are needed. `exact` declares that the coarse rain is the exact mean of the fine rain. `temperatures`
    multiply the initial noise of members: the first value for coarse rain with errors, the second for exact means.
    Shapes are those of `geoml.models.diffusion.Diffusion`.
    """

    supported_dims = (2,)
    #: Weights do not depend on the predictors, so a training can start from a model with other predictors.
    any_channels: ClassVar[bool] = True

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        process: Process | str | Mapping[str, Any] = "edm",
        network: UNetOptions | Mapping[str, Any] = NETWORK,
        conditioning: Sequence[Conditioning] = ("concat",),
        sampling: Sampling | Mapping[str, Any] = SAMPLING,
        amounts: Literal["log", "root"] = "root",
        exact: bool = False,
        temperatures: Sequence[float] = (1.0, 1.0),
    ) -> None:
        _require_rain(channels)
        if amounts not in AMOUNTS:
            raise unknown("amounts", amounts, AMOUNTS)
        self.amounts = amounts
        given = len(channels.condition) + len(channels.static)
        super().__init__(
            channels, dims, process=process, network=network, conditioning=conditioning, sampling=sampling,
            scale=0.5, more_predictors=SLOT_FIELDS - given,
        )  # fmt: skip
        self.slots = Slots(channels, exact=exact)
        self.temperatures = tuple(map(float, temperatures))
        if len(self.temperatures) != 2 or not all(0 < value <= 2 for value in self.temperatures):
            raise UserError(f"temperatures is {list(temperatures)}; expected two numbers above 0, up to 2")

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        """Compute the loss of the denoiser. In training, random slots are emptied."""
        if batch.target is None or generator is None:
            raise ValueError("the loss of a diffusion needs a batch with a target, and a generator of its noise")
        predictors = self.slots(batch, generator if self.training else None)
        latent = batch.map(target=(to_latent if self.amounts == "log" else to_root)(batch.target))
        return self.denoising_loss(latent, predictors, self.centre(predictors), generator)

    def centre(self, predictors: Tensor) -> Tensor:
        """Return the interpolated coarse rain in the transformed space of the diffusion."""
        if self.amounts == "log":
            return predictors[:, :1]
        return (LEAST_MM_H * (10 ** predictors[:, :1] - 1)).clamp(min=0).pow(0.25)

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """Predict members in mm/h."""
        predictors, points = self.slots(batch), batch.points
        most = LEAST_MM_H * (10 ** (predictors[:, :1] + BOUND) - 1)
        if points is not None:
            # The bound is raised to the largest rain that a station of the sample reports.
            most = torch.maximum(most, points.high.nan_to_num(0.0).amax(1)[:, None, None, None])
            batch = batch.map(points=points.map(to_latent if self.amounts == "log" else to_root))
        with_errors, with_means = self.temperatures
        temperature = with_errors + predictors[:, -1].mean((-2, -1)) * (with_means - with_errors)  # the flag `exact`
        centre = self.centre(predictors)
        latent = self.sample(batch, predictors, centre, members=members, seed=seed, temperature=temperature)
        rain = from_latent(latent) if self.amounts == "log" else from_root(latent)
        return torch.minimum(rain, most.unsqueeze(1))


class AnchoredRegression(Model):
    """U-Net for occurrence and amount of rain in physical units; train it with `transforms=physical`.

    The network has two outputs: the probability of rain, trained with the cross entropy, and the median ratio of fine
    to coarse rain in wet cells, bounded to 10^±`BOUND`. A cell is wet if its probability exceeds a learned threshold,
    which gives the true number of wet cells in training. One output cannot do this: the mean of wet and dry cells is
    wet everywhere, and the median is dry nearly everywhere.
    """

    supported_dims = (2,)
    stochastic: ClassVar[bool] = False
    any_channels: ClassVar[bool] = True

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        network: UNetOptions | Mapping[str, Any] = NETWORK,
        exact: bool = False,
    ) -> None:
        super().__init__(channels, dims)
        _require_rain(channels)
        self.slots = Slots(channels, exact=exact)
        self.network = UNet(SLOT_FIELDS, 2, dims=dims, **vars(UNetOptions.of(network)))
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the log odds of rain, and the latent amount if it rains, both `(batch, 1, *space)`."""
        fields = self.slots(batch, generator)
        given = self.network(fields).float()
        amount = fields[:, :1] + BOUND * torch.tanh(given[:, 1:] / BOUND)
        return given[:, :1] + 4 * fields[:, :1].clamp(max=1) - 3, amount

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        """Compute the cross entropy of rain plus the mean absolute error of its logarithm, over known cells."""
        if batch.target is None:
            raise ValueError("a loss needs a batch with a target")
        odds, amount = self(batch, generator if self.training else None)
        known = torch.ones_like(odds, dtype=torch.bool) if batch.mask is None else batch.mask
        wet = (batch.target >= LEAST_MM_H / 2) & known
        total = known.sum().clamp(min=1)
        occurrence = F.binary_cross_entropy_with_logits(odds, wet.to(odds.dtype), reduction="none")
        amounts = masked_loss(amount, to_latent(batch.target), wet, loss="l1") * (wet.sum() / total)
        # Moves the threshold until the number of wet cells is right; no gradient reaches other parameters.
        excess = (((odds > self.level) & known).sum() - wet.sum()) / total
        own = -self.level * excess.detach() * 10
        return (occurrence * known).sum() / total + 2 * amounts + own - own.detach()

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """Predict rain in mm/h. All members are equal."""
        odds, amount = self(batch)
        rain = from_latent(amount, odds > self.level)
        return rain.unsqueeze(1).expand(-1, members, *rain.shape[1:])

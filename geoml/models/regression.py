"""Base of the regression models: a masked loss, and a residual on the interpolated first guess."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geoml.data.fields import Batch
from geoml.errors import unknown
from geoml.models.base import Channels, Model
from geoml.models.conditioning import first_guess, with_static
from geoml.nn.upsampling import GridUpsample

__all__ = ["LOSSES", "Loss", "Regression", "masked_loss"]

Loss = Literal["mse", "l1", "huber", "pinball"]
LOSSES: tuple[Loss, ...] = ("mse", "l1", "huber", "pinball")


def masked_loss(
    prediction: Float[Tensor, "batch channel *space"],
    target: Float[Tensor, "batch channel *space"],
    mask: Bool[Tensor, "batch channel *space"] | None = None,
    *,
    loss: Loss = "mse",
    quantile: float = 0.5,
    huber_delta: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean error over the True cells of `mask`; values of masked cells, also NaN, have no influence.

    "pinball" is max(q·(y−ŷ), (q−1)·(y−ŷ)), least where ŷ is the quantile q (Koenker & Bassett 1978). With no True
    cell at all the loss is 0.

    >>> y = torch.tensor([1.0, float("nan"), 3.0])
    >>> float(masked_loss(torch.zeros(3), y, torch.tensor([True, False, True]), loss="l1"))
    2.0
    """
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    if mask is not None:
        target = torch.where(mask, target, prediction.detach())
    error = target - prediction
    if loss == "mse":
        value = error.square()
    elif loss == "l1":
        value = error.abs()
    elif loss == "huber":
        value = F.huber_loss(prediction, target, reduction="none", delta=huber_delta)
    else:
        value = torch.maximum(quantile * error, (quantile - 1) * error)
    return value.mean() if mask is None else (value * mask).sum() / mask.sum().clamp(min=1)


def _full(values: Tensor) -> Tensor:
    """Convert to single precision at least, since half precision is too coarse for a sum of errors."""
    return values if values.dtype == torch.float64 else values.float()


class Regression(Model):
    """A deterministic model: first guess + network, trained on a mean error.

    The first guess of a target is the interpolated condition channel that is its coarse version
    (`Channels.guess_index`), 0 where there is none. Subclasses' networks start as zero, so that the untrained model
    *is* the interpolation.
    """

    stochastic: ClassVar[bool] = False

    def __init__(
        self,
        channels: Channels,
        dims: int,
        *,
        loss: Loss = "mse",
        quantile: float = 0.5,
        huber_delta: float = 1.0,
        residual: bool = True,
    ) -> None:
        super().__init__(channels, dims)
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        self.loss_options = {"loss": loss, "quantile": quantile, "huber_delta": huber_delta}
        guesses = [channels.guess_index(name) for name in channels.target]
        self.guesses = guesses if residual else [None] * len(guesses)
        self.to_target = GridUpsample()

    @abstractmethod
    def residual(self, batch: Batch, guess: Float[Tensor, "batch condition *space"]) -> Tensor:
        """Output of the network that is added to the first guess, `(batch, target, *space)`.

        `guess` is the condition interpolated to the target grid.
        """

    def forward(self, batch: Batch) -> Float[Tensor, "batch target *space"]:
        """The prediction in transformed space."""
        interpolated = self.to_target(batch.condition, batch.condition_grid, batch.target_grid)
        correction = self.residual(batch, interpolated)
        if all(index is None for index in self.guesses):
            return correction
        return first_guess(self.guesses, interpolated) + correction

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        """The mean error named by `loss`, over the True cells of the mask."""
        if batch.target is None:
            raise ValueError("a loss needs a batch with a target")
        return masked_loss(_full(self(batch)), batch.target, batch.mask, **self.loss_options)  # type: ignore[arg-type]

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        """The deterministic prediction, equal for all members."""
        prediction = _full(self(batch))
        return prediction.unsqueeze(1).expand(-1, members, *prediction.shape[1:])

    def predictors(self, batch: Batch, interpolated: Tensor) -> Float[Tensor, "batch predictor *space"]:
        """Interpolated conditions and static fields, stacked."""
        return with_static(self.channels, batch, interpolated)

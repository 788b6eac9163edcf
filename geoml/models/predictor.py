"""A trained model with its transforms: input and output are physical fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from geoml.data.fields import Batch
from geoml.errors import Diverged, UserError
from geoml.models.base import Model

if TYPE_CHECKING:
    from geoml.data.transforms import Transforms
    from geoml.train.device import Precision

__all__ = ["Predictor", "is_stochastic", "load_predictor", "members_of", "takes_points"]


@dataclass(frozen=True)
class Predictor:
    """A model in inference mode and the transforms it was trained with."""

    model: Model
    transforms: Transforms
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        from geoml.train.device import autocast

        self.model.eval().requires_grad_(False)
        autocast(self.device, self.precision)  # fail now rather than after reading the data

    @property
    def device(self) -> torch.device:
        """Device of the model's parameters."""
        return next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))

    def predict(
        self, batch: Batch, members: int = 1, seed: int = 0
    ) -> tuple[Float[Tensor, "batch member channel *space"], float]:
        """Predictions of a batch in physical units, and the share of values that the transforms clipped.

        The result is on the batch's device. Members do not depend on batching.
        """
        from geoml.train.device import autocast

        home = batch.condition.device
        # Not inference_mode: regridding matrices made within it, and kept, could not serve a later training.
        with torch.no_grad():
            moved = self.transforms.forward(batch.map(target=None, mask=None).to(self.device))
            with autocast(self.device, self.precision):
                fields = self.model.predict(moved, members=members, seed=seed)
            if not bool(fields.isfinite().all()):
                raise Diverged(f"the prediction of {', '.join(map(str, batch.ids[:3]))} … is not finite")
            physical, clipped_share = self.transforms.inverse_target(fields.float())
        return physical.to(home), float(clipped_share)


def is_stochastic(predictor: Any) -> bool:
    """False if all members of a predictor (or of its model) are equal."""
    return bool(getattr(getattr(predictor, "model", predictor), "stochastic", True))


def takes_points(predictor: Any) -> bool:
    """True if the members of a predictor (or of its model) are conditioned on the points of a batch."""
    return bool(getattr(getattr(predictor, "model", predictor), "takes_points", False))


def members_of(predictor: Any, wanted: int) -> int:
    """Number of members to draw: one if all members are equal, since more would not change a score."""
    if wanted < 1:
        raise UserError(f"members={wanted}; expected 1 or more")
    return wanted if is_stochastic(predictor) else 1


def load_predictor(
    checkpoint: Path | str, *, device: str = "auto", precision: Precision = "fp32", allow: Sequence[str] = ()
) -> Predictor:
    """The predictor of a checkpoint folder, with its averaged weights; every file is verified first.

    For a run or its `checkpoints` folder the best checkpoint is taken, or the newest if none was validated. The package
    of a user-defined model must be in `allow`.

    Errors: `DataError` for a checkpoint that is incomplete or damaged, `UserError` for one of another architecture or
    of a class that is not allowed, `Diverged` for weights that are not finite.
    """
    from geoml.data.transforms import Transforms
    from geoml.train import checkpoint as checkpoints
    from geoml.train.device import choose_device

    folder = checkpoints.chosen(Path(checkpoint))
    checkpoints.verify(folder)
    model = checkpoints.load_model(folder, allow=allow)
    transforms = Transforms.load(folder / "transform.json")
    return Predictor(model.to(choose_device(device)), transforms, precision)

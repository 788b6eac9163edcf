"""General models: weights shipped with the package, trained on random climates, for regions without training data."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.models.base import Channels, Model
from geoml.models.predictor import Predictor
from geoml.nn.conservation import conservation_for
from rainshift.baselines.base import Baseline, first_guesses
from rainshift.models.slots import COARSE_SLOTS

__all__ = ["SEEN", "WEIGHTS", "General", "GeneralRegression", "shipped_sums", "weights_of"]

#: Folders of exported checkpoints with their hashes.
WEIGHTS = Path(__file__).parents[1] / "weights"


def weights_of(name: str) -> Path | None:
    """Return the folder of shipped weights; None for an unknown name."""
    folder = WEIGHTS / name
    return folder if name and Path(name).name == name and (folder / "SHA256SUMS").is_file() else None


def shipped_sums(name: str) -> str:
    """Return the hashes of shipped weights; empty for an unknown name. They are part of the identity of scores."""
    folder = weights_of(name)
    return "" if folder is None else (folder / "SHA256SUMS").read_text(encoding="utf-8")


#: Predictors that the general models use if available, in addition to rain.
SEEN = COARSE_SLOTS


class General(Baseline):
    """Ensemble prediction with the shipped diffusion model (`anchored`). Any predictors may be given; no training.

    `exact` declares that the coarse rain is the exact area mean of the fine rain. It is an input of the network, and
    members then conserve the mean. Otherwise the network estimates the accuracy of the coarse rain from its inputs.
    """

    learns = False
    stochastic = True
    takes_points: ClassVar[bool] = True
    #: Whether large domains are predicted in overlapping tiles.
    tiled: ClassVar[bool] = True
    weights: ClassVar[str] = "general"

    def __init__(self, channels: Channels, dims: int = 2, *, exact: bool = False) -> None:
        super().__init__(channels, dims)
        if not isinstance(exact, bool):
            raise UserError(f"general.exact is {exact!r}; expected true or false")
        self.exact = exact
        (self._guess,) = first_guesses(channels, "the general model")

    @cached_property
    def _predictor(self) -> Predictor:
        """Network for these channels with the shipped weights."""
        from geoml.data.transforms import Transforms
        from geoml.models.registry import build
        from geoml.train import checkpoint
        from geoml.train.device import to_channels_last

        folder = WEIGHTS / self.weights
        checkpoint.verify(folder)
        model = build(checkpoint.load_config(folder)["model"], self.channels, self.dims)
        checkpoint.load_weights(model, folder / "ema.safetensors")
        to_channels_last(model)  # faster on a CPU
        model.slots.exact = self.exact  # type: ignore[union-attr]
        same = {"kind": "identity"}
        transforms = Transforms.from_config({"precipitation": {**same, "lower": 0.0}, "default": same}, self.channels)
        return Predictor(model, transforms)

    @property
    def model(self) -> Model:
        """The network."""
        return self._predictor.model

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Predict rain in mm/h, `(batch, member, 1, lat, lon)`. Also returns the share of clipped values."""
        rain, clipped = self._predictor.predict(batch, members=members, seed=seed)
        if self.exact:
            coarse = batch.condition[:, self._guess].clamp(min=0)[:, None, None]
            rain = conservation_for(batch.target_grid, batch.condition_grid)(rain, coarse, "multiplicative")
        return rain, clipped


class GeneralRegression(General):
    """Prediction with the shipped regression (`anchored-regression`). All members are equal."""

    stochastic = False
    takes_points: ClassVar[bool] = False
    weights: ClassVar[str] = "general-regression"

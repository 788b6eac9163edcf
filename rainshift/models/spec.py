"""Downscalers by name: trained models and baselines built, fitted and found again through one door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from geoml.benchmarking.entries import Entry, parsed
from geoml.cli.config import check_arguments, instantiate, resolve
from geoml.data.fields import Batch
from geoml.errors import UserError, unknown
from geoml.grids.grid import Grid
from geoml.models import registry
from geoml.models.base import Channels, Model
from geoml.models.moved import upgraded
from geoml.models.predictor import Predictor, is_stochastic
from geoml.models.tiles import Tiled, Tiling
from geoml.nn.conservation import METHODS, Method, conservation_for
from rainshift.baselines import Baseline
from rainshift.baselines.base import first_guesses

__all__ = ["Around", "Conserved", "Downscaler", "InTiles", "ModelSpec", "Windowed", "available", "conserved"]

_CONF = Path(__file__).parents[1] / "conf" / "model"


class Downscaler(Protocol):
    """What predicts fine rain: a baseline, or a trained model with its transforms."""

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """`(batch, member, channel, *space)` in mm/h on the target grid, and the share of values that were clipped."""


@dataclass(frozen=True)
class Windowed:
    """A trained model over (time, lat, lon), and how many consecutive hours it sees at once."""

    predictor: Predictor
    window: int

    @property
    def model(self) -> Model:
        """The model within."""
        return self.predictor.model

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """`(batch, member, channel, time, lat, lon)` in mm/h, and the share of values that were clipped."""
        return self.predictor.predict(batch, members, seed)


@dataclass(frozen=True)
class Around:
    """What stands around another downscaler: as random as that, and over as many hours at once."""

    downscaler: Downscaler

    @property
    def stochastic(self) -> bool:
        """False where all members are equal."""
        return is_stochastic(self.downscaler)

    @property
    def window(self) -> int | None:
        """Consecutive hours seen at once; None for single hours."""
        return getattr(self.downscaler, "window", None)


@dataclass(frozen=True)
class InTiles(Around):
    """A downscaler that works on one overlapped tile of a large domain at a time (`geoml.models.tiles`)."""

    tiling: Tiling

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """The rain of the whole domain."""
        return Tiled(self.downscaler, self.tiling).predict(batch, members=members, seed=seed)


@dataclass(frozen=True)
class Conserved(Around):
    """A downscaler whose rain keeps the area means of the coarse rain (`geoml.nn.conservation`).

    For coarse rain that *is* the mean of the fine: pairs of one model, or of fields averaged. ERA5's rain is not
    IMERG's mean, one is a forecast and the other an estimate from satellites: conserving it would force the errors of
    the forecast upon the prediction. It is off unless asked for.
    """

    method: Method
    #: Index of the coarse rain among the predictors.
    guess: int

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """The rain, scaled or shifted to the coarse means; cells at the rim that are not covered whole are exempt."""
        rain, clipped = self.downscaler.predict(batch, members=members, seed=seed)
        grids = (Grid(grid.axes[-2:], grid.crs) for grid in (batch.target_grid, batch.condition_grid))
        coarse = batch.condition[:, self.guess].to(rain.device)[:, None, None]
        return conservation_for(*grids)(rain, coarse, self.method), clipped


def conserved(downscaler: Downscaler, method: str | None, channels: Channels) -> Downscaler:
    """The downscaler with a conservation layer behind it, itself where `method` is None.

    Errors: `UserError` for an unknown method, and where the predictors hold no coarse version of the rain.
    """
    if method is None:
        return downscaler
    if method not in METHODS:
        raise unknown("conservation", method, METHODS)
    (guess,) = first_guesses(channels, "conservation")
    return Conserved(downscaler, method, guess)


def available() -> dict[str, Path]:
    """Every model that has a YAML: the core's networks and RainShift's baselines."""
    return registry.available() | registry.available(_CONF)


@dataclass(frozen=True)
class ModelSpec(Entry):
    """An entry of a benchmark of rain.

    `window` makes it a model over time, of so many consecutive hours at once; None, of single hours. `conservation` is
    the layer behind the prediction, `alignment` the name of how inputs of unseen regions are aligned. `same_as` is the
    row whose training it shares.
    """

    window: int | None = None
    conservation: str | None = None
    alignment: str | None = None
    same_as: str | None = None

    @classmethod
    def of(cls, entry: str | Mapping[str, Any], *, allow: Sequence[str] = ()) -> ModelSpec:
        """From an entry of `models`: a name, a mapping with `_target_`, or `{model: NAME, option: value, …}`.

        A mapping may give the row of the tables a `name` of its own and a `conservation` layer and, to a network, a
        `window` of hours and settings of its own `trainer` (`{model: gan, trainer: {samples: 100000}}`).

        >>> ModelSpec.of({"model": "unet", "base": 8, "name": "small"}).config["network"]["base"]
        8
        """
        name, options, own = parsed(entry, ("window", "trainer", "conservation"))
        window, conservation = own["window"], own["conservation"]
        if (preset := options.pop("model", None)) is not None:
            options = registry.changed(registry.preset(str(preset), available()), options)
        options = upgraded(options)
        if window is not None and (not isinstance(window, int) or window < 2):
            raise UserError(f"window of {name} is {window!r}; expected a whole number of hours, 2 or more")
        if conservation not in (None, *METHODS):
            raise unknown("conservation", conservation, METHODS, hint=f"for {name}")
        return cls(name, options, tuple(allow), window, conservation, trainer=own["trainer"] or {})

    def check(self, channels: Channels) -> None:
        """Raise `UserError` where the class lacks a setting of the row, or the predictors what it asks for."""
        settings = {key: value for key, value in self.config.items() if key != "_target_"}
        kind = resolve(self.config["_target_"], allow=self.allow)
        check_arguments(kind, settings | {"channels": channels, "dims": 2})
        if self.conservation is not None:
            first_guesses(channels, "conservation")

    def aligned(self, alignment: str) -> ModelSpec:
        """The same model, with its inputs aligned where it was not trained, as another row."""
        return replace(self, name=f"{self.name}+{alignment}", alignment=alignment, same_as=self.trained_as)

    def conserving(self, method: Method = "multiplicative") -> ModelSpec:
        """The same model with a conservation layer, as another row."""
        return replace(self, name=f"{self.name}+conserved", conservation=method, same_as=self.trained_as)

    @property
    def trained_as(self) -> str:
        """The name of the row that the model is trained for."""
        return self.same_as or self.name

    def build(self, channels: Channels) -> Model | Baseline:
        """The untrained model, over time where there is a window, or the baseline."""
        dims = 2 if self.window is None else 3
        kind = resolve(self.config["_target_"], allow=self.allow)
        if not issubclass(kind, Baseline):
            return registry.build(self.config, channels, dims, allow=self.allow)
        if self.window is not None:
            raise UserError(f"{self.name} takes every hour for itself; leave its window out")
        baseline: Baseline = instantiate(self.config, allow=self.allow, channels=channels, dims=dims)
        return baseline

    @property
    def identity(self) -> dict[str, Any]:
        """What a training of the model depends on."""
        own = {"window": self.window, "trainer": dict(self.trainer)}
        return dict(self.config) | {key: value for key, value in own.items() if value}

    @property
    def is_network(self) -> bool:
        """Whether it is a model with weights, no baseline."""
        return not issubclass(resolve(self.config["_target_"], allow=self.allow), Baseline)

    @property
    def learns(self) -> bool:
        """Whether the model depends on training data."""
        kind = resolve(self.config["_target_"], allow=self.allow)
        return kind.learns if issubclass(kind, Baseline) else True

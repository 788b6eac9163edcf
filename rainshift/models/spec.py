"""Specification of downscalers by name: one interface to build, fit and load trained models and baselines."""

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
from geoml.models.predictor import Predictor, is_stochastic, takes_points
from geoml.models.tiles import Tiled, Tiling
from geoml.nn.conservation import METHODS, Method, conservation_for
from rainshift.baselines import Baseline
from rainshift.baselines.base import first_guesses
from rainshift.models.general import shipped_sums, weights_of
from rainshift.models.slots import Slots

__all__ = [
    "Around",
    "Conserved",
    "Downscaler",
    "InTiles",
    "ModelSpec",
    "Windowed",
    "available",
    "conserved",
    "outside_share",
]

_CONF = Path(__file__).parents[1] / "conf" / "model"


class Downscaler(Protocol):
    """Interface of everything that predicts fine rain: baselines, and trained models with their transforms."""

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Predict rain `(batch, member, channel, *space)` in mm/h. Also returns the share of clipped values."""


@dataclass(frozen=True)
class Windowed:
    """A trained model over (time, lat, lon); `window` is the number of consecutive hours in one input."""

    predictor: Predictor
    window: int

    @property
    def model(self) -> Model:
        """The wrapped model."""
        return self.predictor.model

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Predict rain `(batch, member, channel, time, lat, lon)` in mm/h. Also returns the share of clipped values."""
        return self.predictor.predict(batch, members, seed)


@dataclass(frozen=True)
class Around:
    """Base class of wrappers. `stochastic` and `window` are taken from the wrapped downscaler."""

    downscaler: Downscaler

    @property
    def stochastic(self) -> bool:
        """False if all members are equal."""
        return is_stochastic(self.downscaler)

    @property
    def takes_points(self) -> bool:
        """Whether the downscaler can condition members on observations."""
        return takes_points(self.downscaler)

    @property
    def window(self) -> int | None:
        """Number of consecutive hours in one input; None for single hours."""
        return getattr(self.downscaler, "window", None)


@dataclass(frozen=True)
class InTiles(Around):
    """A wrapper that predicts large domains in overlapping tiles (`geoml.models.tiles`)."""

    tiling: Tiling

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Predict the rain of the complete domain."""
        return Tiled(self.downscaler, self.tiling).predict(batch, members=members, seed=seed)


@dataclass(frozen=True)
class Conserved(Around):
    """A wrapper whose rain conserves the area means of the coarse rain (`geoml.nn.conservation`).

    Use it only if the coarse rain *is* the mean of the fine rain, as in pairs from one model or from averaging. Pairs
    of ERA5 and IMERG are no such case: a forecast is not the mean of a satellite estimate, and conservation would force
    the errors of the forecast onto the prediction. Conservation is off by default.
    """

    method: Method
    #: Index of the coarse rain among the predictors.
    guess: int

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Predict rain, scaled to the coarse means. Coarse cells that the domain covers only partly are not scaled."""
        rain, clipped = self.downscaler.predict(batch, members=members, seed=seed)
        grids = (Grid(grid.axes[-2:], grid.crs) for grid in (batch.target_grid, batch.condition_grid))
        coarse = batch.condition[:, self.guess].to(rain.device)[:, None, None]
        return conservation_for(*grids)(rain, coarse, self.method), clipped


def conserved(downscaler: Downscaler, method: str | None, channels: Channels) -> Downscaler:
    """Add a conservation layer to a downscaler; returns it unchanged if `method` is None.

    Raises `UserError` for an unknown method, or if the predictors have no coarse version of the rain.
    """
    if method is None:
        return downscaler
    if method not in METHODS:
        raise unknown("conservation", method, METHODS)
    (guess,) = first_guesses(channels, "conservation")
    return Conserved(downscaler, method, guess)


def outside_share(downscaler: Downscaler) -> float | None:
    """Return the share of predictor values outside the training range since the last call.

    Such values were clipped or ignored. Returns None for models that do not count them.
    """
    while isinstance(downscaler, Around):
        downscaler = downscaler.downscaler
    slots = getattr(getattr(downscaler, "model", None), "slots", None)
    return slots.taken_outside() if isinstance(slots, Slots) else None


def available() -> dict[str, Path]:
    """Return the YAML file of every available model: the networks of `geoml` and the baselines of `rainshift`."""
    return registry.available() | registry.available(_CONF)


@dataclass(frozen=True)
class ModelSpec(Entry):
    """One entry of a rain benchmark.

    Attributes:
        window: number of consecutive hours in one input of a model over time; None for single hours.
        conservation: name of the conservation layer.
        alignment: name of the method that aligns the predictors of unseen regions.
        same_as: name of the entry whose training this entry uses.
        start: initial weights: a run folder or the name of shipped weights.
        local_hours: number of contiguous hours of the test region for fine-tuning
            (`rainshift.benchmarking.adaptation`); None for a usual training.
    """

    window: int | None = None
    conservation: str | None = None
    alignment: str | None = None
    same_as: str | None = None
    start: str | None = None
    local_hours: int | None = None

    @classmethod
    def of(cls, entry: str | Mapping[str, Any], *, allow: Sequence[str] = ()) -> ModelSpec:
        """Parse an entry of `models`: a name, a mapping with `_target_`, or `{model: NAME, option: value, …}`.

        A mapping may also set the `name` in tables and the `conservation` layer and, for a network, the `window` in
        hours, the initial weights (`start`) and trainer settings for this entry alone
        (`{model: gan, trainer: {samples: 100000}}`). Raises `UserError` for unknown names and invalid values.

        >>> ModelSpec.of({"model": "unet", "base": 8, "name": "small"}).config["network"]["base"]
        8
        """
        name, options, own = parsed(entry, ("window", "trainer", "conservation", "start"))
        window, conservation = own["window"], own["conservation"]
        if (preset := options.pop("model", None)) is not None:
            options = registry.changed(registry.preset(str(preset), available()), options)
        options = upgraded(options)
        if window is not None and (not isinstance(window, int) or window < 2):
            raise UserError(f"window of {name} is {window!r}; expected a whole number of hours, 2 or more")
        if conservation not in (None, *METHODS):
            raise unknown("conservation", conservation, METHODS, hint=f"for {name}")
        start = None if own["start"] is None else str(own["start"])
        return cls(name, options, tuple(allow), window, conservation, start=start, trainer=own["trainer"] or {})

    def check(self, channels: Channels) -> None:
        """Raise `UserError` for an unknown setting or a missing required predictor."""
        settings = {key: value for key, value in self.config.items() if key != "_target_"}
        kind = resolve(self.config["_target_"], allow=self.allow)
        check_arguments(kind, settings | {"channels": channels, "dims": 2})
        if self.conservation is not None:
            first_guesses(channels, "conservation")

    def aligned(self, alignment: str) -> ModelSpec:
        """Return a copy of this entry that aligns predictors in regions without training."""
        return replace(self, name=f"{self.name}+{alignment}", alignment=alignment, same_as=self.trained_as)

    def conserving(self, method: Method = "multiplicative", *, keep_name: bool = False) -> ModelSpec:
        """Return a copy of this entry with a conservation layer, with the same name if `keep_name`."""
        if keep_name:
            return replace(self, conservation=method)
        return replace(self, name=f"{self.name}+conserved", conservation=method, same_as=self.trained_as)

    def with_local_hours(self, hours: int) -> ModelSpec:
        """Return a copy of this entry that is fine-tuned on `hours` local hours."""
        return replace(self, name=f"{self.name}+{hours}h", local_hours=hours)

    @property
    def trained_as(self) -> str:
        """The name of the entry whose training this entry uses."""
        return self.same_as or self.name

    def build(self, channels: Channels) -> Model | Baseline:
        """Build the baseline or the untrained model; a model over time if there is a `window`."""
        dims = 2 if self.window is None else 3
        kind = resolve(self.config["_target_"], allow=self.allow)
        if not issubclass(kind, Baseline):
            return registry.build(self.config, channels, dims, allow=self.allow)
        if self.window is not None:
            raise UserError(f"{self.name} is a baseline that predicts single hours; remove window from its entry")
        baseline: Baseline = instantiate(self.config, allow=self.allow, channels=channels, dims=dims)
        return baseline

    @property
    def identity(self) -> dict[str, Any]:
        """All settings that affect a training of the model."""
        begun = self.start and (shipped_sums(self.start) or self.start)
        own: dict[str, Any] = {"window": self.window, "trainer": dict(self.trainer), "start": begun}
        if self.shipped is not None:
            own["weights"] = shipped_sums(self.shipped)
        local = {} if self.local_hours is None else {"local_hours": self.local_hours}
        return dict(self.config) | {key: value for key, value in own.items() if value} | local

    @property
    def is_network(self) -> bool:
        """Whether the model is a network and not a baseline."""
        return not issubclass(resolve(self.config["_target_"], allow=self.allow), Baseline)

    @property
    def shipped(self) -> str | None:
        """Name of the shipped weights of a general model; None for other models."""
        return getattr(resolve(self.config["_target_"], allow=self.allow), "weights", None)

    @property
    def starting(self) -> Path | None:
        """Folder of the initial weights; None for random weights."""
        return None if self.start is None else weights_of(self.start) or Path(self.start)

    @property
    def start_is_shipped(self) -> bool:
        """Whether the initial weights are shipped with the package."""
        return self.start is not None and weights_of(self.start) is not None

    @property
    def in_tiles(self) -> bool:
        """Whether large domains are predicted in tiles."""
        kind = resolve(self.config["_target_"], allow=self.allow)
        return self.is_network or bool(getattr(kind, "tiled", False))

    def with_exact(self, exact: bool) -> ModelSpec:
        """Return this entry with `exact` set, if `exact` is true and its weights are those of a general model."""
        if not exact or (self.shipped is None and not self.start_is_shipped):
            return self
        return replace(self, config={**self.config, "exact": True})

    @property
    def learns(self) -> bool:
        """Whether the model depends on training data."""
        kind = resolve(self.config["_target_"], allow=self.allow)
        return kind.learns if issubclass(kind, Baseline) else True

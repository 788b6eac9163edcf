"""Downscalers by name: trained models and baselines built, fitted and found again through one door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from geoml.config import instantiate, resolve
from geoml.errors import UserError, unknown
from geoml.fields import Batch
from geoml.models import registry
from geoml.models.base import Channels, Model
from geoml.models.predictor import Predictor
from geoml.runs import plain
from rainshift.baselines import Baseline

__all__ = ["Downscaler", "ModelSpec", "Windowed", "available"]

_CONF = Path(__file__).parent / "conf" / "model"


class Downscaler(Protocol):
    """What predicts fine rain: a baseline, or a trained model with its transforms."""

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
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


def available() -> dict[str, Path]:
    """Every model that has a YAML: the core's networks and RainShift's baselines."""
    return registry.available() | registry.available(_CONF)


@dataclass(frozen=True)
class ModelSpec:
    """A model of a benchmark: its name in the tables and the configuration it is built from.

    `allow` lists packages of the user's own that `_target_` may name. `window` makes it a model over time, of so many
    consecutive hours at once; None, of single hours.
    """

    name: str
    config: Mapping[str, Any]
    allow: tuple[str, ...] = ()
    window: int | None = None

    @classmethod
    def of(cls, entry: str | Mapping[str, Any], *, allow: Sequence[str] = ()) -> ModelSpec:
        """From an entry of `models`: a name, a mapping with `_target_`, or `{model: NAME, option: value, …}`.

        A mapping may give the row of the tables a `name` of its own and, to a network, a `window` of hours.

        >>> ModelSpec.of({"model": "unet", "base": 8, "name": "small"}).config["base"]
        8
        """
        if isinstance(entry, str):
            entry = {"model": entry}
        options = plain(entry)
        preset, name, window = (options.pop(key, None) for key in ("model", "name", "window"))
        if (preset is None) == ("_target_" not in options):
            raise UserError(f"model entry {plain(entry)} needs either `model: NAME` or `_target_: module.Class`")
        if preset is not None:
            options = _preset(str(preset)) | options
        name = str(name or preset or options["_target_"].rpartition(".")[2])
        if window is not None and (not isinstance(window, int) or window < 2):
            raise UserError(f"window of {name} is {window!r}; expected a whole number of hours, 2 or more")
        return cls(name, options, tuple(allow), window)

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
        return dict(self.config) | ({} if self.window is None else {"window": self.window})

    @property
    def learns(self) -> bool:
        """Whether the model depends on training data."""
        kind = resolve(self.config["_target_"], allow=self.allow)
        return kind.learns if issubclass(kind, Baseline) else True


def _preset(name: str) -> dict[str, Any]:
    import yaml

    known = available()
    if name not in known:
        raise unknown("model", name, known)
    return dict(yaml.safe_load(known[name].read_text()))

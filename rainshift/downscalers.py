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
from geoml.runs import plain
from rainshift.baselines import Baseline

__all__ = ["Downscaler", "ModelSpec", "available"]

_CONF = Path(__file__).parent / "conf" / "model"


class Downscaler(Protocol):
    """What predicts fine rain: a baseline, or a trained model with its transforms."""

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """`(batch, member, channel, *space)` in mm/h on the target grid, and the share of values that were clipped."""


def available() -> dict[str, Path]:
    """Every model that has a YAML: the core's networks and RainShift's baselines."""
    return registry.available() | registry.available(_CONF)


@dataclass(frozen=True)
class ModelSpec:
    """A model of a benchmark: its name in the tables and the configuration it is built from.

    `allow` lists packages of the user's own that `_target_` may name.
    """

    name: str
    config: Mapping[str, Any]
    allow: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: str | Mapping[str, Any], *, allow: Sequence[str] = ()) -> ModelSpec:
        """From an entry of `models`: a name, a mapping with `_target_`, or `{model: NAME, option: value, …}`.

        A mapping may give the row of the tables a `name` of its own.

        >>> ModelSpec.of({"model": "unet", "base": 8, "name": "small"}).config["base"]
        8
        """
        if isinstance(entry, str):
            entry = {"model": entry}
        options = plain(entry)
        preset, name = options.pop("model", None), options.pop("name", None)
        if (preset is None) == ("_target_" not in options):
            raise UserError(f"model entry {plain(entry)} needs either `model: NAME` or `_target_: module.Class`")
        if preset is not None:
            options = _preset(str(preset)) | options
        return cls(str(name or preset or options["_target_"].rpartition(".")[2]), options, tuple(allow))

    def build(self, channels: Channels, dims: int = 2) -> Model | Baseline:
        """The untrained model, or the baseline."""
        kind = resolve(self.config["_target_"], allow=self.allow)
        if issubclass(kind, Baseline):
            baseline: Baseline = instantiate(self.config, allow=self.allow, channels=channels, dims=dims)
            return baseline
        return registry.build(self.config, channels, dims, allow=self.allow)

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

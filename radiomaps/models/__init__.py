"""Networks for radio maps, based on the U-Net and diffusion of `geoml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoml.models.base import Channels, Model

__all__ = ["available", "build", "config_of"]

_CONF = Path(__file__).parent.parent / "conf" / "model"


def available() -> dict[str, Path]:
    """All model presets by name: those of `geoml` and those for radio maps.

    >>> {"edm", "radiodiff3d"} <= set(available())
    True
    """
    from geoml.models import registry

    return registry.available() | registry.available(_CONF)


def config_of(entry: str | Mapping[str, Any]) -> dict[str, Any]:
    """The complete configuration of an entry: a name, a mapping with `_target_`, or `{model: NAME, option: value, …}`.

    >>> config_of({"model": "radiodiff3d", "sampling": {"steps": 2}})["sampling"]["steps"]
    2
    """
    from geoml.errors import UserError
    from geoml.models.moved import upgraded
    from geoml.models.registry import changed, preset
    from geoml.runs.folder import plain

    options = {"model": entry} if isinstance(entry, str) else plain(entry)
    name = options.pop("model", None)
    if (name is None) == ("_target_" not in options):
        raise UserError(f"model entry {entry} needs either `model: NAME` or `_target_: module.Class`")
    return upgraded(options) if name is None else changed(preset(str(name), available()), options)


def build(entry: str | Mapping[str, Any], channels: Channels, *, allow: Sequence[str] = (), seed: int = 0) -> Model:
    """The untrained model of an entry, over z, y, x; its weights depend on the seed alone."""
    import torch

    from geoml.models import registry

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return registry.build(config_of(entry), channels, 3, allow=allow)

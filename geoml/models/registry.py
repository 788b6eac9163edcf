"""Models by name, and building them from a configuration."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from geoml.errors import UserError, unknown
from geoml.models.base import Channels, Model

__all__ = ["available", "build", "preset"]

_CONF = Path(__file__).parent.parent / "conf" / "model"


def available(folder: Path = _CONF) -> dict[str, Path]:
    """Names of configurations and their YAML: `resnet` of model `resnet`, `resnet-large` a larger one of the same."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def preset(name: str) -> dict[str, Any]:
    """The configuration of that name: `_target_` and the arguments.

    >>> preset("unet")["_target_"]
    'geoml.models.unet.UNetRegression'
    """
    paths = available()
    if name not in paths:
        raise unknown("model", name, paths)
    return dict(yaml.safe_load(paths[name].read_text()))


def build(config: Mapping[str, Any] | str, channels: Channels, dims: int, *, allow: Sequence[str] = ()) -> Model:
    """The untrained model of a configuration: a mapping with `_target_`, or the name of a preset.

    The class is called as `cls(channels, dims, **arguments)`. Beside geoml's own packages only modules under the
    prefixes in `allow` are imported. The configuration stays with the model, so that a checkpoint can rebuild it.
    """
    config = preset(config) if isinstance(config, str) else dict(config)
    arguments = {key: value for key, value in config.items() if key != "_target_"}
    model = _class(str(config.get("_target_")), allow)(channels, dims, **arguments)
    if not isinstance(model, Model):
        raise UserError(
            f"{config['_target_']} is {type(model).__name__}; expected a subclass of geoml.models.base.Model"
        )
    model.config = config
    return model


def _class(target: str, allow: Sequence[str]) -> Any:
    """The object at a dotted path under an allowed prefix; nothing else is even imported."""
    module, _, name = target.rpartition(".")
    prefixes = ("geoml.models", "rainshift.models", "radiomaps.models", *allow)
    if not any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes):
        raise UserError(f"model._target_={target} is not allowed; allowed are modules under {', '.join(prefixes)}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"model._target_={target} cannot be imported ({error})") from error

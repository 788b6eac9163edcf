"""Names of model presets, and models built from configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from geoml.cli.config import instantiate
from geoml.errors import unknown
from geoml.models.base import Channels, Model
from geoml.models.moved import upgraded
from geoml.runs.folder import plain

__all__ = ["available", "build", "changed", "kind_of", "preset"]

_CONF = Path(__file__).parent.parent / "conf" / "model"


def available(folder: Path = _CONF) -> dict[str, Path]:
    """Map preset names to their YAML files; `resnet-large` is a larger `resnet`."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def preset(name: str, paths: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Load the preset `name`: `_target_` and arguments; `paths` maps the names of a domain's presets to files.

    >>> preset("unet")["_target_"]
    'geoml.models.unet.UNetRegression'
    """
    paths = available() if paths is None else paths
    if name not in paths:
        raise unknown("model", name, paths)
    return dict(yaml.safe_load(paths[name].read_text(encoding="utf-8")))


def changed(config: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with changed values; nested mappings are merged key by key.

    >>> changed(preset("edm"), {"network": {"base": 4}, "process": "flow", "steps": 2})["network"]["base"]
    4
    """
    made = dict(config)
    for key, value in options.items():
        before = made.get(key)
        inner = {"name": value} if key == "process" and isinstance(value, str) else value
        nested = isinstance(before, Mapping) and isinstance(inner, Mapping)
        made[key] = {**before, **inner} if nested else value  # type: ignore[dict-item]
    return upgraded(made)


def kind_of(config: Mapping[str, Any]) -> str:
    """Short name of a configured model: the process of a `Diffusion`, else the module of its class.

    >>> kind_of(preset("edm-large")), kind_of(preset("unet"))
    ('edm', 'unet')
    """
    today = upgraded(config)
    stem = str(today["_target_"]).rpartition(".")[0].rpartition(".")[2]
    process = today.get("process", "edm")
    return str(process["name"] if isinstance(process, Mapping) else process) if stem == "diffusion" else stem


def build(config: Mapping[str, Any] | str, channels: Channels, dims: int, *, allow: Sequence[str] = ()) -> Model:
    """The untrained model of a configuration: a mapping with `_target_`, or the name of a preset.

    The class is called as `cls(channels=…, dims=…, **arguments)`. Only geoml's packages and those in `allow` are
    imported. The configuration is stored in `model.config`, so that a checkpoint can rebuild the model.

    Errors: `UserError` for a target that is not allowed or no `Model`, and for arguments it does not take.
    """
    config = upgraded(preset(config) if isinstance(config, str) else plain(config))
    model: Model = instantiate(config, allow=allow, kind=Model, channels=channels, dims=dims)
    model.config = config
    return model

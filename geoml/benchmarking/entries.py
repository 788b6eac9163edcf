"""Entries of a benchmark: a name, the configuration of a model, and changes of the training options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from geoml.errors import UserError
from geoml.runs.folder import plain

__all__ = ["Entry", "by_name", "parsed"]

E = TypeVar("E", bound="Entry")


@dataclass(frozen=True)
class Entry:
    """One row of a benchmark: `config` builds its model, `trainer` overrides options of the common training.

    `allow` lists user packages whose classes `config` may name.
    """

    name: str
    config: Mapping[str, Any]
    allow: tuple[str, ...] = ()
    trainer: Mapping[str, Any] = field(default_factory=dict, kw_only=True)


def parsed(entry: str | Mapping[str, Any], own: Sequence[str]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Split an entry of `models` into its name, model configuration and the values of the keys `own` (default: None).

    An entry is the name of a preset, or a mapping with either `model: NAME` or `_target_: module.Class`, an optional
    `name` of its row, the keys `own`, and settings of the model.

    >>> parsed({"model": "unet", "base": 8, "name": "small"}, ["trainer"])
    ('small', {'model': 'unet', 'base': 8}, {'trainer': None})
    """
    config: dict[str, Any] = {"model": entry} if isinstance(entry, str) else plain(entry)
    name, preset, target = config.pop("name", None), config.get("model"), config.get("_target_")
    if (preset is None) == (target is None):
        raise UserError(f"model entry {plain(config)} needs either `model: NAME` or `_target_: module.Class`")
    changes = {key: config.pop(key, None) for key in own}
    return str(name or preset or str(target).rpartition(".")[2]), config, changes


def by_name(entries: Iterable[E]) -> dict[str, E]:
    """Map names to entries. Raises `UserError` if two entries have the same name."""
    found: dict[str, E] = {}
    for entry in entries:
        if entry.name in found:
            raise UserError(f"models has two rows with the name {entry.name!r}; rename one of them with name: NAME")
        found[entry.name] = entry
    return found

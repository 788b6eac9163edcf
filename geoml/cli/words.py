"""Run verbs from Python: convert settings to command-line words and run the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geoml.cli import verbs
from geoml.cli.compose import compose
from geoml.cli.definitions import App
from geoml.errors import UserError

__all__ = ["preset_words", "run_verb", "words_of"]


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """Convert settings to command-line words `KEY=VALUE`; double underscores in names become dots.

    >>> words_of({"trainer__samples": 8, "run.dir": None, "models": ["idw", {"model": "unet3d", "base": 4}]})
    ['trainer.samples=8', 'run.dir=null', "models=['idw',{model:'unet3d',base:4}]"]
    """
    return [f"{key.replace('__', '.')}={_word(value)}" for key, value in settings.items()]


def preset_words(group: str, chosen: str | Mapping[str, Any]) -> list[str]:
    """Command-line words that select a choice of a group, given its name or a mapping of name and changed settings.

    >>> preset_words("model", {"model": "unet3d", "network": {"base": 4}})
    ['model=unet3d', 'model.network.base=4']
    """
    if isinstance(chosen, str):
        return [f"{group}={chosen}"]
    values = dict(chosen)
    name = values.pop(group, None)
    return [*([] if name is None else [f"{group}={name}"]), *_leaves(group, values)]


def _leaves(prefix: str, values: Mapping[str, Any]) -> list[str]:
    """Return one word per value of nested mappings; settings that are not named keep their defaults."""
    words = []
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        words += _leaves(f"{prefix}.{key}", value) if nested else words_of({f"{prefix}.{key}": value})
    return words


def run_verb(app: App, name: str, words: Sequence[str], settings: Mapping[str, Any]) -> Path:
    """Run a verb with command-line words and `settings`; returns its run folder.

    If the same run is already finished, its folder is returned without running again. Raises the errors of the verb,
    and `UserError` for unknown words and settings.
    """
    every = [*words, *words_of(settings)]
    config = compose(app.config_module, name, every)
    verbs.run_job(app, app.verb(name), config, every)
    return verbs.run_path(name, config, every)


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_word(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(_word(item) for item in value) + "]"
    if isinstance(value, str | Path):
        quoted = str(value).replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    if not isinstance(value, int | float):
        raise UserError(f"setting of type {type(value).__name__}; expected text, a number, a list or a mapping")
    return str(value)

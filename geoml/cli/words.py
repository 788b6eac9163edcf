"""Verbs from Python: settings as the words of a command line, and the run that they stand for."""

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
    """Python values as words of a command line; double underscores in names stand for dots.

    >>> words_of({"trainer__samples": 8, "run.dir": None, "models": ["idw", {"model": "unet3d", "base": 4}]})
    ['trainer.samples=8', 'run.dir=null', "models=['idw',{model:'unet3d',base:4}]"]
    """
    return [f"{key.replace('__', '.')}={_word(value)}" for key, value in settings.items()]


def preset_words(group: str, chosen: str | Mapping[str, Any]) -> list[str]:
    """The words that choose a configuration of a group: a name, or a mapping of its name and changed settings.

    >>> preset_words("model", {"model": "unet3d", "network": {"base": 4}})
    ['model=unet3d', 'model.network.base=4']
    """
    if isinstance(chosen, str):
        return [f"{group}={chosen}"]
    values = dict(chosen)
    name = values.pop(group, None)
    return [*([] if name is None else [f"{group}={name}"]), *_leaves(group, values)]


def _leaves(prefix: str, values: Mapping[str, Any]) -> list[str]:
    """One word for each value in nested mappings, so that what is not named keeps its default."""
    words = []
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        words += _leaves(f"{prefix}.{key}", value) if nested else words_of({f"{prefix}.{key}": value})
    return words


def run_verb(app: App, name: str, words: Sequence[str], settings: Mapping[str, Any]) -> Path:
    """Run a verb as its command line would, with `settings` added to the words; returns its run folder.

    A run that is finished is found again. Errors: those of the verb, `UserError` for unknown words and settings.
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
        raise UserError(f"{type(value).__name__} came as a setting; expected text, a number, a list or a mapping")
    return str(value)

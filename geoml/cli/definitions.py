"""The parts of a command line: an `App`, its `Verb`s and the functions that they refer to."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geoml.errors import UserError, missing_packages, unknown

__all__ = ["App", "Verb", "load_function"]


@dataclass(frozen=True)
class Verb:
    """One verb of a command line.

    `function` is "module:name". It takes the configuration (a resolved, read-only `DictConfig`) and, with
    `run_folder`, a `geoml.runs.folder.RunFolder`, and returns the rows of a table to print, or None. A `plain` verb has
    no configuration: its function takes the list of its arguments and returns rows, an exit code or None.
    """

    name: str
    function: str
    help: str
    example: str = ""
    run_folder: bool = True
    plain: bool = False


@dataclass(frozen=True)
class App:
    """A command line: its name, the package of its configurations, and its verbs.

    `extra` is the optional dependency group (pip extra) that the verbs need. `renamed` has pairs of the former and the
    present name of a verb.
    """

    name: str
    config_module: str
    verbs: tuple[Verb, ...]
    help: str = ""
    extra: str = "all"
    renamed: tuple[tuple[str, str], ...] = ()

    def verb(self, name: str) -> Verb:
        """The verb of this name; raises `UserError` with the nearest name if there is none."""
        for verb in self.verbs:
            if verb.name == name:
                return verb
        if name in dict(self.renamed):
            raise UserError(f"verb {name!r} is now {dict(self.renamed)[name]!r}, with the same settings")
        raise unknown("verb", name, (verb.name for verb in self.verbs), hint=f"`{self.name} --help` lists them")


def load_function(reference: str, *, extra: str = "all") -> Callable[..., Any]:
    """Import the function "module:name"; a missing package raises `UserError` with the command that installs it."""
    module, _, name = reference.partition(":")
    with missing_packages(extra):
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return loaded

"""Public names of a package: imported on first use, listed by `dir`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

__all__ = ["publish"]


class _Package(ModuleType):
    """A package whose public names are imported when they are first used."""

    __all__: list[str]
    _places: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._places:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, _, attribute = self._places[name].partition(":")
        loaded: Any = importlib.import_module(module)
        return getattr(loaded, attribute) if attribute else loaded

    def __dir__(self) -> list[str]:
        return list(self.__all__)


def publish(package: str, names: Mapping[str, str]) -> None:
    """Give a package its public names: `{"load": "rainshift.api:load", "scores": "geoml.scores"}`.

    Args:
        package: the `__name__` of the package, from its `__init__.py`.
        names: public name → location of the object, "module:attribute" or "module".

    Nothing is imported before a name is used. `dir(package)` lists exactly these names.

    >>> import geoml
    >>> dir(geoml)
    ['Grid', 'Regridder', 'scores']
    """
    module = sys.modules[package]
    module.__dict__.update(_places=dict(names), __all__=sorted(names))
    module.__class__ = _Package

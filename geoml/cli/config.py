"""Build objects from configurations: `_target_` behind an allow-list, arguments checked first.

A `_target_` executes code, and configurations arrive with checkpoints of unknown origin. A target must therefore be a
public class of an allowed package, named by the module that defines it; nothing else is imported.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from geoml.errors import UserError, unknown

__all__ = ["ALLOWED", "build", "check_arguments", "instantiate", "resolve"]

#: Packages whose classes a configuration may name; `allow_targets=[package]` adds others.
ALLOWED = ("geoml", "rainshift", "radiomaps", "mcp_experts")

T = TypeVar("T")


def _within(module: str, allow: Iterable[str]) -> bool:
    return any(module == prefix.rstrip(".") or module.startswith(prefix.rstrip(".") + ".") for prefix in allow)


def resolve(target: object, *, allow: Iterable[str] = ()) -> type:
    """Return the class of a `_target_` "package.module.Class", whose package must be in `ALLOWED` or `allow`.

    Raises `UserError`, before any import if possible, for other packages, private names, objects that are not classes,
    and names that an allowed module imported from another package.

    >>> resolve("geoml.runs.folder.MetricsLog").__name__
    'MetricsLog'
    >>> resolve("os.system")
    Traceback (most recent call last):
    geoml.errors.UserError: _target_ 'os.system' is not in an allowed package (geoml, rainshift, radiomaps, \
mcp_experts); allow_targets=[os] would allow it, where you trust it
    """
    allowed = (*ALLOWED, *allow)
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        raise UserError(f"_target_ {target!r} is not of the form package.module.Class")
    module_name, _, name = target.rpartition(".")
    if not _within(module_name, allowed):
        top = target.partition(".")[0]
        raise UserError(
            f"_target_ {target!r} is not in an allowed package ({', '.join(allowed)}); allow_targets=[{top}] would "
            "allow it, where you trust it"
        )
    if any(part.startswith("_") for part in target.split(".")):
        raise UserError(f"_target_ {target!r} names something private")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"_target_ {target!r}: {module_name} cannot be imported ({error}); install it, or set PYTHONPATH to the "
            "folder that holds it"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        public = [key for key, value in vars(module).items() if isinstance(value, type) and not key.startswith("_")]
        raise unknown(f"class of {module_name}", name, public)
    if not isinstance(found, type):
        raise UserError(f"_target_ {target!r} is {type(found).__name__}, not a class")
    if not _within(found.__module__, allowed):
        raise UserError(f"_target_ {target!r} is defined in {found.__module__}, which is not an allowed package")
    return found


def build(kind: type[T], arguments: Mapping[str, Any], *, where: str = "") -> T:
    """Return `kind(**arguments)`; unknown or missing arguments raise `UserError`. `where` is their path in messages.

    >>> from geoml.models.base import Channels
    >>> build(Channels, {"condition": ("tp",), "targt": ("rain",)}, where="model.channels")
    Traceback (most recent call last):
    geoml.errors.UserError: setting 'model.channels.targt' unknown; did you mean 'model.channels.target'? (known: \
model.channels.condition, model.channels.first_guess, model.channels.static, model.channels.target) for Channels
    """
    check_arguments(kind, arguments, where=where)
    return kind(**arguments)


def check_arguments(kind: type, arguments: Mapping[str, Any], *, where: str = "") -> None:
    """Raise `UserError` if `arguments` lack a required argument of `kind` or contain an unknown one."""
    signature = inspect.signature(kind)
    prefix = f"{where}." if where else ""
    parameters = signature.parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        names = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]
        for key in arguments:
            if key not in names:
                choices = [prefix + name for name in names]
                raise unknown("setting", prefix + str(key), choices, hint=f"for {kind.__name__}")
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise UserError(f"{where or kind.__name__}: {error} of {kind.__name__}") from error


def instantiate(
    config: Mapping[str, Any], *, allow: Iterable[str] = (), kind: type | None = None, **arguments: Any
) -> Any:
    """Build the object that a configuration describes by `_target_` and arguments; nested objects are built first.

    All targets are checked before the first is built. `kind` is the required class of the result. Keyword `arguments`
    go to the outermost class and override the configured ones.

    Raises `UserError` for a target that is not allowed (see `resolve`), of the wrong class, or with wrong arguments.
    """
    allow = tuple(allow)
    checked = _checked(config, allow)
    if not isinstance(checked, _Planned):
        raise UserError(f"expected a configuration with _target_, found the keys {', '.join(map(str, config))}")
    if kind is not None and not issubclass(checked.kind, kind):
        raise UserError(f"_target_ {config['_target_']!r} is not a {kind.__name__}")
    return checked.build(arguments)


class _Planned:
    """An allowed class with its arguments, which may contain further plans."""

    def __init__(self, kind: type, arguments: dict[str, Any], where: str) -> None:
        self.kind, self.arguments, self.where = kind, arguments, where

    def build(self, extra: Mapping[str, Any]) -> Any:
        return build(self.kind, {**_built(self.arguments), **extra}, where=self.where)


def _checked(node: Any, allow: tuple[str, ...], where: str = "") -> Any:
    """Convert the node to plain values; each mapping with a `_target_` becomes a `_Planned`."""
    if isinstance(node, Mapping):
        values = {str(key): _checked(node[key], allow, f"{where}.{key}".lstrip(".")) for key in node}
        if "_target_" not in values:
            return values
        return _Planned(resolve(values.pop("_target_"), allow=allow), values, where)
    if isinstance(node, Sequence) and not isinstance(node, str | bytes):
        return [_checked(item, allow, f"{where}[{index}]") for index, item in enumerate(node)]
    return node


def _built(node: Any) -> Any:
    if isinstance(node, _Planned):
        return node.build({})
    if isinstance(node, dict):
        return {key: _built(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_built(item) for item in node]
    return node

"""Read YAML of unknown origin as plain data: nothing in it is resolved, followed or executed.

A run folder, a checkpoint or a list of sites may come from anyone. It is plain YAML: mappings with text keys, sequences
and scalars. Tags, anchors and aliases are refused, size and depth are limited, and `${…}` remains text. Which classes
may be built is decided by the user's command (`geoml.cli.config.resolve`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from geoml.errors import DataError, UserError

__all__ = ["interpret", "parse_yaml", "read_config"]

T = TypeVar("T")

#: Limits of a configuration, far above what any command writes: about 20 KB and 8 levels.
MAX_BYTES, MAX_DEPTH, MAX_NODES = 1_000_000, 40, 20_000
#: Limits of a list that a user may write, such as the cells of a country.
MAX_LIST_BYTES, MAX_LIST_NODES = 32_000_000, 2_000_000


class _Loader(yaml.SafeLoader):
    """Safe YAML with numbers as YAML 1.2 writes them (`1e-3`), dates left as text, and limits."""

    def __init__(self, stream: str, most: int) -> None:
        super().__init__(stream)
        self.level = self.count = 0
        self.most = most

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _refused("an alias (*name)", self.peek_event())
        event = self.peek_event()
        if getattr(event, "anchor", None):
            raise _refused("an anchor (&name)", event)
        if getattr(event, "tag", None):
            raise _refused(f"the tag {event.tag}", event)
        self.count += 1
        self.level += 1
        if self.level > MAX_DEPTH or self.count > self.most:
            much = f"more than {MAX_DEPTH} levels" if self.level > MAX_DEPTH else f"more than {self.most} values"
            raise _refused(much, event)
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key that is not text", key)
            if key.value in names:
                raise _refused(f"the key {key.value!r} twice", key)
            names.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"),
    list("-+0123456789."),
)


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML with features beyond plain data, such as tags and anchors."""


def _refused(what: str, place: Any) -> _Refused:
    return _Refused(problem=f"{what} is not allowed in a file that is read as data", problem_mark=place.start_mark)


def parse_yaml(text: str, where: str | os.PathLike[str], *, most: int = MAX_LIST_NODES) -> Any:
    """The value of a YAML text without tags, anchors and aliases, of at most `most` values and 40 levels.

    Other text raises a `DataError` that begins with `where`.

    >>> parse_yaml("{a: 1e9, b: [2001-01-01]}", "sites.yaml")
    {'a': 1000000000.0, 'b': ['2001-01-01']}
    """
    if len(text) > MAX_LIST_BYTES:
        raise DataError(f"{where} has {len(text)} characters; at most {MAX_LIST_BYTES} are read")
    loader = None
    try:
        loader = _Loader(text, most)
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        cause = words if isinstance(error, _Refused) else f"it is not valid YAML ({words})"
        raise DataError(f"{where} cannot be read: {cause}") from error
    finally:
        if loader is not None:
            loader.dispose()


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration in a YAML file as nested dicts, lists, text, numbers, booleans and None.

    `${…}` is text. Errors: `DataError` where the file is missing, larger than 1 MB, deeper than 40 levels, no YAML, not
    a mapping, or holds tags, anchors or aliases.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "config.yaml")
    >>> _ = path.write_text("lr: 1e-3\\nname: ${oc.env:HOME}\\n")
    >>> read_config(path)
    {'lr': 0.001, 'name': '${oc.env:HOME}'}
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise DataError(f"{path} does not exist" if not path.exists() else f"{path} is not a regular file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{path} has {size} bytes; a configuration has at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    loaded = parse_yaml(text, path, most=MAX_NODES)
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds {type(loaded).__name__}, not a configuration")
    return {str(key): value for key, value in loaded.items()}


def interpret(path: str | os.PathLike[str], make: Callable[[], T], what: str) -> T:
    """Call `make`, which builds an object from a stored file; any failure becomes a `DataError` that names the file.

    Constructors do not check for values that only a damaged or hostile file holds, such as text for a number.

    >>> interpret("task.json", lambda: int("abc"), "a task")
    Traceback (most recent call last):
    geoml.errors.DataError: task.json does not describe a task (ValueError: invalid literal for int() with base 10: \
'abc')
    """
    try:
        return make()
    except UserError as error:
        if str(path) in str(error) or type(error) is not DataError:
            raise
        raise DataError(f"{path}: {error}") from error
    except Exception as error:
        words = " ".join(str(error).split())
        raise DataError(f"{path} does not describe {what} ({type(error).__name__}: {words})") from error

"""Compose the configuration of a verb from its overrides; errors suggest the nearest valid name."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from geoml.errors import UserError, unknown

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

    from geoml.cli.hydra_private import ConfigLoaderImpl

__all__ = ["compose", "finish", "groups_of", "load", "loader", "user_errors", "with_own_file",
           "with_own_model"]  # fmt: skip


def loader(config_module: str, *, config_dirs: Iterable[str] = ()) -> ConfigLoaderImpl:
    """Return Hydra's configuration loader; it searches `config_module`, `geoml.conf`, then the user's folders."""
    from hydra import version
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.utils import setup_globals

    from geoml.cli.hydra_private import ConfigLoaderImpl, create_config_search_path

    version.setbase("1.3")
    setup_globals()
    path = create_config_search_path(f"pkg://{config_module}")
    end = SearchPathQuery(provider="schema")
    if config_module != "geoml.conf":
        path.prepend(provider="geoml", path="pkg://geoml.conf", anchor=end)
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise UserError(f"configuration folder {folder} does not exist")
        path.prepend(provider="command-line", path=f"file://{Path(folder).absolute()}", anchor=end)
    return ConfigLoaderImpl(config_search_path=path)


def load(source: ConfigLoaderImpl, verb: str, overrides: Sequence[str], *, sweep: bool = False) -> DictConfig:
    """The unresolved configuration of a verb, including Hydra's `hydra` node."""
    from hydra.types import RunMode

    mode = RunMode.MULTIRUN if sweep else RunMode.RUN
    overrides = with_own_file(source, overrides)
    words = with_own_model(overrides)
    with user_errors(source, verb, overrides):
        config = source.load_configuration(config_name=verb, overrides=words, run_mode=mode)
        if words:
            _require_kinds(source, verb, words)
    return config


def with_own_model(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which `model._target_=CLASS` replaces the model preset: its settings belong to another class.

    >>> with_own_model(["seed=1", "model._target_=mine.Model", "model.width=8"])
    ['seed=1', '~model', '+model._target_=mine.Model', '+model.width=8']
    """
    own = [line for line in overrides if line.startswith("model.")]
    if not any(line.startswith("model._target_=") for line in own):
        return list(overrides)
    rest = [line for line in overrides if line not in own and not line.startswith("model=")]
    return [*rest, "~model", *(f"+{line}" for line in own)]


def with_own_file(source: ConfigLoaderImpl, overrides: Sequence[str]) -> list[str]:
    """Replace `GROUP=PATH` by `GROUP=file GROUP.path=PATH` in groups that have a choice `file`.

    A value is a path if it has a file suffix or a folder. Paths separated by commas are a sweep over `GROUP.path`.

    >>> with_own_file(loader("radiomaps.conf"), ["seed=1", "scene=maps/city.osm"])
    ['seed=1', 'scene=file', "scene.path='maps/city.osm'"]
    """
    words: list[str] = []
    for word in overrides:
        group, _, value = word.partition("=")
        paths = [part.strip("'\"") for part in (value.split(",") if value[:1] not in "'\"" else [value])]
        are_paths = value[:1] not in "[{$" and all(
            Path(path).suffix.strip(".0123456789") or "/" in path for path in paths
        )
        if are_paths and "file" in groups_of(source).get(group, ()):
            quoted = ",".join("'" + path.replace("'", "\\'") + "'" for path in paths)
            words += [f"{group}=file", f"{group}.path={quoted}"]
        else:
            words.append(word)
    return words


def finish(config: DictConfig) -> DictConfig:
    """The configuration without the `hydra` node: resolved, complete and read-only."""
    from omegaconf import OmegaConf, open_dict, read_write
    from omegaconf.errors import OmegaConfBaseException

    if "hydra" in config:
        with read_write(config), open_dict(config):
            del config["hydra"]
    if "run" not in config:
        raise TypeError("the defaults list of a verb's YAML must begin with `base`")
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise UserError(f"{missing[0]} is not set; add {missing[0]}=VALUE to the command")
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration cannot be resolved: {str(error).splitlines()[0]}") from error
    OmegaConf.set_readonly(config, True)
    return config


def compose(config_module: str, verb: str, overrides: Sequence[str] = (), *, config_dirs: Iterable[str] = ()) -> Any:
    """The configuration of `verb` as the command line would compose it: a read-only `DictConfig`.

    Unknown groups, choices and keys raise a `UserError` that suggests the nearest valid one.
    """
    from hydra.core.hydra_config import HydraConfig

    config = load(loader(config_module, config_dirs=config_dirs), verb, overrides)
    holder = HydraConfig.instance()
    before = holder.cfg
    holder.set_config(config)  # for `${hydra:…}`
    try:
        return finish(config.copy())
    finally:
        holder.cfg = before


@functools.lru_cache(maxsize=8)
def groups_of(source: ConfigLoaderImpl) -> Mapping[str, list[str]]:
    """Map each configuration group (without Hydra's) to its choices; cached for each loader."""
    from hydra.core.object_type import ObjectType

    found: dict[str, list[str]] = {}
    pending = [name for name in source.list_groups("") if name not in ("hydra", "__pycache__")]
    while pending:
        group = pending.pop(0)
        choices = source.get_group_options(group, ObjectType.CONFIG)
        if choices:
            found[group] = sorted(choices)
        pending += [f"{group}/{name}" for name in source.list_groups(group) if name != "__pycache__"]
    return MappingProxyType(found)


@contextlib.contextmanager
def user_errors(source: ConfigLoaderImpl, verb: str, overrides: Sequence[str]) -> Iterator[None]:
    """Convert Hydra's errors into a `UserError` that names the invalid word and suggests a valid one."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OverrideParseException as error:
        hint = "settings are written KEY=VALUE" if "=" not in error.override else "quote values with special characters"
        if any("\udc80" <= character <= "\udcff" for character in error.override):
            hint = "it has bytes that are not UTF-8; give the file or folder another name"
        raise UserError(f"{error.override!r} cannot be read; {hint}") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(source, verb, overrides) or UserError(_first_words(error)) from error
    except ValueError as error:  # a number where the name of a choice was expected
        if "Config group override" not in str(error):
            raise
        raise _explained(source, verb, overrides) or UserError(str(error)) from error


def _first_words(error: BaseException) -> str:
    cause = error.__cause__
    other = re.match(r"In '([^']+)/([^/']+)': Could not override '([^']+)'", str(error))
    if other:
        return f"{other[1]}={other[2]} chooses a {other[3]}, which this verb does not have: it is of another verb"
    missing = re.match(r"(?s)You must specify '([^']+)'.*Available options:\s*(.*)", str(error))
    if missing:
        return (
            f"{missing[1]} is not chosen; add {missing[1]}=NAME to the command, one of {', '.join(missing[2].split())}"
        )
    return " ".join(part for part in (str(error).strip(), str(cause).strip() if cause else "") if part)


def _explained(source: ConfigLoaderImpl, verb: str, overrides: Sequence[str]) -> UserError | None:
    """An error for the first invalid override, or None if all overrides are valid."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = groups_of(source)
    chosen = [item for item in parsed if item.key_or_group in groups]
    if (error := _listed_key(source, verb, parsed) or _unknown_choice(chosen, groups)) is not None:
        return error
    config = _config_with(source, verb, [item for item in chosen if not item.is_sweep_override()])
    if config is None:
        return None
    offered = {str(group) for group in config.hydra.runtime.choices if not str(group).startswith("hydra/")}
    for item in parsed:
        key = item.key_or_group
        if key in groups and key not in offered and not item.is_add():
            return unknown("group", key, offered | set(_names(config)), hint=f"for {verb}")
        if key in groups or item.is_hydra_override() or item.is_add():
            continue
        if item.is_sweep_override():
            found = _unknown_key(config, key, offered)
            if found is not None:
                return found
            return UserError(
                f"{item.input_line!r} names several values: add -m to run each of them, or write {key}=[…] for a list"
            )
        found = _unknown_key(config, key, offered) or _unknown_entry(config, item)
        if found is not None:
            return found
    several = [item for item in chosen if item.is_sweep_override()]
    if several:
        return UserError(f"{several[0].input_line!r} names several choices; add -m to run each of them")
    return None


def _unknown_choice(chosen: Sequence[Override], groups: Mapping[str, list[str]]) -> UserError | None:
    """The error for an unknown choice of a group. Hydra ignores unknown choices of optional groups."""
    for item in chosen:
        group = item.key_or_group
        for choice in _values(item):
            if choice not in ("null", "None", *groups[group]):
                file = f"for your own file: {group}=PATH" if "file" in groups[group] else ""
                return unknown(group, choice, groups[group], hint=file)
    return None


def _values(item: Override) -> list[str]:
    if item.is_discrete_sweep():
        return [str(value) for value in item.sweep_string_iterator()]
    value = item.value()
    return [str(part) for part in value] if isinstance(value, list) else [] if item.is_delete() else [str(value)]


def _require_kinds(source: ConfigLoaderImpl, verb: str, overrides: Sequence[str]) -> None:
    """Raise `UserError` for an unknown choice or a value of the wrong type.

    The type of a setting is the type of its default.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = groups_of(source)
    if (error := _unknown_choice([item for item in parsed if item.key_or_group in groups], groups)) is not None:
        raise error
    chosen = [item for item in parsed if item.key_or_group in groups and not item.is_sweep_override()]
    values = [item for item in parsed if item.key_or_group not in groups]
    given = [item for item in values if not (item.is_delete() or item.is_add() or item.is_sweep_override())]
    if not given or (config := _config_with(source, verb, chosen)) is None:
        return
    for item in given:
        default = OmegaConf.select(config, item.key_or_group, throw_on_resolution_failure=False)
        expected = _expected(item.key_or_group, default, item.value(), item.input_line)
        if expected:
            raise UserError(f"{item.input_line!r}: expected {expected}")


def _expected(key: str, default: Any, value: Any, line: str | None) -> str:
    """The expected type as text if a value differs in type from its default, else an empty string."""
    from omegaconf import DictConfig, ListConfig

    if value is None or default is None or str(value).startswith("${") or str(value) == "???":
        return ""
    text = str(line).partition("=")[2]
    if isinstance(default, ListConfig):
        return "" if isinstance(value, list) else f"a list, {key}=[{text}]"
    if isinstance(default, DictConfig):
        names = ", ".join(map(str, default))
        return "" if isinstance(value, dict) else f"{key}.NAME=VALUE with one of {names}"
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else f"{key}=true or {key}=false"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"a number, as {key}={default}" if isinstance(default, int | float) and not number else ""


def _config_with(source: ConfigLoaderImpl, verb: str, chosen: Sequence[Override]) -> DictConfig | None:
    from hydra.errors import HydraException
    from hydra.types import RunMode

    for lines in ([str(item.input_line) for item in chosen], []):
        with contextlib.suppress(HydraException):
            return source.load_configuration(config_name=verb, overrides=lines, run_mode=RunMode.MULTIRUN)
    return None


def _unknown_key(config: DictConfig, key: str, groups: Iterable[str]) -> UserError | None:
    """The error for an unknown dotted key, or None if the key exists."""
    from omegaconf import DictConfig

    node: Any = config
    walked: list[str] = []
    for part in key.split("."):
        if not isinstance(node, DictConfig):
            return None  # an index into a list, or a key below a value: Hydra's error is clear enough
        if part in node.keys():  # noqa: SIM118 (a key whose value is still missing is in the keys alone)
            walked.append(part)
            node = node._get_node(part)
            continue
        same_name = [name for name in _leaves(config) if name.rpartition(".")[2] == key.rpartition(".")[2]]
        if len(same_name) == 1:
            return UserError(f"key {key!r} unknown; did you mean {same_name[0]!r}?")
        choices = {".".join([*walked, name]) for name in _names(node)}
        return unknown("key", key, choices | (set(groups) if not walked else set()))
    return None


def _listed_key(source: ConfigLoaderImpl, verb: str, given: Sequence[Override]) -> UserError | None:
    """The error for `model=` or `model.KEY=` if the verb takes a list `models`, with the intended entry."""
    from omegaconf import ListConfig

    config: DictConfig | dict[str, Any] = _config_with(source, verb, []) or {}
    texts = {item.key_or_group: str(item.input_line).partition("=")[2] for item in given if not item.is_delete()}
    for key in texts:
        name = key.partition(".")[0]
        listed = config.get(f"{name}s")
        if name in config or not isinstance(listed, ListConfig):
            continue
        inner = {path.removeprefix(f"{name}."): text for path, text in texts.items() if path.startswith(f"{name}.")}
        chosen = texts.get(name) or "NAME"
        entry = inner if "_target_" in inner else {name: chosen, **inner}
        meant = f"{{{', '.join(f'{part}: {text}' for part, text in entry.items())}}}" if inner else chosen
        before = [other for other in listed[:1] if isinstance(other, str) and other != meant]
        return UserError(f"key {key!r} unknown; {name}s is a list here: '{name}s=[{','.join([*before, meant])}]'")
    return None


def _unknown_entry(config: DictConfig, item: Override) -> UserError | None:
    """The error for an unknown key within `{…}`, or for a key that YAML does not read as text."""
    value = None if item.is_delete() else item.value()
    for name in value if isinstance(value, dict) else ():
        key = f"{item.key_or_group}.{name}"
        found = _unknown_key(config, key, ())
        if found is None and not isinstance(name, str):
            return UserError(f"{name} in {item.input_line!r} reads as a {type(name).__name__}; write {key}=… by itself")
        if found is not None:
            return found
    return None


def _names(node: DictConfig) -> list[str]:
    """The keys of a node that a user may set."""
    return [str(name) for name in node if name != "hydra"]


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

    for name in _names(node):
        child = None if node._is_none() else node._get_node(name)
        if isinstance(child, DictConfig) and not (child._is_none() or child._is_missing()):
            yield from _leaves(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"

"""The help of a verb on one screen: purpose, example, choices and settings."""

from __future__ import annotations

import importlib.resources
import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from geoml.cli import compose
from geoml.cli.definitions import App, Verb

__all__ = ["setting_comments", "verb_help"]

LINES = 30  # of the help in total
GROUP_LINES = 3  # of the choices of one group


def verb_help(app: App, verb: Verb, source: Any, overrides: Sequence[str]) -> str:
    """Return the help of `verb` in at most thirty lines; shown values are those after `overrides`."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 120)
    config = compose.load(source, verb.name, overrides)
    head = [f"{app.name} {verb.name}: {verb.help}", "", f"  {verb.example or f'{app.name} {verb.name}'}"]
    chosen = {group: choice for group, choice in config.hydra.runtime.choices.items() if not group.startswith("hydra/")}
    offered = {group: names for group, names in compose.groups_of(source).items() if group in chosen}
    groups = _groups(offered, chosen, width)
    tail = ["", "-m runs all of KEY=a,b; --cfg shows all; --config-dir DIR adds your YAML"]
    if verb.run_folder:
        tail.append(f"Writes runs/{verb.name}/…; run.dir=DIR changes that, run.fresh=true starts over")
    tail = [_fitted(line, width) for line in tail]
    room = LINES - len(head) - len(groups) - len(tail) - 2
    settings = _settings(app, verb, config, set(offered), width)
    if len(settings) > room:
        settings = [*settings[: max(room - 1, 0)], f"  … {len(settings) - max(room - 1, 0)} more: --cfg shows all"]
    middle = ["", "Settings (KEY=VALUE) and their defaults", *settings] if settings else []
    return "\n".join([*head, *groups, *middle, *tail])


def _groups(offered: dict[str, list[str]], chosen: dict[str, Any], width: int) -> list[str]:
    if not offered:
        return []
    lines = ["", "Choices (GROUP=NAME), the default in brackets"]
    indent = max(len(group) for group in offered) + 4
    for group, names in sorted(offered.items()):
        current = chosen[group]
        shown = [f"[{name}]" if name == current or name in _listed(current) else name for name in names]
        wrapped = textwrap.wrap(", ".join(shown), width - indent, break_on_hyphens=False)
        if len(wrapped) > GROUP_LINES:
            more = f" … {len(names)} in all"
            cut = textwrap.wrap(", ".join(shown), width - indent, break_on_hyphens=False)[:GROUP_LINES]
            cut[-1] = cut[-1][: width - indent - len(more)].rpartition(",")[0] + more
            wrapped = cut
        lines += [f"  {group if index == 0 else '':{indent - 4}}  {part}" for index, part in enumerate(wrapped)]
    return lines


def _listed(choice: Any) -> Sequence[str]:
    return [str(name) for name in choice] if not isinstance(choice, str) and choice is not None else []


def _settings(app: App, verb: Verb, config: Any, groups: set[str], width: int) -> list[str]:
    """Settings of the verb's YAML with their comments, followed by the settings of the chosen groups."""
    from omegaconf import OmegaConf

    comments, values = setting_comments(app.config_module, verb.name), OmegaConf.to_container(config)
    pairs = []
    for key in comments:
        value = _shown(values, key)
        if value is not None:
            pairs.append((f"{key}={value}", comments[key]))
    for group in sorted(groups):
        node = config.get(group.partition("/")[0])
        if hasattr(node, "keys"):
            names = [str(name) for name in node if not str(name).startswith("_")]
            if names:
                pairs.append((f"{group}.KEY", ", ".join(names)))
    indent = min(max((len(left) for left, _ in pairs), default=0), 28) + 4
    return [_fitted(f"  {left.ljust(indent - 4)}  {right}".rstrip(), width) for left, right in pairs]


def _shown(values: Any, key: str) -> str | None:
    """The value of a setting in command-line syntax; None for a group or a missing key."""
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    if isinstance(values, dict):
        return None
    if isinstance(values, list):
        return str(values).replace("'", "").replace(", ", ",")
    return "null" if values is None else str(values).lower() if isinstance(values, bool) else str(values)


def _fitted(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def setting_comments(config_module: str, verb: str) -> dict[str, str]:
    """Dotted keys of a verb's YAML in order, each with its comment at the end of the line or above it."""
    text = importlib.resources.files(config_module).joinpath(f"{verb}.yaml").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# "))
            continue
        match = re.match(r"^( *)([A-Za-z_]\w*):(?:\s+(.*))?$", line)
        if match:
            depth, key, rest = len(match[1]), match[2], match[3] or ""
            while parents and parents[-1][0] >= depth:
                parents.pop()
            dotted = ".".join([*(name for _, name in parents), key])
            parents.append((depth, key))
            if dotted.partition(".")[0] not in ("defaults", "hydra", "run"):
                found[dotted] = rest.partition("#")[2].strip() or " ".join(above)
        above = []
    return found

"""Registry of experts: definitions from `experts/NAME.py`, weights and cards from `experts/NAME/`.

Experts of other distributions are modules with an `EXPERT`, named by entry points of the group `mcp_experts`. They are
loaded only on request, since importing one runs its code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import pkgutil
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import read_json
from mcp_experts import experts as ours
from mcp_experts.inference.definition import Definition
from mcp_experts.inference.network import Gate, Network, load_arrays

__all__ = ["GATE", "GROUP", "Expert", "Registry", "definitions"]

GROUP = "mcp_experts"
GATE = "ood"
WEIGHTS, CARD = "weights.npz", "card.json"


@dataclass(frozen=True, eq=False)
class Expert:
    """A definition with the folder of its weights and card, which are read on first use."""

    definition: Definition
    folder: Path

    @property
    def name(self) -> str:
        """The definition's name."""
        return self.definition.name

    @cached_property
    def card(self) -> dict[str, Any]:
        """The card; a `DataError` if the expert has not been trained."""
        if not (self.folder / CARD).exists():
            raise DataError(
                f"expert {self.name} has no card: it is not trained yet; run mcp-experts train expert={self.name}"
            )
        card = read_json(self.folder / CARD)
        about = self.definition.describe()
        if isinstance(card, dict) and isinstance(card.get("classes"), list):
            card["classes"] = [self.definition.current(str(name)) for name in card["classes"]]
        if not isinstance(card, dict) or any(card.get(key) != about[key] for key in ("classes", "edges")):
            raise DataError(
                f"{self.folder / CARD} belongs to another definition of {self.name}; train the expert again"
            )
        return card

    @cached_property
    def network(self) -> Network:
        """The trained network (classifiers only)."""
        return Network.from_arrays(self._arrays())

    @cached_property
    def gate(self) -> Gate:
        """The trained gate (gate expert only)."""
        return Gate.from_arrays(self._arrays())

    @cached_property
    def own_gate(self) -> Gate | None:
        """Separate gate of an adapted expert; None if the expert uses the common gate."""
        if self.definition.kind == "gate" or "gate_limit" not in self.network.arrays:
            return None
        arrays = self.network.arrays
        return Gate.from_arrays({name[5:]: array for name, array in arrays.items() if name.startswith("gate_")})

    def _arrays(self) -> dict[str, Any]:
        return load_arrays(self.folder / WEIGHTS, str(self.card.get("weights_sha256")))


@dataclass(frozen=True, eq=False)
class Registry:
    """The available experts by name. `only` selects some; `plugins` adds experts of other installed packages.

    `adapted` is a folder written by `mcp-experts adapt`; its experts replace those of the same name. If `consistent` is
    False, experts do not abstain when they contradict each other (used for mock experts).
    """

    only: Sequence[str] | None = None
    plugins: bool = False
    consistent: bool = True
    adapted: Path | None = None
    experts: dict[str, Expert] = field(init=False)

    def __post_init__(self) -> None:
        found = definitions(plugins=self.plugins)
        for name in self.only or ():
            if name not in found:
                raise unknown("expert", name, found)
        kept = {name: expert for name, expert in found.items() if not self.only or name in self.only or name == GATE}
        if self.adapted is not None:
            own = {name: self.adapted / name for name in kept if (self.adapted / name / CARD).exists()}
            if not own:
                raise UserError(
                    f"{self.adapted} holds no adapted expert; mcp-experts adapt labels=FILE target={self.adapted}"
                )
            kept |= {name: Expert(kept[name].definition, folder) for name, folder in own.items()}
        object.__setattr__(self, "experts", kept)

    @property
    def classifiers(self) -> list[Expert]:
        """All experts except the gate."""
        return [expert for expert in self.experts.values() if expert.definition.kind == "classifier"]

    @property
    def gate(self) -> Gate:
        """The gate, which decides whether a channel resembles the training data."""
        return self.experts[GATE].gate

    @property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of all weights, from the cards."""
        every = {name: expert.card["weights_sha256"] for name, expert in self.experts.items()}
        return hashlib.sha256(json.dumps(every, sort_keys=True).encode()).hexdigest()

    def check(self) -> None:
        """Read all weights and cards; a `DataError` names the first that is missing, damaged or outdated."""
        for expert in self.experts.values():
            _ = expert.gate if expert.definition.kind == "gate" else expert.network

    def expert(self, name: str) -> Expert:
        """The expert of this name; otherwise a `UserError` with the most similar name."""
        if name not in self.experts:
            raise unknown("expert", name, self.experts)
        return self.experts[name]

    def asked(self, question: str) -> Expert:
        """The expert for a question: its name, an alias, or a sentence that contains one of them.

        Raises `UserError` with the list of questions if none or several match.
        """
        text = _words(question)
        joined = {
            _words(word).replace("_", ""): expert
            for expert in self.experts.values()
            for word in _names(expert.definition)
        }
        if (alone := joined.get(text.replace("_", ""))) is not None:
            return alone
        words = {_words(word): expert for expert in self.experts.values() for word in _names(expert.definition)}
        found = {word: expert for word, expert in words.items() if f"_{word}_" in f"_{text}_"}
        longest = {
            expert.name: expert
            for word, expert in found.items()
            if not any(word != other and f"_{word}_" in f"_{other}_" for other in found)
        }
        if len(longest) == 1:
            return next(iter(longest.values()))
        if longest:
            several = ", ".join(sorted(expert.definition.question for expert in longest.values()))
            raise UserError(f"question {question[:80]!r} is several: ask one at a time, of {several}")
        raise unknown("question", question[:80], (expert.definition.question for expert in self.experts.values()))


def _names(definition: Definition) -> tuple[str, ...]:
    return (definition.question, definition.name, definition.title, *definition.aliases)


def _words(text: str) -> str:
    """
    >>> _words("Is it line-of-sight?")
    'is_it_line_of_sight'
    """
    return "_".join(re.findall("[a-z0-9]+", unicodedata.normalize("NFKC", text).lower()))


def definitions(*, plugins: bool = False) -> dict[str, Expert]:
    """All experts by name: those of this package in alphabetical order, then plugins."""
    modules = [
        (importlib.import_module(f"{ours.__name__}.{info.name}"), Path(str(info.module_finder.path)) / info.name)  # type: ignore[union-attr]
        for info in sorted(pkgutil.iter_modules(ours.__path__), key=lambda info: info.name)
    ]
    if plugins:
        for entry in importlib.metadata.entry_points(group=GROUP):
            module = entry.load()
            modules.append((module, Path(str(module.__file__)).with_suffix("")))
    found: dict[str, Expert] = {}
    for module, folder in modules:
        definition = getattr(module, "EXPERT", None)
        if not isinstance(definition, Definition):
            raise DataError(f"{module.__name__} has no EXPERT that is a Definition")
        if definition.name in found or definition.name != folder.name:
            raise DataError(
                f"expert {definition.name!r} of {module.__name__}: expected a unique name, that of the file"
            )
        found[definition.name] = Expert(definition, folder)
    return found

"""Entries of a benchmark: a network or a baseline, with its task and its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.benchmarking.entries import Entry, parsed
from geoml.cli.config import check_arguments, resolve
from geoml.errors import UserError
from geoml.runs.files import read_json, write_json
from geoml.runs.folder import plain
from radiomaps.baselines import BASELINES, baseline, load_baseline, save_baseline
from radiomaps.maps.store import MapStore
from radiomaps.tasks import Task
from radiomaps.tasks.dataset import loader

if TYPE_CHECKING:
    from geoml.train.device import Precision
    from radiomaps.scores import Builder
    from radiomaps.training import Recipe

__all__ = ["Contender", "task_of"]

_SUMMARY = "summary.json"


def task_of(entry: str | Mapping[str, Any]) -> Task:
    """Create a task from a name in `conf/task`, or from a mapping.

    In a mapping, `task: NAME` names the task; the other keys override its settings.

    >>> task_of({"task": "aware", "prior": "dominant"}).prior
    'dominant'
    """
    from geoml.cli.compose import compose

    values = {"task": entry} if isinstance(entry, str) else plain(entry)
    name = values.pop("task", None)
    if name is None:
        return Task.of(values)
    found = plain(compose("radiomaps.conf", "evaluate", [f"task={name}", "store=any"]))["task"]
    if isinstance(values.get("observations"), Mapping) and isinstance(found.get("observations"), Mapping):
        values["observations"] = found["observations"] | values["observations"]
    return Task.of(found | values)


@dataclass(frozen=True)
class Contender(Entry):
    """An entry of a radio-map benchmark: a model or a baseline, with changes to the benchmark's tasks.

    `task` overrides settings of all tasks, `by_task` settings of single tasks by name. `shown` lists the tasks on which
    the entry runs; None means all tasks that it supports.
    """

    task: Mapping[str, Any] = field(default_factory=dict)
    by_task: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shown: tuple[str, ...] | None = None

    @classmethod
    def of(cls, entry: str | Mapping[str, Any], *, allow: Sequence[str] = ()) -> Contender:
        """Create an entry from a name or a mapping.

        `entry` is the name of a baseline or model, or a mapping `{model: NAME, name: …, task: {…}, by_task: {…},
        trainer: {…}, …}`. A network may also be `{_target_: mine.Model, …}` from a package in `allow`. Raises
        `UserError` for an unknown model or setting.
        """
        name, options, own = parsed(entry, ("tasks", "task", "by_task", "trainer"))
        shown = None if own["tasks"] is None else tuple(own["tasks"])
        changes = {key: own[key] or {} for key in ("task", "by_task", "trainer")}
        made = cls(name, options, tuple(allow), shown=shown, **changes)
        if made.baseline is None:
            from radiomaps.models import config_of

            settings = config_of(options)
            kind = resolve(settings.pop("_target_"), allow=allow)
            check_arguments(kind, settings | {"channels": None, "dims": 3})
        return made

    @cached_property
    def baseline(self) -> str | None:
        """Name of the baseline; None for a network."""
        name = self.config.get("model")
        return str(name) if name in BASELINES else None

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of a baseline."""
        return {key: value for key, value in self.config.items() if key != "model"}

    def task_for(self, name: str, task: Task) -> Task | None:
        """Return the benchmark's task `name` with this entry's changes; None if the entry does not run on it.

        Raises `UserError` for unknown options of the baseline.
        """
        if self.shown is not None and name not in self.shown:
            return None
        own = task.changed(**{**self.task, **self.by_task.get(name, {})})
        if self.baseline is None:
            return own
        kind, _ = BASELINES[self.baseline]
        try:
            kind.adapted(own)
        except UserError:
            return None
        return baseline(self.baseline, own, **self.options).task

    def described(self) -> dict[str, Any]:
        """The complete configuration of the model or baseline, from which file names in the cache are derived."""
        from radiomaps.models import config_of

        return {"baseline": self.baseline, **self.options} if self.baseline else config_of(self.config)

    def fit(
        self,
        task: Task,
        store: MapStore,
        parts: Mapping[str, NDArray[Any] | Sequence[int]],
        *,
        recipe: Recipe,
        folder: Path,
        seed: int,
    ) -> dict[str, Any]:
        """Train the entry in `folder`, unless its training is finished; returns the cost of training."""
        if (folder / _SUMMARY).exists():
            return dict(read_json(folder / _SUMMARY))
        if self.baseline is not None:
            made = baseline(self.baseline, task, **self.options)
            if made.learns:
                train = np.asarray(parts["train"])
                made.fit(loader(store, train, made.task, batch_size=recipe.batch_size, shuffle=False))
            save_baseline(made, self.baseline, self.options, folder)
            summary: dict[str, Any] = {"parameters": 0}
        else:
            from radiomaps.training import fit

            trainer = replace(recipe.trainer, **self.trainer)
            own = replace(recipe, trainer=trainer)
            summary = fit(self.config, task, store, parts, recipe=own, folder=folder, seed=seed, allow=self.allow)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _SUMMARY, summary)
        return summary

    def load(self, task: Task, folder: Path, *, precision: Precision = "fp32") -> Builder:
        """Load the entry that `fit` saved, for a task that may have other height layers.

        `precision` is that of the forward passes of a network.
        """
        if self.baseline is not None:
            return load_baseline(folder, task)
        from radiomaps.trained import load_trained

        return replace(load_trained(folder, precision=precision, allow=self.allow), task=task)

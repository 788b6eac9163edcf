"""Baselines: methods without a neural network that predict radio maps, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoml.cli.config import build
from geoml.errors import unknown
from geoml.runs.files import read_json, write_json
from radiomaps.baselines.base import Baseline
from radiomaps.baselines.interpolation import InverseDistance, NearestNeighbours, RadialBasis
from radiomaps.baselines.kriging import OrdinaryKriging, RegressionKriging
from radiomaps.baselines.physics import DominantPath, FreeSpace, LogDistance, Prior, Tr38901
from radiomaps.tasks import Task

__all__ = ["BASELINES", "Baseline", "baseline", "load_baseline", "save_baseline"]

BASELINES: dict[str, tuple[type[Baseline], dict[str, Any]]] = {
    "free_space": (FreeSpace, {}),
    "log_distance": (LogDistance, {}),
    "uma": (Tr38901, {"scenario": "uma"}),
    "umi": (Tr38901, {"scenario": "umi"}),
    "dominant": (DominantPath, {}),
    "prior": (Prior, {}),
    "idw": (InverseDistance, {}),
    "knn": (NearestNeighbours, {}),
    "kriging": (OrdinaryKriging, {}),
    "regression_kriging": (RegressionKriging, {}),
    "rbf": (RadialBasis, {}),
}
_FILE = "baseline.json"


def baseline(name: str, task: Task, **options: Any) -> Baseline:
    """Create a baseline by name for a task.

    Raises `UserError` for an unknown name or option, and for a task without the conditions that the baseline needs.

    >>> baseline("free_space", Task()).task.prior
    'free_space'
    """
    if name not in BASELINES:
        raise unknown("baseline", name, BASELINES)
    kind, defaults = BASELINES[name]
    return build(kind, {"task": task, **defaults, **options})


def save_baseline(made: Baseline, name: str, options: Mapping[str, Any], folder: Path) -> None:
    """Save a fitted baseline with its settings."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _FILE, {"name": name, "options": dict(options), "state": made.state()})


def load_baseline(folder: Path, task: Task) -> Baseline:
    """Load a baseline that `save_baseline` saved, for its task."""
    record = read_json(folder / _FILE)
    made = baseline(record["name"], task, **record["options"])
    made.load_state(record["state"])
    return made

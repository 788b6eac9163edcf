"""Common code of benchmarks. A script measures the figures declared in `targets.yaml`, and prints a table and JSON.

    {"benchmark": "loader", "figures": {key: number|null}, "goals": {key: [operator, value]}, "met": true|false|null}

The line of JSON is the last line. A figure is null if it was not measured. `met` is false if a goal was missed, and
null if a goal could not be judged. A figure without a goal is only reported.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import math
import operator
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import EllipsisType
from typing import Any

import yaml

from geoml.cli.tables import show
from geoml.runs import environment
from geoml.runs.files import write_json

__all__ = ["Target", "judge", "least_seconds", "main", "peer", "targets"]

FOLDER = Path(__file__).resolve().parent
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """Declaration of one figure in `targets.yaml`."""

    key: str
    definition: str
    unit: str
    peer: str
    operator: str | None = None
    goal: float | None = None
    quick_goal: float | EllipsisType | None = ...  # as `goal`; None: no goal with --quick

    def __post_init__(self) -> None:
        for name in ("definition", "unit", "peer"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"figure {self.key}: {name} is missing or not a text")
        if (self.operator is None) != (self.goal is None) or (self.goal is None and self.quick_goal is not ...):
            raise ValueError(f"figure {self.key}: operator and goal belong together, and quick_goal to both")
        if self.operator not in (None, *OPERATORS):
            raise ValueError(f"figure {self.key}: operator {self.operator!r}; expected one of {', '.join(OPERATORS)}")
        for name in ("goal", "quick_goal"):
            value = getattr(self, name)
            if value not in (None, ...) and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"figure {self.key}: {name} is {value!r}, not a number")

    def asked(self, *, quick: bool) -> float | None:
        """Return the goal of the figure; None if it has none."""
        return self.goal if not quick or isinstance(self.quick_goal, EllipsisType) else self.quick_goal

    def met(self, value: float | None, *, quick: bool) -> bool | None:
        """Return whether a measured value meets the goal; None if value or goal is missing."""
        goal = self.asked(quick=quick)
        return None if value is None or goal is None else OPERATORS[str(self.operator)](value, goal)


def targets(path: Path = FOLDER / "targets.yaml") -> dict[str, dict[str, Target]]:
    """Read the declared figures of every benchmark by key. Raises an error for wrong or unknown fields."""
    declared = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        name: {key: Target(key=key, **fields) for key, fields in entry["figures"].items()}
        for name, entry in declared.items()
    }


def least_seconds(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the smallest time of each call; the calls take turns."""
    seconds: dict[str, float] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name] = min(time.perf_counter() - begin, seconds.get(name, math.inf))
    return seconds


def judge(figures: Mapping[str, float | None], wanted: Mapping[str, Target], *, quick: bool = False) -> bool | None:
    """Return whether all goals are met: False if one is missed, None if none is missed but one was not measured."""
    verdicts = [
        target.met(figures[key], quick=quick) for key, target in wanted.items() if target.asked(quick=quick) is not None
    ]
    return False if False in verdicts else None if None in verdicts else True


def peer(benchmark: str, *modules: str) -> Any:
    """Import the modules that a script compares with. Returns them: one module, or a tuple.

    If one is not installed, the script reports every figure as null and ends with exit code 0.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pysteps prints where its settings are
            found = tuple(importlib.import_module(module) for module in modules)
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed: make bench-setup installs what is measured against", file=sys.stderr)
        print(json.dumps(_outcome(benchmark, targets()[benchmark], {}, quick="--quick" in sys.argv)), flush=True)
        raise SystemExit(0) from error
    return found if len(found) > 1 else found[0]


def main(
    name: str,
    measure: Callable[[bool], Mapping[str, float | None]],
    *,
    full: Callable[[], Mapping[str, float | None]] | None = None,
    arguments: Sequence[str] | None = None,
    wanted: Mapping[str, Target] | None = None,
    results: Path = FOLDER / "results",
) -> dict[str, Any]:
    """Run a script. `measure(quick)` prints details and returns all declared figures.

    Prints their table and, as the last line, JSON. `--save` writes the figures to the folder from which pages quote
    them. With `full`, `--full` runs a larger case of the same figures, which is saved separately.
    """
    parser = argparse.ArgumentParser(description=f"The figures of benchmarks/targets.yaml for {name}.")
    case = parser.add_mutually_exclusive_group()
    case.add_argument("--quick", action="store_true", help="a smaller case, under a minute")
    if full is not None:
        case.add_argument("--full", action="store_true", help="a larger case, hours; resumes if it was stopped")
    parser.add_argument("--save", action="store_true", help=f"keep the figures as benchmarks/results/{name}.json")
    flags = parser.parse_args(arguments)
    if flags.quick and flags.save:
        parser.error("--save keeps the figures that pages quote: run without --quick")
    larger = full if full is not None and flags.full else None
    wanted = dict(targets()[name] if wanted is None else wanted)
    figures = measure(flags.quick) if larger is None else larger()
    if set(figures) != set(wanted):
        odd = ", ".join(sorted(set(figures) ^ set(wanted)))
        raise ValueError(f"benchmark {name}: figures and targets.yaml differ in {odd}")
    outcome = _outcome(name, wanted, figures, quick=flags.quick)
    show(
        [
            {
                "figure": key,
                "value": value,
                "goal": "{} {:g}".format(*outcome["goals"][key]) if key in outcome["goals"] else "",
                "met": wanted[key].met(value, quick=flags.quick),
                "definition": wanted[key].definition,
            }
            for key, value in outcome["figures"].items()
        ]
    )
    if flags.save:
        kept, command = (name, f"{name}.py") if larger is None else (f"{name}-full", f"{name}.py --full")
        write_json(results / f"{kept}.json", outcome | _circumstances(f"python benchmarks/{command}"))
    print(json.dumps(outcome, allow_nan=False), flush=True)
    return outcome


def _outcome(
    name: str, wanted: Mapping[str, Target], figures: Mapping[str, float | None], *, quick: bool
) -> dict[str, Any]:
    """Return the line of JSON; figures that were not measured are None."""
    clean = {key: _finite(figures.get(key)) for key in wanted}
    asked = {key: (target.operator, target.asked(quick=quick)) for key, target in wanted.items()}
    goals = {key: [sign, goal] for key, (sign, goal) in asked.items() if goal is not None}
    return {"benchmark": name, "figures": clean, "goals": goals, "met": judge(clean, wanted, quick=quick)}


def _circumstances(command: str) -> dict[str, Any]:
    """Return command, date and machine of a measurement."""
    found = environment.describe()
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": found["cpu"]["model"],
        "cores": found["cpu"]["cores"],
        "gpus": found["gpus"],
        "python": found["python"],
        "versions": found["packages"],
        "commit": found["commit"],
    }


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit("this module is shared by the benchmarks; run one of them")

"""The one contract for figures: a script declares them in `targets.yaml`, prints a table and, last, one line of JSON.

    {"benchmark": "loader", "figures": {key: number|null}, "goals": {key: [operator, value]}, "met": true|false|null}

`null` is what was not measured; `met` is false where a goal was missed, null where one could not be judged.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from geoml.cli.tables import show
from geoml.runs import environment
from geoml.runs.files import write_json

__all__ = ["Target", "judge", "least_seconds", "main", "targets"]

FOLDER = Path(__file__).resolve().parent
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One figure as `targets.yaml` declares it."""

    key: str
    definition: str
    unit: str
    operator: str
    goal: float
    peer: str
    quick_goal: float | None = None

    def __post_init__(self) -> None:
        for name in ("definition", "unit", "peer"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"figure {self.key}: {name} is missing or no text")
        if self.operator not in OPERATORS:
            raise ValueError(f"figure {self.key}: operator {self.operator!r}; expected one of {', '.join(OPERATORS)}")
        for name in ("goal", "quick_goal"):
            value = getattr(self, name)
            if (value is not None or name == "goal") and (
                isinstance(value, bool) or not isinstance(value, int | float)
            ):
                raise ValueError(f"figure {self.key}: {name} is {value!r}, not a number")

    def asked(self, *, quick: bool) -> float:
        """The value the figure is held against."""
        return self.quick_goal if quick and self.quick_goal is not None else self.goal


def targets(path: Path = FOLDER / "targets.yaml") -> dict[str, dict[str, Target]]:
    """The figures of every benchmark by key; a wrong or unknown field is an error."""
    declared = yaml.safe_load(path.read_text())
    return {
        name: {key: Target(key=key, **fields) for key, fields in entry["figures"].items()}
        for name, entry in declared.items()
    }


def least_seconds(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least time of each call, the calls taking turns."""
    seconds: dict[str, float] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name] = min(time.perf_counter() - begin, seconds.get(name, math.inf))
    return seconds


def judge(figures: Mapping[str, float | None], wanted: Mapping[str, Target], *, quick: bool = False) -> bool | None:
    """Whether every goal is met: False where one is missed, None where none is but one was not measured."""
    verdicts = [
        None if figures[key] is None else OPERATORS[target.operator](figures[key], target.asked(quick=quick))  # type: ignore[arg-type]
        for key, target in wanted.items()
    ]
    return False if False in verdicts else None if None in verdicts else True


def main(
    name: str,
    measure: Callable[[bool], Mapping[str, float | None]],
    *,
    full: Callable[[], Mapping[str, float | None]] | None = None,
    arguments: Sequence[str] | None = None,
    wanted: Mapping[str, Target] | None = None,
    results: Path = FOLDER / "results",
) -> dict[str, Any]:
    """Run a script: `measure(quick)` prints what is worth seeing and returns its figures, all that are declared.

    Prints their table and, last, the line of JSON; `--save` keeps them where the pages quote them from. With `full`
    there is a larger case of the same figures, `--full`, which is kept beside the other.
    """
    parser = argparse.ArgumentParser(description=f"The figures of benchmarks/targets.yaml for {name}.")
    case = parser.add_mutually_exclusive_group()
    case.add_argument("--quick", action="store_true", help="a smaller case, under a minute")
    if full is not None:
        case.add_argument("--full", action="store_true", help="a larger case, hours; goes on where it was stopped")
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
    clean = {key: _finite(figures[key]) for key in wanted}
    goals = {key: [target.operator, target.asked(quick=flags.quick)] for key, target in wanted.items()}
    met = judge(clean, wanted, quick=flags.quick)
    outcome = {"benchmark": name, "figures": clean, "goals": goals, "met": met}
    show(
        [
            {
                "figure": key,
                "value": clean[key],
                "goal": "{} {:g}".format(*goals[key]),
                "met": judge(clean, {key: target}, quick=flags.quick),
                "definition": target.definition,
            }
            for key, target in wanted.items()
        ]
    )
    if flags.save:
        kept, command = (name, f"{name}.py") if larger is None else (f"{name}-full", f"{name}.py --full")
        write_json(results / f"{kept}.json", outcome | _circumstances(f"python benchmarks/{command}"))
    print(json.dumps(outcome, allow_nan=False), flush=True)
    return outcome


def _circumstances(command: str) -> dict[str, Any]:
    """What a reader needs to judge a figure by, and to get it again."""
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
    sys.exit("this is what the benchmarks share; run one of them")

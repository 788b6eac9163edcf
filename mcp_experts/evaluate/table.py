"""Tables of an evaluation: accuracies with intervals, gains, tests, share of the upper bound."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

__all__ = ["comparison", "mcnemar", "table", "wilson"]

Rows = Sequence[Mapping[str, Any]]
ACCEPTED = ("live", "none")
#: Smallest A7 − A3 for which the recovered share is given, and number of resamples for its interval.
LEAST_ROOM, RESAMPLES = 0.2, 2000


def table(rows: Rows) -> list[dict[str, Any]]:
    """One row per arm and task. Raises `DataError` for rows of recorded or scripted models."""
    _refuse(rows)
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["task"], row["arm"]].append(row)
    found = []
    for (task, arm), members in sorted(groups.items()):
        right = sum(bool(row["right"]) for row in members)
        low, high = wilson(right, len(members))
        entry: dict[str, Any] = {
            "task": task,
            "arm": arm,
            "model": members[0]["model"] or "–",
            "n": len(members),
            "accuracy": right / len(members),
            "low_95": low,
            "high_95": high,
        }
        if members[0]["model_kind"] != "none":
            entry["wrong"] = sum(row["letter"] != "" and not row["right"] for row in members)
            entry["unparsable"] = sum(row["letter"] == "" for row in members)
            entry["tokens"] = _mean(row["tokens_in"] + row["tokens_out"] for row in members)
            entry["seconds"] = _mean(row["seconds"] for row in members)
        if members[0]["wanted_tools"]:
            entry |= _tool_scores(members)
        found.append(entry)
    return found


def comparison(rows: Rows) -> list[dict[str, Any]]:
    """One row per task: A5 against A3, the strongest arm without experts, and against A7, the upper bound.

    `ceiling_recovery` is (A5 − A3) / (A7 − A3) with an interval of 95 % (`recovery_low`, `recovery_high`) by resampling
    of questions; all three are None if A7 is less than 0.2 above A3, where the quotient says nothing.
    """
    _refuse(rows)
    right: dict[str, dict[str, dict[str, bool]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        right[row["task"]][row["arm"]][row["question"]] = bool(row["right"])
    found = []
    for task, arms in sorted(right.items()):
        common = set(arms["A3"]) & set(arms["A5"]) & set(arms["A7"]) if {"A3", "A5", "A7"} <= set(arms) else set()
        if not common:
            continue
        score = {arm: sum(arms[arm][key] for key in common) / len(common) for arm in ("A3", "A5", "A7")}
        gained = sum(arms["A5"][key] and not arms["A3"][key] for key in common)
        lost = sum(arms["A3"][key] and not arms["A5"][key] for key in common)
        kept = np.array([[arms[arm][key] for key in sorted(common)] for arm in ("A3", "A5", "A7")], np.float64)
        found.append(
            {
                "task": task,
                "n": len(common),
                "points": 100 * (score["A5"] - score["A3"]),
                "relative_gain": (score["A5"] - score["A3"]) / score["A3"] if score["A3"] else None,
                "mcnemar_p": mcnemar(gained, lost),
                **_recovery(kept),
            }
        )
    return found


def _recovery(right: NDArray[np.float64]) -> dict[str, float | None]:
    """Share of the ceiling recovered, and its percentile interval; `right` has rows A3, A5, A7."""
    names = ("ceiling_recovery", "recovery_low", "recovery_high")
    alone, tools, ceiling = right.mean(axis=1)
    if ceiling - alone < LEAST_ROOM:
        return dict.fromkeys(names)
    drawn = np.random.default_rng(0).integers(0, right.shape[1], (RESAMPLES, right.shape[1]))
    low, middle, high = right[:, drawn].mean(axis=2)
    room = high - low
    shares = (middle - low)[room > 0] / room[room > 0]
    values = ((tools - alone) / (ceiling - alone), *np.quantile(shares, (0.025, 0.975)))
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927).

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    """
    z = 1.959964
    share = right / count
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (middle - half) / (1 + z**2 / count), (middle + half) / (1 + z**2 / count)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p value of McNemar's test: `gained` and `lost` questions where only one of two arms is correct.

    >>> mcnemar(5, 0), mcnemar(3, 3)
    (0.0625, 1.0)
    """
    count, less = gained + lost, min(gained, lost)
    if not count:
        return 1.0
    tail = sum(math.comb(count, k) for k in range(less + 1)) / 2**count
    return min(1.0, 2 * tail)


def _refuse(rows: Rows) -> None:
    kinds = {str(row["model_kind"]) for row in rows} - set(ACCEPTED)
    if kinds:
        raise DataError(f"rows of models that are {' and '.join(sorted(kinds))}; expected rows of live models only")


def _tool_scores(members: Rows) -> dict[str, Any]:
    """Mean precision and recall of the experts that a model asked, and share of answers that follow their verdicts.

    A call of `wireless_describe` has recall 1, since it asks all experts.
    """
    precision, recall, faithful = [], [], []
    for row in members:
        wanted, called = set(row["wanted_tools"]), set(row["tools"])
        every = "wireless_describe" in called
        asked = {name for name in called if name.startswith("wireless_ask")}
        if asked:
            precision.append(len(asked & wanted) / len(asked))
        recall.append(1.0 if every else len(asked & wanted) / len(wanted))
        faithful.append(bool(row["faithful"]))
    return {
        "tool_precision": _mean(precision) if precision else None,
        "tool_recall": _mean(recall),
        "faithful": _mean(faithful),
    }


def _mean(values: Iterable[float]) -> float:
    every = [float(value) for value in values]
    return sum(every) / len(every)

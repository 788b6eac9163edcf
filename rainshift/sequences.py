"""Scores of temporal coherence, for sequences of consecutive hours that are added in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.metrics import StatisticsTable, Suite
from geoml.metrics.temporal import sequences

__all__ = ["SequenceScores"]


class SequenceScores:
    """Score sequences of `length` consecutive hours with a suite of metrics; hours outside any sequence are ignored.

    A sequence is scored, and removed from memory, as soon as all of its hours have been added.
    """

    def __init__(self, suite: Suite, times: NDArray[np.datetime64], length: int, weights: NDArray[Any]) -> None:
        self.suite, self.times, self.weights = suite, times, weights
        self.rows = sequences(times, length)
        self._sequence_of = {int(hour): number for number, row in enumerate(self.rows) for hour in row}
        self._waiting: dict[int, dict[int, tuple[NDArray[Any], ...]]] = {}
        self._tables: list[StatisticsTable] = []

    def add(
        self, hours: NDArray[np.int64], prediction: NDArray[Any], truth: NDArray[Any], known: NDArray[np.bool_]
    ) -> None:
        """Add hours by their position among the times.

        `prediction` is `(hour, member, *space)`; `truth` and `known` (a mask or weights) are `(hour, *space)`.
        """
        for place, *fields in zip(hours.tolist(), prediction, truth, known, strict=True):
            number = self._sequence_of.get(place)
            if number is None:
                continue
            waiting = self._waiting.setdefault(number, {})
            waiting[place] = tuple(np.array(field) for field in fields)
            if len(waiting) == self.rows.shape[1]:
                self._score(number)

    def _score(self, number: int) -> None:
        waiting, row = self._waiting.pop(number), self.rows[number]
        prediction, truth, known = (np.stack(fields) for fields in zip(*(waiting[int(h)] for h in row), strict=True))
        self._tables.append(
            self.suite.update(
                prediction.swapaxes(0, 1)[None],
                truth[None],
                ids=self.times[row[:1]],
                mask=known[None],
                weights=self.weights,
            )
        )

    def table(self) -> StatisticsTable | None:
        """Return one row of statistics per sequence; None if the hours contain no sequence."""
        return self.suite.merge(self._tables) if self._tables else None

"""Scores of the probability of an event "at or above a threshold", the share of members that predict it.

Probabilities are counted in bins of width 0.1. With up to ten members each bin holds at most one distinct probability,
so that results from the bins are exact. Sources: Murphy 1973 (decomposition); Wilks 2019, "Statistical Methods in the
Atmospheric Sciences", 4th ed., sect. 9.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import CellStatistic, CurveMetric, Direction, Forecast, Means, Metric, Statistic, ratio, vector

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PROBABILITY_BINS", "AveragePrecision", "Brier", "ROCArea", "Reliability", "Resolution"]

Array = NDArray[Any]
#: Bins around 0, 0.1, …, 1.
PROBABILITY_BINS = 11


@dataclass(frozen=True)
class ProbabilityBins(Statistic):
    """Share of cells, mean of p, and share of observed events by bin of the predicted probability p."""

    threshold: float

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the statistic's columns."""
        return f"probability_{self.threshold:g}"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Three groups of columns (cells, p, events) with one column per bin, and the weight of the cells."""
        samples, weights = len(forecast.truth), forecast.cell_weights
        p, o = (array.reshape(samples, -1) for array in forecast.events(self.threshold))
        bins = np.floor(p * (PROBABILITY_BINS - 1) + 0.5).astype(np.intp)
        out = np.empty((samples, 3, PROBABILITY_BINS))
        for i in range(samples):
            for part, value in enumerate((weights[i], weights[i] * p[i], weights[i] * o[i])):
                out[i, part] = np.bincount(bins[i], value, PROBABILITY_BINS)
        return out.reshape(samples, -1), forecast.total_weight


class _Binned(CurveMetric):
    """A metric of the probabilities of one event."""

    takes_threshold = True

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The bins of this threshold."""
        assert self.threshold is not None
        return (ProbabilityBins(self.threshold),)

    def _bins(self, means: Means) -> tuple[Array, Array, Array]:
        """Share of cells, of predicted probability and of events in each bin, `(…, bin)`."""
        parts = vector(means, self.statistics[0].name)
        cells, p, o = np.moveaxis(parts.reshape(*parts.shape[:-1], 3, PROBABILITY_BINS), -2, 0)
        return cells, p, o

    def _curve(self, **lines: Array) -> xr.Dataset:
        import xarray as xr

        place = np.linspace(0, 1, PROBABILITY_BINS)
        return xr.Dataset({name: ("probability", line) for name, line in lines.items()}, {"probability": place})


class Brier(Metric):
    """Brier score, `mean (p − o)²`, p the share of members with the event and o whether it was observed."""

    name, unit, perfect = "brier", "1", 0.0
    takes_threshold = True

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The squared error of the probability."""
        assert self.threshold is not None
        threshold = self.threshold
        return (CellStatistic(f"brier_{threshold:g}", lambda f: np.square(np.subtract(*f.events(threshold)))),)


class Reliability(_Binned):
    """Reliability term of the Brier score, `Σ_b n_b (p̄_b − ō_b)² / n`: how far probabilities are from frequencies.

    Up to ten members, Brier = reliability − resolution + uncertainty. Even for a calibrated ensemble it
    may be up to about `ō(1 − ō)/M`, because M members are a finite sample.
    """

    name, unit, perfect = "reliability", "1", 0.0

    def compute(self, means: Means) -> Any:
        """From the bins that have cells."""
        cells, p, o = self._bins(means)
        return np.divide(np.square(p - o), cells, out=np.zeros_like(cells), where=cells > 0).sum(axis=-1)

    def curve(self, means: Means) -> xr.Dataset:
        """The diagram: mean `forecast` probability, `observed` frequency and `share` of cells of each bin."""
        cells, p, o = self._bins(means)
        return self._curve(forecast=ratio(p, cells), observed=ratio(o, cells), share=cells)


class Resolution(_Binned):
    """Resolution over uncertainty, `Σ_b n_b (ō_b − ō)² / n / (ō (1 − ō))`: how well events are distinguished.

    Undefined where all or none of the truth is an event.
    """

    name, unit, perfect = "resolution", "1", 1.0
    direction: ClassVar[Direction] = "higher"

    def compute(self, means: Means) -> Any:
        """From the bins that have cells."""
        cells, _, o = self._bins(means)
        rate = o.sum(axis=-1)
        square = np.divide(np.square(o - rate[..., None] * cells), cells, out=np.zeros_like(cells), where=cells > 0)
        return ratio(square.sum(axis=-1), rate * (1 - rate))

    def curve(self, means: Means) -> xr.Dataset:
        """`observed` frequency and `share` of cells of each bin."""
        cells, _, o = self._bins(means)
        return self._curve(observed=ratio(o, cells), share=cells)


class ROCArea(_Binned):
    """Area under the relative operating characteristic, `P(p | event > p | no event) + ½ P(equal)`; 0.5 by chance.

    Undefined where all or none of the truth is an event.
    """

    name, unit, perfect = "roc_area", "1", 1.0
    direction: ClassVar[Direction] = "higher"

    def compute(self, means: Means) -> Any:
        """Share of pairs (event, no event) in which the event has the higher probability; ties count half."""
        cells, _, events = self._bins(means)
        others = cells - events
        ordered = (events * (np.cumsum(others, axis=-1) - others / 2)).sum(axis=-1)
        return ratio(ordered, events.sum(axis=-1) * others.sum(axis=-1))

    def curve(self, means: Means) -> xr.Dataset:
        """`hit_rate` and `false_alarm_rate` where each `probability` or more is taken for the event."""
        cells, _, events = self._bins(means)
        hits, false = (_at_least(part) for part in (events, cells - events))
        return self._curve(hit_rate=ratio(hits, hits[0]), false_alarm_rate=ratio(false, false[0]))


class AveragePrecision(_Binned):
    """Area under precision and recall, `Σ_b (R_b − R_{b+1}) P_b`, P and R where probability b or more is the event.

    By chance the frequency of the event; undefined where there is none. No straight lines between points: these
    would be too good (Davis & Goadrich 2006).
    """

    name, unit, perfect = "average_precision", "1", 1.0
    direction: ClassVar[Direction] = "higher"

    def compute(self, means: Means) -> Any:
        """Precision at each bin, averaged by the events in it."""
        cells, _, events = self._bins(means)
        found, predicted = _at_least(events), _at_least(cells)
        precision = np.divide(found, predicted, out=np.zeros_like(found), where=predicted > 0)
        return ratio((events * precision).sum(axis=-1), events.sum(axis=-1))

    def curve(self, means: Means) -> xr.Dataset:
        """`precision` and `recall` where each `probability` or more is taken for the event."""
        cells, _, events = self._bins(means)
        found = _at_least(events)
        return self._curve(precision=ratio(found, _at_least(cells)), recall=ratio(found, found[0]))


def _at_least(parts: Array) -> Array:
    """Sum over each bin and those above it."""
    return np.flip(np.cumsum(np.flip(parts, -1), axis=-1), -1)

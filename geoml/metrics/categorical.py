"""Scores of events "at or above a threshold".

Every member is one forecast, and the contingency table pools all members: the ensemble mean is smoother than a member
and would misrepresent how often a threshold is exceeded. Source of the definitions: Wilks 2019, "Statistical
Methods in the Atmospheric Sciences", 4th ed., sect. 9.2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from geoml.metrics.base import CellStatistic, Direction, Means, Metric, Statistic, ratio

__all__ = ["CSI", "SEDI", "ExceedanceBias", "FrequencyBias"]

#: Rates are clipped to this distance from 0 and 1, where the logarithms of SEDI are infinite but SEDI has a limit.
SMALLEST_RATE = 1e-15


def predicted_events(threshold: float) -> Statistic:
    """Share of predicted values (all members) at or above the threshold."""
    return CellStatistic(f"predicted_events_{threshold:g}", lambda f: f.events(threshold)[0])


def observed_events(threshold: float) -> Statistic:
    """Share of observed values at or above the threshold."""
    return CellStatistic(f"observed_events_{threshold:g}", lambda f: f.events(threshold)[1])


def hits(threshold: float) -> Statistic:
    """Share of events both predicted and observed; misses and false alarms follow from the shares of events."""
    return CellStatistic(f"hits_{threshold:g}", lambda f: np.multiply(*f.events(threshold)))


class _Event(Metric):
    """A metric of one threshold's contingency table."""

    takes_threshold = True

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """Hits, and the shares of predicted and observed events."""
        assert self.threshold is not None
        return hits(self.threshold), predicted_events(self.threshold), observed_events(self.threshold)

    def _table(self, means: Means) -> tuple[Any, Any, Any]:
        return tuple(means[statistic.name] for statistic in self.statistics)


class CSI(_Event):
    """Critical success index, `hits / (hits + misses + false alarms)`; undefined where there is no event at all."""

    name, unit, perfect = "csi", "1", 1.0
    direction: ClassVar[Direction] = "higher"

    def compute(self, means: Means) -> Any:
        """Ratio of hits to all events that are predicted or observed."""
        hit, predicted, observed = self._table(means)
        return ratio(hit, predicted + observed - hit)


class FrequencyBias(_Event):
    """Events predicted over events observed, `(hits + false alarms) / (hits + misses)`."""

    name, unit, perfect = "frequency_bias", "1", 1.0
    direction: ClassVar[Direction] = "nearer"

    def compute(self, means: Means) -> Any:
        """Ratio of the two shares; undefined where no event is observed."""
        _, predicted, observed = self._table(means)
        return ratio(predicted, observed)


class ExceedanceBias(_Event):
    """Predicted less observed share of values at or above the threshold, `mean (x ≥ t) − mean (y ≥ t)`."""

    name, unit, perfect = "exceedance_bias", "1", 0.0
    direction: ClassVar[Direction] = "nearer"

    def compute(self, means: Means) -> Any:
        """Difference of the two shares."""
        _, predicted, observed = self._table(means)
        return np.asarray(predicted - observed)


class SEDI(_Event):
    """Symmetric extremal dependence index, `(ln F − ln H − ln(1−F) + ln(1−H)) / (ln F + ln H + ln(1−F) + ln(1−H))`.

    H is the hit rate and F the false alarm rate. Unlike CSI it does not go to 0 as events become rare; 0 is no better
    than chance. Undefined where all or none of the truth is an event. Source: Ferro & Stephenson 2011, eq. 2.
    """

    name, unit, perfect = "sedi", "1", 1.0
    direction: ClassVar[Direction] = "higher"

    def compute(self, means: Means) -> Any:
        """Compute the index from hit rate and false alarm rate."""
        hit, predicted, observed = self._table(means)
        hits_rate, false_rate = ratio(hit, observed), ratio(predicted - hit, 1 - observed)
        h, f = (np.clip(rate, SMALLEST_RATE, 1 - SMALLEST_RATE) for rate in (hits_rate, false_rate))
        both = np.log(f) + np.log1p(-h), np.log(h) + np.log1p(-f)
        return (both[0] - both[1]) / (both[0] + both[1])

"""Scores of coherence in time: daily cycle, lag-1 correlation, lengths of spells.

The daily cycle needs the valid time of each sample. The others need samples that are sequences, `(time, *space)`:
`sequences` forms them from consecutive fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.metrics.base import CurveMetric, Direction, Forecast, Means, Metric, Statistic, ratio, reached, vector

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DiurnalError", "DiurnalPhase", "DrySpellRatio", "Lag1Error", "WetSpellRatio", "sequences"]

Array = NDArray[Any]
HOURS = 24


def sequences(times: Array, length: int) -> NDArray[np.intp]:
    """Indices of sequences of consecutive hours, `(sequence, length)`, into ascending `times`.

    Sequences do not overlap and have no gaps. With `rows` from here, `Suite.update` takes
    `np.moveaxis(prediction[rows], 1, 2)` of a prediction `(time, member, *space)`, `truth[rows]`, `mask[rows]` and the
    ids `times[rows[:, 0]]`.

    >>> times = np.datetime64("2021-01-01T00", "h") + np.array([0, 1, 2, 3, 7, 8])
    >>> sequences(times, 2).tolist()
    [[0, 1], [2, 3], [4, 5]]
    """
    if length < 2:
        raise ValueError(f"length of sequences is {length}; expected 2 or more")
    hour = np.timedelta64(1, "h")
    found, start = [], 0
    for end in range(1, len(times) + 1):
        if end < len(times) and times[end] - times[end - 1] == hour:
            continue
        found += [np.arange(first, first + length) for first in range(start, end - length + 1, length)]
        start = end
    return np.array(found, dtype=np.intp).reshape(-1, length)


@dataclass(frozen=True)
class DailyCycle(Statistic):
    """Mean of the prediction in each hour of the day (UTC), followed by the mean of the truth in each hour."""

    name: str = "daily_cycle"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Weighted sums and weights; each sample fills the columns of its hour."""
        ids = forecast.ids
        if ids.dtype.kind != "M":
            raise DataError(f"the daily cycle needs valid times as ids; these are of type {ids.dtype}")
        hour = ids.astype("datetime64[h]").astype(np.int64) % HOURS
        here = np.eye(HOURS)[hour]
        means = (forecast.mean, forecast.truth)
        sums = [(forecast.cell_weights * field.reshape(len(ids), -1)).sum(axis=1)[:, None] * here for field in means]
        return np.concatenate(sums, axis=1), np.tile(forecast.total_weight[:, None] * here, (1, 2))


class DiurnalError(CurveMetric):
    """Error of the mean daily cycle, `√ mean_h (x̄_h − ȳ_h)²` over the hours of the day that have samples."""

    name, unit, perfect = "diurnal_error", "field", 0.0
    statistics: tuple[Statistic, ...] = (DailyCycle(),)

    def compute(self, means: Means) -> Any:
        """From the two cycles."""
        predicted, observed = np.split(vector(means, "daily_cycle"), 2, axis=-1)
        square = np.square(predicted - observed)
        return np.sqrt(ratio(np.nansum(square, axis=-1), np.isfinite(square).sum(axis=-1)))

    def curve(self, means: Means) -> xr.Dataset:
        """`predicted` and `observed` mean by `hour` of the day, UTC."""
        import xarray as xr

        lines = zip(("predicted", "observed"), np.split(vector(means, "daily_cycle"), 2, axis=-1), strict=True)
        return xr.Dataset({name: ("hour", line) for name, line in lines}, {"hour": np.arange(HOURS)})


class DiurnalPhase(Metric):
    """Hours by which the predicted daily cycle lags, `(arg c_x − arg c_y) / ω`.

    `c = Σ_h x̄_h e^{iωh}` is the first harmonic, of a period of a day. Within −12…12; undefined where an hour of the day
    has no samples or a cycle is flat.
    """

    name, unit, perfect = "diurnal_phase", "1", 0.0
    direction: ClassVar[Direction] = "nearer"
    statistics: tuple[Statistic, ...] = (DailyCycle(),)

    def compute(self, means: Means) -> Any:
        """From the two cycles."""
        turn = np.exp(2j * np.pi * np.arange(HOURS) / HOURS)
        cycles = np.split(vector(means, "daily_cycle"), 2, axis=-1)
        harmonics = [cycle @ turn for cycle in cycles]
        flat = np.any([abs(h) <= 1e-12 * abs(c).sum(axis=-1) for h, c in zip(harmonics, cycles, strict=True)], axis=0)
        late = np.angle(harmonics[0] * np.conj(harmonics[1])) * HOURS / (2 * np.pi)
        return np.where(flat, np.nan, late)


def _steps(fields: Array) -> tuple[Array, Array]:
    """Return all steps but the last, and all but the first, of sequences `(…, time, cell)`."""
    return fields[..., :-1, :], fields[..., 1:, :]


def _sequence(forecast: Forecast) -> tuple[Array, Array, Array]:
    """Prediction `(sample, member, time, cell)`, truth and weights of pairs of steps `(sample, time, cell)`."""
    if forecast.truth.ndim < 3 or forecast.truth.shape[1] < 2:
        raise DataError(f"samples of shape {forecast.truth.shape[1:]} are not sequences; expected (time, *space)")
    samples, steps = forecast.truth.shape[:2]
    weights = np.sqrt(np.multiply(*_steps(forecast.cell_weights.reshape(samples, steps, -1))))
    prediction = forecast.prediction.reshape(samples, forecast.members, steps, -1)
    return prediction, forecast.truth.reshape(samples, steps, -1), weights


@dataclass(frozen=True)
class LaggedMoments(Statistic):
    """First and second moments of pairs of consecutive steps: five averaged over members, then five of the truth."""

    name: str = "lagged_moments"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Sums over the pairs of known cells, and their weight."""
        prediction, truth, weights = _sequence(forecast)
        parts = []
        for fields in (np.asarray(prediction, np.float64), np.asarray(truth, np.float64)[:, None]):
            now, later = _steps(fields)
            for moment in (now, later, now * now, later * later, now * later):
                parts.append((moment.mean(axis=1) * weights).sum(axis=(1, 2)))
        return np.stack(parts, axis=1), weights.sum(axis=(1, 2))


def _correlation(moments: Array) -> Array:
    """Correlation from five moments `(…, 5)`; NaN if one of the two variables is constant."""
    x, y, xx, yy, xy = np.moveaxis(moments, -1, 0)
    variances = [np.where(square - m * m > 1e-12 * square, square - m * m, 0) for m, square in ((x, xx), (y, yy))]
    return np.asarray(ratio(xy - x * y, np.sqrt(variances[0] * variances[1])))


class Lag1Error(CurveMetric):
    """Predicted less observed correlation of each step with the next, `r_x − r_y`, over all cells; needs sequences.

    Each member is one sequence; negative values mean that members flicker.
    """

    name, unit, perfect = "lag1_error", "1", 0.0
    direction: ClassVar[Direction] = "nearer"
    statistics: tuple[Statistic, ...] = (LaggedMoments(),)

    def compute(self, means: Means) -> Any:
        """Difference of the correlations."""
        predicted, observed = np.split(vector(means, "lagged_moments"), 2, axis=-1)
        return _correlation(predicted) - _correlation(observed)

    def curve(self, means: Means) -> xr.Dataset:
        """`predicted` and `observed` correlation at `lag` 1."""
        import xarray as xr

        lines = zip(("predicted", "observed"), np.split(vector(means, "lagged_moments"), 2, axis=-1), strict=True)
        return xr.Dataset({name: ("lag", _correlation(line)[None]) for name, line in lines}, {"lag": [1]})


@dataclass(frozen=True)
class Transitions(Statistic):
    """Shares of pairs of steps: first wet, wet then dry, first dry, dry then wet; of members, then of the truth."""

    threshold: float

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the statistic's columns."""
        return f"transitions_{self.threshold:g}"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Sums over the pairs of known cells, and their weight."""
        prediction, truth, weights = _sequence(forecast)
        parts = []
        least = reached(self.threshold)
        for fields in (prediction >= least, (truth >= least)[:, None]):
            now, later = _steps(fields)
            for event in (now, now & ~later, ~now, ~now & later):
                parts.append((event.mean(axis=1) * weights).sum(axis=(1, 2)))
        return np.stack(parts, axis=1), weights.sum(axis=(1, 2))


class _SpellRatio(CurveMetric):
    unit, perfect = "1", 1.0
    direction: ClassVar[Direction] = "nearer"
    takes_threshold = True
    spell: ClassVar[int]

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The transitions at this threshold."""
        assert self.threshold is not None
        return (Transitions(self.threshold),)

    def _lengths(self, means: Means) -> Array:
        """Mean length in steps, `(…, predicted or observed, wet or dry)`."""
        parts = vector(means, self.statistics[0].name)
        parts = parts.reshape(*parts.shape[:-1], 2, 2, 2)
        return np.asarray(ratio(parts[..., 0], parts[..., 1]))

    def compute(self, means: Means) -> Any:
        """Ratio of the mean lengths."""
        lengths = self._lengths(means)[..., self.spell]
        return ratio(lengths[..., 0], lengths[..., 1])

    def curve(self, means: Means) -> xr.Dataset:
        """`predicted` and `observed` mean length in steps by `spell`, wet and dry."""
        import xarray as xr

        lines = zip(("predicted", "observed"), self._lengths(means), strict=True)
        return xr.Dataset({name: ("spell", line) for name, line in lines}, {"spell": ["wet", "dry"]})


class WetSpellRatio(_SpellRatio):
    """Predicted over observed mean length of spells at or above the threshold, `L_x / L_y`; needs sequences.

    `L = P(wet now) / P(wet now, dry next)`; the ends of the sequences cause no bias. Undefined if no spell ends.
    """

    name, spell = "wet_spell_ratio", 0


class DrySpellRatio(_SpellRatio):
    """Predicted over observed mean length of spells below the threshold, `L_x / L_y`; needs sequences.

    `L = P(dry now) / P(dry now, wet next)`; see `WetSpellRatio`.
    """

    name, spell = "dry_spell_ratio", 1

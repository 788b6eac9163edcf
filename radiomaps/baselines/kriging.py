"""Kriging of observed voxels with PyKrige. The variogram is fitted on the training maps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from radiomaps.baselines.base import Array, PerMap, positions
from radiomaps.tasks import Task

__all__ = ["OrdinaryKriging", "RegressionKriging"]

_PAIRS, _MAPS, _BINS = 20_000, 64, 16
#: Smallest sill, in squares of encoded values; below it a channel is constant.
_LEAST_SILL = 1e-12
#: If more than 400 voxels are observed, each voxel is kriged from the 32 nearest.
_ALL, _NEAREST = 400, 32


class OrdinaryKriging(PerMap):
    """Ordinary kriging in three dimensions with an exponential variogram (Cressie 1993, sect. 3.2).

    Each channel has one variogram. It is fitted to the squared differences of pairs of voxels of the same training map,
    by distance. `nugget` is the variance of the noise as a share of the sill; at 0, observed voxels keep their values.
    """

    learns = True

    def __init__(self, task: Task, *, nugget: float = 0.0) -> None:
        super().__init__(task)
        if not 0 <= nugget < 1:
            raise UserError(f"nugget={nugget}; expected a share of the sill, 0 or more and below 1")
        self.nugget = float(nugget)
        #: Sill and range in metres of each channel.
        self.variograms: dict[str, tuple[float, float]] = {}

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fit exponential variograms to the squared differences of random pairs of valid voxels."""
        pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in self.task.target_channels}
        random, maps = np.random.default_rng(0x7A5), 0
        for batch in batches:
            if maps >= _MAPS:
                break
            for places, values in self._detrended(batch):
                if len(places) < 2 or maps >= _MAPS:
                    continue
                maps += 1
                first, second = random.integers(len(places), size=(2, _PAIRS))
                lag = np.linalg.norm(places[first] - places[second], axis=1)
                for channel, name in enumerate(self.task.target_channels):
                    pairs[name].append((lag, np.square(values[first, channel] - values[second, channel]) / 2))
        if not maps:
            raise DataError("no training map has two valid voxels, which a variogram needs")
        self.variograms = {
            name: fit_exponential(*(np.concatenate(part) for part in zip(*found, strict=True)))
            for name, found in pairs.items()
        }

    def _detrended(self, batch: Batch) -> Iterable[tuple[Array, Array]]:
        """Yield positions (m) and values `(n, channel)` of each map's valid voxels."""
        assert batch.target is not None
        places = positions(batch.target_grid)
        for row, known in zip(batch.target.numpy(), _counts(batch), strict=True):
            yield places[known], row[:, known].T.astype(np.float64)

    def state(self) -> dict[str, Any]:
        """Sill and range of each channel."""
        return {"variograms": {name: list(pair) for name, pair in self.variograms.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.variograms = {name: (float(pair[0]), float(pair[1])) for name, pair in state["variograms"].items()}

    def fill(self, places: Array, values: Array, wanted: Array, number: int, batch: Batch) -> Array:
        """Each channel is kriged separately."""
        return np.stack(
            [
                self._kriged(places, values[:, channel], wanted, name)
                for channel, name in enumerate(self.task.target_channels)
            ],
            axis=1,
        )

    def _kriged(self, places: Array, values: Array, wanted: Array, name: str) -> Array:
        if len(places) < 2 or np.ptp(values) == 0:
            return np.full(len(wanted), values.mean())
        from pykrige.ok3d import OrdinaryKriging3D

        sill, reach = self.variograms[name]
        parameters = {"psill": (1 - self.nugget) * sill, "range": reach, "nugget": self.nugget * sill}
        model = OrdinaryKriging3D(
            *places.T[::-1], values, variogram_model="exponential", variogram_parameters=parameters
        )
        near: dict[str, Any] = {"backend": "loop", "n_closest_points": _NEAREST} if len(places) > _ALL else {}
        return np.asarray(model.execute("points", *wanted.T[::-1], **near)[0])


class RegressionKriging(OrdinaryKriging):
    """Regression kriging (Hengl et al. 2007): a linear trend, plus ordinary kriging of its residuals.

    The trend is fitted by least squares on the training maps. It is linear in the voxel's height, the height of the
    roof in its column, and the distance to the nearest building. If the task includes the transmitter, it is also
    linear in the log of the distance, the direction to the transmitter, and the prior.
    """

    def __init__(self, task: Task, *, nugget: float = 0.0) -> None:
        super().__init__(task, nugget=nugget)
        self.trend: Array = np.zeros((0, 0))

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fit the trend, then the variogram of its residuals."""
        kept = []
        normal: Any = 0.0
        right: Any = 0.0
        for number, batch in enumerate(batches):
            assert batch.target is not None
            for features, row, known in zip(self._features(batch), batch.target.numpy(), _counts(batch), strict=True):
                design, values = features[:, known], row[:, known].astype(np.float64)
                normal, right = normal + design @ design.T, right + design @ values.T
            if number < _MAPS:
                kept.append(batch)
        if not kept:
            raise DataError("there is no training map to fit a trend to")
        ridge = 1e-9 * np.trace(normal) / len(normal) * np.eye(len(normal))
        self.trend = np.linalg.solve(normal + ridge, right)
        super().fit(kept)

    def _features(self, batch: Batch) -> Array:
        """Features of the trend `(batch, feature, z, y, x)`. The first is the constant 1."""
        from scipy.ndimage import distance_transform_edt

        building = self.channel(batch, "building") > 0
        steps = [axis.step for axis in batch.target_grid.axes]
        room = np.stack(
            [distance_transform_edt(~item, sampling=steps) if item.any() else np.full(item.shape, 100.0)
             for item in building]
        )  # fmt: skip
        names = [
            name
            for name in self.task.channels.condition
            if name in ("roof", "height", "tx_distance", "tx_east", "tx_north", "tx_up") or name.endswith("_prior")
        ]
        known = [self.channel(batch, name) for name in names]
        return np.stack([np.ones_like(room), np.log1p(room), *known], axis=1).astype(np.float64)

    def _detrended(self, batch: Batch) -> Iterable[tuple[Array, Array]]:
        for (places, values), features, known in zip(
            super()._detrended(batch), self._features(batch), _counts(batch), strict=True
        ):
            yield places, values - features[:, known].T @ self.trend

    def state(self) -> dict[str, Any]:
        """Trend and variograms."""
        return {**super().state(), "trend": self.trend.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        super().load_state(state)
        self.trend = np.asarray(state["trend"], np.float64)

    def fill(self, places: Array, values: Array, wanted: Array, number: int, batch: Batch) -> Array:
        """The trend plus the kriged residuals of the observed voxels."""
        one = batch.map(condition=batch.condition[number : number + 1], target=None, mask=None, ids=())
        features = self._features(one)[0]
        seen = self.channel(batch, "observed")[number] > 0
        left = values - features[:, seen].T @ self.trend
        return features.reshape(len(features), -1).T @ self.trend + super().fill(places, left, wanted, number, batch)


def _counts(batch: Batch) -> Array:
    """Mask `(batch, z, y, x)` of voxels in which every target is valid."""
    assert batch.mask is not None
    return np.asarray(batch.mask.numpy().all(axis=1))


def fit_exponential(lag: Array, gamma: Array) -> tuple[float, float]:
    """Fit sill s and practical range r (m) of the exponential variogram s (1 − exp(−3 h / r)).

    `lag` is the distance of each pair in metres, `gamma` half its squared difference. The means of `gamma` in classes
    of distance are fitted, weighted by their number of pairs.
    """
    from scipy.optimize import curve_fit

    edges = np.linspace(0, lag.max() * 0.7 + 1e-9, _BINS + 1)
    which = np.digitize(lag, edges) - 1
    inside = (which >= 0) & (which < _BINS) & (lag > 0)
    counts = np.bincount(which[inside], minlength=_BINS)
    totals = [np.bincount(which[inside], weights=part[inside], minlength=_BINS) for part in (lag, gamma)]
    full = counts > 0
    h, means = (total[full] / counts[full] for total in totals)
    if not full.any() or means.max() <= _LEAST_SILL:
        return _LEAST_SILL, float(max(lag.max(), 1.0))

    def curve(h: Array, sill: float, reach: float) -> Array:
        return sill * (1 - np.exp(-3 * h / reach))

    limits = ([_LEAST_SILL, 1e-3], [10 * means.max(), 10 * lag.max()])
    start = (means.max(), lag.max() / 3)
    found, _ = curve_fit(curve, h, means, start, 1 / np.sqrt(counts[full]), bounds=limits)
    return float(found[0]), float(found[1])

"""Spectra of fields, and the distance of a prediction's spectrum from the truth's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.metrics.base import CurveMetric, Forecast, Means, Statistic, vector

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["RALSD", "ralsd", "rapsd"]

Array = NDArray[Any]


@lru_cache(maxsize=32)
def _rings(height: int, width: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the `slots` and `scale` of `ring_power` for a real transform of fields of this size.

    A real transform leaves out half of the plane, which mirrors the other half: those coefficients count twice.
    """
    from geoml.metrics.kernels import SIDE_BY_SIDE  # numba takes half a second to import

    longest = max(height, width)
    radius = longest * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    count = (longest + 1) // 2
    # the corners beyond the shortest wave are a further ring, which is dropped
    ring = np.minimum(np.rint(radius).astype(np.int32), count)
    twice = np.full(ring.shape, 2.0)
    twice[:, 0] = 1.0
    if width % 2 == 0:
        twice[:, -1] = 1.0
    weight = np.bincount(ring.ravel(), twice.ravel(), count + 1)
    with np.errstate(divide="ignore"):
        scale = 2 / (weight * height * width)
    side = np.arange(ring.shape[1], dtype=np.int32) % SIDE_BY_SIDE
    return ring[: height // 2 + 1] * np.int32(SIDE_BY_SIDE) + side, scale


def rapsd(fields: Array) -> NDArray[np.float64]:
    """Radially averaged power spectral density, `(…, k)` of fields `(…, y, x)`: the mean of |F|²/N on each ring.

    Wavenumber k runs from 0 in cycles along the longer side. No window is applied; fields are taken as periodic.

    >>> wave = np.cos(2 * np.pi * 3 * np.arange(16) / 16) * np.ones((16, 1))
    >>> int(rapsd(wave).argmax())
    3
    """
    values = np.asarray(fields, np.float64)
    height, width = values.shape[-2:]
    slots, scale = _rings(height, width)
    import scipy.fft  # as numba, it takes half a second to import

    from geoml.metrics.kernels import ring_power

    parts = scipy.fft.rfft2(values).view(np.float64)
    out = ring_power(parts.reshape(-1, *parts.shape[-2:]), slots, scale, width % 2 == 0)[:, :-1]
    return out.reshape(*values.shape[:-2], len(scale) - 1)


def ralsd(prediction: Array, truth: Array) -> float:
    """Radially averaged log spectral distance of one field `(y, x)` in dB; see `RALSD`."""
    return float(_distance(rapsd(prediction), rapsd(truth)))


def _distance(predicted: Array, observed: Array) -> Any:
    """Root mean square of the ratio in dB over wavenumbers from 1 on; wavenumbers without any power are left out."""
    from geoml.metrics.kernels import decibel_distance

    lead, waves = predicted.shape[:-1], predicted.shape[-1]
    return decibel_distance(predicted.reshape(-1, waves)[:, 1:], observed.reshape(-1, waves)[:, 1:]).reshape(lead)


@dataclass(frozen=True)
class Power(Statistic):
    """Mean spectrum of the members, followed by the spectrum of the truth; cells with unknown truth are set to 0."""

    name: str = "power"

    def evaluate(self, forecast: Forecast) -> tuple[Array, Array]:
        """Both spectra times the weight of the sample, and the weight."""
        prediction, truth, _ = forecast.planes
        spectra = [rapsd(prediction).mean(axis=(1, 2)), rapsd(truth).mean(axis=1)]
        return np.concatenate(spectra, axis=1) * forecast.total_weight[:, None], forecast.total_weight


class RALSD(CurveMetric):
    """Radially averaged log spectral distance, `√ mean_k (10 log₁₀ P_x(k) / P_y(k))²`, in dB.

    P is the power at wavenumber k, averaged over samples before the logarithm, and over members: the spectrum of the
    ensemble mean would be that of a smoother field. Samples have to be of one size. Source: Harris et al. 2022, "A
    generative deep learning approach to stochastic downscaling of precipitation forecasts", sect. 3.
    """

    name, unit, perfect = "ralsd", "1", 0.0
    statistics: tuple[Statistic, ...] = (Power(),)

    def compute(self, means: Means) -> Any:
        """Compute the distance of the two spectra."""
        return _distance(*np.split(vector(means, "power"), 2, axis=-1))

    def curve(self, means: Means) -> xr.Dataset:
        """`predicted` and `observed` power by `wavenumber`, in cycles along the longer side."""
        import xarray as xr

        predicted, observed = np.split(vector(means, "power"), 2, axis=-1)
        lines = {"predicted": predicted[1:], "observed": observed[1:]}
        waves = np.arange(1, len(predicted))
        return xr.Dataset({name: ("wavenumber", line) for name, line in lines.items()}, {"wavenumber": waves})

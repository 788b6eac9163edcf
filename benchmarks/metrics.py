"""The fractions skill score and the radially averaged log spectral distance, compared with pysteps, in time and value.

The data are a RainShift field (200 × 200 cells of rain-like noise) and one prediction of it. The FSS is computed at all
thresholds × windows of the scorecard, by ours and by `pysteps.verification.spatialscores.fss`. pysteps has no spectral
distance: the value of RALSD is compared with a distance from spectra of `pysteps.utils.spectral.rapsd`, and its time
with the two Fourier transforms that it needs at least. RALSD and the transforms take turns without others in between,
so both find the same caches. All get plain float64 arrays on one thread. Libraries take turns. A time is the smallest
over the rounds, which other work disturbs least.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import scipy.fft
from harness import least_seconds, main, peer

from geoml.cli.tables import show
from geoml.metrics.base import Forecast
from geoml.metrics.neighbourhood import Fractions, fss
from geoml.metrics.spectra import ralsd

_spectral, _spatial = peer("metrics", "pysteps.utils.spectral", "pysteps.verification.spatialscores")
pysteps_rapsd, pysteps_fss = _spectral.rapsd, _spatial.fss
THRESHOLDS, WINDOWS = (1.0, 5.0, 10.0, 20.0), (2, 4, 8, 16, 32)
Field = np.ndarray[Any, np.dtype[np.float64]]


def fields(size: int, seed: int) -> tuple[Field, Field]:
    """Generate rain and a prediction of it: exponentials of correlated Gaussian fields with spectral slope 2."""
    rng = np.random.default_rng(seed)
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    k[0, 0] = np.inf
    made = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((2, size, size))) * k**-1.5, (size, size))
    made /= made.std(axis=(1, 2), keepdims=True)
    made[0] = 0.8 * made[1] + 0.6 * made[0]
    return tuple(np.maximum(np.exp(1.5 * made) - 1, 0))


def our_fss(prediction: Field, truth: Field) -> list[float]:
    """Compute all thresholds × windows as a suite does, with shared intermediate results."""
    ones = np.ones((1, *truth.shape))
    forecast = Forecast(prediction[None, None], truth[None], ones > 0, ones, np.zeros(1))
    values = []
    for threshold, window in product(THRESHOLDS, WINDOWS):
        error, reference = Fractions(threshold, window).evaluate(forecast)[0][0]
        values.append(1 - error / reference)
    return values


def their_ralsd(prediction: Field, truth: Field) -> float:
    """Compute the distance from the spectra of pysteps, without wavenumber 0."""
    power = [pysteps_rapsd(field, fft_method=np.fft)[1:] for field in (prediction, truth)]
    return float(np.sqrt(np.mean(np.square(10 * np.log10(power[0] / power[1])))))


def measure(quick: bool) -> dict[str, float]:
    """Return the figures of this script by the keys of targets.yaml."""
    pairs, more = list(product(THRESHOLDS, WINDOWS)), list(product(THRESHOLDS, (1, 3, 5, 12, 50)))
    differences: list[float] = []
    for size, seed in ((200, 0), (200, 1), (97, 2)):
        x, y = fields(size, seed)
        theirs = np.array([pysteps_fss(x, y, *pair) for pair in pairs])
        ours = (np.array([fss(x, y, *pair) for pair in pairs]), np.array(our_fss(x, y)))
        differences += [float(np.abs(made - theirs).max()) for made in ours]
        differences += [abs(fss(x, y, *pair) - pysteps_fss(x, y, *pair)) for pair in more]
        differences.append(abs(ralsd(x, y) - their_ralsd(x, y)))
    x, y = fields(200, 0)
    calls: dict[str, Callable[[], Any]] = {
        "fss, ours": lambda: our_fss(x, y),
        "fss, ours, one by one": lambda: [fss(x, y, *pair) for pair in pairs],
        "fss, pysteps": lambda: [pysteps_fss(x, y, *pair) for pair in pairs],
        "ralsd, pysteps": lambda: their_ralsd(x, y),
    }
    limit: dict[str, Callable[[], Any]] = {
        "ralsd, ours": lambda: ralsd(x, y),
        "transforms alone": lambda: [scipy.fft.rfft2(field) for field in (x, y)],
    }
    seconds = least_seconds(calls, 10 if quick else 50) | least_seconds(limit, 100 if quick else 500)
    show([{"score": name, "ms": 1e3 * value} for name, value in seconds.items()])
    return {
        "fss_vs_reference": seconds["fss, pysteps"] / seconds["fss, ours"],
        "ralsd_of_fft_limit": seconds["transforms alone"] / seconds["ralsd, ours"],
        "max_abs_diff": float(np.max(differences)),  # NaN where any is
    }


if __name__ == "__main__":
    main("metrics", measure)

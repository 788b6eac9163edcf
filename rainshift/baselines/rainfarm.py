"""RainFARM: stochastic downscaling by extrapolation of the power spectrum to small scales."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.models.base import Channels
from geoml.models.noise import member_noise
from geoml.nn.conservation import conservation_for
from geoml.regrid import operator_for
from rainshift.baselines.base import Baseline, first_guesses

__all__ = ["RainFARM", "power_law_noise", "spectral_slope"]


class RainFARM(Baseline):
    """Stochastic downscaling by an extrapolated power spectrum (Rebora et al. 2006, J. Hydrometeorol. 7, 724).

    A Gaussian field g with random phases continues the spectral slope of each coarse field (or `slope`) to fine scales.
    The fine rain is exp(g), scaled to the area mean of each coarse cell. For non-integer refinement factors, fine cells
    overlap several coarse cells; `geoml.nn.conservation` then does the scaling. Random numbers depend on seed, sample
    id and member only. RainFARM is not trained, and rain is its only predictor.
    """

    learns = False
    stochastic = True

    def __init__(self, channels: Channels, dims: int = 2, *, slope: float | None = None) -> None:
        super().__init__(channels, dims)
        if slope is not None and not slope >= 0:
            raise UserError(f"rainfarm.slope is {slope}; expected an exponent of 0 or more (power ∝ k^−slope)")
        self.slope = slope
        self._guesses = first_guesses(channels, "RainFARM")

    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Draw members. Their area means over coarse cells equal the coarse rain."""
        fine, coarse = batch.target_grid, batch.condition_grid
        rain = batch.condition[:, self._guesses].cpu().double().clamp(min=0)
        white = member_noise((len(self._guesses), *fine.shape), batch.ids, members=members, seed=seed).numpy()
        slopes = np.array([[self._slope_of(field) for field in fields] for fields in rain.numpy()])
        noise = torch.from_numpy(power_law_noise(white, slopes[:, None]))
        first = operator_for(coarse, fine, "conservative")(rain).unsqueeze(1) * (noise - 0.5).exp()
        fields = conservation_for(fine, coarse)(first, rain.unsqueeze(1), "multiplicative")
        return fields.float().to(batch.condition.device), 0.0

    def _slope_of(self, field: NDArray[np.float64]) -> float:
        return spectral_slope(field) if self.slope is None else self.slope


def spectral_slope(field: NDArray[np.floating], *, otherwise: float = 2.0) -> float:
    """Fit the exponent β ≥ 0 of the radially averaged power ∝ k^−β of a field `(lat, lon)`.

    All wave number rings up to the Nyquist wave number are used. A Hann window is applied, since fields are not
    periodic. Returns `otherwise` if a ring has no power or there are fewer than three rings.
    """
    window = np.multiply.outer(*(np.hanning(size + 2)[1:-1] for size in field.shape))
    power = np.abs(np.fft.fft2((field - field.mean()) * window)) ** 2
    count = min(field.shape)
    ring = np.rint(_wave_numbers(field.shape) * count).astype(int)
    totals, cells = (np.bincount(ring.ravel(), weights)[1 : count // 2 + 1] for weights in (power.ravel(), None))
    if len(totals) < 3 or not (totals > 0).all():
        return otherwise
    slope = -np.polyfit(np.log(np.arange(1, len(totals) + 1)), np.log(totals / cells), 1)[0]
    return max(float(slope), 0.0)


def power_law_noise(white: NDArray[np.floating], slope: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter white noise `(…, lat, lon)` to Gaussian fields of variance 1 with power ∝ k^−slope.

    `slope` is broadcast against the leading dimensions.
    """
    number = _wave_numbers(white.shape[-2:])
    number[0, 0] = np.inf  # zero mean: the coarse rain determines the mean
    gain = number ** (-0.5 * np.asarray(slope)[..., None, None])
    gain /= np.sqrt((gain**2).mean(axis=(-2, -1), keepdims=True))
    return np.asarray(np.fft.ifft2(np.fft.fft2(white) * gain).real)


def _wave_numbers(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the absolute wave number of each mode of `fft2`, in cycles per cell."""
    rows, columns = (np.fft.fftfreq(size) for size in shape)
    return np.hypot(rows[:, None], columns)

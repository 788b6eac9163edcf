"""Histogram of rain rates that is updated batch by batch."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError

__all__ = ["RateHistogram"]


class RateHistogram:
    """Histogram of rain rates on logarithmic bins. Its size does not depend on the amount of data.

    Quantiles are accurate to half a bin, 0.3 % of the value. Rates below 2⁻¹⁰ mm/h count as dry.
    """

    #: Bins per octave of the rate.
    BINS_PER_OCTAVE: ClassVar[int] = 128
    _LOWEST, _HIGHEST = 2.0**-10, 2.0**12

    def __init__(self) -> None:
        octaves = int(np.log2(self._HIGHEST / self._LOWEST))
        self._edges = self._LOWEST * 2 ** (np.arange(octaves * self.BINS_PER_OCTAVE + 1) / self.BINS_PER_OCTAVE)
        # bin 0 holds values below the lowest edge, mostly dry cells
        self.counts = np.zeros(len(self._edges) + 1, dtype=np.int64)

    def add(self, values: NDArray[np.floating]) -> None:
        """Add values in mm/h to the counts."""
        self.counts += np.bincount(np.searchsorted(self._edges, values, side="right"), minlength=len(self.counts))

    def quantiles(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the quantiles at `levels` (0 to 1); 0 for levels within the share of dry values."""
        if not self.counts.any():
            raise ValueError("no training cell was counted; call fit first")
        middles = np.concatenate(([0.0], np.sqrt(self._edges[:-1] * self._edges[1:]), self._edges[-1:]))
        cumulated = np.cumsum(self.counts)
        return np.asarray(middles[np.searchsorted(cumulated, levels * cumulated[-1])])

    def state(self) -> dict[str, int]:
        """Return the counts by bin number, without empty bins, as plain values for JSON."""
        return {str(place): int(self.counts[place]) for place in np.flatnonzero(self.counts)}

    def load_state(self, state: dict[str, int]) -> None:
        """Restore the counts from the result of `state`."""
        self.counts[:] = 0
        try:
            for place, count in state.items():
                self.counts[int(place)] = int(count)
        except (ValueError, IndexError, TypeError) as error:
            raise DataError(f"the saved histogram of rain has invalid counts: {error}") from error

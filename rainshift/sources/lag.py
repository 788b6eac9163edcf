"""Check the time labels of coarse and fine rain by lag correlation. It only warns and does not shift data."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rainshift.sources.base import RegionData

__all__ = ["best_lag", "warn_of_lag"]

logger = logging.getLogger(__name__)

MOST_LAG = 3
#: Largest and smallest number of hours in the check.
HOURS, FEWEST = 600, 150
#: Smallest latitude in degrees. In the tropics rain follows the time of day, and reanalyses are hours early there.
MID_LATITUDE = 30.0
#: Smallest gain in correlation over lag 0 that leads to a warning.
MARGIN = 0.02


def best_lag(
    coarse: NDArray[np.floating], fine: NDArray[np.floating], hours: NDArray[np.integer]
) -> tuple[int, float, float]:
    """Find the lag in hours with the highest correlation. Returns it, its correlation, and the correlation at lag 0.

    `hours` numbers the hours of both series, ascending, with possible gaps. A lag of 1 pairs the fine value of an hour
    with the coarse value of the hour before.

    >>> x = np.random.default_rng(0).normal(size=200)
    >>> best_lag(x, np.roll(x, 2), np.arange(200))[0]
    2
    """
    place = {int(hour): index for index, hour in enumerate(hours)}
    found: dict[int, float] = {}
    for lag in range(-MOST_LAG, MOST_LAG + 1):
        pairs = [(place[h - lag], i) for h, i in place.items() if h - lag in place]
        if len(pairs) < 3:
            continue
        first, second = np.array(pairs).T
        x, y = coarse[first], fine[second]
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() >= 3 and np.ptp(x[known]) > 0 and np.ptp(y[known]) > 0:
            found[lag] = float(np.corrcoef(x[known], y[known])[0, 1])
    none = found.get(0, np.nan)
    best = max(found, key=lambda lag: found[lag], default=0)
    return best, found.get(best, np.nan), none


def warn_of_lag(data: RegionData) -> int | None:
    """Warn if fine rain correlates best with the coarse rain of another hour. Returns the lag; None if not checked.

    The check uses region means of large-scale rain (`tp` − `cp`) in winter weeks at mid-latitudes. In other regions and
    seasons, errors of reanalyses in the diurnal cycle would look like shifted time labels.
    """
    if "tp" not in data.condition:
        return None
    middle = (data.fine["lat"].start + data.fine["lat"].stop) / 2
    time = data.time
    months = time.astype("datetime64[M]").astype(int) % 12 + 1
    winter = np.flatnonzero(np.isin(months, (12, 1, 2) if middle > 0 else (6, 7, 8)))[:HOURS]
    if abs(middle) < MID_LATITUDE or len(winter) < FEWEST:
        return None
    part = data.isel(winter)
    rain = part.condition["tp"] - part.condition["cp"] if "cp" in part.condition else part.condition["tp"]
    coarse = rain.mean(("lat", "lon")).values
    fine = part.target["precipitation"].mean(("lat", "lon")).values
    lag, best, none = best_lag(coarse, fine, part.time.astype("datetime64[h]").astype(np.int64))
    if lag and best > none + MARGIN:
        logger.warning(
            "%s: fine rain correlates best with the coarse rain %d h %s (correlation %.2f, paired as given %.2f); "
            "check whether one of the two is labelled with the start of its hours. The data are not shifted",
            data.name, abs(lag), "earlier" if lag > 0 else "later", best, none,
        )  # fmt: skip
    return lag

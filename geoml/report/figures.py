"""Charts as data: described once, rendered for the browser by `plotly_figure` and for print by `draw_plot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["GUIDE", "HeatMap", "Plot", "PlotAxis", "Series", "Subplot", "guide", "offset"]

#: Colour of lines that show an ideal value.
GUIDE = "#888888"


@dataclass(frozen=True)
class Series:
    """Points `(x, y)` of one colour; NaN leaves a gap, `low` and `high` are the ends of intervals of y.

    A series without a name is not in the legend. `texts` are shown under the pointer, one for each point.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    colour: str
    style: Literal["line", "points", "both", "steps"] = "line"
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    hollow: bool = False
    dashed: bool = False
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class HeatMap:
    """Values `(y, x)` with their numbers in the cells; the names of rows and columns are those of the axes."""

    values: NDArray[Any]
    unit: str
    low: float
    high: float
    colours: str = "Viridis_r"


@dataclass(frozen=True)
class PlotAxis:
    """An axis: `names` are categories at 0, 1, …; `marks` are named places with a dotted line.

    A limit that is None follows from the data.
    """

    title: str = ""
    limits: tuple[float | None, float | None] = (None, None)
    log: bool = False
    names: Sequence[str] = ()
    marks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Subplot:
    """Series on common axes, or one heat map. `marks` are drawn on the x axis only."""

    content: Sequence[Series] | HeatMap
    x: PlotAxis = PlotAxis()
    y: PlotAxis = PlotAxis()
    title: str = ""


@dataclass(frozen=True)
class Plot:
    """Subplots in rows of `columns`; subplots of a row share their y axis. `height` is that of a row in pixels."""

    subplots: Sequence[Subplot]
    columns: int = 1
    height: int = 380

    @property
    def rows(self) -> int:
        """The number of rows."""
        return -(-len(self.subplots) // self.columns)


def guide(x: ArrayLike, y: ArrayLike) -> Series:
    """Return a thin grey line without a name, which shows an ideal value."""
    return Series("", x, y, GUIDE)


def offset(number: int, count: int) -> float:
    """Return the horizontal offset of series `number` of `count` from the centre of a category.

    >>> [round(offset(number, 3), 2) for number in range(3)]
    [-0.32, 0.0, 0.32]
    """
    return float(np.linspace(-0.32, 0.32, count)[number]) if count > 1 else 0.0

"""One kind of file: how it is written, and what a scene has to be read from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiomaps.scenes import Scene

__all__ = ["Case", "near_zero", "size"]

#: Area in m², base and top in m.
Building = tuple[float, float, float]


@dataclass(frozen=True)
class Case:
    """A row of the table and a test: `write` makes the file and returns what `radiomaps.scenes.load` takes.

    The scene has exactly these buildings, each word of `repairs` in a line of its repairs (none without words), and
    passes `check`; or else the file is refused in one line that matches `error`.
    """

    form: str
    kind: str
    outcome: str
    write: Callable[[Path], Any]
    buildings: tuple[Building, ...] = ()
    repairs: tuple[str, ...] = ()
    error: str = ""
    check: Callable[[Scene], bool] | None = None


def size(scene: Scene) -> tuple[float, float]:
    """Extent along x and y in metres."""
    low, high = scene.extent
    return high[0] - low[0], high[1] - low[1]


def near_zero(scene: Scene) -> bool:
    """Whether coordinates are small enough for single precision."""
    low, high = scene.extent
    return max(map(abs, (*low[:2], *high[:2]))) < 1000

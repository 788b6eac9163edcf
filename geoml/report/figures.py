"""Matplotlib figures as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from geoml.runs.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save_figure"]


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 120) -> None:
    """Write a figure atomically, in the format of the file name's suffix."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=dpi, format=Path(path).suffix.lstrip("."))

"""Geometry of a trained model: its coarse grid, its fine grid and its time step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from geoml.errors import DataError, UserError
from geoml.grids.axes import Axis, nice_number
from geoml.grids.grid import Grid, grid_of
from geoml.runs.files import read_json, write_json
from rainshift.data.exactness import exact_means

if TYPE_CHECKING:
    from rainshift.data.archive import Archive

__all__ = ["Geometry"]

#: File in the folder of the checkpoints.
FILE = "geometry.json"
#: Relative tolerance of the coarse spacing and of the refinement factor.
SLACK = 0.02


@dataclass(frozen=True)
class Geometry:
    """Coarse grid, fine grid and time step of a training.

    Attributes:
        coarse: coarse grid.
        fine: fine grid.
        step_seconds: time step of the samples in seconds.
        exact: whether the coarse rain is the exact area mean of the fine rain.
        units: units of predictors that RainShift does not define.
        brought_from: spacing of the coarse files along latitude and longitude, if their fields were interpolated to
            `coarse`; else None.
    """

    coarse: Grid
    fine: Grid
    step_seconds: float = 3600.0
    exact: bool = False
    units: Mapping[str, str] = field(default_factory=dict)
    brought_from: tuple[float, ...] | None = None

    @classmethod
    def of(cls, archive: Archive, region: str, split: str | None = None) -> Geometry:
        """Return the geometry of a region's prepared data, by default of its training split."""
        groups = archive.open(region, split or ("train" if "train" in archive.splits else archive.splits[0]))
        units = {str(name): str(array.attrs.get("units", "")) for name, array in groups["condition"].data_vars.items()}
        coarse, fine = grid_of(groups["condition"]), grid_of(groups["target"])
        steps = archive.attribute(region, "coarse_steps")
        brought = None if steps is None else tuple(map(float, steps.split()))
        return cls(coarse, fine, archive.step_seconds(region), exact_means(archive, [region]), units, brought)

    def save(self, folder: Path) -> None:
        """Write `geometry.json` atomically."""
        grids = {"coarse": self.coarse.to_dict(), "fine": self.fine.to_dict()}
        rest = {"step_seconds": self.step_seconds, "exact": self.exact, "units": dict(self.units)}
        brought = {} if self.brought_from is None else {"brought_from": list(self.brought_from)}
        write_json(folder / FILE, grids | rest | brought)

    @classmethod
    def load(cls, folder: Path) -> Geometry | None:
        """Read the file that `save` wrote; None if there is none. Raises `DataError` for an invalid file."""
        path = next((place / FILE for place in (folder, folder.parent) if (place / FILE).exists()), None)
        if path is None:
            return None
        values = read_json(path)
        try:
            coarse, fine = (Grid.from_dict(values.pop(name)) for name in ("coarse", "fine"))
            brought = values.pop("brought_from", None)
            return cls(coarse, fine, **values, brought_from=None if brought is None else tuple(map(float, brought)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} does not describe a pair of grids ({error}); train the model again") from error

    @property
    def factor(self) -> tuple[float, ...]:
        """Number of fine cells per coarse cell along latitude and longitude."""
        return tuple(a.step / b.step for a, b in zip(self.coarse.axes, self.fine.axes, strict=True))

    @property
    def spacings(self) -> str:
        """The two spacings as text, such as `0.25° -> 0.1°`."""
        return f"{self._steps(self.coarse)} -> {self._steps(self.fine)}"

    def brought(self, coarse: Grid) -> Grid | None:
        """Return the grid to which fields must be interpolated, as in the training; None if this is not needed.

        The grid has the spacing and the cell positions of the training grid, and lies within the fields.
        """
        if self.brought_from is None or any(
            abs(axis.step / step - 1) > SLACK for axis, step in zip(coarse.axes, self.brought_from, strict=True)
        ):
            return None
        axes = []
        for mine, its in zip(self.coarse.axes, coarse.axes, strict=True):
            first = math.ceil((its.start - mine.start) / mine.step - 1e-6)
            last = math.floor((its.stop - mine.start) / mine.step + 1e-6)
            if last <= first:
                raise DataError(
                    f"the fields have {its.size} values along {its.name}, too few to interpolate them to {mine.step:g}°"
                )
            axes.append(replace(mine, start=mine.start + first * mine.step, size=last - first + 1, period=None))
        return Grid(tuple(axes), coarse.crs)

    def refined(self, coarse: Grid) -> Grid:
        """Return the fine grid for a coarse grid, with the same relative position as in training.

        It contains the fine cells whose centres are within the coarse cells. Raises `UserError` if the coarse spacing
        differs from that of the training, since the refinement factor would differ.
        """
        for mine, its in zip(self.coarse.axes, coarse.axes, strict=True):
            if abs(its.step / mine.step - 1) > SLACK:
                times = its.step / self.fine[mine.name].step
                raise UserError(
                    f"the model was trained from {self._steps(self.coarse)} to {self._steps(self.fine)}, a factor of "
                    f"{self._shown(self.factor)}; these fields have a spacing of {self._steps(coarse)}, a factor of "
                    f"{times:.4g} along {mine.name}. Interpolate them to {mine.step:g}° with geoml.Regridder, train a "
                    f"model on them, or set target= to a fine grid that is {self._shown(self.factor)} times finer"
                )
        axes = zip(self.coarse.axes, self.fine.axes, coarse.axes, strict=True)
        return Grid(tuple(_refined(*each) for each in axes), coarse.crs)

    def check(self, coarse: Grid, fine: Grid) -> None:
        """Raise `UserError` for a factor that differs from the training, or a fine grid outside the coarse grid."""
        for mine, trained, a, b in zip(self.factor, self.fine.axes, coarse.axes, fine.axes, strict=True):
            if abs(a.step / b.step / mine - 1) > SLACK:
                raise UserError(
                    f"the model was trained on a factor of {self._shown(self.factor)} ({self._steps(self.coarse)} to "
                    f"{self._steps(self.fine)}); from {self._steps(coarse)} to {self._steps(fine)} it is "
                    f"{a.step / b.step:.4g} along {trained.name}. Train a model on these grids, or choose a fine grid "
                    f"of {a.step / mine:.4g}°"
                )
            low, high = a.start - 1.5 * a.step, a.stop + 1.5 * a.step
            shift = 360 * round((a.start - b.start) / 360) if a.is_longitude else 0
            if a.period is None and not (low < b.start + shift and b.stop + shift < high):
                raise DataError(
                    f"the coarse fields must cover the fine grid along {a.name}: they run from {a.start:g} to "
                    f"{a.stop:g}, the fine grid from {b.start:g} to {b.stop:g}; crop the "
                    "fine grid or use a larger coarse area"
                )

    @staticmethod
    def _steps(grid: Grid) -> str:
        return " × ".join(f"{step:g}°" for step in dict.fromkeys(round(axis.step, 9) for axis in grid.axes))

    @staticmethod
    def _shown(factor: tuple[float, ...]) -> str:
        return " × ".join(f"{value:.4g}" for value in dict.fromkeys(round(value, 6) for value in factor))


def _refined(coarse: Axis, fine: Axis, wanted: Axis) -> Axis:
    """Return the fine axis for the coarse axis `wanted`, with the position of `fine` relative to `coarse`."""
    ratio = Fraction(coarse.step / fine.step).limit_denominator(64)
    step = nice_number(wanted.step / float(ratio), 1e-9)
    phases = ratio.denominator
    # Offsets of coarse from fine edges repeat after this number of phases; use their common offset in training.
    offset = (((coarse.start - coarse.step / 2) - (fine.start - fine.step / 2)) / fine.step) % (1 / phases)
    offset = 0.0 if offset > 1 / phases - 1e-6 else offset
    low, high = wanted.start - wanted.step / 2, wanted.start + wanted.step * (wanted.size - 0.5)
    if wanted.is_latitude:
        low, high = max(low, -90.0), min(high, 90.0)
    edge = wanted.start - wanted.step / 2
    candidates = [edge / step - offset - k / phases for k in range(phases)]
    edge = min(candidates, key=lambda at: round(abs(at - round(at)), 6))  # prefer multiples of the step
    edge = float(round(edge)) if abs(edge - round(edge)) < 1e-6 else edge
    period = wanted.period
    if period is not None:
        cells = round(period / step)
        if abs(cells * step - period) < 1e-6 * period:
            first = edge + round(low / step - edge)
            return replace(fine, start=_tidy(first, step), step=step, size=cells, period=period)
    first = edge + math.ceil(low / step - edge - 0.5 - 1e-6)
    size = math.floor(high / step - first - 0.5 + 1e-6) + 1
    return replace(fine, start=_tidy(first, step), step=step, size=size, period=None)


def _tidy(edge: float, step: float) -> float:
    """Return the centre of the first cell after an edge; `edge` is in units of `step`."""
    return nice_number((edge + 0.5) * step, 1e-6 * step)

"""User data: NetCDF or Zarr precipitation on a latitude–longitude grid, with one region per record or per box."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.errors import DataError, UserError, unknown
from geoml.grids.axes import Axis, Registration
from geoml.grids.grid import Grid, grid_of
from rainshift.places.regions import region
from rainshift.sources.base import RegionData
from rainshift.sources.boxes import below
from rainshift.sources.catalogue import PAIRS, Record, records
from rainshift.sources.fetching import local_copy
from rainshift.sources.joint import JointAxis, joint_axis, meets
from rainshift.sources.rain_files import Rain, read_rain
from rainshift.sources.variables import VARIABLES

__all__ = ["GriddedSource", "largest_rectangle"]

logger = logging.getLogger(__name__)

#: Default width of a coarse cell in fine cells, and the minimum ratio for downscaling.
FACTOR, LEAST_RATIO = 2.5, 1.5
LICENCES = ("licence", "license", "rights")


@dataclass(frozen=True)
class GriddedSource:
    """`data=gridded data.root=DIR`: all records of a folder, or with `boxes` the named regions of one record.

    Consecutive files of one place form one record. Coarse rain is read from a partner file, which has `coarse_suffix`
    instead of `fine_suffix` in its name (`coarse="file"`), or computed from the fine rain as exact area means
    (`coarse="exact"`, a perfect model). By default, partner files are read if every fine file has one. Records are
    cropped to complete periods of the two grids, which gives all the same relative geometry. Each record keeps its time
    step. With `min_coverage` above 0, a record is cropped to the largest box in which every pixel is known in at least
    this share of the times.
    """

    root: str | None = None
    include: Sequence[str] = ()
    boxes: Sequence[str] = ()
    fine_suffix: str = "_0p10"
    coarse_suffix: str = "_0p25"
    coarse: Literal["exact", "file"] | None = None
    coarse_step: float | None = None
    coarse_registration: Registration = "node"
    variable: str | None = None
    units: str | None = None
    step_minutes: float | None = None
    stamp: str | None = None
    amounts: str | None = None
    absent_chunks: str | None = None
    min_coverage: float = 0.0

    def __post_init__(self) -> None:
        if self.coarse not in (None, "exact", "file"):
            raise UserError(f"data.coarse is {self.coarse!r}; expected exact or file")
        if self.coarse_registration not in ("node", "centre"):
            raise UserError(f"data.coarse_registration is {self.coarse_registration!r}; expected node or centre")
        if not 0 <= self.min_coverage <= 1:
            raise UserError(f"data.min_coverage is {self.min_coverage}; expected 0 to 1")

    @property
    def splits(self) -> tuple[str, ...]:
        return ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of events or boxes in alphabetical order, restricted to `include` if it is not empty."""
        return tuple(self._places)

    @cached_property
    def records(self) -> dict[str, Record]:
        """The records in the folder, by name (`rainshift.sources.catalogue`)."""
        if not self.root:
            raise UserError("data.root is not set; point it at a folder of NetCDF or Zarr files, or at one file")
        root = local_copy(self.root)
        if not root.exists():
            raise UserError(f"data.root {root} does not exist")
        return records(root, [(self.fine_suffix, self.coarse_suffix), *PAIRS])

    @cached_property
    def _places(self) -> dict[str, tuple[Record, str | None]]:
        if not self.boxes:
            places: dict[str, tuple[Record, str | None]] = {
                name: (record, None) for name, record in self.records.items()
            }
        elif len(self.records) == 1:
            record = next(iter(self.records.values()))
            places = {box: (record, region(box).name) for box in self.boxes}
        else:
            places = {
                f"{box}.{name}": (record, region(box).name)
                for name, record in self.records.items()
                for box in self.boxes
            }
        for name in self.include:
            if name not in places:
                raise unknown("event", name, places)
        return {name: places[name] for name in (self.include or places)}

    @property
    def locations(self) -> tuple[str, ...]:
        return ("root",)

    def files(self, name: str, split: str | None = None) -> Mapping[str, Path]:
        """Return the files of a record, and its coarse partner files if these are read."""
        record, _ = self._place(name)
        partners = record.partners if self.reads_partner(record) else ()
        return below(local_copy(str(self.root)), (*record.files, *partners))

    def reads_partner(self, record: Record) -> bool:
        """Return whether coarse rain is read from files: set by `coarse`, else if every fine file has a partner."""
        complete = len(record.partners) == len(record.files)
        if self.coarse == "file" and not complete:
            raise DataError(
                f"{record.files[0]} has no coarse partner file, whose name ends in {self.coarse_suffix}; add it, "
                "or set data.coarse=exact to compute coarse rain from the fine rain"
            )
        return complete and self.coarse != "exact"

    def _place(self, name: str) -> tuple[Record, str | None]:
        if name not in self._places:
            raise unknown("event", name, self._places)
        return self._places[name]

    def open(self, name: str, split: str | None = None) -> RegionData:
        """Open one record, event or box lazily; `split` must be None, since the files have no splits."""
        if split is not None:
            raise unknown("split", split, ())
        record, box = self._place(name)
        rain = self._read(record.files)
        partner = self._read(record.partners) if self.reads_partner(record) else None
        try:
            condition, target = self._pair(rain, partner, box)
        except DataError as error:
            raise DataError(f"{record.files[0]}: {error}") from error
        missing = _blank_times(target["precipitation"], str(record.files[0])) if self.min_coverage > 0 else ()
        provenance = self._provenance(record, box, rain, partner)
        return RegionData(name, condition, target, None, rain.step, provenance, missing=missing)

    def _read(self, paths: Sequence[Path]) -> Rain:
        names = ("variable", "units", "step_minutes", "stamp", "amounts", "absent_chunks")
        return read_rain(paths, **{name: getattr(self, name) for name in names})

    def _pair(self, rain: Rain, partner: Rain | None, box: str | None) -> tuple[xr.Dataset, xr.Dataset]:
        fine = grid_of(rain.values)
        given = None if partner is None else self._coarse_grid(partner, fine)
        joint = [self._joint(fine, name, given, box) for name in ("lat", "lon")]
        if self.min_coverage > 0:
            joint = self._covered(rain.values, joint)
        coarse = Grid(tuple(axis.coarse for axis in joint), fine.crs)
        target = rain.values.isel(lat=joint[0].fine, lon=joint[1].fine)
        if partner is None or given is None:
            condition = _means(rain.values, fine, joint, coarse)
        else:
            parts = given.slices(**{a.name: (a.start - a.step / 4, a.stop + a.step / 4) for a in coarse.axes})
            condition = partner.values.isel(lat=parts[0], lon=parts[1])
            if not condition.indexes["time"].equals(target.indexes["time"]):
                raise DataError("coarse partner file and fine file have different times; expected equal times")
        condition = condition.rename("tp").assign_attrs(VARIABLES["tp"].attrs).reset_coords(drop=True)
        return condition.to_dataset(), target.reset_coords(drop=True).to_dataset()

    def _coarse_grid(self, partner: Rain, fine: Grid) -> Grid:
        """Return the grid of a partner file. It is cell-centred if only then its cell edges meet fine cell edges."""
        given = grid_of(partner.values, registration=self.coarse_registration)
        ends = {kind: [(a.name, a.step, start) for a, start in starts] for kind, starts in (
            ("node", [(a, a.start) for a in given.axes]), ("centre", [(a, float(a.edges[0])) for a in given.axes])
        )}  # fmt: skip
        fits = {kind: all(meets(fine[name], step, start) for name, step, start in each) for kind, each in ends.items()}
        if self.coarse_registration == "node" and fits["centre"] and not fits["node"]:
            logger.info("the coarse cells consist of complete fine cells: reading with coarse_registration=centre")
            return grid_of(partner.values, registration="centre")
        return given

    def _joint(self, fine: Grid, name: str, given: Grid | None, box: str | None) -> JointAxis:
        low, high = -np.inf, np.inf
        if box is not None:
            found = region(box)
            low, high = (found.lat_min, found.lat_max) if name == "lat" else (found.lon_min, found.lon_max)
            _require_inside(fine[name], low, high)
        step, origin, registration = self.coarse_step or FACTOR * fine[name].step, 0.0, self.coarse_registration
        if given is not None:
            axis = given[name]
            _require_coarser(axis, fine[name])
            registration = axis.registration
            ends = (axis.start, axis.stop) if registration == "node" else tuple(axis.edges[[0, -1]])
            step, origin, low, high = axis.step, float(ends[0]), max(low, ends[0]), min(high, ends[1])
        elif step < LEAST_RATIO * fine[name].step:
            raise DataError(
                f"data.coarse_step is {step:g} and {name} has a step of {fine[name].step:g}: the coarse step must be "
                f"at least {LEAST_RATIO:g} times the fine step; the default is {FACTOR:g} times"
            )
        elif not meets(fine[name], step, origin):
            origin = float(fine[name].edges[0])  # means of the fine rain can start at any fine cell
        return joint_axis(fine[name], step, registration, origin=origin, limits=(float(low), float(high)))

    def _covered(self, values: xr.DataArray, joint: list[JointAxis]) -> list[JointAxis]:
        """Return the joint axes of the largest box of complete periods with sufficient coverage, including margins."""
        from scipy import ndimage

        bad = ~(_share_known(values) >= self.min_coverage)
        margins = [axis.margin for axis in joint]
        bad = ndimage.binary_dilation(bad, np.ones([2 * m + 1 for m in margins])) if any(margins) else bad
        rows, columns = (axis.fine for axis in joint)
        periods = [axis.period for axis in joint]
        counts = [(part.stop - part.start) // period for part, period in zip((rows, columns), periods, strict=True)]
        tiles = bad[rows, columns].reshape(counts[0], periods[0], counts[1], periods[1]).any(axis=(1, 3))
        box = largest_rectangle(np.asarray(~tiles, bool))
        if box is None:
            raise DataError(f"no box has values in {self.min_coverage:.0%} of the times; lower data.min_coverage")
        return [axis.part(part) for axis, part in zip(joint, box, strict=True)]

    def _provenance(self, record: Record, box: str | None, rain: Rain, partner: Rain | None) -> dict[str, Any]:
        licence = next((str(rain.attrs[key]) for key in LICENCES if key in rain.attrs), "not stated in the file")
        more = f" and {len(record.files) - 1} more" if len(record.files) > 1 else ""
        return {
            "source": str(rain.attrs.get("source", record.files[0].name)),
            "file": record.files[0].name + more,
            "licence": licence,
            "coarse": "area means of the fine rain (perfect model)" if partner is None else "partner file",
            "stamp": rain.stamp,
            **({"box": box} if box else {}),
        }


def _blank_times(values: xr.DataArray, label: str) -> tuple[int, ...]:
    """Return positions of the times without any value. They are excluded with a warning.

    Raises `DataError` if no time has a value.
    """
    blank = np.flatnonzero(~values.notnull().any(("lat", "lon")).values)
    if len(blank) == values.sizes["time"]:
        raise DataError("all values are missing at all times; check the fill value, valid_range and box")
    if len(blank):
        first = np.datetime_as_string(values["time"].values[blank[0]], unit="m")
        logger.warning("%s: %d of %d times have no value, the first is %s; they are excluded from training and scores",
                       label, len(blank), values.sizes["time"], first)  # fmt: skip
    return tuple(int(place) for place in blank)


def _share_known(values: xr.DataArray) -> NDArray[np.float64]:
    """Return the coverage `(lat, lon)`: share of times with a value at each pixel, among times with any value."""
    known = values.notnull()
    count, some = dask.compute(known.sum("time").data, known.any(("lat", "lon")).sum().data)
    return np.asarray(count / max(int(some), 1))


def _require_coarser(coarse: Axis, fine: Axis) -> None:
    if coarse.step < LEAST_RATIO * fine.step:
        raise DataError(
            f"the coarse {coarse.name} has a step of {coarse.step:g}, the fine one {fine.step:g}; the coarse step "
            f"must be at least {LEAST_RATIO:g} times the fine step. Check whether the two files are swapped"
        )


def _require_inside(axis: Axis, low: float, high: float) -> None:
    """Raise `DataError` for a box that the file does not cover completely."""
    slack = 1e-3 * axis.step
    if axis.period is None and (axis.edges[0] > low + slack or axis.edges[-1] < high - slack):
        raise DataError(
            f"{axis.name} covers {axis.edges[0]:g} to {axis.edges[-1]:g}; the box needs {low:g} to {high:g}. "
            "Choose a smaller region, or remove data.boxes to use the complete file"
        )


def _means(values: xr.DataArray, fine: Grid, joint: list[JointAxis], coarse: Grid) -> xr.DataArray:
    """Return lazy area means on the coarse grid of the fine cells that each coarse cell covers."""
    from geoml.regrid import Regridder

    parts = {
        axis.name: slice(j.fine.start - j.margin, j.fine.stop + j.margin)
        for axis, j in zip(fine.axes, joint, strict=True)
    }
    operator = Regridder(fine.crop(**parts), coarse)
    means = operator(values.isel(parts).data)
    return xr.DataArray(means, {"time": values["time"], **coarse.coords()}, ("time", *coarse.names))


def largest_rectangle(good: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Return rows and columns of the largest rectangle of True values; None if no value is True.

    >>> largest_rectangle(np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool))
    (slice(0, 2, None), slice(0, 2, None))
    """
    best, found = 0, None
    heights = np.zeros(good.shape[1] + 1, dtype=int)  # the last column stays 0, which empties the stack
    for row in range(good.shape[0]):
        heights[:-1] = np.where(good[row], heights[:-1] + 1, 0)
        stack: list[int] = []
        for column, height in enumerate(heights):
            while stack and heights[stack[-1]] >= height:
                tall = int(heights[stack.pop()])
                left = stack[-1] + 1 if stack else 0
                if tall * (column - left) > best:
                    best = tall * (column - left)
                    found = slice(row + 1 - tall, row + 1), slice(left, column)
            stack.append(column)
    return found

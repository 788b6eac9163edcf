"""User-defined pairs: coarse predictors and fine rain from separate files, on any two grids and times."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.errors import DataError, UserError, unknown
from geoml.grids.axes import Registration
from geoml.grids.grid import Grid, grid_of
from rainshift.places.regions import region
from rainshift.sources.base import RegionData
from rainshift.sources.boxes import below, folder_of
from rainshift.sources.catalogue import SUFFIXES, is_file_of
from rainshift.sources.fetching import local_copy
from rainshift.sources.joint import JointAxis, joint_axis, meets
from rainshift.sources.opening import GRIB
from rainshift.sources.predictors import predictors_of, read_predictor
from rainshift.sources.rain_files import Rain, read_rain
from rainshift.sources.statics import read_statics
from rainshift.sources.valid_times import Row, Timed, Times, brought_to, rows_for
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PairSource", "on_grid"]

logger = logging.getLogger(__name__)

#: Smallest and largest width of a coarse cell in fine cells.
LEAST_RATIO, MOST_RATIO = 1.5, 20.0
#: Largest distance, in fine cells, between common edges of both grids; above it the coarse grid is interpolated.
LONGEST_PERIOD = 20
#: The ratio of an interpolated coarse grid to the fine grid is a multiple of this number.
RATIO_STEP = 0.5
#: Options of the fine files, for properties that the files do not contain; see `rain_files.read_rain`.
READING = ("variable", "units", "step_minutes", "stamp", "amounts", "absent_chunks")
STATIC_ROOT = "static"


@dataclass(frozen=True)
class PairSource:
    """`data=pair data.coarse=FILES data.fine=FILES`: predictors and fine rain from different files and grids.

    Both options are a file, a folder or a URL. A folder may contain one folder per region, with the same names on both
    sides; otherwise `boxes` selects regions. `predictors` maps names to properties that the files do not contain
    (variable, level, units, kind, stamp). Samples are the time intervals of the coarse or the fine rain, whichever are
    longer; other data are averaged or matched to these intervals. If no coarse edge coincides with an edge of a fine
    cell, the coarse fields are interpolated to a grid with common edges.
    """

    coarse: str | None = None
    fine: str | None = None
    predictors: Any = None
    fine_as: Mapping[str, Any] | None = None
    static_files: Mapping[str, str] | None = None
    boxes: Sequence[str] = ()
    include: Sequence[str] = ()
    coarse_registration: Registration = "node"

    def __post_init__(self) -> None:
        for key in self.fine_as or {}:
            if key not in READING:
                raise unknown("key of data.fine_as", key, READING)
        if self.coarse_registration not in ("node", "centre"):
            raise UserError(f"data.coarse_registration is {self.coarse_registration!r}; expected node or centre")

    @property
    def splits(self) -> tuple[str, ...]:
        return ()

    @property
    def locations(self) -> tuple[str, ...]:
        return ("coarse", "fine", "static_files")

    @cached_property
    def _roots(self) -> dict[str, Path]:
        found = {}
        for side in ("coarse", "fine"):
            if not (given := getattr(self, side)):
                raise UserError(f"data.{side} is not set; point it at a file, a folder or a URL of {side} fields")
            found[side] = local_copy(str(given))
            if not found[side].exists():
                raise UserError(f"data.{side} {given} does not exist")
        return found

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of regions: `boxes`, or the folders that both sides have, or a single name from the fine files."""
        if self.boxes:
            names = tuple(region(str(name)).name for name in self.boxes)
        else:
            folders = [
                {each.name for each in root.iterdir() if each.is_dir() and not is_file_of(each)}
                if root.is_dir() and not is_file_of(root)
                else set()
                for root in self._roots.values()
            ]
            names = tuple(sorted(folders[0] & folders[1])) or (_stem(self._roots["fine"]),)
        for name in self.include:
            if name not in names:
                raise unknown("region", name, names)
        return tuple(self.include or names)

    def files(self, name: str, split: str | None = None) -> Mapping[str, Path]:
        """Return the files of a region on both sides, and the static files."""
        found: dict[str, Path] = {}
        for side, root in self._roots.items():
            found |= below(root, self._files(side, name), side)
        return found | {f"{STATIC_ROOT}/{key}": path for key, path in self._statics.items()}

    @property
    def _statics(self) -> dict[str, Path]:
        return {str(key): local_copy(str(given)) for key, given in (self.static_files or {}).items()}

    def _files(self, side: str, name: str) -> list[Path]:
        root = folder_of(self._roots[side], name)
        if root.is_file() or is_file_of(root):
            return [root]
        found = sorted(
            path
            for path in root.rglob("*")
            if is_file_of(path, (*SUFFIXES, *GRIB))
            and not any(parent.name.endswith(".zarr") for parent in path.parents)
        )
        if not found:
            raise UserError(f"data.{side}: {root} contains no file with suffix {', '.join((*SUFFIXES, *GRIB))}")
        return found

    def open(self, name: str, split: str | None = None) -> RegionData:
        """Open one region lazily; `split` must be None, since the files have no splits."""
        if split is not None:
            raise unknown("split", split, ())
        if name not in self.names:
            raise unknown("region", name, self.names)
        fine_files, coarse_files = (self._files(side, name) for side in ("fine", "coarse"))
        rain = read_rain(fine_files, **dict(self.fine_as or {}))
        wanted = predictors_of(self.predictors)
        timed = {each.name: read_predictor(each, coarse_files) for each in wanted}
        if rain.stamp == "unknown":
            logger.warning("%s: position of times in their interval unknown; using the end (set data.fine_as.stamp)",
                           fine_files[0])  # fmt: skip
        target, coarse, notes, steps = self._placed(name, rain, timed)
        start, end, kept = _samples(name, Timed.of_rain(rain), timed)
        time, step = _labels(start, end)
        condition = {
            key: brought_to(coarse[key].values, [kept[key][i] for i in range(len(time))], time) for key in coarse
        }
        fine = brought_to(target, kept[""], time)
        import xarray as xr

        return RegionData(
            name,
            xr.Dataset({key: array.reset_coords(drop=True) for key, array in condition.items()}),
            fine.rename("precipitation")
            .assign_attrs(VARIABLES["precipitation"].attrs)
            .reset_coords(drop=True)
            .to_dataset(),
            read_statics({k: str(v) for k, v in self._statics.items()}, grid_of(fine)) if self.static_files else None,
            step,
            self._provenance(rain, fine_files, coarse_files, start, end, notes) | steps,
            missing=(),
        )

    def _placed(
        self, name: str, rain: Rain, timed: Mapping[str, Timed]
    ) -> tuple[xr.DataArray, dict[str, Timed], str, dict[str, str]]:
        """Crop fine rain to the common area, and bring predictors to a coarse grid with common edges.

        Also returns a note on the interpolation of predictors, and the spacing of their files if they were
        interpolated.
        """
        fine = grid_of(rain.values)
        grids = {key: grid_of(each.values, registration=self.coarse_registration) for key, each in timed.items()}
        lead = grids[next(iter(grids))]
        joint, exact = [], True
        for axis in ("lat", "lon"):
            low, high = _limits(name if self.boxes else None, axis, grids.values())
            one, met = _joint(fine, lead, axis, self.coarse_registration, (low, high))
            joint.append(one)
            exact &= met
        wanted = Grid(tuple(axis.coarse for axis in joint), fine.crs)
        placed, notes, steps = {}, "as in the files", {}
        for key, each in timed.items():
            values, cost = on_grid(each.values, grids[key], wanted)
            if cost is not None:
                notes = f"interpolated from {_steps(grids[key])} to {_steps(wanted)}"
                steps = {"coarse_steps": " ".join(f"{axis.step:.9g}" for axis in grids[key].axes)}
                logger.warning("%s: %s is %s, which keeps %.0f %% of its variance at the middle time",
                               name, key, notes, 100 * cost)  # fmt: skip
            placed[key] = Timed(values, each.start, each.end)
        return rain.values.isel(lat=joint[0].fine, lon=joint[1].fine), placed, notes, steps

    def _provenance(
        self, rain: Rain, fine: Sequence[Path], coarse: Sequence[Path], start: Times, end: Times, notes: str
    ) -> dict[str, Any]:
        return {
            "source": str(rain.attrs.get("source", fine[0].name)),
            "file": f"{len(fine)} of fine rain, {len(coarse)} of predictors",
            "licence": next(
                (str(rain.attrs[k]) for k in ("licence", "license", "rights") if k in rain.attrs), "not stated"
            ),
            "coarse": f"separate files, {notes}",
            "stamp": "point" if (start == end).all() else "end",
        }


def _stem(root: Path) -> str:
    for end in sorted(SUFFIXES, key=len, reverse=True):
        if root.name.lower().endswith(end):
            return root.name[: -len(end)]
    return root.name or "rain"


def _limits(box: str | None, axis: str, grids: Any) -> tuple[float, float]:
    """Return the limits of a region along an axis: its box, restricted to the area of all predictors."""
    low, high = -np.inf, np.inf
    if box is not None:
        found = region(box)
        low, high = (found.lat_min, found.lat_max) if axis == "lat" else (found.lon_min, found.lon_max)
    for grid in grids:
        if grid[axis].period is None:
            low, high = max(low, grid[axis].start), min(high, grid[axis].stop)
    return low, high


def _joint(
    fine: Grid, coarse: Grid, name: str, registration: Registration, limits: tuple[float, float]
) -> tuple[JointAxis, bool]:
    """Return the section of an axis, and whether its coarse cells are the cells of the file."""
    have, cells = coarse[name], fine[name]
    turn = 360.0 * round((cells.start - have.start) / 360.0) if cells.is_longitude else 0.0
    if have.period is None and (have.start + turn >= cells.edges[-1] or have.stop + turn <= cells.edges[0]):
        raise DataError(
            f"the coarse {name} covers {have.start:g} to {have.stop:g}, the fine {name} {cells.start:g} to "
            f"{cells.stop:g}: they do not overlap"
        )
    ratio = have.step / cells.step
    if not LEAST_RATIO * 0.99 <= ratio <= MOST_RATIO * 1.01:
        swapped = " Are the two sides swapped?" if ratio < 1 else ""
        raise DataError(
            f"the coarse {name} has a step of {have.step:g}, the fine {name} {cells.step:g}: a ratio of "
            f"{ratio:.3g}; expected {LEAST_RATIO:g} to {MOST_RATIO:g}.{swapped}"
        )
    origin = have.start if registration == "node" else float(have.edges[0])
    if meets(cells, have.step, origin):
        try:
            found = joint_axis(cells, have.step, registration, origin=origin, limits=limits)
        except DataError:
            found = None
        if found is not None and found.period <= max(LONGEST_PERIOD, round(ratio)):
            return found, abs(found.coarse.step - have.step) < 1e-9 * have.step
    step = max(LEAST_RATIO, round(ratio / RATIO_STEP) * RATIO_STEP) * cells.step
    first = float(cells.edges[max(0, int(np.ceil((limits[0] - cells.edges[0]) / cells.step)))]) if np.isfinite(
        limits[0]
    ) else float(cells.edges[0])  # fmt: skip
    return joint_axis(cells, step, registration, origin=first, limits=limits), False


def on_grid(values: xr.DataArray, have: Grid, wanted: Grid) -> tuple[xr.DataArray, float | None]:
    """Crop or interpolate fields to a grid. Returns them and the share of variance kept; None if only cropped."""
    import xarray as xr

    from geoml.regrid import Regridder

    try:
        parts = have.slices(**{a.name: (a.start - a.step / 4, a.stop + a.step / 4) for a in wanted.axes})
        if have.crop(**dict(zip(have.names, parts, strict=True))).matches(wanted):
            return values.isel(dict(zip(have.names, parts, strict=True))).assign_coords(wanted.coords()), None
    except ValueError:
        pass
    finer = min(a.step / b.step for a, b in zip(have.axes, wanted.axes, strict=True)) < 0.75
    operator = Regridder(have, wanted, "conservative" if finer else "bilinear", rim="missing")
    made = xr.DataArray(operator(values.data), {"time": values["time"], **wanted.coords()}, ("time", *wanted.names),
                        values.name, values.attrs)  # fmt: skip
    middle = values.sizes["time"] // 2
    box = {a.name: slice(a.start - a.step / 2, a.stop + a.step / 2) for a in wanted.axes}
    old, new = (
        float(np.nanvar(each.isel(time=middle).sel(where).values)) for each, where in ((values, box), (made, {}))
    )
    return made, new / old if old > 0 else 1.0


def _steps(grid: Grid) -> str:
    return " x ".join(f"{axis.step:.4g}" for axis in grid.axes) + " degrees"


def _samples(name: str, rain: Timed, timed: Mapping[str, Timed]) -> tuple[Times, Times, dict[str, list[Row]]]:
    """Return start and end of every sample, and the weighted input times of each predictor and the rain ("")."""
    guide = next((key for key in timed if key in VARIABLES and VARIABLES[key].units == "mm h-1"), None)
    chosen, said = (
        (timed[guide], f"coarse {guide}") if guide and timed[guide].hours > rain.hours else (rain, "fine rain")
    )
    start, end = chosen.start, chosen.end
    every = {"": rain, **timed}
    rows = {key: rows_for(each.start, each.end, start, end) for key, each in every.items()}
    known = {key: np.array([row is not None for row in found]) for key, found in rows.items()}
    whole = np.logical_and.reduce(list(known.values()))
    if not whole.any():
        spans = "; ".join(f"{key or 'fine rain'} {each.start.min()} to {each.end.max()}" for key, each in every.items())
        raise DataError(f"{name}: no interval of the {said} is covered by all other data: {spans}")
    lengths = f"{chosen.hours:g} h" if chosen.hours else "instants"
    logger.info("%s: samples are the %d intervals of the %s (%s)", name, int(whole.sum()), said, lengths)
    for key, found in known.items():
        if not found.all():
            logger.warning("%s: %s does not cover %d of %d intervals; they are omitted", name, key or "fine rain",
                           int((~found).sum()), len(found))  # fmt: skip
    places = np.flatnonzero(whole)
    return start[places], end[places], {key: [found[i] for i in places] for key, found in rows.items()}


def _labels(start: Times, end: Times) -> tuple[Times, timedelta]:
    """Return the times of samples (the end of each interval) and their step."""
    seconds = np.unique((end - start) / np.timedelta64(1, "s"))
    if len(seconds) > 1:
        raise DataError(
            f"samples have intervals of {', '.join(f'{s / 60:g}' for s in seconds)} min; expected equal lengths. "
            "Split files"
        )
    if seconds[0] == 0:
        if len(end) < 2:
            raise DataError("the data have a single instant, so the time step is unknown; add further times")
        return end, timedelta(seconds=float(np.diff(end).min() / np.timedelta64(1, "s")))
    return end, timedelta(seconds=float(seconds[0]))

"""Time interval of each rain value: from time bounds or spacing, for changing steps and accumulated sums."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.errors import DataError

__all__ = [
    "SIGNS",
    "Intervals",
    "bounds_of",
    "cell_method",
    "cell_methods",
    "common_step",
    "find_intervals",
    "increments",
    "is_running_sum",
    "starts_of_sums",
]

logger = logging.getLogger(__name__)

SECOND = np.timedelta64(1, "s")
#: A different spacing counts as a change of the step, not as gaps, if it has at least this many times in a row …
FEWEST = 3
#: … and they are at least this share of the record.
LEAST_SHARE = 0.1
#: An accumulated sum decreases at most at this share of the times.
MOST_RESETS = 0.2
#: Number of times at which a field must grow, or be wet and unchanged, to count as an accumulated sum.
SIGNS = 5
#: Number of times and points that are examined to detect an accumulated sum.
LOOK = (60, 40)


@dataclass(frozen=True)
class Intervals:
    """Length of each time's interval in seconds, the longest one (the step), and the position of times in them."""

    seconds: NDArray[np.float64]
    step: float
    stamp: str | None = None

    @property
    def hours(self) -> NDArray[np.float64]:
        return self.seconds / 3600

    @property
    def changes(self) -> bool:
        """Whether intervals differ within the record."""
        return bool((self.seconds != self.step).any())


def find_intervals(
    time: NDArray[np.datetime64],
    bounds: NDArray[np.datetime64] | None,
    label: str,
    *,
    step_minutes: float | None = None,
    amount: bool = True,
) -> Intervals:
    """Find the intervals of ascending times: from the bounds if there are any, else from the spacing of the times.

    Gaps of an integer number of steps are allowed. If the step changes permanently, each part of the record has a
    separate step. Raises `DataError` for any other irregular spacing.
    """
    if step_minutes is not None:
        found = Intervals(np.full(len(time), 60.0 * step_minutes), 60.0 * step_minutes)
    elif bounds is not None:
        widths = (bounds[:, 1] - bounds[:, 0]) / SECOND
        if (widths < 0).any():
            raise DataError(f"{label}: the time bounds at {time[int(np.argmax(widths < 0))]} end before they start")
        if (widths == 0).all():
            found = replace(find_intervals(time, None, label, amount=amount), stamp=None if amount else "point")
        else:
            found = Intervals(widths, float(widths.max()), _stamp(time, bounds))
    elif len(time) < 2:
        raise DataError(f"{label} has a single time, so its interval is unknown; set data.step_minutes=")
    else:
        found = _of_distances(time, label, amount)
    if found.step <= 0 or (found.seconds <= 0).any():
        raise DataError(f"{label} has a time step of {found.seconds.min():g} s; expected more than 0")
    if not found.changes:
        _require_even(time, found.step, label)
    return found


def _of_distances(time: NDArray[np.datetime64], label: str, amount: bool) -> Intervals:
    distances = np.diff(time) / SECOND
    least = float(distances.min())
    breaks = np.flatnonzero(np.diff(distances)) + 1
    runs = np.split(np.arange(len(distances)), breaks)
    few = max(FEWEST, LEAST_SHARE * len(distances))
    longer = sorted({float(distances[run[0]]) for run in runs if distances[run[0]] > least and len(run) >= few})
    if not longer:
        _require_even(time, least, label)
        odd = float((distances > least * 1.001).mean())
        row = max((len(run) for run in runs if distances[run[0]] > least * 1.001), default=0)
        if amount and len(distances) > 2 and (odd > 1 / 3 or row >= FEWEST):
            raise DataError(
                f"{label}: times are {least:g} s apart and often more. Either the step changes or times are "
                "missing, which matters for amounts. Add time bounds, or set data.step_minutes="
            )
        return Intervals(np.full(len(time), least), least)
    kinds = {least, *longer}
    step, of_run = next(float(distances[run[0]]) for run in runs if float(distances[run[0]]) in kinds), []
    for run in runs:
        here = float(distances[run[0]])
        step = here if here in kinds and (here != least or len(run) >= FEWEST) else step
        if here < step or here % step > 1e-3 * step:
            place = int(run[0])
            raise DataError(
                f"{label}: the time step changes from {step:g} s to {here:g} s at {time[place]}; split the file, or "
                "add time bounds"
            )
        of_run.append(np.full(len(run), step))
    seconds = np.concatenate(of_run)
    return Intervals(np.concatenate([seconds[:1], seconds]), max(kinds))


def _require_even(time: NDArray[np.datetime64], step: float, label: str) -> None:
    distances = np.diff(time) / SECOND
    uneven = np.abs(distances / step - np.round(distances / step)) > 1e-3
    if uneven.any():
        place = int(np.flatnonzero(uneven)[0])
        months = distances.min() >= 27 * 86400 and distances.max() <= 32 * 86400
        hint = "calendar months differ in length" if months else "split the file, or add time bounds"
        usual = float(np.median(distances))
        off = np.abs(distances / usual - np.round(distances / usual)).max()
        if off < 0.2 and usual <= 86400 and abs(step - usual) < 0.2 * usual:
            hint = f"data.step_minutes={round(usual / 60) or 1} rounds times to a regular step"
        raise DataError(
            f"{label}: the spacing of times is not a multiple of the step of {step:g} s: {time[place]} is followed by "
            f"{time[place + 1]}; {hint}"
        )


def _stamp(time: Any, bounds: Any) -> str | None:
    place = np.unique(((time - bounds[:, 0]) / SECOND) / ((bounds[:, 1] - bounds[:, 0]) / SECOND))
    names = {0.0: "start", 0.5: "middle", 1.0: "end"}
    return names.get(float(place[0])) if len(place) == 1 else None


def bounds_of(dataset: xr.Dataset, name: str, order: NDArray[np.intp] | slice) -> NDArray[np.datetime64] | None:
    """Return time bounds in the order of the sorted times; None if the coordinate `name` has none."""
    if name not in dataset.variables:
        return None
    bounds = dataset[name].attrs.get("bounds") or dataset[name].encoding.get("bounds")
    usual = [f"{name}_bnds", f"{name}_bounds"]
    found = next((each for each in [bounds, *usual] if each in dataset.variables), None)
    if found is None or dataset[found].ndim != 2 or 2 not in dataset[found].shape:
        return None
    pairs = dataset[found].transpose(*sorted(dataset[found].dims, key=lambda dim: dim not in dataset[name].dims))
    if pairs.shape[1] != 2:
        return None
    values = pairs.values
    if values.dtype.kind == "O":  # dates of another calendar
        values = np.array([np.datetime64(str(date.isoformat())) for date in values.ravel()]).reshape(values.shape)
    if values.dtype.kind != "M":
        return None
    return values.astype("datetime64[ns]")[order]


def starts_of_sums(bounds: NDArray[np.datetime64] | None) -> NDArray[np.bool_] | None:
    """Return the times at which accumulated sums restart, from bounds with a common lower edge; None without them."""
    if bounds is None or len(bounds) < 2:
        return None
    same = bounds[1:, 0] == bounds[:-1, 0]
    return np.concatenate([[True], ~same]) if same.any() else None


def is_running_sum(array: xr.DataArray) -> bool:
    """Return whether amounts never decrease in time, except for resets of the entire field.

    While it is dry, a sum is unchanged. Fields that are wet and unchanged are therefore evidence for a sum, as growing
    fields are. The beginning, middle and end of a long record are examined, since any of them may be dry.
    """
    count, length = array.sizes["time"], LOOK[0]
    starts = sorted({0, max(0, count // 2 - length // 2), max(0, count - length)})
    points = {dim: slice(None, None, max(1, array.sizes[dim] // LOOK[1])) for dim in ("lat", "lon")}
    falls, signs, grown = [], [], False
    for start in starts:
        values = np.asarray(array.isel({"time": slice(start, start + length), **points}).values, np.float64)
        change, most = np.diff(values, axis=0), np.nanmax(np.abs(values), initial=0)
        with np.errstate(invalid="ignore"):
            fell, grew = (change < -1e-4 * most).any((1, 2)), (change > 1e-4 * most).any((1, 2))
            wet, uneven = values > 1e-4 * most, values.max((1, 2)) > values.min((1, 2))
            still = (np.abs(change) <= 1e-4 * most).all((1, 2)) & wet[:-1].any((1, 2)) & uneven[:-1]
        grown |= bool(grew.any())
        told = (wet[:-1] | wet[1:]).any((1, 2))
        falls.append(fell[told])
        signs.append((~fell & (grew | still))[told])
    fell, sign = np.concatenate(falls), np.concatenate(signs)
    few = min(SIGNS, count - 1)
    return count >= 4 and grown and bool(sign.sum() >= few and fell.mean() <= MOST_RESETS and sign.mean() >= 0.3)


def increments(
    array: xr.DataArray, starts: NDArray[np.bool_] | None, label: str
) -> tuple[xr.DataArray, NDArray[np.bool_]]:
    """Return the amounts between the times of an accumulated sum, and its restarts. The first time is omitted.

    At a restart, given by `starts` or detected as a decrease of the field, the amount is the sum itself.
    """
    import dask.array as da

    values = array.data
    before, after = values[:-1], values[1:]
    if starts is None:
        slack = 1e-4 * np.nanmax(np.abs(np.asarray(array.isel(time=slice(0, LOOK[0])).values)), initial=0)
        falls = (after < before - slack).any(axis=(1, 2)).compute()
        starts = np.concatenate([[False], falls])
    again = starts[1:]
    grown = da.maximum(after - before, 0)
    changed = da.where(da.from_array(again[:, None, None], chunks=(grown.chunks[0], 1, 1)), after, grown)
    resets = f"; it restarts {int(again.sum())} times" if again.any() else ""
    logger.warning("%s is accumulated since a start time: differences between times are used%s", label, resets)
    return array.isel(time=slice(1, None)).copy(data=changed.rechunk(values.chunks[0][0])), starts


def common_step(array: xr.DataArray, intervals: Intervals, label: str) -> xr.DataArray:
    """Average rates of a record with a changing step to its longest step. Incomplete intervals are omitted."""
    time, seconds, step = array["time"].values, intervals.seconds, intervals.step
    ratio = step / seconds
    if np.abs(ratio - np.round(ratio)).max() > 1e-6:
        lengths = ", ".join(f"{value / 60:g}" for value in np.unique(seconds)[:4])
        months = seconds.min() >= 27 * 86400 and step <= 32 * 86400
        way = "calendar months have different lengths, so they are no equal steps" if months else "split the file"
        raise DataError(f"{label}: the time step changes between {lengths} min, which are not multiples; {way}")
    last = intervals.stamp in (None, "end")
    ends = time if last else time + (seconds * 1e9).astype("timedelta64[ns]")
    anchor = ends[np.flatnonzero(seconds == step)[0]]
    groups = np.ceil(np.round((ends - anchor) / SECOND / step, 9)).astype(np.int64)
    filled = dict(zip(*np.unique(groups, return_counts=True), strict=True))
    whole = np.array([filled[group] == round(each) for group, each in zip(groups, ratio, strict=True)])
    parts = []
    for stretch in np.split(np.arange(len(time)), np.flatnonzero(np.diff(seconds)) + 1):
        places, count = stretch[whole[stretch]], round(float(ratio[stretch[0]]))
        if len(places) >= count:
            places = places[: len(places) // count * count]
            means = (
                array.isel(time=places).coarsen(time=count).reduce(np.mean) if count > 1 else array.isel(time=places)
            )
            parts.append(means.assign_coords(time=time[places[count - 1 :: count] if last else places[::count]]))
    dropped = int((~whole).sum())
    lengths = " and ".join(f"{value / 60:g}" for value in np.unique(seconds))
    logger.warning(
        "%s: the time step changes between %s min; each value applies to its interval, all are averaged to %g min%s",
        label, lengths, step / 60, f" ({dropped} times of incomplete intervals are left out)" if dropped else "",
    )  # fmt: skip
    return xr.concat(parts, dim="time").assign_attrs(array.attrs)


def cell_methods(array: xr.DataArray) -> list[str]:
    """Return the cell methods of time in their order: "sum", "mean", "maximum", …; usually one or none."""
    return re.findall(
        r"\b(?:time|valid_time)\s*:\s*(?:\w+\s*:\s*)*(\w+)", str(array.attrs.get("cell_methods", "")).lower()
    )


def cell_method(array: xr.DataArray) -> str | None:
    """Return the last cell method of time; None if there is none."""
    return next(reversed(cell_methods(array)), None)

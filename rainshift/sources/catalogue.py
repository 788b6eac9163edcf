"""Group the files of a folder into records, find coarse partner files, and name the records."""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoml.errors import DataError, UserError
from rainshift.sources.opening import GRIB

__all__ = ["PAIRS", "SUFFIXES", "Record", "is_file_of", "records"]

logger = logging.getLogger(__name__)

SUFFIXES = (".nc", ".nc4", ".netcdf", ".cdf", ".zarr", ".zarr.zip", ".h5", ".hdf5", ".tif", ".tiff")
#: Suffixes of compressed files. They are not read; a message lists them.
COMPRESSED = (".gz", ".bz2", ".xz", ".zip", ".tar", ".tgz")
#: Common pairs of name endings of the fine and the coarse file of one event.
PAIRS = (("_0p10", "_0p25"), ("_fine", "_coarse"), ("_hr", "_lr"), ("_high", "_low"), ("_hires", "_lores"))
#: Largest gap between consecutive files of one record, in multiples of the length of a file.
GAP_LENGTHS = 3.0


@dataclass(frozen=True)
class Record:
    """Files of one place in order of time, and the coarse partner file of each, if any."""

    name: str
    files: tuple[Path, ...]
    partners: tuple[Path, ...] = ()


def is_file_of(path: Path, suffixes: Sequence[str] = SUFFIXES) -> bool:
    """Return whether a file name has a suffix of data files, in upper or lower case."""
    return path.name.lower().endswith(tuple(suffixes)) and not path.name.startswith(".")


def records(root: Path, pairs: Sequence[tuple[str, str]] = PAIRS) -> dict[str, Record]:
    """Group the files in a folder (or the single file) into records by name.

    Files form one record if their names differ only in digits, their grids are equal and they follow each other in
    time. The record has the common prefix of their names. A file with the coarse ending of a pair (`a_0p25` for
    `a_0p10`, `a_coarse` for `a_fine`) is the coarse partner of another. Every other file is a separate record with the
    name of the file, unless it is a coarse version of another file: same times, same place, wider cells. If a folder
    has no data files, the files in its subfolders are used (`2020/01.nc`). Raises `UserError` for a folder without data
    files, `DataError` for two files with one name.
    """
    stems: dict[str, Path] = {}
    for stem, path in _files(root):
        if stem in stems:
            raise DataError(f"{stems[stem]} and {path} both have the event name {stem!r}; rename one")
        stems[stem] = path
    partner_of, partners = {}, set()
    for stem in stems:
        for fine, coarse in pairs:
            if stem.endswith(coarse):
                base = stem.removesuffix(coarse)
                found = next((name for name in (base + fine, base) if name in stems), None)
                if found is not None:
                    partner_of[found] = stems[stem]
                    partners.add(stem)
    events: dict[str, Path] = {}
    for stem, path in stems.items():
        if stem not in partners:
            name = next((stem.removesuffix(fine) for fine, _ in pairs if stem.endswith(fine)), stem)
            if name in events:
                raise DataError(f"{events[name]} and {path} both have the event name {name!r}; rename one")
            events[name] = path
    by_path = {stems[stem]: partner for stem, partner in partner_of.items()}
    return _with_coarse_versions(_joined(events, by_path, root))


def _files(root: Path) -> list[tuple[str, Path]]:
    """Return the data files at a path with the names of their events."""
    if root.is_file() or is_file_of(root):
        return [(_stem(root.name), root)]
    here = sorted(root.iterdir())
    found = [path for path in here if is_file_of(path, (*SUFFIXES, *GRIB))]
    packed = [path for path in here if is_file_of(path, COMPRESSED) and path not in found]
    if packed:
        listed = ", ".join(path.name for path in packed[:3])
        said = f"{root} contains compressed files, which are not read: {listed}{' …' * (len(packed) > 3)}; unpack them"
        if not found:
            raise UserError(said)
        logger.warning(said)
    if found:
        return [(_stem(path.name), path) for path in found]
    inner = [path for path in sorted(root.rglob("*")) if is_file_of(path, (*SUFFIXES, *GRIB))]
    inner = [path for path in inner if not any(is_file_of(parent) for parent in path.relative_to(root).parents)]
    if not inner:
        listed = ", ".join(path.name for path in here[:5]) or "nothing"
        raise UserError(f"{root} contains no file with suffix {', '.join(SUFFIXES)}; it contains {listed}")
    logger.info("%s: the %d files of its folders are read", root, len(inner))
    return [(_stem(path.relative_to(root).as_posix().replace("/", "_")), path) for path in inner]


def _stem(name: str) -> str:
    ends = sorted((*SUFFIXES, *GRIB), key=len, reverse=True)
    return next((name[: -len(end)] for end in ends if name.lower().endswith(end)), name)


def _with_coarse_versions(found: dict[str, Record]) -> dict[str, Record]:
    """Pair records without a partner file if one is a coarse version of the other.

    Otherwise they would count as two places, although one contains the truth of the other.
    """
    single = [name for name, record in found.items() if not record.partners]
    if len(single) < 2:
        return found
    extents = {
        name: [_extent(path, path.stat().st_mtime_ns) for path in (record.files[0], record.files[-1])]
        for name, record in found.items()
        if name in single
    }
    made = dict(found)
    taken: set[str] = set()
    for fine, coarse in itertools.permutations(single, 2):
        if {fine, coarse} & taken or len(found[fine].files) != len(found[coarse].files):
            continue
        if all(_coarser(a, b) for a, b in zip(extents[fine], extents[coarse], strict=True)):
            logger.warning("%s has the times and the place of %s but wider cells: it is read as its coarse rain. "
                           "To read only one of them, set data.include=[NAMES]", coarse, fine)  # fmt: skip
            made[fine] = Record(fine, found[fine].files, found[coarse].files)
            del made[coarse]
            taken |= {fine, coarse}
    return made


def _coarser(fine: tuple[Any, float, float], coarse: tuple[Any, float, float]) -> bool:
    """Return whether two files have the same times and place, and the second has cells at least 1.5 times as wide."""
    if fine[0] is None or coarse[0] is None or fine[1:] != coarse[1:]:
        return False
    for (start, step, size), (other, wide, count) in zip(fine[0], coarse[0], strict=True):
        common = min(start + step * size, other + wide * count) - max(start, other)
        if wide < 1.5 * step or common < 0.8 * min(step * size, wide * count):
            return False
    return True


def _joined(events: dict[str, Path], partners: dict[Path, Path], root: Path) -> dict[str, Record]:
    """Join events whose names differ only in digits, with equal grids and no long gap, into records."""
    alike = defaultdict(list)
    for name in events:
        alike[re.sub(r"\d+", "#", name)].append(name)
    found: dict[str, Record] = {}
    for names in alike.values():
        groups = [[name] for name in names] if len(names) == 1 else _series(names, events)
        shared = _shared(names) or root.name
        several = [group for group in groups if len(group) > 1]
        for group in groups:
            name = group[0]
            if len(group) > 1:
                name = shared if len(several) == 1 and shared not in events else f"{_shared(group) or shared}"
                name = name if name not in found else f"{name}_from_{group[0]}"
                logger.info("%d files, %s to %s, are read as one record: %s", len(group), group[0], group[-1], name)
            files = tuple(events[each] for each in group)
            found[name] = Record(name, files, tuple(partners[f] for f in files if f in partners))
    return found


def _shared(names: Sequence[str]) -> str:
    """Return the common prefix of names, without digits and separators at its end."""
    ends = [len({name[: i + 1] for name in names}) == 1 for i in range(min(map(len, names)))]
    length = ends.index(False) if False in ends else len(ends)
    return names[0][:length].rstrip("0123456789_-. ")


def _series(names: Sequence[str], events: dict[str, Path]) -> list[list[str]]:
    """Group names by equal grid and consecutive times; a gap of several file lengths starts a new group."""
    known = {name: _extent(events[name], events[name].stat().st_mtime_ns) for name in names}
    by_grid = defaultdict(list)
    for name in names:
        by_grid[known[name][0]].append(name)
    groups: list[list[str]] = []
    for grid, alike in by_grid.items():
        if grid is None:
            groups += [[name] for name in alike]
            continue
        alike.sort(key=lambda name: known[name][1])
        groups.append([alike[0]])
        for before, after in itertools.pairwise(alike):
            length = max(known[before][2] - known[before][1], known[after][2] - known[after][1], 3600.0)
            if known[after][1] - known[before][2] <= GAP_LENGTHS * max(length, 86400.0 * _daily(known, alike)):
                groups[-1].append(after)
            else:
                groups.append([after])
    return groups


def _daily(known: dict[str, Any], names: Sequence[str]) -> float:
    """Return 1 (day) if every file has a single time, which gives no file length; else 0."""
    return float(all(known[name][1] == known[name][2] for name in names))


@functools.lru_cache(maxsize=100_000)
def _extent(path: Path, changed: int) -> tuple[Any, float, float]:
    """Return a file's grid as a comparable tuple (None without a grid), and its first and last time in seconds."""
    from geoml.grids.grid import grid_of
    from rainshift.sources.rain_files import holding
    from rainshift.sources.times import TIME_DIMS

    with holding(path, None) as data:
        time = next((data[name] for name in TIME_DIMS if name in data.coords), None)
        try:
            axes = tuple((axis.start, axis.step, axis.size) for axis in grid_of(data, time=False).axes)
        except DataError:
            return None, 0.0, 0.0
        if time is None or not time.size:
            return None, 0.0, 0.0
        values = np.atleast_1d(time.values).ravel()
    if values.dtype.kind == "O":
        seconds = [(date - type(date)(1970, 1, 1)).total_seconds() for date in (min(values), max(values))]
    elif values.dtype.kind == "M":
        seconds = [
            float((value - np.datetime64(0, "s")) / np.timedelta64(1, "s")) for value in (values.min(), values.max())
        ]
    else:
        return None, 0.0, 0.0
    return axes, seconds[0], seconds[1]

"""Which files of a folder are one record, which are its coarse partners, and what each is called."""

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

__all__ = ["PAIRS", "SUFFIXES", "Record", "records"]

logger = logging.getLogger(__name__)

SUFFIXES = (".nc", ".nc4", ".cdf", ".zarr", ".zarr.zip", ".h5", ".hdf5", ".tif", ".tiff")
#: Pairs of ends of names that people give to the fine and the coarse file of one event.
PAIRS = (("_0p10", "_0p25"), ("_fine", "_coarse"), ("_hr", "_lr"), ("_high", "_low"), ("_hires", "_lores"))
#: Files belong to one record where the next begins within this many lengths of a file of the end of the one before.
GAP_LENGTHS = 3.0


@dataclass(frozen=True)
class Record:
    """Files of one place in the order of time, and the coarse partner of each, if there are any."""

    name: str
    files: tuple[Path, ...]
    partners: tuple[Path, ...] = ()


def records(root: Path, pairs: Sequence[tuple[str, str]] = PAIRS) -> dict[str, Record]:
    """The records below a folder (or the one file), by name.

    Files whose names differ in their digits alone, on one grid and following each other in time, are one record, named
    by what their names share. A file of the same name with the coarse end of a pair (`a_0p25` of `a_0p10`, `a_coarse`
    of `a_fine`) is the coarse partner. Others are records of their own, called as their file.
    """
    single = root.is_file() or root.name.endswith(SUFFIXES)
    stems: dict[str, Path] = {}
    for path in [root] if single else sorted(root.iterdir()):
        if (suffix := _suffix(path)) is None or path.name.startswith("."):
            continue
        stem = path.name.removesuffix(suffix)
        if stem in stems:
            raise DataError(f"{stems[stem]} and {path} would both be the event {stem!r}; rename one")
        stems[stem] = path
    if not stems:
        raise UserError(f"{root} holds no file that ends in {', '.join(SUFFIXES)} (partners aside)")
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
                raise DataError(f"{events[name]} and {path} would both be the event {name!r}; rename one")
            events[name] = path
    by_path = {stems[stem]: partner for stem, partner in partner_of.items()}
    return _joined(events, by_path, root)


def _suffix(path: Path) -> str | None:
    return next((end for end in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(end)), None)


def _joined(events: dict[str, Path], partners: dict[Path, Path], root: Path) -> dict[str, Record]:
    """Events of one name but for digits, one grid and no long gap, as one record each."""
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
                logger.info("%d files, %s to %s, are read as one record, %s", len(group), group[0], group[-1], name)
            files = tuple(events[each] for each in group)
            found[name] = Record(name, files, tuple(partners[f] for f in files if f in partners))
    return found


def _shared(names: Sequence[str]) -> str:
    """What names begin with alike, without the digits and marks at its end."""
    ends = [len({name[: i + 1] for name in names}) == 1 for i in range(min(map(len, names)))]
    length = ends.index(False) if False in ends else len(ends)
    return names[0][:length].rstrip("0123456789_-. ")


def _series(names: Sequence[str], events: dict[str, Path]) -> list[list[str]]:
    """Names in groups of one grid that follow each other; a gap of several lengths of a file begins another group."""
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
    """1 where files hold one time each, so that their length says nothing of the gaps between them."""
    return float(all(known[name][1] == known[name][2] for name in names))


@functools.lru_cache(maxsize=100_000)
def _extent(path: Path, changed: int) -> tuple[Any, float, float]:
    """The grid of a file, as something to compare, and its first and last time in seconds; None for no grid."""
    from geoml.grids.grid import grid_of
    from rainshift.sources.opening import open_rain
    from rainshift.sources.times import TIME_DIMS

    with open_rain(path) as data:
        time = next((data[name] for name in TIME_DIMS if name in data.coords), None)
        try:
            axes = tuple((axis.start, axis.step, axis.size) for axis in grid_of(data, time=False).axes)
        except DataError:
            return None, 0.0, 0.0
        if time is None or not time.size:
            return None, 0.0, 0.0
        values = np.atleast_1d(time.values)
    if values.dtype.kind == "O":
        seconds = [(date - type(date)(1970, 1, 1)).total_seconds() for date in (min(values), max(values))]
    elif values.dtype.kind == "M":
        seconds = [
            float((value - np.datetime64(0, "s")) / np.timedelta64(1, "s")) for value in (values.min(), values.max())
        ]
    else:
        return None, 0.0, 0.0
    return axes, seconds[0], seconds[1]

"""Splits of maps into training and test: by scene, so that no building is in both, or by file as in the paper.

In addition, a part may be limited to certain carriers and layers, so that testing uses others than training.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geoml.data.choice import evenly
from geoml.errors import UserError, unknown
from radiomaps.maps.store import MapStore, SceneRecord
from radiomaps.scenes.footprints import burn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from radiomaps.tasks import Task

__all__ = [
    "Leak",
    "Splits",
    "at_carriers",
    "audit",
    "on_layers",
    "parts_of",
    "some_of",
    "split_by_file",
    "split_by_name",
    "split_by_scene",
    "twins",
]

#: Two local scenes are considered equal if their footprints' intersection exceeds this share of their union.
SAME_PLAN = 0.8
_RASTER = 128
#: Keys of a split's `where`, to which a part may be limited.
CARRIERS, LAYERS = "frequency_hz", "heights_m"
_KEYS = ("by", "parts", "seed", "where")
PARTS = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Leak:
    """Two scenes in different parts that share buildings, and the reason."""

    first: int
    second: int
    parts: tuple[str, str]
    reason: str


@dataclass(frozen=True)
class Splits:
    """Samples of each part, ascending, and the leaks between parts that an audit found."""

    samples: dict[str, NDArray[np.int64]]
    leaks: tuple[Leak, ...]


def twins(records: Sequence[SceneRecord]) -> list[tuple[int, int, str]]:
    """Pairs of scenes that share buildings, and the reason.

    Equal hashes are one scene. Scenes in one reference system leak if their footprints overlap. Local
    scenes, whose origin is arbitrary, leak if their footprints, aligned at the lower corners, agree by more than 80 %
    of their union.
    """
    pairs = []
    plans = [_Ground(record) for record in records]
    alike = _alike(plans)
    for first, second in itertools.combinations(range(len(records)), 2):
        a, b = records[first], records[second]
        if a["hash"] == b["hash"]:
            pairs.append((first, second, "equal geometry"))
            continue
        if a["crs"] != "local" and a["crs"] == b["crs"]:
            if (shared := plans[first].shared_area(plans[second])) > 1.0:
                pairs.append((first, second, f"footprints overlap by {shared:.0f} m²"))
        elif alike[first, second] and plans[first].likeness(plans[second]) > SAME_PLAN:
            pairs.append((first, second, f"footprints agree to {plans[first].likeness(plans[second]):.0%}"))
    return pairs


class _Ground:
    """The footprint area of a scene's buildings, in place and moved to (0, 0)."""

    def __init__(self, record: SceneRecord) -> None:
        polygons = [shapely.make_valid(footprint.polygon) for footprint in record.footprints]
        self.covered = shapely.union_all(polygons) if polygons else shapely.Polygon()
        self.bounds = self.covered.bounds if not self.covered.is_empty else (0.0, 0.0, 0.0, 0.0)
        self.moved = shapely.transform(self.covered, lambda points: points - np.array(self.bounds[:2]))

    def shared_area(self, other: _Ground) -> float:
        a, b = self.bounds, other.bounds
        if a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]:
            return 0.0
        return float(self.covered.intersection(other.covered).area)

    def likeness(self, other: _Ground) -> float:
        """Intersection over union of the moved plans; 0 if their areas exclude a match."""
        areas = sorted((self.covered.area, other.covered.area))
        if areas[1] == 0 or areas[0] < SAME_PLAN * areas[1]:
            return 0.0
        shared = self.moved.intersection(other.moved).area
        return float(shared / (sum(areas) - shared))


def _alike(plans: Sequence[_Ground]) -> NDArray[np.bool_]:
    """Candidate pairs: plans that agree by half on a coarse raster, for all pairs by one matrix product."""
    size = max((max(plan.bounds[2] - plan.bounds[0], plan.bounds[3] - plan.bounds[1]) for plan in plans), default=0.0)
    cell = max(size, 1.0) / _RASTER
    rows = np.zeros((len(plans), _RASTER * _RASTER), np.float32)
    for index, plan in enumerate(plans):
        if not plan.moved.is_empty:
            rows[index] = burn([(plan.moved, 1.0)], (_RASTER, _RASTER), cell_m=(cell, cell)).ravel()
    both = rows @ rows.T
    area = rows.sum(axis=1)
    union = area[:, None] + area - both
    return both > 0.5 * np.maximum(union, 1)


def split_by_scene(store: str | os.PathLike[str], *, parts: Mapping[str, float] | None = None, seed: int = 0) -> Splits:
    """Assign scenes to parts, those that share buildings to the same part; shares are met as closely as possible."""
    shares = _shares(parts)
    store = MapStore.open(store)
    records = store.records
    groups = _groups(len(records), twins(records))
    order = np.random.default_rng([0x59117, seed]).permutation(len(groups))
    if len(groups) < len(shares):
        raise UserError(
            f"{store} has {len(groups)} scenes without common buildings, too few for {len(shares)} parts; "
            "add scenes, or use fewer parts"
        )
    filled = dict.fromkeys(shares, 0)
    part_of: dict[int, str] = {}
    for place, index in enumerate(order):
        empty = [name for name in shares if filled[name] == 0]
        open_ = empty if len(order) - place <= len(empty) else list(shares)
        # The part that is farthest below its share; groups count with all their scenes.
        chosen = max(open_, key=lambda name: shares[name] - filled[name] / len(records))
        for scene in groups[index]:
            part_of[scene] = chosen
        filled[chosen] += len(groups[index])
    part = np.array([part_of[scene] for scene in range(len(records))])[store.scenes]
    samples = {name: np.flatnonzero(part == name) for name in shares}
    return Splits(samples, audit(store, samples))


def split_by_file(store: str | os.PathLike[str], *, parts: Mapping[str, float] | None = None, seed: int = 0) -> Splits:
    """Assign single maps to parts regardless of their scene: the protocol of arXiv 2507.12166, which leaks.

    Default parts: 90 % train, 10 % test. The leaks are listed in the result.
    """
    shares = _shares(parts or {"train": 0.9, "test": 0.1})
    store = MapStore.open(store)
    scene = store.scenes
    order = np.random.default_rng([0x59118, seed]).permutation(len(scene))
    ends = [round(len(scene) * share) for share in itertools.accumulate(shares.values())]
    samples = {name: np.sort(order[start:end]) for name, start, end in zip(shares, [0, *ends[:-1]], ends, strict=True)}
    if any(not len(part) for part in samples.values()):
        raise UserError(f"{store} has {len(scene)} maps, too few for parts of {dict(shares)}")
    return Splits(samples, audit(store, samples))


def split_by_name(store: str | os.PathLike[str], *, parts: Mapping[str, Sequence[str]]) -> Splits:
    """Assign scenes to parts by name, all others to "train": for example from procedural scenes to a real city.

    A name may be a pattern such as `procedural-*`. If `train` is one of the parts, all other scenes are left out.
    """
    store = MapStore.open(store)
    names = [record["name"] for record in store.records]
    part_of = dict.fromkeys(names, "" if "train" in parts else "train")
    for part, chosen in parts.items():
        for pattern in [chosen] if isinstance(chosen, str) else chosen:
            found = [name for name in names if fnmatchcase(name, pattern)]
            if not found:
                raise unknown(f"scene of {store}", pattern, names)
            part_of |= dict.fromkeys(found, part)
    part_of_map = np.array([part_of[name] for name in names])[store.scenes]
    samples = {name: np.flatnonzero(part_of_map == name) for name in dict.fromkeys(("train", *parts))}
    for name in parts:
        if not len(samples[name]):
            raise UserError(f"no scene is left for part {name!r} of {store}")
    return Splits(samples, audit(store, samples))


def at_carriers(
    store: str | os.PathLike[str],
    samples: Mapping[str, NDArray[np.int64]],
    where: Mapping[str, Mapping[str, Sequence[float]]],
) -> dict[str, NDArray[np.int64]]:
    """The samples of each part, limited to the carriers that `where` gives.

    `where` is by part: `{"train": {"frequency_hz": [2.4e9]}, "test": {"frequency_hz": [28e9], "heights_m": [7.5]}}`.
    Raises `UserError` for an unknown part or key, and for carriers without a map.
    """
    kept = dict(samples)
    if not where:
        return kept
    carriers = MapStore.open(store).groups["target"]["frequency_hz"].values
    for part, limits in where.items():
        if part not in samples:
            raise unknown("part in where", part, samples)
        for key in limits:
            if key not in (CARRIERS, LAYERS):
                raise unknown(f"limit of part {part!r}:", key, (CARRIERS, LAYERS))
        if CARRIERS in limits:
            wanted = np.atleast_1d(np.asarray(limits[CARRIERS], np.float64))
            numbers = np.asarray(samples[part], np.int64)
            kept[part] = numbers[np.isclose(carriers[numbers, None], wanted, rtol=1e-6).any(axis=1)]
            if not len(kept[part]):
                there = ", ".join(f"{value / 1e9:g}" for value in np.unique(carriers))
                asked = ", ".join(f"{value / 1e9:g}" for value in wanted)
                raise UserError(f"part {part!r} has no map at {asked} GHz; {store} has {there} GHz")
    return kept


def on_layers(task: Task, split: Mapping[str, Any], part: str) -> Task:
    """The task limited to the layers that a split's `where` gives for a part, if any."""
    limits = (split.get("where") or {}).get(part, {})
    return task.changed(heights=tuple(limits[LAYERS])) if LAYERS in limits else task


def audit(store: str | os.PathLike[str], samples: Mapping[str, Sequence[int] | NDArray[np.int64]]) -> tuple[Leak, ...]:
    """Every pair of scenes (or a scene with itself) that shares buildings and lies in different parts."""
    store = MapStore.open(store)
    records, scene = store.records, store.scenes
    parts_of: dict[int, list[str]] = {number: [] for number in range(len(records))}
    for part, chosen in samples.items():
        for number in np.unique(scene[np.asarray(chosen, np.int64)]):
            parts_of[int(number)].append(part)
    pairs = [(number, number, "one scene") for number in parts_of] + twins(records)
    leaks = []
    for first, second, reason in pairs:
        found = sorted({tuple(sorted((a, b))) for a in parts_of[first] for b in parts_of[second] if a != b})
        leaks += [Leak(first, second, (a, b), reason) for a, b in found]
    return tuple(leaks)


def _shares(parts: Mapping[str, float] | None) -> dict[str, float]:
    shares = dict(parts or PARTS)
    if not shares or any(not share > 0 for share in shares.values()) or not math.isclose(sum(shares.values()), 1.0):
        raise UserError(f"parts {shares} must be positive and sum to 1")
    return shares


def _groups(count: int, pairs: Sequence[tuple[int, int, str]]) -> list[list[int]]:
    """Groups of scenes that are connected by pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    graph: Any = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(count, count))
    number, labels = connected_components(graph, directed=False)
    return [np.flatnonzero(labels == label).tolist() for label in range(number)]


def parts_of(store: str | os.PathLike[str], split: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Samples of a store by part: `{by: scene, parts: {train: 0.8, …}, seed: 0}`, or by file as the paper did.

    `{by: name, parts: {test: [munich]}}` assigns scenes by name; all others train. `where` limits parts to
    carriers, see `at_carriers`.

    >>> parts_of("maps.zarr", {"by": "sceen"})
    Traceback (most recent call last):
    geoml.errors.UserError: split by 'sceen' unknown; did you mean 'scene'? (known: file, name, scene)
    """
    for key in split:
        if key not in _KEYS:
            raise unknown("key of a split", key, _KEYS)
    ways = {"scene": split_by_scene, "file": split_by_file}
    by = split.get("by", "scene")
    if by == "name":
        named = {part: scenes for part, scenes in split["parts"].items() if not isinstance(scenes, int | float)}
        samples = split_by_name(store, parts=named).samples
    elif by in ways:
        samples = ways[by](store, parts=split.get("parts"), seed=int(split.get("seed", 0))).samples
    else:
        raise unknown("split by", by, (*ways, "name"))
    return at_carriers(store, samples, split.get("where") or {})


def some_of(samples: NDArray[Any] | Sequence[int], wanted: int | None) -> list[int]:
    """All samples, or `wanted` of them, evenly spread."""
    return [int(samples[at]) for at in evenly(len(samples), wanted)]

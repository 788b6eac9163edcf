"""What a benchmark does with rain that says nothing of training and test: as much as its length and places allow."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.grids.grid import grid_of
from geoml.runs.folder import plain
from rainshift.data.archive import Archive
from rainshift.data.exactness import TOLERANCE, deviation, is_measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FirstGo", "first_go", "samples_note", "trainer_for"]

#: A record of so many days is cut into blocks for training, validation and test; a shorter one into folds.
LONG_DAYS = 120.0
#: Blocks for training, validation and test of a long record, and days that one cycle of them takes at least.
SHARES, CYCLE_DAYS = {"train": 0.7, "validation": 0.1, "test": 0.2}, 40.0
#: Independent blocks of hours from which an interval is drawn.
FEWEST_BLOCKS = 20
#: Samples that a network sees of each field that it trains on, where the settings do not say how many in all.
SAMPLES_A_FIELD = 20


@dataclass(frozen=True)
class FirstGo:
    """Which records train what: `archive` with its shares of time, the sets of each tested record, and why.

    `outside` trains on other places, `inside` on other events of the same place; each of `folds` is tested by a
    training on the rest of its record. Records whose time is shared out are
    `shared`: where all records are of one kind.
    """

    archive: Archive
    outside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    inside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    folds: dict[str, list[str]] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    may_share: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Kind:
    """What two records have to share for one model to see both: the time step and the ratio of their grids."""

    step_seconds: float
    ratio: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"{self.step_seconds / 60:g} min, {max(self.ratio):.3g} times finer"


def first_go(archive: Archive, names: Sequence[str], block_hours: float = 24.0, *, mix_steps: bool = False) -> FirstGo:
    """The protocol for prepared records that define neither shares nor splits.

    Records of one step (of any with `mix_steps`) and one ratio of grids are taken together. Of several places each is
    left out in turn; of one place with several events each event is; a single record of `LONG_DAYS` or more is cut into
    blocks of time with a purge gap, a shorter one into folds, each tested by a training on the rest.
    """
    times = {name: archive.times(name, "test") for name in names}
    kinds: dict[_Kind, list[str]] = defaultdict(list)
    for name in names:
        kind = _kind_of(archive, name)
        kinds[replace(kind, step_seconds=0.0) if mix_steps else kind].append(name)
    go, notes = FirstGo(archive, may_share=len(kinds) == 1), []
    if len(kinds) > 1:
        listed = "; ".join(f"{', '.join(group)} ({kind.label})" for kind, group in kinds.items())
        notes.append(f"Records of different time steps or grid ratios are never trained on together: {listed}.")
    steps = sorted({archive.step_seconds(name) / 60 for name in names})
    if mix_steps and len(steps) > 1:
        listed = ", ".join(f"{step:g}" for step in steps)
        notes.append(f"Records of time steps of {listed} min are trained on together, as mix_steps asks.")
    for group in kinds.values():
        go, said = _of_group(go, group, times)
        notes += said
    notes += _coarse_notes(archive, names) + _interval_notes(times, block_hours)
    return replace(go, notes=tuple(notes))


def _of_group(go: FirstGo, group: list[str], times: dict[str, NDArray[Any]]) -> tuple[FirstGo, list[str]]:
    """The sets of records that one model may see together."""
    places: dict[Any, list[str]] = defaultdict(list)
    for name in group:
        places[_place_of(go.archive, name)].append(name)
    if go.may_share and len(places) > 1 and all(_days(times[name]) >= LONG_DAYS for name in group):
        archive = _shared_out(go.archive, min(_days(times[name]) for name in group))
        note = (
            f"{len(places)} places of {LONG_DAYS:g} days or more: each is left out of training in turn, and its loss "
            f"is measured against a training with it, {_said(archive)}."
        )
        return replace(go, archive=archive, shared=(*go.shared, *group)), [note]
    if len(places) > 1:
        outside = dict(go.outside)
        for events in places.values():
            others = tuple(sorted(set(group) - set(events)))
            outside |= dict.fromkeys(events, others)
        note = (
            f"{', '.join(group)}: {len(places)} places; each is tested by a training on the others, on all its times. "
            "The loss against a training with the place itself is not measured: the records are too short for both."
        )
        return replace(go, outside=outside), [note]
    if len(group) > 1:
        inside = go.inside | {name: tuple(sorted(set(group) - {name})) for name in group}
        note = f"{', '.join(group)}: events of one place; each is tested by a training on the others."
        return replace(go, inside=inside), [note]
    (name,) = group
    days = _days(times[name])
    if go.may_share and days >= LONG_DAYS:
        archive = _shared_out(go.archive, days)
        note = f"{name}: {days:.0f} days of one place, {_said(archive)}. Transfer needs a second place."
        return replace(go, archive=archive, shared=(*go.shared, name)), [note]
    folds = go.archive.folds(name)
    gap = go.archive.purge_of(name)
    note = (
        f"{name}: {_length(days)} of one place, too short for a test period. It is divided into {len(folds)} blocks; "
        f"each is tested by a training on the others, less {_length(gap.total_seconds() / 86400)} on either side, and "
        "the predictions are pooled. Transfer needs a second place."
    )
    return replace(go, folds=go.folds | {name: folds}), [note]


def _shared_out(archive: Archive, days: float) -> Archive:
    """The archive with shares of time for training, validation and test in blocks as its length allows."""
    blocks = max(1, min(10, int(days / CYCLE_DAYS)))
    return replace(archive, config={**plain(archive.config), "shares": SHARES, "blocks": blocks})


def _said(archive: Archive) -> str:
    shares = ", ".join(f"{share:.0%} {name}" for name, share in SHARES.items())
    hours = archive.purge.total_seconds() / 3600
    return (
        f"cut into {archive.config['blocks']} cycles of blocks ({shares}), {hours:g} h between blocks of different use"
    )


def _kind_of(archive: Archive, name: str) -> _Kind:
    coarse, fine = _grids(archive, name)
    ratio = tuple(round(c.step / f.step, 3) for c, f in zip(coarse.axes, fine.axes, strict=True))
    return _Kind(archive.step_seconds(name), ratio)


def _place_of(archive: Archive, name: str) -> tuple[Any, ...]:
    """The part of the Earth that a record is of: records that overlap in space are of one place."""
    _, fine = _grids(archive, name)
    return tuple((round(axis.start / axis.step), axis.size) for axis in fine.axes)


def _grids(archive: Archive, name: str) -> tuple[Any, Any]:
    groups = archive.open(name, archive.samples(name, "test")[0])
    return grid_of(groups["condition"]), grid_of(groups["target"])


def _days(time: NDArray[Any]) -> float:
    return float((time[-1] - time[0]) / np.timedelta64(1, "D"))


def _length(days: float) -> str:
    if days >= 2:
        return f"{days:.3g} days"
    return f"{24 * days:.3g} h" if days * 24 >= 2 else f"{1440 * days:.3g} min"


def _coarse_notes(archive: Archive, names: Sequence[str]) -> list[str]:
    """Where the coarse rain is from, and how far coarse rain from files is from the area means of the fine rain."""
    by_source = defaultdict(list)
    measured = is_measured(archive)
    for name in names:
        source = archive.attribute(name, "coarse") or ""
        apart = deviation(archive, name) if measured else None
        if apart is not None:
            mean = f"the area mean of the fine rain within {TOLERANCE:.0%}"
            source += f", {mean}" if apart <= TOLERANCE else f", {apart:.0%} (RMS) from the area means of the fine rain"
        by_source[source].append(name)
    return [f"Coarse rain of {', '.join(group)}: {source}." for source, group in by_source.items() if source]


def _interval_notes(times: dict[str, NDArray[Any]], block_hours: float) -> list[str]:
    """Whether the hours make enough blocks for an interval, and which setting would."""
    notes: dict[str, list[str]] = defaultdict(list)
    for name, time in times.items():
        hours = time.astype("datetime64[h]").astype(np.int64)
        blocks = len(np.unique(hours // block_hours))
        if blocks < FEWEST_BLOCKS:
            span = _days(time) * 24
            enough = next((b for b in (12, 6, 3, 1, 0.5) if b < block_hours and span / b >= FEWEST_BLOCKS), None)
            way = "so short a record has none"
            if enough is not None:
                way = f"analysis.block_hours={enough:g} makes {int(span / enough)}, as far as they are independent"
            many = f"{blocks} block{'s' * (blocks != 1)} of {block_hours:g} h, {FEWEST_BLOCKS} needed; {way}."
            notes[many].append(name)
    return [f"No interval for {', '.join(names)}: {many}" for many, names in notes.items()]


@functools.cache
def _usual_samples() -> int:
    from geoml.cli.compose import compose

    return int(compose("rainshift.conf", "benchmark", []).trainer.samples)


def _left_open(go: FirstGo | None, trainer: Mapping[str, Any]) -> bool:
    """Whether the samples of a training are the usual ones, on records that say nothing of training."""
    return go is not None and not go.shared and trainer["samples"] == _usual_samples()


def trainer_for(go: FirstGo | None, trainer: Mapping[str, Any], fields: int) -> dict[str, Any]:
    """The trainer's settings for a training on so many fields: its samples follow from them where they are open."""
    most = SAMPLES_A_FIELD * fields if _left_open(go, trainer) else trainer["samples"]
    return {**trainer, "samples": min(trainer["samples"], most)}


def samples_note(go: FirstGo | None, trainer: Mapping[str, Any]) -> tuple[str, ...]:
    """What is said of that."""
    if not _left_open(go, trainer):
        return ()
    return (
        f"Networks see {SAMPLES_A_FIELD} samples of each field that they train on, at most {trainer['samples']} in "
        "all; trainer.samples=NUMBER sets another number.",
    )

"""Automatic protocol of a benchmark on data without training and test periods, from record length and location."""

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

#: Smallest length in days of a record that is split into blocks for training, validation and test. Shorter records are
#: split into cross-validation folds.
LONG_DAYS = 120.0
#: Shares of training, validation and test in a long record, and smallest length in days of one cycle of their blocks.
SHARES, CYCLE_DAYS = {"train": 0.7, "validation": 0.1, "test": 0.2}, 40.0
#: Smallest number of independent blocks of hours for a confidence interval.
FEWEST_BLOCKS = 20
#: Default number of training samples per field of the training set.
SAMPLES_A_FIELD = 20


@dataclass(frozen=True)
class FirstGo:
    """Automatic protocol: the training records of each tested record.

    Attributes:
        archive: the prepared data, with shares of time for training and test if records are split in time.
        outside: for a tested record, training records of other places.
        inside: for a tested record, training records of other events of the same place.
        folds: for a tested record, its cross-validation blocks; each is tested by a training on the other blocks.
        shared: records that are split in time into training, validation and test.
        may_share: whether records may be split in time; requires that all records are of one kind.
        notes: explanation of the protocol for the user, in sentences.
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
    """Properties that records must have in common to be in one training set: time step and ratio of grid spacings."""

    step_seconds: float
    ratio: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"{self.step_seconds / 60:g} min, {max(self.ratio):.3g} times finer"


def first_go(archive: Archive, names: Sequence[str], block_hours: float = 24.0, *, mix_steps: bool = False) -> FirstGo:
    """Choose the protocol for prepared records whose configuration sets neither shares nor splits.

    Records with the same time step (or any, with `mix_steps`) and ratio of grid spacings form a group. Within a group:

    - several places: each place is left out in turn;
    - one place with several events: each event is left out in turn;
    - one record of at least `LONG_DAYS`: it is split into blocks of time with a purge gap;
    - one shorter record: it is split into cross-validation folds.
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
        notes.append(f"Records with time steps of {listed} min are trained on together, since mix_steps=true.")
    for group in kinds.values():
        go, said = _of_group(go, group, times)
        notes += said
    notes += _coarse_notes(archive, names) + _interval_notes(times, block_hours)
    return replace(go, notes=tuple(notes))


def _of_group(go: FirstGo, group: list[str], times: dict[str, NDArray[Any]]) -> tuple[FirstGo, list[str]]:
    """Add the protocol of one group of records. Returns it with notes for the user."""
    places: dict[Any, list[str]] = defaultdict(list)
    for name in group:
        places[_place_of(go.archive, name)].append(name)
    if go.may_share and len(places) > 1 and all(_days(times[name]) >= LONG_DAYS for name in group):
        archive = _shared_out(go.archive, min(_days(times[name]) for name in group))
        note = (
            f"{len(places)} places of {LONG_DAYS:g} days or more: each is left out of training in turn and compared "
            f"with a training that includes it, {_said(archive)}."
        )
        return replace(go, archive=archive, shared=(*go.shared, *group)), [note]
    if len(places) > 1:
        outside = dict(go.outside)
        for events in places.values():
            others = tuple(sorted(set(group) - set(events)))
            outside |= dict.fromkeys(events, others)
        note = (
            f"{', '.join(group)}: {len(places)} places; each is tested at all its times by a training on the others. "
            "There is no comparison with a training on the place itself: the records are too short for both."
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
    """Return the archive split in time for training, validation and test. Longer records have more cycles of blocks."""
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
    """Return the extent of a record's fine grid in cells. Records with the same extent are of one place."""
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
    """State the origin of the coarse rain of each record, and the deviation of coarse files from exact area means."""
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
    """State which records have too few blocks for a confidence interval, and the setting that gives enough."""
    notes: dict[str, list[str]] = defaultdict(list)
    for name, time in times.items():
        hours = time.astype("datetime64[h]").astype(np.int64)
        blocks = len(np.unique(hours // block_hours))
        if blocks < FEWEST_BLOCKS:
            span = _days(time) * 24
            enough = next((b for b in (12, 6, 3, 1, 0.5) if b < block_hours and span / b >= FEWEST_BLOCKS), None)
            way = "the record is too short for shorter blocks"
            if enough is not None:
                way = f"analysis.block_hours={enough:g} gives {int(span / enough)}, if these are independent"
            many = f"{blocks} block{'s' * (blocks != 1)} of {block_hours:g} h, {FEWEST_BLOCKS} needed; {way}."
            notes[many].append(name)
    return [f"No interval for {', '.join(names)}: {many}" for many, names in notes.items()]


@functools.cache
def _usual_samples() -> int:
    from geoml.cli.compose import compose

    return int(compose("rainshift.conf", "benchmark", []).trainer.samples)


def _left_open(go: FirstGo | None, trainer: Mapping[str, Any]) -> bool:
    """Return whether the protocol is automatic (without a split in time) and `trainer.samples` is the default."""
    return go is not None and not go.shared and trainer["samples"] == _usual_samples()


def trainer_for(go: FirstGo | None, trainer: Mapping[str, Any], fields: int) -> dict[str, Any]:
    """Return the trainer's settings for a training set of `fields` fields.

    If the user did not set `trainer.samples` and the protocol is automatic, the number of samples is at most
    `SAMPLES_A_FIELD` per field.
    """
    most = SAMPLES_A_FIELD * fields if _left_open(go, trainer) else trainer["samples"]
    return {**trainer, "samples": min(trainer["samples"], most)}


def samples_note(go: FirstGo | None, trainer: Mapping[str, Any]) -> tuple[str, ...]:
    """Explain the limited number of samples to the user; empty if there is no limit."""
    if not _left_open(go, trainer):
        return ()
    return (
        f"Networks are trained on {SAMPLES_A_FIELD} samples per training field, at most {trainer['samples']} in total. "
        "Set trainer.samples=NUMBER for another number.",
    )

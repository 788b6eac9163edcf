"""Groups of samples whose grids have the same relative geometry: their blocks and how patches are cut."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.data.patches import PatchPlacement, PatchSpec, place
from geoml.data.shuffling import keyed_uniform
from geoml.data.sources import Block, BlockSource, unexpected_gap
from geoml.grids.grid import Axis, Grid

__all__ = ["KNOWN", "Lane", "Part", "Span", "build_lanes", "sample_starts"]

#: Suffix of a condition channel `NAME_known` that the loader adds: 1 where variable `NAME` is known, else 0.
KNOWN = "_known"


def sample_starts(source: BlockSource, window: int | None) -> NDArray[np.int64]:
    """Start indices of samples: all selected indices, or the starts of separate runs of `window` equal steps.

    A window never reaches across samples that are not selected or across a change of the time step; the step of a
    source is its most frequent one.
    """
    selected = source.selected
    if window is None or window == 1:
        return selected
    follows = np.diff(selected) == 1
    if source.times is not None and selected.size > 1:
        steps = np.diff(source.times[selected])
        kinds, counts = np.unique(steps[follows], return_counts=True)
        if kinds.size:
            follows &= steps == kinds[counts.argmax()]
    breaks = np.flatnonzero(~follows) + 1
    starts = []
    for run in np.split(selected, breaks):
        starts.append(run[: max(0, run.size - window + 1) : window])
    return np.concatenate(starts) if starts else selected[:0]


@dataclass(frozen=True)
class Span:
    """A block to be read: time steps `start … stop - 1` of a source, with the start indices `begins` of its samples."""

    source: int
    start: int
    stop: int
    first_id: int
    begins: NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Items of a batch, numbered by the ascending `order`; all arrays have one row per item.

    `grids` are those of the first item, or of any item of the group if there are none.
    """

    order: NDArray[np.int64]
    ids: NDArray[np.int64]
    condition: NDArray[np.float32]
    target: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None
    static: NDArray[np.float32] | None
    grids: tuple[Grid, Grid]


@dataclass
class Lane:
    """Sources whose condition and target grids have the same relative geometry, so that their patches share batches."""

    sources: Mapping[int, BlockSource]
    placements: Mapping[int, PatchPlacement]
    spans: Sequence[Span]
    patches: int
    random_places: bool
    condition: tuple[str, ...]
    window: int | None
    expected_gaps: frozenset[str]
    seed: int

    def __post_init__(self) -> None:
        self._statics: dict[int, NDArray[np.float32]] = {}
        self._spare: list[NDArray[np.uint8]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_statics": {}, "_spare": []}

    def spare_memory(self) -> NDArray[np.uint8] | None:
        """Return memory of a block that is no longer needed, or None; reuse avoids the cost of new memory pages."""
        return self._spare.pop() if self._spare else None

    def recycle(self, block: Block) -> None:
        """Keep the memory of a block for reuse by a later block."""
        if block.memory is not None:
            self._spare.append(block.memory)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of items per span."""
        return np.array([len(span.begins) * self.patches for span in self.spans], np.int64)

    @property
    def block_bytes(self) -> int:
        """Bytes of the largest block."""
        return max((s.stop - s.start) * self.sources[s.source].sample_bytes for s in self.spans)

    @property
    def item_bytes(self) -> int:
        """Return the size in bytes of one item of a batch: float32 fields and the mask."""
        placement = next(iter(self.placements.values()))
        source = next(iter(self.sources.values()))
        steps = self.window or 1
        fine, coarse = int(np.prod(placement.size)) * steps, int(np.prod(placement.condition_size)) * steps
        return 4 * len(self.condition) * coarse + (5 * len(source.target) + 4 * len(source.static)) * fine

    def item_id(self, span: Span, item: int) -> int:
        """The global number of an item: sample number times patches a sample, plus the patch."""
        return span.first_id + item

    def cut(self, blocks: Sequence[Block], spans: Sequence[Span], items: NDArray[np.int64], order: NDArray[np.int64],
            epoch: int) -> Part:  # fmt: skip
        """Cut each item out of its block; returns checked values in physical units."""
        ids = np.array([span.first_id for span in spans], np.int64) + items
        local, patch = np.divmod(items, self.patches)
        begins = np.array([span.begins[k] for span, k in zip(spans, local.tolist(), strict=True)], np.int64)
        steps = begins - np.array([block.start for block in blocks], np.int64)
        target_at, condition_at, grids = self._places(spans, ids, patch, epoch, begins)
        placement = next(iter(self.placements.values()))
        condition, finite = self._gather("condition", blocks, steps, condition_at, placement.condition_size)
        if not finite:
            self._check(condition, spans, begins, condition_at)
        condition = self._with_known(condition)
        target = mask = None
        if "target" in blocks[0].roles:
            target, mask = self._gather("target", blocks, steps, target_at, placement.size)
        return Part(order, ids, condition, target, mask, self._static(spans, target_at, placement.size), grids)

    def nothing(self) -> Part:
        """Return a part without items, with the array shapes of a part that has items."""
        number, placement = next(iter(self.placements.items()))
        source = self.sources[number]
        lead = () if self.window is None else (self.window,)
        none = np.empty(0, np.int64)

        def empty(channels: Sequence[str], size: tuple[int, ...]) -> NDArray[np.float32]:
            return np.empty((0, len(channels), *lead, *size), np.float32)

        target = empty(source.target, placement.size) if source.target else None
        return Part(
            none,
            none,
            empty(self.condition, placement.condition_size),
            target,
            None if target is None else target.astype(np.bool_),
            empty(source.static, placement.size) if source.static else None,
            self._with_time(placement.grids(0), number, self.spans[0].start),
        )

    def _places(
        self,
        spans: Sequence[Span],
        ids: NDArray[np.int64],
        patch: NDArray[np.int64],
        epoch: int,
        begins: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[Grid, Grid]]:
        axes = len(next(iter(self.placements.values())).axes)
        target, condition = np.empty((len(ids), axes), np.int64), np.empty((len(ids), axes), np.int64)
        owner = np.array([span.source for span in spans])
        for number in np.unique(owner):
            placement, rows = self.placements[int(number)], np.flatnonzero(owner == number)
            places = patch[rows]
            if self.random_places:
                places = (keyed_uniform((self.seed, epoch), ids[rows]) * placement.count).astype(np.int64)
            target[rows], condition[rows] = placement.offsets(places)
            if rows[0] == 0:
                grids = self._with_time(placement.grids(int(places[0])), int(number), int(begins[0]))
        return target, condition, grids

    def _with_time(self, grids: tuple[Grid, Grid], number: int, begin: int) -> tuple[Grid, Grid]:
        if self.window is None:
            return grids
        times = self.sources[number].times
        axis = time_axis(times, begin, self.window)
        return grids[0].with_time(axis), grids[1].with_time(axis)

    def _gather(
        self, role: str, blocks: Sequence[Block], steps: NDArray[np.int64], at: NDArray[np.int64], size: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], Any]:
        """Cut the items out of their blocks, in physical units.

        Returns the values and, for the target, a mask of known values (others are 0); for the condition, whether all
        values are finite.
        """
        from geoml.data.kernels import cut_patch

        masked = role == "target"
        lead = () if self.window is None else (self.window,)
        channels = sum(len(stack.channels) for stack in blocks[0].roles[role])
        out = np.empty((len(blocks), channels, *lead, *size), np.float32)
        mask = np.empty(out.shape if masked else 0, np.bool_)
        flat = (len(blocks), channels, self.window or 1, *(1,) * (3 - len(size)), *size)
        items, bits = out.reshape(flat), out.view(np.int32).reshape(*flat[:2], -1)
        known = mask.reshape(bits.shape if masked else (1, 0, 0))
        corners = np.zeros((len(blocks), 3), np.int64)
        corners[:, 3 - len(size) :] = at
        finite = True
        for row, (block, step) in enumerate(zip(blocks, steps.tolist(), strict=True)):
            for stack in block.roles[role]:
                field, first = stack.cells(step, flat[2])
                valid = known[row if masked else 0]
                finite &= cut_patch(field, first, corners[row], *stack.codes, items[row], bits[row], valid)
        return out, mask if masked else finite

    def _check(
        self, condition: NDArray[np.float32], spans: Sequence[Span], begins: NDArray[np.int64], at: NDArray[np.int64]
    ) -> None:
        """Raise `DataError` for a missing value of a variable that is not in `expected_gaps`."""
        source = next(iter(self.sources.values()))
        for channel, variable in enumerate(source.condition):
            if variable in self.expected_gaps or np.isfinite(condition[:, channel]).all():
                continue
            row, *cell = (int(i) for i in np.argwhere(~np.isfinite(condition[:, channel]))[0])
            step = cell.pop(0) if self.window is not None else 0
            span = spans[row]
            grid = self.sources[span.source].condition_grid
            raise unexpected_gap(
                self.sources[span.source],
                "condition",
                variable,
                int(begins[row]) + step,
                cell_name(grid, at[row] + cell),
            )

    def _with_known(self, condition: NDArray[np.float32]) -> NDArray[np.float32]:
        """Set expected missing values to 0 and select the channels; `NAME_known` is 1 where `NAME` is not missing."""
        have = next(iter(self.sources.values())).condition
        if not self.expected_gaps and self.condition == have:
            return condition
        known = np.isfinite(condition)
        condition = np.where(known, condition, np.float32(0))
        if self.condition == have:
            return condition
        rows = [
            condition[:, have.index(name)] if name in have else known[:, have.index(name.removesuffix(KNOWN))]
            for name in self.condition
        ]
        return np.stack(rows, axis=1).astype(np.float32)

    def _static(
        self, spans: Sequence[Span], at: NDArray[np.int64], size: tuple[int, ...]
    ) -> NDArray[np.float32] | None:
        names = next(iter(self.sources.values())).static
        if not names:
            return None
        out = np.empty((len(spans), len(names), *size), np.float32)
        for item, span, corner in zip(out, spans, at.tolist(), strict=True):
            where = tuple(slice(low, low + length) for low, length in zip(corner, size, strict=True))
            item[...] = self._static_field(span.source)[(slice(None), *where)]
        if self.window is None:
            return out
        steps = np.broadcast_to(out[:, :, None], (*out.shape[:2], self.window, *size))
        return np.ascontiguousarray(steps)

    def _static_field(self, number: int) -> NDArray[np.float32]:
        if number not in self._statics:
            source = self.sources[number]
            field = source.read_static()
            for name, values in zip(source.static, field, strict=True):
                bad = np.argwhere(~np.isfinite(values))
                if bad.size and name not in self.expected_gaps:
                    raise unexpected_gap(source, "static", name, 0, cell_name(source.target_grid, bad[0]))
            self._statics[number] = np.where(np.isfinite(field), field, np.float32(0))
        return self._statics[number]


def cell_name(grid: Grid, cell: NDArray[np.int64]) -> str:
    """`lat[3]=40.35, lon[7]=5.25`; for a cell beyond the rim, the outermost cell, whose value it repeats."""
    inside = np.clip(cell, 0, np.array(grid.shape) - 1)
    return ", ".join(
        f"{axis.name}[{int(i)}]={axis.start + axis.step * int(i):g}" for axis, i in zip(grid.axes, inside, strict=True)
    )


def time_axis(times: NDArray[Any] | None, begin: int, window: int) -> Axis:
    """Time axis of a window's grids: seconds since 1970 for datetimes, else the numbers unchanged."""
    if times is None:
        return Axis("time", float(begin), 1.0, window, units="1")
    units = "1"
    values = times[begin : begin + 2] if window > 1 else times[begin : begin + 1]
    if np.issubdtype(values.dtype, np.datetime64):
        values, units = (values - np.datetime64(0, "s")) / np.timedelta64(1, "s"), "seconds since 1970-01-01"
    step = float(values[1] - values[0]) if window > 1 else 1.0
    return Axis("time", float(values[0]), step, window, units=units)


def build_lanes(
    sources: Sequence[BlockSource],
    *,
    condition: tuple[str, ...],
    patch: PatchSpec | None,
    patches_per_sample: int,
    window: int | None,
    block_samples: int | None,
    expected_gaps: Collection[str],
    seed: int,
) -> list[Lane]:
    """Group the sources by geometry and cut their samples into blocks; ids number the items over all sources."""
    groups: dict[Any, list[int]] = {}
    placements = [place(patch, source.condition_grid, source.target_grid) for source in sources]
    starts = [sample_starts(source, window) for source in sources]
    random_places = patch is not None and patch.stride is None
    ids, spans = 0, []
    for number, (source, placement, begins) in enumerate(zip(sources, placements, starts, strict=True)):
        patches = patches_per_sample if random_places else placement.count
        mine = _spans(number, begins, block_samples or source.block_samples, window or 1, patches, ids)
        ids += begins.size * patches
        if not mine:
            continue
        spans.append(mine)
        grids = placement.grids(0)
        key = (grids[0].relative_to(grids[1]), patches, _step(source, begins, window))
        groups.setdefault(key, []).append(number)
    by_source = {rows[0].source: rows for rows in spans}
    return [
        Lane(
            {number: sources[number] for number in numbers},
            {number: placements[number] for number in numbers},
            [span for number in numbers for span in by_source[number]],
            patches,
            random_places,
            condition,
            window,
            frozenset(expected_gaps),
            seed,
        )
        for (_, patches, _), numbers in groups.items()
    ]


def _step(source: BlockSource, begins: NDArray[np.int64], window: int | None) -> float | None:
    return time_axis(source.times, int(begins[0]), window).step if window and window > 1 else None


def _spans(number: int, begins: NDArray[np.int64], length: int, window: int, patches: int, first_id: int) -> list[Span]:
    """Group samples into spans: samples that start within the same `length` steps of the axis share a span."""
    if not begins.size:
        return []
    cuts = np.flatnonzero(np.diff(begins // length)) + 1
    spans, first = [], first_id
    for part in np.split(begins, cuts):
        spans.append(Span(number, int(part[0]), int(part[-1]) + window, first, part))
        first += part.size * patches
    return spans

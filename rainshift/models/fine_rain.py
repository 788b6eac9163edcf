"""A downscaler applied to arrays of coarse fields: block by block of times, around the globe, gaps kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from geoml.data.choice import consecutive
from geoml.data.fields import Batch
from geoml.data.patch_groups import KNOWN, time_axis
from geoml.errors import DataError, Diverged
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from geoml.models.noise import WindowId
from geoml.regrid import operator_for
from rainshift.models.spec import Downscaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rainshift.models.trust import Trust

__all__ = ["TRUST_LAYERS", "FineRain"]

#: Values of a block of members on the fine grid; at least one time is predicted at once.
VALUES_AT_A_TIME = 1 << 23
FIELDS_AT_A_TIME = 4
#: Fine cells by which a field around the globe is continued beyond its seam.
SEAM_CELLS = 40
#: What follows the members in the layers of a block, where trust was learned.
TRUST_LAYERS = ("expected_error", "bound", "novelty", "familiar")


@dataclass(frozen=True)
class FineRain:
    """`(channel, time, lat, lon)` of coarse fields to `(layer, time, lat, lon)` of fine rain in mm/h.

    Layers are the members and, with `trust`, those of `TRUST_LAYERS`. `have` names the channels that come; channels
    `NAME_known` are made. A gap (NaN) in a channel of `gaps` is 0 to the model, and the rain is NaN where the coarse
    rain (`rain`, an index among `have`) is missing; any other gap raises `DataError`. A member of a time depends on the
    seed and the time alone, not on the block that it is predicted in.
    """

    downscaler: Downscaler
    channels: Channels
    have: tuple[str, ...]
    coarse: Grid
    fine: Grid
    static: NDArray[np.float32] | None
    members: int
    seed: int = 0
    gaps: tuple[str, ...] = ()
    rain: int | None = None
    trust: Trust | None = None

    @property
    def layers(self) -> int:
        """Members, and what trust says."""
        return self.members + (len(TRUST_LAYERS) if self.trust is not None else 0)

    @property
    def window(self) -> int | None:
        """Consecutive times that the model sees at once; None for single ones."""
        return getattr(self.downscaler, "window", None)

    @property
    def _at_once(self) -> int:
        return max(1, min(FIELDS_AT_A_TIME, VALUES_AT_A_TIME // (self.layers * self.fine.size)))

    def blocks(self, times: NDArray[np.datetime64]) -> list[slice]:
        """Parts of the times that can be predicted one without the other, in order, none larger than need be."""
        if self.window is None:
            return [slice(i, min(i + self._at_once, len(times))) for i in range(0, len(times), self._at_once)]
        found = []
        for run in consecutive(times):
            first, stop = int(run[0]), int(run[-1]) + 1
            starts = list(range(first, max(stop - self.window, first) + 1, self.window))
            # The last window of a run overlaps the one before: both are of one block.
            found += [slice(start, end) for start, end in zip(starts, [*starts[1:], stop], strict=True)]
        return found

    def __call__(self, condition: NDArray[np.float32], times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """The layers of one block."""
        made = np.empty((self.layers, len(times), *self.fine.shape), np.float32)
        missing = self._missing(condition)
        filled = self._filled(condition, times)
        for rows, batch, steps in self._batches(filled, times):
            prediction, _ = self.downscaler.predict(batch, members=self.members, seed=self.seed)
            if not bool(prediction.isfinite().all()):
                raise Diverged(f"the prediction is not finite at {times[rows][0]}; the model has diverged")
            layers = [prediction[:, :, 0]]
            if self.trust is not None:
                maps = self.trust(batch, prediction)
                layers.append(torch.stack([getattr(maps, name).float() for name in TRUST_LAYERS], dim=1))
            fields = torch.cat(layers, dim=1).numpy()[..., self._inside]  # (batch, layer, [time,] lat, lon)
            fields = fields if steps is None else fields[0].swapaxes(0, 1)[steps]
            made[:, rows] = fields.swapaxes(0, 1)
        if missing is not None:
            regrid = operator_for(self.coarse, self.fine, "nearest")
            made[:, np.asarray(regrid(missing.astype(np.float32)) > 0.5)] = np.nan
        return made

    def _batches(
        self, filled: NDArray[np.float32], times: NDArray[np.datetime64]
    ) -> Iterator[tuple[slice, Batch, slice | None]]:
        """Which times, the batch, and which of its steps are these times' where the model sees windows."""
        ids = ((times - np.datetime64(0, "s")) / np.timedelta64(1, "s")).astype(np.int64)
        if self.window is None:
            for start in range(0, len(times), self._at_once):
                rows = slice(start, start + self._at_once)
                yield rows, self._batch(filled[:, rows].swapaxes(0, 1), ids[rows], self._grids), None
            return
        length = min(self.window, len(times))
        for start in range(0, len(times), length):
            begin = min(start, len(times) - length)
            axis = time_axis(times, begin, length)
            coarse, fine = (grid.with_time(axis) for grid in self._grids)
            part = filled[None, :, begin : begin + length]
            rows = slice(start, min(start + length, len(times)))
            yield rows, self._batch(part, ids[begin : begin + 1], (coarse, fine)), slice(start - begin, length)

    def _batch(self, condition: NDArray[np.float32], ids: NDArray[np.int64], grids: tuple[Grid, Grid]) -> Batch:
        coarse, fine = grids
        lead = (len(condition), *coarse.shape[:-2])
        static = None
        if self.static is not None:
            wide = self.static[..., self._columns[1]]
            shape = (lead[0], len(wide), *lead[1:], *wide.shape[1:])
            static = torch.from_numpy(np.ascontiguousarray(np.broadcast_to(
                wide[None] if len(lead) == 1 else wide[None, :, None], shape)))  # fmt: skip
        numbers: tuple[int, ...] = tuple(ids.tolist())
        if self.fine.axes[-1].period is not None:
            numbers = tuple(WindowId(number, self._seams(grids)) for number in numbers)
        tensor = torch.from_numpy(np.ascontiguousarray(condition[..., self._columns[0]]))
        return Batch(tensor, coarse, fine, static=static, ids=numbers)

    @cached_property
    def _margin(self) -> tuple[int, int]:
        """Coarse and fine columns by which a field around the globe is continued on either side."""
        coarse, fine = self.coarse.axes[-1], self.fine.axes[-1]
        if coarse.period is None or fine.period is None:
            return 0, 0
        common = math.lcm(coarse.size, fine.size)  # as many columns of both make equal widths
        pair = common // fine.size, common // coarse.size
        times = -(-SEAM_CELLS // pair[1])
        return min(pair[0] * times, coarse.size), min(pair[1] * times, fine.size)

    @cached_property
    def _columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The columns of the continued fields, coarse and fine."""
        pairs = zip((self.coarse, self.fine), self._margin, strict=True)
        return tuple(np.arange(-m, grid.shape[-1] + m) % grid.shape[-1] for grid, m in pairs)  # type: ignore[return-value]

    @cached_property
    def _grids(self) -> tuple[Grid, Grid]:
        """The grids of the continued fields."""
        made = []
        for grid, margin in zip((self.coarse, self.fine), self._margin, strict=True):
            axis = grid.axes[-1]
            if margin:
                axis = replace(axis, start=axis.start - margin * axis.step, size=axis.size + 2 * margin, period=None)
            made.append(Grid((*grid.axes[:-1], axis), grid.crs))
        return made[0], made[1]

    @property
    def _inside(self) -> slice:
        """The columns of the continued fine field that are not repeated."""
        return slice(self._margin[1], self._margin[1] + self.fine.shape[-1])

    def _seams(self, grids: tuple[Grid, Grid]) -> dict[tuple[int, ...], tuple[tuple[int, ...], tuple[slice, ...]]]:
        """The noise of a field around the globe meets itself at the seam: the continued part repeats it."""
        found = {}
        for grid, own, columns in zip(grids, (self.coarse, self.fine), self._columns, strict=True):
            whole = (*grid.shape[:-1], own.shape[-1])
            found[grid.shape] = (whole, (*(slice(None) for _ in grid.shape[:-1]), torch.from_numpy(columns)))
        return found  # type: ignore[return-value]

    def _missing(self, condition: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Where the coarse rain is unknown, None where it is known everywhere."""
        if self.rain is None:
            return None
        missing = np.isnan(condition[self.rain])
        return missing if missing.any() else None

    def _filled(self, condition: NDArray[np.float32], times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """The model's channels without gaps."""
        known = np.isfinite(condition)
        for channel, name in enumerate(self.have):
            if name not in self.gaps and not known[channel].all():
                time, *cell = np.argwhere(~known[channel])[0]
                place = ", ".join(f"{a.name} {a.coordinates[i]:g}" for a, i in zip(self.coarse.axes, cell, strict=True))
                raise DataError(
                    f"{name} is {condition[channel, time, *cell]} at {times[time]}, {place} "
                    f"({int((~known[channel]).sum())} such values); the model was trained without gaps there: fill "
                    f"them, or cut the data to where it is known"
                )
        condition = np.where(known, condition, np.float32(0))
        rows = [
            condition[self.have.index(name)] if name in self.have else known[self.have.index(name.removesuffix(KNOWN))]
            for name in self.channels.condition
        ]
        return np.stack(rows).astype(np.float32)

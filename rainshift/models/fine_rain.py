"""Apply a downscaler to arrays of coarse fields: in blocks of times, on global domains, with missing values."""

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
from geoml.data.points import Points
from geoml.errors import DataError, Diverged
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from geoml.models.noise import WindowId
from geoml.regrid import operator_for
from rainshift.models.spec import Downscaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rainshift.data.observations import MatchedReadings
    from rainshift.models.trust import Trust

__all__ = ["TRUST_LAYERS", "FineRain"]

#: Maximum number of values on the fine grid in a block, over all members; a block has at least one time.
VALUES_AT_A_TIME = 1 << 23
FIELDS_AT_A_TIME = 4
#: Number of fine cells by which a global field is padded periodically in longitude.
SEAM_CELLS = 40
#: Layers that follow the members if a trust map was fitted.
TRUST_LAYERS = ("expected_error", "bound", "novelty", "familiar")


@dataclass(frozen=True)
class FineRain:
    """Map coarse fields `(channel, time, lat, lon)` to fine rain `(layer, time, lat, lon)` in mm/h.

    Layers are the members and, with `trust`, those of `TRUST_LAYERS`. `have` contains the input channels; channels
    `NAME_known` are computed from them. Missing values (NaN) in a channel of `gaps` are replaced by 0; other missing
    values raise `DataError`. The predicted rain is NaN where the coarse rain (`rain`, an index into `have`) is missing.
    A member depends on the seed and its time only, not on the block. With `observations`, members are conditioned on
    the observations at their time.
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
    observations: MatchedReadings | None = None

    @property
    def layers(self) -> int:
        """Number of layers: the members and, with `trust`, `TRUST_LAYERS`."""
        return self.members + (len(TRUST_LAYERS) if self.trust is not None else 0)

    @property
    def window(self) -> int | None:
        """Number of consecutive times in one input of the model; None for single times."""
        return getattr(self.downscaler, "window", None)

    @property
    def _at_once(self) -> int:
        return max(1, min(FIELDS_AT_A_TIME, VALUES_AT_A_TIME // (self.layers * self.fine.size)))

    def blocks(self, times: NDArray[np.datetime64]) -> list[slice]:
        """Return the smallest parts of the times that can be predicted independently, in order."""
        if self.window is None:
            return [slice(i, min(i + self._at_once, len(times))) for i in range(0, len(times), self._at_once)]
        found = []
        for run in consecutive(times):
            first, stop = int(run[0]), int(run[-1]) + 1
            starts = list(range(first, max(stop - self.window, first) + 1, self.window))
            # The last window of a run of consecutive times overlaps the one before, so both belong to one block.
            found += [slice(start, end) for start, end in zip(starts, [*starts[1:], stop], strict=True)]
        return found

    def __call__(self, condition: NDArray[np.float32], times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """Predict the layers of one block. Raises `Diverged` if the prediction is not finite."""
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
        """Yield times as a slice, their batch and, for models over windows, the steps of the window at these times."""
        ids = ((times - np.datetime64(0, "s")) / np.timedelta64(1, "s")).astype(np.int64)
        if self.window is None:
            for start in range(0, len(times), self._at_once):
                rows = slice(start, start + self._at_once)
                batch = self._batch(filled[:, rows].swapaxes(0, 1), ids[rows], self._grids)
                yield rows, batch.map(points=self._points(times[rows])), None
            return
        length = min(self.window, len(times))
        for start in range(0, len(times), length):
            begin = min(start, len(times) - length)
            axis = time_axis(times, begin, length)
            coarse, fine = (grid.with_time(axis) for grid in self._grids)
            part = filled[None, :, begin : begin + length]
            rows = slice(start, min(start + length, len(times)))
            batch = self._batch(part, ids[begin : begin + 1], (coarse, fine))
            points = self._points(times[None, begin : begin + length])
            yield rows, batch.map(points=points), slice(start - begin, length)

    def _points(self, times: NDArray[np.datetime64]) -> Points | None:
        """Return the observations at some times, with cells of the padded field."""
        if self.observations is None:
            return None
        return self.observations.points(times.astype("datetime64[ns]"), self._columns[1])

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
        """Number of coarse and fine columns by which a global field is padded on either side."""
        coarse, fine = self.coarse.axes[-1], self.fine.axes[-1]
        if coarse.period is None or fine.period is None:
            return 0, 0
        common = math.lcm(coarse.size, fine.size)  # equal widths on both grids
        pair = common // fine.size, common // coarse.size
        times = -(-SEAM_CELLS // pair[1])
        return min(pair[0] * times, coarse.size), min(pair[1] * times, fine.size)

    @cached_property
    def _columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Column indices of the padded fields, coarse and fine."""
        pairs = zip((self.coarse, self.fine), self._margin, strict=True)
        return tuple(np.arange(-m, grid.shape[-1] + m) % grid.shape[-1] for grid, m in pairs)  # type: ignore[return-value]

    @cached_property
    def _grids(self) -> tuple[Grid, Grid]:
        """The grids of the padded fields."""
        made = []
        for grid, margin in zip((self.coarse, self.fine), self._margin, strict=True):
            axis = grid.axes[-1]
            if margin:
                axis = replace(axis, start=axis.start - margin * axis.step, size=axis.size + 2 * margin, period=None)
            made.append(Grid((*grid.axes[:-1], axis), grid.crs))
        return made[0], made[1]

    @property
    def _inside(self) -> slice:
        """The columns of the padded fine field without the padding."""
        return slice(self._margin[1], self._margin[1] + self.fine.shape[-1])

    def _seams(self, grids: tuple[Grid, Grid]) -> dict[tuple[int, ...], tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Return noise settings of padded global fields: the padding repeats the noise of the copied columns."""
        found = {}
        for grid, own, columns in zip(grids, (self.coarse, self.fine), self._columns, strict=True):
            whole = (*grid.shape[:-1], own.shape[-1])
            found[grid.shape] = (whole, (*(slice(None) for _ in grid.shape[:-1]), torch.from_numpy(columns)))
        return found  # type: ignore[return-value]

    def _missing(self, condition: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Return the cells with missing coarse rain; None if it is complete."""
        if self.rain is None:
            return None
        missing = np.isnan(condition[self.rain])
        return missing if missing.any() else None

    def _filled(self, condition: NDArray[np.float32], times: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """Return the model's channels with missing values replaced. Raises `DataError` for a gap outside `gaps`."""
        known = np.isfinite(condition)
        for channel, name in enumerate(self.have):
            if name not in self.gaps and not known[channel].all():
                time, *cell = np.argwhere(~known[channel])[0]
                place = ", ".join(f"{a.name} {a.coordinates[i]:g}" for a, i in zip(self.coarse.axes, cell, strict=True))
                raise DataError(
                    f"{name} is {condition[channel, time, *cell]} at {times[time]}, {place} "
                    f"({int((~known[channel]).sum())} such values); the model was trained without missing values in "
                    f"this variable: fill them, or crop the data to an area and times without missing values"
                )
        condition = np.where(known, condition, np.float32(0))
        rows = [
            condition[self.have.index(name)] if name in self.have else known[self.have.index(name.removesuffix(KNOWN))]
            for name in self.channels.condition
        ]
        return np.stack(rows).astype(np.float32)

"""Batches of patches from sources: blocks are read ahead by Dask, patches are cut by numpy, and the state resumes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoml.data.epoch import READ_AHEAD, Epoch
from geoml.data.fields import Batch
from geoml.data.patch_groups import KNOWN, Lane, build_lanes
from geoml.data.patches import PatchSpec
from geoml.data.sources import BlockSource
from geoml.data.workers import PartStream, as_tensors, start_workers
from geoml.errors import DataError, UserError
from geoml.runs.workers import ambient_client

if TYPE_CHECKING:
    from geoml.models.base import Channels

__all__ = ["BlockLoader", "default_resident"]

MANY = 1 << 62


def default_resident(batch_size: int) -> int:
    """Number of blocks kept in memory: twice the batch size, so that items of a batch come from different blocks."""
    return max(8, 2 * batch_size)


class BlockLoader:
    """Iterates over batches (`geoml.data.fields.Batch`) of the samples of sources; one iteration is one epoch.

    - `channels` selects and orders the variables; a condition channel `NAME_known` is 1 where `NAME` is not missing.
    - `patch` None takes whole fields; otherwise `patches_per_sample` random patches a sample, or every place of a
      strided `PatchSpec`. With `window`, that many consecutive time steps form one sample with a time axis.
    - Blocks of `block_samples` (default: whole chunks) are read ahead through Dask, by `client` or the client that
      is active here, else by threads; `resident_blocks` of them are open for shuffling. `workers` processes
      (forkserver) share the blocks; the sequence of batches does not depend on their number.
    - A missing target value is False in `mask` and 0 in `target`. A missing condition or static value is 0 where its
      variable is in `expected_gaps`, and a `DataError` with its place otherwise.
    - `batch_size` counts all ranks together: process `rank` of `world_size` reads its share of the blocks and yields
      its part of each batch, which may be empty. All parts together are the batches of a single process, so
      training does not depend on the number of ranks.
    - `state_dict` counts the batches yielded; after `load_state_dict` the same remaining batches of the epoch follow.

    `transform` maps each finished batch. Items have ids, `sample number × patches a sample + patch`; see `locate`.
    """

    def __init__(
        self,
        sources: Sequence[BlockSource],
        *,
        batch_size: int,
        channels: Channels | None = None,
        patch: PatchSpec | None = None,
        patches_per_sample: int = 1,
        window: int | None = None,
        block_samples: int | None = None,
        resident_blocks: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        expected_gaps: Collection[str] = (),
        workers: int = 0,
        client: Any = None,
        rank: int = 0,
        world_size: int = 1,
        transform: Callable[[Batch], Batch] | None = None,
    ) -> None:
        if not sources:
            raise ValueError("a loader needs at least one source")
        if batch_size < 1 or patches_per_sample < 1 or workers < 0 or not 0 <= rank < world_size:
            raise ValueError(
                f"{batch_size=}, {patches_per_sample=}, {workers=}, {rank=}, {world_size=}; expected batch_size and "
                "patches_per_sample of at least 1, workers of at least 0, and 0 <= rank < world_size"
            )
        if client is not None and workers:
            raise ValueError(
                "client and workers are both given; choose one, because a Dask client serves a single process"
            )
        first = sources[0]
        condition = channels.condition if channels else first.condition
        names = {
            "condition": tuple(c for c in condition if not _is_made(c, condition, first)),
            "target": channels.target if channels and first.target else first.target,
            "static": channels.static if channels else first.static,
        }
        self.sources = [source.narrow(**names) for source in sources]
        lanes = build_lanes(
            self.sources, condition=condition, patch=patch, patches_per_sample=patches_per_sample, window=window,
            block_samples=block_samples, expected_gaps=expected_gaps, seed=seed,
        )  # fmt: skip
        if not lanes:
            raise DataError(
                f"no samples in {', '.join(source.name for source in sources)}; is the window longer than the data?"
            )
        resident = _share_out(resident_blocks or default_resident(batch_size), batch_size, lanes)
        self._epoch = Epoch(lanes, batch_size, resident, seed, shuffle, rank, world_size)
        self.workers, self.transform, self._client = workers, transform, client
        self.batch_size, self.seed = batch_size, seed
        self._cursor = torch.zeros(2, dtype=torch.int64)
        self._stream: PartStream | None = None
        self._processes: torch.utils.data.DataLoader[Any] | None = None

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return sum(len(order) for order in self._epoch.orders(self.epoch))

    @property
    def items(self) -> int:
        """Number of items per epoch over all ranks."""
        return sum(int(lane.counts.sum()) for lane in self._epoch.lanes)

    @property
    def blocks(self) -> int:
        """Number of blocks that hold the samples; blocks are distributed over the processes."""
        return sum(len(lane.spans) for lane in self._epoch.lanes)

    @property
    def epoch(self) -> int:
        return int(self._cursor[0])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; a different epoch starts at its first batch."""
        if epoch != self.epoch:
            self._cursor[0], self._cursor[1] = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The position in the epoch, counted in batches yielded."""
        return {"epoch": self.epoch, "batches": int(self._cursor[1]), "loader": self._fingerprint()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a saved state; a state of other data or settings raises `UserError`."""
        mine = self._fingerprint()
        different = [name for name, value in mine.items() if state["loader"].get(name) != value]
        if different:
            name = different[0]
            raise UserError(
                f"the saved run read its data with {name}={state['loader'].get(name)}, now it is {mine[name]}; "
                "resume with the same data and settings, or start a new run"
            )
        self._cursor[0], self._cursor[1] = state["epoch"], state["batches"]

    def _fingerprint(self) -> dict[str, Any]:
        epoch = self._epoch
        cuts = [[lane.patches, lane.window or 0, *next(iter(lane.placements.values())).size] for lane in epoch.lanes]
        return {
            "patches": cuts,
            "seed": epoch.seed, "batch_size": epoch.batch_size, "items": self.items, "shuffle": epoch.shuffle,
            "blocks": self.blocks, "resident_blocks": sum(epoch.resident),
        }  # fmt: skip

    def memory_bytes(self) -> int:
        """Upper limit of the memory of blocks, static fields and queued batches in all processes."""
        epoch, total = self._epoch, 0
        for lane, resident in zip(epoch.lanes, epoch.resident, strict=True):
            blocks = min(len(lane.spans), resident + READ_AHEAD * max(1, self.workers))
            static = sum(4 * len(s.static) * s.target_grid.size for s in lane.sources.values()) * max(1, self.workers)
            waiting = 2 + (2 * self.workers if self.workers else 0)
            total += blocks * lane.block_bytes + static + waiting * lane.item_bytes * epoch.batch_size
        return total

    def locate(self, item_id: int) -> tuple[int, int, int]:
        """`(source number, index on its sample axis, patch number)` of an item's id."""
        for lane in self._epoch.lanes:
            for span in lane.spans:
                item = item_id - span.first_id
                if 0 <= item < len(span.begins) * lane.patches:
                    return span.source, int(span.begins[item // lane.patches]), item % lane.patches
        raise KeyError(f"no item {item_id}")

    def planned_ids(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """The item ids of an epoch's batches, in order, without reading any data."""
        return self._epoch.ids(epoch)

    def __iter__(self) -> Iterator[Batch]:
        start = int(self._cursor[1])
        parts = self._from_processes() if self.workers else self._from_here(start)
        for batch in parts:
            self._cursor[1] += 1
            batch = self.transform(batch) if self.transform else batch
            yield batch
        self._cursor[1] = 0

    def _from_here(self, skip: int) -> Iterator[Batch]:
        client = self._client if self._client is not None else ambient_client()
        for part in self._epoch.parts(self.epoch, skip, client=client):
            yield self._assemble([as_tensors(part)])

    def _from_processes(self) -> Iterator[Batch]:
        if self._stream is None:
            self._stream = PartStream(self._epoch, self._cursor.clone().share_memory_())
            self._processes = start_workers(self._stream, self.workers)
        self._stream.cursor.copy_(self._cursor)
        assert self._processes is not None
        parts: list[Any] = []
        try:
            for number, part in enumerate(self._processes):
                if isinstance(part, str):
                    self._stream = None
                    raise DataError(part)
                parts.append(part)
                if (number + 1) % self.workers == 0:
                    yield self._assemble(parts)
                    parts = []
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):  # the consumer of the batches may raise one, too
                raise
            self._stream = self._processes = None
            raise UserError(
                f"a reading process ended unexpectedly, perhaps for lack of memory; each of {self.workers} may "
                f"hold {self.memory_bytes() / 1e6:.0f} MB. Run the same command again with fewer workers, or with none"
            ) from error

    def _assemble(self, parts: list[Any]) -> Batch:
        """Combine the parts of a batch, with items in their original order."""
        parts = sorted(parts, key=lambda part: int(part[0]["order"][0]) if len(part[0]["order"]) else MANY)
        fields, grids = parts[0]
        if len(parts) > 1:
            places = torch.cat([tensors["order"] for tensors, _ in parts]).argsort().argsort()
            shares = places.split([len(tensors["order"]) for tensors, _ in parts])
            fields = {}
            for name, first in parts[0][0].items():
                if first is None:
                    fields[name] = None
                    continue
                fields[name] = first.new_empty((len(places), *first.shape[1:]))
                for (tensors, _), share in zip(parts, shares, strict=True):
                    fields[name][share] = tensors[name]
        return Batch(
            fields["condition"], grids[0], grids[1], fields["target"], fields["static"], fields["mask"],
            tuple(fields["ids"].tolist()),
        )  # fmt: skip


def _is_made(name: str, condition: Sequence[str], source: BlockSource) -> bool:
    """Return whether the loader makes this channel (`NAME_known`) from the missing values of the channel `NAME`."""
    return name.endswith(KNOWN) and name not in source.condition and name.removesuffix(KNOWN) in condition


def _share_out(resident: int, batch_size: int, lanes: Sequence[Lane]) -> list[int]:
    """Number of resident blocks of each group: in proportion to its blocks, and enough for a batch."""
    blocks = sum(len(lane.spans) for lane in lanes)
    shares = [max(min(batch_size, resident), round(resident * len(lane.spans) / blocks)) for lane in lanes]
    return [min(share, len(lane.spans)) for share, lane in zip(shares, lanes, strict=True)]

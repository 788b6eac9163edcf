"""Worker processes that read and cut their share of the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from geoml.data.epoch import Epoch
from geoml.data.patch_groups import Part
from geoml.errors import UserError

__all__ = ["PartStream", "as_tensors", "start_workers"]


class PartStream(torch.utils.data.IterableDataset):
    """One worker's parts, for torch's worker processes; `cursor` (epoch, batches to skip) is shared with the parent."""

    def __init__(self, epoch: Epoch, cursor: torch.Tensor) -> None:
        self.epoch, self.cursor = epoch, cursor

    def __iter__(self) -> Iterator[Part | str]:
        info = torch.utils.data.get_worker_info()
        assert info is not None
        torch.set_num_threads(1)
        epoch, skip = self.cursor.tolist()
        try:
            for part in self.epoch.parts(epoch, skip, worker=info.id, workers=info.num_workers):
                yield as_tensors(part)
        except UserError as error:  # torch would wrap it in a traceback
            yield f"{error}"


def as_tensors(part: Part) -> Any:
    """The part with its arrays as tensors, which torch hands over through shared memory."""
    fields = {name: getattr(part, name) for name in ("order", "ids", "condition", "target", "mask", "static")}
    tensors = {name: None if value is None else torch.from_numpy(value) for name, value in fields.items()}
    return tensors, part.grids


def start_workers(stream: PartStream, workers: int) -> torch.utils.data.DataLoader[Any]:
    """Start worker processes that yield the parts of every batch in turn; they stay alive between epochs.

    They are started by forkserver, because a forked child of a process with open stores and threads can hang.
    """
    return torch.utils.data.DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2,
        collate_fn=_unchanged,
        multiprocessing_context="forkserver",
        persistent_workers=True,
    )


def _unchanged(part: Any) -> Any:
    return part

"""TensorBoard curves in addition to the rows of `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.errors import UserError
from geoml.runs.folder import RunFolder, launched_rank

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from geoml.train.loop import MetricsSink

__all__ = ["TensorBoardLog", "log_of"]


def log_of(run: RunFolder, *, tensorboard: bool) -> MetricsSink:
    """The log of a run's training; with `tensorboard` rows are also written as TensorBoard events.

    Only the first of several processes writes events.
    """
    if not tensorboard or launched_rank():
        return run.metrics
    return TensorBoardLog(run.metrics, run.path / "tensorboard")


class TensorBoardLog:
    """A log that also writes events: every number of a row is a point at its `samples`.

    `tensorboard --logdir FOLDER` shows them. Points of a killed run after the checkpoint from which it resumed
    are hidden. Raises `UserError` if TensorBoard is not installed.
    """

    def __init__(self, log: MetricsSink, folder: Path) -> None:
        self.log, self.folder = log, folder
        self._writer = self._open()

    def _open(self, purge_step: int | None = None) -> SummaryWriter:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("TensorBoard is not installed; pip install 'geoml[launch]' installs it") from error
        return SummaryWriter(str(self.folder), purge_step=purge_step, flush_secs=10)

    def append(self, row: Mapping[str, Any], /) -> None:
        """Add one row to the log and to the TensorBoard events."""
        self.log.append(row)
        for name, value in row.items():
            if name != "samples" and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(name, value, int(row.get("samples", 0)))
        self._writer.flush()

    def keep_until(self, samples: int) -> None:
        """Drop rows and points with more than this number of samples."""
        self.log.keep_until(samples)
        self._writer.close()
        self._writer = self._open(purge_step=samples + 1)

"""Delay Ctrl-C and SIGTERM until a training step is complete."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupt"]

logger = logging.getLogger(__name__)


class Interrupt:
    """Within the block the first signal only sets `came`; a second signal raises `KeyboardInterrupt` immediately.

    An interrupted step would leave weights and counters inconsistent. Outside the main thread, where Python does not
    allow handlers, signals are not changed.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.came = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
        logger.warning("stopping after this step with a checkpoint; repeat to stop immediately")

"""Progress bars: description, progress, speed, time left."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Bar", "duration", "progress_bar", "track"]

#: Seconds between lines of progress if standard error is not a terminal.
EVERY_S = 15.0

T = TypeVar("T")


class Bar(Protocol):
    """A progress bar."""

    def advance(self, amount: float = 1.0, *, note: str = "") -> None:
        """Advance by `amount` units; `note` replaces the text at the end of the line."""


@contextlib.contextmanager
def progress_bar(description: str, total: float | None, *, unit: str = "it") -> Iterator[Bar]:
    """A bar on standard error with speed and time left, or lines of text if standard error is not a terminal.

    A line is printed every `EVERY_S` seconds, even while a single unit runs. Shorter work prints nothing.
    """
    shown = _terminal_bar if sys.stderr.isatty() else _lines
    with shown(description, total, unit) as bar:
        yield bar


@contextlib.contextmanager
def _terminal_bar(description: str, total: float | None, unit: str) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(TextColumn):
        def __init__(self) -> None:
            super().__init__("")

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g} {unit}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}" if total is not None else "{task.completed:.0f}"),
        Speed(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total, note="")

        class Shown:
            def advance(self, amount: float = 1.0, *, note: str = "") -> None:
                progress.update(task, advance=amount, note=note)

        yield Shown()


class _Counted:
    """The state of a progress line."""

    def __init__(self, description: str, total: float | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done, self.note, self.begun = 0.0, "", time.monotonic()

    def advance(self, amount: float = 1.0, *, note: str = "") -> None:
        self.done, self.note = self.done + amount, note

    def __str__(self) -> str:
        seconds = time.monotonic() - self.begun
        of = f"/{self.total:.0f}" if self.total is not None else ""
        parts = [f"{self.description} {self.done:.0f}{of} {self.unit}", f"{duration(seconds)} so far"]
        if self.done and self.total is not None:
            parts.append(f"{duration(seconds / self.done * max(self.total - self.done, 0))} left")
        return ", ".join([*parts, *filter(None, [self.note])])


#: Active bars of this process, outermost first; the outermost prints for all.
_running: list[_Counted] = []


@contextlib.contextmanager
def _lines(description: str, total: float | None, unit: str) -> Iterator[Bar]:
    bar, finished = _Counted(description, total, unit), threading.Event()
    _running.append(bar)

    def report() -> None:
        while not finished.wait(EVERY_S):
            with contextlib.suppress(OSError, ValueError):  # standard error was closed
                print("; ".join(map(str, list(_running))), file=sys.stderr, flush=True)

    outermost = len(_running) == 1
    if outermost:
        threading.Thread(target=report, name="progress", daemon=True).start()
    try:
        yield bar
    finally:
        finished.set()
        _running.remove(bar)


def duration(seconds: float) -> str:
    """A duration as text.

    >>> duration(7), duration(75), duration(7300)
    ('7 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def track(items: Iterable[T], description: str, *, total: float | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate over items with a progress bar."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with progress_bar(description, total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()

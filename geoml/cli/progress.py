"""One look for every progress bar: what, how far, how fast, how long still."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Bar", "progress_bar", "track"]

T = TypeVar("T")


class Bar(Protocol):
    """A running bar."""

    def advance(self, amount: float = 1.0, *, note: str = "") -> None:
        """Move on by `amount` units; `note` replaces the text at the end of the line."""


@contextlib.contextmanager
def progress_bar(description: str, total: float | None, *, unit: str = "it") -> Iterator[Bar]:
    """A bar on standard error with units per second and time left; silent where that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(TextColumn):
        def __init__(self) -> None:
            super().__init__("")

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g} {unit}/s" if task.speed else "")

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}" if total is not None else "{task.completed:.0f}"),
        Speed(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(description, total=total, note="")

        class _Bar:
            def advance(self, amount: float = 1.0, *, note: str = "") -> None:
                progress.update(task, advance=amount, note=note)

        yield _Bar()


def track(items: Iterable[T], description: str, *, total: float | None = None, unit: str = "it") -> Iterator[T]:
    """The items, one by one, behind a progress bar."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with progress_bar(description, total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()

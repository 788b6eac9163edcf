"""Run the cells of a benchmark in this process or on Dask workers; each result is cached, each failure recorded."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from geoml.cli.progress import track
from geoml.errors import Diverged
from geoml.runs.environment import code_hash
from geoml.runs.folder import config_hash
from geoml.runs.workers import ambient_client, spread

__all__ = ["Saved", "attempted", "each", "kept", "scores_file"]

logger = logging.getLogger(__name__)

Job = tuple[Any, ...]


class Saved(Protocol):
    """Scores that can be written to a file."""

    def save(self, path: Path) -> None:
        """Write the file, atomically."""


S = TypeVar("S", bound=Saved)


def each(
    benchmark: Any, method: str, jobs: Sequence[Job], *, unit: str, config: Mapping[str, Any]
) -> Iterator[tuple[Job, Callable[[], Any]]]:
    """Call `method` of a benchmark on every job and yield `(job, result)`; the workers of an active Dask client help.

    `result()` returns the value or raises the job's error. Without a client, jobs run here, one after the other. Each
    worker builds the benchmark again by `type(benchmark)(config)` and needs access to its cache folder.
    """
    client = ambient_client()
    if client is None:
        for job in track(jobs, unit, unit=unit):
            yield job, functools.partial(getattr(benchmark, method), *job)
        return
    done = spread(_work, [(type(benchmark), dict(config), method, *job) for job in jobs], client=client)
    for arguments, result in track(done, unit, total=len(jobs), unit=unit):
        yield tuple(arguments[3:]), result


def _work(kind: type, config: dict[str, Any], method: str, *job: Any) -> Any:
    """Run one job on a worker."""
    return getattr(kind(config), method)(*job)


def attempted(
    results: Iterable[tuple[Job, Callable[[], Any]]],
    failures: dict[str, str],
    label: Callable[..., str],
    *,
    failing: tuple[type[Exception], ...] = (Diverged,),
) -> Iterator[tuple[Job, Any]]:
    """Yield `(job, value)` of jobs that succeed; store the error messages of failed jobs in `failures` by label.

    Only exceptions of the types `failing` are stored, and the other jobs continue. Other exceptions are raised.
    """
    for job, result in results:
        try:
            value = result()
        except failing as error:
            failures[label(*job)] = str(error)
            logger.warning("%s failed: %s", label(*job), error)
            continue
        yield job, value


def scores_file(cache: Path, name: str, spec: Mapping[str, Any], scored_by: Sequence[str]) -> Path:
    """Path of a cell's scores, with a hash of `spec` and of the code of the modules `scored_by` in its name."""
    return cache / "scores" / f"{name}-{config_hash({**spec, 'code': code_hash(*scored_by)})}.nc"


def kept(path: Path, load: Callable[[Path], S], make: Callable[[], S]) -> S:
    """Load the scores from `path`; if the file does not exist, compute and save them first."""
    if path.exists():
        return load(path)
    made = make()
    made.save(path)
    return made

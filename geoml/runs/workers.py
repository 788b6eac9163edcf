"""Run jobs on the workers of an active Dask client; all workers must have the same code as this process."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from geoml.errors import UserError

__all__ = ["ambient_client", "spread"]

T = TypeVar("T")


def ambient_client() -> Any:
    """The active Dask client of this process, or None; never starts one.

    Also None within a task of a Dask worker: a task that waits for other tasks would block the worker that runs them.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        distributed.get_worker()
    except ValueError:
        pass
    else:
        return None
    try:
        return distributed.get_client()
    except ValueError:
        return None


def spread(
    function: Callable[..., T], jobs: Iterable[Sequence[Any]], *, client: Any, ahead: int | None = None
) -> Iterator[tuple[Sequence[Any], Callable[[], T]]]:
    """Run `function(*job)` on Dask workers and yield `(job, result)` as jobs finish; `result()` returns or raises.

    At most `ahead` jobs (four per worker) run or wait at a time. Jobs of a worker that dies are repeated by
    another worker. A job that has killed several workers raises `UserError`, as does a worker with another installation
    than this process or without its working folder.
    """
    from distributed import as_completed

    pending, jobs_of, folder = iter(jobs), {}, os.getcwd()
    _check_workers(client)

    def submit(count: int) -> list[Any]:
        fresh = {
            client.submit(_run, installed(), folder, function, *job, pure=False): job
            for job in itertools.islice(pending, count)
        }
        jobs_of.update({future.key: job for future, job in fresh.items()})
        return list(fresh)

    width = ahead or 4 * max(1, len(client.nthreads()))
    finished = as_completed(submit(width), loop=client.loop)
    for future in finished:
        yield jobs_of.pop(future.key), functools.partial(_result, future)
        for more in submit(1):
            finished.add(more)


@functools.cache
def installed() -> str:
    """Description of this process's installation: version, hash of the code, Python version."""
    import geoml

    digest = hashlib.sha256()
    for package in ("geoml", "rainshift", "radiomaps"):
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for file in sorted(Path(folder).rglob("*.py")):
                digest.update(file.read_bytes())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"geoml {geoml.__version__} (code {digest.hexdigest()[:12]}, Python {python})"


def _check_workers(client: Any) -> None:
    """Raise `UserError` for workers with another installation; `_run` checks workers that join later."""
    for address, found in client.run(installed, on_error="return").items():
        if isinstance(found, Exception):
            raise UserError(
                f"the Dask worker {address} cannot load geoml ({found}); install {installed()} where it runs, and "
                "start it again"
            ) from found
        _require(installed(), found, address)


def _require(expected: str, found: str, address: str) -> None:
    if found != expected:
        raise UserError(
            f"the Dask worker {address} runs {found}, and this process {expected}; install the same there, and start "
            "the worker again"
        )


def _run(expected: str, folder: str, function: Callable[..., T], *job: Any) -> T:
    """Run one job on a worker, in the working folder of the calling process, because paths may be relative to it.

    The worker stays there, because another thread of it may be at work on the next job.
    """
    from distributed import get_worker

    address = get_worker().address
    _require(expected, installed(), address)
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(
            f"the Dask worker {address} cannot enter {folder} ({error.strerror}); workers need the file system of the "
            "process that gives them work"
        ) from error
    return function(*job)


def _result(future: Any) -> Any:
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise UserError(
            f"{error.allowed_failures + 1} Dask workers died on the same job; give them more memory, or start fewer"
        ) from error

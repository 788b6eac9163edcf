"""Read files in separate processes with limits of memory and time, so that no file can harm the server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from geoml.errors import DataError, UserError
from mcp_experts.channels.channel import Channel
from mcp_experts.channels.opening import Opened
from mcp_experts.serve.reading_process import FRAME, MOST_S, READY

__all__ = ["ALONE", "READ_AT_ONCE", "Readers", "search_path"]

#: Largest number of files read at once. Time limits in s: wait for a free process, its start, and its idle time.
READ_AT_ONCE = 2
WAIT_S, START_S, KEPT_S = 30.0, 20.0, 60.0
MOST_HEAD, MOST_BODY = 1 << 16, 1 << 25
#: Code of the process: it takes the search path of this process, without its working folder.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from mcp_experts.serve.reading_process import main; main(int(sys.argv[1]))"
)
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def search_path() -> list[str]:
    """The search path of this process, without its working folder, for a process that it starts."""
    return [os.path.abspath(entry) for entry in sys.path if entry]


class _Process:
    """A reading process and the connection to it."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(theirs.fileno()), json.dumps(search_path())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | ALONE,
            )
        self.started = False

    def ask(self, request: Mapping[str, Any], descriptors: list[int]) -> tuple[dict[str, Any], bytes]:
        """Send a request and return the answer; `TimeoutError`, `OSError` or `ValueError` if there is none in time."""
        if not self.started:
            self.started = self._receive(len(READY), time.monotonic() + START_S) == READY
        until = time.monotonic() + MOST_S
        self._connection.settimeout(MOST_S)
        socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
        head, body = FRAME.unpack(self._receive(FRAME.size, until))
        if head > MOST_HEAD or body > MOST_BODY:
            raise ValueError("the answer is too long")
        return json.loads(self._receive(head, until)), self._receive(body, until)

    def _receive(self, count: int, until: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._connection.settimeout(left)
            part = self._connection.recv(min(count - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)


class Readers:
    """Pool of reading processes, started on demand and ended after a minute without work. Thread-safe.

    `options` are import options for channel files; by default those in the folder of a file apply.
    """

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._options = dict(options or {})
        self._room = threading.Semaphore(READ_AT_ONCE)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._timer: threading.Timer | None = None
        self._closed = False

    def channel(self, opened: Opened, index: int) -> Channel | dict[str, Any]:
        """The channel of an open file, or the extent of a radio map."""
        head, body = self._ask(opened, {"index": index, "size": opened.size, "options": self._options})
        if "map" in head:
            found: dict[str, Any] = head["map"]
            return found
        shape = tuple(int(size) for size in head["shape"])
        return Channel(
            csi=np.frombuffer(body, np.complex64).reshape(shape),
            subcarrier_spacing_hz=float(head["subcarrier_spacing_hz"]),
            snapshot_interval_s=float(head["snapshot_interval_s"]),
        )

    def point(self, opened: Opened, **point: float) -> dict[str, Any]:
        """Values of a radio map at a point."""
        found: dict[str, Any] = self._ask(opened, {"point": point})[0]["point"]
        return found

    def survey(self, opened: Opened, **place: Any) -> dict[str, Any]:
        """Coverage of a route or area of a radio map."""
        found: dict[str, Any] = self._ask(opened, {"survey": place})[0]["survey"]
        return found

    def close(self) -> None:
        """End all processes; reads in progress fail."""
        with self._lock:
            self._closed = True
            ended = [*self._idle, *self._busy]
            self._idle.clear()
            if self._timer is not None:
                self._timer.cancel()
        for process in ended:
            process.kill()

    def _ask(self, opened: Opened, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        name = opened.name.rpartition("/")[2]
        if not self._room.acquire(timeout=WAIT_S):
            raise UserError("other files are being read; ask again in a moment")
        try:
            process = self._take()
            try:
                head, body = process.ask({"name": name, **request}, [opened.descriptor, opened.folder])
            except TimeoutError:
                self._discard(process)
                raise DataError(f"reading {name} takes more than {MOST_S} s; split it into parts") from None
            except (OSError, EOFError, ValueError):
                self._discard(process)
                if not process.started:
                    raise DataError(f"the process to read {name} did not start") from None
                raise DataError(f"reading {name} exceeds the memory limit or crashes a library") from None
            self._return(process)
        finally:
            self._room.release()
        if "error" in head:
            raise DataError(str(head["error"]))
        return head, body

    def _take(self) -> _Process:
        with self._lock:
            if self._closed:
                raise UserError("the server is shutting down")
            process = self._idle.pop() if self._idle else _Process()
            self._busy.add(process)
        return process

    def _return(self, process: _Process) -> None:
        with self._lock:
            self._busy.discard(process)
            if self._closed:
                process.kill()
                return
            self._idle.append(process)
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(KEPT_S, self._end_idle)
            self._timer.daemon = True
            self._timer.start()

    def _discard(self, process: _Process) -> None:
        with self._lock:
            self._busy.discard(process)
        process.kill()

    def _end_idle(self) -> None:
        with self._lock:
            ended, self._idle = self._idle, []
        for process in ended:
            process.kill()

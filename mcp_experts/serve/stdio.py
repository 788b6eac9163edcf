"""Stdio transport: every request is answered, signals end the server, and memory is bounded for any input.

The SDK's transport drops invalid lines, ignores Ctrl-C while it reads, reads lines of any length, and ends if an answer
cannot be encoded. This transport runs the same server (`MCPServer._lowlevel_server`, the only private name used here)
on streams without these limitations.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server import MCPServer
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCRequest
from mcp_types import JSONRPCNotification as Notification
from mcp_types import JSONRPCResponse as Response

from geoml.errors import UserError
from mcp_experts.serve.frames import Messages, Refused, find_id, parse, without_surrogates

__all__ = ["serve_stdio"]

LOG = logging.getLogger(__name__)
#: Largest line in bytes, equal to the limit of a body over HTTP; bytes of a longer line that are skipped before the
#: server ends.
MOST_LINE, MOST_SKIPPED = 1 << 20, 1 << 24
#: Largest number of requests in progress; the next line is read after one is answered.
MOST_PENDING = 64
#: Time limits, in s, for a client to read an answer, and for the remaining answers after the input has ended.
STALLED_S, LAST_S = 30.0, 5.0
#: Bytes that a writable pipe accepts atomically (PIPE_BUF).
AT_ONCE = 4096
BATCHES = "2025-03-26"


def serve_stdio(server: MCPServer, *, closing: Callable[[], None] = lambda: None) -> int:
    """Serve one client on standard input and output until it disconnects, and return the exit code.

    Meanwhile other output goes to standard error. SIGINT ends with exit code 130. SIGTERM calls `closing` and then ends
    the process by the signal.
    """
    source, sink = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    connection = _Connection(server, source, sink, closing)
    try:
        anyio.run(connection.run)
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as group:
        stalled, others = group.split(UserError)
        _, others = others.split(BrokenPipeError) if others else (None, None)  # the client has disconnected
        if others is not None:
            raise others from None
        if stalled is not None:
            LOG.error("%s", next(iter(stalled.exceptions)))
            return 1
    finally:
        closing()
    if connection.ended_by == signal.SIGINT:
        return 130
    if connection.ended_by == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return 0


class _Room:
    """Counter of messages in progress; the reading thread waits at the limit."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()

    def take(self) -> None:
        """Wait for room, then count one message."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken < MOST_PENDING)
            self._taken += 1

    def add(self, count: int) -> None:
        """Change the count without waiting."""
        with self._changed:
            self._taken += count
            self._changed.notify()


class _Connection:
    """Connection to one client: reads in a separate thread, answers in order of completion."""

    def __init__(self, server: MCPServer, source: int, sink: int, closing: Callable[[], None]) -> None:
        self._server, self._source, self._sink, self._closing = server, source, sink, closing
        self._room = _Room()
        self._pending: Counter[Any] = Counter()
        self._batches: list[_Answers] = []
        self._version = ""
        self.ended_by: signal.Signals | None = None
        self._writing = anyio.Lock()

    async def run(self) -> None:
        """Serve until the input ends or SIGTERM arrives."""
        loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._answered = asyncio.Event()
        threading.Thread(target=self._read, args=(loop,), daemon=True).start()
        to_server, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, from_server = anyio.create_memory_object_stream[SessionMessage](0)
        core = self._server._lowlevel_server
        async with anyio.create_task_group() as tasks:

            def end(ended_by: signal.Signals) -> None:
                self.ended_by = ended_by
                self._closing()  # first, since a thread that waits for a file cannot be cancelled
                tasks.cancel_scope.cancel()

            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    loop.add_signal_handler(number, end, number)
            tasks.start_soon(self._receive, to_server)
            tasks.start_soon(self._send, from_server)
            await core.run(incoming, outgoing, core.create_initialization_options())
            tasks.cancel_scope.cancel()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read lines of the input, in a thread; a line that is too long is truncated."""
        held = bytearray()
        skipped = 0
        with contextlib.suppress(RuntimeError, OSError):  # the loop or the input is closed
            while chunk := os.read(self._source, 1 << 16):
                *complete, rest = chunk.split(b"\n")
                for part in complete:
                    line = bytes(held + part[: MOST_LINE + 1 - len(held)])
                    held.clear()
                    skipped = 0
                    if line.strip():
                        self._room.take()
                        loop.call_soon_threadsafe(self._lines.put_nowait, line)
                taken = rest[: MOST_LINE + 1 - len(held)]
                held += taken
                skipped += len(rest) - len(taken)
                if skipped > MOST_SKIPPED:
                    break
            if held.strip():
                self._room.take()
                loop.call_soon_threadsafe(self._lines.put_nowait, bytes(held))
            loop.call_soon_threadsafe(self._lines.put_nowait, None)

    async def _receive(self, to_server: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Pass messages to the server and answer invalid lines; after the last, wait for the remaining answers."""
        async with to_server:
            while (line := await self._lines.get()) is not None:
                if len(line) > MOST_LINE:
                    what = f"a line of more than {MOST_LINE} bytes; write large channels to a file"
                    found: JSONRPCMessage | Messages | Refused = Refused(INVALID_REQUEST, what, find_id(line))
                else:
                    found = parse(line)
                if isinstance(found, Messages) and self._version != BATCHES:
                    found = Refused(INVALID_REQUEST, f"batches belong to protocol version {BATCHES}")
                if isinstance(found, Messages):
                    self._batches.append(_Answers(found))
                parts = found.parts if isinstance(found, Messages) else (found,)
                self._room.add(len(parts) - 1)
                for part in parts:
                    await self._take(part, to_server)
            with anyio.move_on_after(LAST_S):
                while self._pending:
                    self._answered.clear()
                    await self._answered.wait()
            self._closing()

    async def _take(
        self, part: JSONRPCMessage | Refused, to_server: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        if isinstance(part, Refused):
            await self._answer(JSONRPCError(jsonrpc="2.0", id=part.identifier, error=_error(part)))
            self._room.add(-1)
            return
        if isinstance(part, JSONRPCRequest):
            self._pending[part.id] += 1
        await to_server.send(SessionMessage(part))
        if isinstance(part, JSONRPCRequest):
            return
        self._room.add(-1)
        if isinstance(part, Notification) and part.method == "notifications/cancelled":
            self._settle((part.params or {}).get("requestId"))

    def _settle(self, identifier: Any) -> None:
        """Remove an answered or cancelled request from the count of messages in progress."""
        if isinstance(identifier, int | str) and self._pending[identifier] > 0:
            self._room.add(-1)
            self._pending[identifier] -= 1
        if self._pending[identifier] <= 0:
            del self._pending[identifier]
        self._answered.set()

    async def _send(self, from_server: MemoryObjectReceiveStream[SessionMessage]) -> None:
        async with from_server:
            async for item in from_server:
                message = item.message
                if isinstance(message, Response) and "protocolVersion" in message.result:
                    self._version = str(message.result["protocolVersion"])
                await self._answer(message)
                if isinstance(message, Response | JSONRPCError):
                    self._settle(message.id)

    async def _answer(self, message: JSONRPCMessage) -> None:
        """Write a message, or hold it until its batch is complete."""
        text = _encoded(message)
        if isinstance(message, Response | JSONRPCError):
            batch = next((batch for batch in self._batches if batch.awaits(message.id)), None)
            if batch is not None:
                if not batch.add(message.id, text):
                    return
                self._batches.remove(batch)
                text = batch.text
        async with self._writing:
            await self._write(text + b"\n")

    async def _write(self, data: bytes) -> None:
        if len(data) <= AT_ONCE and select.select([], [self._sink], [], 0)[1]:
            os.write(self._sink, data)
            return
        done = asyncio.get_running_loop().create_future()
        threading.Thread(target=_write_all, args=(self._sink, data, done), daemon=True).start()
        try:
            async with asyncio.timeout(STALLED_S):
                await done
        except TimeoutError:
            raise UserError(f"the client has read nothing for {STALLED_S:g} s; ended") from None


class _Answers:
    """Answers to a batch, collected until it is complete."""

    def __init__(self, batch: Messages) -> None:
        self._due = Counter(
            part.identifier if isinstance(part, Refused) else part.id
            for part in batch.parts
            if isinstance(part, Refused | JSONRPCRequest)
        )
        self._texts: list[bytes] = []

    def awaits(self, identifier: Any) -> bool:
        """Return True if an answer with this id belongs to the batch."""
        return self._due[identifier] > 0

    def add(self, identifier: Any, text: bytes) -> bool:
        """Add an answer and return whether the batch is complete."""
        self._due[identifier] -= 1
        self._texts.append(text)
        return not any(self._due.values())

    @property
    def text(self) -> bytes:
        """All answers as one array."""
        return b"[" + b",".join(self._texts) + b"]"


def _write_all(sink: int, data: bytes, done: asyncio.Future[None]) -> None:
    left = memoryview(data)
    error: OSError | None = None
    try:
        while left:
            left = left[os.write(sink, left) :]
    except OSError as caught:
        error = caught

    def finish() -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(None)

    with contextlib.suppress(RuntimeError):
        done.get_loop().call_soon_threadsafe(finish)


def _error(refused: Refused) -> ErrorData:
    return ErrorData(code=refused.code, message=without_surrogates(refused.message))


def _encoded(message: JSONRPCMessage) -> bytes:
    """The message as JSON; a message that cannot be encoded becomes an error response."""
    try:
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
    except ValueError:
        LOG.error("an answer could not be encoded")
        error = ErrorData(code=INTERNAL_ERROR, message="the answer could not be encoded")
        identifier = message.id if isinstance(message, Response | JSONRPCError) else None
        text = JSONRPCError(jsonrpc="2.0", id=identifier, error=error).model_dump_json(by_alias=True)
    return text.encode()

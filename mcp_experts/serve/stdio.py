"""The stdio transport: every request is answered, signals end it, and memory is bounded whatever the client does.

The SDK's own transport drops lines that are no messages, ignores Ctrl-C while it reads, reads lines of any length, and
ends when an answer cannot be encoded. This one hands the same server (`MCPServer._lowlevel_server`, the one private
name used here) streams that do none of that.
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
#: Bytes of a line, as of a request's body over HTTP; and of a longer one that are skipped before the server gives up.
MOST_LINE, MOST_SKIPPED = 1 << 20, 1 << 24
#: Requests at work at once: the next line is not read before one is answered.
MOST_PENDING = 64
#: Seconds in which a client has to read an answer, and in which requests are still answered after the input has ended.
STALLED_S, LAST_S = 30.0, 5.0
#: Bytes that a pipe with room takes at once (PIPE_BUF).
AT_ONCE = 4096
BATCHES = "2025-03-26"


def serve_stdio(server: MCPServer, *, closing: Callable[[], None] = lambda: None) -> int:
    """Serve one client on standard input and output until it goes away; the exit code.

    Meanwhile whatever else prints goes to standard error. SIGINT ends with 130; SIGTERM ends the process as that
    signal does, after `closing`.
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
        _, others = others.split(BrokenPipeError) if others else (None, None)  # the client has gone
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
    """How many messages are at work; the reading thread waits while there are too many."""

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()

    def take(self) -> None:
        """Count one more as soon as there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken < MOST_PENDING)
            self._taken += 1

    def add(self, count: int) -> None:
        """Count so many more, or fewer, at once."""
        with self._changed:
            self._taken += count
            self._changed.notify()


class _Connection:
    """One client: reads in a thread of its own, answers in order of completion."""

    def __init__(self, server: MCPServer, source: int, sink: int, closing: Callable[[], None]) -> None:
        self._server, self._source, self._sink, self._closing = server, source, sink, closing
        self._room = _Room()
        self._pending: Counter[Any] = Counter()
        self._batches: list[_Answers] = []
        self._version = ""
        self.ended_by: signal.Signals | None = None
        self._writing = anyio.Lock()

    async def run(self) -> None:
        """Serve until the input ends, or SIGTERM."""
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
                self._closing()  # first: a thread that waits for a file cannot be cancelled
                tasks.cancel_scope.cancel()

            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    loop.add_signal_handler(number, end, number)
            tasks.start_soon(self._receive, to_server)
            tasks.start_soon(self._send, from_server)
            await core.run(incoming, outgoing, core.create_initialization_options())
            tasks.cancel_scope.cancel()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lines of the input, in a thread: one that is too long comes cut, with its end left out."""
        held = bytearray()
        skipped = 0
        with contextlib.suppress(RuntimeError, OSError):  # the loop has gone, or the input
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
        """Give messages to the server and answer what is none; after the last wait for the answers due."""
        async with to_server:
            while (line := await self._lines.get()) is not None:
                if len(line) > MOST_LINE:
                    what = f"a line of more than {MOST_LINE} bytes; put large channels into a file"
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
        """A request is answered, or needs no answer any more: there is room for another."""
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
        """Write a message, or keep it until the others of its batch are there."""
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
    """The answers to a batch, until all are there."""

    def __init__(self, batch: Messages) -> None:
        self._due = Counter(
            part.identifier if isinstance(part, Refused) else part.id
            for part in batch.parts
            if isinstance(part, Refused | JSONRPCRequest)
        )
        self._texts: list[bytes] = []

    def awaits(self, identifier: Any) -> bool:
        """Whether an answer of this id belongs to the batch."""
        return self._due[identifier] > 0

    def add(self, identifier: Any, text: bytes) -> bool:
        """Take an answer; whether it was the last."""
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
    """The message as JSON; what cannot be encoded becomes an error, and never the end of the server."""
    try:
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
    except ValueError:
        LOG.error("an answer could not be encoded")
        error = ErrorData(code=INTERNAL_ERROR, message="the answer could not be encoded")
        identifier = message.id if isinstance(message, Response | JSONRPCError) else None
        text = JSONRPCError(jsonrpc="2.0", id=identifier, error=error).model_dump_json(by_alias=True)
    return text.encode()

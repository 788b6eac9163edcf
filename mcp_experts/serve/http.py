"""Streamable HTTP: loopback unless hosts and tokens are given; limits on body size and time."""

from __future__ import annotations

import asyncio
import codecs
import collections
import contextlib
import errno
import hashlib
import hmac
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import INVALID_REQUEST
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from geoml.errors import UserError
from mcp_experts.serve.frames import Messages, Refused, parse
from mcp_experts.serve.guard import Guard, host_name, normal_origin
from mcp_experts.serve.server import ExpertServer, build_server

__all__ = ["Binding", "Tokens", "http_app", "listen", "serve_http"]

TOKEN_VARIABLE = "MCP_EXPERTS_TOKEN"
LEAST_TOKEN = 16
BODY_BYTES = 1 << 20
#: Time limits, in s, for the head of a request, for its body, and between requests.
HEAD_S, BODY_S, IDLE_S = 10.0, 10.0, 10
#: Largest number of connections that wait to be accepted, and that are open; further ones are closed.
BACKLOG, MOST_CONNECTIONS = 2048, 1024
#: Time limit, in s, for a client to read an answer.
STALLED_S = 30.0


@dataclass(frozen=True)
class Binding:
    """Address to listen on, and Host and Origin headers to accept in addition to those of loopback."""

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in self.allowed_hosts:
            host_name(name)
        for origin in self.allowed_origins:
            normal_origin(origin)

    @property
    def loopback(self) -> bool:
        """Whether the address is reachable from this machine only."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def origin(self) -> str:
        """Scheme, host and port of the server."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Tokens:
    """Accepted bearer tokens; each token is a separate owner of channels."""

    def __init__(self, tokens: Sequence[str]) -> None:
        short = sum(len(token) < LEAST_TOKEN for token in tokens)
        if short:
            raise UserError(f"{short} tokens of {TOKEN_VARIABLE} have fewer than {LEAST_TOKEN} characters")
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]

    @classmethod
    def from_environment(cls) -> Tokens | None:
        """The tokens of the environment variable, separated by commas; None if it is not set."""
        tokens = [token.strip() for token in os.environ.get(TOKEN_VARIABLE, "").split(",")]
        return cls([token for token in tokens if token]) if any(tokens) else None

    async def verify_token(self, token: str) -> AccessToken | None:
        """The owner of a token, in constant time for valid and invalid tokens."""
        given = hashlib.sha256(token.encode()).digest()
        matches = [hmac.compare_digest(given, known) for known in self._digests]
        if not any(matches):
            return None
        return AccessToken(token=token, client_id=f"token-{given.hex()[:16]}", scopes=[])


def http_app(settings: Mapping[str, Any], binding: Binding, tokens: Tokens | None) -> tuple[Starlette, ExpertServer]:
    """The ASGI application and its server; a `UserError` for an address beyond loopback without host or token."""
    if not binding.loopback and (tokens is None or not binding.allowed_hosts):
        raise UserError(
            f"{binding.host} can be reached from other machines: this needs the names that clients use (--allow-host "
            f"NAME) and bearer tokens (environment variable {TOKEN_VARIABLE}); for this machine only, omit --host"
        )
    local = ("127.0.0.1", "localhost", "[::1]") if binding.loopback else ()
    server = build_server(
        **settings,
        token_verifier=tokens,
        auth=AuthSettings(issuer_url=AnyHttpUrl(binding.origin), resource_server_url=None) if tokens else None,
    )
    app = server.streamable_http_app(
        json_response=True,
        stateless_http=True,
        max_request_body_size=BODY_BYTES,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # done by the guard
    )
    app.add_middleware(_PromptBody)
    app.add_middleware(Guard, hosts=binding.allowed_hosts, origins=binding.allowed_origins, local=local)
    return app, server


def serve_http(settings: Mapping[str, Any], binding: Binding) -> int:
    """Serve until SIGINT (exit code 130) or SIGTERM (143); ends within 2 s of the signal."""
    app, expert_server = http_app(settings, binding, Tokens.from_environment())
    sockets = listen(binding)
    config = uvicorn.Config(
        app,
        http=_PromptHead,
        ws="none",
        log_level="warning",
        log_config=None,
        access_log=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    print(f"{binding.origin}/mcp", file=sys.stderr, flush=True)
    server = _Server(config, expert_server.close)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=sockets)
    return 128 + server.ended_by


class _Server(uvicorn.Server):
    """A server that stores the signal that ended it; uvicorn would raise it again before all is closed."""

    ended_by = signal.SIGTERM

    def __init__(self, config: uvicorn.Config, closing: Callable[[], None]) -> None:
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop serving; reads in progress are abandoned."""
        self.ended_by = signal.Signals(sig)
        self._closing()
        super().handle_exit(sig, frame)
        self._captured_signals.clear()


def listen(binding: Binding) -> list[socket.socket]:
    """Open a socket for each address of the host; `UserError` if no socket can be opened."""
    found: list[socket.socket] = []
    lacking: OSError | None = None
    try:
        for family, _, _, _, address in socket.getaddrinfo(binding.host, binding.port, type=socket.SOCK_STREAM):
            try:
                opened = socket.create_server(address, family=family, backlog=BACKLOG).detach()
            except OSError as error:  # localhost resolves to ::1 even without IPv6
                if error.errno == errno.EADDRINUSE:
                    raise
                lacking = error
            else:  # asyncio disables Nagle's algorithm only if the protocol is given as TCP
                found.append(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=opened))
        if lacking is not None and not found:
            raise lacking
    except OSError as error:
        raise UserError(
            f"cannot listen on {binding.host}, port {binding.port} ({error.strerror}); choose another --port or --host"
        ) from error
    return found


class _PromptHead(H11Protocol):
    """Closes a connection that has not sent the head of a request in time, even if it is still sending."""

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read: abort the connection after a time limit."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    def _await_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(HEAD_S, self._expire)

    def _expire(self) -> None:
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()


def _refused(messages: collections.deque[Message]) -> bytes | None:
    """Return the JSON-RPC error for an invalid body, None for a valid one. Removes a byte-order mark in place."""
    body = b"".join(message.get("body", b"") for message in messages)
    if body.startswith(codecs.BOM_UTF8):
        messages.clear()
        messages.append({"type": "http.request", "body": body.removeprefix(codecs.BOM_UTF8), "more_body": False})
    found = parse(body)
    if isinstance(found, Messages):
        found = Refused(INVALID_REQUEST, "batches are not taken over HTTP; send one message in each request")
    if not isinstance(found, Refused):
        return None
    error = {"code": found.code, "message": found.message.replace("the line", "the body")}
    return json.dumps({"jsonrpc": "2.0", "id": found.identifier, "error": error}).encode()


class _PromptBody:
    """ASGI middleware: answers 408 if a request's body does not arrive in time, 400 if it is no JSON-RPC message.

    Bodies over the size limit pass; they are refused later.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        messages: collections.deque[Message] = collections.deque()
        size = 0
        try:
            async with asyncio.timeout(BODY_S):
                while size <= BODY_BYTES:
                    message = await receive()
                    messages.append(message)
                    size += len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        break
        except TimeoutError:
            await Response("Request body too slow", 408, {"connection": "close"})(scope, receive, send)
            return

        if size <= BODY_BYTES and (refused := _refused(messages)) is not None:
            await Response(refused, 400, media_type="application/json")(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.popleft() if messages else await receive()

        await self.app(scope, replay, send)

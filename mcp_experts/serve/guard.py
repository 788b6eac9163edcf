"""Access over HTTP: accepted Host and Origin headers, and the CORS headers for browsers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from geoml.errors import UserError

__all__ = ["Guard", "host_name", "normal_origin"]

NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?")
FIELD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
SCHEME_PORTS = {"http": 80, "https": 443}
#: Seconds for which a browser may cache the answer to a preflight request.
KEPT_S = 600
#: The server sends no unsolicited messages, so that there is no stream for GET and no session for DELETE.
METHODS = "POST, OPTIONS"


def host_name(text: str) -> tuple[str, int | None]:
    """Name and port of a Host header or of `--allow-host`, in lower case; a `UserError` for anything else.

    >>> host_name("LOCALHOST:80"), host_name("[::1]")
    (('localhost', 80), ('[::1]', None))
    """
    match = HOST.fullmatch(text.strip().lower())
    if match is not None and (match[2] is None or 1 <= int(match[2]) <= 65535):
        name = match[1].removesuffix(".")
        if name.startswith("["):
            try:
                return f"[{ipaddress.IPv6Address(name[1:-1])}]", int(match[2]) if match[2] else None
            except ValueError:
                pass
        elif NAME.fullmatch(name):
            return name, int(match[2]) if match[2] else None
    raise UserError(f"{text!r} is not a host name; expected host.example or host.example:8000")


def normal_origin(text: str) -> tuple[str, str, int]:
    """Scheme, name and port of an Origin header or of `--allow-origin`; a `UserError` for anything else.

    >>> normal_origin("HTTPS://App.Example") == normal_origin("https://app.example:443")
    True
    """
    try:
        found = urlsplit(text.strip())
        plain = not (found.query or found.fragment or found.username or found.password) and found.path in ("", "/")
        if plain and re.fullmatch("[a-z][a-z0-9+.-]*", found.scheme) and found.netloc:
            name, port = host_name(found.netloc)
            return found.scheme, name, port or SCHEME_PORTS.get(found.scheme, 0)
    except (ValueError, UserError):
        pass
    raise UserError(f"{text!r} is not an origin; expected the form https://app.example")


class Guard:
    """ASGI middleware that checks Host and Origin headers, answers preflight requests, and refuses methods except POST.

    `hosts` are names with a port, or without one for any port; `origins` match exactly. `local` names are accepted as
    hosts and, with http and any port, as origins.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str], local: Sequence[str]) -> None:
        self.app = app
        self._hosts = {host_name(text) for text in (*hosts, *local)}
        self._origins = {normal_origin(text) for text in origins}
        self._local = {host_name(text)[0] for text in local}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it to the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.getlist("origin")
        if not self._known_host(headers.getlist("host")):
            await Response("Invalid Host header", 421)(scope, receive, send)
            return
        if given and not (len(given) == 1 and self._known_origin(given[0])):
            await Response("Invalid Origin header", 403)(scope, receive, send)
            return
        sending = _with_origin(send, given[0]) if given else send
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=_preflight(headers))(scope, receive, sending)
        elif scope["method"] != "POST":
            await Response("Only POST is supported", 405, {"allow": METHODS})(scope, receive, sending)
        else:
            await self.app(scope, receive, sending)

    def _known_host(self, given: Sequence[str]) -> bool:
        try:
            (text,) = given
            name, port = host_name(text)
        except (ValueError, UserError):
            return False
        return (name, None) in self._hosts or (name, port) in self._hosts

    def _known_origin(self, text: str) -> bool:
        try:
            scheme, name, port = normal_origin(text)
        except UserError:
            return False
        return (scheme, name, port) in self._origins or (scheme == "http" and name in self._local)


def _preflight(headers: Headers) -> dict[str, str]:
    asked = [name.strip() for name in headers.get("access-control-request-headers", "").split(",")]
    found = {"allow": METHODS, "access-control-allow-methods": METHODS, "access-control-max-age": str(KEPT_S)}
    if names := [name for name in asked if FIELD.fullmatch(name)]:
        found["access-control-allow-headers"] = ", ".join(names)
    return found


def _with_origin(send: Send, origin: str) -> Send:
    """A `send` that adds the CORS header which lets this origin read the answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = "www-authenticate, mcp-protocol-version"
            headers.add_vary_header("Origin")
        await send(message)

    return sending

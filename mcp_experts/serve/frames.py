"""Parse lines of JSON-RPC into messages, or into the error response for an invalid line."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Any

import pydantic_core
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

__all__ = ["Messages", "Refused", "find_id", "parse", "without_surrogates"]

#: Tokens: strings, punctuation, and numbers or words.
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s"{}\[\]:,]+', re.DOTALL)
MOST_BATCHED = 64


@dataclass(frozen=True)
class Refused:
    """An invalid line: the error to send, and the id of the request if it can be read."""

    code: int
    message: str
    identifier: int | str | None = None


@dataclass(frozen=True)
class Messages:
    """A batch: several messages in one line, allowed in protocol version 2025-03-26."""

    parts: tuple[JSONRPCMessage | Refused, ...]


def parse(line: bytes) -> JSONRPCMessage | Messages | Refused:
    """The message, batch or error of one line. A leading byte-order mark is ignored, as RFC 8259 allows."""
    line = line.removeprefix(codecs.BOM_UTF8)
    try:
        message = _message(line)
        if isinstance(message, JSONRPCRequest) or b'"id"' not in line:
            return message
    except ValidationError:
        message = None
    try:
        found = pydantic_core.from_json(line)
    except ValueError as error:
        return Refused(PARSE_ERROR, f"the line is not valid JSON ({error})", find_id(line))
    if not isinstance(found, list):  # a request with an invalid id would otherwise count as a notification
        return message if message and not _is_request(message, found) else _invalid(found)
    if not 1 <= len(found) <= MOST_BATCHED:
        return Refused(INVALID_REQUEST, f"a batch of {len(found)} messages; expected 1 to {MOST_BATCHED}")
    return Messages(tuple(_part(part) for part in found))


def _message(line: bytes) -> JSONRPCMessage:
    found: JSONRPCMessage = jsonrpc_message_adapter.validate_json(line, by_name=False)
    return found


def _part(value: Any) -> JSONRPCMessage | Refused:
    try:
        found: JSONRPCMessage = jsonrpc_message_adapter.validate_python(value, by_name=False)
    except ValidationError:
        return _invalid(value)
    return _invalid(value) if _is_request(found, value) else found


def _is_request(message: JSONRPCMessage, value: Any) -> bool:
    """Return True if a message parsed as a notification has an id: it is an invalid request."""
    return isinstance(message, JSONRPCNotification) and "id" in value


def _invalid(value: Any) -> Refused:
    identifier = value.get("id") if isinstance(value, dict) else None
    known = isinstance(identifier, int | str) and not isinstance(identifier, bool)
    return Refused(INVALID_REQUEST, "not a JSON-RPC 2.0 request or notification", identifier if known else None)


def find_id(line: bytes) -> int | str | None:
    """Find the id of a request in a line that is not valid JSON, to answer its sender; None if it is ambiguous.

    >>> find_id(b'{"id": 7, "params": {"id": 8, "name": "los\\\\ud83d"}}'), find_id(b'{"jsonrpc": "2.0", "id": 1')
    (7, None)
    """
    depth, recent = 0, [b"", b"", b""]
    for match in TOKEN.finditer(line):
        token = match[0]
        if depth == 1 and token in (b",", b"}") and recent[0] == b'"id"' and recent[1] == b":":
            try:
                found = pydantic_core.from_json(recent[2])
            except ValueError:
                return None
            return found if isinstance(found, int | str) and not isinstance(found, bool) else None
        depth += (token in (b"{", b"[")) - (token in (b"}", b"]"))
        recent = [*recent[1:], token]
    return None


def without_surrogates(text: str) -> str:
    r"""Escape what UTF-8 cannot encode: bytes of file names that are not UTF-8, and single surrogates.

    >>> without_surrogates("caf\udce9.npz"), without_surrogates("café")
    ('caf\\xe9.npz', 'café')
    """
    if text.isascii():
        return text
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return raw.decode("utf-8", "backslashreplace")

"""An endpoint in OpenAI's format on loopback: `POST /v1/chat/completions` and `GET /v1/models`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from geoml.errors import UserError
from mcp_experts.local.model import LocalModel

__all__ = ["app"]

MOST_BODY = 1 << 20


def app(model: LocalModel) -> Starlette:
    """The ASGI application of one model. Pages of other hosts are refused, and there are no CORS headers."""

    async def models(request: Request) -> Response:
        entry = {"id": model.name, "object": "model", "created": 0, "owned_by": "local"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def complete(request: Request) -> Response:
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > MOST_BODY:
                return _refused(f"the request has more than {MOST_BODY} bytes", 413)
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return _refused("the body is not JSON", 400)
        wrong = _wrong(body)
        if wrong:
            return _refused(wrong, 400)
        try:
            found = await anyio.to_thread.run_sync(model.complete, body)
        except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
            return _refused(str(error) or type(error).__name__, 400)
        if body.get("stream"):
            return StreamingResponse(_chunks(found), media_type="text/event-stream")
        return JSONResponse(found)

    return Starlette(
        routes=[Route("/v1/chat/completions", complete, methods=["POST"]), Route("/v1/models", models)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])],
    )


def _wrong(body: Any) -> str:
    """Return the reason for which a request is invalid; "" if it is valid."""
    if not isinstance(body, dict):
        return "the body is not a JSON object"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        return "messages is missing; expected a list of objects with role and content"
    if body.get("n", 1) not in (1, None):
        return "n must be 1"
    return ""


def _refused(message: str, status: int) -> JSONResponse:
    """Return an error response in OpenAI's format."""
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": None}}, status)


async def _chunks(found: Mapping[str, Any]) -> AsyncIterator[str]:
    """A finished answer as a stream of one chunk, for clients that ask for streams."""
    (choice,) = found["choices"]
    message = dict(choice["message"])
    if "tool_calls" in message:
        message["tool_calls"] = [{"index": number, **call} for number, call in enumerate(message["tool_calls"])]
    chunk = {**found, "object": "chat.completion.chunk"}
    chunk["choices"] = [{"index": 0, "delta": message, "finish_reason": choice["finish_reason"]}]
    yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"

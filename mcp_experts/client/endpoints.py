"""Language models over HTTP: the formats of OpenAI and of Anthropic, with httpx only.

    OPENAI_BASE_URL  OPENAI_API_KEY  OPENAI_MODEL         any compatible endpoint, local ones too
    ANTHROPIC_API_KEY  ANTHROPIC_MODEL  ANTHROPIC_BASE_URL

A local model needs no key: `OPENAI_BASE_URL=http://localhost:11434/v1 OPENAI_MODEL=qwen3` for Ollama,
`http://localhost:8080/v1` for llama.cpp's server.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2

from geoml.errors import DataError, UserError

__all__ = ["Anthropic", "Call", "Endpoint", "OpenAI", "Reply", "from_environment"]

LOG = logging.getLogger(__name__)

OTHER = "check the address: OPENAI_BASE_URL usually ends in /v1, ANTHROPIC_BASE_URL with the host"
TIMEOUT_S = 120.0
TRIES = 4
MOST_TOKENS = 1024


@dataclass(frozen=True)
class Call:
    """A tool call that the model requests."""

    identifier: str
    tool: str
    arguments: dict[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """Reply of a model: text, tool calls, tokens used, and the message to send back in the next turn."""

    text: str
    calls: tuple[Call, ...]
    tokens_in: int
    tokens_out: int
    message: Any


class Endpoint(Protocol):
    """A model behind HTTP; conversations are lists of messages in the endpoint's format."""

    model: str

    def user(self, text: str) -> Any:
        """A message of the user."""

    def results(self, calls: Sequence[tuple[Call, str, bool]]) -> list[Any]:
        """Results of tools, `(call, text, failed)`, as messages."""

    async def reply(
        self, system: str, messages: Sequence[Any], tools: Sequence[Mapping[str, Any]], *, final: bool = False
    ) -> Reply:
        """Return the model's next turn; `tools` are `{name, description, schema}`. A `final` turn calls no tools."""


def from_environment(*, timeout_s: float = TIMEOUT_S) -> Endpoint | None:
    """The endpoint set by the environment, or None; `timeout_s` is the time limit for an answer."""
    environment = os.environ
    if environment.get("ANTHROPIC_API_KEY") and environment.get("ANTHROPIC_MODEL"):
        base = environment.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
        return Anthropic(environment["ANTHROPIC_MODEL"], base, environment["ANTHROPIC_API_KEY"], timeout_s)
    if environment.get("OPENAI_MODEL") and (environment.get("OPENAI_BASE_URL") or environment.get("OPENAI_API_KEY")):
        base = environment.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
        return OpenAI(environment["OPENAI_MODEL"], base, environment.get("OPENAI_API_KEY", ""), timeout_s)
    return None


@dataclass
class OpenAI:
    """Chat completions with function tools, at OpenAI's own endpoint or a compatible one."""

    model: str
    base_url: str
    key: str = field(default="", repr=False)
    timeout_s: float = TIMEOUT_S
    _refused: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def user(self, text: str) -> Any:
        """A message of the user."""
        return {"role": "user", "content": text}

    def results(self, calls: Sequence[tuple[Call, str, bool]]) -> list[Any]:
        """Results of tools, `(call, text, failed)`, as one message per call."""
        return [
            {"role": "tool", "tool_call_id": call.identifier, "content": f"Error: {text}" if failed else text}
            for call, text, failed in calls
        ]

    async def reply(
        self, system: str, messages: Sequence[Any], tools: Sequence[Mapping[str, Any]], *, final: bool = False
    ) -> Reply:
        """The next turn of the model."""

        def body() -> dict[str, Any]:
            found = self._body(system, messages, tools)
            return found | {"tool_choice": "none"} if final and tools else found

        answer = await self._send(body)
        try:
            message = answer["choices"][0]["message"]
            text = _text(message.get("content"))
            calls = tuple(_call(call, number) for number, call in enumerate(message.get("tool_calls") or ()))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise DataError(f"{self.base_url} did not answer in OpenAI's format ({error!r}); {OTHER}") from error
        tokens = _tokens(answer, "prompt_tokens", "completion_tokens")
        return Reply(text, calls, *tokens, _assistant(text, calls))

    async def _send(self, body: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Send a request; repeats it in an adapted form if the endpoint refuses a parameter (see `_adapt`)."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        return await _post(url, body, headers, self.timeout_s, self._adapt)

    def _body(self, system: str, messages: Sequence[Any], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        wire = wire_of(self.base_url)
        limit = wire.limit if "limit" not in self._refused else OTHER_LIMIT[wire.limit]
        found: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, *messages],
            limit: MOST_TOKENS,
        }
        if wire.temperature and "temperature" not in self._refused:
            found["temperature"] = 0
        if tools:
            found["tools"] = [{"type": "function", "function": _function(tool, wire)} for tool in tools]
        return found

    def _adapt(self, complaint: str) -> bool:
        """Adapt later requests to the error message of a server; returns True if they change."""
        before = set(self._refused)
        if "max_tokens" in complaint or "max_completion_tokens" in complaint:
            self._refused.add("limit")
        if "temperature" in complaint:
            self._refused.add("temperature")
        return self._refused != before


@dataclass
class Anthropic:
    """Messages with tools."""

    model: str
    base_url: str
    key: str = field(repr=False)
    timeout_s: float = TIMEOUT_S

    def user(self, text: str) -> Any:
        """A message of the user."""
        return {"role": "user", "content": text}

    def results(self, calls: Sequence[tuple[Call, str, bool]]) -> list[Any]:
        """Results of tools, `(call, text, failed)`, as one message with a block per call."""
        blocks = [
            {"type": "tool_result", "tool_use_id": call.identifier, "content": text, "is_error": failed}
            for call, text, failed in calls
        ]
        return [{"role": "user", "content": blocks}]

    async def reply(
        self, system: str, messages: Sequence[Any], tools: Sequence[Mapping[str, Any]], *, final: bool = False
    ) -> Reply:
        """The next turn of the model."""
        headers = {"x-api-key": self.key, "anthropic-version": "2023-06-01"}

        def body() -> dict[str, Any]:
            found = self._body(system, messages, tools)
            return found | {"tool_choice": {"type": "none"}} if final and tools else found

        answer = await _post(f"{self.base_url.rstrip('/')}/v1/messages", body, headers, self.timeout_s)
        try:
            blocks = [_block(block, number) for number, block in enumerate(_blocks(answer["content"]))]
            text = "".join(block["text"] for block in blocks if block["type"] == "text")
            calls = tuple(
                Call(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.base_url} did not answer in Anthropic's format ({error!r}); {OTHER}") from error
        tokens = _tokens(answer, "input_tokens", "output_tokens")
        return Reply(text, calls, *tokens, {"role": "assistant", "content": blocks})

    def _body(self, system: str, messages: Sequence[Any], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {  # no temperature: the newest models refuse it
            "model": self.model,
            "system": system,
            "messages": list(messages),
            "max_tokens": MOST_TOKENS,
        }
        if tools:
            found["tools"] = [
                {"name": t["name"], "description": t["description"], "input_schema": t["schema"]} for t in tools
            ]
        return found


@dataclass(frozen=True)
class Wire:
    """Properties of a compatible endpoint: parameter for the token limit; support of temperature and of all schemas."""

    limit: str = "max_tokens"
    temperature: bool = True
    all_keywords: bool = True


#: Properties of known endpoints by host. For others, requests are adapted to the server's error message. Gemini's
#: endpoint converts schemas and supports fewer keywords; OpenAI's newest models refuse max_tokens and any temperature.
WIRES = {
    "api.openai.com": Wire(limit="max_completion_tokens", temperature=False),
    "generativelanguage.googleapis.com": Wire(all_keywords=False),
    "api.mistral.ai": Wire(),
}
OTHER_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


def wire_of(base_url: str) -> Wire:
    """Return the properties of the endpoint at a URL.

    >>> wire_of("https://api.openai.com/v1").limit, wire_of("http://localhost:11434/v1").limit
    ('max_completion_tokens', 'max_tokens')
    """
    try:
        host = urlsplit(base_url).hostname
    except ValueError:  # the request will report it
        host = None
    return WIRES.get(host or "", Wire())


def _function(tool: Mapping[str, Any], wire: Wire) -> dict[str, Any]:
    schema = tool["schema"] if wire.all_keywords else _fewer_keywords(tool["schema"])
    return {"name": tool["name"], "description": tool["description"], "parameters": schema}


def _fewer_keywords(schema: Any) -> Any:
    """Remove `additionalProperties`, and null from unions of a type and null."""
    if isinstance(schema, list):
        return [_fewer_keywords(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "anyOf" in schema:
        schema = {**next(part for part in schema["anyOf"] if part.get("type") != "null"), **schema}
    left_out = ("additionalProperties", "anyOf", "default", "maxLength")
    return {key: _fewer_keywords(value) for key, value in schema.items() if key not in left_out}


def _text(content: Any) -> str:
    """Text of a message whose content is a text, null, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") if isinstance(part, Mapping) else str(part) for part in parts)


def _call(call: Mapping[str, Any], number: int) -> Call:
    """A call, completed with what small models and servers omit: an id (nine characters, for Mistral), a name."""
    function = call.get("function") or {}
    identifier = str(call.get("id") or f"call{number:05d}")
    extra = {"extra_content": call["extra_content"]} if "extra_content" in call else {}  # Gemini expects it back
    return Call(identifier, str(function.get("name") or "unnamed"), _arguments(function.get("arguments")), extra)


def _assistant(text: str, calls: Sequence[Call]) -> dict[str, Any]:
    """The model's message to send back, with valid JSON as arguments, since some servers refuse other text."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {
                "id": call.identifier,
                "type": "function",
                "function": {"name": call.tool, "arguments": json.dumps(call.arguments)},
                **call.extra,
            }
            for call in calls
        ]
    return message


def _blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def _block(block: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A block of an answer; a call always gets an id, a name and a mapping as arguments."""
    if block["type"] != "tool_use":
        return dict(block)
    given = block.get("input")
    arguments = dict(given) if isinstance(given, Mapping) else _arguments(given)
    identifier = str(block.get("id") or f"call{number:05d}")
    return {**block, "id": identifier, "name": str(block.get("name") or "unnamed"), "input": arguments}


def _tokens(answer: Mapping[str, Any], sent: str, received: str) -> tuple[int, int]:
    """Tokens in and out, estimated from the texts for endpoints that do not count them."""
    usage = answer.get("usage") or {}
    return int(usage.get(sent) or 0), int(usage.get(received) or 0)


def _arguments(given: Any) -> dict[str, Any]:
    """Arguments as a mapping; text that is not a JSON object becomes an argument that the tool refuses."""
    if isinstance(given, Mapping):
        return dict(given)
    try:
        found = json.loads(given or "{}")
    except (TypeError, ValueError):
        return {"unreadable_arguments": str(given)[:200]}
    return found if isinstance(found, dict) else {"unreadable_arguments": str(given)[:200]}


async def _post(
    url: str,
    body: Callable[[], Mapping[str, Any]],
    headers: Mapping[str, str],
    timeout_s: float,
    adapt: Callable[[str], bool] = lambda complaint: False,
) -> dict[str, Any]:
    """Post a request and return the JSON of the answer; a `UserError` with the last error if there is none.

    Requests are repeated for busy endpoints, and after `adapt` has changed the request.
    """
    import anyio

    trouble, wait = "", False
    async with httpx2.AsyncClient(timeout=timeout_s) as client:
        for attempt in range(TRIES):
            if wait:
                await anyio.sleep(2.0**attempt / 4)
            begin = time.monotonic()
            try:
                response = await client.post(url, json=dict(body()), headers=dict(headers))
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
                raise UserError(
                    f"{url} is not a valid address ({error}); expected the form http://localhost:11434/v1"
                ) from error
            except httpx2.HTTPError as error:
                trouble = f"{type(error).__name__} after {time.monotonic() - begin:.0f} s"
                LOG.warning("%s: %s; try %d of %d", url, trouble, attempt + 1, TRIES)
                wait = True
                continue
            if response.status_code == 200:
                return _json(url, response)
            trouble = f"status {response.status_code}: {response.text[:200]}"
            wait = not (response.status_code in (400, 422) and adapt(response.text))
            if not wait:
                continue
            if response.status_code not in (408, 409, 429, 500, 502, 503, 504, 529):
                break
            LOG.warning("%s: %s; try %d of %d", url, trouble, attempt + 1, TRIES)
    raise UserError(f"the model at {url} did not answer ({trouble}); check its address, model name and key")


def _json(url: str, response: httpx2.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError as error:
        raise DataError(f"{url} did not answer in JSON; {OTHER}") from error
    if not isinstance(answer, dict):
        raise DataError(f"{url} did not answer with a JSON object; {OTHER}")
    return answer

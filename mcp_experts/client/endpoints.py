"""Language models behind HTTP: the wire formats of OpenAI and of Anthropic, over httpx alone.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2

from geoml.errors import DataError, UserError

__all__ = ["Anthropic", "Call", "Endpoint", "OpenAI", "Reply", "from_environment"]

LOG = logging.getLogger(__name__)

OTHER = "is another program there? OPENAI_BASE_URL mostly ends in /v1, ANTHROPIC_BASE_URL at the host"
TIMEOUT_S = 120.0
TRIES = 4
MOST_TOKENS = 1024


@dataclass(frozen=True)
class Call:
    """A tool that the model wants called."""

    identifier: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What came back: text, tools to call, tokens used, and the message as it is sent back next time."""

    text: str
    calls: tuple[Call, ...]
    tokens_in: int
    tokens_out: int
    message: Any


class Endpoint(Protocol):
    """A model that can be talked to; conversations are lists of the endpoint's own messages."""

    model: str

    def user(self, text: str) -> Any:
        """A message of the user's."""

    def results(self, calls: Sequence[tuple[Call, str, bool]]) -> list[Any]:
        """What tools gave, `(call, text, failed)`, as messages."""

    async def reply(self, system: str, messages: Sequence[Any], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """The model's next turn; tools as `{name, description, schema}`."""


def from_environment() -> Endpoint | None:
    """The endpoint that the environment names, None where it names none."""
    environment = os.environ
    if environment.get("ANTHROPIC_API_KEY") and environment.get("ANTHROPIC_MODEL"):
        base = environment.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
        return Anthropic(environment["ANTHROPIC_MODEL"], base, environment["ANTHROPIC_API_KEY"])
    if environment.get("OPENAI_MODEL") and (environment.get("OPENAI_BASE_URL") or environment.get("OPENAI_API_KEY")):
        base = environment.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
        return OpenAI(environment["OPENAI_MODEL"], base, environment.get("OPENAI_API_KEY", ""))
    return None


@dataclass
class OpenAI:
    """Chat completions with function tools."""

    model: str
    base_url: str
    key: str = field(default="", repr=False)

    def user(self, text: str) -> Any:
        """A message of the user's."""
        return {"role": "user", "content": text}

    def results(self, calls: Sequence[tuple[Call, str, bool]]) -> list[Any]:
        """One message a call."""
        return [{"role": "tool", "tool_call_id": call.identifier, "content": text} for call, text, _ in calls]

    async def reply(self, system: str, messages: Sequence[Any], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """The model's next turn."""
        functions = [
            {
                "type": "function",
                "function": {"name": t["name"], "description": t["description"], "parameters": t["schema"]},
            }
            for t in tools
        ]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, *messages],
            "temperature": 0,
            "max_tokens": MOST_TOKENS,
        }
        if functions:
            body["tools"] = functions
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        answer = await _post(f"{self.base_url.rstrip('/')}/chat/completions", body, headers)
        try:
            message = answer["choices"][0]["message"]
            calls = tuple(
                Call(call["id"], call["function"]["name"], _arguments(call["function"]["arguments"]))
                for call in message.get("tool_calls") or ()
            )
            text = message.get("content") or ""
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise DataError(f"{self.base_url} answered in no OpenAI format ({error!r}); {OTHER}") from error
        return Reply(text, calls, *_tokens(answer, "prompt_tokens", "completion_tokens"), message)


@dataclass
class Anthropic:
    """Messages with tools."""

    model: str
    base_url: str
    key: str = field(repr=False)

    def user(self, text: str) -> Any:
        """A message of the user's."""
        return {"role": "user", "content": text}

    def results(self, calls: Sequence[tuple[Call, str, bool]]) -> list[Any]:
        """One message with a block a call."""
        blocks = [
            {"type": "tool_result", "tool_use_id": call.identifier, "content": text, "is_error": failed}
            for call, text, failed in calls
        ]
        return [{"role": "user", "content": blocks}]

    async def reply(self, system: str, messages: Sequence[Any], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """The model's next turn."""
        body: dict[str, Any] = {
            "model": self.model,
            "system": system,
            "messages": list(messages),
            "max_tokens": MOST_TOKENS,
            "temperature": 0,
        }
        if tools:
            body["tools"] = [
                {"name": t["name"], "description": t["description"], "input_schema": t["schema"]} for t in tools
            ]
        headers = {"x-api-key": self.key, "anthropic-version": "2023-06-01"}
        answer = await _post(f"{self.base_url.rstrip('/')}/v1/messages", body, headers)
        try:
            blocks = answer["content"]
            text = "".join(block["text"] for block in blocks if block["type"] == "text")
            calls = tuple(
                Call(block["id"], block["name"], dict(block["input"]))
                for block in blocks
                if block["type"] == "tool_use"
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.base_url} answered in no Anthropic format ({error!r}); {OTHER}") from error
        tokens = _tokens(answer, "input_tokens", "output_tokens")
        return Reply(text, calls, *tokens, {"role": "assistant", "content": blocks})


def _tokens(answer: Mapping[str, Any], sent: str, received: str) -> tuple[int, int]:
    """Tokens in and out; endpoints that do not count leave them out, or null."""
    usage = answer.get("usage") or {}
    return int(usage.get(sent) or 0), int(usage.get(received) or 0)


def _arguments(text: Any) -> dict[str, Any]:
    """Arguments as the model wrote them; what is no JSON object goes to the tool as an argument it refuses."""
    try:
        found = json.loads(text or "{}")
    except (TypeError, ValueError):
        return {"unreadable_arguments": str(text)[:200]}
    return found if isinstance(found, dict) else {"unreadable_arguments": str(text)[:200]}


async def _post(url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """The JSON that an endpoint answers; busy ones are asked again, and the last word becomes a `UserError`."""
    import anyio

    trouble = ""
    async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client:
        for attempt in range(TRIES):
            if attempt:
                await anyio.sleep(2.0**attempt / 4)
            begin = time.monotonic()
            try:
                response = await client.post(url, json=dict(body), headers=dict(headers))
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
                raise UserError(f"{url} is no address ({error}); expected one as http://localhost:11434/v1") from error
            except httpx2.HTTPError as error:
                trouble = f"{type(error).__name__} after {time.monotonic() - begin:.0f} s"
                LOG.warning("%s: %s; try %d of %d", url, trouble, attempt + 1, TRIES)
                continue
            if response.status_code == 200:
                try:
                    answer = response.json()
                except ValueError as error:
                    raise DataError(f"{url} answered no JSON; {OTHER}") from error
                if not isinstance(answer, dict):
                    raise DataError(f"{url} answered no JSON object; {OTHER}")
                return answer
            trouble = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code not in (408, 409, 429, 500, 502, 503, 504, 529):
                break
            LOG.warning("%s: %s; try %d of %d", url, trouble, attempt + 1, TRIES)
    raise UserError(f"the model at {url} did not answer ({trouble}); check its address, model name and key")

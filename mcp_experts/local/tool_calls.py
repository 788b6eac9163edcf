"""Tool calls of models whose chat template has none: tools as text in the prompt, and a schema that the reply follows.

A reply is one JSON object: `{"tool": NAME, "arguments": {...}}`, or `{"answer": TEXT}`. The sampler follows the schema,
so that every call names a tool that exists, with arguments of the right names, types and enumerated values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from geoml.errors import UserError

__all__ = ["as_text", "choice_of", "read", "schema"]

Tool = Mapping[str, Any]
#: Longest answer, in characters; a small model that repeats itself would go on until the limit of tokens.
LONGEST = 600
#: Keywords that constrain the sampler; others, such as descriptions and defaults, are for the prompt only.
KEPT = ("type", "enum", "const", "anyOf", "items", "required", "minimum", "maximum")
HOW = (
    'You cannot read files yourself. Reply with one JSON object: first {"tool": name, "arguments": {...}} to get facts '
    'from a tool, then, after its result, {"answer": text}.'
)

AGAIN = "The question again: {}"
THEN = 'Now reply with {"answer": text}, as this result says.'
FAILED = "Use a tool again, with other arguments."


def choice_of(body: Mapping[str, Any]) -> tuple[list[Tool], list[Tool], bool]:
    """The functions of a request, those that may be called now, and whether the model may answer (`tool_choice`)."""
    tools = [tool["function"] for tool in body.get("tools") or () if tool.get("type", "function") == "function"]
    choice = body.get("tool_choice") or "auto"
    if choice == "none":
        return tools, [], True
    if isinstance(choice, Mapping):
        name = choice.get("function", {}).get("name")
        called = [tool for tool in tools if tool["name"] == name]
        if not called:
            raise UserError(f"tool_choice names {name!r}, which is not among the tools")
        return tools, called, False
    if choice not in ("auto", "required"):
        raise UserError(f"tool_choice is {choice!r}; expected auto, none, required or a function")
    return tools, tools, choice == "auto" or not tools


def schema(tools: Sequence[Tool], *, may_answer: bool) -> dict[str, Any]:
    """Return the JSON schema of a reply: a call of one of the tools or, if `may_answer`, an answer."""
    branches = [
        _object({"tool": {"const": tool["name"]}, "arguments": _constraint(tool.get("parameters") or {})})
        for tool in tools
    ]
    if may_answer:
        branches.append(_object({"answer": {"type": "string", "maxLength": LONGEST}}))
    # The sampler may otherwise write white space until the limit of tokens.
    return {"anyOf": branches, "x-guidance": {"whitespace_flexible": False}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _constraint(given: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a schema that constrains the sampler; no further properties are accepted."""
    found = {key: value for key, value in given.items() if key in KEPT}
    if "anyOf" in found:
        found["anyOf"] = [_constraint(part) for part in found["anyOf"]]
    if isinstance(found.get("items"), Mapping):
        found["items"] = _constraint(found["items"])
    if given.get("type", "object") == "object" and "anyOf" not in found:
        properties = {name: _constraint(about) for name, about in given.get("properties", {}).items()}
        return {**found, "type": "object", "properties": properties, "additionalProperties": False}
    return found


def as_text(messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> list[dict[str, str]]:
    """Messages with the roles system, user and assistant only: tools are described in the first, results are text."""
    # Small models follow what stands last: the instructions, not the list of tools.
    system = ["Tools:", *map(_described, tools), HOW] if tools else []
    system += [_content(message) for message in messages if message.get("role") in ("system", "developer")]
    found = [{"role": "system", "content": "\n".join(system)}] if system else []
    names = {
        call.get("id"): call.get("function", {}).get("name")
        for message in messages
        for call in message.get("tool_calls") or ()
    }
    asked = ""
    for message in messages:
        role = message.get("role")
        asked = _content(message) if role == "user" else asked
        if role == "tool":
            name = names.get(message.get("tool_call_id")) or "the tool"
            found.append({"role": "user", "content": f"Result of {name}:\n{_content(message)}"})
        elif role == "assistant":
            calls = [_written(call) for call in message.get("tool_calls") or ()]
            found.append({"role": "assistant", "content": "\n".join(filter(None, [_content(message), *calls]))})
        elif role == "user":
            found.append({"role": "user", "content": _content(message)})
        elif role not in ("system", "developer"):
            raise UserError(f"a message has the role {role!r}; expected system, user, assistant or tool")
    if messages and messages[-1].get("role") == "tool":
        # Small models lose sight of the question, and repeat what they read last, which should be the result.
        then = FAILED if _content(messages[-1]).startswith("Error:") else THEN
        found[-1]["content"] = f"{AGAIN.format(asked)}\n{found[-1]['content']}\n{then}"
    return found


def _described(tool: Tool) -> str:
    """One line for a tool and one for each argument."""
    parameters = tool.get("parameters") or {}
    required = parameters.get("required", ())
    lines = [f"- {tool['name']}: {tool.get('description') or ''}".rstrip(": ")]
    for name, about in parameters.get("properties", {}).items():
        kinds = ", ".join(map(str, about["enum"])) if "enum" in about else ""
        said = "; ".join(part for part in (about.get("description", ""), kinds and f"one of {kinds}") if part)
        lines.append(f"  {name}{'' if name in required else ' (optional)'}: {said}".rstrip(": "))
    return "\n".join(lines)


def _written(call: Mapping[str, Any]) -> str:
    function = call.get("function", {})
    arguments = function.get("arguments") or "{}"
    try:
        read_back = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        read_back = {}
    return json.dumps({"tool": function.get("name"), "arguments": read_back}, ensure_ascii=False)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return str(content or "")


def read(text: str) -> tuple[str | None, tuple[str, dict[str, Any]] | None]:
    """Parse a reply. Returns the answer and the call (`tool`, `arguments`), of which one is None.

    A truncated reply, which is not valid JSON, is returned unchanged as the answer.

    >>> read('{"answer": "It is clear."}'), read('{"tool": "wireless_list", "arguments": {}}')
    (('It is clear.', None), (None, ('wireless_list', {})))
    """
    try:
        found = json.loads(text)
    except ValueError:
        return text, None
    if not isinstance(found, dict):
        return text, None
    if "tool" in found:
        return None, (str(found["tool"]), dict(found.get("arguments") or {}))
    return str(found.get("answer", text)), None

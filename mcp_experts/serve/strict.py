"""Tools that refuse unknown arguments, with errors that say what to do next."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools.base import Tool
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import ConfigDict, Field, ValidationError

from geoml.errors import UserError
from mcp_experts.serve.frames import without_surrogates

__all__ = ["StrictTool", "answer", "described", "strict_tool"]

MOST_TEXT = 160
#: Earlier names of the argument `source`.
EARLIER = "channel_id"


class StrictTool(Tool):
    """A tool that accepts exactly the arguments of its schema, and finite numbers only.

    The SDK ignores unknown arguments and accepts NaN and 1e400; a model would not notice a misspelled argument.
    """

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        """Run the tool; invalid arguments and `UserError` become a `ToolError` with an explanation.

        Null for an optional argument counts as omitted, since models fill in all arguments of a schema.
        """
        required = self.parameters.get("required", [])
        arguments = {name: value for name, value in arguments.items() if value is not None or name in required}
        if "source" in required and "source" not in arguments and EARLIER in arguments:
            arguments["source"] = arguments.pop(EARLIER)
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(self._explain(error.__cause__)) from error.__cause__
            if isinstance(error.__cause__, UserError):
                raise ToolError(without_surrogates(str(error.__cause__))) from error.__cause__
            raise

    def _explain(self, error: ValidationError) -> str:
        """What is wrong with the arguments, without their values, which may be long or private."""
        found = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False)[:4]:
            place = ".".join(str(part) for part in problem["loc"])[:MOST_TEXT]
            found.append(f"{place}: {problem['msg']}" if place else problem["msg"])
        known = ", ".join(self.parameters.get("properties", {})) or "none"
        return f"arguments of {self.name} refused: {'; '.join(found)}. It takes: {known}"


def strict_tool(
    function: Callable[..., Any],
    *,
    name: str,
    title: str,
    description: str,
    read_only: bool = True,
    destructive: bool = False,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> Tool:
    """Create a strict tool from a function with annotated arguments that returns `Annotated[CallToolResult, Shape]`.

    `choices` are listed in the schema as values of an argument; the function may accept others.
    """
    tool = StrictTool.from_function(
        function,
        name=name,
        title=title,
        description=description,
        annotations=ToolAnnotations(
            title=title,
            read_only_hint=read_only,
            destructive_hint=destructive,
            idempotent_hint=read_only,
            open_world_hint=False,
        ),
    )
    loose = tool.fn_metadata.arg_model
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    strict: Any = type(loose.__name__, (loose,), {"model_config": config, "__module__": __name__})
    tool.fn_metadata.arg_model = strict
    tool.parameters = _plain_schema(strict.model_json_schema(by_alias=True))
    for argument, values in (choices or {}).items():
        tool.parameters["properties"][argument]["enum"] = list(values)
    if (promised := tool.fn_metadata.output_schema) is not None:
        tool.fn_metadata.output_schema = _joined(_plain_schema(promised))
    return tool


def described(
    function: Callable[..., Any], arguments: Mapping[str, str], then: Callable[[Any], CallToolResult], shape: type
) -> Callable[..., CallToolResult]:
    """A function for a tool: `function` with its parameters and defaults, described by `arguments`.

    `then` converts its result to `shape`.
    """
    parameters = [
        parameter.replace(
            kind=inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[parameter.annotation, Field(description=arguments[name])],
        )
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items()
    ]

    def call(**given: Any) -> CallToolResult:
        return then(function(**given))

    promise = Annotated[CallToolResult, shape]
    call.__signature__ = inspect.Signature(parameters, return_annotation=promise)  # type: ignore[attr-defined]
    return call


def _plain_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove titles, which repeat names and cost a model tokens."""
    properties = {
        name: {key: value for key, value in about.items() if key != "title"}
        for name, about in schema.get("properties", {}).items()
    }
    return {key: value for key, value in schema.items() if key != "title"} | {"properties": properties}


def _joined(schema: Any) -> Any:
    """Replace `anyOf` of a type and null by `{"type": ["string", "null"]}`, which clients check in half the time."""
    if not isinstance(schema, dict):
        return schema
    parts = schema.get("anyOf", [])
    if parts and all(set(part) == {"type"} and isinstance(part["type"], str) for part in parts):
        return {**{key: value for key, value in schema.items() if key != "anyOf"}, "type": [p["type"] for p in parts]}
    return {key: _joined(value) for key, value in schema.items()}


def answer(content: Mapping[str, Any], *, text: str | None = None) -> CallToolResult:
    """A result as structured content and as text: `text`, or by default the same JSON."""
    text = text or json.dumps(content, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=dict(content))

"""Three tools that no question needs, in addition to those of the server: a model has to choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from mcp.server.mcpserver.tools.base import Tool
from mcp_types import CallToolResult
from pydantic import Field
from typing_extensions import TypedDict

from mcp_experts.serve.strict import answer, strict_tool

__all__ = ["DistractorResult", "distractors"]


class DistractorResult(TypedDict):
    """A result as text."""

    text: str


def distractors() -> Iterator[Tool]:
    """The three tools; their results do not depend on the question."""

    def convert_units(
        value: Annotated[float, Field(description="Number to convert")],
        unit: Annotated[str, Field(description="Its unit", max_length=32)],
        to: Annotated[str, Field(description="Wanted unit", max_length=32)],
    ) -> Annotated[CallToolResult, DistractorResult]:
        return answer({"text": "these units are unknown"}, text="these units are unknown")

    def read_calendar(
        day: Annotated[str, Field(description="Date, as 2026-11-30", max_length=32)],
    ) -> Annotated[CallToolResult, DistractorResult]:
        return answer({"text": "no appointments"}, text="no appointments")

    def search_documents(
        phrase: Annotated[str, Field(description="Words to search for", max_length=256)],
    ) -> Annotated[CallToolResult, DistractorResult]:
        return answer({"text": "no document was found"}, text="no document was found")

    yield strict_tool(
        convert_units, name="convert_units", title="Convert units", description="Converts a number to another unit."
    )
    yield strict_tool(
        read_calendar, name="read_calendar", title="Read the calendar", description="Lists the appointments of a day."
    )
    yield strict_tool(
        search_documents,
        name="search_documents",
        title="Search documents",
        description="Searches the documents of the company for words.",
    )

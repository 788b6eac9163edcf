"""The prompt: a question about a channel, with instructions to use the experts."""

from __future__ import annotations

from typing import Annotated

from mcp.server import MCPServer
from pydantic import Field

__all__ = ["add"]


def add(server: MCPServer) -> None:
    """Add the prompt to the server."""

    @server.prompt(
        name="diagnose_channel",
        title="Diagnose a channel",
        description="Answers a question about a channel file with the experts, with the confidence of each part",
    )
    def diagnose_channel(
        path: Annotated[str, Field(description="Channel file under the server's data root")],
        question: Annotated[str, Field(description="What to find out")] = "What kind of channel is this?",
    ) -> str:
        return (
            f"Call wireless_describe with source {path!r}, and wireless_ask for what it leaves open. Answer this "
            f"question: {question}\n"
            "Give each number with its unit and its interval. Where an expert abstained, say that the data do not "
            "decide, and what remains likely. Where the classical estimate disagrees with an expert, say so. Do not "
            "claim what no expert answered."
        )

"""The local model as an endpoint of the client, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from mcp_experts.client.endpoints import OpenAI
from mcp_experts.local.model import LocalModel

__all__ = ["LocalEndpoint", "local_endpoint"]


@dataclass
class LocalEndpoint(OpenAI):
    """Requests and answers as those of OpenAI's endpoint, without HTTP."""

    local: LocalModel | None = field(default=None, repr=False, compare=False)

    async def _send(self, body: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        assert self.local is not None
        return await anyio.to_thread.run_sync(self.local.complete, body())


def local_endpoint(path: Path | None = None, *, threads: int = 1) -> LocalEndpoint:
    """Load the installed weights, or those of a file in GGUF format, as an endpoint."""
    model = LocalModel(path, threads=threads)
    name = f"{model.name} ({model.parameters / 1e6:.0f} M parameters)"
    return LocalEndpoint(name, "this process", local=model)

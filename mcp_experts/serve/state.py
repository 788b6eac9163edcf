"""What the tools of one server share: experts, held channels, the data root."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mcp.server.auth.middleware.auth_context import get_access_token

from mcp_experts.channels.handles import Handles
from mcp_experts.inference.registry import Registry

__all__ = ["TOOLSETS", "State"]

TOOLSETS = ("channels", "describe", "experts", "maps")
#: Files read at once, whoever asks: each may take a GiB of memory while it is.
READ_AT_ONCE = 2


@dataclass(frozen=True, eq=False)
class State:
    """What the tools of one server share."""

    registry: Registry
    handles: Handles
    root: Path | None = None
    toolsets: Sequence[str] = field(default=TOOLSETS)
    reading: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(READ_AT_ONCE))

    @staticmethod
    def owner() -> str:
        """Whose call this is: the bearer token's client, or the process on stdio and an open loopback."""
        token = get_access_token()
        return token.client_id if token else "process"

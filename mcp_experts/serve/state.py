"""State that the tools of one server share: experts, channels with their owners, and the data root."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from mcp.server.auth.middleware.auth_context import get_access_token

from geoml.errors import UserError
from mcp_experts.channels.channel import Channel
from mcp_experts.channels.handles import PREFIX, Handles
from mcp_experts.channels.opening import open_inside
from mcp_experts.inference.registry import Registry
from mcp_experts.inference.verdicts import ChannelView
from mcp_experts.serve.readers import Readers

__all__ = ["MapCover", "State"]

#: Source: a path, the number of a channel in a file, and the first digits of the hash of the content.
SOURCE = re.compile(r"(?P<path>.+?)(?:#(?P<index>\d{1,7}))?(?:@(?P<digest>[0-9a-f]{8}))?", re.DOTALL)
#: Owner of channels from files, which all clients may use, and the largest number of files in the cache.
FILES, REMEMBERED = "files", 512


@dataclass(frozen=True)
class MapCover:
    """Extent of a radio map under the root."""

    path: str
    covers: dict[str, Any]


@dataclass(frozen=True, eq=False)
class State:
    """State that the tools of one server share."""

    registry: Registry
    handles: Handles
    root: Path | None = None
    toolsets: tuple[str, ...] = ()
    readers: Readers = field(default_factory=Readers)
    _files: OrderedDict[tuple[str, int, str], str | MapCover] = field(default_factory=OrderedDict)

    @staticmethod
    def owner() -> str:
        """Owner of the current call: the client of the bearer token, or, without tokens, the process."""
        token = get_access_token()
        return token.client_id if token else "process"

    async def channel(self, source: str) -> ChannelView:
        """The channel of a handle or path; a `UserError` for a radio map."""
        found = await self.source(source)
        if isinstance(found, MapCover):
            raise UserError(f"{found.path} is a radio map: call wireless_ask with a point, such as at='10,20,1.5'")
        return found

    async def source(self, source: str) -> ChannelView | MapCover:
        """The channel of a handle, or the channel or map of a file under the root; files are cached.

        The handle of a file is its path with the first digits of a hash of the content, so that it is valid in every
        process. Raises `UserError` if the content has changed.
        """
        if source.startswith(PREFIX):
            return self.handles.get(source, self.owner())
        return await anyio.to_thread.run_sync(self._in_file, source)

    def _in_file(self, source: str) -> ChannelView | MapCover:
        match = SOURCE.fullmatch(source)
        if match is None:
            raise UserError("source is empty; give a path under the data root, or a handle")
        path, index, digest = match["path"], int(match["index"] or 0), match["digest"]
        with open_inside(self.root, path) as opened:
            key = (opened.name, index, opened.identity)
            known = self._files.get(key)
            if isinstance(known, str) and (view := self.handles.find(known, FILES)) is not None:
                found: ChannelView | MapCover = view
            elif isinstance(known, MapCover):
                found = known
            else:
                found = self._read(opened.name, index, self.readers.channel(opened, index))
                self._files[key] = found if isinstance(found, MapCover) else found.channel_id
                while len(self._files) > REMEMBERED:
                    self._files.popitem(last=False)
        if digest and isinstance(found, ChannelView) and not found.channel_id.endswith(f"@{digest}"):
            raise UserError(f"{opened.name} has changed since this handle was made; use the path {opened.name}")
        return found

    def _read(self, path: str, index: int, found: Channel | dict[str, Any]) -> ChannelView | MapCover:
        if not isinstance(found, Channel):
            return MapCover(path, found)
        digest = hashlib.sha256(f"{path} {index} {found.subcarrier_spacing_hz} {found.snapshot_interval_s}".encode())
        digest.update(found.csi.tobytes())
        name = f"{path}{f'#{index}' if index else ''}@{digest.hexdigest()[:8]}"
        return self.handles.get(self.handles.put(found, FILES, name), FILES)

    async def map_survey(self, path: str, **place: Any) -> dict[str, Any]:
        """Coverage of a route or area of a radio map under the root (arguments of `survey_map`)."""

        def read() -> dict[str, Any]:
            with open_inside(self.root, path) as opened:
                return self.readers.survey(opened, **place)

        return await anyio.to_thread.run_sync(read)

    async def map_point(self, path: str, **point: float) -> dict[str, Any]:
        """Values of a radio map under the root at a point (`x_m`, `y_m`, `z_m`, `transmitter`)."""

        def read() -> dict[str, Any]:
            with open_inside(self.root, path) as opened:
                return self.readers.point(opened, **point)

        return await anyio.to_thread.run_sync(read)

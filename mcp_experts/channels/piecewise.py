"""A Zarr store that opens each piece without following links and checks that it is a regular file."""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import default_buffer_prototype

from geoml.errors import DataError
from mcp_experts.channels.opening import open_piece

__all__ = ["PiecewiseStore"]

#: Codecs and filters for numbers; others, such as pickles, are refused before they are constructed.
CODECS = frozenset(
    {"bytes", "transpose", "sharding_indexed", "blosc", "gzip", "zlib", "zstd", "lz4", "bz2", "lzma", "shuffle"}
    | {"delta", "fixedscaleoffset", "quantize", "bitround", "astype", "packbits", "pcodec", "zfpy", "vlen-utf8"}
    | {"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"}
)
#: Parts of the metadata that are not codecs.
PASSED_OVER = ("attributes", "fill_value", "data_type", "chunk_grid", "chunk_key_encoding")
METADATA = ("zarr.json", ".zarray", ".zmetadata")
MOST_PIECE = 2**30


class PiecewiseStore(Store):
    """Read-only Zarr store in a folder, which is opened once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(read_only=True)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._folder)

    supports_writes = supports_deletes = False
    supports_listing = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PiecewiseStore) and other._folder == self._folder

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """A piece or a part of it, or None if it does not exist; a `DataError` for a link or what is not a file."""
        data = self.read(key, byte_range)
        if data is None:
            return None
        if key.rpartition("/")[2] in METADATA:
            _check_codecs(key, data)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def read(self, key: str, byte_range: ByteRequest | None = None) -> bytes | None:
        """Bytes of a piece, or of a range of it."""
        try:
            piece = open_piece(self._folder, key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"piece {key} of this store cannot be opened ({error.strerror})") from error
        with os.fdopen(piece, "rb") as stream:
            size = os.fstat(piece).st_size
            start, end = _range(byte_range, size)
            if end - start > MOST_PIECE:
                raise DataError(f"piece {key} of this store has {size} bytes; at most {MOST_PIECE} are read at once")
            stream.seek(start)
            return stream.read(max(end - start, 0))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of several pieces, in order."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Return whether a piece exists."""
        try:
            os.close(open_piece(self._folder, key))
        except OSError:
            return False
        return True

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names in a folder of the store."""
        with contextlib.suppress(OSError):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            inner = os.open(prefix.strip("/") or ".", flags, dir_fd=self._folder)
            try:
                names = os.listdir(inner)
            finally:
                os.close(inner)
            for name in sorted(names):
                yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All pieces below a folder of the store."""
        with contextlib.suppress(OSError):
            for path, _, files, _ in os.fwalk(prefix.strip("/") or ".", dir_fd=self._folder, follow_symlinks=False):
                for name in files:
                    yield f"{path.removeprefix('./').removeprefix('.')}/{name}".lstrip("/")

    async def list(self) -> AsyncIterator[str]:
        """All pieces."""
        async for name in self.list_prefix(""):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refused."""
        self._check_writable()


def _range(wanted: ByteRequest | None, size: int) -> tuple[int, int]:
    if isinstance(wanted, RangeByteRequest):
        return wanted.start, min(wanted.end, size)
    if isinstance(wanted, OffsetByteRequest):
        return wanted.offset, size
    if isinstance(wanted, SuffixByteRequest):
        return max(0, size - wanted.suffix), size
    return 0, size


def _check_codecs(key: str, data: bytes) -> None:
    """Refuse arrays of objects and codecs that are not for numbers, before they are constructed."""
    try:
        pending: list[Any] = [json.loads(data)]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{key} of this store is not JSON") from error
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        if not isinstance(value, dict):
            continue
        pending += [part for name, part in value.items() if name not in PASSED_OVER and not name.endswith(".zattrs")]
        name = value.get("id") or (value.get("name") if "configuration" in value else None)
        if isinstance(name, str) and name.removeprefix("numcodecs.") not in CODECS:
            raise DataError(f"{key} of this store has codec {name[:40]!r}; only arrays of numbers are read")
        if value.get("dtype") == "|O" or value.get("data_type") == "variable_length_bytes":
            raise DataError(f"{key} of this store holds objects; only arrays of numbers are read")

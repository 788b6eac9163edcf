"""The process that reads files which nobody vouches for; `mcp_experts.serve.readers` starts it.

It gets descriptors, never paths, and has limits of memory and time that the system keeps: a file that unpacks to more,
or that takes a library for ever, ends this process and not the server.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from geoml.errors import DataError, UserError
from mcp_experts.channels.loading import NoChannel, channel_from_file
from mcp_experts.channels.opening import MOST_BYTES, OpenedPath
from mcp_experts.serve.maps import describe_map, query_map

__all__ = ["FRAME", "MOST_MEMORY", "MOST_S", "READY", "main"]

#: Bytes of address space, and seconds for one file.
MOST_MEMORY, MOST_S = 3 * 2**30, 20
#: Lengths of the JSON and of the coefficients that follow.
READY = b"ready"
FRAME = struct.Struct("!II")
MOST_REQUEST, MOST_TEXT = 4096, 600
#: Formats whose variables are known before one is read.
LAZY = (".nc", ".zarr")


def _serve_reads(connection: socket.socket) -> None:
    """Answer requests until the server goes away."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, MOST_REQUEST, 2)
        if not data:
            return
        signal.alarm(3 * MOST_S)  # ends this process where the server cannot any more
        try:
            head, body = _answer(json.loads(data), descriptors)
        except MemoryError:
            head, body = {"error": f"reading it takes more than {MOST_MEMORY >> 20} MiB of memory; cut it"}, b""
        except UserError as error:
            head, body = {"error": str(error)[:MOST_TEXT]}, b""
        except Exception as error:  # libraries raise what they like on broken files
            head, body = {"error": f"it cannot be read ({type(error).__name__})"}, b""
        finally:
            signal.alarm(0)
            for descriptor in descriptors:
                os.close(descriptor)
        text = json.dumps(head).encode()
        connection.sendall(FRAME.pack(len(text), len(body)) + text + body)


def _answer(request: Mapping[str, Any], descriptors: list[int]) -> tuple[dict[str, Any], bytes]:
    """A channel, what a radio map covers, or a map at a point."""
    path = OpenedPath.of(descriptors[0], request["name"], descriptors[1])
    if "point" in request:
        return {"point": query_map(path, **request["point"])}, b""
    if path.suffix in LAZY and (covered := describe_map(path)) is not None:
        return {"map": covered}, b""
    if request["size"] > MOST_BYTES:
        raise DataError(f"{path.name} has {request['size']} bytes; at most {MOST_BYTES} are read: cut it into parts")
    try:
        channel = channel_from_file(path, request["index"])
    except NoChannel:
        if path.suffix == ".npz" and (covered := describe_map(path)) is not None:
            return {"map": covered}, b""
        raise
    head = {name: getattr(channel, name) for name in ("subcarrier_spacing_hz", "snapshot_interval_s")}
    return {**head, "shape": channel.csi.shape}, np.ascontiguousarray(channel.csi).tobytes()


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(descriptor: int) -> None:
    """Serve the socket behind a descriptor, within limits, until the server goes away."""
    _limit()
    connection = socket.socket(fileno=descriptor)
    connection.sendall(READY)
    _serve_reads(connection)

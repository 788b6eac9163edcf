"""The process that reads untrusted files, started by `mcp_experts.serve.readers`.

It receives descriptors, not paths. The operating system enforces limits of memory and time: a file that unpacks to
more, or on which a library hangs, ends this process and not the server.
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
from mcp_experts.serve.map_surveys import survey_map
from mcp_experts.serve.maps import describe_map, query_map

__all__ = ["FRAME", "MOST_MEMORY", "MOST_S", "READY", "main"]

#: Limits: address space in bytes, and seconds for one file.
MOST_MEMORY, MOST_S = 3 * 2**30, 20
#: Header of an answer: lengths of the JSON and of the coefficients after it.
READY = b"ready"
FRAME = struct.Struct("!II")
MOST_REQUEST, MOST_TEXT = 8192, 600
#: Formats whose variables are listed without reading them.
LAZY = (".nc", ".zarr")


def _serve_reads(connection: socket.socket) -> None:
    """Answer requests until the connection closes."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, MOST_REQUEST, 2)
        if not data:
            return
        signal.alarm(3 * MOST_S)  # ends this process if the server no longer can
        try:
            head, body = _answer(json.loads(data), descriptors)
        except MemoryError:
            head, body = {"error": f"reading it takes more than {MOST_MEMORY >> 20} MiB of memory; split it"}, b""
        except UserError as error:
            head, body = {"error": str(error)[:MOST_TEXT]}, b""
        except Exception as error:  # libraries raise errors of any type on damaged files
            head, body = {"error": f"it cannot be read ({type(error).__name__})"}, b""
        finally:
            signal.alarm(0)
            for descriptor in descriptors:
                os.close(descriptor)
        text = json.dumps(head).encode()
        connection.sendall(FRAME.pack(len(text), len(body)) + text + body)


def _answer(request: Mapping[str, Any], descriptors: list[int]) -> tuple[dict[str, Any], bytes]:
    """A channel, the extent of a radio map, its values at a point, or its coverage of a place."""
    path = OpenedPath.of(descriptors[0], request["name"], descriptors[1])
    if "survey" in request:
        return {"survey": survey_map(path, **request["survey"])}, b""
    if "point" in request:
        return {"point": query_map(path, **request["point"])}, b""
    if path.suffix.lower() in LAZY and (covered := describe_map(path)) is not None:
        return {"map": covered}, b""
    if request["size"] > MOST_BYTES:
        raise DataError(f"{path.name} has {request['size']} bytes; at most {MOST_BYTES} are read: split it into parts")
    try:
        channel = channel_from_file(path, request["index"], request.get("options"))
    except NoChannel:
        if path.suffix.lower() == ".npz" and (covered := describe_map(path)) is not None:
            return {"map": covered}, b""
        raise
    head = {name: getattr(channel, name) for name in ("subcarrier_spacing_hz", "snapshot_interval_s")}
    return {**head, "shape": channel.csi.shape}, np.ascontiguousarray(channel.csi).tobytes()


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(descriptor: int) -> None:
    """Set the limits and serve the socket with this descriptor until the connection closes."""
    _limit()
    connection = socket.socket(fileno=descriptor)
    connection.sendall(READY)
    _serve_reads(connection)

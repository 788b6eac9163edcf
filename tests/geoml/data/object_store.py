"""An S3 server on this machine, with a tap for faults."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Server:
    """Moto's S3 behind a middleware: `fault(environ)` may sleep, or return an HTTP status to answer with instead."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.fault: Callable[[dict[str, Any]], str | None] | None = None
        self.requests: list[tuple[str, str]] = []
        self._inner = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        status = self.fault(environ) if self.fault else None
        if status is None:
            return self._inner(environ, start_response)
        start_response(status, [("Content-Type", "application/xml")])
        return [b"<Error><Code>InternalError</Code><Message>the tap is open</Message></Error>"]

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()


def slow(seconds: float) -> Callable[[dict[str, Any]], None]:
    """A fault that only delays."""
    return lambda environ: time.sleep(seconds)


@contextmanager
def s3_server(bucket: str = "rain-store") -> Iterator[Server]:
    """A server with an empty bucket, and the environment through which programs find it."""
    names = {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    with Server() as server:
        before = {name: os.environ.get(name) for name in (*names, "AWS_ENDPOINT_URL")}
        os.environ.update(names, AWS_ENDPOINT_URL=server.url)
        try:
            import s3fs

            # Moto keeps one state a process: a server started after another has to forget what that one held.
            urllib.request.urlopen(urllib.request.Request(f"{server.url}/moto-api/reset", method="POST"), timeout=30)
            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem(use_listings_cache=False).mkdir(bucket)
            yield server
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)

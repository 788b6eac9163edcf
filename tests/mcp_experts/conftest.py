"""Servers as other programs start them, in a process of their own; and a scripted model behind a real endpoint."""

import json
import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

TOKENS = ("first-token-0123456789", "second-token-0123456789")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def frames(seed, count=220):
    """Broken and odd messages: torn JSON, wrong types, huge numbers, NaN, unknown methods, bytes that are no text."""
    rng = random.Random(seed)
    good = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "wireless_load_synthetic", "arguments": {"snr_db": 10}},
    }
    odd = [None, True, -1, 1e308, "x" * 5000, [], {}, [[[]]], {"a": {"b": {}}}, "\u0000", "\ud83d\ude00"]
    for number in range(count):
        message = json.loads(json.dumps(good | {"id": number + 1}))
        kind = number % 8
        if kind == 0:
            text = json.dumps(message)
            yield text[: rng.randrange(1, len(text))].encode()
        elif kind == 1:
            message[rng.choice(list(message))] = rng.choice(odd)
            yield json.dumps(message).encode()
        elif kind == 2:
            message["params"]["arguments"] = {rng.choice(["snr_db", "seed", "colour"]): rng.choice(odd)}
            yield json.dumps(message).encode()
        elif kind == 3:
            yield json.dumps(message).replace("10", rng.choice(["NaN", "1e400", "-Infinity", "9" * 400])).encode()
        elif kind == 4:
            message["method"] = rng.choice(["tools/none", "", "resources/read", "prompts/get", "ping", "x" * 1000])
            yield json.dumps(message).encode()
        elif kind == 5:
            yield bytes(rng.randrange(1, 256) for _ in range(60)).replace(b"\n", b" ").replace(b"\r", b" ")
        elif kind == 6:
            message["params"]["name"] = rng.choice(["wireless_none", "wireless_ask", 3, None])
            yield json.dumps(message).encode()
        else:
            yield json.dumps([message, message]).encode()


@pytest.fixture(scope="session")
def broken_frames():
    return list(frames(0))


class Stdio:
    """`mcp-experts serve` on pipes, to which any bytes can be sent."""

    def __init__(self, *flags, version="2025-06-18", **options):
        command = [sys.executable, "-m", "mcp_experts", "serve", *flags]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
        self.lines, self.log = queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        client = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        self.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client})
        self.hello = self.answer(60)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def send(self, message):
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(data + b"\n")
        self.process.stdin.flush()

    def answer(self, seconds=20):
        line = self.lines.get(timeout=seconds)
        return None if line is None else json.loads(line)

    def call(self, tool, arguments, number=1):
        params = {"name": tool, "arguments": arguments}
        self.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        return self.answer()

    def alive(self):
        self.send({"jsonrpc": "2.0", "id": "ping", "method": "ping"})
        return self.answer() == {"jsonrpc": "2.0", "id": "ping", "result": {}}

    def end(self):
        """The exit code after the input has ended, and what was logged."""
        self.process.stdin.close()
        code = self.process.wait(timeout=20)
        return code, b"".join(self.log).decode()


class Child:
    """`mcp-experts serve --http` in a process of its own."""

    def __init__(self, *flags, tokens=()):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        environment = {**os.environ, "MCP_EXPERTS_TOKEN": ",".join(tokens)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mcp_experts", "serve", "--http", "--port", str(self.port), *flags],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        self.process.kill()
        raise RuntimeError(f"the server did not start: {self.process.stderr.read()}")

    def post(self, body, *, token=None, **headers):
        """One JSON-RPC message, or raw bytes; the response."""
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            **({"authorization": f"Bearer {token}"} if token else {}),
            **headers,
        }
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx2.post(self.url, content=content, headers=headers, timeout=30)

    def call(self, tool, arguments, *, token=None):
        """A tool's result, in the era of the handshake, which stateless HTTP leaves out."""
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        response = self.post(message, token=token, **{"mcp-protocol-version": "2025-06-18"})
        assert response.status_code == 200, response.text
        return response.json()["result"]

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=20)
        return self.process.stderr.read()


@pytest.fixture
def start_stdio():
    """Start servers on pipes; those still running are killed with the test."""
    children = []

    def start(*flags, **options):
        children.append(Stdio(*flags, **options))
        return children[-1]

    yield start
    for child in children:
        child.process.kill()
        child.process.wait()


@pytest.fixture
def start_server():
    """Start further servers; one that the test has not closed is ended with it."""
    children = []

    def start(*flags, **options):
        children.append(Child(*flags, **options))
        return children[-1]

    yield start
    for child in children:
        if child.process.poll() is None:
            child.close()


@pytest.fixture(scope="session")
def tokens():
    return TOKENS


@pytest.fixture(scope="session")
def open_server(tmp_path_factory):
    child = Child("--root", str(tmp_path_factory.mktemp("root")))
    yield child
    child.close()


@pytest.fixture(scope="session")
def page_server():
    """A server that lets pages of an origin ask."""
    child = Child("--allow-origin", "https://app.example", tokens=TOKENS)
    yield child
    child.close()


@pytest.fixture(scope="session")
def guarded_server():
    child = Child(tokens=TOKENS)
    yield child
    child.close()


class ScriptedModel:
    """An endpoint that speaks OpenAI's wire format and answers by a script: a function of the request's messages."""

    def __init__(self, script):
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(body)
                status, message, *usage = script(len(outer.requests), body)
                answer = {
                    "id": "scripted",
                    "object": "chat.completion",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": usage[0] if usage else {"prompt_tokens": 100, "completion_tokens": 10},
                }
                data = json.dumps(answer if status == 200 else {"error": message}).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def scripted():
    """Start endpoints by script; all are ended with the test."""
    models = []

    def start(script):
        models.append(ScriptedModel(script))
        return models[-1]

    yield start
    for model in models:
        model.close()

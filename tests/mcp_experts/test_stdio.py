"""The stdio transport as a child process: light, alive under broken frames, and driven by another process's client."""

import json
import subprocess
import sys
import threading

import anyio
from mcp import Client, StdioServerParameters

SERVE = [sys.executable, "-m", "mcp_experts", "serve"]
HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def feed(stream, lines):
    stream.write(b"\n".join(lines) + b"\n")
    stream.flush()


def test_broken_frames_neither_kill_nor_hang_the_server(tmp_path, broken_frames):
    last = {"jsonrpc": "2.0", "id": "last", "method": "tools/list", "params": {}}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    lines = [json.dumps(HELLO).encode(), json.dumps(ready).encode(), *broken_frames, json.dumps(last).encode()]
    with open(tmp_path / "log.txt", "w+b") as log:
        child = subprocess.Popen(SERVE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        alarm = threading.Timer(120, child.kill)
        alarm.start()
        threading.Thread(target=feed, args=(child.stdin, lines), daemon=True).start()
        answers = []
        for line in child.stdout:
            answers.append(json.loads(line))
            if answers[-1].get("id") == "last":
                break
        alarm.cancel()
        child.stdin.close()
        assert child.wait(timeout=30) == 0
        log.seek(0)
        text = log.read()
    assert "tools" in answers[-1]["result"]
    assert b"Traceback" not in text, text[-2000:].decode()
    assert len(answers) > 100
    # What is not finite never becomes a channel.
    for answer in answers:
        text = json.dumps(answer)
        assert "NaN" not in text
        assert "Infinity" not in text


def test_a_client_starts_the_server_and_asks_it(tmp_path):
    async def run():
        parameters = StdioServerParameters(command=SERVE[0], args=[*SERVE[1:], "--root", str(tmp_path)])
        async with Client(parameters) as client:
            loaded = await client.call_tool("wireless_load_synthetic", {"snr_db": 25})
            arguments = {"channel_id": loaded.structured_content["channel_id"]}
            described = await client.call_tool("wireless_describe_channel", arguments)
            picture = await client.read_resource(f"channel://{arguments['channel_id']}/picture")
            summary = await client.read_resource(f"channel://{arguments['channel_id']}/summary")
            missing = await client.call_tool("wireless_load_file", {"path": "none.npz"})
            return described, picture.contents[0], json.loads(summary.contents[0].text), missing

    described, picture, summary, missing = anyio.run(run)
    assert len(described.structured_content["verdicts"]) >= 9
    assert picture.mime_type == "image/png"
    labels = {verdict["expert"]: verdict["label"] for verdict in described.structured_content["verdicts"]}
    assert {verdict["expert"]: verdict["label"] for verdict in summary} == labels | {"ood": "inside"}
    assert missing.is_error
    assert str(tmp_path) not in missing.content[0].text


def test_serving_imports_nothing_heavy():
    """Every expert answers once in a process that must not have loaded what only training needs."""
    program = """
import anyio, sys
from mcp import Client
from mcp_experts.__main__ import APP
from mcp_experts.serve.server import build_server
import mcp_experts.serve.verb, mcp_experts.serve.http

async def run():
    async with Client(build_server()) as client:
        loaded = await client.call_tool("wireless_load_synthetic", {})
        arguments = {"channel_id": loaded.structured_content["channel_id"]}
        for tool in (await client.list_tools()).tools:
            if list(tool.input_schema["properties"]) == ["channel_id"] and not tool.annotations.destructive_hint:
                result = await client.call_tool(tool.name, arguments)
                assert not result.is_error, result

anyio.run(run)
heavy = {"torch", "sionna", "hydra", "omegaconf", "scipy", "xarray", "dask", "matplotlib", "sklearn", "rasterio"}
print(sorted(heavy & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"

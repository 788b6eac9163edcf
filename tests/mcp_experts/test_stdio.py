"""The stdio transport as a child process: light, alive under broken frames, and driven by another process's client."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest
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


CALL = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"wireless_expert_card","arguments":'
CARD = CALL + b'{"expert":"%s"}}}'
LONG = b'{"jsonrpc":"2.0","id":10,"method":"resources/read","params":{"uri":"' + b"x" * (1 << 20) + b'"}}'
PINGS = b'[{"jsonrpc":"2.0","id":2,"method":"ping"},{"jsonrpc":"2.0","id":"3","method":"ping"}]'
DEEP = b'{"jsonrpc":"2.0","id":5,"method":"ping","params":' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}"


@pytest.mark.fault(
    "a line that is not JSON, to the experts' server", "an error with the request's id where it can be read"
)
def test_what_cannot_be_parsed_is_answered(start_stdio):
    server = start_stdio()
    for line, code, identifier in (
        (CARD % (1, b"los\\ud83d"), -32700, 1),
        (CARD % (1, b"\\udc00los"), -32700, 1),
        (CARD % (2, b"los\xff"), -32700, 2),
        (PINGS, -32600, None),
        (b"[]", -32600, None),
        (DEEP, -32700, 5),
        (b"[" * 100_000, -32700, None),
        (b'{"jsonrpc":"2.0","id":6,"method":"ping"', -32700, 6),
        (b'{"jsonrpc":"2.0","id":6', -32700, None),
        (b'{"params":{"id":1},"id":"x","method":', -32700, "x"),
        ('{"jsonrpc":"2.0","id":7,"method":"ping"}'.encode("utf-16"), -32700, None),
        (b'{"jsonrpc":"2.0","id":8,"method":"ping"} trailing', -32700, 8),
        (b'{"jsonrpc":"1.0","id":9,"method":"ping"}', -32600, 9),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None),
        (b"3", -32600, None),
        (
            b'{"jsonrpc":"2.0","id":10,"method":"resources/read","params":{"uri":"' + b"x" * (1 << 20) + b'"}}',
            -32600,
            10,
        ),
    ):
        server.send(line)
        answer = server.answer()
        assert (answer["error"]["code"], answer["id"]) == (code, identifier), line[:80]
    for fine in (
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":4,"method":"ping"}',
        b'\r\n  \n{"jsonrpc":"2.0","id":4,"method":"ping"}\r',
    ):
        server.send(fine)
        assert server.answer() == {"jsonrpc": "2.0", "id": 4, "result": {}}
    assert server.alive()
    assert server.end() == (0, "")


def test_batches_are_taken_in_the_version_that_has_them(start_stdio):
    server = start_stdio(version="2025-03-26")
    server.send(PINGS)
    assert sorted(str(part["id"]) for part in server.answer()) == ["2", "3"]
    server.send(b'[{"jsonrpc":"2.0","id":2,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/x"},3,{"id":1}]')
    assert {part["id"]: "error" in part for part in server.answer()} == {2: False, None: True, 1: True}
    server.send(b'[{"jsonrpc":"2.0","method":"notifications/x"}]')
    for _ in range(80):  # places of batches come back
        server.send(PINGS)
        assert len(server.answer()) == 2
    assert server.alive()


@pytest.mark.fault(
    "a file name that is not UTF-8 under the experts' root", "escaped where files are listed; the server continues"
)
def test_a_file_name_that_is_not_utf8_kills_nothing(start_stdio, tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.npz")).write_bytes(b"x")
    server = start_stdio("--root", str(tmp_path))
    for path in ("nope.npz", "caf\\xe9.npz", "\N{GRINNING FACE}.npz"):
        result = server.call("wireless_ask", {"source": path, "question": "snr"})["result"]
        assert result["isError"]
        assert "caf\\xe9.npz" in result["content"][0]["text"]
    assert server.alive()
    assert server.end() == (0, "")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_server_at_once(start_stdio, sent):
    server = start_stdio(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    server.process.send_signal(sent)
    assert server.process.wait(timeout=20) == (130 if sent == signal.SIGINT else -signal.SIGTERM)
    assert b"".join(server.log) == b""


def test_ctrl_c_in_a_terminal_ends_the_server():
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background of a shell ignores it
        os.execv(sys.executable, SERVE)
    signal.alarm(60)  # whatever happens, the test ends
    shown = b""
    while b"waiting for a client" not in shown:
        shown += os.read(terminal, 1000)
    time.sleep(0.5)
    begin = time.monotonic()
    os.write(terminal, b"\x03")
    with contextlib.suppress(OSError):
        while os.read(terminal, 1000):
            pass
    _, status = os.waitpid(pid, 0)
    signal.alarm(0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert time.monotonic() - begin < 20


def test_nulls_for_optional_arguments_count_as_left_out(start_stdio):
    server = start_stdio()
    everything = (
        "delay_spread_s",
        "doppler_hz",
        "k_factor_db",
        "snr_db",
        "bandwidth_hz",
        "duration_s",
        "antennas",
        "seed",
    )
    loaded = server.call("wireless_load_synthetic", dict.fromkeys(everything))["result"]
    assert not loaded["isError"], loaded
    assert not server.call("wireless_list", {"cursor": None})["result"]["isError"]
    asked = {"source": loaded["structuredContent"]["channel_id"], "question": "snr"}
    assert not server.call("wireless_ask", asked | {"at": None})["result"]["isError"]
    needed = server.call("wireless_ask", asked | {"source": None})["result"]
    assert needed["isError"]
    assert "source" in needed["content"][0]["text"]
    for params in (
        {"name": "nope"},
        {"name": "diagnose_channel"},
        {"name": "diagnose_channel", "arguments": {"x": "1"}},
    ):
        server.send({"jsonrpc": "2.0", "id": 7, "method": "prompts/get", "params": params})
        assert server.answer()["error"]["code"] == -32602
    assert server.end() == (0, "")


def resident_mb(process):
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.fault("line of 200 MiB to the experts' server", "an error, then the end; memory does not grow")
def test_a_line_without_end_is_bounded(start_stdio):
    server = start_stdio()
    before, most = resident_mb(server.process), 0.0
    server.process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":')
    with contextlib.suppress(BrokenPipeError):
        for _ in range(200):
            server.process.stdin.write(b"y" * (1 << 20))
            server.process.stdin.flush()
            most = max(most, resident_mb(server.process) - before)
    assert most < 20
    refused = server.answer()
    assert (refused["error"]["code"], refused["id"]) == (-32600, 1)
    assert server.process.wait(timeout=20) == 0


STALLED = """
import sys
from mcp_experts.serve import stdio
stdio.STALLED_S = 3
from mcp_experts.__main__ import main
sys.exit(main(["serve"]))
"""


@pytest.mark.fault("client of the experts' server that never reads", "no more of it is read; ended after 30 s")
def test_a_client_that_never_reads_is_bounded():
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", STALLED], **pipes)
    process.stdin.write(json.dumps(HELLO).encode() + b"\n")
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode() + b"\n"
    sent = 0
    with contextlib.suppress(BrokenPipeError):
        while sent < 50_000_000:
            process.stdin.write(line)
            sent += len(line)
    assert sent < 5_000_000
    assert process.wait(timeout=30) == 1
    assert b"has read nothing for 3 s" in process.stderr.read()
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def test_a_client_starts_the_server_and_asks_it(tmp_path):
    async def run():
        parameters = StdioServerParameters(command=SERVE[0], args=[*SERVE[1:], "--root", str(tmp_path)])
        async with Client(parameters) as client:
            loaded = await client.call_tool("wireless_load_synthetic", {"snr_db": 25})
            source = loaded.structured_content["channel_id"]
            described = await client.call_tool("wireless_describe", {"source": source})
            picture = await client.read_resource(f"channel://{source}/picture")
            summary = await client.read_resource(f"channel://{source}/summary")
            missing = await client.call_tool("wireless_ask", {"source": "none.npz", "question": "snr"})
            return described, picture.contents[0], json.loads(summary.contents[0].text), missing

    described, picture, summary, missing = anyio.run(run)
    assert len(described.structured_content["answers"]) >= 9
    assert picture.mime_type == "image/png"
    assert {verdict["expert"] for verdict in summary} >= {"los", "snr", "ood"}
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
    async with Client(build_server(toolsets=['all'])) as client:
        loaded = await client.call_tool("wireless_load_synthetic", {})
        arguments = {"source": loaded.structured_content["channel_id"]}
        for tool in (await client.list_tools()).tools:
            if list(tool.input_schema["properties"]) == ["source"] and not tool.annotations.destructive_hint:
                result = await client.call_tool(tool.name, arguments)
                assert not result.is_error, result

anyio.run(run)
heavy = {"torch", "sionna", "hydra", "omegaconf", "scipy", "xarray", "dask", "matplotlib", "sklearn", "rasterio"}
print(sorted(heavy & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"

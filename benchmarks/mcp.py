"""The server of the experts compared with a minimal server on the bare SDK: call time, start, memory, throughput.

Both run as child processes, are called by the same client and take turns, so other work on the machine slows both.
The bare server has one tool that echoes a string. Our server returns a verdict on a loaded channel. Ratios are those
of the two medians over the rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

# This file is called what the SDK is: it must not be found in its place.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.modules.pop("mcp", None)

import httpx2  # noqa: E402
from mcp import Client, StdioServerParameters  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parent))
from harness import main  # noqa: E402

BARE = """
import sys
from mcp.server import MCPServer
server = MCPServer("bare", log_level="WARNING")

@server.tool(description="Echoes")
async def echo(text: str) -> str:
    return text

if sys.argv[1] == "stdio":
    server.run("stdio")
else:
    import uvicorn
    app = server.streamable_http_app(json_response=True, stateless_http=True)
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""
OURS = ["-m", "mcp_experts", "serve"]
SLOW = 300


def command(name: str, port: int | None) -> list[str]:
    """Return the command that starts one of the two servers; on stdio if there is no port."""
    if name == "bare":
        return ["-c", BARE, "stdio" if port is None else str(port)]
    return [*OURS, *([] if port is None else ["--http", "--port", str(port)])]


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children() -> set[int]:
    """Return the ids of child processes of this process."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()))


@contextlib.asynccontextmanager
async def child(name: str) -> AsyncIterator[tuple[Client, int, float]]:
    """A client of a fresh server on stdio, the server's process, and the seconds to its first answer."""
    before, begin = children(), time.perf_counter()
    async with Client(StdioServerParameters(command=sys.executable, args=command(name, None))) as client:
        await client.list_tools()
        ready = time.perf_counter() - begin
        yield client, max(children() - before), ready


async def arguments_of(client: Client, name: str) -> tuple[str, dict[str, str]]:
    """A call to make many times."""
    if name == "bare":
        return "echo", {"text": "x" * 40}
    loaded = await client.call_tool("wireless_load_synthetic", {"antennas": 2})
    return "wireless_ask", {
        "source": (loaded.structured_content or {})["channel_id"],
        "question": "line_of_sight",
    }


async def every_expert(client: Client, arguments: dict[str, str]) -> None:
    """Have each expert answer once."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    for question in tools["wireless_ask"].input_schema["properties"]["question"]["enum"]:
        if question in ("path_gain", "delay"):  # of radio maps
            continue
        result = await client.call_tool("wireless_ask", arguments | {"question": question})
        if result.is_error:
            raise AssertionError(result.content)


async def stdio_figures(rounds: int, calls: int) -> dict[str, float]:
    """Ratios of start, of call time, and of memory after every expert answered."""
    starts: dict[str, list[float]] = {"bare": [], "ours": []}
    medians: dict[str, list[float]] = {"bare": [], "ours": []}
    memory: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(rounds):
        for name in ("bare", "ours"):
            async with child(name) as (client, pid, ready):
                starts[name].append(ready)
                tool, arguments = await arguments_of(client, name)
                taken = []
                for _ in range(calls):
                    begin = time.perf_counter()
                    await client.call_tool(tool, arguments)
                    taken.append(time.perf_counter() - begin)
                medians[name].append(statistics.median(taken))
                if name == "ours":
                    await every_expert(client, arguments)
                memory[name].append(resident(pid))
    for what, values, unit in (("start", starts, 1.0), ("call", medians, 1e-3), ("memory", memory, 1e6)):
        print(what, {name: round(statistics.median(each) / unit, 2) for name, each in values.items()})
    ratio = {
        key: statistics.median(values["ours"]) / statistics.median(values["bare"])
        for key, values in (("start", starts), ("call", medians), ("memory", memory))
    }
    return {
        "stdio_p50_over_bare": ratio["call"],
        "cold_start_over_bare": ratio["start"],
        "rss_over_bare": ratio["memory"],
    }


@contextlib.contextmanager
def http_server(name: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Context manager: start a server over HTTP on a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, *command(name, port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"{name} did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp", process
    finally:
        process.terminate()
        process.wait()


async def hammer(
    url: str, tool: str, arguments: dict[str, str], *, ways: int, seconds: float
) -> tuple[list[float], int]:
    """Seconds of each call of so many clients at a time, and how many calls failed."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    taken: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def one(client: httpx2.AsyncClient) -> None:
        nonlocal failed
        while (begin := time.perf_counter()) < end:
            try:
                response = await client.post(url, json=message, headers=headers)
                well = response.status_code == 200 and not response.json()["result"].get("isError")
            except (httpx2.HTTPError, KeyError, ValueError):
                well = False
            taken.append(time.perf_counter() - begin)
            failed += not well

    async with httpx2.AsyncClient(timeout=60) as client:
        await asyncio.gather(*(one(client) for _ in range(ways)))
    return taken, failed


async def load_over_http(url: str) -> tuple[str, dict[str, str]]:
    """The call to make many times of our server over HTTP."""
    async with Client(url) as client:
        return await arguments_of(client, "ours")


async def http_figures(rounds: int, seconds: float) -> dict[str, float]:
    """Calls a second at 16-way, ours over bare, both servers up and taking turns."""
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    with http_server("bare") as (bare, _), http_server("ours") as (ours, _):
        calls = {"bare": (bare, "echo", {"text": "x" * 40}), "ours": (ours, *await load_over_http(ours))}
        for _ in range(rounds):
            for name, (url, tool, arguments) in calls.items():
                taken, failed = await hammer(url, tool, arguments, ways=16, seconds=seconds)
                if failed:
                    raise AssertionError(f"{name}: {failed} calls failed")
                rates[name].append(len(taken) / seconds)
    print("calls a second", {name: round(statistics.median(each)) for name, each in rates.items()})
    return {"http_calls_s_over_bare": statistics.median(rates["ours"]) / statistics.median(rates["bare"])}


async def lasting_figures(seconds: float) -> dict[str, float]:
    """Errors and growth of memory under load, and the 99th percentile with 300 slow connections over that without."""
    with http_server("ours") as (url, process):
        tool, arguments = await load_over_http(url)
        await hammer(url, tool, arguments, ways=4, seconds=10)
        before = resident(process.pid)
        _, failed = await hammer(url, tool, arguments, ways=4, seconds=seconds)
        growth = resident(process.pid) / before - 1
        idle, _ = await hammer(url, tool, arguments, ways=1, seconds=10)
        port = int(url.split(":")[2].split("/")[0])
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(SLOW)]
        for connection in slow:
            connection.sendall(b"POST /mcp HTTP/1.1\r\nX-Slow: ")
        held, more = await hammer(url, tool, arguments, ways=1, seconds=8)
        for connection in slow:
            connection.close()
    p99 = [sorted(taken)[int(0.99 * (len(taken) - 1))] for taken in (idle, held)]
    print(f"p99 {1e3 * p99[0]:.2f} ms without and {1e3 * p99[1]:.2f} ms with {SLOW} slow connections")
    return {"soak_errors": failed + more, "soak_rss_growth": growth, "p99_slow_over_idle": p99[1] / p99[0]}


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    figures: dict[str, float | None] = dict(asyncio.run(stdio_figures(*((2, 100) if quick else (5, 500)))))
    figures |= asyncio.run(http_figures(*((2, 2.0) if quick else (5, 5.0))))
    if quick:
        return figures | dict.fromkeys(("soak_errors", "soak_rss_growth", "p99_slow_over_idle"))
    return figures | asyncio.run(lasting_figures(600.0))


if __name__ == "__main__":
    main("mcp", measure)

"""`wireless_trace`: paths in a scene under the data root, by the command `radiomaps paths` in a separate process.

The process reads a copy of the scene, so that no link is followed, under limits of time and memory. It ends with the
request. This package does not import `radiomaps`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL
from typing import Annotated, Any

import anyio
import numpy as np
from anyio.abc import Process
from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.tools.base import Tool
from mcp_types import CallToolResult
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import TypedDict

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import UserError
from mcp_experts.channels.arrays import read_arrays
from mcp_experts.channels.opening import Opened, open_inside
from mcp_experts.inference.sentences import natural
from mcp_experts.serve.readers import ALONE, search_path
from mcp_experts.serve.state import State
from mcp_experts.serve.strict import answer, strict_tool

__all__ = ["Trace", "trace_tool"]

#: Formats of scenes that are one file each. Mitsuba's XML names other files.
SCENES = (".geojson", ".osm")
#: Limits of a scene in bytes, of the process in bytes of address space and seconds, and of receivers of one call.
MOST_BYTES, MOST_MEMORY, MOST_S, MOST_RECEIVERS = 32 * 2**20, 16 * 2**30, 120.0, 16
#: Largest coordinate in metres, seconds between reports of progress, and characters of an error.
FARTHEST, TICK_S, MOST_TEXT = 1e5, 2.0, 400
#: Rays that discover paths, and the largest number of reflections.
RAYS, MOST_BOUNCES = 100_000, 6
#: Code of the process: its limit of memory, the search path of this process, then the command.
START = (
    "import json, resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2); "
    "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); resource.setrlimit(resource.RLIMIT_CPU, (600, 600)); "
    "sys.path[:] = json.loads(sys.argv[2]); sys.argv[1:] = sys.argv[3:]; "
    "runpy.run_module('radiomaps', run_name='__main__', alter_sys=True)"
)


class Trace(TypedDict):
    """Paths to receivers: a sentence for each, its values, and the inputs."""

    answer: str
    receivers: list[dict[str, float | bool | None]]
    inputs: dict[str, Any]


def trace_tool(state: State) -> Tool:
    """The tool; one trace runs at a time."""
    room = anyio.CapacityLimiter(1)

    async def trace(
        scene: Annotated[str, Field(description="Scene under the data root: .geojson or .osm", max_length=512)],
        transmitter: Annotated[str, Field(description="'x,y,z' in metres of the scene", max_length=64)],
        receivers: Annotated[
            str, Field(description=f"Up to {MOST_RECEIVERS} points 'x,y,z; x,y,z; …'", max_length=1024)
        ],
        frequency_ghz: Annotated[float, Field(description="Carrier", ge=0.4, le=100)] = 5.9,
        bounces: Annotated[int, Field(description="Reflections", ge=0, le=MOST_BOUNCES)] = 3,
        diffraction: Annotated[bool, Field(description="Also round corners and over roofs")] = False,
        metric: Annotated[
            bool | None, Field(description="GeoJSON is in metres (true) or degrees (false); null: by its size")
        ] = None,
        ctx: Context[Any, Any] | None = None,
    ) -> Annotated[CallToolResult, Trace]:
        (source,) = _points(transmitter, "transmitter", 1)
        points = _points(receivers, "receivers", MOST_RECEIVERS)
        options = {"frequency_hz": frequency_ghz * 1e9, "depth": bounces, "diffraction": diffraction}
        if room.available_tokens < 1:
            raise UserError("another trace is running; ask again when it has ended")
        async with room:
            with open_inside(state.root, scene, SCENES) as opened, tempfile.TemporaryDirectory() as folder:
                _copy(opened, place := Path(folder, f"scene{Path(opened.name).suffix}"))
                extra = {} if metric is None else {"scene.metric": json.dumps(metric)}
                await _run(_command(place, source, points, options, extra), Path(folder), ctx)
                found = read_arrays(Path(folder, "paths.npz")).arrays
            return _told(opened.name, source, points, options, found)

    return strict_tool(
        trace,
        name="wireless_trace",
        title="Trace paths in a scene",
        description=(
            "What if: finds the paths from a transmitter to receivers in a scene of buildings (line of sight, gain, "
            "delay). Takes up to two minutes."
        ),
    )


def _points(text: str, name: str, most: int) -> list[tuple[float, float, float]]:
    found = []
    for part in [part for part in text.replace("(", "").replace(")", "").split(";") if part.strip()]:
        try:
            x, y, z = (float(value) for value in part.split(","))
        except ValueError:
            raise UserError(f"{name}: {part.strip()[:40]!r} is no point; expected 'x,y,z' in metres") from None
        if not all(math.isfinite(value) and abs(value) <= FARTHEST for value in (x, y, z)):
            raise UserError(f"{name}: expected coordinates of at most {FARTHEST:g} m")
        found.append((x, y, z))
    if not 1 <= len(found) <= most:
        raise UserError(
            f"{name}: {len(found)} points; expected 1 to {most}" if most > 1 else f"{name}: expected 'x,y,z'"
        )
    return found


def _copy(opened: Opened, place: Path) -> None:
    if opened.size > MOST_BYTES:
        raise UserError(f"{opened.name} has {opened.size} bytes; at most {MOST_BYTES} are traced: cut out a part")
    with open(opened.descriptor, "rb", closefd=False) as scene, open(place, "wb") as copy:
        shutil.copyfileobj(scene, copy)


def _command(
    scene: Path,
    source: tuple[float, float, float],
    points: Sequence[tuple[float, float, float]],
    options: dict[str, Any],
    extra: dict[str, str],
) -> list[str]:
    folder = scene.parent
    settings = {
        "scene": "file",
        "scene.path": str(scene),
        "transmitters.positions_m": json.dumps([source]),
        "receivers.positions_m": json.dumps(list(points)),
        "rays": RAYS,
        "file": str(folder / "paths.npz"),
        "run.dir": str(folder / "run"),
        **{f"options.{name}": json.dumps(value) for name, value in options.items()},
        **extra,
    }
    start = [sys.executable, "-P", "-c", START, str(MOST_MEMORY), json.dumps(search_path()), "paths"]
    return [*start, *(f"{name}={value}" for name, value in settings.items())]


async def _run(command: list[str], folder: Path, ctx: Context[Any, Any] | None) -> None:
    """Run the command; the process and its children end with the request. A `UserError` has its last line."""
    log = folder / "log"
    with open(log, "wb") as sink:
        process = await anyio.open_process(
            command, stdin=DEVNULL, stdout=sink, stderr=sink, cwd=folder, env=os.environ | ALONE, start_new_session=True
        )
    try:
        with anyio.move_on_after(MOST_S) as limit:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_report, ctx)
                await process.wait()
                tasks.cancel_scope.cancel()
    finally:
        _end(process)
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await process.wait()
    if limit.cancelled_caught and process.returncode != 0:
        raise UserError(f"the trace took more than {MOST_S:g} s; ask for fewer receivers or bounces, or cut the scene")
    if process.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
        said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
        why = said.removeprefix("error: ").replace(str(folder), "")[:MOST_TEXT]
        raise UserError(f"radiomaps paths refused it: {why}")


def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _report(ctx: Context[Any, Any] | None) -> None:
    """Seconds so far, of the most that a trace may take, to clients that asked for progress."""
    begin = anyio.current_time()
    while ctx is not None:
        await anyio.sleep(TICK_S)
        passed = anyio.current_time() - begin
        with contextlib.suppress(ValueError, LookupError):
            await ctx.report_progress(round(passed), MOST_S, f"tracing for {passed:.0f} s")


def _told(
    scene: str,
    source: tuple[float, float, float],
    points: Sequence[tuple[float, float, float]],
    options: dict[str, Any],
    found: dict[str, NDArray[Any]],
) -> CallToolResult:
    rows, said = [], []
    for number, point in enumerate(points):
        distance = math.dist(source, point)
        free = 20 * math.log10(SPEED_OF_LIGHT / (4 * math.pi * max(distance, 1e-3) * options["frequency_hz"]))
        delays, gain = found["delay_s"][0, number], float(found["path_gain_db"][0, number])
        paths = int(found["path_count"][0, number])
        clear = bool(((found["bounces"][0, number] == 0) & ~found["diffracted"][0, number].astype(bool))[:paths].any())
        row = {
            "clear": clear,
            "path_gain_db": round(gain, 1) if paths else None,
            "first_delay_s": float(f"{np.nanmin(delays):.4g}") if paths else None,
            "paths": paths,
            "distance_m": round(distance, 2),
            "free_space_db": round(free, 1),
        }
        rows.append(row)
        where = f"Receiver {number + 1} at ({', '.join(f'{value:g}' for value in point)})"
        if not paths:
            said.append(f"{where}: blocked, and no path reaches it.")
            continue
        sight = "the direct path is clear" if clear else "the direct path is blocked"
        count = f"{paths} path{'s' if paths > 1 else ''}"
        said.append(
            f"{where}: {sight}; gain {gain:.1f} dB over {count} (free space {free:.1f} dB at {distance:.3g} m), first "
            f"arrival after {natural(row['first_delay_s'], 's')}."
        )
    inputs = {"scene": scene, "transmitter_m": list(source), **options, "rays": RAYS, "antennas": "isotropic, vertical"}
    round_corners = "with" if options["diffraction"] else "without"
    stated = (
        f"Inputs: {scene}, transmitter at ({', '.join(f'{value:g}' for value in source)}), "
        f"{options['frequency_hz'] / 1e9:g} GHz, up to {options['depth']} reflections, {round_corners} diffraction, "
        "isotropic antennas, materials of the scene."
    )
    return answer({"answer": " ".join(said), "receivers": rows, "inputs": inputs}, text="\n".join([*said, stated]))

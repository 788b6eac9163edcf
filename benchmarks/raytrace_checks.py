"""Additional measurements of `raytrace.py`: maps of shifted and turned cities, and traces in new processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geoml.grids.grid import Grid
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace import TraceOptions, trace
from radiomaps.scenes import Scene, load

Gains = np.ndarray[Any, np.dtype[Any]]
_PROGRAM = """
import json, re, sys, time
sys.path.insert(0, sys.argv[1])
import raytrace
raytrace.ours(*raytrace.cases(sys.argv[3] == "quick", sys.argv[2]))
seconds = time.process_time()
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())  # ru_maxrss is that of the parent, if more
print(json.dumps([seconds, int(peak[1]) / 1e6]))
"""


def of_one_material(scene: Scene) -> Scene:
    """Return the scene with the walls' material on its roofs too.

    Sionna's exact solver finds no edge between walls and a roof of two materials, as its cities have them.
    """
    walls = next(mesh.material for mesh in scene.meshes if mesh.kind == "building")
    return scene.furnished(walls=walls, roofs=walls)


def in_new_processes(city: str, quick: bool) -> tuple[float, float, float]:
    """Trace once in new processes: processor seconds with an empty and a filled kernel cache, and memory in GB."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(Path(__file__).parent), city, "quick" if quick else "whole"]
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAM, *arguments], env={**os.environ, "DRJIT_CACHE_DIR": folder},
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            found.append(json.loads(done.stdout.splitlines()[-1]))
    (empty, _), (filled, peak) = found
    print(f"{city}: paths in new processes {empty:.1f} s, with filled cache {filled:.1f} s, {peak:.2f} GB", flush=True)
    return empty, filled, peak


def rigid(scene: Scene, turns: int, by: Gains) -> Scene:
    """Return the scene turned counter-clockwise about the vertical by quarter turns, and then shifted."""
    matrix = np.linalg.matrix_power(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), turns)
    meshes = tuple(replace(mesh, vertices=mesh.vertices @ matrix.T + by) for mesh in scene.meshes)
    return replace(scene, meshes=meshes, footprints=())


def alike(here: Any, there: Any) -> float:
    """Return the share of voxels with equal masks, gain to .01 dB, delay to .01 ns and direction to .01 degrees."""
    same = np.ones(here.path_gain_db.shape, bool)
    for mask in ("los", "no_path", "building"):
        same &= np.broadcast_to(here[mask].values == there[mask].values, same.shape)
    flat = np.sin(here.doa_zenith.values)
    for name, most in (("path_gain_db", 0.01), ("toa_s", 1e-11), ("doa_azimuth", 0.01), ("doa_zenith", 0.01)):
        apart = np.abs(here[name].values - there[name].values)
        if name == "doa_azimuth":
            apart = np.minimum(apart, 2 * np.pi - apart) * flat
        apart = np.degrees(apart) if name.startswith("doa") else apart
        same &= ~(apart >= most)  # NaN in both, where masks agree
    return float(same.mean())


def moved(quick: bool) -> dict[str, float]:
    """Return the shares of voxels of munich that shifts and quarter turns leave unchanged, and the changes by turns."""
    scene, half = load("munich"), 24.0 if quick else 128.0
    middle, antenna = np.array([500.0, -350.0, 0.0]), np.array([16.0, 10.0, 28.0])
    options = TraceOptions(rays=200_000 if quick else 1_000_000, diffraction=True)

    def traced(by: Gains, turns: int = 0) -> Any:
        """Return the map around the centre, moved to `by`; a turned map is turned back."""
        x, y, z = by
        low, high = {"z": z + 1, "y": y - half, "x": x - half}, {"z": z + 5, "y": y + half, "x": x + half}
        east, north, up = antenna
        for _ in range(turns):
            east, north = -north, east
        place = Transmitter((float(x + east), float(y + north), float(z + up)))
        there = rigid(rigid(scene, 0, -middle), turns, by)
        return trace(there, [place], Grid.box(low, high, 2.0), options).isel(tx=0)

    here = traced(middle)
    shifts = ([0.0, 0.0, 0.0], [691_234.56, 5_335_328.9, 512.3], [1e7, -1e7, 0.0])
    shifted = [alike(here, traced(np.array(by))) for by in shifts]
    print(f"shifted maps: share of voxels alike {shifted}", flush=True)
    lit, medians = [], []
    gain = here.path_gain_db.values
    for turns in (1, 2, 3):
        back = np.rot90(traced(np.zeros(3), turns).path_gain_db.values, turns, axes=(1, 2))
        there = np.isfinite(gain), np.isfinite(back)
        lit.append(float((there[0] & there[1]).sum() / (there[0] | there[1]).sum()))
        medians.append(float(np.median(np.abs(gain - back)[there[0] & there[1]])))
    print(f"turned maps: share lit alike {lit}, median difference in dB {medians}", flush=True)
    return {"shift_share_within": min(shifted), "turn_share_lit": min(lit), "turn_median_db": max(medians)}

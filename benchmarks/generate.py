"""Throughput of map generation: scenes per hour with one and two workers, and the efficiency of the second worker.

A scene is a procedural city with some transmitters, ray-traced at line of sight + specular, depth 3, and written to a
store. Workers are single-threaded processes; this process writes. Each worker first traces another scene, which
compiles kernels and warms caches. One and two workers take turns. The efficiency is the median over rounds of the
ratio within a round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import main

from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window


def plan(quick: bool, *, scenes: int, seed: int) -> Plan:
    size, rays = (64.0, 200_000) if quick else (256.0, 4_000_000)
    return Plan(
        ({"name": "procedural", "seed": 1000 * seed, "count": scenes},),
        Placement(count=2),
        Window(size_m=size, step_m=1.0, heights_m=(1.0, 20.0, 1.0), centre_m=(128.0, 128.0)),
        "sionna",
        {"rays": rays, "depth": 3, "frequency_hz": 5.9e9, "estimator": "axis"},
    )


def seconds(client: Any, quick: bool, *, scenes: int, seed: int, folder: Path) -> float:
    """Return the wall time of generating one set."""
    begin = time.perf_counter()
    with client.as_current():
        generate(plan(quick, scenes=scenes, seed=seed), folder / f"{seed}.zarr")
    return time.perf_counter() - begin


def measure(quick: bool) -> dict[str, float | None]:
    from distributed import Client, LocalCluster

    rounds, scenes = (1, 4) if quick else (3, 4)
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        clusters = {
            workers: LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) for workers in (1, 2)
        }
        clients = {workers: Client(cluster) for workers, cluster in clusters.items()}
        try:
            for workers, client in clients.items():
                seconds(client, quick, scenes=2 * workers, seed=900 + workers, folder=Path(name))
            for turn in range(rounds):
                for workers, client in clients.items():
                    took = seconds(client, quick, scenes=scenes, seed=10 * turn + workers, folder=Path(name))
                    rates[workers].append(scenes * 3600 / took)
                    print(f"round {turn}: {workers} worker(s), {rates[workers][-1]:.0f} scenes an hour", flush=True)
        finally:
            for workers, client in clients.items():
                client.close()
                clusters[workers].close()
    return {
        "scenes_per_hour_1": statistics.median(rates[1]),
        "scenes_per_hour_2": statistics.median(rates[2]),
        "efficiency": statistics.median(two / one / 2 for one, two in zip(rates[1], rates[2], strict=True)),
    }


if __name__ == "__main__":
    main("generate", measure)

"""Speed and mixing of the patch loader, compared with xbatcher and tensorstore.

All three read the same store (generated here, with a warm page cache) and return the same data: pairs of a 64 × 64
target patch and the eight predictors around it, in random order, in batches of 16, as float32. CPU-seconds include all
threads of the process and its children. Runs take turns; figures are medians over the rounds.

- `vs_xbatcher`: our patches per CPU-second over those of xbatcher on Dask arrays with the same chunks. Its patches
  tile the field (as it does by design) and are loaded in random order.
- `vs_tensorstore_random`: our patches per CPU-second over those of tensorstore with random patches, all reads of a
  batch concurrently, and without a cache, as for data much larger than memory.
- `of_decode_limit`: our patches per CPU-second over the limit at which an epoch with one patch per sample costs only
  the decoding of each chunk of the store once with zarr + zarrs.
- `effective_sample_ratio`: effective samples of a batch over those of a global shuffle, at the default number of
  resident blocks. Samples are gradients of a linear model on a year of hourly weather with a memory of one day.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from harness import main, peer

from benchmarks.shuffle_quality import effective_sample_ratio
from geoml.data.blocks import ArraySource, FieldSource
from geoml.data.loader import BlockLoader
from geoml.data.patches import PatchSpec
from geoml.data.slabs import zarr_settings
from geoml.data.store import Packing, StoreWriter
from geoml.grids.grid import Grid

xbatcher, ts = peer("loader", "xbatcher", "tensorstore")

COARSE = Grid.latlon(40, 60, -5, 15, 0.25, "node", half_open=True)
FINE = Grid.latlon(40, 60, -5, 15, 0.1)
PREDICTORS = ("cape", "cp", "sp", "tclw", "tcw", "tp", "u", "v")
SIZE, COARSE_SIZE, BATCH = 64, 29, 16


def weather(samples: int, grid: Grid, rng: np.random.Generator, *, modes: int = 12) -> np.ndarray:
    """Generate sums of plane waves whose amplitudes decorrelate within a day, with noise in the last digits."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in grid.shape), indexing="ij")
    waves = np.stack([np.cos(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-6, 6, (modes, 3))])
    amplitudes = autoregression(samples, modes, np.exp(-1 / 24), rng)
    fields = np.tensordot(amplitudes, waves, 1).astype(np.float32)
    return fields + rng.normal(scale=1e-3, size=fields.shape).astype(np.float32)


def autoregression(samples: int, components: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    """Generate autoregressive series `(samples, components)` of unit variance with coefficient `memory`."""
    noise = rng.normal(size=(samples, components))
    values = noise.copy()
    for step in range(1, samples):
        values[step] = memory * values[step - 1] + np.sqrt(1 - memory**2) * noise[step]
    return values


def make_store(path: Path, samples: int) -> None:
    """Write a store with eight predictors at 0.25° as float32 and rain at 0.1° as int16, as in RainShift's regions."""
    rng = np.random.default_rng(0)
    time = np.datetime64("2001-01-01", "ns") + np.arange(samples) * np.timedelta64(1, "h")
    rain = np.maximum(weather(samples, FINE, rng) - 1.5, 0)
    groups = {
        "condition": xr.Dataset({n: (("time", "lat", "lon"), weather(samples, COARSE, rng)) for n in PREDICTORS}),
        "target": xr.Dataset({"precipitation": (("time", "lat", "lon"), rain)}),
    }
    groups = {
        name: groups[name].assign_coords(time=time, **grid.coords())
        for name, grid in (("condition", COARSE), ("target", FINE))
    }
    with StoreWriter.create(path, groups, packing={"precipitation": Packing(0.01)}) as writer:
        for start in writer.missing():
            writer.write(start, {name: group.isel(time=writer.span(start)) for name, group in groups.items()})
        writer.finish()


def cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def make_loader(path: Path, **options: Any) -> BlockLoader:
    return BlockLoader([FieldSource(path)], batch_size=BATCH, patch=PatchSpec(SIZE), **options)


def run_loader(loader: BlockLoader, epoch: int) -> int:
    """Read one epoch with our loader."""
    loader.set_epoch(epoch)
    return sum(len(batch) for batch in loader)


def decode_chunks(path: Path) -> None:
    """Decode every chunk of the store once, a chunk row of each variable at a time."""
    import zarr

    with zarr_settings(**{"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        names = [f"condition/{name}" for name in PREDICTORS] + ["target/precipitation"]
        arrays = [zarr.open_array(path / name, mode="r") for name in names]
    for array in arrays:
        for start in range(0, array.shape[0], array.chunks[0]):
            array[start : start + array.chunks[0]]


def run_xbatcher(path: Path, batches: int, seed: int) -> int:
    """Read random batches of xbatcher's patches, with one generator per grid and equal random numbers."""
    generators = []
    for group, size in (("condition", FINE_TILE_IN_COARSE), ("target", SIZE)):
        data = xr.open_zarr(path, group=group, chunks={}, consolidated=False)
        generators.append(xbatcher.BatchGenerator(data, {"time": 1, "lat": size, "lon": size}))
    numbers = np.random.default_rng(seed).permutation(min(len(g) for g in generators))[: batches * BATCH]
    for batch in numbers.reshape(-1, BATCH):
        pairs = [[g[int(number)].to_dataarray().values.astype(np.float32) for number in batch] for g in generators]
        for patches in pairs:
            np.stack(patches)
    return numbers.size


#: Coarse cells that a fine tile of 64 cells covers, without our halo; xbatcher therefore reads slightly less.
FINE_TILE_IN_COARSE = 26


def run_tensorstore(path: Path, batches: int, seed: int) -> int:
    """Read random patches with tensorstore, with all reads of a batch concurrently."""

    def open_array(name: str) -> Any:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path / name}/"}}
        return ts.open(spec, read=True).result()

    predictors = [open_array(f"condition/{name}") for name in PREDICTORS]
    rain = open_array("target/precipitation")
    rng = np.random.default_rng(seed)
    for _ in range(batches):
        reads = []
        for _ in range(BATCH):
            t = int(rng.integers(rain.shape[0]))
            y, x = (5 * int(k) for k in rng.integers(1, 27, 2))
            v, u = y * 2 // 5 - 1, x * 2 // 5 - 1
            coarse = [a[t, v : v + COARSE_SIZE, u : u + COARSE_SIZE].read() for a in predictors]
            reads.append((coarse, rain[t, y : y + SIZE, x : x + SIZE].read()))
        np.stack([np.stack([read.result() for read in coarse]) for coarse, _ in reads])
        codes = np.stack([read.result() for _, read in reads])
        np.where(codes == -32768, np.nan, codes * np.float32(0.01))
    return batches * BATCH


def mixing_ratio(samples: int) -> float:
    """Return the effective sample ratio of a linear model's gradients in the order of the default loader."""
    rng = np.random.default_rng(1)
    grid = Grid.latlon(0, 2, 0, 2, 1.0)
    weather_state = autoregression(samples, 8, np.exp(-1 / 24), rng)
    rain = np.maximum(weather_state @ rng.normal(size=8) + rng.normal(size=samples), 0)
    gradients = -rain[:, None] * weather_state  # of (w·x − y)²/2 at w = 0
    fields = np.zeros((samples, 1, *grid.shape), np.float32)
    loader = BlockLoader([ArraySource(fields, grid, grid, target=fields, block_samples=27)], batch_size=BATCH)
    return effective_sample_ratio(loader, gradients)


def rate(run: Callable[[], int]) -> float:
    """Return the patches per CPU-second of a run."""
    before = cpu_seconds()
    patches = run()
    return patches / (cpu_seconds() - before)


def measure(quick: bool) -> dict[str, float | None]:
    """Return the four figures, which the top of the file defines."""
    samples, rounds, rival_batches = (600, 4, 1) if quick else (1944, 9, 6)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.zarr"
        make_store(path, samples)
        loader = make_loader(path)
        runs: dict[str, Callable[[int], int]] = {
            "ours": lambda seed: run_loader(loader, seed),
            "decode": lambda _: (decode_chunks(path), samples)[1],
            "tensorstore": lambda seed: run_tensorstore(path, rival_batches, seed),
            "xbatcher": lambda seed: run_xbatcher(path, rival_batches, seed),
        }
        for run in runs.values():  # imports, page cache, thread pools
            run(0)
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for seed in range(rounds):
            for name, run in runs.items():
                rates[name].append(rate(lambda run=run, seed=seed: run(seed)))
    typical = {name: round(statistics.median(values)) for name, values in rates.items()}
    print(f"patches per CPU-second on {os.cpu_count()} cores: {typical}")
    print(f"memory of the loader: {loader.memory_bytes() / 1e6:.0f} MB")
    ratios = {name: statistics.median(np.divide(rates["ours"], rates[name])) for name in rates}
    return {
        "vs_xbatcher": ratios["xbatcher"],
        "vs_tensorstore_random": ratios["tensorstore"],
        "of_decode_limit": ratios["decode"],
        "effective_sample_ratio": mixing_ratio(8760),
    }


if __name__ == "__main__":
    main("loader", measure)

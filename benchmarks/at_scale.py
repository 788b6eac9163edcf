"""Cost of whole data sets, extrapolated from a part: core-seconds and bytes for 18 regions and 701 cities.

Measured on a part: preparing a region of 20° from files in RainShift's published layout (filled by the synthetic
planet), training the CPU presets on it, and tracing procedural cities in windows of 256 m × 256 m × 20 layers into a
store. Times are processor seconds, which other work on the machine hardly changes.

The printed table extrapolates to 18 regions with 20 years of hours, nine predictors and two static fields, and to 701
cities with 200 transmitters each.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from generate import plan
from harness import main

from geoml.cli.tables import show
from geoml.data.store import StoreWriter
from radiomaps.generation.generate import generate
from rainshift.__main__ import main as rainshift
from rainshift.data.archive import Archive
from rainshift.sources import open_source
from rainshift.sources.synthetic import block_starts

ROOT = Path(__file__).resolve().parent.parent
REGION = "melanesia"
HOURS, REGIONS, YEARS = 8766, 18, 20
CITIES, TRANSMITTERS = 701, 200
SAMPLES = 512


@contextmanager
def processor_seconds() -> Iterator[Callable[[], float]]:
    """Return a clock of the processor seconds of all threads of this process."""
    begin = time.process_time()
    yield lambda: time.process_time() - begin


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def published(folder: Path, hours: int, size_deg: int) -> None:
    """Write hours of a region in the published layout of RainShift."""
    sys.path.insert(0, str(ROOT / "tests" / "rainshift"))
    from published_writer import write_part

    source = open_source("synthetic", size_deg=size_deg)
    write_part(folder, source.blocks(REGION, block_starts("2001-01-01", "2003-01-01", hours)), "train")


def rain(folder: Path, quick: bool) -> dict[str, float]:
    hours, size_deg = (96, 4) if quick else (480, 20)
    published(folder / "files", hours, size_deg)
    settings = {"source": "rainshift", "root": str(folder / "files"), "validation_share": 0.0, "gap_hours": 0.0}
    archive = Archive({**settings, "condition": ["tp", "cp", "cape", "sp", "tclw", "tcw", "tisr", "u", "v"],
                       "static": ["lsm", "z"]}, folder / "warm")  # fmt: skip
    archive.prepare(REGION, "train")  # imports and compilation
    archive = Archive(archive.config, folder / "data")
    with processor_seconds() as clock:
        path = archive.prepare(REGION, "train")
        prepared = clock()
    figures = {
        "prepared_hours_a_core_second": hours / prepared,
        "store_bytes_an_hour": size_of(Path(path)) / hours,
        "store_files_an_hour": sum(file.is_file() for file in Path(path).rglob("*")) / hours,
    }
    return figures | trainings(folder / "trainings", quick)


def trainings(folder: Path, quick: bool) -> dict[str, float]:
    """Return training samples per core-second of two presets, from the difference of a long and a short training."""
    folder.mkdir()
    spans = {"train": (2001, 2002), "validation": (2002, 2003), "test": (2003, 2004)}
    splits = ",".join(f"{k}:{{start:'{a}-01-01',end:'{b}-01-01',hours:96}}" for k, (a, b) in spans.items())
    data = [f"data.size_deg={4 if quick else 8}", f"data.splits_at={{{splits}}}"]

    def seconds(model: str, samples: int) -> float:
        words = [f"region={REGION}", f"model={model}", f"trainer.samples={samples}", "trainer.validate_every=0"]
        with processor_seconds() as clock:
            if rainshift(["train", *words, *data, f"run.dir={model}-{samples}"]):
                raise RuntimeError(f"training {model} failed")
            return clock()

    with chdir(folder):
        if rainshift(["prepare", f"regions=[{REGION}]", *data]):
            raise RuntimeError("preparing failed")
        seconds("unet", 16)  # imports and compilation
        models = {"unet_samples_a_core_second": "unet", "edm_samples_a_core_second": "edm"}
        return {
            figure: SAMPLES / (seconds(model, SAMPLES + 32) - seconds(model, 32)) for figure, model in models.items()
        }


def radio(folder: Path, quick: bool) -> dict[str, float]:
    """Return maps per core-second, maps per core-second of writing (the limit for useful workers), bytes per map."""
    generate(plan(quick, scenes=1, seed=90), folder / "warm.zarr")
    writing = 0.0
    write = StoreWriter.write

    def timed(writer: StoreWriter, *what: Any) -> None:
        nonlocal writing
        with processor_seconds() as clock:
            write(writer, *what)
            writing += clock()

    with mock.patch.object(StoreWriter, "write", timed), processor_seconds() as clock:
        path = generate(plan(quick, scenes=4, seed=91), folder / "maps.zarr")
        seconds = clock()
    maps = 8
    return {
        "maps_a_core_second": maps / seconds,
        "maps_written_a_core_second": maps / writing,
        "map_bytes": size_of(Path(path)) / maps,
    }


def measure(quick: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        found = rain(Path(name), quick) | radio(Path(name), quick)
    hours, maps = REGIONS * YEARS * HOURS, CITIES * TRANSMITTERS
    work = [
        (f"{hours:,} hours of regions prepared", hours, "prepared_hours", "store_bytes_an_hour"),
        ("1,000,000 samples of the U-Net trained", 1e6, "unet_samples", ""),
        ("1,000,000 samples of the diffusion trained", 1e6, "edm_samples", ""),
        (f"{maps:,} maps traced", maps, "maps", "map_bytes"),
    ]
    show(
        [
            {
                "what": what,
                "core hours": count / found[f"{rate}_a_core_second"] / 3600,
                "terabytes": count * found[size] / 1e12 if size else None,
            }
            for what, count, rate, size in work
        ]
    )
    return found


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main("at_scale", measure)

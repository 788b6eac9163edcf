"""Cost of a training step of ours, compared with a plain PyTorch loop with the same network, data and optimiser.

Our training reads batches from a store, averages weights, clips gradients, draws keyed noise, checks that losses are
finite, logs, and writes a checkpoint at the end. The plain loop uses transformed batches in memory, and runs only
forward, loss, backward and AdamW. Both take turns. The ratio is the median over rounds of the ratio of processor
seconds per step; the seconds are the difference of a longer and a shorter training.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import main

from geoml.data.fields import Batch
from geoml.models.base import Model
from geoml.train import Trainer, train
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.models import build
from radiomaps.tasks import Task
from radiomaps.trained import identity
from radiomaps.training import Recipe as RadioRecipe
from radiomaps.training import training_loader
from rainshift.data.archive import Archive
from rainshift.models.spec import ModelSpec
from rainshift.training import Recipe, loader_of, seeded_build, started

REGION = "melanesia"


@dataclass
class Case:
    """A model with its data, and a function that creates loaders."""

    name: str
    model: Callable[[], Model]
    loader: Callable[[], Any]
    transforms: Any
    batch_size: int


def rain(folder: Path, preset: str) -> Case:
    """Return a rain preset on fields of the synthetic planet, in patches of 64 cells."""
    spans = {"train": ("2001", "2002"), "validation": ("2002", "2003"), "test": ("2003", "2004")}
    splits = {k: {"start": f"{a}-01-01", "end": f"{b}-01-01", "hours": 192} for k, (a, b) in spans.items()}
    archive = Archive({"source": "synthetic", "size_deg": 8, "splits_at": splits,
                       "condition": ["tp", "tcw", "u", "v"], "static": ["z"]}, folder / "rain")  # fmt: skip
    archive.prepare(REGION, "train")
    log: dict[str, Any] = {"kind": "log", "unit": 1.0}
    transforms = {"precipitation": {**log, "trace": 0.005}, "tp": log, "default": {"kind": "zscore"}}
    spec, recipe = ModelSpec.of(preset), Recipe(Trainer(samples=1), transforms, batch_size=16, patch=64)

    def loader() -> Any:
        return loader_of({REGION: range(192)}, archive, archive.channels, recipe, seed=0, window=None)

    fitted = started(seeded_build(spec, archive.channels, 0), None, recipe, loader(), folder / preset)
    return Case(f"rain_{preset}", lambda: seeded_build(spec, archive.channels, 0), loader, fitted, 16)


def radio(folder: Path, preset: str) -> Case:
    """Return a radio map preset on dominant-path maps of procedural cities."""
    path = folder / "maps.zarr"
    window = Window(size_m=128.0, step_m=4.0, heights_m=(2.0, 16.0, 2.0), centre_m=(128.0, 128.0))
    if not path.exists():
        generate(
            Plan(({"name": "procedural", "seed": 0, "count": 12},), Placement(count=4), window, "dominant", {}), path
        )
    task, recipe = Task(prior="free_space"), RadioRecipe(Trainer(samples=1), batch_size=8)
    return Case(
        f"radio_{preset}",
        lambda: build(preset, task.channels, seed=0),
        lambda: training_loader(path, task, range(48), recipe),
        identity(task),
        8,
    )


def ours(case: Case, steps: int, folder: Path) -> float:
    config = Trainer(samples=steps * case.batch_size, device="cpu", log_every=8 * case.batch_size, keep=1)
    begin = time.process_time()
    train(case.model(), case.transforms, case.loader(), config=config, folder=folder)
    return time.process_time() - begin


def plain(case: Case, steps: int, batches: Sequence[Batch]) -> float:
    begin = time.process_time()
    model = case.model().train()
    generator = torch.Generator().manual_seed(0)
    (phase,) = model.phases()
    optimiser = torch.optim.AdamW(phase.parameters, lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.99))
    for batch in itertools.islice(itertools.cycle(batches), steps):
        optimiser.zero_grad(set_to_none=True)
        model.loss(batch, phase=phase.name, generator=generator).backward()
        optimiser.step()
    return time.process_time() - begin


def ratio(case: Case, folder: Path, rounds: int, steps: int) -> float:
    """Return the processor seconds of a step of ours over those of the plain loop."""
    batches = [case.transforms.forward(batch) for batch in itertools.islice(iter(case.loader()), 4)]
    assert all(len(batch) == case.batch_size for batch in batches)
    found = []
    for turn in range(-1, rounds):  # the first round only warms up
        times = {}
        for count in (4, 4 + steps):
            times["ours", count] = ours(case, count, folder / f"{case.name}-{turn}-{count}")
            times["plain", count] = plain(case, count, batches)
        mine, bare = (times[who, 4 + steps] - times[who, 4] for who in ("ours", "plain"))
        if turn >= 0:
            found.append(mine / bare)
            print(f"{case.name}: {1e3 * mine / steps:.1f} ms a step, plain {1e3 * bare / steps:.1f} ms", flush=True)
    return statistics.median(found)


def measure(quick: bool) -> dict[str, float]:
    rounds, steps = (1, 8) if quick else (3, 16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [rain(folder, "unet"), rain(folder, "edm"), radio(folder, "unet3d"), radio(folder, "radiodiff3d")]
        names = (
            "rain_unet_over_plain",
            "rain_edm_over_plain",
            "radio_unet3d_over_plain",
            "radio_radiodiff3d_over_plain",
        )
        return {name: ratio(case, folder, rounds, steps) for name, case in zip(names, cases, strict=True)}


if __name__ == "__main__":
    main("step", measure)

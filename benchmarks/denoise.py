"""Time of a cheap noisy trace with a network that denoises it, against a plain trace with the same error.

Path gain of procedural streets, 64 × 64 × 4 voxels of 2 m, traced by rays alone (estimator "axis") to depth 3. A 3-D
U-Net (`experiment=denoise`) learns from traces with a hundredth of the rays what all of them give. It is
tested on streets outside the training data and on two real cities.

Errors are RMSE in dB out of sight, where a reference with four times as many rays as the training targets, in other
directions, has a path. Voxels that a trace misses take their nearest neighbour's value, before a network or without
one. Plain traces of 1 to 100 times the cheap one's rays give error against rays and time, between which logarithms are
interpolated; a network with an error below that of the last counts as that one. Times are processor seconds of all
threads, which a busy machine hardly lengthens, of whole calls a scene with its transmitters, warm. The training
time is printed separately, since it is paid once.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import main

from geoml.cli.compose import compose
from geoml.cli.config import instantiate
from geoml.cli.tables import show
from geoml.data.store import open_store
from geoml.runs.folder import plain
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.raytrace import TraceOptions, trace
from radiomaps.tasks import Task
from radiomaps.tasks.dataset import loader
from radiomaps.tasks.low_ray_prior import FEWER
from radiomaps.tasks.priors import everywhere
from radiomaps.trained import Trained, load_trained
from radiomaps.training import Recipe, fit

ROOT = Path(__file__).resolve().parent.parent
CITIES = ("munich", "etoile")
#: Rays of plain traces over those of the cheap one.
FACTORS = (1, 3, 10, 30, 100)
Array = np.ndarray[Any, np.dtype[Any]]
Scenes = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """How many scenes train and test, how finely they are traced, and how long the network learns."""

    train: int
    test: int
    cities: tuple[str, ...]
    transmitters: int
    size_m: float
    rays: int
    samples: int
    base: int

    def streets(self, first: int, count: int) -> Scenes:
        return [{"name": "procedural", "seed": first + k, "size_m": round(1.5 * self.size_m)} for k in range(count)]

    def plan(self, scenes: Scenes, rays: int, *, seed: int = 0) -> Plan:
        """Maps by so many rays; `seed` turns them."""
        window = Window(size_m=self.size_m, step_m=2, heights_m=(1.5, 10.5, 3))
        options = {"rays": rays, "depth": 3, "estimator": "axis", "seed": seed}
        return Plan(tuple(scenes), Placement(count=self.transmitters, height_m=1.5), window, "sionna", options)


FULL = Case(32, 6, CITIES, 2, 128, 20_000_000, 4_000, 12)
QUICK = Case(3, 2, (), 2, 64, 400_000, 160, 6)


def trained(case: Case, folder: Path) -> Trained:
    """The network of `experiment=denoise`, trained on separate streets."""
    store = generate(case.plan(case.streets(0, case.train), case.rays), folder / "train.zarr")
    values = plain(
        compose("radiomaps.conf", "train", ["experiment=denoise", f"store={store}", f"model.network.base={case.base}"])
    )
    task = Task.of(values["task"] | {"ranges": {"path_gain_db": [-160.0, -50.0]}})
    trainer = values["trainer"] | {"samples": case.samples, "validate_every": 0}
    patches = {"patch": 32, "patches_per_sample": 4, "validation_samples": 0}
    recipe = Recipe(instantiate(trainer), **(values["loader"] | patches))
    everything = range(case.train * case.transmitters)
    cost = fit(values["model"], task, store, {"train": everything}, recipe=recipe, folder=folder / "network")
    print(f"trained on {len(everything)} maps: {cost['parameters']} parameters, {cost['seconds']:.0f} s", flush=True)
    return load_trained(folder / "network", device="cpu")


@dataclass(frozen=True)
class Truth:
    """Reference gains of maps `(map, z, y, x)` in dB, and the voxels that count."""

    gain: Array
    dark: Array

    @classmethod
    def of(cls, store: Path) -> Truth:
        maps = open_store(store, "target")
        gain = maps["path_gain_db"].values
        dark = np.isfinite(gain) & (maps["los"].values < 0.5)
        if not dark.any():
            raise ValueError(f"{store} has no voxel out of sight to compare on")
        return cls(gain, dark)

    def error(self, gain: Array) -> float:
        """RMSE in dB of maps without gaps."""
        return float(np.sqrt(np.mean((gain - self.gain)[self.dark] ** 2)))


def traces(plan: Plan) -> tuple[Array, float]:
    """Gains of all maps of a plan, gaps filled, and processor seconds a map."""
    found, seconds = [], 0.0
    for index in range(len(plan.scenes)):
        scene, places, grid = plan.scene(index), plan.transmitters(index), plan.grid(index)
        begun = time.process_time()
        maps = trace(scene, places, grid, TraceOptions(**plan.options))
        seconds += time.process_time() - begun
        found += [everywhere(values) for values in maps["path_gain_db"].values]
    return np.stack(found), seconds / plan.samples


def denoised(network: Trained, store: Path) -> tuple[Array, float]:
    """Gains of all maps of a store from its cheap traces, and processor seconds a map, without those of the trace."""
    found: list[Array] = []
    seconds = 0.0
    for batch in loader(store, None, network.task, batch_size=1, shuffle=False):
        bare = batch.map(target=None, mask=None)
        if not found:
            network.predict(bare)
        begun = time.process_time()
        fields, _ = network.predict(bare)
        gain = network.task.decode(fields[:, 0])["path_gain_db"]
        seconds += time.process_time() - begun
        found.append(gain.numpy()[0])
    return np.stack(found), seconds / len(found)


def at_error(error: float, errors: Sequence[float], values: Sequence[float]) -> float:
    """What a curve of values by falling errors has at an error, on logarithms; its ends beyond them.

    >>> round(at_error(2.0, [4.0, 1.0], [1.0, 16.0]), 6)
    4.0
    """
    order = np.argsort(errors)
    return float(np.exp(np.interp(np.log(error), np.log(errors)[order], np.log(values)[order])))


def compare(case: Case, name: str, scenes: Scenes, network: Trained, folder: Path) -> dict[str, float]:
    """Both figures on some scenes."""
    truth = Truth.of(generate(case.plan(scenes, 4 * case.rays, seed=1), folder / f"{name}-truth.zarr"))
    store = generate(case.plan(scenes, case.rays), folder / f"{name}.zarr")
    cheap = case.rays // FEWER
    traces(case.plan(scenes, cheap))  # warm
    rows: list[dict[str, Any]] = []
    for factor in FACTORS:
        gain, seconds = traces(case.plan(scenes, factor * cheap))
        rows.append({"trace": "plain", "rays": factor * cheap, "error, dB": truth.error(gain), "s a map": seconds})
    gain, seconds = denoised(network, store)
    error, spent = truth.error(gain), rows[0]["s a map"] + seconds
    rows.append({"trace": "denoised", "rays": cheap, "error, dB": error, "s a map": spent, "of them network": seconds})
    show(rows, title=name)
    errors, times = ([row[key] for row in rows[:-1]] for key in ("error, dB", "s a map"))
    figures = {
        "time_saved_at_equal_error": at_error(error, errors, times) / spent,
        "rays_saved_at_equal_error": at_error(error, errors, FACTORS),
        "error_over_cheap": error / errors[0],
    }
    print(f"{name}: {figures}", flush=True)
    return figures


def measure(quick: bool) -> dict[str, float | None]:
    """The figures of this script, by the keys of targets.yaml: the worse of streets and cities."""
    import torch

    torch.set_num_threads(1)
    case = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if quick else ROOT / "runs" / "denoise"
        network = trained(case, folder)
        tests = {"streets": case.streets(case.train, case.test)}
        if case.cities:
            tests["cities"] = [{"name": city} for city in case.cities]
        found = [compare(case, name, scenes, network, folder) for name, scenes in tests.items()]
    worst = {key: max if key == "error_over_cheap" else min for key in found[0]}
    return {key: worst[key](figures[key] for figures in found) for key in found[0]}


if __name__ == "__main__":
    main("denoise", measure)

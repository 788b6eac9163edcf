"""Our diffusion model of radio maps compared with the published preset, and with baselines without a network.

Data are ray-traced maps of 100 procedural scenes and two real cities, 8 transmitters each, with four targets. 80
procedural scenes are for training, 8 for the choice of settings, 12 and both cities for the test. There are two tasks:
"aware" (buildings and transmitter are given) and "unaware" (buildings and 1 % of the outdoor voxels are observed). Four
types of networks are trained on as many samples each: a 3-D U-Net, a U-Net of single heights, `radiodiff3d`, and
`radiodiff3d_paper` with equal parameters. Learning rates are chosen on the validation scenes from short trainings. Both
presets are averaged over as many draws. Ours takes one step; the published preset takes its best number of DDIM steps
on the test scenes.

NMSE is Σe² / ΣI² over all valid voxels of fields scaled to 0 … 1; the error of an azimuth is taken around the circle.
An interrupted run resumes. `--prepare` only traces the maps. `--full` uses 64 × 64 × 8 voxels, fewer samples and bf16
(about three CPU-hours). `--quick` scores the committed weights on the committed maps.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from harness import main

from geoml.cli.compose import compose
from geoml.cli.tables import show
from geoml.cli.verbs import dask_workers
from geoml.runs.files import write_json
from geoml.runs.folder import plain
from geoml.train import checkpoint
from radiomaps.baselines import load_baseline
from radiomaps.benchmarking.run import PLAIN, Benchmark, Cell
from radiomaps.benchmarking.tables import score_rows, write_page
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.scores import MapScores, score

ROOT = Path(__file__).resolve().parent
WEIGHTS = ROOT / "weights" / "radiodiff"
CITIES = ("munich", "etoile")
PROCEDURAL, TRAINED, VALIDATED = 100, 80, 8
TARGETS = ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith")
OURS, PAPER, UNET = "radiodiff3d", "radiodiff3d_paper", "unet3d"
PHYSICS = ("free_space", "log_distance", "uma", "umi", "dominant")
INTERPOLATION = ("idw", "knn", "kriging", "regression_kriging", "rbf")
#: The two tasks, with the baselines of each.
TASKS = {"aware": PHYSICS, "unaware": INTERPOLATION}
DRAWS = 4
#: Numbers of DDIM steps tried for the published preset, and with `--quick`; numbers of steps shown for ours.
STEPS, QUICK_STEPS, OUR_STEPS = (2, 5, 10, 20, 50), (5, 20), (1, 2, 4, 8)
#: A number of steps suffices if its NMSE is within this factor of the best.
ENOUGH = 1.02


@dataclass(frozen=True)
class Scale:
    """Size of a case: maps, length of trainings, and candidate learning rates."""

    name: str
    size_m: float
    heights_m: tuple[float, float, float]
    samples: int
    tuning_samples: int
    rates: dict[str, tuple[float, ...]]
    test_samples: int
    step_samples: int
    batch_size: int = 8
    precision: str = "fp32"


SCALES = {
    "small": Scale(
        "small", 128, (1.5, 10.5, 3), 6_000, 1_200,
        {PAPER: (2e-3, 4e-3, 8e-3, 1.6e-2), **dict.fromkeys((OURS, UNET), (2e-3, 4e-3, 8e-3))}, 42, 21,
    ),
    "full": Scale(
        "full", 256, (1.5, 22.5, 3), 2_400, 600, dict.fromkeys((PAPER, OURS, UNET), (2e-3, 4e-3, 8e-3)), 28, 14,
        batch_size=4, precision="bf16",
    ),
}  # fmt: skip


def maps(scale: Scale, path: Path, procedural: Sequence[int], cities: Sequence[str], count: int) -> Path:
    """Trace maps of some scenes with `count` transmitters each, unless they exist."""
    blocks = [{"name": "procedural", "seed": seed, "size_m": round(1.5 * scale.size_m)} for seed in procedural]
    scenes: list[dict[str, Any]] = [*blocks, *({"name": city} for city in cities)]
    plan = Plan(
        tuple(scenes), Placement(count=count, height_m=1.5),
        Window(size_m=scale.size_m, step_m=4, heights_m=scale.heights_m), "sionna",
        {"rays": 400_000, "depth": 3, "diffraction": True},
    )  # fmt: skip
    return generate(plan, path)


def prepare(scale: Scale) -> Path:
    """Trace the maps of a scale: all scenes, 8 transmitters each."""
    folder = ROOT.parent / "runs" / "radiodiff" / scale.name
    return maps(scale, folder / "maps.zarr", range(PROCEDURAL), CITIES, 8)


def settings(scale: Scale, store: Path, folder: Path, models: Sequence[Any], **changes: Any) -> dict[str, Any]:
    """Return the configuration of a benchmark of these models."""
    scenes = [f"procedural-{seed}" for seed in range(PROCEDURAL)]
    parts = {"validation": scenes[TRAINED : TRAINED + VALIDATED], "test": [*scenes[TRAINED + VALIDATED :], *CITIES]}
    both = {"targets": list(TARGETS), "ranges": {"path_gain_db": [-160.0, -50.0]}}
    config = plain(compose("radiomaps.conf", "benchmark", [f"store={store}"]))
    config["trainer"] |= {"samples": scale.samples, "validate_every": 0, "checkpoint_every": 2_000}
    config["trainer"] |= {"precision": scale.precision, "channels_last": scale.precision == "bf16"}
    config["loader"] |= {"validation_samples": 0, "batch_size": scale.batch_size}
    return config | {
        "tasks": [
            {"name": "aware", "task": "aware", "prior": "dominant", **both},
            {"name": "unaware", "task": "unaware", "observations": {"rate": 0.01}, **both},
        ],
        "models": list(models), "splits": [{"name": "scene", "by": "name", "parts": parts}], "members": DRAWS,
        "test_samples": scale.test_samples, "dask": 2, "precision": scale.precision,
        "cache": str(folder / "cache"), **changes,
    }  # fmt: skip


def network(model: str, **options: Any) -> dict[str, Any]:
    """Return the entry of a network; both diffusions have 0.36 million parameters."""
    sizes = {OURS: 12, PAPER: 18, UNET: 12}
    row = {"model": model, "base": sizes[model], **options}
    if model == OURS:
        row |= {"steps": 1}
    if model == PAPER:  # as published: a map of the transmitter, no prior
        bare = {"prior": None, "transmitter": ["map"], "constants": ["tx_height"]}
        row |= {"by_task": {"aware": bare, "unaware": {"prior": None}}, "steps": 10}
    return row


def tuned(scale: Scale, store: Path, folder: Path) -> dict[str, float]:
    """Choose the learning rate of each model: smallest mean NMSE on validation scenes after a short training."""
    rows = [
        network(name, name=f"{name}-{rate:g}", trainer={"learning_rate": rate, "samples": scale.tuning_samples})
        for name, rates in scale.rates.items()
        for rate in rates
    ]
    config = settings(scale, store, folder, rows, part="validation", probes=[], test_samples=16)
    config["tasks"] = config["tasks"][:1]
    made = Benchmark(config)
    with dask_workers(config["dask"]):
        outcome = made.run()
    errors = {cell.row: np.mean([found.nmse(t) for t in TARGETS]) for (cell, _), found in outcome.scores.items()}
    show([{"model and rate": row, "NMSE on validation scenes": float(error)} for row, error in errors.items()])
    return {name: min(rates, key=lambda rate: errors[f"{name}-{rate:g}"]) for name, rates in scale.rates.items()}


def by_steps(config: dict[str, Any], cell: Cell, steps: int, count: int, known: MapScores | None = None) -> MapScores:
    """Scores of a trained diffusion by number of steps, on `count` test maps; stored with its other scores.

    Maps that have scores in `known` are not sampled again.
    """
    import torch

    torch.set_num_threads(1)
    made = Benchmark(config)
    path = made.file(cell, f"steps-{steps}-{count}")
    if path.exists():
        return MapScores.load(path)
    builder: Any = made.builder(cell)
    builder = builder.sampled_by(steps=steps)
    samples = made.test_samples(cell.split)
    samples = samples[:: max(1, len(samples) // count)][:count]
    samples = sorted(set(samples) - set(known.samples if known else ()))
    found = score(builder, made.store, samples, members=DRAWS, batch_size=8, title=f"{cell.task}, {steps} steps")
    found = found.merged(known) if known else found
    found.save(path)
    return found


def fewest(errors: dict[int, dict[str, float]]) -> tuple[int, int]:
    """Return the number of steps with the smallest mean relative NMSE, and the smallest nearly as good number."""
    least = {target: min(found[target] for found in errors.values()) for target in TARGETS}
    relative = {steps: np.mean([found[t] / least[t] for t in TARGETS]) for steps, found in errors.items()}
    best = min(relative, key=lambda steps: relative[steps])
    return best, min(steps for steps, value in relative.items() if value <= ENOUGH * relative[best])


def figures(
    errors: dict[tuple[str, str], dict[str, float]], curves: dict[str, dict[int, dict[str, float]]], evaluations: int
) -> dict[str, float | None]:
    """Return the figures, from NMSE by (task, model) and target, and NMSE of the published preset by steps."""
    rows, over_paper, over_best = [], [], []
    for task, rivals in TASKS.items():
        for target in TARGETS:
            ours, paper = errors[task, OURS][target], errors[task, PAPER][target]
            best = min(rivals, key=lambda name: errors[task, name][target])
            over_paper.append(ours / paper)
            over_best.append(ours / errors[task, best][target])
            rows.append(
                {"task": task, "target": target, "ours": ours, "published preset": paper, "best baseline": best,
                 "its NMSE": errors[task, best][target], "over preset": over_paper[-1], "over baseline": over_best[-1]}
            )  # fmt: skip
    show(rows, title="NMSE")
    enough = {task: fewest(curve)[1] for task, curve in curves.items()}
    print(f"fewest DDIM steps of the published preset within 2 % of its best: {enough}; ours takes {evaluations}")
    return {
        "nmse_over_paper_preset": max(over_paper),
        "nfe_saving": min(enough.values()) / evaluations,
        "nmse_over_best_baseline": max(over_best),
    }


def run(scale: Scale) -> dict[str, float | None]:
    """Tune, train and score all models at a scale."""
    store = prepare(scale)
    folder = store.parent
    rates = tuned(scale, store, folder)
    print(f"learning rates: {rates}")
    networks: list[Any] = [network(name, trainer={"learning_rate": rate}) for name, rate in rates.items()]
    networks += [network(UNET, name="radiounet", operator="planar", trainer={"learning_rate": rates[UNET]})]
    config = settings(scale, store, folder, [*networks, *PHYSICS, *INTERPOLATION])
    made = Benchmark(config)
    with dask_workers(config["dask"]):
        outcome = made.run()
    write_page(made, outcome, folder)
    show(score_rows(made, outcome))
    errors = {
        (cell.task, cell.row): {target: found.nmse(target) for target in TARGETS}
        for (cell, kind), found in outcome.scores.items()
        if kind == PLAIN
    }
    cells = {(cell.task, cell.row): cell for cell in made.cells}
    show_members({task: by_number(config, cells[task, OURS], OUR_STEPS, scale.step_samples) for task in TASKS})
    curves = {task: curve(config, cells[task, PAPER], scale.step_samples) for task in TASKS}
    for task, found in curves.items():
        show([{"task": task, "steps": steps, **values} for steps, values in found.items()], title="published preset")
        best = fewest(found)[0]
        some = by_steps(config, cells[task, PAPER], best, scale.step_samples)
        whole = by_steps(config, cells[task, PAPER], best, scale.test_samples, known=some)
        errors[task, PAPER] = {target: whole.nmse(target) for target in TARGETS}
    if scale.name == "small":
        keep(made, cells)
    ours: Any = made.builder(cells["aware", OURS])
    return figures(errors, curves, ours.model.evaluations)


def by_number(config: dict[str, Any], cell: Cell, numbers: Sequence[int], count: int) -> dict[int, MapScores]:
    """Score a trained diffusion with several numbers of steps."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        jobs = {steps: pool.submit(by_steps, config, cell, steps, count) for steps in sorted(numbers, reverse=True)}
        return {steps: jobs[steps].result() for steps in numbers}


def curve(config: dict[str, Any], cell: Cell, count: int) -> dict[int, dict[str, float]]:
    """Return the NMSE of the published preset by steps and target."""
    found = by_number(config, cell, STEPS, count)
    return {steps: {target: scores.nmse(target) for target in TARGETS} for steps, scores in found.items()}


def show_members(curves: dict[str, dict[int, MapScores]]) -> None:
    """Print the effect of more steps of our preset: more realistic spread of members, larger error of their mean."""
    rows = []
    for task, found in curves.items():
        for steps, scores in found.items():
            for target in TARGETS:
                values = scores.values(target, "all")
                shown = {key: values[key] for key in ("rmse", "crps_fair", "spread_skill")}
                rows.append({"task": task, "steps": steps, "target": target, "nmse": scores.nmse(target), **shown})
    show(rows, title="our members by steps")


def keep(made: Benchmark, cells: dict[tuple[str, str], Cell]) -> None:
    """Save weights, fitted baselines, and eight maps of test scenes for `--quick`."""
    maps(SCALES["small"], WEIGHTS / "maps.zarr", [TRAINED + VALIDATED], CITIES[1:], 4)
    for (task, row), cell in cells.items():
        place = WEIGHTS / f"{task}-{row}"
        if row in (OURS, PAPER):
            newest = checkpoint.latest(made.folder(cell))
            assert newest is not None
            checkpoint.export(newest, place)
            write_json(place / "task.json", made.task(cell).describe())
        elif made.rows[row].baseline is not None:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(made.folder(cell) / "baseline.json", place)
            write_json(place / "task.json", made.task(cell).describe())


def from_weights() -> dict[str, float | None]:
    """Return the figures from the committed weights and maps, with fewer maps, draws and steps."""
    from geoml.runs.files import read_json
    from radiomaps.tasks import Task
    from radiomaps.trained import load_trained

    if not (WEIGHTS / "maps.zarr" / "manifest.json").exists():
        print(f"no weights in {WEIGHTS}: the full case leaves them there")
        return dict.fromkeys(("nmse_over_paper_preset", "nfe_saving", "nmse_over_best_baseline"))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(shutil.copytree(WEIGHTS / "maps.zarr", Path(folder) / "maps.zarr"))
        samples = list(range(8))
        errors: dict[tuple[str, str], dict[str, float]] = {}
        curves: dict[str, dict[int, dict[str, float]]] = {}
        for task, rivals in TASKS.items():
            for name in rivals:
                place = WEIGHTS / f"{task}-{name}"
                rival = load_baseline(place, Task.recorded(read_json(place / "task.json")))
                errors[task, name] = _nmse(score(rival, store, samples))
            ours = load_trained(WEIGHTS / f"{task}-{OURS}", device="cpu")
            errors[task, OURS] = _nmse(score(ours, store, samples, members=2, batch_size=8))
            paper = load_trained(WEIGHTS / f"{task}-{PAPER}", device="cpu")
            curves[task] = {}
            for steps in QUICK_STEPS:
                quick = paper.sampled_by(steps=steps)
                curves[task][steps] = _nmse(score(quick, store, samples, members=2, batch_size=8))
            errors[task, PAPER] = curves[task][fewest(curves[task])[0]]
        model: Any = ours.model
        return figures(errors, curves, model.evaluations)


def _nmse(found: MapScores) -> dict[str, float]:
    return {target: found.nmse(target) for target in TARGETS}


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    return from_weights() if quick else run(SCALES["small"])


if __name__ == "__main__":
    if "--prepare" in sys.argv:
        prepare(SCALES["full" if "--full" in sys.argv else "small"])
    else:
        main("radiodiff", measure, full=lambda: run(SCALES["full"]))

"""Generative models compared with the optimum, on rain with a known distribution given the predictors.

On `data=synthetic_exact` the oracle draws members from this distribution; in expectation no model has a lower fair
CRPS. Models are trained on hours of one region and scored on later hours with 8 members, all on the same hours.

- `diffusion_crps_over_oracle`: fair CRPS of the diffusion over that of the oracle.
- `diffusion_spread_skill`: spread–skill ratio of the diffusion.
- `rank_bin_max_deviation`: largest relative deviation of a bin of its rank histogram from a flat histogram (one random
  pixel per hour, more than 3,000 hours).
- `gan_gain_over_regression`: 1 − fair CRPS of a GAN over that of a regression with added residuals; the smallest of
  three seeds. The members of the regression are its prediction plus residual fields of validation hours, in the
  transformed space of its training. Residuals that depend on the prediction are also shown.

The full case saves the weights in `benchmarks/weights/oracle`; `--quick` loads them and scores fewer hours.
"""

from __future__ import annotations

import itertools
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import main
from numpy.typing import NDArray

from geoml.cli.compose import compose
from geoml.cli.tables import show
from geoml.metrics import StatisticsTable, Suite
from geoml.models.predictor import load_predictor
from geoml.train import checkpoint
from rainshift.data.archive import Archive, archive_of
from rainshift.evaluation import score
from rainshift.models.oracle import Oracle
from rainshift.models.spec import Downscaler, ModelSpec
from rainshift.prediction import predict_maps
from rainshift.training import Recipe, TrainSet, fit

WEIGHTS = Path(__file__).parent / "weights" / "oracle"
REGION, MEMBERS, SEEDS = "melanesia", 8, (0, 1, 2)
HOURS = {"train": 16_008, "validation": 480, "test": 3_072}
QUICK_HOURS = 240
#: Trained models with their trainer settings.
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "edm": ({"model": "edm"}, {"samples": 100_000, "learning_rate": 2e-3, "ema_half_life": 8_000}),
    "gan": ({"model": "gan"}, {"samples": 40_000, "ema_half_life": 4_000}),
    "unet": ({"model": "unet"}, {"samples": 24_000, "learning_rate": 2e-3, "ema_half_life": 2_000}),
}
#: Number of bins of the predicted value in which residuals are pooled, if residuals depend on the prediction.
BINS = 20
SUITE = Suite(("crps_fair", "crps", "mae", "spread_skill", "rank_deviation"))


def configuration(folder: str) -> Any:
    """Return the settings of the benchmark: one small region, complete fields, the fourth root of rain."""
    hours = [f"data.splits_at.{split}.hours={count}" for split, count in HOURS.items()]
    loader = ["loader.batch_size=32", "loader.patch=0", "loader.validation_samples=0"]
    words = ["data=synthetic_exact", "transforms=fourth_root", f"cache={folder}", *hours, *loader]
    return compose("rainshift.conf", "benchmark", words)


def trained(name: str, seed: int, folder: str) -> Path:
    """Return the checkpoint of a model trained with a seed; weights of the first seed are saved for `--quick`."""
    spec, settings = MODELS[name]
    config = configuration(folder)
    recipe = Recipe.of(config)
    settings = {"validate_every": 0, "checkpoint_every": settings["samples"], **settings}
    recipe = replace(recipe, trainer=replace(recipe.trainer, **settings))
    place = Path(folder) / f"{name}-{seed}"
    archive = archive_of(config)
    fit(ModelSpec.of(spec), TrainSet((REGION,), HOURS["train"]), archive, recipe=recipe, seed=seed, folder=place)
    newest = checkpoint.latest(place)
    assert newest is not None
    return checkpoint.export(newest, WEIGHTS / name) if seed == SEEDS[0] else newest


def scored(name: str, seed: int, folder: str, hours: int, train: bool) -> dict[str, StatisticsTable]:
    """Score a model, trained if `train`. Returns tables by row name; a regression also has rows with residuals."""
    torch.set_num_threads(1)
    archive = archive_of(configuration(folder))
    if name == "oracle":
        model: Downscaler = Oracle(archive.channels)
    else:
        model = load_predictor(trained(name, seed, folder) if train else WEIGHTS / name, device="cpu")
    if name == "unet":
        return dressed(model, archive, hours)
    return {name: score(model, archive, REGION, suite=SUITE, members=MEMBERS, samples=hours, seed=seed).table}


def dressed(model: Downscaler, archive: Archive, hours: int) -> dict[str, StatisticsTable]:
    """Score a regression plus residuals: residuals of complete fields, and of cells with similar predictions."""
    rng = np.random.default_rng(0)
    known, (fields, truth, times) = (
        fourth_root(archive, model, role, count)
        for role, count in (("validation", HOURS["validation"]), ("test", hours))
    )
    residuals = known[1] - known[0]
    drawn = np.stack([residuals[rng.choice(len(residuals), MEMBERS, replace=False)] for _ in fields])
    edges = np.quantile(known[0], np.linspace(0, 1, BINS + 1)[1:-1])
    of_known, of_test = (np.searchsorted(edges, values) for values in (known[0], fields))
    pools = [residuals[of_known == number] for number in range(BINS)]
    like = np.empty_like(drawn)
    for number, pool in enumerate(pools):
        hour, *cell = np.nonzero(of_test == number)
        like[(hour, slice(None), *cell)] = rng.choice(pool, (len(hour), MEMBERS))
    tables = {}
    for row, residual in (("dressed regression", drawn), ("dressed by like", like)):
        rain = np.clip(fields[:, None] + residual, 0, None) ** 4
        tables[row] = SUITE.update(np.where(rain < 0.005, 0, rain), truth**4, ids=times)
    return tables


def fourth_root(
    archive: Archive, model: Downscaler, role: str, hours: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[Any]]:
    """Return fourth roots of prediction and truth, `(hour, lat, lon)`, and the valid times of the hours."""
    positions = np.arange(hours)
    made = predict_maps(model, archive, REGION, positions=positions, role=role, members=1)["precipitation"][0]
    split, indices = archive.samples(REGION, role)
    truth = archive.open(REGION, split)["target"]["precipitation"].isel(time=indices[positions]).values
    return made.values**0.25, truth.astype(np.float32) ** 0.25, made["time"].values


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    hours = QUICK_HOURS if quick else HOURS["test"]
    seeds = SEEDS[:1] if quick else SEEDS
    jobs = [("edm", 0), *itertools.product(("gan", "unet"), seeds), ("oracle", 0)]
    values: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        archive = archive_of(configuration(folder))
        for split in ("test", "validation") if quick else archive.splits:
            archive.prepare(REGION, split)
        futures = [pool.submit(scored, name, seed, folder, hours, not quick) for name, seed in jobs]
        for (_, seed), future in zip(jobs, futures, strict=True):
            for row, table in future.result().items():
                values.setdefault(row, []).append(SUITE.evaluate(table))
                print(f"{row}, seed {seed}: fair CRPS {values[row][-1]['crps_fair']:.4f}", flush=True)
    show([{"model": row, "seed": seed, **made} for row, runs in values.items() for seed, made in enumerate(runs)])
    gains = {
        row: [1 - gan["crps_fair"] / rival["crps_fair"] for gan, rival in zip(values["gan"], values[row], strict=True)]
        for row in ("dressed regression", "dressed by like")
    }
    for row, each in gains.items():
        print(f"gain of the GAN over the {row}, by seed: {', '.join(f'{gain:.3f}' for gain in each)}")
    diffusion = values["edm"][0]
    return {
        "diffusion_crps_over_oracle": diffusion["crps_fair"] / values["oracle"][0]["crps_fair"],
        "diffusion_spread_skill": diffusion["spread_skill"],
        "diffusion_spread_skill_excess": diffusion["spread_skill"] - 1,
        "rank_bin_max_deviation": diffusion["rank_deviation"],
        "gan_gain_over_regression": min(gains["dressed regression"]),
    }


if __name__ == "__main__":
    main("oracle", measure)

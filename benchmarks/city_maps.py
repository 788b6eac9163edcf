"""The general model of radio maps on two unseen cities, compared with baselines, its parts and a plain 3-D U-Net.

Test data are ray-traced maps of munich and etoile in `weights/cities`, made by `radiomaps trace
experiment=general_cities`: 8 transmitters in the streets of each, 32 × 32 × 4 voxels of 4 m, 5.9 GHz. The model is the
one shipped with the package. The U-Net (`model=unet3d` of `experiment=general`) has as many parameters as both stages
of the model together, and was trained on as many samples of the same maps; its weights are in the same folder.
`--dress MAPS` (a store of `experiment=general_maps`) fits the Gaussian field that is added to the U-Net, on validation
scenes. Out of sight means out of the traced line of sight. Voxels below -160 dB, the end of the range, are not scored:
no receiver detects them. Means are of 8 members. `--quick` uses 4 maps.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import main, targets

from geoml.cli.tables import show
from geoml.runs.files import read_json, write_json
from radiomaps.baselines import baseline
from radiomaps.models.corrdiff3d import CorrDiff3D
from radiomaps.scores import MapScores, score
from radiomaps.tasks.dataset import TaskSource, loader
from radiomaps.tasks.splits import parts_of
from radiomaps.trained import Trained, load_trained, weights_of

WEIGHTS = Path(__file__).resolve().parent / "weights" / "cities"
CITIES = {"munich": range(8), "etoile": range(8, 16)}
GAIN = "path_gain_db"
MEMBERS, LAGS = 8, range(1, 9)
#: Baselines without training. `log_distance` and the 3GPP models use only the transmitter.
RIVALS = ("free_space", "umi", "uma", "dominant")


def semivariances(fields: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Mean squared differences over horizontal lags of `LAGS` voxels, between valid voxels: sum and number by lag."""
    found = np.zeros((len(LAGS), 2))
    for row, lag in enumerate(LAGS):
        for axis in (-1, -2):
            size = fields.shape[axis]
            if lag >= size:
                continue
            ahead, behind = np.arange(lag, size), np.arange(size - lag)
            both = np.take(valid, ahead, axis) & np.take(valid, behind, axis)
            steps = np.take(fields, ahead, axis) - np.take(fields, behind, axis)
            found[row] += (steps**2 * both).sum(), np.broadcast_to(both, steps.shape).sum()
    return found


def structure(trained: Trained, store: Path, samples: list[int]) -> tuple[float, np.ndarray]:
    """Return the share of voxels with a corrected gain, and variogram ratios of members to truth, out of sight."""
    made = loader(store, samples, trained.task, batch_size=4, shuffle=False)
    source: Any = made.sources[0]
    assert isinstance(source, TaskSource)
    ours, truth = np.zeros((len(LAGS), 2)), np.zeros((len(LAGS), 2))
    opened = []
    for batch in made:
        numbers = [made.sample_of(item) for item in batch.ids]
        batch = batch.map(ids=tuple(numbers))
        fields, _ = trained.predict(batch.map(target=None, mask=None), members=MEMBERS)
        assert batch.target is not None
        assert batch.mask is not None
        sight = source.sight(np.array(numbers))
        dark = batch.mask.numpy().all(axis=1) & ~sight
        gain = trained.task.decode(fields)[GAIN].numpy()
        ours += semivariances(gain, dark[:, None])
        truth += semivariances(np.nan_to_num(trained.task.decode(batch.target)[GAIN].numpy()), dark)
        if isinstance(trained.model, CorrDiff3D):
            predictors = trained.model.predictors(batch)
            moved = trained.model.centre(predictors) != trained.model.prior(predictors)
            opened.append(float(moved[:, 0][batch.mask[:, 0]].float().mean()))
    return float(np.mean(opened)), (ours[:, 0] / ours[:, 1]) / (truth[:, 0] / truth[:, 1])


def smooth(noise: np.ndarray, width: float) -> np.ndarray:
    """Smooth noise along z, y, x by a Gaussian of `width` voxels horizontally, and rescale it to unit variance."""
    from scipy.ndimage import gaussian_filter

    lead = (0.0,) * (noise.ndim - 3)
    made = gaussian_filter(noise, (*lead, width / 2, width, width), mode="wrap")
    return made / made.std()


def dress(store: Path) -> dict[str, Any]:
    """Fit the Gaussian field of the U-Net's gain residuals on validation maps: sizes by sight, and width."""
    trained = load_trained(WEIGHTS / "unet3d")
    samples = [int(n) for n in parts_of(store, dict(trained.split or {}))["validation"]]
    made = loader(store, samples, trained.task, batch_size=4, shuffle=False)
    source: Any = made.sources[0]
    found, sums = np.zeros((len(LAGS), 2)), np.zeros((2, 2))
    for batch in made:
        assert batch.target is not None
        assert batch.mask is not None
        fields, _ = trained.predict(batch.map(target=None, mask=None))
        mean, truth = (trained.task.decode(part)[GAIN].numpy() for part in (fields[:, 0], batch.target))
        valid, sight = batch.mask.numpy().all(axis=1), source.sight(np.array([made.sample_of(i) for i in batch.ids]))
        wrong = np.where(valid, np.nan_to_num(truth) - mean, 0.0)
        found += semivariances(wrong, valid & ~sight)
        for row, seen in enumerate((~sight, sight)):
            sums[row] += (wrong**2 * (valid & seen)).sum(), (valid & seen).sum()
    size = np.sqrt(sums[:, 0] / sums[:, 1])
    wanted = found[:, 0] / found[:, 1] / (2 * size[0] ** 2)
    everywhere = np.ones((8, 64, 64), bool)
    curves = {}
    for width in np.arange(0.2, 6.1, 0.2):
        made_up = semivariances(smooth(np.random.default_rng(0).normal(size=(8, 64, 64)), width), everywhere)
        curves[float(width)] = made_up[:, 0] / made_up[:, 1] / 2
    width = min(curves, key=lambda key: float(((curves[key] - wanted) ** 2).sum()))
    return {"dark_db": float(size[0]), "sight_db": float(size[1]), "width_voxels": round(width, 1)}


def energy(members: np.ndarray, truth: np.ndarray, valid: np.ndarray, edge: int = 4) -> tuple[float, int]:
    """Sum of fair energy scores of horizontal patches of `edge` voxels, and their number; members: second axis."""

    def cut(fields: np.ndarray) -> np.ndarray:
        *lead, rows, columns = fields.shape
        parts = fields.reshape(*lead, rows // edge, edge, columns // edge, edge)
        return np.moveaxis(parts, -3, -2).reshape(*lead, rows // edge, columns // edge, edge * edge)

    ok, drawn, true = cut(valid), cut(members), cut(truth)
    use = ok.sum(axis=-1) >= edge
    away = np.sqrt((((drawn - true[:, None]) ** 2) * ok[:, None]).sum(axis=-1)).mean(axis=1)
    count, apart = members.shape[1], 0.0
    for first in range(count):
        for second in range(first):
            apart = apart + np.sqrt((((drawn[:, first] - drawn[:, second]) ** 2) * ok).sum(axis=-1))
    return float(((away - apart / (count * (count - 1))) * use).sum()), int(use.sum())


def patch_energy(trained: Trained, unet: Trained | None, store: Path, samples: list[int]) -> float | None:
    """Return the energy score of our members over that of the U-Net with its Gaussian field, out of sight."""
    if unet is None or not (WEIGHTS / "dressing.json").exists():
        print("no U-Net in weights/cities, or no field that dresses it: --dress MAPS fits one")
        return None
    field = read_json(WEIGHTS / "dressing.json")
    totals = np.zeros(2)
    for row, builder in enumerate((trained, unet)):
        made = loader(store, samples, builder.task, batch_size=4, shuffle=False)
        source: Any = made.sources[0]
        for batch in made:
            numbers = [made.sample_of(item) for item in batch.ids]
            batch = batch.map(ids=tuple(numbers))
            assert batch.target is not None
            assert batch.mask is not None
            fields, _ = builder.predict(batch.map(target=None, mask=None), members=MEMBERS)
            gain = builder.task.decode(fields)[GAIN].numpy()[:, ::2]  # one of each pair: independent members
            sight = source.sight(np.array(numbers))
            if builder is unet:
                size = np.where(sight, field["sight_db"], field["dark_db"])[:, None]
                noise = np.random.default_rng(numbers).normal(size=gain.shape)
                gain = gain + size * smooth(noise, field["width_voxels"])
            truth = np.nan_to_num(builder.task.decode(batch.target)[GAIN].numpy())
            totals[row] += energy(gain, truth, batch.mask.numpy().all(axis=1) & ~sight)[0]
    return float(totals[0] / totals[1])


def deviation(scores: MapScores, group: str) -> float:
    """Return the RMS deviation of members from their mean over the RMS error of the mean; members are paired."""
    values = scores.values(GAIN, group)
    return float(values["spread"] * np.sqrt(1 - 1 / scores.members) / values["rmse"])


def district() -> float:
    """Return the seconds for 512 × 512 m and 10 layers of florence with the shipped weights, 8 members."""
    from radiomaps.generation.plan import Placement, Window
    from radiomaps.prediction import predicted_scene
    from radiomaps.scenes import load

    begin = time.perf_counter()
    trained = load_trained("general")
    scene = load("florence")
    grid = Window(size_m=512, step_m=4, heights_m=(1.5, 28.5, 3), above_ground=True).grid(scene)
    sites = Placement().transmitters(scene, grid, (0, 0))
    for _ in predicted_scene(trained, scene, sites, grid, members=MEMBERS):
        pass
    return time.perf_counter() - begin


def measure(quick: bool) -> dict[str, float | None]:
    if weights_of("general") is None:
        print("no weights of the general model: docs/general_map_weights.py makes them")
        return dict.fromkeys(targets()["city_maps"])
    with tempfile.TemporaryDirectory() as folder:
        store = Path(shutil.copytree(WEIGHTS / "maps.zarr", Path(folder) / "maps.zarr"))
        cities = {city: list(numbers)[:: 4 if quick else 1] for city, numbers in CITIES.items()}
        trained = load_trained("general")
        unet = load_trained(WEIGHTS / "unet3d") if (WEIGHTS / "unet3d").exists() else None
        builders: dict[str, Any] = {"general": trained} | ({} if unet is None else {"3-D U-Net": unet})
        builders |= {name: baseline(name, trained.task.changed(features=(), prior=None)) for name in RIVALS}
        found: dict[tuple[str, str], MapScores] = {
            (city, name): score(builder, store, numbers, members=MEMBERS, title=f"{name}, {city}")
            for city, numbers in cities.items()
            for name, builder in builders.items()
        }
        shares = {city: structure(trained, store, numbers) for city, numbers in cities.items()}
        patches = patch_energy(trained, unet, store, [n for numbers in cities.values() for n in numbers])
    seconds = None if quick else district()
    return figures(trained, found, shares) | {"patch_energy_over_dressed_unet": patches, "district_seconds": seconds}


def figures(
    trained: Trained, found: dict[tuple[str, str], MapScores], shares: dict[str, Any]
) -> dict[str, float | None]:
    """The figures, from scores by city and row; prints their tables."""
    rows = []
    for (city, name), scores in found.items():
        row: dict[str, Any] = {"city": city, "model": name}
        for target in trained.task.targets:
            row[f"{target} NMSE"] = scores.nmse(target)
        for group, label in (("nlos", "dark"), ("los", "sight")):
            values = scores.values(GAIN, group)
            row[f"{label}, dB"] = values["rmse"]
            if scores.members > 1:
                row[f"deviation over error, {label}"] = deviation(scores, group)
        rows.append(row)
    show(rows, title="errors and spread by city")
    for city, (share, ratio) in shares.items():
        print(f"{city}: gain corrected at {share:.0%} of the voxels; variogram over the truth's {np.round(ratio, 2)}")

    def rmse(city: str, name: str, group: str) -> float:
        return found[city, name].values(GAIN, group)["rmse"]

    def over_unet(target: str) -> float:
        ours, theirs = (
            np.mean([found[city, name].nmse(target) for city in CITIES]) for name in ("general", "3-D U-Net")
        )
        return float(ours / theirs)

    compared = all((city, "3-D U-Net") in found for city in CITIES)
    dark = {city: rmse(city, "general", "nlos") for city in CITIES}
    skill = [deviation(found[city, "general"], "nlos") for city in CITIES]
    ratios = np.concatenate([ratio for _, ratio in shares.values()])
    return {
        "city_rmse_db_dark": float(np.mean(list(dark.values()))),
        "city_rmse_over_best_baseline": max(
            dark[city] / min(rmse(city, name, "nlos") for name in RIVALS) for city in CITIES
        ),
        "city_rmse_sight_over_dominant": max(
            rmse(city, "general", "los") / rmse(city, "dominant", "los") for city in CITIES
        ),
        "nmse_over_unet": max(map(over_unet, trained.task.targets)) if compared else None,
        "spread_skill_dark_off": float(max(abs(value - 1) for value in skill)),
        "variogram_ratio_worst": float(np.maximum(ratios, 1 / ratios).max()),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--dress"]:
        write_json(WEIGHTS / "dressing.json", dress(Path(sys.argv[2])))
        sys.exit(0)
    main("city_maps", measure)

"""Do stations guide members as well as the exact posterior does, and better than kriging?

Sixteen stations a box; scores are those of the other cells.

On `data=synthetic_exact` the law of the rain given stations is known (`station_worlds.StationLaw`): members are exact
draws. The diffusion is the one of `oracle.py`, trained without stations. Stations have the error .1 in standard
deviations of the latent field.

- `gain_share_of_oracle`: what stations gain in fair CRPS for the diffusion, over what they gain for the exact law.
- `guided_spread_skill`: the spread–skill ratio of its guided members, as a factor away from 1.
- `wrong_stations_over_free`: fair CRPS with the stations of another hour over that without any, which has to be worse.

On six regions of the planet where the shipped general diffusion was not trained, and on radar of four countries,
stations read the true rain with an error of 10 %, in steps of 0.1 mm:

- `guided_crps_over_kriging`: fair CRPS of the guided general diffusion over the best kriging's: bilinear rain or a
  regression on it, with kriged residuals, single or as an ensemble; fitted on other hours of the region.
- `general_spread_skill`: the spread–skill ratio of its guided members there, as a factor away from 1.
- `real_crps_over_kriging`: the first on radar, the worst country; null without the files (`GEOML_DATA`).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import oracle
import places
import torch
from harness import main
from station_worlds import Array, Residuals, StationLaw, fair_crps, spread_skill

from geoml.cli.tables import show
from geoml.data.fields import Batch
from geoml.data.points import Points
from geoml.models.base import Channels
from geoml.models.predictor import load_predictor
from geoml.models.tiles import Tiling
from rainshift.baselines import Interpolation
from rainshift.data.archive import archive_of
from rainshift.data.observations import ObservationError
from rainshift.data.selection import whole_fields
from rainshift.models.general import General
from rainshift.models.oracle import Oracle
from rainshift.sources import open_source
from rainshift.sources.base import RegionData

STATIONS, MEMBERS = 16, 8
#: Observation error of stations in the exact world, in standard deviations of its latent field.
ERROR = 0.1
#: Relative observation error of stations elsewhere, and their resolution in mm/h.
SHARE, TIP = 0.1, 0.1
#: Side in cells of the central box to which radar domains are cropped.
BOX = Tiling(tile=56, blend=0, halo=0, limit=60)
#: Number of hours of other days to which kriging is fitted.
FITTED = 48


class Pool:
    """Members of several models at the same hours and cells."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Array]] = {}

    def add(self, truth: Array, mask: np.ndarray[Any, Any], **models: Array) -> None:
        """Add a batch: truth `(hour, lat, lon)`, mask of scored cells, members `(hour, member, lat, lon)`."""
        for name, values in {"truth": truth, "mask": mask, **models}.items():
            self.parts.setdefault(name, []).append(values)

    def scores(self) -> dict[str, tuple[float, float | None]]:
        """Return fair CRPS and spread–skill ratio by model; the ratio is None for single members."""
        joined = {name: np.concatenate(parts) for name, parts in self.parts.items()}
        truth, mask = joined.pop("truth"), joined.pop("mask")
        return {
            name: (
                fair_crps(rain, truth, mask),
                spread_skill(rain, truth, mask) if rain.shape[1] > 1 else None,
            )
            for name, rain in joined.items()
        }


def cells_of(shape: tuple[int, ...], name: str) -> np.ndarray[Any, Any]:
    """Return the station cells of a place, the same at all hours."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.stack(np.unravel_index(rng.choice(shape[0] * shape[1], STATIONS, replace=False), shape), 1)


def elsewhere(truth: Array, cells: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the known cells without a station."""
    mask = np.isfinite(truth)
    mask[:, cells[:, 0], cells[:, 1]] = False
    return mask


def points_of(cells: np.ndarray[Any, Any], values: Array, low: Array, high: Array) -> Points:
    """Return the stations of a batch as points."""
    return Points(torch.from_numpy(cells), *(torch.from_numpy(part).float() for part in (values, low, high)))


def predicted(model: Any, batch: Batch, points: Points | None, seed: int = 0) -> Array:
    """Predict members `(hour, member, lat, lon)` in mm/h."""
    rain, _ = model.predict(batch.map(points=points, target=None, mask=None), members=MEMBERS, seed=seed)
    return np.asarray(rain[:, :, 0].double().numpy())


def exact_world(hours: int) -> dict[str, tuple[float, float | None]]:
    """Return scores on `data=synthetic_exact`."""
    pool, rng = Pool(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        archive = archive_of(oracle.configuration(folder))
        archive.prepare(oracle.REGION, "test")
        model, law = load_predictor(oracle.WEIGHTS / "edm", device="cpu"), Oracle(archive.channels)
        chosen = np.linspace(0, oracle.HOURS["test"] - 1, hours, dtype=int)
        for batch, _ in whole_fields(archive, oracle.REGION, "test", chosen):
            assert batch.target is not None
            truth = batch.target[:, 0].double().numpy()
            world = StationLaw(law.view(batch), cells_of(truth.shape[1:], f"exact {batch.ids[0]}"), ERROR)
            coarse = batch.condition[:, 0].double().numpy()
            true = world.latent(truth.reshape(len(truth), -1)[:, world.flat])
            dry = truth.reshape(len(truth), -1)[:, world.flat] <= 0
            read = true + ERROR * rng.standard_normal(true.shape)
            values = np.where(dry, 0.0, world.law.rain(read).astype(float))
            ends = [world.law.rain(world.latent(values) + step).astype(float) for step in (-ERROR, ERROR)]
            low = np.where(values > 0, np.minimum(ends[0], np.maximum(values - 0.05, 0)), 0)
            high = np.where(values > 0, np.maximum(ends[1], values + 0.05), 0.1)
            points = points_of(world.cells, values, low, high)
            free, given = world.draws(coarse, values, MEMBERS, rng)
            pool.add(
                truth,
                elsewhere(truth, world.cells),
                **{
                    "exact law": free,
                    "exact law, stations": given,
                    "exact denoiser, stations": world.with_exact_denoiser(coarse, values, MEMBERS, int(batch.ids[0])),
                    "diffusion": predicted(model, batch, None),
                    "diffusion, stations": predicted(model, batch, points),
                    "diffusion, stations of another hour": predicted(
                        model, batch, points.map(lambda part: part.roll(1, 0))
                    ),
                },
            )
    return pool.scores()


def planet(hours: int) -> Iterator[tuple[str, RegionData, list[int], RegionData, list[int]]]:
    """Yield the six regions, the hours to score, and other hours for fitting.

    The hours with the most coarse rain out of four times as many are scored, since stations add little in dry hours.
    """
    source = open_source("synthetic", size_deg=3)
    days = np.unique(places.FIRST_DAY - 400 + np.linspace(0, 364, FITTED // 6, dtype=int))
    for name, data, every in places.named(4 * hours):
        coarse = data.condition["tp"].isel(time=every).mean(("lat", "lon")).values
        taken = sorted(every[place] for place in np.argsort(coarse)[-hours:])
        others = source.blocks(name, days)
        yield name, data, taken, others, list(range(0, 24 * len(days), 4))


def radar(hours: int) -> Iterator[tuple[str, RegionData, list[int], RegionData, list[int]]]:
    """Yield the four countries, the hours to score, and other hours of the same record."""
    for name, data, taken in places.countries(hours):
        rest = [hour for hour in range(data.target.sizes["time"]) if hour not in taken]
        yield name, data, taken, data, rest[:: max(1, len(rest) // FITTED)] or taken


def boxes(found: Any, channels: Channels) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Return scores by place of the general diffusion and of kriging."""
    pools: dict[str, Pool] = {}
    error = ObservationError(SHARE, TIP)
    for name, data, taken, others, rest in found:
        pool = pools.setdefault(name, Pool())
        simple = Interpolation(channels)
        model = General(channels, exact=places.is_exact(data))
        known = [(predicted_one(simple, b), truth_of(b)) for b in map(cut, places.batches(others, rest, channels))]
        fields = [np.nan_to_num(np.concatenate(parts)) for parts in zip(*known, strict=True)]
        kriging = {
            kind: Residuals.fitted(*fields, data.fine, regression=kind == "regression")
            for kind in ("bilinear", "regression")
        }
        for batch in map(cut, places.batches(data, taken, channels, at_once=4)):
            truth, guess = truth_of(batch), predicted_one(simple, batch)
            cells = cells_of(truth.shape[1:], name)
            rng = np.random.default_rng(int(batch.ids[0]))
            exact = np.nan_to_num(truth[:, cells[:, 0], cells[:, 1]])
            values = np.round(np.clip(exact * (1 + SHARE * rng.standard_normal(exact.shape)), 0, None) / TIP) * TIP
            points = points_of(cells, values, np.maximum(values - error.of(values), 0), values + error.of(values))
            kriged: dict[str, list[Array]] = {}
            for hour in range(len(truth)):
                for kind, residuals in kriging.items():
                    one, many = residuals.members(guess[hour], values[hour], cells)
                    kriged.setdefault(f"{kind}, kriged", []).append(one)
                    kriged.setdefault(f"{kind}, kriged ensemble", []).append(many)
            pool.add(
                np.nan_to_num(truth),
                elsewhere(truth, cells),
                general=predicted(model, batch, None),
                **{"general, stations": predicted(model, batch, points)},
                bilinear=guess[:, None],
                **{kind: np.stack(parts) for kind, parts in kriged.items()},
            )
        print(f"{name}: {ratio(pool.scores()):.3f}", flush=True)
    return {name: pool.scores() for name, pool in pools.items()}


def cut(batch: Batch) -> Batch:
    """Crop a large domain to its centre."""
    fine, coarse = batch.target_grid, batch.condition_grid
    spans = [BOX.spans(*axes) for axes in zip(fine.axes, coarse.axes, strict=True)]
    (row, column) = (each[len(each) // 2] for each in spans)
    there = dict(zip(fine.names, (row.read, column.read), strict=True))
    fields = {
        name: None if part is None else part[..., row.read, column.read]
        for name, part in (("target", batch.target), ("static", batch.static))
    }
    return Batch(
        batch.condition[..., row.coarse, column.coarse],
        coarse.crop(**dict(zip(coarse.names, (row.coarse, column.coarse), strict=True))),
        fine.crop(**there),
        **fields,
        ids=batch.ids,
    )


def predicted_one(model: Any, batch: Batch) -> Array:
    """Return the single member of a baseline, `(hour, lat, lon)`."""
    return np.asarray(model.predict(batch)[0][:, 0, 0].double().numpy())


def truth_of(batch: Batch) -> Array:
    """Return the true rain `(hour, lat, lon)`, NaN where unknown."""
    assert batch.target is not None
    return np.asarray(batch.target[:, 0].double().numpy())


def ratio(scores: dict[str, tuple[float, float | None]]) -> float:
    """Return the fair CRPS of the guided members over that of the best kriging."""
    rival = min(value for name, (value, _) in scores.items() if "kriged" in name)
    return scores["general, stations"][0] / rival if rival else math.nan


def away(spread: float | None) -> float:
    """Return a ratio as a factor of at least 1: the larger of the ratio and its inverse."""
    assert spread is not None
    return max(spread, 1 / spread)


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    torch.set_num_threads(1)
    exact = exact_world(8 if quick else 48)
    found = {
        "planet": boxes(planet(2 if quick else 12), places.ALL),
        "radar": boxes(radar(1 if quick else 3), places.RAIN),
    }
    show([{"model": name, "fair CRPS": crps, "spread–skill": spread} for name, (crps, spread) in exact.items()])
    every = {(what, place): scores for what, of in found.items() for place, scores in of.items()}
    show([
        {"what": what, "place": place, **{name: crps for name, (crps, _) in scores.items()},
         "spread–skill": scores["general, stations"][1], "over kriging": ratio(scores)}
        for (what, place), scores in every.items()
    ])  # fmt: skip
    crps = {name: score for name, (score, _) in exact.items()}
    gains = [crps[name] - crps[f"{name}, stations"] for name in ("diffusion", "exact law")]
    print(
        f"with the exact denoiser: {(crps['exact law'] - crps['exact denoiser, stations']) / gains[1]:.3f} of the gain"
    )
    return {
        "gain_share_of_oracle": gains[0] / gains[1],
        "guided_spread_skill": away(exact["diffusion, stations"][1]),
        "wrong_stations_over_free": crps["diffusion, stations of another hour"] / crps["diffusion"],
        "guided_crps_over_kriging": float(np.nanmax([ratio(scores) for scores in found["planet"].values()])),
        "general_spread_skill": max(away(scores["general, stations"][1]) for scores in found["planet"].values()),
        "real_crps_over_kriging": max((ratio(scores) for scores in found["radar"].values()), default=None),
    }


if __name__ == "__main__":
    main("guided", measure)

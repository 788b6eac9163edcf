"""The ray trace of a flipped scene is the flipped ray trace: what makes augmentation by flips right."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import shapely
import torch

from geoml.data.fields import Batch
from geoml.grids.grid import Grid
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace import TraceOptions, trace
from radiomaps.scenes import Footprint
from radiomaps.scenes.extrude import scene_of_footprints
from radiomaps.tasks import TARGETS, Task
from radiomaps.tasks.augment import flipped

TASK = Task(targets=TARGETS)
#: Signs of x and y after mirroring, and whether they are then swapped, by number of the symmetry; 0: as it stands.
SYMMETRIES = {0: (1, 1, False), 1: (-1, 1, False), 2: (1, -1, False), 4: (1, 1, True), 7: (-1, -1, True)}
TURNS = [symmetry for symmetry in SYMMETRIES if symmetry]
EDGE = 32.0
YARD = [(4, 6, 14, 12, 9.0), (20, 18, 28, 30, 15.0), (6, 22, 12, 28, 6.0)]
ANTENNA = (17.3, 9.4, 4.0)  # above no voxel's centre, where azimuth has no meaning
FIELDS = ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith")


def mover(symmetry: int) -> Callable[[float, float], tuple[float, float]]:
    east, north, swapped = SYMMETRIES[symmetry]

    def moved(x: float, y: float) -> tuple[float, float]:
        x, y = (EDGE - x if east < 0 else x), (EDGE - y if north < 0 else y)
        return (y, x) if swapped else (x, y)

    return moved


@cache
def yard(symmetry: int, **options: Any) -> tuple[Batch, np.ndarray]:
    """Traced maps of a yard seen in a symmetry, as a batch of one, and which voxels are in line of sight."""
    moved = mover(symmetry)

    def everywhere(points: np.ndarray) -> np.ndarray:
        return np.array([moved(x, y) for x, y in points])

    prisms = [Footprint(shapely.transform(shapely.box(*box[:4]), everywhere), box[4]) for box in YARD]
    scene = scene_of_footprints("yard", prisms, bounds=(0, 0, EDGE, EDGE))
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 8, "y": EDGE, "x": EDGE}, 2.0)
    maps = trace(scene, [Transmitter((*moved(*ANTENNA[:2]), ANTENNA[2]))], grid, TraceOptions(**options)).isel(tx=0)
    target = np.stack(TASK.encode({name: maps[name].values for name in FIELDS}))
    condition = torch.zeros(1, len(TASK.channels.condition), *grid.shape)
    known = torch.from_numpy(np.isfinite(target))[None]
    batch = Batch(condition, grid, grid, torch.from_numpy(np.nan_to_num(target))[None], mask=known, ids=(0,))
    return batch, maps["los"].values


def turned(symmetry: int, **options: Any) -> tuple[Batch, np.ndarray]:
    """The trace of the yard as it stands, turned afterwards as training turns it."""
    batch, sight = yard(0, **options)
    lit = Batch(batch.condition, batch.condition_grid, batch.target_grid, batch.target,
                mask=torch.from_numpy(sight)[None, None].expand_as(batch.mask), ids=(0,))  # fmt: skip
    made = flipped(lit, TASK.channels, [symmetry])
    return flipped(batch, TASK.channels, [symmetry]), made.mask[0, 0].numpy()


def apart(one: Batch, other: Batch, where: np.ndarray) -> tuple[float, float]:
    """The median distance of path gains in dB where both have a path, and the share of voxels where one alone has."""
    both = (one.mask & other.mask)[0, 0].numpy() & where
    scale = TASK.codecs.codec("path_gain_db")
    distance = (one.target - other.target)[0, 0].abs().numpy()[both] * (scale.high - scale.low)
    either = (one.mask | other.mask)[0, 0].numpy() & where
    return float(np.median(distance)), 1 - both.sum() / either.sum()


@pytest.mark.parametrize("symmetry", TURNS)
def test_line_of_sight_of_a_flipped_scene_is_flipped_exactly(symmetry: int) -> None:
    """Path gain, delay, azimuth and zenith to what float32 leaves, and in the same voxels."""
    made, lit = turned(symmetry, depth=0)
    truth, sight = yard(symmetry, depth=0)
    np.testing.assert_array_equal(lit, sight)
    assert 0.3 < sight.mean() < 0.9
    assert torch.equal(made.mask, truth.mask)
    assert (made.target - truth.target).abs()[truth.mask].max() < 1e-5
    azimuth = slice(*(TASK.channels.target.index(f"doa_azimuth_{part}") + k for k, part in enumerate(("sin", "cos"))))
    straight = yard(0, depth=0)[0].target[:, azimuth]
    assert (straight - truth.target[:, azimuth]).abs().max() > 0.5  # directions do turn


@pytest.mark.parametrize("estimator", ["axis", "paths"])
@pytest.mark.parametrize("symmetry", TURNS)
def test_a_flipped_scene_has_the_flipped_trace_within_its_noise(symmetry: int, estimator: str) -> None:
    """Out of sight the flipped trace is as far from that of the flipped scene as traces of two seeds from each other.

    In sight, delay and direction of the strongest path are exact with reflections too.
    """
    options = {"rays": 40_000, "depth": 3, "estimator": estimator}
    made, lit = turned(symmetry, **options)
    truth, sight = yard(symmetry, **options)
    np.testing.assert_array_equal(lit, sight)
    directions = (made.target - truth.target)[0, 1:].abs().numpy()[:, sight]
    assert directions.max() < 1e-5
    dark = ~sight
    found, missed = apart(made, truth, dark)
    noise, gaps = apart(yard(symmetry, **options)[0], yard(symmetry, **options, seed=1)[0], dark)
    assert found <= 1.3 * noise + 0.01
    assert missed <= 1.3 * gaps + 0.02
    wrong = apart(flipped(made, TASK.channels, [3]), truth, dark)
    assert wrong[0] > 3 * found  # another symmetry would be told

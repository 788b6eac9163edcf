"""Splits: no building in two parts, leaks found where a split has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely

from geoml.errors import UserError
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.maps.store import SceneRecord
from radiomaps.tasks.splits import audit, split_by_file, split_by_scene, twins


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes of two maps; the first and the last are the same city."""
    scenes = ({"name": "procedural", "seed": 0, "count": 11}, {"name": "procedural", "seed": 0})
    window = Window(size_m=64, step_m=16, heights_m=(1.5, 5.5, 4))
    plan = Plan(scenes, Placement(count=2), window, options={"turns": 0})
    return generate(plan, tmp_path_factory.mktemp("splits") / "maps.zarr")


def record(name: str, *boxes: tuple[float, ...], crs: str = "local", hash_: str = "") -> SceneRecord:
    footprints = [{"wkt": shapely.box(*box).wkt, "base_m": 0, "top_m": 10} for box in boxes]
    return SceneRecord(name=name, hash=hash_ or name, crs=crs, footprints=footprints)


def test_split_by_scene_is_disjoint_whole_and_repeatable(store: Path):
    splits = split_by_scene(store, seed=3)
    assert splits.leaks == ()
    together = np.concatenate(list(splits.samples.values()))
    assert sorted(together) == list(range(24))
    assert {name: len(part) > 0 for name, part in splits.samples.items()} == {
        "train": True, "validation": True, "test": True,
    }  # fmt: skip
    assert 16 <= len(splits.samples["train"]) <= 20
    part_of = {int(sample): name for name, part in splits.samples.items() for sample in part}
    assert part_of[0] == part_of[1] == part_of[22] == part_of[23]  # twins stay together
    again = split_by_scene(store, seed=3)
    assert all((splits.samples[name] == again.samples[name]).all() for name in splits.samples)
    assert any(
        len(splits.samples[n]) != len(o.samples[n]) or (splits.samples[n] != o.samples[n]).any()
        for o in [split_by_scene(store, seed=4)]
        for n in splits.samples
    )


def test_split_by_file_leaks_and_says_so(store: Path):
    splits = split_by_file(store, seed=0)
    assert {name: len(part) for name, part in splits.samples.items()} == {"train": 22, "test": 2}
    assert splits.leaks


def test_audit_finds_one_scene_in_two_parts_and_twins(store: Path):
    leaks = audit(store, {"train": [0, 2], "test": [3, 22]})
    assert {(leak.first, leak.second, leak.reason) for leak in leaks} == {
        (1, 1, "one scene"),
        (0, 11, "equal geometry"),
    }


def test_twins_by_place_and_by_likeness():
    utm = "EPSG:32633"
    far = record("far", (1000, 0, 1050, 50), crs=utm)
    records = [
        record("a", (0, 0, 50, 50), crs=utm),
        record("b", (40, 40, 90, 90), crs=utm),
        far,
        record("c", (0, 0, 50, 50), (100, 0, 130, 40)),
        record("d", (500, 500, 550, 550), (600, 500, 630, 541)),
        record("e", (0, 0, 50, 20), (100, 0, 140, 10)),
    ]
    found = {(a, b) for a, b, _ in twins(records)}
    assert found == {(0, 1), (3, 4)}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": 0.5, "test": 0.4}, "sum to 1"),
        ({"train": 1.2, "test": -0.2}, "must be positive"),
        ({f"part{index}": 1 / 16 for index in range(16)}, "too few"),
    ],
)
def test_bad_parts(store: Path, parts: dict, message: str):
    with pytest.raises(UserError, match=message):
        split_by_scene(store, parts=parts)

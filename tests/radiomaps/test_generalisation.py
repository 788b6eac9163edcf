"""Tests on what training never saw: other carriers, layers and cities, each beside a training that did see it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from geoml.cli import app
from geoml.cli.compose import compose
from geoml.errors import UserError
from geoml.runs.folder import plain
from radiomaps.__main__ import APP
from radiomaps.benchmarking.run import Benchmark
from radiomaps.benchmarking.tables import gap_rows
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window, expand_scenes
from radiomaps.tasks.splits import audit, parts_of, split_by_name

LOW, HIGH = 3.5e9, 28e9
ABOVE = {"train": {"heights_m": [1.5, 4.5]}, "test": {"heights_m": [7.5, 10.5]}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four streets and a block of towers, two transmitters at two carriers, on 8 × 8 × 4 voxels."""
    scenes = ({"name": "procedural", "seed": 3, "count": 4, "size_m": 96},
              {"name": "procedural", "seed": 20, "size_m": 96, "towers": 1.0})  # fmt: skip
    window = Window(size_m=64, step_m=8, heights_m=(1.5, 10.5, 3))
    plan = Plan(scenes, Placement(count=2), window, options={"turns": 1}, frequencies_hz=(LOW, HIGH))
    return generate(plan, tmp_path_factory.mktemp("generalisation") / "maps.zarr")


def carriers(store: Path, samples: Any) -> set[float]:
    from geoml.data.store import open_store

    return set(open_store(store, "target")["frequency_hz"].values[samples].tolist())


def test_parts_are_kept_to_their_carriers_and_share_no_scene(store: Path) -> None:
    where = {"train": {"frequency_hz": [LOW]}, "test": {"frequency_hz": HIGH}}
    parts = parts_of(store, {"by": "scene", "parts": {"train": 0.6, "test": 0.4}, "where": where})
    assert (carriers(store, parts["train"]), carriers(store, parts["test"])) == ({LOW}, {HIGH})
    assert audit(store, parts) == ()
    whole = parts_of(store, {"by": "scene", "parts": {"train": 0.6, "test": 0.4}})
    assert {name: len(part) for name, part in parts.items()} == {name: len(part) // 2 for name, part in whole.items()}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"where": {"tests": {}}}, "part in where 'tests' unknown; did you mean 'test'"),
        ({"where": {"test": {"frequency": [HIGH]}}}, "did you mean 'frequency_hz'"),
        ({"where": {"test": {"frequency_hz": [6e9]}}}, "no map at 6 GHz; .* has 3.5, 28 GHz"),
        ({"wher": {}}, "key of a split 'wher' unknown; did you mean 'where'"),
    ],
)
def test_wrong_limits_are_told(store: Path, split: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parts_of(store, {"by": "scene", "parts": {"train": 0.6, "test": 0.4}, **split})


def test_scenes_are_named_by_patterns_and_left_out_where_train_is_named(store: Path) -> None:
    split = split_by_name(store, parts={"train": ["procedural-[34]"], "test": ["procedural-2?"]})
    assert {name: len(part) for name, part in split.samples.items()} == {"train": 8, "test": 4}
    assert len(split_by_name(store, parts={"test": "procedural-20"}).samples["train"]) == 16
    assert len(split_by_name(store, parts={"test": ["*"]}).samples["train"]) == 0  # a store of nothing but tests
    with pytest.raises(UserError, match="munich"):
        split_by_name(store, parts={"test": ["munich-*"]})


def test_every_shift_stands_beside_a_training_that_knows_its_tests(store: Path, tmp_path: Path) -> None:
    """Tests are the same maps and layers in both rows of a pair, and the training is of others."""
    config = plain(compose("radiomaps.conf", "benchmark", [f"store={store}", "trainer.samples=16", "probes=[]"]))
    config["trainer"] |= {"validate_every": 0, "checkpoint_every": 0, "device": "cpu"}
    config["loader"] |= {"batch_size": 4, "validation_samples": 0}
    parts = {"parts": {"train": 0.6, "test": 0.4}}
    config |= {
        "tasks": [{"task": "aware", "constants": ["frequency"]}],
        "models": ["free_space", "log_distance", {"model": "unet3d", "base": 4, "multipliers": [1, 2]}],
        "splits": [
            {"name": "new carrier", "by": "scene", **parts, "against": "known carrier",
             "where": {"train": {"frequency_hz": [LOW]}, "test": {"frequency_hz": [HIGH]}}},
            {"name": "known carrier", "by": "scene", **parts, "where": {"test": {"frequency_hz": [HIGH]}}},
            {"name": "new heights", "by": "scene", **parts, "where": ABOVE, "against": "known heights"},
            {"name": "known heights", "by": "scene", **parts, "where": dict.fromkeys(ABOVE, ABOVE["test"])},
            {"name": "streets to towers", "by": "name", "parts": {"test": ["procedural-20"]}, "against": "by file"},
            {"name": "by file", "by": "file", **parts},
        ],
        "cache": str(tmp_path),
    }  # fmt: skip
    made = Benchmark(config)
    for first, second in list(made.against.items())[:2]:
        assert made.test_samples(first) == made.test_samples(second)
    cell = next(cell for cell in made.cells if (cell.row, cell.split) == ("unet3d", "new heights"))
    assert made.task(cell).heights == (1.5, 4.5)
    assert made.task(cell, "test").heights == (7.5, 10.5)
    outcome = made.run()
    assert not outcome.failures
    layers = [name for name in outcome.scores[cell, "plain"].groups("path_gain_db") if name.startswith("z = ")]
    assert layers == ["z = 7.5 m", "z = 10.5 m"]
    rows = {(row["split"], row["model"]): row for row in gap_rows(made, outcome)}
    assert len(rows) == 3 * 3
    assert all(np.isfinite(row["factor"]) for row in rows.values())
    for split in ("new carrier", "new heights"):  # what learns nothing does as well wherever it comes from
        assert rows[split, "free_space"]["factor"] == pytest.approx(1.0)
        assert rows[split, "unet3d"]["factor"] != 1.0
    config["splits"][0]["against"] = "known carriers"
    with pytest.raises(UserError, match="did you mean 'known carrier'"):
        Benchmark(config)


def test_a_training_is_scored_on_the_layers_that_it_never_saw(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = "{train: {heights_m: [1.5, 4.5]}, test: {heights_m: [7.5, 10.5]}}"
    run = tmp_path / "run"
    words = [
        "train",
        f"store={store}",
        "model=unet3d",
        "model.network.base=4",
        "model.network.multipliers=[1,2]",
        "trainer.samples=8",
    ]
    assert app.main(APP, [*words, "pictures=0", "loader.batch_size=4", f"split.where={where}", f"run.dir={run}"]) == 0
    assert (
        app.main(APP, ["evaluate", f"store={store}", f"checkpoint={run}", f"run.dir={tmp_path / 'a'}", "pictures=0"])
        == 0
    )
    out = capsys.readouterr().out
    assert "z = 7.5 m" in out
    assert "z = 1.5 m" not in out
    assert "flip error" in out
    drawn = tmp_path / "c"
    words = ["predict", f"checkpoint={run}", f"store={store}", "pictures=0", "members=1", "count=1", f"run.dir={drawn}"]
    for part, heights in (("test", [7.5, 10.5]), ("train", [1.5, 4.5])):
        assert app.main(APP, [*words, f"part={part}", "run.fresh=true"]) == 0
        with xr.open_dataset(next((drawn / "samples").glob("*.nc"))) as made:
            assert made["z"].values.tolist() == heights
    capsys.readouterr()
    words = ["evaluate", f"store={store}", "baseline=log_distance", f"run.dir={tmp_path / 'b'}"]
    assert app.main(APP, [*words, f"split={{by: scene, where: {where}}}", "pictures=0"]) == 0
    assert "z = 1.5 m" not in capsys.readouterr().out


def test_the_experiment_asks_for_what_its_maps_have() -> None:
    maps = plain(compose("radiomaps.conf", "trace", ["experiment=generalisation_maps"]))
    names = [
        f"procedural-{entry['seed']}" if "seed" in entry else entry["name"] for entry in expand_scenes(maps["scenes"])
    ]
    layers = Window(**maps["window"]).grid()["z"].coordinates.tolist()
    made = Benchmark(compose("radiomaps.conf", "benchmark", ["experiment=generalisation", "store=any"]))
    assert set(made.against) | set(made.against.values()) == set(made.splits)
    for split in made.splits.values():
        for limits in split.get("where", {}).values():
            assert set(limits.get("frequency_hz", ())) <= set(maps["frequencies_hz"])
            assert set(limits.get("heights_m", ())) <= set(layers)
        if split["by"] == "name":
            chosen = {
                p: {n for n in names if any(fnmatchcase(n, w) for w in ways)} for p, ways in split["parts"].items()
            }
            assert all(chosen.values())
            assert not chosen["train"] & chosen["test"]

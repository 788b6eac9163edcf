"""Sets of maps: the same whoever computes them, resumed without repeating, refused when unfinished or changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from geoml.data.store import open_store, verify_store
from geoml.errors import DataError, UserError
from radiomaps.exchange import export_urbanradio3d
from radiomaps.generation import generate as module
from radiomaps.generation.generate import compute, generate
from radiomaps.generation.plan import Placement, Plan, Window, expand_scenes
from radiomaps.maps.layout import Transmitter
from radiomaps.maps.store import open_maps, scene_records

WINDOW = Window(size_m=96, step_m=8, heights_m=(1.5, 9.5, 4), centre_m=(128, 128))


def plan(**changes: object) -> Plan:
    scenes = ({"name": "procedural", "seed": 20, "count": 2},)
    return Plan(**{"scenes": scenes, "placement": Placement(count=4), "window": WINDOW, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(plan(), tmp_path_factory.mktemp("maps") / "whole.zarr")


def same_files(a: Path, b: Path) -> bool:
    names = sorted(str(file.relative_to(a)) for file in a.rglob("*") if "/c/" in str(file) and file.is_file())
    assert names
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


def test_transmitters_stand_in_streets_and_on_roofs_at_carriers_in_turn(tmp_path: Path):
    varied = plan(
        scenes=({"name": "procedural", "seed": 20, "count": 3},),
        placement=Placement(count=4, on_roofs=2, height_m=(1.5, 12)), carriers_hz=(2e9, 6e9),
    )  # fmt: skip
    for index in range(3):
        scene, sites = varied.scene(index), varied.transmitters(index)
        heights = [site.position[2] for site in sites]
        assert all(1.5 <= height <= 12 for height in heights[:2])
        near = [[f.top_m for f in scene.footprints if f.polygon.buffer(8).contains(_point(site))] for site in sites]
        tops = list(map(max, near[2:]))
        assert all(height <= top + 3 + 1e-6 for height, top in zip(heights[2:], tops, strict=True))
        assert all(height > 6 for height in heights[2:])
    assert varied.frequencies_of(0, 12) == [2e9] * 4 + [6e9] * 4 + [2e9] * 4
    assert "carriers_hz" not in plan().describe()
    assert "on_roofs" not in plan().describe()["placement"]
    maps = open_maps(generate(varied, tmp_path / "varied.zarr"))
    assert sorted(set(np.ravel(maps["frequency_hz"]).tolist())) == [2e9, 6e9]
    for bad, hint in (
        ({"on_roofs": 5}, "0 … count"),
        ({"height_m": (3, 1)}, "low <= high"),
        ({"height_m": "x"}, "metres"),
    ):
        with pytest.raises(UserError, match=hint):
            Placement(count=4, **bad)
    with pytest.raises(UserError, match="carriers_hz alternates"):
        plan(carriers_hz=(2e9,), frequencies_hz=(3e9,))


def test_several_windows_of_one_scene_are_scenes_of_their_own(tmp_path: Path):
    centres = [[80, 100], [180, 160]]
    several = plan(scenes=({"name": "procedural", "seed": 20, "centres_m": centres},), placement=Placement(count=2))
    assert several.samples == 4
    single = [plan(scenes=("procedural-20",), window=replace(WINDOW, centre_m=tuple(centre))) for centre in centres]
    assert [several.grid(index) for index in (0, 1)] == [one.grid(0) for one in single]
    maps = open_maps(generate(several, tmp_path / "several.zarr"))
    for index, one in enumerate(single):
        found = maps["building"].isel(scene=index).values
        np.testing.assert_array_equal(found, one.scene(0).building_mask(one.grid(0)))
    assert [record["name"] for record in scene_records(tmp_path / "several.zarr")] == [
        "procedural-20@80,100", "procedural-20@180,160"
    ]  # fmt: skip
    with pytest.raises(UserError, match="centres_m holds 7"):
        expand_scenes([{"name": "procedural", "centres_m": [7]}])


def _point(site: Transmitter) -> shapely.Point:
    return shapely.Point(site.position[:2])


def test_store_holds_what_the_solver_gave(whole: Path):
    verify_store(whole)
    maps = open_maps(whole)
    assert maps["path_gain_db"].dims == ("scene", "tx", "z", "y", "x")
    assert maps["building"].dims == ("scene", "z", "y", "x")
    direct = plan().trace(4, 8)
    stored = maps.isel(scene=1).load()
    assert stored["path_gain_db"].values == pytest.approx(direct["path_gain_db"].values, abs=0.0051, nan_ok=True)
    assert stored["toa_s"].values == pytest.approx(direct["toa_s"].values, abs=1e-12, nan_ok=True)
    assert stored["doa_azimuth"].values == pytest.approx(direct["doa_azimuth"].values, abs=6e-5, nan_ok=True)
    assert (stored["los"].values == direct["los"].values).all()
    assert stored["tx_x"].values + float(stored["origin_x"]) == pytest.approx(direct["tx_x"].values)
    assert maps["path_gain_db"].attrs["units"] == "dB"
    assert maps.attrs["frequency_hz"] == 5.9e9
    assert "CC0" in maps.attrs["licence"]
    records = scene_records(whole)
    assert [record["hash"] for record in records] == [plan().scene(index).hash for index in range(2)]
    for kept, made in zip(records[0].footprints, plan().scene(0).footprints, strict=True):
        assert kept.polygon.equals_exact(made.polygon, 1e-3)
        assert (kept.base_m, kept.top_m) == pytest.approx((made.base_m, made.top_m))


def test_the_block_loader_serves_volumes_and_crops(whole: Path):
    from geoml.data.blocks import FieldSource
    from geoml.data.loader import BlockLoader
    from geoml.data.patches import PatchSpec
    from radiomaps.tasks.splits import split_by_scene

    samples = split_by_scene(whole, parts={"train": 0.5, "test": 0.5}).samples["train"]
    source = FieldSource(whole, target=("path_gain_db", "toa_s"), samples=samples)
    assert source.condition == ("building",)
    volumes = list(BlockLoader([source], batch_size=2))
    assert [tuple(batch.target.shape) for batch in volumes] == [(2, 2, 3, 12, 12)] * 2
    expected = open_store(whole, "target")["path_gain_db"].values[samples]
    found = np.concatenate([np.where(batch.mask[:, 0], batch.target[:, 0], np.nan) for batch in volumes])
    assert np.nansum(found) == pytest.approx(np.nansum(expected), rel=1e-5)
    crops = BlockLoader([source], batch_size=4, patch=PatchSpec((2, 6, 6), halo=0))
    batch = next(iter(crops))
    assert tuple(batch.target.shape[1:]) == (2, 2, 6, 6)
    assert batch.target_grid.names == ("z", "y", "x")


def test_transmitters_stand_outdoors_and_differ_between_scenes():
    one, other = plan().transmitters(0), plan().transmitters(1)
    assert len({t.position for t in one}) == 4
    assert [t.position for t in one] != [t.position for t in other]
    assert [t.position for t in one] == [t.position for t in plan().transmitters(0)]
    plan().scene(0).require_outdoors([t.position for t in one])


def test_two_workers_write_what_one_process_writes(whole: Path, tmp_path: Path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        other = generate(plan(), tmp_path / "two.zarr")
    assert same_files(whole, other)


def test_more_tasks_than_workers_take_at_once_are_all_done(tmp_path: Path):
    from distributed import Client, LocalCluster

    small = replace(WINDOW, step_m=16, heights_m=(1.5, 1.5, 1))
    many = plan(window=small, placement=Placement(count=1), scenes=({"name": "procedural", "count": 7},))
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        maps = open_maps(generate(many, tmp_path / "many.zarr"))
    assert maps.sizes["scene"] == 7
    assert bool(maps["path_gain_db"].notnull().any(("tx", "z", "y", "x")).all())


def test_stopped_and_resumed_without_computing_twice(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []

    def counted(plan: Plan, start: int, stop: int, advance: Callable[[float], None] | None = None):
        calls.append(start)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compute(plan, start, stop, advance)

    monkeypatch.setattr(module, "compute", counted)
    path = tmp_path / "stopped.zarr"
    with pytest.raises(KeyboardInterrupt):
        generate(plan(), path)
    with pytest.raises(DataError, match="not complete"):
        open_maps(path)
    generate(plan(), path)
    assert calls == [0, 4, 4]
    generate(plan(), path)
    assert len(calls) == 3
    assert same_files(whole, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed"),
        ({"options": {"turns": 1}}, "options"),
        ({"placement": Placement(count=4, height_m=3)}, "placement"),
    ],
)
def test_another_plan_is_refused_by_what_differs(whole: Path, changes: dict, message: str):
    with pytest.raises(UserError, match=f"other settings .*{message}"):
        generate(plan(**changes), whole)
    assert plan(**changes).identity != plan().identity


def test_a_sweep_lies_in_one_store(tmp_path: Path):
    sweep = plan(frequencies_hz=(2e9, 6e9), placement=Placement(count=2))
    assert sweep.samples == 8
    maps = open_maps(generate(sweep, tmp_path / "sweep.zarr")).load()
    assert dict(maps.sizes)["tx"] == 4
    assert maps["frequency_hz"].values.tolist() == [2e9, 2e9, 6e9, 6e9]
    assert (maps["tx_x"].values[:, :2] == maps["tx_x"].values[:, 2:]).all()
    direct = sweep.trace(6, 8)  # second scene, second frequency
    assert direct["frequency_hz"].values.tolist() == [6e9, 6e9]
    stored = maps["path_gain_db"].isel(scene=1, tx=slice(2, 4)).values
    assert stored == pytest.approx(direct["path_gain_db"].values, abs=0.0051, nan_ok=True)
    with pytest.raises(DataError, match="export one frequency"):
        export_urbanradio3d(tmp_path / "sweep.zarr", tmp_path / "set")
    with pytest.raises(ValueError, match="two scenes or frequencies"):
        sweep.trace(1, 3)
    with pytest.raises(UserError, match="is repeated"):
        plan(frequencies_hz=(2e9, 2e9))


def test_heights_may_be_above_the_ground(tmp_path: Path):
    maps = open_maps(generate(plan(window=replace(WINDOW, above_ground=True)), tmp_path / "above.zarr"))
    assert maps["z"].attrs["long_name"] == "height above the ground"
    assert maps["ground_m"].dims == ("scene", "y", "x")
    assert maps["ground_m"].attrs["units"] == "m"


def test_stores_keep_the_ground_below_heights_above_it(tmp_path: Path):
    """A hill in San Francisco: the ground is the scene's own, to a centimetre."""
    window = Window(size_m=64, step_m=8, heights_m=(2.0, 10.0, 4.0), above_ground=True)
    hills = plan(scenes=({"name": "san_francisco"},), placement=Placement(count=2), window=window)
    maps = open_maps(generate(hills, tmp_path / "hills.zarr"))
    ground = hills.scene(0).ground_height(hills.grid(0))
    assert np.ptp(ground) > 1
    assert np.abs(maps["ground_m"].values[0] - ground).max() <= 0.0051


def test_damage_is_found(whole: Path, tmp_path: Path):
    import shutil

    copy = tmp_path / "copy.zarr"
    shutil.copytree(whole, copy)
    (copy / "scenes" / "00001.json").unlink()
    with pytest.raises(DataError, match=r"00001\.json is missing"):
        open_maps(copy)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plan(solver="sionne"), "did you mean 'sionna'"),
        (lambda: plan(variables=("path_gain",)), "did you mean 'path_gain_db'"),
        (lambda: plan(options={"turn": 1}).trace(0, 1), "did you mean 'turns'"),
        (lambda: plan(scenes=()), "no scene"),
        (lambda: plan(window=Window(size_m=300, step_m=10)).trace(0, 1), "choose a grid inside"),
        (lambda: Window(heights_m=(1, 20.5, 1)), "first, last and a step"),
        (lambda: Window(size_m=10, step_m=3), "not a multiple"),
        (lambda: Placement(count=0), "at least 1"),
        (lambda: plan(placement=Placement(count=10_000)).transmitters(0), "do not fit"),
        (lambda: plan(placement=Placement(positions_m=((500, 500, 2),))).trace(0, 1), "is outside scene"),
        (lambda: compute(plan(variables=("k_factor_db",)), 0, 1), "does not compute k_factor_db"),
    ],
)
def test_impossible_plans_say_what_to_change(make, message: str):
    with pytest.raises(UserError, match=message):
        make()


def test_scene_lists_expand():
    entries = expand_scenes(["etoile", {"name": "procedural", "count": 2}, "a/b.geojson"])
    assert entries[0] == {"name": "etoile"}
    assert [entry.get("seed") for entry in entries[1:3]] == [0, 1]
    assert entries[3] == {"path": "a/b.geojson"}


def test_layers_lie_where_they_were_asked_for():
    grid = Window(size_m=64, step_m=2, heights_m=(1, 20, 1)).grid()
    assert grid.shape == (20, 32, 32)
    assert grid["z"].coordinates == pytest.approx(np.arange(1, 21))

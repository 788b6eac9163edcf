"""Tasks: encodings come back, crops see what whole maps see, observations and conditions give nothing away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch

from geoml.constants import SPEED_OF_LIGHT
from geoml.data.fields import Batch
from geoml.data.store import open_store
from geoml.errors import UserError
from geoml.grids.grid import Grid
from radiomaps.dominant import VERSION
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window, run_solver
from radiomaps.maps.layout import Transmitter, friis_gain_db
from radiomaps.scenes import Footprint
from radiomaps.scenes.extrude import scene_of_footprints
from radiomaps.tasks import TARGETS, Encoding, Observations, Task
from radiomaps.tasks.augment import flipped
from radiomaps.tasks.conditions import Site, distance_of
from radiomaps.tasks.dataset import TaskSource, loader
from radiomaps.tasks.observations import PATTERNS
from radiomaps.tasks.priors import dominant_store, free_space, interpolate
from radiomaps.tasks.splits import split_by_file, split_by_name
from radiomaps.tasks.task import SIGHT

UNAWARE = Task(targets=TARGETS, radiation="unaware", observations=Observations(rate=0.05), prior="interpolated")
AWARE = Task(
    targets=TARGETS, prior="dominant", transmitter=("map", "distance", "direction"), constants=("frequency",),
    features=("walls", "obstruction", "roofs"),
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes of two transmitters on 16 × 16 × 3 voxels."""
    scenes = ({"name": "procedural", "seed": 3, "count": 4, "size_m": 96},)
    window = Window(size_m=64, step_m=4, heights_m=(1.5, 7.5, 3))
    return generate(Plan(scenes, Placement(count=2), window), tmp_path_factory.mktemp("tasks") / "maps.zarr")


def outdoors_of(store: Path, sample: int) -> np.ndarray:
    return open_store(store, "condition")["building"].values[sample] == 0


def test_encodings_come_back():
    fields = {
        "path_gain_db": np.array([-200.0, -130.3, -60.0]), "toa_s": np.array([0.0, 3.3e-7, 2e-6]),
        "doa_azimuth": np.array([0.01, 3.0, 6.27]), "doa_zenith": np.array([0.1, 1.5, 3.0]),
    }  # fmt: skip
    for kind in ("physical", "uint8"):
        task = Task(targets=TARGETS, encoding=kind)
        channels = torch.from_numpy(np.stack(task.encode(fields)))[:, None, None]
        back = {name: values.numpy().ravel() for name, values in task.decode(channels).items()}
        for name, values in fields.items():
            codec = task.codecs.codec(name)
            if kind == "physical":
                expected, slack = values, 1e-5 * abs(values).max()
            else:
                expected, slack = np.clip(values, codec.low, codec.high), 0.5001 * codec.step + 1e-6 * abs(values).max()
            assert np.abs(back[name] - expected).max() <= slack, (kind, name)


def test_eight_bits_are_those_of_the_published_table():
    encoding = Encoding("uint8")
    levels = encoding.encode("path_gain_db", np.linspace(-140, -40, 97))[0] * 255
    assert np.abs(levels - np.rint(levels)).max() < 1e-4
    assert (levels.min(), levels.max()) == (0, 255)


def test_tasks_that_contradict_themselves_are_refused():
    for options, hint in (
        ({"targets": ("gain",)}, "target 'gain' unknown"),
        ({"radiation": "unaware"}, "needs observations"),
        ({"observations": Observations()}, "has observations"),
        ({"radiation": "unaware", "observations": Observations(), "prior": "dominant"}, "needs the transmitter"),
        ({"prior": "interpolated"}, "aware task has none"),
        ({"transmitter": ()}, "name its encodings"),
        ({"targets": ("toa_s", "toa_s")}, "is repeated"),
    ):
        with pytest.raises(UserError, match=hint):
            Task(**options)
    with pytest.raises(UserError, match=r"target_s.*targets"):
        Task.of({"target_s": ["toa_s"]})


@pytest.mark.parametrize("task", [AWARE, UNAWARE], ids=["aware", "unaware"])
def test_a_crop_sees_what_the_whole_map_sees(store: Path, task: Task):
    whole = dict(enumerate(loader(store, None, task, batch_size=1, shuffle=False)))
    crops = loader(store, None, task, batch_size=5, patch=8, patches_per_sample=2, seed=3)
    outside = 0
    for batch in crops:
        for row, item in enumerate(batch.ids):
            one = whole[crops.sample_of(item)]
            condition, target = batch.condition[row], batch.target[row]
            windows = one.condition[0].unfold(2, 8, 1).unfold(3, 8, 1)
            match = (windows == condition[:, :, None, None]).all(dim=(0, 1, 4, 5))
            assert match.sum() >= 1
            y, x = (int(i) for i in match.nonzero()[0])
            assert torch.equal(one.target[0, :, :, y : y + 8, x : x + 8], target)
            if "tx_map" in task.channels.condition:
                outside += int(condition[task.channels.condition.index("tx_map")].sum() == 0)
    if task is AWARE:
        assert outside > 0  # and the distance still tells where the transmitter is


def test_transmitter_channels_are_geometry(store: Path):
    source = TaskSource(store, AWARE)
    batch = next(iter(loader(store, [3], AWARE, batch_size=1)))
    names = AWARE.channels.condition
    vector = source.site(3).towards(source.target_grid)
    distance = distance_of(batch.condition[0, names.index("tx_distance")].double()).numpy()
    assert np.allclose(distance, np.maximum(np.linalg.norm(vector, axis=0), 0.5), rtol=1e-5)
    unit = batch.condition[0, [names.index(f"tx_{name}") for name in ("east", "north", "up")]].numpy()
    assert np.allclose(unit * np.linalg.norm(vector, axis=0), vector, atol=1e-3)
    column = batch.condition[0, names.index("tx_map")].numpy()
    z, y, x = np.unravel_index(np.linalg.norm(vector, axis=0).argmin(), column.shape)
    assert column[z, y, x] == 1
    assert column.sum() == len(column)


def test_aware_conditions_do_not_depend_on_the_truth(store: Path):
    source = TaskSource(store, AWARE)
    generator = np.random.default_rng(0)
    shape = source.target_grid.shape
    building = ~outdoors_of(store, 0)
    guess = {name: np.full(shape, 0.5) for name in (*TARGETS, SIGHT)}
    made = [
        source._channels(0, building, {name: generator.random(shape) for name in TARGETS}, guess, None)
        for _ in range(2)
    ]
    for name in AWARE.channels.condition:
        assert np.array_equal(made[0][name], made[1][name]), name


def test_unaware_conditions_know_the_truth_where_it_is_observed_alone(store: Path):
    source = TaskSource(store, UNAWARE)
    generator = np.random.default_rng(0)
    building = ~outdoors_of(store, 0)
    truth = {name: generator.random(building.shape) for name in TARGETS}
    first = source._channels(0, building, truth, None, None)
    unseen = first["observed"] == 0
    changed = {name: np.where(unseen, generator.random(building.shape), values) for name, values in truth.items()}
    second = source._channels(0, building, changed, None, None)
    for name in UNAWARE.channels.condition:
        assert np.array_equal(first[name], second[name]), name
    assert not any(name.startswith("tx_") for name in UNAWARE.channels.condition)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_observed_voxels_are_outdoors_as_many_as_asked_and_keyed(store: Path, pattern: str):
    building = ~outdoors_of(store, 2)
    grid = TaskSource(store, UNAWARE).target_grid
    observations = Observations(pattern, 0.1, seed=4)  # type: ignore[arg-type]
    places = observations.places(building, grid, 2)
    assert not (places & building).any()
    assert np.array_equal(places, observations.places(building, grid, 2, epoch=7))  # fixed unless fresh
    fresh = Observations(pattern, 0.1, seed=4, fresh=True)  # type: ignore[arg-type]
    assert not np.array_equal(fresh.places(building, grid, 2, 1), fresh.places(building, grid, 2, 2))
    wanted = round(0.1 * (~building).sum())
    if pattern == "uniform":
        assert 0.6 * wanted < places.sum() < 1.5 * wanted
    elif pattern in ("roads", "streets"):
        assert places[1:].sum() == 0
        assert 0 < places.sum() <= wanted
    else:
        assert places.sum() == wanted


@pytest.mark.parametrize("rate", [0.001, 0.1])
def test_rates_are_met_on_an_open_field(rate: float):
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 4, "y": 100, "x": 100}, 1.0)
    for pattern in ("uniform", "random", "box", "trajectory"):
        places = Observations(pattern, rate).places(np.zeros(grid.shape, bool), grid, 0)  # type: ignore[arg-type]
        assert places.sum() == pytest.approx(rate * grid.size, rel=0.3 if pattern == "uniform" else 0.01)


def test_a_drone_flies_on_straight_legs():
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 4, "y": 30, "x": 30}, 1.0)
    places = Observations("trajectory", 0.005).places(np.zeros(grid.shape, bool), grid, 1)
    cells = np.argwhere(places)
    near = [np.sort(np.abs(cells - cell).max(axis=1))[1] for cell in cells]
    assert max(near) == 1  # every voxel has a neighbour on its way


def test_noise_and_quantisation_of_what_is_read():
    noisy = Observations(noise={"path_gain_db": 2.0}, quantisation={"toa_s": 1e-8})
    values = np.zeros((8, 64, 64))
    assert noisy.read("path_gain_db", values, 0).std() == pytest.approx(2.0, rel=0.02)
    assert np.array_equal(noisy.read("path_gain_db", values, 5), noisy.read("path_gain_db", values, 5))
    assert np.allclose(noisy.read("toa_s", np.array([1.26e-8]), 0), 1e-8)
    around = Observations(noise={"doa_azimuth": 0.5}).read("doa_azimuth", values + 0.1, 0)
    assert 0 <= around.min() < around.max() < 2 * np.pi


def test_fresh_observations_change_from_epoch_to_epoch(store: Path):
    task = Task(radiation="unaware", observations=Observations(rate=0.05, fresh=True))
    at = task.channels.condition.index("observed")
    batches = loader(store, [0, 1], task, batch_size=2, shuffle=False)
    seen = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        seen.append(next(iter(batches)).condition[:, at])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_a_recorded_task_keeps_the_solver_and_the_range_of_its_time(store: Path):
    assert AWARE.dominant_version == VERSION
    old = Task.recorded({"targets": ["path_gain_db"], "prior": "dominant"})
    assert old.dominant_version == 1
    assert old.codecs.codec("path_gain_db").low == -169
    assert Task.recorded(AWARE.describe()) == AWARE
    first, second = (open_store(dominant_store(store, version=v), "target")["path_gain_db"].values for v in (1, 2))
    assert np.nanmax(second - first) > 10
    assert np.nanquantile(second - first, 0.01) > -0.02


def test_the_dominant_prior_of_dominant_maps_is_the_truth(store: Path):
    for batch in loader(store, None, AWARE, batch_size=4):
        guesses = [AWARE.channels.guess_index(name) for name in AWARE.channels.target]
        assert torch.equal(batch.condition[:, guesses][batch.mask], batch.target[batch.mask])
    beside = dominant_store(store)
    assert dominant_store(store) == beside  # found, not made again


def test_paths_with_one_diffraction_are_an_input(store: Path):
    task = AWARE.changed(features=("diffracted_once",))
    at, guess = (task.channels.condition.index(name) for name in ("gain_diffracted_once", "path_gain_db_prior"))
    gain = open_store(dominant_store(store, once=True), "target")["path_gain_db"].values
    for batch in loader(store, None, task, batch_size=4, shuffle=False):
        once = batch.condition[:, at].numpy()
        (encoded,) = task.codecs.encode("path_gain_db", gain[list(batch.ids)])
        np.testing.assert_allclose(once, np.maximum(np.nan_to_num(encoded), 0), atol=1e-6)
        outdoors = batch.condition[:, 0].numpy() < 0.5
        assert (once <= np.maximum(batch.condition[:, guess].numpy(), 0) + 1e-3)[outdoors].all()
    with pytest.raises(UserError, match="diffracted_once needs the transmitter"):
        UNAWARE.changed(features=("diffracted_once",))


def test_physics_says_where_it_has_line_of_sight(store: Path):
    at = AWARE.channels.condition.index(SIGHT)
    lit = open_store(dominant_store(store), "target")["los"].values
    for batch in loader(store, None, AWARE, batch_size=4, shuffle=False):
        assert np.array_equal(batch.condition[:, at].numpy(), lit[list(batch.ids)] > 0.5)
    assert 0.1 < np.nanmean(lit[:, 0]) < 0.9
    free = AWARE.changed(prior="free_space")
    assert (next(iter(loader(store, [0], free, batch_size=1))).condition[:, at] == 1).all()
    assert SIGHT not in UNAWARE.channels.condition


def test_dominant_paths_of_footprints_are_those_of_the_plan(store: Path, tmp_path: Path):
    from radiomaps.tasks.footprint_priors import dominant_of_footprints

    dominant_of_footprints(store, tmp_path / "beside.zarr")
    own, made = open_store(store, "target"), open_store(tmp_path / "beside.zarr", "target")
    both = np.isfinite(own["path_gain_db"].values) & np.isfinite(made["path_gain_db"].values)
    apart = np.abs(own["path_gain_db"].values - made["path_gain_db"].values)[both]
    # Footprints are recorded to a millimetre: a wall may move by that, and what just sees past it.
    assert np.quantile(apart, 0.99) <= 0.02
    assert both.sum() >= 0.99 * np.isfinite(own["path_gain_db"].values).sum()


def test_free_space_is_friis_and_light():
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 2, "y": 8, "x": 8}, 2.0)
    site = Site((3.0, -40.0, 5.0), 23.0, 3.5e9)
    found = free_space(site, grid)
    distance = np.linalg.norm(site.towards(grid), axis=0)
    assert np.allclose(found["path_gain_db"], friis_gain_db(distance, 3.5e9))
    assert np.allclose(found["toa_s"] * SPEED_OF_LIGHT, distance)
    assert found["doa_azimuth"].min() > np.pi  # it lies to the south


def test_interpolation_is_exact_where_observed():
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 2, "y": 9, "x": 9}, 1.0)
    field = np.random.default_rng(0).random((2, *grid.shape)).astype(np.float32)
    seen = np.random.default_rng(1).random(grid.shape) < 0.1
    made = interpolate(np.where(seen, field, 0), seen, grid)
    assert np.array_equal(made[:, seen], field[:, seen])
    assert field[:, seen].min() <= made.min() <= made.max() <= field[:, seen].max()


def test_layers_by_height_and_weak_voxels(store: Path):
    some = next(iter(loader(store, [0], Task(heights=(1.5, 7.5)), batch_size=1)))
    every = next(iter(loader(store, [0], Task(), batch_size=1)))
    assert torch.equal(some.target, every.target[:, :, ::2])
    assert some.target_grid["z"].coordinates.tolist() == [1.5, 7.5]
    with pytest.raises(UserError, match="no layer at 2 m"):
        loader(store, [0], Task(heights=(2.0,)), batch_size=1)
    strong = next(iter(loader(store, [0], Task(threshold_dbm=-60.0), batch_size=1)))
    gain = Task().decode(every.target)["path_gain_db"]
    assert torch.equal(strong.mask[:, 0], every.mask[:, 0] & (gain + 23 >= -60.0))


def test_the_default_split_shares_no_scene_and_names_make_one(store: Path):
    from radiomaps.tasks.splits import audit, parts_of

    assert audit(store, parts_of(store, {"by": "scene", "parts": {"train": 0.75, "test": 0.25}})) == ()
    assert len(split_by_file(store, parts={"train": 0.5, "test": 0.5}).leaks) > 0
    named = split_by_name(store, parts={"test": ["procedural-4"]})
    assert named.samples["test"].tolist() == [2, 3]
    assert named.leaks == ()
    with pytest.raises(UserError, match="procedural-5"):
        split_by_name(store, parts={"test": ["procedural-55"]})


#: Signs of x and y after mirroring, and whether they are then swapped, by the number of the symmetry.
SYMMETRIES = {1: (-1, 1, False), 2: (1, -1, False), 4: (1, 1, True), 7: (-1, -1, True)}
YARD = [(4, 6, 14, 12, 9.0), (20, 18, 28, 30, 15.0), (6, 22, 12, 28, 6.0)]
ANTENNA = (17.3, 9.4, 4.0)  # above no voxel's centre, where azimuth has no meaning


def traced_yard(task: Task, moved: Callable[[float, float], tuple[float, float]]) -> Batch:
    """Dominant paths in a yard of 32 m whose points are moved, as a batch of one."""
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 8, "y": 32, "x": 32}, 2.0)

    def everywhere(points: np.ndarray) -> np.ndarray:
        return np.array([moved(x, y) for x, y in points])

    prisms = [Footprint(shapely.transform(shapely.box(*box[:4]), everywhere), box[4]) for box in YARD]
    scene = scene_of_footprints("yard", prisms, bounds=(0, 0, 32, 32))
    place = (*moved(*ANTENNA[:2]), ANTENNA[2])
    maps = run_solver("dominant", scene, [Transmitter(place)], grid, {})
    vector = Site(place, 23.0, 5.9e9).towards(grid)
    building = maps["building"].values.astype(np.float32)
    empty = np.zeros_like(building)
    condition = np.stack([building, empty, empty, empty, *(vector / np.linalg.norm(vector, axis=0))]).astype(np.float32)
    target = np.stack(task.encode({name: maps[name].values[0] for name in TARGETS}))
    tensors = (torch.from_numpy(field)[None] for field in (condition, np.nan_to_num(target), np.isfinite(target)))
    given, wanted, mask = tensors
    return Batch(given, grid, grid, wanted, mask=mask, ids=(0,))


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_flipped_scene_has_the_flipped_map(symmetry: int):
    """Mirrored and turned footprints, traced, are what augmentation makes of the map, directions included."""
    east, north, swapped = SYMMETRIES[symmetry]
    task = Task(targets=TARGETS)

    def moved(x: float, y: float) -> tuple[float, float]:
        x, y = (32 - x if east < 0 else x), (32 - y if north < 0 else y)
        return (y, x) if swapped else (x, y)

    made = flipped(traced_yard(task, lambda x, y: (x, y)), task.channels, [symmetry])
    truth = traced_yard(task, moved)
    assert torch.equal(made.mask, truth.mask)
    assert torch.allclose(made.condition, truth.condition, atol=1e-6)
    assert (made.target - truth.target).abs()[truth.mask].max() < 1e-5  # what float32 leaves of an azimuth


def test_flips_leave_unread_voxels_at_zero(store: Path):
    batch = next(iter(loader(store, [0, 1], UNAWARE, batch_size=2)))
    made = flipped(batch, UNAWARE.channels, [3, 5])
    names = UNAWARE.channels.condition
    unseen = made.condition[:, names.index("observed")] == 0
    for channel in ("doa_azimuth_sin_observed", "doa_azimuth_cos_observed"):
        assert (made.condition[:, names.index(channel)][unseen] == 0).all()
    twice = flipped(flipped(batch, UNAWARE.channels, [3, 4]), UNAWARE.channels, [3, 4])
    assert torch.allclose(twice.condition, batch.condition, atol=1e-6)

"""A verb opens and verifies each store once, and hands it on."""

from collections import Counter

import pytest

import geoml.data.store
from radiomaps.__main__ import main as radiomaps
from rainshift.__main__ import main as rainshift

RAIN = [
    "data.size_deg=3",
    "data.splits_at={train:{start:'2001-01-01',end:'2003-01-01',hours:24},"
    "validation:{start:'2003-01-01',end:'2004-01-01',hours:12},test:{start:'2004-01-01',end:'2006-01-01',hours:12}}",
    "data.condition=[tp,tcw]",
]
TINY_RAIN = "{model:resnet,width:4,coarse_blocks:1,fine_blocks:1,name:tiny}"
SHORT = ["trainer.samples=16", "trainer.validate_every=0", "trainer.checkpoint_every=0"]
SPLIT = "split={by:scene,parts:{train:0.5,validation:0.25,test:0.25}}"
TINY = ["model=unet3d", "model.network.base=4", "model.network.multipliers=[1,2]"]


@pytest.fixture
def opened(monkeypatch):
    """How often each store was verified since the last look."""
    counts = Counter()
    verify = geoml.data.store.verify_store

    def counted(path, **options):
        counts[path.name] += 1
        return verify(path, **options)

    monkeypatch.setattr(geoml.data.store, "verify_store", counted)

    def look():
        found = dict(counts)
        counts.clear()
        return found

    return look


@pytest.mark.slow
def test_verbs_of_radio_maps_open_their_store_once(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    window = ["window.size_m=32", "window.step_m=4", "window.heights_m=[1.5,4.5,3]"]
    scenes = "scenes=[{name:procedural,seed:3,count:4,size_m:64}]"
    assert (
        radiomaps(
            ["trace", scenes, *window, "solver=dominant", "transmitters.count=1", "store=maps.zarr", "pictures=0"]
        )
        == 0
    )
    opened()
    once = {"maps.zarr": 1, "maps.dominant-2.zarr": 1}
    task = ["store=maps.zarr", "task=aware", "task.prior=dominant"]
    train = [*task, *TINY, SPLIT, *SHORT, "loader.batch_size=2", "pictures=1", "run.dir=trained"]
    assert radiomaps(["train", *train]) == 0
    assert opened() == once
    assert radiomaps(["predict", "checkpoint=trained", "store=maps.zarr", "part=test", "members=1"]) == 0
    assert opened() == once
    assert radiomaps(["evaluate", "checkpoint=trained", "store=maps.zarr", "members=1", "pictures=1"]) == 0
    assert opened() == once
    rows = "models=[free_space,idw,{model:unet3d,base:4,multipliers:[1,2]}]"
    split = "splits=[{by:scene,parts:{train:0.5,test:0.5}}]"
    short = [*SHORT, "loader.validation_samples=0"]
    assert (
        radiomaps(
            ["benchmark", "store=maps.zarr", "tasks=[{task:aware,prior:dominant}]", rows, split, *short, "members=1"]
        )
        == 0
    )
    assert opened() == once


@pytest.mark.slow
def test_verbs_of_rain_open_each_store_once(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    one = [*RAIN, "region=melanesia"]
    tiny = ["model=resnet", "model.width=4", "model.coarse_blocks=1", "model.fine_blocks=1"]
    short = [*SHORT, "loader.patch=20", "loader.batch_size=8", "loader.validation_samples=2"]
    assert rainshift(["train", *one, *tiny, *short, "run.dir=trained"]) == 0
    assert set(opened().values()) == {1}
    assert rainshift(["predict", *one, "checkpoint=trained", "samples=2", "members=1"]) == 0
    assert set(opened().values()) == {1}
    assert rainshift(["evaluate", *one, "checkpoint=trained", "samples=4", "members=1"]) == 0
    assert set(opened().values()) == {1}
    rows = f"models=[bilinear,{TINY_RAIN}]"
    regions = ["train_regions=[melanesia,west-africa]", "test_regions=[melanesia]", "analysis.replicates=100"]
    scores = ["metrics.metrics=[crps_fair,mae]", "metrics.thresholds=[1]"]
    assert rainshift(["benchmark", *RAIN, *regions, rows, *scores, *short, "shift_hours=6"]) == 0
    assert set(opened().values()) == {1}

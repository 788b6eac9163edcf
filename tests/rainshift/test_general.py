"""The shipped general models: whole, small, and usable by name wherever a model is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from geoml.data.fields import Batch
from geoml.models.base import Channels
from geoml.nn.conservation import conservation_for
from geoml.train.checkpoint import load_config, verify
from rainshift.__main__ import APP
from rainshift.models.general import WEIGHTS, General, GeneralRegression, weights_of
from rainshift.sources import open_source
from rainshift.trained import load_model

GUESS = (("precipitation", "tp"),)
RAIN = Channels(("tp",), ("precipitation",), (), GUESS)
KINDS = {"general": General, "general-regression": GeneralRegression}


@pytest.fixture(scope="module")
def wet():
    """Two wet hours of a place, exact means of them as the coarse rain."""
    exact = {"analysis_noise": 0.0, "analysis_bias": 1.0, "analysis_shift_km": 0.0}
    data = open_source("synthetic", size_deg=2, climate=exact).blocks("melanesia", np.array([19001]))
    hours = np.argsort(data.target["precipitation"].values.mean((1, 2)))[-2:]
    return data.isel(np.sort(hours))


def batch_of(data) -> Batch:
    condition = torch.from_numpy(data.condition["tp"].values[:, None].copy())
    return Batch(condition, data.coarse, data.fine, ids=(0, 1))


def test_weights_are_whole_small_and_known_by_name():
    for name in KINDS:
        folder = weights_of(name)
        verify(folder)
        assert load_config(folder)["model"]["_target_"].startswith("rainshift.models.anchored.")
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 8e6
    assert weights_of("../general") is None
    assert weights_of("generl") is None


@pytest.mark.parametrize("name", KINDS)
def test_coarse_rain_alone_is_enough_and_exact_means_are_kept(name, wet):
    batch = batch_of(wet)
    rain, clipped = KINDS[name](RAIN, exact=True).predict(batch, members=2, seed=3)
    assert rain.shape == (2, 2, 1, *wet.fine.shape)
    assert clipped == 0
    layer = conservation_for(wet.fine, wet.coarse)
    found, wanted = layer.means(rain[:, :, 0].double()), layer.inner(batch.condition[:, :1].double())
    assert torch.allclose(found, wanted.expand_as(found), atol=1e-3 * float(wanted.max()))
    free, _ = KINDS[name](RAIN).predict(batch, members=2, seed=3)
    assert not torch.allclose(free, rain)


def test_members_differ_and_do_not_depend_on_the_batch(wet):
    batch, model = batch_of(wet), General(RAIN)
    rain, _ = model.predict(batch, members=3, seed=1)
    assert not torch.equal(rain[:, 0], rain[:, 1])
    alone, _ = model.predict(batch.map(condition=batch.condition[1:], ids=(1,)), members=3, seed=1)
    assert torch.allclose(alone[0], rain[1], atol=2e-2 * float(rain.max()))


def test_a_file_with_any_predictors_is_predicted(wet, tmp_path, capsys):
    from geoml.cli import app

    names = ["tp", "tcw", "u"]
    wet.condition[names].to_netcdf(tmp_path / "coarse.nc")
    output = tmp_path / "fine.nc"
    words = ["predict", "model=general", f"input={tmp_path}/coarse.nc", f"output={output}", "members=2"]
    assert app.main(APP, [*words, f"run.dir={tmp_path}/run"]) == 0
    with xr.open_dataset(output) as made:
        assert made["precipitation"].sizes["member"] == 2
        assert np.isfinite(made["precipitation"].values).all()
    assert app.main(APP, [*words, f"checkpoint={tmp_path}", f"run.dir={tmp_path}/other"]) == 2
    assert "either checkpoint=RUN" in capsys.readouterr().err
    model = load_model("general")
    prepared, _ = model.prepared(wet.condition[names])
    assert prepared.channels.condition == ("tp", "tcw", "u")


def test_a_training_begins_with_the_weights_whatever_its_predictors(tmp_path):
    from geoml.train.checkpoint import start_from
    from rainshift.models.spec import ModelSpec

    spec = ModelSpec.of({"model": "anchored-regression", "start": "general-regression"})
    model = spec.build(Channels(("tp", "cape"), ("precipitation",), ("lsm",), GUESS))
    start_from(model, spec.starting)
    assert spec.identity["start"] == (WEIGHTS / "general-regression" / "SHA256SUMS").read_text()


def test_a_benchmark_passes_on_that_means_are_exact():
    from rainshift.models.spec import ModelSpec

    spec = ModelSpec.of("general")
    assert spec.with_exact(True).config["exact"] is True
    assert spec.with_exact(False) == spec
    assert ModelSpec.of("bilinear").with_exact(True) == ModelSpec.of("bilinear")
    assert not spec.learns
    assert spec.in_tiles

"""Predictions as a user asks for them: tiled or whole they are the same, and a conservation layer keeps the rain."""

import numpy as np
import pytest
import xarray as xr

from geoml.grids import grid_of
from geoml.nn.conservation import conservation_for
from rainshift.__main__ import main

DATA = [
    "data.size_deg=4",
    "data.splits_at={train:{start:'2001-01-01',end:'2003-01-01',hours:24},"
    "validation:{start:'2003-01-01',end:'2004-01-01',hours:24},test:{start:'2004-01-01',end:'2006-01-01',hours:24}}",
    "data.condition=[tp,tcw]",
    "region=europe_west",
]
NETWORK = ["model=gan", "model.width=4", "model.coarse_blocks=1", "model.fine_blocks=1", "model.critic_width=4"]
PREDICT = ["predict", *DATA, "checkpoint=trained", "samples=3", "members=2"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a model trained for a moment."""
    folder = tmp_path_factory.mktemp("prediction")
    short = ["trainer.samples=96", "loader.patch=20", "loader.validation_samples=2", "run.dir=trained"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *DATA, *NETWORK, *short]) == 0
    return folder


@pytest.fixture
def predicted(workplace, monkeypatch):
    monkeypatch.chdir(workplace)

    def run(name, *options):
        assert main([*PREDICT, f"run.dir={name}", *options]) == 0
        return xr.open_dataset(next((workplace / name / "samples").glob("*.nc"))).load()

    return run


def test_tiles_are_the_whole(predicted):
    whole = predicted("whole")["precipitation"]
    tiled = predicted("tiled", "tiles={tile:16,blend:4,halo:16,limit:16}")["precipitation"]
    assert whole.dims == ("member", "time", "lat", "lon")
    np.testing.assert_allclose(tiled, whole, rtol=1e-4, atol=1e-5)
    assert float(np.abs(whole[0] - whole[1]).max()) > 0


def test_coarse_means_are_kept_where_asked_for(predicted, workplace):
    kept, free = predicted("kept", "conservation=multiplicative"), predicted("whole")
    store = next((workplace / "runs/cache/data").glob("synthetic-*/europe_west-test.zarr"))
    coarse = (
        xr.open_zarr(store, group="condition", consolidated=False)["tp"]
        .sel(time=kept["time"])
        .transpose("time", "lat", "lon")
    )
    layer = conservation_for(grid_of(kept), grid_of(coarse))

    def miss(rain):
        import torch

        fields = torch.as_tensor(rain["precipitation"].values).double()
        wanted = layer.inner(torch.as_tensor(coarse.values).double())
        return float((layer.means(fields) - wanted).abs().max())

    limit = 1e-5 * float(coarse.max())
    assert miss(kept) <= limit < miss(free)


def test_mistakes_are_named(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    assert main([*PREDICT, "run.dir=wrong", "conservation=multiplicativ"]) != 0
    assert "did you mean 'multiplicative'" in capsys.readouterr().err
    assert main([*PREDICT, "run.dir=worse", "tiles.blend=400"]) != 0
    assert "half a tile" in capsys.readouterr().err


def test_what_trust_learnt_stands_beside_a_prediction(workplace, predicted, capsys):
    before = predicted("untrusted")
    assert set(before.data_vars) == {"precipitation"}
    assert main(["trust", *DATA[:-1], "checkpoint=trained", "hours=12", "members=2", "run.dir=learnt"]) == 0
    with_trust = predicted("trusted")
    assert set(with_trust.data_vars) == {"precipitation", "expected_error", "error_bound", "novelty", "familiar"}
    np.testing.assert_array_equal(with_trust["precipitation"], before["precipitation"])
    assert with_trust["expected_error"].dims == ("time", "lat", "lon")
    assert (with_trust["error_bound"] > 0).all()
    assert set(np.unique(with_trust["familiar"])) <= {0, 1}
    (workplace / "trained/checkpoints/trust.safetensors").write_bytes(b"torn")
    assert main([*PREDICT, "run.dir=torn"]) == 2
    assert "trust.safetensors cannot be read" in capsys.readouterr().err
    (workplace / "trained/checkpoints/trust.safetensors").unlink()

"""Predictions as a user asks for them: tiled or whole they are the same, and a conservation layer keeps the rain."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geoml.grids.grid import grid_of
from geoml.nn.conservation import conservation_for
from geoml.report import Viewer
from rainshift.__main__ import main
from rainshift.report.example_maps import read
from rainshift.report.html import report

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


def test_half_precision_rains_nearly_the_same(predicted):
    whole, half = (predicted(name, f"precision={name}")["precipitation"] for name in ("fp32", "bf16"))
    assert not np.array_equal(whole, half)
    assert float(((half - whole) ** 2).mean()) < 1e-3 * float((whole**2).mean())


def test_mistakes_are_named(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    assert main([*PREDICT, "run.dir=wrong", "conservation=multiplicativ"]) != 0
    assert "did you mean 'multiplicative'" in capsys.readouterr().err
    assert main([*PREDICT, "run.dir=worse", "tiles.blend=400"]) != 0
    assert "half a tile" in capsys.readouterr().err
    trained = ["checkpoint=trained", "run.fresh=true", "run.dir=wrong"]
    for words, message in (
        (["predict", *DATA, *trained, "members=0"], "members=0; expected 1 or more"),
        (["predict", *DATA, *trained, "precision=half"], "precision 'half' unknown"),
        (["predict", *DATA, *trained, "regions=[]"], "regions is []; expected at least one"),
        (["predict", *DATA, *trained, "samples=0"], "expected 1 or more, or null for all"),
        (["predict", *DATA, *trained, "data.condition=[tp]"], "expected those of the training: tp, tcw"),
        (["evaluate", *DATA, *trained, "reference=resnet"], "use a model without training, such as bilinear"),
        (["train", *DATA, "train_regions=[]", "run.dir=wrong", "run.fresh=true"], "train_regions is empty"),
        (["train", *DATA, "loader.batch_size=0", "run.dir=wrong", "run.fresh=true"], "loader.batch_size=0; expected"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


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


def test_a_page_shows_how_far_a_prediction_may_be_trusted(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    before = [*PREDICT, "run.dir=before"]
    assert main(before) == 0
    assert {field.panel for field in viewer_of("before").fields} == {
        "input",
        "member",
        "mean of members",
        "target",
        "error",
    }
    assert main(["trust", *DATA[:-1], "checkpoint=trained", "members=2", "hours=12", "level=0.8"]) == 0
    assert main([*PREDICT, "run.dir=trusted"]) == 0
    viewer = viewer_of("trusted")
    shown = {(field.panel, field.place["time"]): field.values for field in viewer.fields}
    with xr.open_dataset(next(Path("trusted/samples").glob("*.nc"))) as made:
        assert made["error_bound"].attrs["level"] == 0.8
        hour = int(np.argmin(abs(made["time"].values - np.datetime64(read(Path("trusted"))["europe_west"].wettest))))
        mean = made["precipitation"].isel(time=hour).mean("member").values
        np.testing.assert_allclose(shown["mean of members", "+0 h"], mean, rtol=1e-6)
        np.testing.assert_allclose(shown["error", "+0 h"], abs(mean - shown["target", "+0 h"]), rtol=1e-5)
        for panel, name in (("expected error", "expected_error"), ("error bound", "error_bound")):
            np.testing.assert_array_equal(shown[panel, "+0 h"], made[name].isel(time=hour).values)
        np.testing.assert_array_equal(shown["novelty", "+0 h"], made["novelty"].isel(time=hour).values)
    # the same hours, members and maps where they are scored
    assert main(["evaluate", *PREDICT[1:], "run.dir=scored"]) == 0
    scored = {(field.panel, field.place["time"]): field.values for field in viewer_of("scored").fields}
    assert scored.keys() == shown.keys()
    for place, values in shown.items():
        np.testing.assert_allclose(scored[place], values, rtol=1e-4, atol=1e-5)
    assert main(["evaluate", *DATA, f"prediction={next(Path('trusted/samples').glob('*.nc'))}", "run.dir=file"]) == 0
    assert {field.panel for field in viewer_of("file").fields} == {panel for panel, _ in shown}
    capsys.readouterr()
    assert main(["report", "trusted", "scored", "--output", "both.html"]) == 0
    page = Path("both.html").read_text()
    assert page.count(">Trust map</h2>") == 2
    assert "nominal coverage of the bound: 80%" in page
    assert main(["report", "trusted"]) == 0
    assert "trusted/report.html" in capsys.readouterr().out


OWN = """
from geoml.models.regression import Regression
from geoml.nn.ops import Conv


class OneConvolution(Regression):
    def __init__(self, channels, dims, *, kernel=3):
        super().__init__(channels, dims)
        self.correct = Conv(len(channels.condition), 1, dims=dims, kernel=kernel, gain=0.0)

    def residual(self, batch, guess):
        return self.correct(self.predictors(batch, guess))
"""


def test_a_model_of_ones_own_is_trained_and_used_where_its_package_is_allowed(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    Path("own_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(workplace))
    data = [*DATA, "data.static=[]"]
    # settings of the preset that the verb begins with are not handed to another class
    own = ["model._target_=own_models.OneConvolution", "model.kernel=5", "trainer.samples=32", "loader.patch=20"]
    assert main(["train", *data, *own, "run.dir=own"]) == 2
    assert "allow_targets=[own_models] would allow it" in capsys.readouterr().err
    allowed = "allow_targets=[own_models]"
    assert main(["train", *data, *own, allowed, "run.dir=own", "run.fresh=true"]) == 0
    used = ["evaluate", *data, "checkpoint=own", "samples=2", "run.dir=own-scores"]
    assert main(used) == 2
    assert main([*used, allowed, "run.fresh=true"]) == 0
    assert "skill" in capsys.readouterr().out


def viewer_of(run):
    page = report(run)
    assert page is not None
    return next(block for section in page.sections for block in section.blocks if isinstance(block, Viewer))

"""Every model of the package passes the conformance check, at every size of space it declares."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import geoml.models
from geoml.cli.config import resolve
from geoml.data.fields import Batch
from geoml.diffusion.process import PROCESSES
from geoml.errors import UserError
from geoml.grids.grid import Grid
from geoml.models.base import Channels, Model
from geoml.models.noise import member_noise
from geoml.models.registry import available, build, changed, preset
from geoml.models.regression import Regression, masked_loss
from geoml.regrid import Regridder
from geoml.testing import TOY_CHANNELS, check_model, toy_batch

PRESETS = available()
#: Sizes for the conformance check of models whose presets take long to train in 3-D.
SMALL: dict[str, dict[str, Any]] = {
    "gan": {"width": 8, "critic_width": 8, "members": 2, "critic_steps": 5},
    **{name: {"base": 8, "multipliers": [1, 2], "steps": 4} for name in ("corrdiff", "ddpm", "edm", "flow")},
}
MODELS = sorted({name.partition("-")[0] for name in PRESETS})


def concrete_models() -> dict[str, type[Model]]:
    """Model classes that a module of `geoml.models` defines, by the module's name."""
    found = {}
    for info in pkgutil.iter_modules(geoml.models.__path__):
        module = importlib.import_module(f"geoml.models.{info.name}")
        for value in vars(module).values():
            is_model = isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__
            if is_model and not value.__abstractmethods__:
                found[info.name] = value
    return found


REGRESSIONS = [name for name, cls in concrete_models().items() if issubclass(cls, Regression)]


def test_a_model_is_one_file_and_a_yaml_of_the_same_stem() -> None:
    classes = concrete_models()
    named = {preset(name)["_target_"] for name in PRESETS}
    assert named == {f"geoml.models.{stem}.{kind.__name__}" for stem, kind in classes.items()}
    processes = {preset(name)["process"]["name"] for name in PRESETS if "process" in preset(name)}
    assert processes == set(PROCESSES)


@pytest.mark.parametrize(
    ("name", "dims"), [(name, dims) for name in MODELS for dims in resolve(preset(name)["_target_"]).supported_dims]
)
def test_conformance(name: str, dims: int) -> None:
    check_model(lambda channels, dims: build(changed(preset(name), SMALL.get(name, {})), channels, dims), dims)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_builds(name: str) -> None:
    with torch.device("meta"):
        model = build(name, TOY_CHANNELS, 2)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1000


CHANNEL_SETS = {
    "the amount alone": Channels(("amount",), ("amount",)),
    "by another name": Channels(("wind", "tp"), ("amount",), ("height",), first_guess=(("amount", "tp"),)),
    "other predictors only": Channels(("wind", "cape"), ("amount",), ("height", "lsm")),
}


@pytest.mark.parametrize("name", REGRESSIONS)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", CHANNEL_SETS.values(), ids=CHANNEL_SETS)
def test_untrained_models_are_the_interpolation(name: str, dims: int, channels: Channels) -> None:
    batch = toy_batch(channels, dims)
    prediction = build(name, channels, dims).eval().predict(batch, members=2)
    guess = channels.guess_index("amount")
    bilinear = Regridder(batch.condition_grid, batch.target_grid, "bilinear")(batch.condition)
    expected = torch.zeros_like(bilinear[:, :1]) if guess is None else bilinear[:, guess : guess + 1]
    for member in range(2):
        assert torch.equal(prediction[:, member], expected)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_registration_counts_not_the_index(name: str) -> None:
    """A linear field on a node-registered grid comes back exactly at the centres of cells within the hull."""
    coarse = Grid.latlon(40, 60, -5, 15, 0.25, "node", half_open=True).crop(lat=slice(0, 16), lon=slice(0, 16))
    fine = Grid.latlon(40, 60, -5, 15, 0.1).select(lat=(40.3, 43.9), lon=(-4.9, -1.4))
    lat = torch.as_tensor(coarse["lat"].coordinates, dtype=torch.float32)[:, None].expand(16, 16)
    batch = Batch(condition=lat[None, None].contiguous(), condition_grid=coarse, target_grid=fine)
    prediction = build(name, Channels(("amount",), ("amount",)), 2).predict(batch)[0, 0, 0]
    expected = torch.as_tensor(fine["lat"].coordinates, dtype=torch.float32)[:, None].expand(fine.shape)
    torch.testing.assert_close(prediction, expected)


def test_statics_that_the_batch_lacks_are_missed() -> None:
    batch = toy_batch(Channels(("amount",), ("amount",)))
    with pytest.raises(ValueError, match="height"):
        build("unet", Channels(("amount",), ("amount",), ("height",)), 2).predict(batch)


# -- losses against theory


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_pinball_is_least_at_the_quantile(quantile: float) -> None:
    y = torch.arange(1001.0)[None, None]
    losses = [float(masked_loss(torch.full_like(y, c), y, loss="pinball", quantile=quantile)) for c in range(1001)]
    assert losses.index(min(losses)) == pytest.approx(1000 * quantile, abs=1)


@pytest.mark.parametrize(("loss", "value"), [("mse", 5.0), ("l1", 2.0), ("huber", 1.5), ("pinball", 1.0)])
def test_losses_of_known_errors(loss: Any, value: float) -> None:
    y = torch.tensor([[[1.0, 3.0]]])
    mean = float(masked_loss(torch.zeros_like(y), y, loss=loss))
    assert mean == pytest.approx(value)
    masked = torch.tensor([[[True, False]]])
    assert float(masked_loss(torch.zeros_like(y), y, masked, loss="mse")) == pytest.approx(1.0)


def test_no_known_cell_gives_no_loss_and_no_gradient() -> None:
    prediction = torch.ones(1, 1, 3, requires_grad=True)
    loss = masked_loss(prediction, torch.full((1, 1, 3), torch.nan), torch.zeros(1, 1, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None
    assert not prediction.grad.any()


# -- somebody's own model, good and bad


class Blur(Model):
    """The mean of the conditions, a learned gain, and keyed noise: the least a stochastic model can be."""

    supported_dims: ClassVar[tuple[int, ...]] = (2, 3)
    stochastic: ClassVar[bool] = True

    def __init__(self, channels: Channels, dims: int, *, key: str = "right") -> None:
        super().__init__(channels, dims)
        self.gain = nn.Parameter(torch.zeros(len(channels.target)))
        self.offset = nn.Parameter(torch.zeros(len(channels.target)))
        self.spread = nn.Parameter(torch.ones(()))
        self.key = key

    def mean(self, batch: Batch) -> Tensor:
        interpolated = Regridder(batch.condition_grid, batch.target_grid, "bilinear")(batch.condition)
        shape = (-1, *[1] * self.dims)
        return interpolated.mean(1, keepdim=True) * self.gain.view(shape) + self.offset.view(shape)

    def loss(self, batch: Batch, *, phase: str = "main", generator: torch.Generator | None = None) -> Tensor:
        assert batch.target is not None
        if self.key == "unmasked":
            return masked_loss(self.mean(batch), batch.target) + 0 * self.spread
        loss = masked_loss(self.mean(batch), batch.target, batch.mask)
        return loss if self.key == "unreached" else loss + (self.spread - 0.1) ** 2

    @torch.no_grad()
    def predict(self, batch: Batch, *, members: int = 1, seed: int = 0) -> Tensor:
        mean = self.mean(batch).unsqueeze(1)
        shape = mean.shape[2:]
        if self.key == "global":
            noise = torch.randn(len(batch), members, *shape)
        elif self.key == "place in the batch":
            noise = member_noise(shape, range(len(batch)), members=members, seed=seed)
        elif self.key == "deterministic":
            noise = torch.zeros(len(batch), members, *shape)
        else:
            noise = member_noise(shape, batch.ids, members=members, seed=seed)
        return mean + self.spread * noise


@pytest.mark.parametrize("dims", [2, 3])
def test_a_stochastic_model_passes(dims: int) -> None:
    check_model(lambda channels, dims: Blur(channels, dims), dims)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("unmasked", "masked cells"),
        ("unreached", "no gradient reaches"),
        ("global", "not deterministic"),
        ("place in the batch", "how batches are cut"),
        ("deterministic", "members differ"),
    ],
)
def test_the_check_finds(key: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_model(lambda channels, dims: Blur(channels, dims, key=key), 2)


def test_only_allowed_classes_are_built() -> None:
    for target in ("os.system", "subprocess.Popen", "builtins.eval", "geoml_evil.models.Model"):
        with pytest.raises(UserError, match="not in an allowed package"):
            build({"_target_": target}, TOY_CHANNELS, 2)
    for target in ("geoml.nn.unet.UNet", "geoml.models.base.Channels"):
        with pytest.raises(UserError, match="is not a Model"):
            build({"_target_": target}, TOY_CHANNELS, 2)
    with pytest.raises(UserError, match="did you mean 'resnet'"):
        build("resne", TOY_CHANNELS, 2)
    with pytest.raises(UserError, match="did you mean 'width'"):
        build(preset("resnet") | {"widht": 3}, TOY_CHANNELS, 2)


def test_a_model_of_ones_own_is_built_where_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their.py").write_text(
        "from geoml.models.unet import UNetRegression\n\n\nclass Theirs(UNetRegression):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = {"_target_": "their.Theirs", "network": {"base": 4}}
    with pytest.raises(UserError, match="their"):
        build(config, TOY_CHANNELS, 2)
    model = build(config, TOY_CHANNELS, 2, allow=["their"])
    assert type(model).__name__ == "Theirs"
    assert model.config == config

"""Models of radio maps: the conformance check of the core, presets, observed voxels, layers from below."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
import torch

import radiomaps.models
from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.grids.grid import Grid
from geoml.models.base import Channels, Model
from geoml.models.noise import sample_noise, seed_of
from geoml.testing import check_model
from radiomaps.models import available, build, config_of
from radiomaps.models.radiodiff3d import RadioDiff3D
from radiomaps.tasks.task import SIGHT

PRESETS = sorted(name for name, path in available().items() if path.parent.parent.parent.name == "radiomaps")
SMALL: dict[str, Any] = {"base": 8, "multipliers": [1, 2]}
CHANNELS = Channels(
    ("building", "tx_distance", "gain_observed", "delay_observed", "observed", "gain_prior"),
    ("gain", "delay"),
    first_guess=(("gain", "gain_prior"),),
)
GRID = Grid.box({"z": 0.0, "y": 0.0, "x": 0.0}, {"z": 4.0, "y": 8.0, "x": 8.0}, 1.0)


def volumes(count: int = 2, seed: int = 0) -> Batch:
    """Random maps of the shape that a task's loader gives: one voxel in ten is observed, one in five is masked."""
    rows: dict[str, list[torch.Tensor]] = {"condition": [], "target": [], "mask": []}
    for sample in range(count):
        made = torch.Generator().manual_seed(seed_of("volumes", seed, sample))
        target = torch.rand(2, *GRID.shape, generator=made)
        mask = (torch.rand(1, *GRID.shape, generator=made) > 0.2).expand_as(target)
        observed = (torch.rand(1, *GRID.shape, generator=made) < 0.1) & mask[:1]
        prior = target[:1] + 0.1 * torch.randn(1, *GRID.shape, generator=made)
        distance = torch.rand(1, *GRID.shape, generator=made)
        parts = [1 - mask[:1].float(), distance, target * observed, observed.float(), prior]
        rows["condition"].append(torch.cat(parts))
        rows["target"].append(target)
        rows["mask"].append(mask)
    tensors = {name: torch.stack(values) for name, values in rows.items()}
    return Batch(condition_grid=GRID, target_grid=GRID, ids=tuple(range(count)), **tensors)


def made(name: str = "radiodiff3d", channels: Channels = CHANNELS, **options: Any) -> Model:
    model = build({"model": name, **SMALL, **options}, channels)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.eval()


def test_a_model_is_one_file_with_a_configuration_of_its_name() -> None:
    assert {"unet3d", "radiodiff3d", "radiodiff3d_paper"} <= set(PRESETS)
    for info in pkgutil.iter_modules(radiomaps.models.__path__):
        module = importlib.import_module(f"radiomaps.models.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__:
                assert config_of(info.name)["_target_"] == f"{module.__name__}.{value.__name__}"


@pytest.mark.parametrize("name", PRESETS)
def test_conformance(name: str) -> None:
    few = {} if "_target_" not in config_of(name) or "unet" in name else {"steps": 3}
    check_model(lambda channels, dims: build({"model": name, **SMALL, **few}, channels), 3)


WAYS: dict[str, dict[str, Any]] = {
    "flow": {"process": "flow", "operator": "factorised"},
    "velocity": {"process": "ddpm", "parameterisation": "v", "schedule": "linear"},
    "clean": {"process": "ddpm", "parameterisation": "x0", "sampler": {"name": "ddim", "eta": 1.0}},
    "attended": {"conditioning": ["cross_attention", "film"], "first_axis_halvings": 1},
    "recomputed": {"recompute": True, "conditioning": ["concat", "film"], "loss": "l1"},
    "from below": {"layers_at_once": 2},
}


@pytest.mark.parametrize("way", WAYS)
def test_conformance_of_every_way(way: str) -> None:
    def untrained(channels: Channels, dims: int) -> Model:
        model = build({"model": "radiodiff3d", **SMALL, "steps": 3, **WAYS[way]}, channels)
        if way == "clean":  # a network that gives 0 for every clean field has no spread
            torch.nn.init.normal_(model.network.unet.head.conv.weight, std=0.1)  # type: ignore[union-attr]
        return model

    check_model(untrained, 3)


def test_presets_have_about_as_many_parameters() -> None:
    """What the benchmark compares at equal size."""
    counts = {}
    for name in ("radiodiff3d", "radiodiff3d_paper"):
        with torch.device("meta"):
            counts[name] = sum(p.numel() for p in build(name, CHANNELS).parameters())
    assert counts["radiodiff3d"] == pytest.approx(counts["radiodiff3d_paper"], rel=0.1), counts


@pytest.mark.parametrize("keep", ["end", "always", "never"])
@pytest.mark.parametrize("options", [{}, {"guidance": 1.0}, {"layers_at_once": 2}], ids=str)
def test_observations_are_honoured_at_their_voxels(keep: str, options: dict[str, Any]) -> None:
    batch = volumes()
    assert batch.target is not None
    fields = made(steps=3, keep=keep, **options).predict(batch, members=2)
    here = (batch.condition[:, 4:5] > 0).unsqueeze(1).expand_as(fields)
    agree = torch.equal(fields[here], batch.target.unsqueeze(1).expand_as(fields)[here])
    assert agree is (keep != "never")


def test_the_unet_honours_observations_too() -> None:
    batch = volumes()
    assert batch.target is not None
    here = (batch.condition[:, 4:5] > 0).expand_as(batch.target)
    for keep in ("end", "never"):
        fields = made("unet3d", keep=keep).predict(batch)[:, 0]
        assert torch.equal(fields[here], batch.target[here]) is (keep == "end")


def test_guidance_brings_members_nearer_to_the_observations() -> None:
    batch, away = volumes(), []
    for guidance in (0.0, 0.5, 1.0):
        fields = made(steps=8, guidance=guidance, keep="never").predict(batch, members=4)
        here = (batch.condition[:, 4:5] > 0).unsqueeze(1).expand_as(fields)
        assert batch.target is not None
        away.append(float((fields - batch.target.unsqueeze(1))[here].square().mean()))
    assert away[0] > 2 * away[1] > 2 * away[2]


def test_without_observations_there_is_nothing_to_keep() -> None:
    aware = Channels(CHANNELS.condition[:2], ("gain",))
    batch = volumes().map(condition=volumes().condition[:, :2])
    assert made(channels=aware, guidance=1.0).predict(batch, members=2).shape == (2, 2, 1, *GRID.shape)


def test_layers_from_below_depend_on_what_is_below_alone() -> None:
    model, batch = made(steps=2, layers_at_once=1, norm="none", keep="never"), volumes(1)
    changed = batch.condition.clone()
    changed[:, :, 2] += 0.5
    fields, others = (model.predict(batch.map(condition=c)) for c in (batch.condition, changed))
    assert torch.equal(fields[..., :2, :, :], others[..., :2, :, :])
    assert not torch.equal(fields[..., 3, :, :], others[..., 3, :, :])


def test_layers_at_once_may_be_any_number() -> None:
    for size in (1, 3, 9):
        fields = made(steps=2, layers_at_once=size).predict(volumes(1), members=2)
        assert fields.shape == (1, 2, 2, *GRID.shape)
        assert torch.isfinite(fields).all()


def test_a_group_is_keyed_on_the_sample_and_every_group_comes_up() -> None:
    starts = {
        int(2 * float(sample_noise((), [5], torch.Generator().manual_seed(step), draw="group", uniform=True)))
        for step in range(20)
    }
    assert starts == {0, 1}


def test_the_centre_is_the_prior_or_the_middle() -> None:
    model, batch = made(), volumes()
    assert isinstance(model, RadioDiff3D)
    centre = model.centre(model.predictors(batch))
    assert torch.equal(centre[:, 0], batch.condition[:, 5])
    assert (centre[:, 1] == 0.5).all()


def test_the_papers_maps_run_from_minus_one_to_one() -> None:
    model = made("radiodiff3d_paper")
    assert isinstance(model, RadioDiff3D)
    assert model.scale.tolist() == pytest.approx([0.5, 0.5])
    assert not model.log_scale.requires_grad


def test_scales_in_and_out_of_sight_follow_what_the_prior_leaves() -> None:
    channels = Channels(("building", SIGHT, "gain_prior"), ("gain",), first_guess=(("gain", "gain_prior"),))
    generator = torch.Generator().manual_seed(4)
    sight = (torch.rand(8, 1, *GRID.shape, generator=generator) < 0.5).float()
    left = torch.randn(sight.shape, generator=generator) * torch.where(sight > 0, 0.01, 0.3)
    prior = torch.rand(sight.shape, generator=generator)
    condition = torch.cat((torch.zeros_like(sight), sight, prior), dim=1)
    mask = torch.rand(sight.shape, generator=generator) < 0.7
    batch = Batch(condition, GRID, GRID, prior + left, mask=mask, ids=tuple(range(8)))
    model = build({"model": "radiodiff3d", **SMALL}, channels)
    assert isinstance(model, RadioDiff3D)
    optimiser = torch.optim.Adam([model.log_scale, model.log_scale_in_sight], lr=1e-2)
    for step in range(80):
        optimiser.zero_grad()
        model.loss(batch, generator=torch.Generator().manual_seed(step)).backward()
        optimiser.step()
    scales = model.scales(model.predictors(batch)).detach()
    for lit in (True, False):
        where = mask & ((sight > 0) == lit)
        torch.testing.assert_close(scales[where].mean(), left[where].square().mean().sqrt(), rtol=0.06, atol=0)
    members = model.predict(batch, members=4)
    spread = members.std(dim=1)
    assert spread[sight > 0].mean() < 0.1 * spread[sight == 0].mean()  # noise is as small there as what is left


def test_sampling_is_changed_without_training_anew() -> None:
    model = made(steps=4)
    assert isinstance(model, RadioDiff3D)
    assert model.evaluations == 4
    model.sample_by(steps=3, sampler="heun")
    assert model.evaluations == 5
    ddpm = made("radiodiff3d_paper")
    assert isinstance(ddpm, RadioDiff3D)
    for steps in (20, 50, 200):
        ddpm.sample_by(steps=steps, sampler={"name": "ddim", "eta": 1.0})
        assert ddpm.evaluations == steps
    with pytest.raises(UserError, match="did you mean"):
        model.sample_by(sampler="hein")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process": "ed"}, "did you mean 'edm'"),
        ({"layers_at_once": 0}, "layers_at_once is 0"),
        ({"keep": "ends"}, "did you mean 'end'"),
        ({"loss": "l3"}, "loss"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build({"model": "radiodiff3d", **options}, CHANNELS)

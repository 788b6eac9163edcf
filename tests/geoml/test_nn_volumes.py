"""The U-Net on volumes: operators, halvings of the first axis, contexts, equivariance and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from geoml.diffusion.network import DenoisingUNet
from geoml.errors import UserError
from geoml.nn.attention import AxisAttention, CrossAttention, cell_positions, rotate
from geoml.nn.ops import kernel_of
from geoml.nn.options import UNetOptions
from geoml.nn.unet import UNet

OPERATORS = ("full", "factorised", "planar")


def awake(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with no layer left at zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module.eval()


def symmetric(module: nn.Module) -> nn.Module:
    """Kernels that a flip or a swap of the last two axes leaves as they are."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 5:
                turned = [parameter, parameter.transpose(-1, -2)]
                turned += [kernel.flip(-1) for kernel in turned]
                turned += [kernel.flip(-2) for kernel in turned]
                parameter.copy_(sum(turned) / len(turned))
    return module


def denoiser(*, conditioning: Any = ("concat",), **options: Any) -> DenoisingUNet:
    network = UNetOptions(**{"base": 8, "multipliers": (1, 2), **options})
    return DenoisingUNet(2, 3, dims=3, network=network, conditioning=conditioning)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("halvings", [0, 1, None])
@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 5, 9), (5, 3, 2)])
def test_every_operator_keeps_any_size(operator: Any, halvings: int | None, shape: tuple[int, ...]) -> None:
    net = UNet(2, 3, dims=3, base=4, operator=operator, first_axis_halvings=halvings, out_gain=1.0)
    out = net(torch.randn(2, 2, *shape))
    assert out.shape == (2, 3, *shape)
    assert torch.isfinite(out).all()


def test_a_first_axis_that_is_not_halved_stays_as_long() -> None:
    lengths: list[int] = []
    net = UNet(1, 1, dims=3, base=4, first_axis_halvings=1)
    net.middle.register_forward_hook(lambda module, given, made: lengths.append(made.shape[2]))
    net(torch.randn(1, 1, 4, 8, 8))
    assert lengths == [2]


@pytest.mark.parametrize("operator", OPERATORS)
def test_only_a_planar_network_keeps_layers_apart(operator: Any) -> None:
    net = awake(UNet(1, 1, dims=3, base=4, norm="cell", operator=operator, first_axis_halvings=0, out_gain=1.0))
    x = torch.randn(1, 1, 4, 8, 8)
    y = x.clone()
    y[:, :, 0] += 1
    assert torch.equal(net(x)[:, :, 3], net(y)[:, :, 3]) is (operator == "planar")


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("ways", [("concat",), ("concat", "film")])
def test_flips_and_turns_pass_through_symmetric_kernels(operator: Any, ways: Any) -> None:
    """Padding, pooling and attention along the first axis prefer no side."""
    net = symmetric(awake(denoiser(operator=operator, first_axis_halvings=1, conditioning=ways))).double()
    x, predictors = torch.randn(1, 2, 4, 8, 8).double(), torch.randn(1, 3, 4, 8, 8).double()
    label = torch.zeros(1).double()
    made = net(x, predictors, label)
    for turn in (lambda a: a.flip(-1), lambda a: a.flip(-2), lambda a: a.transpose(-1, -2)):
        torch.testing.assert_close(net(turn(x), turn(predictors), label), turn(made))


def test_rotary_products_depend_on_differences_alone() -> None:
    a, b = torch.randn(2, 4, 12, 16, dtype=torch.float64)
    positions = cell_positions((3, 4))
    scores = [rotate(a, positions + shift) @ rotate(b, positions + shift).transpose(-1, -2) for shift in (0.0, 7.0)]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(scores[0], a @ b.transpose(-1, -2))


def test_columns_attend_each_for_itself_and_know_order() -> None:
    block = awake(AxisAttention(8, dims=3, norm="cell", head_channels=4)).double()
    x = torch.randn(2, 8, 5, 3, 4, dtype=torch.float64)
    order = torch.randperm(4)
    torch.testing.assert_close(block(x)[..., order], block(x[..., order]))
    changed = x.clone()
    changed[:, :, :, 1, 2] += 1
    differs = (block(changed) != block(x)).any(1).any(1)
    assert differs[:, 1, 2].all()
    assert differs.sum() == 2
    mixed = torch.tensor([0, 2, 1, 3, 4])
    assert not torch.allclose(block(x)[:, :, mixed], block(x[:, :, mixed]))


def test_many_columns_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    block = awake(AxisAttention(4, dims=3))
    x = torch.randn(2, 4, 3, 5, 6)
    whole = block(x)
    monkeypatch.setattr("geoml.nn.attention.AT_ONCE", 7)
    torch.testing.assert_close(block(x), whole)


@pytest.mark.parametrize("block", [AxisAttention(4, dims=3), CrossAttention(4, 4, dims=3)])
def test_attention_starts_as_the_identity_with_right_gradients(block: nn.Module) -> None:
    x = torch.randn(1, 4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    more = (torch.randn_like(x),) if isinstance(block, CrossAttention) else ()
    block = block.double()
    assert torch.equal(block(x, *more), x)
    awake(block)
    assert torch.autograd.gradcheck(block, (x, *more), atol=1e-4)


@pytest.mark.parametrize("ways", [("cross_attention",), ("film",), ("concat", "cross_attention", "film")])
@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 5, 7)])
def test_predictors_come_in_by_every_way(ways: Any, shape: tuple[int, ...]) -> None:
    net = awake(denoiser(conditioning=ways, operator="factorised"))
    x, predictors, label = torch.randn(2, 2, *shape), torch.randn(2, 3, *shape), torch.zeros(2)
    out = net(x, predictors, label)
    assert out.shape == x.shape
    assert not torch.allclose(out, net(x, predictors + 1, label))
    torch.testing.assert_close(out[:1], net(x[:1], predictors[:1], label[:1]), rtol=1e-4, atol=1e-4)


def test_film_of_a_constant_condition_scales_alike_everywhere() -> None:
    """A scalar condition is a constant channel: one vector, wherever it is looked at."""
    net = awake(denoiser(conditioning=("film",), norm="cell"))
    x = torch.ones(1, 2, 4, 8, 8)
    out = [net(x, torch.full((1, 3, 4, 8, 8), value), torch.zeros(1)) for value in (0.0, 1.0)]
    change = out[1] - out[0]
    torch.testing.assert_close(change, change[:, :, :1, :1, :1].expand_as(change), rtol=1e-3, atol=1e-4)
    assert change.abs().max() > 1e-3


@pytest.mark.parametrize("operator", ["full", "factorised"])
def test_recomputing_activations_changes_no_gradient(operator: Any) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(4)
        net = awake(denoiser(operator=operator, dropout=0.2, recompute=recompute, conditioning=("concat", "film")))
        net.train()
        x, predictors = torch.ones(1, 2, 4, 8, 8), torch.ones(1, 3, 4, 8, 8)
        torch.manual_seed(5)
        net(x, predictors, torch.zeros(1)).square().mean().backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_defaults_have_the_weights_they_had() -> None:
    """Names and shapes of checkpoints written before there were operators."""
    names = {name.rpartition(".")[0].rpartition(".")[0] for name in UNet(1, 1, dims=3, base=4).state_dict()}
    assert not {name for name in names if "columns" in name or "cross" in name or "context" in name}


@pytest.mark.parametrize(
    "options",
    [
        {"operator": "fulll"},
        {"operator": "planar", "dims": 2},
        {"first_axis_halvings": 3},
        {"context": 2},
        {"context": 2, "context_by": ("film",)},
        {"context": 2, "context_by": ("concat",)},
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, UserError), match=r"unknown|see UNet|expected|first of three axes"):
        UNet(1, 1, **{"dims": 3, **options})


def test_a_kernel_is_known_by_its_operator() -> None:
    assert kernel_of("full", 2) == (3, 3)
    with pytest.raises(UserError, match="did you mean 'planar'"):
        kernel_of("planer", 3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="did you mean 'film'"):
        denoiser(conditioning=("fim",))

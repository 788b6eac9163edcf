"""Network parts: shapes at any size, exact identities at the start, independence where it is promised."""

from __future__ import annotations

import pytest
import torch

from geoml.errors import UserError
from geoml.nn.blocks import Attention, ResidualBlock
from geoml.nn.ops import Conv, GroupNorm, crop, downsample, pad, upsample
from geoml.nn.unet import UNet


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (13, 7), (16, 32), (1, 1, 1), (5, 9, 3), (8, 4, 6)])
@pytest.mark.parametrize("attention", [(), (2,)])
def test_unet_keeps_any_size(shape: tuple[int, ...], attention: tuple[int, ...]) -> None:
    net = UNet(2, 3, dims=len(shape), base=4, attention=attention, out_gain=1.0)
    out = net(torch.randn(2, 2, *shape))
    assert out.shape == (2, 3, *shape)
    assert torch.isfinite(out).all()


def test_unet_starts_as_zero() -> None:
    assert not UNet(2, 1, dims=2, base=4)(torch.randn(1, 2, 9, 9)).any()


def test_unet_embedding_changes_the_output_and_is_required() -> None:
    net = UNet(1, 1, dims=2, base=8, embedding_dim=5, out_gain=1.0)
    x = torch.randn(2, 1, 8, 8)
    assert not torch.allclose(net(x, torch.zeros(2, 5)), net(x, torch.ones(2, 5)))
    with pytest.raises(ValueError, match="embedding"):
        net(x)
    with pytest.raises(ValueError, match="embedding"):
        UNet(1, 1, dims=2, base=8)(x, torch.ones(2, 5))


@pytest.mark.parametrize(
    "options", [{"base": 0}, {"multipliers": ()}, {"blocks": 0}, {"attention": (3,)}, {"norm": "batch"}]
)
def test_unet_refuses_what_it_cannot_build(options: dict[str, object]) -> None:
    with pytest.raises((ValueError, UserError), match=r"unknown|see UNet|expected"):
        UNet(1, 1, dims=2, **options)  # type: ignore[arg-type]


def test_samples_of_a_batch_do_not_meet() -> None:
    net = UNet(1, 1, dims=2, base=8, attention=(2,), out_gain=1.0).double()
    x = torch.randn(3, 1, 12, 10, dtype=torch.float64)
    alone = torch.cat([net(sample[None]) for sample in x])
    torch.testing.assert_close(net(x), alone)


def test_without_norm_far_cells_do_not_matter() -> None:
    net = UNet(1, 1, dims=2, base=4, multipliers=(1, 2), norm="none", out_gain=1.0)
    x = torch.randn(1, 1, 64, 64)
    y = x.clone()
    y[..., 60:, 60:] += 10
    assert torch.equal(net(x)[..., :8, :8], net(y)[..., :8, :8])


@pytest.mark.parametrize("shape", [(1,) * 2, (2, 5), (4, 3, 6)])
def test_crop_undoes_pad(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *shape)
    widths = [(1, 2)] * len(shape)
    padded = pad(x, widths)
    assert padded.shape[2:] == tuple(n + 3 for n in shape)
    assert torch.equal(crop(padded, widths), x)


def test_pad_mirrors_without_repeating_the_rim() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert pad(row, [(0, 0), (2, 1)]).flatten().tolist() == [3, 2, 1, 2, 3, 2]
    assert pad(row[..., :1], [(0, 0), (2, 1)]).flatten().tolist() == [1, 1, 1, 1]


def test_a_constant_field_stays_constant_through_a_convolution() -> None:
    out = Conv(1, 4, dims=3)(torch.full((1, 1, 3, 4, 5), 2.0))
    torch.testing.assert_close(out, out[:, :, :1, :1, :1].expand_as(out))


def test_downsampling_inverts_upsampling() -> None:
    x = torch.randn(1, 2, 3, 4, 5)
    torch.testing.assert_close(downsample(upsample(x)), x)


def test_group_counts_divide_the_channels() -> None:
    for channels in (1, 2, 3, 7, 12, 20, 24, 64, 96, 256):
        norm = GroupNorm(channels)
        assert channels % norm.num_groups == 0
        assert norm.num_groups == 1 or channels // norm.num_groups >= 4


def test_attention_starts_as_the_identity_and_sees_every_cell() -> None:
    block = Attention(8, dims=2, head_channels=4)
    x = torch.randn(1, 8, 5, 6, requires_grad=True)
    assert torch.equal(block(x), x)
    with torch.no_grad():
        block.out.conv.weight.normal_()
    (gradient,) = torch.autograd.grad(block(x)[0, 0, 0, 0], x)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_attention_does_not_know_positions() -> None:
    block = Attention(8, dims=2).double()
    with torch.no_grad():
        block.out.conv.weight.normal_()
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(block(x.flip(-1)), block(x).flip(-1))


def test_dropout_is_off_in_evaluation() -> None:
    block = ResidualBlock(4, 4, dims=2, dropout=0.5)
    x = torch.randn(1, 4, 8, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))

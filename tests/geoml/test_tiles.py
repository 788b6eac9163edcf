"""Tiles are the whole for a network of finite reach, and leave no seam where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from geoml.models.noise import WindowId, member_noise
from geoml.models.registry import build, changed, preset
from geoml.models.tiles import Tiled, Tiling

CHANNELS = Channels(("amount", "wind"), ("amount",), ("height",))
FINE = Grid.latlon(0, 16, 0, 24, 0.1)
COARSE = Grid.latlon(0, 16, 0, 24, 0.25, "node", half_open=True)


def domain(fine: Grid = FINE, coarse: Grid = COARSE) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.randn(2, 2, *coarse.shape, generator=generator),
        coarse,
        fine,
        static=torch.randn(2, 1, *fine.shape, generator=generator),
        ids=(3, 8),
    )


class Alone:
    """A model without transforms, which counts how much it is given at a time."""

    def __init__(self, name: str, **options: object) -> None:
        torch.manual_seed(0)
        self.model = build(changed(preset(name), options), CHANNELS, 2).eval()
        with torch.no_grad():  # layers that start as zero have to say something
            for parameter in self.model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        self.most = 0

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[Tensor, float]:
        self.most = max(self.most, batch.target_grid.size)
        return self.model.predict(batch, members=members, seed=seed), 0.25


SMALL = {"width": 4, "coarse_blocks": 1, "fine_blocks": 1}


@pytest.mark.parametrize("registration", ["node", "centre"])
@pytest.mark.parametrize(("name", "options"), [("resnet", SMALL), ("gan", SMALL)])
def test_tiles_are_the_whole_for_a_model_of_finite_reach(name: str, options: dict, registration: str) -> None:
    """Reach of this size: 3 convolutions on 2.5 times wider cells, interpolation, 3 convolutions: 13 cells."""
    coarse = COARSE if registration == "node" else Grid.latlon(0, 16, 0, 24, 0.25)
    batch, model = domain(coarse=coarse), Alone(name, **options)
    whole, _ = model.predict(batch, members=2, seed=5)
    model.most = 0
    tiled, clipped = Tiled(model, Tiling(tile=40, blend=8, halo=16, limit=0)).predict(batch, members=2, seed=5)
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-5)
    assert clipped == pytest.approx(0.25)
    assert model.most <= (40 + 80) ** 2 < FINE.size / 2


def test_small_domains_are_not_cut() -> None:
    batch, model = domain(), Alone("resnet", **SMALL)
    whole, _ = model.predict(batch)
    tiled, _ = Tiled(model, Tiling(tile=80, limit=240)).predict(batch)
    assert torch.equal(tiled, whole)


@pytest.mark.parametrize("size", [161, 200, 240, 300])
def test_weights_add_up_to_one_everywhere(size: int) -> None:
    fine = Grid.latlon(0, 30, 0, 30, 0.1)["lat"].crop(slice(0, size))
    coarse = Grid.latlon(0, 30, 0, 30, 0.25)["lat"].crop(slice(0, -(-size * 2 // 5)))
    total = np.zeros(size)
    spans = Tiling(tile=40, blend=16, halo=8, limit=0).spans(fine, coarse)
    for span in spans:
        total[span.read] += span.weight
        read, given = fine.coordinates[span.read], coarse.coordinates[span.coarse]
        assert given[0] <= read[0] or span.coarse.start == 0
        assert given[-1] >= read[-1] or span.coarse.stop == coarse.size
    np.testing.assert_allclose(total, 1)
    assert len(spans) > 2


def seam_power(fields: Tensor, tile: int) -> float:
    """How much the roughness along a row follows the tiles: its spectrum at their harmonics over that elsewhere."""
    width = fields.shape[-1] // tile * tile
    roughness = np.square(np.diff(fields[..., :width].numpy(), axis=-1, prepend=0)).mean((0, 1, 2, 3))
    roughness[0] = roughness[1:].mean()
    power = np.square(np.abs(np.fft.rfft(roughness - roughness.mean())))
    number = np.arange(len(power))
    grids = number % (width // 5) == 0  # every five cells the two grids lie alike, which shows without tiles too
    tiles = number % (width // tile) == 0
    return float(power[tiles & ~grids].mean() / power[~tiles & ~grids].mean())


class Mean:
    """The worst there is: white noise about a level that depends on all that is seen."""

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[Tensor, float]:
        noise = member_noise((1, *batch.target_grid.shape), batch.ids, members=members, seed=seed)
        level = batch.condition.mean((-2, -1), keepdim=True)[:, None, :1]
        return 0.1 * noise + 10 * level, 0.0


def test_no_seam_shows_in_the_spectrum() -> None:
    batch = domain()
    seen = {}
    for blend in (0, 16):
        tiled, _ = Tiled(Mean(), Tiling(tile=40, blend=blend, halo=0, limit=0)).predict(batch, members=4)
        seen[blend] = seam_power(tiled, 40)
    assert seen[0] > 3  # tiles set side by side show
    assert seen[16] < 1.5
    attention = Alone("unet", base=4, multipliers=[1, 2], norm="group")
    tiled, _ = Tiled(attention, Tiling(tile=40, blend=16, halo=8, limit=0)).predict(batch)
    whole, _ = attention.predict(batch)
    assert seam_power(tiled, 40) == pytest.approx(seam_power(whole, 40), rel=0.05)


def test_noise_of_a_window_is_that_of_the_whole() -> None:
    whole = member_noise((2, 12, 10), [7], members=2, seed=1)
    sample = WindowId(7, {(4, 5): ((12, 10), (slice(3, 7), slice(5, 10)))})
    assert torch.equal(member_noise((2, 4, 5), [sample], members=2, seed=1), whole[..., 3:7, 5:10])
    smooth = member_noise((2, 12, 10), [7], members=2, seed=1, lengths=(3.0, 3.0))
    assert torch.equal(member_noise((2, 4, 5), [sample], members=2, seed=1, lengths=(3.0, 3.0)), smooth[..., 3:7, 5:10])
    with pytest.raises(ValueError, match="not one of the windows"):
        member_noise((2, 4, 6), [sample], members=1, seed=1)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="half a tile"):
        Tiling(tile=20, blend=16)

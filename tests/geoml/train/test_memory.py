"""What a training is said to need, against what is known of small networks."""

from __future__ import annotations

import pytest
import torch

from geoml.data.fields import Batch
from geoml.grids.grid import Grid
from geoml.models.base import Channels
from geoml.models.diffusion import Diffusion
from geoml.models.unet import UNetRegression
from geoml.train.memory import available_memory, training_memory

ONE = Channels(("a",), ("a",))


def fields(edge: int) -> Batch:
    grid = Grid.box({"z": 0, "y": 0, "x": 0}, {"z": 4, "y": edge, "x": edge}, 1.0)
    shape = (2, 1, *grid.shape)
    return Batch(torch.randn(shape), grid, grid, torch.randn(shape), ids=(0, 1))


def unet(**options: object) -> UNetRegression:
    return UNetRegression(ONE, 3, network={"base": 8, "multipliers": (1, 2), "norm": "none", **options})


def test_weights_count_with_gradients_moments_and_averages() -> None:
    model = unet()
    needed = training_memory(model, fields(16), batch_size=2)
    assert needed.weights == 5 * 4 * sum(p.numel() for p in model.parameters())
    assert needed.total == needed.weights + needed.activations


def test_activations_grow_with_cells_and_batches() -> None:
    model = unet()
    small, large, twice = (training_memory(model, fields(e), batch_size=b) for e, b in ((32, 1), (64, 1), (32, 2)))
    assert large.activations == pytest.approx(4 * small.activations, rel=0.01)
    assert twice.activations == pytest.approx(2 * small.activations, rel=0.01)


def test_activations_are_as_many_as_a_network_keeps() -> None:
    """Each 3 × 3 × 3 convolution keeps its padded input, each SiLU its input: several copies of the widest level."""
    cells = 4 * 32 * 32 * 4
    needed = training_memory(unet(), fields(32), batch_size=1).activations
    assert 8 * 8 * cells < needed < 60 * 8 * cells


def test_bf16_keeps_less_and_so_do_levels_computed_again() -> None:
    whole = training_memory(unet(), fields(32), batch_size=1).activations
    assert training_memory(unet(), fields(32), batch_size=1, precision="bf16").activations < 0.9 * whole
    assert training_memory(unet(recompute=True), fields(32), batch_size=1).activations < 0.7 * whole


def test_the_model_is_left_as_it_was() -> None:
    model = Diffusion(ONE, 3, network={"base": 8, "multipliers": (1, 2)}).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch, state = fields(16), torch.get_rng_state()
    training_memory(model, batch, batch_size=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_machine_has_memory() -> None:
    there = available_memory(torch.device("cpu"))
    assert there is None or there > 1e8

"""Conservation layers at factor 2.5: coarse means are met, on node- and on cell-registered grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoml.errors import UserError
from geoml.grids.grid import Grid
from geoml.nn.conservation import METHODS, Conservation, conservation_for
from geoml.regrid import Regridder

FINE = Grid.latlon(40, 43, 0, 3, 0.1)
COARSE = {
    "node": Grid.latlon(40, 43, 0, 3, 0.25, "node", half_open=True),
    "centre": Grid.latlon(40, 43, 0, 3, 0.25),
}


def pair(registration: str) -> tuple[Conservation, torch.Tensor, torch.Tensor]:
    """Amounts of three sizes, 0 in places, their exact area means, and a prediction that has little to do with them."""
    generator = torch.Generator().manual_seed(3)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(3, 2, 34, 34, generator=generator), 5, 1)
    amount = (4 * smooth + 0.3).clamp(min=0).exp() - 1
    guess = amount.roll(2, -1) * torch.rand(amount.shape, generator=generator)
    amount *= torch.tensor([1.0, 0.01, 30.0]).view(3, 1, 1, 1)
    return Conservation(FINE, COARSE[registration]), Regridder(FINE, COARSE[registration])(amount), guess


@pytest.mark.parametrize("registration", COARSE)
@pytest.mark.parametrize("method", METHODS)
def test_coarse_means_are_kept(registration: str, method: str) -> None:
    layer, coarse, guess = pair(registration)
    fields = layer(guess, coarse, method)
    assert fields.dtype == torch.float32
    assert float(fields.min()) >= 0
    found = Regridder(FINE, COARSE[registration])(fields)
    miss = (layer.inner(found) - layer.inner(coarse)).abs().amax((-2, -1))
    assert bool((miss < 1e-5 * coarse.amax((-2, -1))).all())
    assert torch.equal(layer(guess[1:2], coarse[1:2], method), fields[1:2])  # each field on its own
    # an amount that has the means already is left alone
    if method == "multiplicative":
        again = layer(fields, coarse, method)
        torch.testing.assert_close(again, fields, rtol=1e-3, atol=1e-4)


def test_cells_that_reach_beyond_the_fine_grid_are_exempt() -> None:
    layer, coarse, guess = pair("node")
    assert [int(whole.sum()) for whole in layer.whole] == [11, 11]  # the northern row and the western column are not
    beyond = coarse.clone()
    rim = np.ix_(*layer.whole)
    kept = torch.zeros(coarse.shape[-2:], dtype=torch.bool)
    kept[rim] = True
    beyond[..., ~kept] = 1e6
    torch.testing.assert_close(layer(guess, beyond, "multiplicative"), layer(guess, coarse, "multiplicative"))


def test_additive_is_the_nearest_field_in_the_least_squares_sense() -> None:
    """Against the dense solution of min ‖x − x₀‖² with A·x = the means."""
    layer, coarse, guess = pair("centre")
    a = np.kron(*Regridder(FINE, COARSE["centre"]).matrices)
    x, means = guess[0, 0].double().numpy().ravel(), coarse[0, 0].double().numpy().ravel()
    exact = x + np.linalg.lstsq(a, means - a @ x, rcond=None)[0]
    found = layer(guess[0, 0].double(), coarse[0, 0], "additive", positive=False)
    np.testing.assert_allclose(found.numpy().ravel(), exact, atol=1e-10)


def test_where_fine_cells_nest_multiplicative_and_softmax_are_the_published_formulas() -> None:
    coarse_grid = Grid.box({"y": 0, "x": 0}, {"y": 4, "x": 6}, 1.0)
    layer = conservation_for(coarse_grid.refine(2), coarse_grid)
    guess, coarse = torch.rand(8, 12) + 0.1, torch.rand(4, 6) + 0.1

    def blocks(fields: torch.Tensor) -> torch.Tensor:
        means = torch.nn.functional.avg_pool2d(fields[None], 2)[0]
        return means.repeat_interleave(2, 0).repeat_interleave(2, 1)

    wanted = coarse.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(layer(guess, coarse, "multiplicative"), guess * wanted / blocks(guess))
    weight = guess.exp()
    torch.testing.assert_close(layer(guess, coarse, "softmax"), weight * wanted / blocks(weight))


def test_gradients_pass() -> None:
    layer, coarse, guess = pair("node")
    for method in METHODS:
        x = guess.clone().requires_grad_(True)
        layer(x, coarse, method).square().sum().backward()
        assert x.grad is not None
        assert bool(x.grad.isfinite().all())
        assert bool(x.grad.any())


def test_unknown_layers_are_named() -> None:
    layer, coarse, guess = pair("node")
    with pytest.raises(UserError, match="did you mean 'additive'"):
        layer(guess, coarse, "aditive")  # type: ignore[arg-type]

"""Known cells: kept exactly, and pulling the others where they should be, against a law that is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.exact_denoisers import GaussianDenoiser
from geoml.diffusion.guidance import Known, guided
from geoml.diffusion.samplers import DPMSolver2M
from geoml.diffusion.spacing import log_snr
from geoml.errors import UserError

CELLS = 24
PLACES = torch.arange(CELLS, dtype=torch.float64)
#: A smooth Gaussian field on a line.
COVARIANCE = torch.exp(-(((PLACES[:, None] - PLACES) / 4) ** 2)) + 1e-6 * torch.eye(CELLS, dtype=torch.float64)
SEEN = torch.tensor([3, 10, 11, 20])


def smooth(x: Tensor, sigma: Tensor) -> Tensor:
    """E[clean | x] of the field: C (C + σ²)⁻¹ x."""
    gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma[0] ** 2 * torch.eye(CELLS, dtype=x.dtype))
    return x @ gain.T


def known_part(count: int, **options: object) -> tuple[Known, Tensor, Tensor]:
    """Values at `SEEN` of one draw, with the exact mean and variance of the field given them."""
    draw = torch.linalg.cholesky(COVARIANCE) @ torch.randn(
        CELLS, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    mask = torch.zeros(CELLS, dtype=torch.bool)
    mask[SEEN] = True
    across = COVARIANCE[:, SEEN] @ torch.linalg.inv(COVARIANCE[SEEN][:, SEEN])
    mean = across @ draw[SEEN]
    variance = (COVARIANCE - across @ COVARIANCE[SEEN]).diagonal()
    rows = (count, 1, CELLS)
    known = Known(draw.where(mask, 0.0).expand(rows), mask.expand(rows), **options)  # type: ignore[arg-type]
    return known, mean, variance


def sampled(known: Known, count: int) -> Tensor:
    noise = torch.randn(count, 1, CELLS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return known.put_in(DPMSolver2M()(guided(smooth, known), noise, log_snr(32, smallest=0.01)))[:, 0]


def test_independent_known_cells_are_met_in_one_step_and_others_left_alone() -> None:
    prior = GaussianDenoiser(torch.zeros(()), torch.ones(()))
    x, sigma = torch.randn(2, 1, CELLS), torch.tensor([0.3, 5.0])
    mask = torch.zeros(2, 1, CELLS, dtype=torch.bool)
    mask[:, :, SEEN] = True
    known = Known(torch.full_like(x, 0.7), mask, guidance=1.0)
    made = guided(prior, known)(x, sigma)
    torch.testing.assert_close(made, torch.where(mask, 0.7, prior(x, sigma)))


def test_guidance_brings_the_other_cells_near_their_conditional_mean() -> None:
    count = 400
    known, mean, variance = known_part(count, guidance=1.0, keep="end")
    alone, _, _ = known_part(count)
    guided_error, lone_error = ((sampled(k, count).mean(0) - mean).square().mean().sqrt() for k in (known, alone))
    assert float(guided_error) < 0.4 * float(lone_error)
    spread = sampled(known, count).var(0)
    assert float(spread.mean()) < 1.5 * float(variance.mean()) + 0.05
    assert float(sampled(alone, count).var(0).mean()) > 0.6  # what is put in at the end changes no other cell


@pytest.mark.parametrize("keep", ["end", "always"])
@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_known_cells_are_kept_exactly(keep: str, guidance: float) -> None:
    known, _, _ = known_part(5, guidance=guidance, keep=keep)
    made = sampled(known, 5)
    assert torch.equal(made[:, SEEN], known.values[:, 0, SEEN])


def test_no_cell_moves_by_more_than_the_largest_disagreement() -> None:
    known, _, _ = known_part(3, guidance=1.0)
    x = 40 * torch.randn(3, 1, CELLS, dtype=torch.float64)
    for level in (0.1, 1.0, 40.0):
        sigma = torch.full((3,), level, dtype=torch.float64)
        plain = smooth(x, sigma)
        moved = (guided(smooth, known)(x, sigma) - plain).abs().amax(-1)
        most = torch.where(known.mask, plain - known.values, 0.0).abs().amax(-1)
        assert (moved <= most * (1 + 1e-9)).all()


def test_wrong_options_are_named() -> None:
    values, mask = torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.bool)
    with pytest.raises(UserError, match="did you mean 'always'"):
        Known(values, mask, keep="alway")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="guidance is -1"):
        Known(values, mask, guidance=-1)

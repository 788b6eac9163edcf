"""Members given noisy values at cells: against the closed form of a Gaussian field, for large and small errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geoml.diffusion.posterior import Observed, given
from geoml.diffusion.samplers import DPMSolver2M
from geoml.diffusion.spacing import log_snr

CELLS = 24
PLACES = torch.arange(CELLS, dtype=torch.float64)
MEAN = torch.sin(PLACES / 5)
#: A field of standard deviation 1.5; stations 3, 4 and 4 are strongly correlated, two of them in one cell.
COVARIANCE = 2.25 * torch.exp(-(((PLACES[:, None] - PLACES) / 4) ** 2)) + 1e-6 * torch.eye(CELLS, dtype=torch.float64)
SEEN = torch.tensor([3, 4, 4, 11, 20])
#: From so much noise that the field itself does not count.
LEVELS = log_snr(80, smallest=0.005, largest=3000)
VALUES = torch.tensor([0.8, 1.0, 1.2, -1.0, 2.0], dtype=torch.float64)


def prior(x: Tensor, sigma: Tensor) -> Tensor:
    """E[clean | x] of the field."""
    noisy = COVARIANCE + sigma[0] ** 2 * torch.eye(CELLS, dtype=x.dtype)
    return MEAN + (x - MEAN) @ torch.linalg.solve(noisy, COVARIANCE)


def closed_form(errors: Tensor) -> tuple[Tensor, Tensor]:
    gain = torch.linalg.solve(COVARIANCE[SEEN][:, SEEN] + torch.diag(errors**2), COVARIANCE[SEEN]).T
    return MEAN + gain @ (VALUES - MEAN[SEEN]), COVARIANCE - gain @ COVARIANCE[SEEN]


def sampled(errors: Tensor, noise: Tensor, values: Tensor = VALUES) -> Tensor:
    seen = Observed(SEEN, values.expand(len(noise), -1), errors.expand(len(noise), -1))
    denoiser = given(prior, seen, directions=5, tolerance=0)
    return DPMSolver2M()(denoiser, noise, LEVELS)[:, 0]


@pytest.mark.parametrize("error", [0.02, 0.3, 2.0, 1e4])
def test_members_of_a_gaussian_field_have_the_mean_and_covariance_of_the_closed_form(error: float) -> None:
    errors = torch.tensor([1.0, 0.5, 1.0, 2.0, 1.0], dtype=torch.float64) * error
    # The flow is affine: members of noise 0 and of one unit each give the mean and the root of the covariance.
    noise = torch.cat((torch.zeros(1, CELLS), torch.eye(CELLS)))[:, None].double()
    members = sampled(errors, noise)
    mean, covariance = closed_form(errors)
    root = members[1:] - members[0]
    torch.testing.assert_close(members[0], mean, atol=0.01, rtol=0)
    torch.testing.assert_close(root.T @ root, covariance, atol=0.02, rtol=0)


def test_small_errors_interpolate_and_large_ones_leave_the_prior() -> None:
    noise = torch.randn(4, 1, CELLS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = sampled(torch.full((5,), 1e-3, dtype=torch.float64), noise)
    torch.testing.assert_close(exact[:, [11, 20]], VALUES[3:].expand(4, -1), atol=0.02, rtol=0)
    torch.testing.assert_close(exact[:, 4], VALUES[1:3].mean().expand(4), atol=0.02, rtol=0)
    free = DPMSolver2M()(prior, noise, LEVELS)[:, 0]
    torch.testing.assert_close(sampled(torch.full((5,), 1e5, dtype=torch.float64), noise), free)


def test_unknown_values_have_no_influence() -> None:
    noise = torch.randn(2, 1, CELLS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    errors = torch.full((5,), 0.1, dtype=torch.float64)
    none = sampled(errors, noise, torch.full((5,), torch.nan, dtype=torch.float64))
    torch.testing.assert_close(none, DPMSolver2M()(prior, noise, LEVELS)[:, 0])
    some = VALUES.where(torch.tensor([1, 1, 1, 1, 0]) == 1, torch.nan)
    lost = sampled(errors, noise, some)
    weak = sampled(errors.where(some.isfinite(), 1e6), noise)
    torch.testing.assert_close(lost, weak)


def test_few_gradients_are_nearly_exact() -> None:
    calls = 0

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        out = prior(x, sigma)
        out.register_hook(lambda slope: _count())
        return out

    def _count() -> None:
        nonlocal calls
        calls += 1

    x, sigma = torch.randn(3, 1, CELLS, dtype=torch.float64), torch.full((3,), 0.7, dtype=torch.float64)
    seen = Observed(SEEN, VALUES.expand(3, -1), torch.full((3, 5), 0.3, dtype=torch.float64))
    exact = given(prior, seen, tolerance=0)(x, sigma)
    few = given(counted, seen, tolerance=0.03)(x, sigma)
    assert calls < 5
    torch.testing.assert_close(few, exact, atol=0.05, rtol=0)

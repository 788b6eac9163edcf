"""Samplers against the closed-form flow of a Gaussian, and the moments of a mixture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.exact_denoisers import GaussianDenoiser, MixtureDenoiser
from geoml.diffusion.samplers import DDIM, SAMPLERS, DPMSolver2M, Euler, Heun, Sampler, StochasticHeun, sampler_of
from geoml.diffusion.spacing import karras, log_snr, uniform_time
from geoml.errors import UserError
from geoml.models.noise import member_noise, seed_of

DETERMINISTIC: list[Sampler] = [Euler(), DDIM(), Heun(), DPMSolver2M(), StochasticHeun(churn=0.0)]
STOCHASTIC: list[Sampler] = [StochasticHeun(), DDIM(eta=0.5), DDIM(eta=1.0)]
SHAPES = [(5,), (3, 4), (2, 3, 2)]


def gaussian(shape: tuple[int, ...]) -> GaussianDenoiser:
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return GaussianDenoiser(mean, torch.rand(2, *shape, generator=generator, dtype=torch.float64) + 0.2)


def levels(steps: int, largest: float = 5.0, smallest: float = 0.05) -> list[float]:
    return np.geomspace(largest, smallest, steps + 1).tolist()


def keyed(shape: tuple[int, ...], ids: list[int], seed: int = 0) -> Tensor:
    return member_noise(shape, ids, members=1, seed=seed)[:, 0].double()


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=repr)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape)}-D")
def test_the_error_falls_with_the_declared_order(sampler: Sampler, shape: tuple[int, ...]) -> None:
    """Slope of ln error against ln step between 64 and 256 steps, on the exact probability flow of a Gaussian."""
    denoiser = gaussian(shape)
    noise = keyed((2, *shape), [0, 1, 2])
    errors = []
    counts = (64, 128, 256)
    for steps in counts:
        sigmas = levels(steps)
        exact = denoiser.flow(noise * sigmas[0], sigmas[0], sigmas[-1])
        errors.append(float((sampler(denoiser, noise, sigmas) - exact).abs().max()))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(sampler.order, abs=0.12)


def test_deterministic_ddim_is_euler() -> None:
    denoiser, noise = gaussian((4,)), keyed((2, 4), [0, 1])
    torch.testing.assert_close(DDIM()(denoiser, noise, karras(9)), Euler()(denoiser, noise, karras(9)))


def test_ddim_does_not_depend_on_how_the_field_is_scaled() -> None:
    """The variance-preserving update of Song et al. 2021, eq. 12, in its own variables."""
    denoiser, noise = gaussian((4,)), keyed((2, 4), [0, 1])
    sigmas = log_snr(6, smallest=0.1, largest=20)[:-1]
    kept = 1 / (1 + np.square(sigmas))  # ᾱ
    x = noise * sigmas[0] * kept[0] ** 0.5
    for a, b, sigma in zip(kept, kept[1:], sigmas, strict=False):
        clean = denoiser(x / a**0.5, torch.full((2,), sigma, dtype=torch.float64))
        epsilon = (x - a**0.5 * clean) / (1 - a) ** 0.5
        x = b**0.5 * clean + (1 - b) ** 0.5 * epsilon
    torch.testing.assert_close(DDIM()(denoiser, noise, sigmas), x / kept[-1] ** 0.5)


def test_a_flow_steps_alike_in_its_own_variables() -> None:
    """Euler's step along x_t = (1−t) x₀ + t ε with u = (x_t − x₀)/t."""
    denoiser, noise = gaussian((4,)), keyed((2, 4), [0, 1])
    sigmas = uniform_time(8)[:-1]
    times = np.asarray(sigmas) / (1 + np.asarray(sigmas))
    x = noise * times[0]
    for t, after in itertools.pairwise(times):
        clean = denoiser(x / (1 - t), torch.full((2,), t / (1 - t), dtype=torch.float64))
        x = x + (after - t) * (x - clean) / t
    torch.testing.assert_close(Euler()(denoiser, noise, sigmas), x / (1 - times[-1]))


MEANS = torch.tensor([[[-1.0, 0.5]], [[1.0, 0.0]], [[0.2, -1.5]]], dtype=torch.float64)
MIXTURE = MixtureDenoiser(
    MEANS,
    torch.tensor([0.05, 0.2, 0.1], dtype=torch.float64).view(3, 1, 1),
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
)


def moments_of_the_mixture() -> tuple[Tensor, Tensor]:
    points, share = MIXTURE.means.flatten(1), MIXTURE.weights[:, None]
    mean = (share * points).sum(0)
    away = points - mean
    spread = torch.diag(((MIXTURE.variances.flatten() * MIXTURE.weights).sum()).expand(2))
    return mean, (share[..., None] * away[:, :, None] * away[:, None, :]).sum(0) + spread


def test_the_mixture_denoises_to_the_posterior_mean() -> None:
    """E[clean | x] by the definition: a weighted mean over many draws of the clean field."""
    generator = torch.Generator().manual_seed(0)
    which = torch.multinomial(MIXTURE.weights, 400_000, replacement=True, generator=generator)
    clean = MEANS[which] + torch.randn(400_000, 1, 2, generator=generator, dtype=torch.float64) * (
        MIXTURE.variances[which].sqrt()
    )
    x, sigma = torch.tensor([[[0.3, -0.4]]], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    likelihood = torch.exp(-(x - clean).square().sum((1, 2)) / (2 * sigma**2))
    expected = (likelihood[:, None, None] * clean).sum(0) / likelihood.sum()
    torch.testing.assert_close(MIXTURE(x, sigma)[0], expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("sampler", [Heun(), DPMSolver2M(), *STOCHASTIC], ids=repr)
def test_moments_of_a_mixture(sampler: Sampler) -> None:
    """Mean, covariance and shares of 10,000 samples are the mixture's, within the bias of the steps and chance."""
    count, sigmas = 10_000, karras(40 if sampler.order == 2 else 240)
    generator = torch.Generator().manual_seed(1)

    def draw(_: int) -> Tensor:
        return torch.randn(count, 1, 2, generator=generator, dtype=torch.float64)

    samples = sampler(MIXTURE, draw(0), sigmas, draw).flatten(1)
    mean, covariance = moments_of_the_mixture()
    assert ((samples.mean(0) - mean).abs() < 4 * (covariance.diag() / count).sqrt()).all()
    torch.testing.assert_close(torch.cov(samples.T), covariance, atol=0.04, rtol=0)


def variance_of(sampler: Sampler, steps: int, variance: float) -> float:
    """The exact variance of the samples of N(0, variance): they are linear in each normal number that is drawn.

    Row k of the batch meets 1 as the k-th number and 0 as all others.
    """

    def one(index: int) -> Tensor:
        draw = torch.zeros(steps + 1, 1, 1, dtype=torch.float64)
        draw[index + 1] = 1
        return draw

    denoiser = GaussianDenoiser(torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), variance).double())
    return float(sampler(denoiser, one(-1), levels(steps, 40.0, 0.01), one).square().sum())


@pytest.mark.parametrize("sampler", [*STOCHASTIC, Heun(), DPMSolver2M()], ids=repr)
def test_the_variance_of_samples_tends_to_that_of_the_data(sampler: Sampler) -> None:
    """With the declared order in the size of the steps, fresh noise or not."""
    counts, end = (100, 200, 400), 0.25 + 0.01**2
    # The exact flow keeps the missing variance of a start at σ = 40 in proportion; fresh noise forgets it.
    limit = end if sampler.stochastic else end * 40.0**2 / (40.0**2 + 0.25)
    errors = [abs(variance_of(sampler, steps, 0.25) - limit) for steps in counts]
    assert errors[-1] < 0.03 * limit
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(sampler.order, abs=0.12)


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *STOCHASTIC], ids=repr)
def test_a_seed_gives_the_same_samples_at_any_batch_split(sampler: Sampler) -> None:
    ids, shape = [11, 4, 7, 2, 9], (1, 6)
    denoiser = MixtureDenoiser(torch.randn(3, *shape), torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.ones(3) / 3)

    def samples(part: list[int]) -> Tensor:
        def noise(step: int) -> Tensor:
            return member_noise(shape, part, members=1, seed=seed_of(0, step))[:, 0]

        return sampler(denoiser, noise(-1), karras(12), noise)

    whole = samples(ids)
    for cut in (1, 2, 4):
        torch.testing.assert_close(torch.cat((samples(ids[:cut]), samples(ids[cut:]))), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(samples(ids[::-1]).flip(0), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *STOCHASTIC], ids=repr)
@pytest.mark.parametrize("sigmas", [karras(7), karras(7)[:-1], log_snr(1)])
def test_evaluations_are_counted(sampler: Sampler, sigmas: tuple[float, ...]) -> None:
    calls = 0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        assert (sigma > 0).all()
        return x / (1 + sigma.view(-1, 1, 1) ** 2)

    sampler(denoiser, torch.randn(2, 1, 3), sigmas, lambda _: torch.randn(2, 1, 3))
    assert calls == sampler.evaluations(sigmas)


def test_a_stochastic_sampler_misses_its_noise() -> None:
    with pytest.raises(ValueError, match="pass `fresh`"):
        DDIM(eta=1.0)(gaussian((3,)), torch.randn(1, 2, 3), karras(4))


@pytest.mark.parametrize("sigmas", [(1.0,), (1.0, 2.0, 0.0), (2.0, 2.0, 0.0), (1.0, -1.0)])
def test_noise_levels_have_to_fall(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must descend"):
        Euler()(gaussian((3,)), torch.randn(1, 2, 3), sigmas)


def test_samplers_by_name() -> None:
    assert {type(sampler_of(name)) for name in SAMPLERS} == set(SAMPLERS.values())
    assert sampler_of({"name": "stochastic_heun", "churn": 10}) == StochasticHeun(churn=10)
    for entry, message in (
        ("huen", "did you mean 'heun'"),
        ({"name": "ddim", "etta": 1}, "did you mean 'sampler.eta'"),
        ({"name": "ddim", "eta": 2}, "eta 2"),
        ({"eta": 1}, "sampler"),
    ):
        with pytest.raises(UserError, match=message):
            sampler_of(entry)  # type: ignore[arg-type]

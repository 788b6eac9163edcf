"""Parameterisations, levels and spacings against their definitions and limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.exact_denoisers import GaussianDenoiser
from geoml.diffusion.denoiser import expand
from geoml.diffusion.levels import (
    SCHEDULES,
    DiscreteLevels,
    Levels,
    LogNormalLevels,
    UniformTimeLevels,
    cosine,
    linear,
    schedule,
)
from geoml.diffusion.preconditioning import Clean, Flow, Karras, Noise, Preconditioning, Velocity, parameterisation
from geoml.diffusion.spacing import karras, log_snr, strided, uniform_time
from geoml.errors import UserError

ALL: list[Preconditioning] = [Karras(0.5), Karras(1.0), Karras(0.5, wiener=True), Noise(), Clean(), Velocity(), Flow()]
SIGMAS = torch.tensor([0.01, 0.3, 1.0, 7.0, 60.0], dtype=torch.float64)


def draws(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = scale * torch.randn(len(SIGMAS), 2, 4, 3, generator=generator, dtype=torch.float64)
    return clean, torch.randn(clean.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", ALL, ids=repr)
def test_a_network_that_meets_its_target_denoises_exactly(kind: Preconditioning) -> None:
    clean, noise = draws()
    x = clean + expand(SIGMAS, clean) * noise
    denoised = kind.denoise(lambda *_: kind.target(clean, noise, SIGMAS), x, SIGMAS)
    torch.testing.assert_close(denoised, clean)


@pytest.mark.parametrize("kind", ALL, ids=repr)
def test_parameterisations_agree_on_an_exact_denoiser(kind: Preconditioning) -> None:
    """Each network's best answer, E[target | x], gives the same denoised field: the posterior mean of a Gaussian."""
    exact = GaussianDenoiser(torch.tensor([[[0.7]], [[-0.2]]]).double(), torch.tensor([[[0.5]], [[1.3]]]).double())
    clean, noise = draws()
    x = clean + expand(SIGMAS, clean) * noise
    posterior = exact(x, SIGMAS)
    noise_of_it = (x - posterior) / expand(SIGMAS, x)

    def network(scaled: Tensor, label: Tensor) -> Tensor:
        torch.testing.assert_close(label, SIGMAS.log() / 4)
        torch.testing.assert_close(scaled, expand(kind.coefficients(SIGMAS).into, x) * x)
        return kind.target(posterior, noise_of_it, SIGMAS)

    torch.testing.assert_close(kind.denoise(network, x, SIGMAS), posterior)


@pytest.mark.parametrize("kind", [Karras(0.5), Karras(2.0), Noise(), Velocity(), Flow()], ids=repr)
def test_at_no_noise_the_field_passes_unchanged(kind: Preconditioning) -> None:
    tiny = torch.full((1,), 1e-7, dtype=torch.float64)
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(kind.denoise(lambda *_: torch.full_like(x, 3.0), x, tiny), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
def test_at_much_noise_edm_hears_the_network_alone_at_the_scale_of_the_data(sigma_data: float) -> None:
    skip, out, into = Karras(sigma_data).coefficients(torch.tensor([1e6], dtype=torch.float64))
    assert float(skip) * 1e6 == pytest.approx(0, abs=1e-5)
    assert float(out) == pytest.approx(sigma_data)
    assert float(into) * 1e6 == pytest.approx(1)


@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
def test_the_wiener_input_is_the_best_linear_estimate(sigma_data: float) -> None:
    """Over `sigma_data`: of all multiples of x it is nearest to the clean field, and fades out with the noise."""
    kind = Karras(sigma_data, wiener=True)
    generator = torch.Generator().manual_seed(2)
    for sigma in (0.1, 1.0, 10.0):
        clean = sigma_data * torch.randn(200_000, generator=generator, dtype=torch.float64)
        x = clean + sigma * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        best = float((clean * x).mean() / x.square().mean())
        into = float(kind.coefficients(torch.tensor([sigma], dtype=torch.float64)).into)
        assert into * sigma_data == pytest.approx(best, rel=0.05)
        assert float((into * x).std()) == pytest.approx(sigma_data / (sigma**2 + sigma_data**2) ** 0.5, rel=0.02)


@pytest.mark.parametrize("kind", [Karras(0.5), Karras(2.0), Noise(), Velocity()], ids=repr)
def test_inputs_and_targets_have_unit_variance_at_every_level(kind: Preconditioning) -> None:
    """So that the loss of a network that gives 0 is flat over the levels: Karras et al. 2022, appendix B.6."""
    sigma_data = kind.sigma_data if isinstance(kind, Karras) else 1.0
    generator = torch.Generator().manual_seed(1)
    for sigma in (0.002, 0.1, 1.0, 10.0, 80.0):
        level = torch.tensor([sigma], dtype=torch.float64)
        clean = sigma_data * torch.randn(1, 100_000, generator=generator, dtype=torch.float64)
        noise = torch.randn(1, 100_000, generator=generator, dtype=torch.float64)
        scaled = kind.coefficients(level).into * (clean + sigma * noise)
        loss = kind.weight(level) * kind.target(clean, noise, level).square().mean()
        assert float(scaled.var()) == pytest.approx(1, rel=0.02)
        assert float(loss) == pytest.approx(1, rel=0.02)


def test_the_velocity_is_edm_for_unit_data_but_for_the_sign() -> None:
    clean, noise = draws()
    torch.testing.assert_close(Velocity().target(clean, noise, SIGMAS), -Karras(1.0).target(clean, noise, SIGMAS))
    ours, theirs = Velocity().coefficients(SIGMAS), Karras(1.0).coefficients(SIGMAS)
    torch.testing.assert_close((ours.skip, -ours.out, ours.into), tuple(theirs))


def test_the_weight_of_clean_fields_is_the_truncated_snr() -> None:
    sigma = torch.tensor([0.5, 1.0, 3.0, 1e-5])
    assert Clean().weight(sigma).tolist() == pytest.approx([4, 1, 1, 1e4])


def test_parameterisations_by_name() -> None:
    kinds = {name: type(parameterisation(name)) for name in ("epsilon", "x0", "v")}
    assert kinds == {"epsilon": Noise, "x0": Clean, "v": Velocity}
    with pytest.raises(UserError, match="did you mean 'epsilon'"):
        parameterisation("epsilom")


def test_schedules_are_those_of_their_papers() -> None:
    """β of 10⁻⁴ … 0.02 over 1000 steps; ᾱ a squared cosine of which β is cut at 0.999; half noise half way."""
    beta = 1 - np.divide(linear(1000)[1:], linear(1000)[:-1])
    assert beta[0] == pytest.approx(1e-4 + (0.02 - 1e-4) / 999)
    assert beta[-1] == pytest.approx(0.02)
    kept = cosine(1000)
    middle = np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert kept[499] == pytest.approx(middle)
    assert kept[-1] / kept[-2] == pytest.approx(0.001)
    for name in SCHEDULES:
        table = np.array(schedule(name).table)
        assert (np.diff(table) > 0).all()
        # The variance-preserving pair of factors: ᾱ + (1 − ᾱ) = 1 with σ² = (1 − ᾱ)/ᾱ.
        np.testing.assert_allclose(1 / (1 + table**2), SCHEDULES[name](1000))
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        schedule("cosin")


@pytest.mark.parametrize("levels", [LogNormalLevels(), UniformTimeLevels(), schedule("linear"), schedule("cosine")])
def test_levels_rise_with_their_quantile_and_are_finite_at_its_ends(levels: Levels) -> None:
    sigma = levels.quantile(torch.linspace(0, 1, 1001))
    assert (sigma.diff() >= 0).all()
    assert (sigma > 0).all()
    assert torch.isfinite(sigma).all()


def test_distributions_of_levels() -> None:
    uniform = (torch.arange(100_000) + 0.5) / 100_000
    log_sigma = LogNormalLevels(-1.2, 1.2).quantile(uniform).log()
    assert float(log_sigma.mean()) == pytest.approx(-1.2, abs=1e-3)
    assert float(log_sigma.std()) == pytest.approx(1.2, abs=1e-3)
    sigma = UniformTimeLevels().quantile(uniform)
    torch.testing.assert_close(sigma / (1 + sigma), uniform, atol=2e-6, rtol=0)
    table = DiscreteLevels((0.1, 1.0, 10.0, 100.0))
    assert table.quantile(torch.tensor([0.0, 0.24, 0.26, 0.5, 0.99, 1.0])).tolist() == pytest.approx(
        [0.1, 0.1, 1.0, 10.0, 100.0, 100.0]
    )


def test_spacings_fall_from_the_largest_level_to_zero() -> None:
    for sigmas in (karras(9), log_snr(9), uniform_time(9), strided(schedule("linear").table, 9)):
        assert len(sigmas) == 10
        assert (np.diff(sigmas) < 0).all()
        assert sigmas[-1] == 0
        assert sigmas[0] == pytest.approx(80, rel=0.02)
    roots = np.array(karras(6)[:-1]) ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0])
    np.testing.assert_allclose(np.diff(np.log(log_snr(6)[:-1])), np.log(0.002 / 80) / 5)
    times = np.array(uniform_time(6)) / (1 + np.array(uniform_time(6)))
    np.testing.assert_allclose(np.diff(times), np.diff(times)[0])
    table = schedule("cosine").table
    assert set(strided(table, 20)[:-1]) <= set(table)
    assert strided(table, 1)[0] == max(sigma for sigma in table if sigma <= 80)


def test_spacings_refuse_what_makes_no_sense() -> None:
    for call in (
        lambda: karras(0),
        lambda: log_snr(5, smallest=2, largest=1),
        lambda: uniform_time(3, largest=0),
        lambda: strided((0.1, 1.0), 3),
    ):
        with pytest.raises(UserError, match="sampling steps"):
            call()

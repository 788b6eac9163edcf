"""Samplers: error by number of denoiser evaluations, on distributions with a denoiser in closed form.

All distributions have a standard deviation of 0.5 and are sampled from σ = 80, as in an EDM:

- `fields`: Gaussian fields of 16 × 16 coefficients of an orthonormal basis, whose variance decreases with the third
  power of the wavenumber. The end of the flow is known exactly.
- `regimes`: a mixture of six such distributions of 8 × 8 coefficients with different strength and mean. Samples that
  start near the boundary between two regimes can end in the wrong one if steps are long. They cause most of the error,
  so more than a thousand samples are needed.
- `rain`: single cells; 60 % are nearly 0 and 40 % are spread widely.

The error is the root mean square distance of samples from the end of the exact flow with the same noise, relative to
the root mean square of the samples. If the flow has no closed form, Heun's method with very many steps replaces it.
Stochastic samplers have no such end point. For all samplers, the standard deviations of samples of `fields` are also
computed exactly (samples are linear in the noise) and compared with the true ones: √Σ(s − s′)² / √Σs², the Wasserstein
distance.

- `nfe_over_heun18`: smallest number of evaluations from which the default sampler of `model=edm` has at most the error
  of Heun's method with 18 steps on the levels of Karras et al. 2022, over the 35 evaluations of that method; the
  largest of the three distributions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from exact_denoisers import GaussianDenoiser, MixtureDenoiser
from harness import main

from geoml.cli.tables import show
from geoml.diffusion.denoiser import Denoiser
from geoml.diffusion.samplers import DDIM, DPMSolver2M, Euler, Heun, Sampler, StochasticHeun, sampler_of
from geoml.diffusion.spacing import karras, log_snr, spaced
from geoml.models.registry import preset

Spacing = Callable[[int], tuple[float, ...]]

LARGEST, SIGMA_DATA = 80.0, 0.5
BUDGETS = (7, 11, 17, 23, 35)


@dataclass(frozen=True)
class Law:
    """A distribution with its exact denoiser, initial noise, and the end points of the exact flow."""

    name: str
    denoiser: Denoiser
    noise: torch.Tensor
    end: torch.Tensor

    def error(self, sampler: Sampler, sigmas: Sequence[float]) -> float:
        """Return the relative root mean square distance from the end of the exact flow."""
        away = sampler(self.denoiser, self.noise, sigmas) - self.end
        return float((away.square().mean() / self.end.square().mean()).sqrt())


def spectrum(size: int = 16) -> torch.Tensor:
    """Return the variances of the coefficients, `(1, size, size)`; their mean equals the variance of the cells."""
    wavenumber = torch.arange(size, dtype=torch.float64)
    variance = (1 + wavenumber[:, None] ** 2 + wavenumber**2) ** -1.5
    return (SIGMA_DATA**2 * variance / variance.mean())[None]


def laws(samples: int, reference_steps: int) -> list[Law]:
    """Return the three distributions of this benchmark with `samples` samples each."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def by_heun(name: str, denoiser: Denoiser, noise: torch.Tensor) -> Law:
        return Law(name, denoiser, noise, Heun()(denoiser, noise, karras(reference_steps, smallest=1e-5)))

    variance = spectrum()
    fields = GaussianDenoiser(torch.zeros_like(variance), variance)
    noise = normal(16, *variance.shape)
    small = spectrum(8)
    large_scale = small > small.flatten().topk(15).values[-1]
    means = large_scale * normal(6, *small.shape) * (small / 2).sqrt()
    strength = torch.tensor([0.02, 0.1, 0.5, 1.0, 1.5, 2.0]).double().view(6, 1, 1, 1)
    regimes = MixtureDenoiser(means, strength * small * 0.7, torch.ones(6).double() / 6)
    dry, wet = (-0.4, 0.02), (0.6, 0.4)
    cells = torch.tensor([dry, wet]).double()[..., None, None]
    rain = MixtureDenoiser(cells[:, 0], cells[:, 1].square(), torch.tensor([0.6, 0.4]).double())
    return [
        Law("fields", fields, noise, fields.flow(LARGEST * noise, LARGEST)),
        by_heun("regimes", regimes, normal(samples, *small.shape)),
        by_heun("rain", rain, normal(4 * samples, 1, 1)),
    ]


def distance_of_laws(sampler: Sampler, sigmas: Sequence[float]) -> float:
    """Return the relative Wasserstein distance between the samples of `fields` and their distribution, computed
    exactly.

    The sampler is linear in the noise and treats coefficients independently. Row k of the batch has the k-th noise
    equal to 1 and all others 0, so sums of squares over rows are the variances of the samples.
    """
    rows, variance = len(sigmas), spectrum()

    def unit(step: int) -> torch.Tensor:
        noise = torch.zeros(rows, *variance.shape, dtype=torch.float64)
        noise[step + 1] = 1
        return noise

    deviation = sampler(GaussianDenoiser(torch.zeros_like(variance), variance), unit(-1), sigmas, unit)
    deviation = deviation.square().sum(0).sqrt()
    return float(((deviation - variance.sqrt()).square().sum() / variance.sum()).sqrt())


def within(sampler: Sampler, spacing: Spacing, budget: int) -> tuple[float, ...]:
    """Return the noise levels with the most steps that need at most `budget` evaluations."""
    steps = 1
    while sampler.evaluations(spacing(steps + 1)) <= budget:
        steps += 1
    return spacing(steps)


def fewest(law: Law, sampler: Sampler, spacing: Spacing, error: float) -> int | None:
    """Return the number of evaluations (up to 35) from which the error is at most `error`; None if 35 are too few."""
    least = None
    for budget in range(35, 2, -1):
        sigmas = within(sampler, spacing, budget)
        if law.error(sampler, sigmas) > error:
            break
        least = sampler.evaluations(sigmas)
    return least


def measure(quick: bool) -> dict[str, float | None]:
    """Return the figures of this script by the keys of targets.yaml."""
    settings = preset("edm")["sampling"]
    default = sampler_of(settings["sampler"])

    def shipped(steps: int) -> tuple[float, ...]:
        return spaced(settings["spacing"], steps, smallest=settings["sigma_min"], largest=settings["sigma_max"])

    contenders: dict[str, tuple[Sampler, Spacing]] = {
        "default of model=edm": (default, shipped),
        "dpm_solver_2m, log_snr": (DPMSolver2M(), log_snr),
        "dpm_solver_2m, karras": (DPMSolver2M(), karras),
        "heun, karras": (Heun(), karras),
        "heun, log_snr": (Heun(), log_snr),
        "euler = ddim, karras": (Euler(), karras),
        "euler = ddim, log_snr": (Euler(), log_snr),
    }
    shares = []
    for law in laws(*((200, 200) if quick else (2000, 300))):
        asked = law.error(Heun(), karras(18))
        print(f"\n{law.name}: error after so many evaluations; Heun with 18 steps has {asked:.4f}")
        rows = []
        for name, (sampler, spacing) in contenders.items():
            errors = {str(n): law.error(sampler, within(sampler, spacing, n)) for n in BUDGETS}
            rows.append({"sampler": name, **errors})
        show(rows)
        least = fewest(law, default, shipped, asked)
        print(f"the default has that from {least} evaluations on")
        shares.append(float("nan") if least is None else least / Heun().evaluations(karras(18)))
    print("\nfields: distance of the law of the samples from the true one, fresh noise included")
    stochastic: dict[str, tuple[Sampler, Spacing]] = {
        "stochastic_heun, karras": (StochasticHeun(), karras),
        "ddim, eta 0.5, karras": (DDIM(eta=0.5), karras),
        "ddim, eta 1, karras": (DDIM(eta=1.0), karras),
        "ddim, eta 1, log_snr": (DDIM(eta=1.0), log_snr),
    }
    everyone = contenders | stochastic
    show(
        [
            {"sampler": name} | {str(n): distance_of_laws(who, within(who, spacing, n)) for n in (*BUDGETS, 201)}
            for name, (who, spacing) in everyone.items()
        ]
    )
    return {"nfe_over_heun18": max(shares)}


if __name__ == "__main__":
    main("sampling", measure)

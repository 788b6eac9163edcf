"""Upper limits for two experts: the likelihood of a tapped delay line with all parameters known but the class.

    python docs/experts_pages/likelihood_bound.py

writes `likelihood_bound_tdl` into the cards of "los" and "doppler" in this installation, after they were trained.

Taps fade by Clarke's model, independently over antennas, with a specular path in profiles D and E; noise is white. The
window is then Gaussian with a known covariance for each hypothesis, and the posterior of the classes can be computed.
It is given delay spread, timing and noise; for line of sight also the largest shift, for the shift also the profile and
the K-factor. Its score on `tdl` links is an upper limit for experts, which are given none of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import i0e, j0

from geoml.runs.files import read_json, write_json
from mcp_experts.channels.channel import SNAPSHOTS, SUBCARRIERS
from mcp_experts.experts.doppler import EXPERT as DOPPLER
from mcp_experts.inference.registry import CARD, Registry
from mcp_experts.train.dataset import ONE_ANTENNA
from mcp_experts.train.generators import ANTENNAS, DELAY_SCALE_CELLS, K_FACTORS_DB, draw_k_factors_db, tdl_profile
from mcp_experts.train.scores import accuracy, confusions, interval, kappa
from mcp_experts.train.truths import (
    DOPPLER_CELLS,
    LATEST_CELLS,
    OFFSET_CELLS,
    TIMING_CELLS,
    draw_snr_db,
    log_uniform,
)

Reals = NDArray[np.float64]
Waves = NDArray[np.complex128]
ANGLES, OFFSETS = 24, 9
#: Number of quantiles that represent each normal distribution of K-factors.
QUANTILES = 7


@dataclass(frozen=True, eq=False)
class Profile:
    """Delays over their spread and powers, adding up to 1, of fading taps; and whether a specular path comes first."""

    delays: Reals
    powers: Reals
    direct: bool


@dataclass(frozen=True, eq=False)
class TappedLink:
    """One observed window `csi[antenna, 64, 14]` and its parameters; `k_factor` is 0 without a specular path."""

    csi: Waves
    profile: int
    spread_cells: float
    timing_cells: float
    doppler_cells: float
    k_factor: float
    noise: float


def draw_link(
    profiles: Sequence[Profile], number: int, rng: np.random.Generator, *, spread_cells: float, timing_cells: float,
    doppler_cells: float, k_factor: float, snr_db: float, antennas: int,
) -> TappedLink:  # fmt: skip
    """A window of this profile, drawn from the model of the likelihood."""
    profile = profiles[number]
    k = k_factor if profile.direct else 0.0
    level, waves = np.linalg.eigh(_clarke(doppler_cells))
    normal = rng.standard_normal((2, antennas, len(profile.powers), SNAPSHOTS))
    fading = ((normal[0] + 1j * normal[1]) / math.sqrt(2) * np.sqrt(np.maximum(level, 0))) @ waves.T
    gains = np.sqrt(profile.powers / (1 + k))[:, None] * fading
    time = np.arange(SNAPSHOTS) / SNAPSHOTS
    shift = doppler_cells * math.cos(rng.uniform(0, math.pi))
    gains[:, 0] += math.sqrt(k / (1 + k)) * np.exp(1j * (2 * np.pi * shift * time + rng.uniform(0, 2 * np.pi)))
    clean = _steering(profile, spread_cells, timing_cells) @ gains
    clean *= np.exp(2j * np.pi * rng.normal(0, OFFSET_CELLS) * time)
    noise = float(np.mean(np.abs(clean) ** 2)) * 10 ** (-snr_db / 10)
    white = rng.standard_normal((2, *clean.shape))
    csi = clean + math.sqrt(noise / 2) * (white[0] + 1j * white[1])
    return TappedLink(csi, number, spread_cells, timing_cells, doppler_cells, k, noise)


def los_posterior(link: TappedLink, profiles: Sequence[Profile], k_factors: Reals) -> float:
    """Posterior probability of a specular path, with prior 1/2 and equally likely `k_factors`."""
    scores: dict[bool, list[float]] = {True: [], False: []}
    for profile in profiles:
        view = _Projection(link, profile)
        for k in k_factors if profile.direct else (0.0,):
            scores[profile.direct].append(view.score(link.doppler_cells, float(k)))
    with_direct, without = (np.logaddexp.reduce(scores[one]) - math.log(len(scores[one])) for one in (True, False))
    return float(1 / (1 + np.exp(np.clip(without - with_direct, -700, 700))))


def doppler_posterior(link: TappedLink, profiles: Sequence[Profile], edges: Sequence[float]) -> Reals:
    """Posterior probability of each class between `edges`, with a log-uniform prior of the shift."""
    view = _Projection(link, profiles[link.profile])
    shifts = np.geomspace(*DOPPLER_CELLS, 48)
    scores = np.array([view.score(float(shift), link.k_factor) for shift in shifts])
    weights = np.exp(scores - scores.max())
    return np.bincount(np.digitize(shifts, edges), weights=weights, minlength=len(edges) + 1) / weights.sum()


class _Projection:
    """A window projected on the taps of a profile, which determines the likelihood up to a constant."""

    def __init__(self, link: TappedLink, profile: Profile) -> None:
        self.noise, self.powers = link.noise, profile.powers
        steering = _steering(profile, link.spread_cells, link.timing_cells)
        self.matched = np.swapaxes(steering.conj().T @ link.csi, 1, 2)  # [antenna, time, tap]
        self.gram = steering.conj().T @ steering

    def score(self, doppler: float, k: float) -> float:
        """Logarithm of the likelihood, frequency offset, direction and phase of the specular path integrated out."""
        root = np.sqrt(self.powers / (1 + k))
        size, modes = np.linalg.eigh(root[:, None] * self.gram * root)
        level, waves = np.linalg.eigh(_clarke(doppler))
        level, size = np.maximum(level, 0)[:, None], np.maximum(size, 0)
        gain = level / (self.noise * (self.noise + level * size))  # [wave, mode]
        antennas = len(self.matched)
        determinant = antennas * np.log1p(level * size / self.noise).sum()
        time = np.arange(SNAPSHOTS) / SNAPSHOTS
        angle = (np.arange(ANGLES) + 0.5) * np.pi / ANGLES
        phase = 2 * np.pi * doppler * np.cos(angle)[:, None] * time
        turn = (math.sqrt(k / (1 + k)) * np.exp(1j * phase)).astype(np.complex128)
        own = (turn @ waves)[:, :, None] * ((self.gram[:, 0] * root) @ modes.conj())
        nodes, weights = np.polynomial.hermite_e.hermegauss(OFFSETS)
        total = []
        for node, weight in zip(nodes, weights, strict=True):
            data = self.matched * np.exp(-2j * np.pi * OFFSET_CELLS * node * time)[:, None]
            seen = waves.T @ (data * root) @ modes.conj()  # [antenna, wave, mode]
            score = float(np.sum(np.abs(seen) ** 2 * gain)) - determinant
            if k > 0:
                score += self._specular(turn, own, data, seen, gain)
            total.append(score + math.log(weight))
        return float(np.logaddexp.reduce(total))

    def _specular(self, turn: Waves, own: Waves, data: Waves, seen: Waves, gain: Reals) -> float:
        """The contribution of a specular path: `turn[angle, time]`, and its projection `own[angle, wave, mode]`."""
        energy = np.sum(np.abs(turn) ** 2, axis=1) * float(self.gram[0, 0].real) / self.noise
        energy -= np.sum(np.abs(own) ** 2 * gain, axis=(1, 2))
        overlap = turn.conj() @ data[:, :, 0].sum(axis=0) / self.noise
        overlap -= np.sum(own.conj() * gain * seen.sum(axis=0), axis=(1, 2))
        magnitude = 2 * np.abs(overlap)
        scores = np.log(i0e(magnitude)) + magnitude - len(data) * energy
        return float(np.logaddexp.reduce(scores)) - math.log(len(turn))


def _clarke(doppler_cells: float) -> Reals:
    lag = np.subtract.outer(np.arange(SNAPSHOTS), np.arange(SNAPSHOTS)) / SNAPSHOTS
    correlation: Reals = j0(2 * np.pi * doppler_cells * lag)
    return correlation


def _steering(profile: Profile, spread_cells: float, timing_cells: float) -> Waves:
    """Response over subcarriers of each tap, `[64, tap]`."""
    cells = profile.delays * spread_cells + timing_cells
    turn: Waves = np.exp(-2j * np.pi * np.outer(np.arange(SUBCARRIERS) / SUBCARRIERS, cells))
    return turn


def tdl_bound(count: int, seed: int) -> dict[str, dict[str, Any]]:
    """Accuracy and kappa, with 95 % intervals, of the exact posterior on `count` links, for "los" and "doppler"."""
    rng = np.random.default_rng([seed, 11])
    profiles = [Profile(*tdl_profile(letter)) for letter in "ABCDE"]
    normal = np.quantile(np.random.default_rng(0).standard_normal(20_000), (np.arange(QUANTILES) + 0.5) / QUANTILES)
    factors = 10 ** (np.clip([m + s * q for m, s in K_FACTORS_DB for q in normal], -10, 25) / 10)
    rows = []
    for _ in range(count):
        link = _link(profiles, rng)
        direct = los_posterior(link, profiles, factors) > 0.5
        band = int(doppler_posterior(link, profiles, DOPPLER.edges).argmax())
        rows.append((profiles[link.profile].direct, direct, np.digitize(link.doppler_cells, DOPPLER.edges), band))
    true_los, los, true_band, band = np.array(rows, np.int64).T
    return {"los": _scored(true_los, los, 2), "doppler": _scored(true_band, band, len(DOPPLER.classes))}


def _link(profiles: list[Profile], rng: np.random.Generator) -> TappedLink:
    number = int(rng.choice([3, 4]) if rng.random() < 0.5 else rng.choice([0, 1, 2]))
    latest = float(profiles[number].delays.max())
    return draw_link(
        profiles,
        number,
        rng,
        spread_cells=min(float(log_uniform(rng, DELAY_SCALE_CELLS, 1)[0]), LATEST_CELLS / latest),
        timing_cells=float(rng.uniform(-TIMING_CELLS, TIMING_CELLS)),
        doppler_cells=float(log_uniform(rng, DOPPLER_CELLS, 1)[0]),
        k_factor=float(10 ** (draw_k_factors_db(rng, 1)[0] / 10)),
        # Above 60 dB noise has no influence, and sums would lose precision.
        snr_db=min(float(draw_snr_db(rng, 1)[0]), 60.0),
        antennas=1 if rng.random() < ONE_ANTENNA else ANTENNAS,
    )


def _scored(truth: NDArray[np.int64], label: NDArray[np.int64], classes: int) -> dict[str, Any]:
    groups = confusions(truth, label, np.arange(len(truth)), classes)
    found: dict[str, Any] = {"channels": len(truth)}
    for name, score in (("accuracy", accuracy), ("kappa", kappa)):
        found[name] = round(float(score(groups.sum(axis=0))), 4)
        found[f"{name}_95"] = [round(bound, 4) for bound in interval(score, groups)]
    return found


if __name__ == "__main__":
    for name, found in tdl_bound(400, 0).items():
        file = Registry().experts[name].folder / CARD
        write_json(file, read_json(file) | {"likelihood_bound_tdl": found})

"""Scores of the likelihood bound on links of the `tdl` generator: an upper limit for two experts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_experts.experts.doppler import EXPERT as DOPPLER
from mcp_experts.train.bounds import Profile, TappedLink, doppler_posterior, draw_link, los_posterior
from mcp_experts.train.dataset import ONE_ANTENNA
from mcp_experts.train.generators import ANTENNAS, DELAY_SCALE_CELLS, K_FACTORS_DB, draw_k_factors_db, tdl_profile
from mcp_experts.train.scores import accuracy, confusions, interval, kappa
from mcp_experts.train.truths import DOPPLER_CELLS, LATEST_CELLS, TIMING_CELLS, draw_snr_db, log_uniform

__all__ = ["CEILINGS", "tdl_ceiling"]

#: The experts with a bound.
CEILINGS = {"los", "doppler"}
#: Number of quantiles that represent each normal distribution of K-factors.
QUANTILES = 7


def tdl_ceiling(count: int, seed: int) -> dict[str, dict[str, Any]]:
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

"""Detection of large errors outside the training regions, by trust map, predicted rain and ensemble spread.

Small U-Nets are trained on regions of the synthetic planet with each region left out in turn. Several seeds form an
ensemble; its spread and its mean rain are the two alternatives. The trust map is fitted to validation hours of the
training regions (`rainshift.models.trust`) and applied to the left-out region. Its truth shows the cells with the
largest tenth of the errors of the ensemble mean. AUROC is the probability that such a cell has a higher score than
another cell; 0.5 is chance.

- `auroc_trust`, `auroc_rain`, `auroc_spread`: AUROC of each score, mean over the left-out regions.
- `gain_over_best`: AUROC of the trust map minus the larger of the two others.

The table also shows, for the left-out region and the training regions, the mean error of the half of the cells with
the lowest score (risk at coverage ½; "best" ranks by the true error), the share of cells with an error below the 90 %
bound, and the share of familiar cells.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from harness import main

from geoml.cli.compose import compose
from geoml.cli.tables import show
from geoml.data.choice import evenly
from geoml.data.fields import Batch
from rainshift.benchmarking.run import Experiment
from rainshift.data.archive import Archive
from rainshift.data.selection import whole_fields
from rainshift.models.spec import Downscaler
from rainshift.models.trust import Trust, auroc, fit_trust, risk_coverage
from rainshift.training import load

REGIONS = ("europe_west", "melanesia", "tibetan-plateau", "west-africa")
UNET = "{model: unet, base: 8, multipliers: [1, 2]}"
LARGE = 0.9  # quantile of the errors of a region above which errors count as large
HOURS = 48  # hours per region, in test and training


@dataclass(frozen=True)
class Committee:
    """Several downscalers as one ensemble with one member each."""

    parts: tuple[Downscaler, ...]

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """Predict rain `(batch, member, channel, y, x)` in mm/h. Also returns the share of clipped values."""
        made = [part.predict(batch, members=1, seed=seed) for part in self.parts]
        return torch.cat([fields for fields, _ in made], dim=1), float(np.mean([share for _, share in made]))


def experiment(planet: int, cache: str, seeds: int, samples: int) -> Experiment:
    overrides = [
        f"train_regions=[{','.join(REGIONS)}]",
        f"models=[bilinear,{UNET}]",
        f"seeds={seeds}",
        "in_distribution=false",
        f"data.seed={planet}",
        "data.size_deg=4",
        "data.splits_at.train.hours=120",
        "data.splits_at.validation.hours=72",
        "data.splits_at.test.hours=72",
        f"trainer.samples={samples}",
        f"trainer.checkpoint_every={samples}",
        "trainer.learning_rate=3e-3",
        "loader.batch_size=16",
        "loader.patch=20",
        "loader.validation_samples=0",
        f"cache={cache}",
    ]
    return Experiment(compose("rainshift.conf", "benchmark", overrides))


def committee(made: Experiment, region: str) -> Committee:
    """Return the U-Nets trained without a region."""
    outside, parts = made.plan.outside[region], []
    for seed in range(int(made.config["seeds"])):
        made.trained("unet", outside, seed)
        folder = made.training_folder("unet", outside, seed)[0] / "checkpoints"
        parts.append(load(made.specs["unet"], folder, made.archive.channels))
    return Committee(tuple(parts))


def drawn(model: Committee, trust: Trust, archive: Archive, region: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return scores, error, bound and familiarity of all known cells in a region's test hours."""
    parts: dict[str, list[np.ndarray[Any, Any]]] = {}
    positions = evenly(len(archive.samples(region, "test")[1]), HOURS)
    for batch, _ in whole_fields(archive, region, "test", positions):
        assert batch.target is not None
        prediction, _ = model.predict(batch)
        said, rain = trust(batch, prediction), prediction[:, :, 0]
        known = batch.target[:, 0].isfinite() if batch.mask is None else batch.mask[:, 0]
        fields = {
            "trust": said.expected_error,
            "rain": rain.mean(dim=1),
            "spread": rain.std(dim=1),
            "novelty": said.novelty,
            "error": (rain.mean(dim=1) - batch.target[:, 0]).abs(),
            "bound": said.bound,
            "familiar": said.familiar,
        }
        for name, field in fields.items():
            parts.setdefault(name, []).append(field[known].numpy())
    return {name: np.concatenate(found) for name, found in parts.items()}


def row(planet: int, region: str, there: dict[str, Any], at_home: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the results for a left-out region and for the training regions."""
    error = there["error"]
    large = error > np.quantile(error, LARGE)
    found: dict[str, Any] = {"planet": planet, "left out": region}
    for name in ("trust", "rain", "spread", "novelty"):
        found[name] = auroc(there[name], large)
    for name in ("trust", "rain", "spread"):
        found[f"risk ½ {name}"] = risk_coverage(there[name], error, points=2)[1][0]
    found["best"], found["all"] = risk_coverage(error, error, points=2)[1]
    for what, cells in (("out", [there]), ("in", at_home)):
        found[f"below bound {what}"] = np.mean([(part["error"] <= part["bound"]).mean() for part in cells])
        found[f"familiar {what}"] = np.mean([part["familiar"].mean() for part in cells])
    return found


def measure(quick: bool) -> dict[str, float]:
    """Return the figures of this script by the keys of targets.yaml."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for planet in range(1 if quick else 2):
            made = experiment(planet, f"{folder}/{planet}", seeds=2 if quick else 4, samples=1000 if quick else 3200)
            for region in REGIONS[:2] if quick else REGIONS:
                model = committee(made, region)
                others = [name for name in REGIONS if name != region]
                trust = fit_trust(model, made.archive, others, hours=HOURS)
                there = drawn(model, trust, made.archive, region)
                rows.append(row(planet, region, there, [drawn(model, trust, made.archive, name) for name in others]))
                print(f"planet {planet} without {region}: trust {rows[-1]['trust']:.3f}", flush=True)
    show(rows)
    figures = {f"auroc_{name}": float(np.mean([found[name] for found in rows])) for name in ("trust", "rain", "spread")}
    gain = np.mean([found["trust"] - max(found["rain"], found["spread"]) for found in rows])
    return figures | {"gain_over_best": float(gain)}


if __name__ == "__main__":
    main("trust", measure)

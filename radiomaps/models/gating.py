"""The gate of a model that corrects a prior: fitted on validation maps after the training, kept next to its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from geoml.data.fields import Batch
from geoml.models.base import Model
from radiomaps.models.corrdiff3d import CorrDiff3D, CorrectionGate

__all__ = ["GATE_FILE", "THRESHOLDS", "described", "fit_gate", "gated"]

#: File next to the checkpoints with the gate of the model.
GATE_FILE = "gate.json"
#: Candidate thresholds below which a correction is dropped, in predicted scales; infinity keeps the prior.
THRESHOLDS = (0.0, 0.1, 0.25, 0.5, 1.0, math.inf)
#: Distances in voxels at which variograms are compared.
LAGS = (1, 2, 3, 4, 6, 8)
#: Lengths of correlation that are tried, in voxels.
LENGTHS = torch.logspace(math.log10(0.2), math.log10(60), 200, dtype=torch.float64)


@torch.no_grad()
def fit_gate(model: CorrDiff3D, batches: Iterable[Batch], *, seed: int = 0) -> CorrectionGate:
    """For each class of voxels and target channel the threshold of least squared error, and the width of members.

    The spread is the factor that gives members the variance of the errors. Of a model without a diffusion, the
    correlation of members along each axis is the one with which they have the variogram of the maps out of sight; it is
    the same along y and x. Batches are in the task's encoding.
    """
    model.gated(None)
    steps = torch.zeros((len(model.channels.target), 3, len(LAGS), 4), dtype=torch.float64)
    shape = (2, len(model.channels.target), len(THRESHOLDS))
    squares, opened = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    counts, drawn, sizes = (torch.zeros(shape[:2], dtype=torch.float64) for _ in range(3))
    for batch in batches:
        assert batch.target is not None
        assert batch.mask is not None
        predictors = model.predictors(batch)
        mean, scales = model.centre(predictors), model.scales(predictors)
        guess = model.prior(predictors)
        away = model.sample(batch, predictors, mean, members=1, seed=seed)[:, 0] - mean
        inside = torch.zeros_like(batch.mask[:, :1])
        if model.sight is not None:
            inside = predictors[:, model.sight : model.sight + 1] > 0.5
        steps += _steps(torch.where(batch.mask, batch.target, 0.0), mean, scales, batch.mask & ~inside)
        for row, seen in enumerate((~inside, inside)):
            here = batch.mask & seen
            counts[row] += _sums(torch.ones_like(mean), here)
            drawn[row] += _sums(away.square(), here)
            sizes[row] += _sums(scales.square(), here)
            for at, threshold in enumerate(THRESHOLDS):
                used = (mean - guess).abs() > threshold * scales
                made = torch.where(used, mean, guess)
                squares[row, :, at] += _sums((batch.target - made).square(), here)
                opened[row, :, at] += _sums(used.to(mean.dtype), here)
    best = len(THRESHOLDS) - 1 - squares.flip(2).argmin(dim=2)  # of equal ones the largest
    least = squares.gather(2, best.unsqueeze(2))[..., 0]
    share = opened.gather(2, best.unsqueeze(2))[..., 0] / counts.clamp(min=1)
    spread = torch.where(drawn > 0, (least / drawn.clamp(min=1e-30)).sqrt(), torch.ones_like(drawn))
    lengths = () if model.share else _lengths(steps, (least[0] / sizes[0].clamp(min=1e-30)).sqrt())
    return CorrectionGate(_pairs(torch.tensor(THRESHOLDS)[best]), _pairs(spread), _pairs(share), lengths)


def described(gate: CorrectionGate, channels: Iterable[str]) -> dict[str, Any]:
    """A gate in JSON types; an infinite threshold is null."""
    rows = {
        name: [[value if math.isfinite(value) else None for value in row] for row in rows]
        for name, rows in vars(gate).items()
    }
    return {"channels": list(channels), "classes": ["out of sight", "in sight"], **rows}


def gated(model: Model, values: Mapping[str, Any] | None) -> Model:
    """A model with the gate of a file; other models, and models without a file, are returned unchanged."""
    if values is None or not isinstance(model, CorrDiff3D):
        return model
    rows = {
        name: [[math.inf if value is None else value for value in row] for row in values[name]]
        for name in ("threshold", "spread")
    }
    return model.gated({**rows, "lengths": values.get("lengths", ())})


def _sums(values: Tensor, here: Tensor) -> Tensor:
    """Sum over the True cells of a mask, by channel."""
    return torch.where(here, values, 0.0).double().transpose(0, 1).flatten(1).sum(dim=1).cpu()


def _steps(target: Tensor, mean: Tensor, scales: Tensor, here: Tensor) -> Tensor:
    """Sums over neighbours in `here`, by channel, axis and lag.

    Squared steps of target and mean, squares of both scales, and their product.
    """
    found = torch.zeros((target.shape[1], 3, len(LAGS), 4), dtype=torch.float64)
    for axis, size in enumerate(target.shape[2:]):
        for row, lag in enumerate(LAGS):
            if lag >= size:
                continue
            (t0, t1), (m0, m1), (s0, s1), (a, b) = (
                [part.narrow(axis + 2, start, size - lag) for start in (0, lag)]
                for part in (target, mean, scales, here)
            )
            parts = ((t1 - t0).square(), (m1 - m0).square(), s0.square() + s1.square(), s0 * s1)
            found[:, axis, row] += torch.stack([_sums(part, a & b) for part in parts], dim=1)
    return found


def _lengths(sums: Tensor, width: Tensor) -> tuple[tuple[float, ...], ...]:
    """Lengths of exp(-lag / length), by channel and axis, with which members have the variogram of the maps.

    `width`: deviation of members over the predicted scale, by channel.
    """
    level = sums[:, 1:].sum(dim=1, keepdim=True).expand(-1, 2, -1, -1)
    truth, mean, squares, products = torch.cat((sums[:, :1], level), dim=1).unbind(dim=-1)
    correlation = torch.exp(-torch.tensor(LAGS, dtype=torch.float64)[:, None] / LENGTHS)
    noise = squares[..., None] - 2 * products[..., None] * correlation
    members = mean[..., None] + width[:, None, None, None].square() * noise
    away = (members.clamp(min=1e-30) / truth[..., None].clamp(min=1e-30)).log().abs()
    worst = torch.where(truth[..., None] > 0, away, 0.0).amax(dim=2)
    return tuple(tuple(float(value) for value in row) for row in LENGTHS[worst.argmin(dim=2)])


def _pairs(values: Tensor) -> Any:
    return tuple(tuple(float(value) for value in row) for row in values)

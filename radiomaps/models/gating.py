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
#: Corrections that are tried to be dropped, in predicted scales; infinity keeps the prior.
THRESHOLDS = (0.0, 0.1, 0.25, 0.5, 1.0, math.inf)
#: Distances in voxels at which the correlation of errors is taken.
LAGS = (1, 2, 3, 4)


@torch.no_grad()
def fit_gate(model: CorrDiff3D, batches: Iterable[Batch], *, seed: int = 0) -> CorrectionGate:
    """For each class of voxels and target channel the threshold of least squared error, and the width of members.

    The spread is the factor that gives members the variance of the errors. Of a model without a diffusion, the
    correlation of members along each axis is that of the standardised errors out of sight. Batches are in the task's
    encoding.
    """
    model.gated(None)
    alike = torch.zeros((len(model.channels.target), 3, len(LAGS), 2), dtype=torch.float64)
    shape = (2, len(model.channels.target), len(THRESHOLDS))
    squares, opened = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    counts, drawn = torch.zeros(shape[:2], dtype=torch.float64), torch.zeros(shape[:2], dtype=torch.float64)
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
        alike += _products((batch.target - mean) / scales, batch.mask & ~inside)
        for row, seen in enumerate((~inside, inside)):
            here = batch.mask & seen
            counts[row] += _sums(torch.ones_like(mean), here)
            drawn[row] += _sums(away.square(), here)
            for at, threshold in enumerate(THRESHOLDS):
                used = (mean - guess).abs() > threshold * scales
                made = torch.where(used, mean, guess)
                squares[row, :, at] += _sums((batch.target - made).square(), here)
                opened[row, :, at] += _sums(used.to(mean.dtype), here)
    best = len(THRESHOLDS) - 1 - squares.flip(2).argmin(dim=2)  # of equal ones the largest
    least = squares.gather(2, best.unsqueeze(2))[..., 0]
    share = opened.gather(2, best.unsqueeze(2))[..., 0] / counts.clamp(min=1)
    spread = torch.where(drawn > 0, (least / drawn.clamp(min=1e-30)).sqrt(), torch.ones_like(drawn))
    lengths = () if model.share else _lengths(alike)
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
    """Sums by channel over the True cells."""
    return torch.where(here, values, 0.0).double().transpose(0, 1).flatten(1).sum(dim=1).cpu()


def _products(fields: Tensor, here: Tensor) -> Tensor:
    """Sums of products and of mean squares of neighbours in `here`, by channel, axis and lag."""
    found = torch.zeros((fields.shape[1], 3, len(LAGS), 2), dtype=torch.float64)
    values = torch.where(here, fields, 0.0)
    for axis, size in enumerate(fields.shape[2:]):
        for row, lag in enumerate(LAGS):
            if lag >= size:
                continue
            first, second, a, b = (
                part.narrow(axis + 2, start, size - lag) for part in (values, here) for start in (0, lag)
            )
            found[:, axis, row, 0] = _sums(first * second, a & b)
            found[:, axis, row, 1] = _sums((first.square() + second.square()) / 2, a & b)
    return found


def _lengths(sums: Tensor) -> tuple[tuple[float, ...], ...]:
    """Lengths of exp(-lag / length) that are nearest to the correlations, by channel and axis."""
    tried = torch.linspace(0.2, 20.0, 199, dtype=torch.float64)
    curves = torch.exp(-torch.tensor(LAGS, dtype=torch.float64)[:, None] / tried)
    known = sums[..., 1:] > 0
    correlation = sums[..., :1] / sums[..., 1:].clamp(min=1e-30)
    away = ((correlation - curves).square() * known).sum(dim=2)
    return tuple(tuple(float(value) for value in row) for row in tried[away.argmin(dim=2)])


def _pairs(values: Tensor) -> Any:
    return tuple(tuple(float(value) for value in row) for row in values)

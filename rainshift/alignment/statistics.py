"""Alignments of means and covariances: statistics of the target region, and CORAL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoml.data.fields import Batch
from geoml.data.transforms import Transforms
from geoml.errors import UserError
from geoml.models.base import Channels
from geoml.models.predictor import Predictor
from rainshift.alignment.base import Alignment, Inputs, chosen_channels
from rainshift.models.spec import Downscaler, Windowed

__all__ = ["Coral", "TargetStatistics", "recolouring"]

Matrix = NDArray[np.float64]


class TargetStatistics(Alignment):
    """Normalise predictors with the statistics of the target region instead of the source regions.

    Transforms without fitted parameters (`log` without a scale) are unchanged. Differences of mean and spread between
    regions are removed, and with them their information: a wet region looks like a dry one.
    """

    def align(self, downscaler: Downscaler, source: Inputs, target: Inputs, channels: Channels) -> Downscaler:
        predictor = predictor_of(downscaler, "target statistics")
        condition = tuple(
            one.fitted(*one.moments(target.pooled(name)))
            for name, one in zip(channels.condition, predictor.transforms.condition, strict=True)
        )
        return with_transforms(downscaler, replace(predictor.transforms, condition=condition))


class Coral(Alignment):
    """Give the target predictors the mean and covariance of the source predictors, in transformed space.

    CORAL (Sun, Feng & Saenko 2016, arXiv 1511.05547, algorithm 1) transforms the source data and trains again. Here
    the model is already trained, so the target data are transformed: z' = (z − μ_t)·C_t^(−1/2)·C_s^(1/2) + μ_s, at
    each cell, over the chosen channels. This mixes rain with the other chosen channels, so the first guess is no
    longer rain alone.
    """

    def __init__(self, *, channels: str = "all", hours: int = 960) -> None:
        super().__init__(hours=hours)
        self.channels = channels

    def check(self, channels: Channels) -> None:
        chosen_channels(self.channels, channels)

    def align(self, downscaler: Downscaler, source: Inputs, target: Inputs, channels: Channels) -> Downscaler:
        predictor = predictor_of(downscaler, "CORAL")
        names = chosen_channels(self.channels, channels)
        chosen = np.array([channels.condition.index(name) for name in names])
        cells = (_transformed(side, predictor.transforms)[:, chosen] for side in (source, target))
        matrix, shift = recolouring(*cells)
        count = len(channels.condition)
        whole, offset = np.eye(count), np.zeros(count)
        whole[np.ix_(chosen, chosen)], offset[chosen] = matrix, shift
        parts = {role: getattr(predictor.transforms, role) for role in ("condition", "target", "static")}
        recoloured = Recoloured(
            predictor.transforms.channels,
            **parts,
            matrix=tuple(map(tuple, whole.tolist())),
            offset=tuple(offset.tolist()),
        )
        return with_transforms(downscaler, recoloured)


@dataclass(frozen=True)
class Recoloured(Transforms):
    """Transforms followed by an affine map z·matrix + offset of the condition's channels at each cell."""

    matrix: tuple[tuple[float, ...], ...] = ()
    offset: tuple[float, ...] = ()

    def forward(self, batch: Batch) -> Batch:
        """Transform a batch and apply the affine map to its condition."""
        seen = super().forward(batch)
        z = seen.condition
        matrix, offset = (torch.tensor(part, dtype=z.dtype, device=z.device) for part in (self.matrix, self.offset))
        coloured = torch.einsum("bc...,cd->bd...", z, matrix) + offset.view(1, -1, *[1] * (z.ndim - 2))
        return seen.map(condition=coloured)


def recolouring(source: NDArray[Any], target: NDArray[Any], *, ridge: float = 1e-6) -> tuple[Matrix, Matrix]:
    """Return `(matrix, offset)` for which `target`·matrix + offset has the mean and covariance of `source`.

    `source` and `target` are `(cell, channel)`. `ridge`, in units of the source variances, is added to the diagonal of
    both covariances, since constant channels would lead to a division by zero.
    """
    scale = source.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1.0
    means = [side.mean(axis=0, dtype=np.float64) for side in (source, target)]
    covariances = [
        np.cov((side - mean) / scale, rowvar=False).reshape(len(scale), -1) + ridge * np.eye(len(scale))
        for side, mean in zip((source, target), means, strict=True)
    ]
    matrix = _power(covariances[1], -0.5) @ _power(covariances[0], 0.5)
    matrix = matrix * scale / scale[:, None]
    return matrix, means[0] - means[1] @ matrix


def _power(covariance: Matrix, exponent: float) -> Matrix:
    """Return a power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * values**exponent) @ vectors.T)


def _transformed(inputs: Inputs, transforms: Transforms) -> NDArray[np.float64]:
    cells = inputs.cells()
    columns = [one.forward(cells[:, i]) for i, one in enumerate(transforms.condition)]
    return np.stack(columns, axis=1).astype(np.float64)


def predictor_of(downscaler: Downscaler, what: str) -> Predictor:
    """Return the network with its transforms that a downscaler contains. Raises `UserError` if there is none."""
    found = downscaler.predictor if isinstance(downscaler, Windowed) else downscaler
    if not isinstance(found, Predictor):
        raise UserError(f"{what} needs a network with transforms of its inputs; {type(found).__name__} has none")
    return found


def with_transforms(downscaler: Downscaler, transforms: Transforms) -> Downscaler:
    """Return the downscaler with its transforms replaced."""
    if isinstance(downscaler, Windowed):
        return replace(downscaler, predictor=replace(downscaler.predictor, transforms=transforms))
    return replace(predictor_of(downscaler, "alignment"), transforms=transforms)

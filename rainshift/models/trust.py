"""Trust maps: expected error, error bound and novelty of each cell of a prediction, without labels of the region.

A trust map is fitted to the errors of a downscaler in held-out hours of its training regions. It depends on the
prediction and the predictors alone, and hence applies to regions that have no truth. For each cell it gives:

- the *expected error*: a power law of the predicted rain and of its mean, maximum and standard deviation in the
  neighbourhood, times a bounded correction by a small network. The power law extrapolates to heavier rain. Predictors
  and static fields are not used: with them, a network misjudges new regions and ranks errors there worse than the
  predicted rain alone does;
- the *bound*, which the error does not exceed in a given share of the cells: the expected error times a
  split-conformal factor (Romano et al. 2019, "Conformalized quantile regression", here for the ratio of error to
  expected error). It is valid on average over weather like that of the calibration hours; elsewhere it is not
  guaranteed;
- the *novelty*: the Mahalanobis distance of prediction, predictors and static fields from those of the held-out
  hours. A cell is *familiar* if its novelty is within the range of these hours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geoml.data.choice import evenly
from geoml.data.fields import Batch
from geoml.errors import DataError, UserError
from geoml.regrid.operator import operator_for
from geoml.runs.files import atomic_path
from rainshift.data.selection import whole_fields

if TYPE_CHECKING:
    from rainshift.data.archive import Archive
    from rainshift.models.spec import Downscaler

__all__ = ["Trust", "TrustMap", "auroc", "features", "fit_trust", "found_beside", "risk_coverage"]

#: Number of cells sampled from each field. More cells would add little, since neighbouring cells are correlated.
CELLS_A_FIELD = 400
WIDTH, STEPS, BATCH, LEARNING_RATE = 32, 250, 2048, 2e-2
#: Number of leading features that the expected error depends on; all are computed from the predicted rain.
RAIN = 4
#: Standardised features are clipped to this value for the network; beyond it the power law alone applies.
BOUND = 3.0
#: Maximum square root of the expected error, in (mm/h)^½.
LARGEST_ROOT = 30.0
#: Minimum expected error in mm/h.
SMALLEST_ERROR = 0.01
FILE = "trust.safetensors"


@dataclass(frozen=True)
class TrustMap:
    """Trust map of a batch; all fields are `(batch, y, x)`, `expected_error` and `bound` in mm/h."""

    expected_error: Float[Tensor, "batch y x"]
    bound: Float[Tensor, "batch y x"]
    novelty: Float[Tensor, "batch y x"]
    familiar: Bool[Tensor, "batch y x"]


def features(batch: Batch, prediction: Float[Tensor, "batch member 1 y x"]) -> Float[Tensor, "batch feature y x"]:
    """Compute features of each cell on the target grid, without the truth.

    The features are the ensemble mean with its mean, maximum and standard deviation in the neighbourhood, the ensemble
    spread, every predictor with its standard deviation among coarse neighbours (both interpolated), and the static
    fields. Raises `UserError` for a model over windows of hours.
    """
    if batch.dims != 2:
        raise UserError("trust maps require a model over single hours; this model predicts windows of hours")
    rain = prediction[:, :, 0].float()
    mean = rain.mean(dim=1, keepdim=True)
    spread = rain.std(dim=1, keepdim=True) if rain.shape[1] > 1 else torch.zeros_like(mean)
    wide = functional.max_pool2d(mean, 9, stride=1, padding=4)
    near, rough = _local(mean, 5)
    coarse = batch.condition.float().nan_to_num()
    _, patchy = _local(coarse, 3)
    there = operator_for(batch.condition_grid, batch.target_grid, "bilinear")(torch.cat([coarse, patchy], dim=1))
    parts = [*(torch.log(part + 0.1) for part in (mean, near, wide, rough, spread)), there]
    if batch.static is not None:
        parts.append(batch.static.float().nan_to_num())
    return torch.cat(parts, dim=1)


def _local(fields: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel in moving windows, truncated at the boundary."""
    middle = fields.mean(dim=(-2, -1), keepdim=True)  # squares of values far from 0 would lose all digits
    apart = fields - middle
    mean, square = (
        functional.avg_pool2d(part, size, stride=1, padding=size // 2, count_include_pad=False)
        for part in (apart, apart.square())
    )
    return mean + middle, (square - mean.square()).clamp(min=0).sqrt()


class _Network(nn.Module):
    """Network that standardises features and predicts the square root of the expected error, and the novelty."""

    mean: Tensor
    scale: Tensor
    precision: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.law = nn.Linear(RAIN, 1)
        outer = nn.Linear(WIDTH, 1)
        self.correction = nn.Sequential(nn.Linear(RAIN, WIDTH), nn.SiLU(), outer)
        for last in (self.law, outer):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("precision", torch.eye(channels))

    def standardise(self, x: Tensor) -> Tensor:
        """Subtract the mean of the features and divide by their standard deviation."""
        return (x - self.mean) / self.scale

    def forward(self, x: Float[Tensor, "cell feature"]) -> Float[Tensor, " cell"]:
        """Predict the square root of the expected absolute error."""
        z = self.standardise(x)[:, :RAIN]
        root = self.law(z) + self.correction(z.clamp(-BOUND, BOUND))
        return root[:, 0].clamp(max=math.log(LARGEST_ROOT)).exp()

    def novelty(self, x: Float[Tensor, "cell feature"]) -> Float[Tensor, " cell"]:
        """Compute the Mahalanobis distance, divided by √(number of features): about 1 for familiar cells."""
        z = self.standardise(x)
        return ((z @ self.precision) * z).sum(dim=1).clamp(min=0).div(z.shape[1]).sqrt()


@dataclass(frozen=True)
class Trust:
    """Fitted trust map. `factor` and `limit` are the conformal quantiles of error ratio and novelty at `level`."""

    network: _Network
    factor: float
    limit: float
    level: float

    @classmethod
    def fit(
        cls,
        learning: Sequence[tuple[Tensor, Tensor]],
        calibration: Sequence[tuple[Tensor, Tensor]],
        *,
        level: float = 0.9,
        seed: int = 0,
    ) -> Trust:
        """Fit to features `(cell, feature)` and absolute errors `(cell,)` in mm/h, one pair per field.

        The network is fitted to `learning`, the conformal quantiles to `calibration`. Raises `UserError` for a level
        outside 0…1, `DataError` if `learning` or `calibration` has no cells.
        """
        if not 0 < level < 1:
            raise UserError(f"trust level is {level}; expected a share within 0…1, such as 0.9")
        if not all(sum(len(error) for _, error in part) for part in (learning, calibration)):
            raise DataError("no known cells to fit the trust map to; provide more validation hours")
        x, error = (torch.cat([item[i] for item in learning]) for i in (0, 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _Network(x.shape[1])
        network.mean, network.scale = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
        z = network.standardise(x).double()
        covariance = z.T @ z / len(z)
        # Regularised: with collinear features, small noise would count as large novelty.
        network.precision = torch.linalg.inv(covariance + 0.01 * torch.eye(len(covariance)).double()).float()
        _learn(network, x, error, seed)
        with torch.no_grad():
            ratios = torch.cat([errors / _expected(network, cells) for cells, errors in calibration])
            strange = torch.cat([network.novelty(cells) for cells, _ in calibration])
        return cls(network, _conformal(ratios, level), _conformal(strange, level), level)

    def __call__(self, batch: Batch, prediction: Float[Tensor, "batch member 1 y x"]) -> TrustMap:
        """Compute the trust map of a prediction. The target of the batch is not used."""
        found = features(batch, prediction)
        flat = found.movedim(1, -1).flatten(0, -2)
        if flat.shape[1] != len(self.network.mean):
            raise UserError(
                f"the trust map was fitted to {len(self.network.mean)} features; these predictors give "
                f"{flat.shape[1]}. Use the predictors of the training"
            )
        with torch.no_grad():
            expected, novelty = _expected(self.network, flat), self.network.novelty(flat)
        shape = (len(batch), *found.shape[2:])
        fields = (expected, expected * self.factor, novelty, novelty <= self.limit)
        return TrustMap(*(field.reshape(shape) for field in fields))

    def save(self, folder: Path) -> None:
        """Write the network, with `factor`, `limit` and `level` in the header of the file."""
        from safetensors.torch import save_file

        numbers = {name: repr(getattr(self, name)) for name in ("factor", "limit", "level")}
        with atomic_path(folder / FILE) as partial:
            state = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
            save_file(state, partial, metadata=numbers)

    @classmethod
    def load(cls, folder: Path) -> Trust:
        """Read the file that `save` wrote. Raises `DataError` if it cannot be read."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(folder / FILE, "pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                numbers = {name: float(value) for name, value in file.metadata().items()}
        except (OSError, SafetensorError) as error:
            raise DataError(f"{folder / FILE} cannot be read ({error})") from error
        network = _Network(len(state["mean"]))
        network.load_state_dict(state)
        return cls(network, **numbers)


def found_beside(checkpoint: Path) -> Trust | None:
    """Load the trust map of a run folder or checkpoint folder; None if none was fitted."""
    places = (checkpoint / "checkpoints", checkpoint, checkpoint.parent)
    return next((Trust.load(place) for place in places if (place / FILE).exists()), None)


def _expected(network: _Network, x: Tensor) -> Tensor:
    return network(x).square() + SMALLEST_ERROR


def _learn(network: _Network, x: Tensor, error: Tensor, seed: int) -> None:
    """Fit the square root of the error by least squares: first the power law, then the correction.

    Without the root, a few cells with heavy rain would dominate the loss. In a joint fit, the bounded correction would
    absorb part of the exponent, and extrapolation would fail. The square of a mean root is less than the mean error
    (Jensen's inequality), so the power law is then scaled until the expected error is right on average.
    """
    generator = torch.Generator().manual_seed(seed)
    wanted = error.sqrt()
    for part in (network.law, network.correction):
        optimiser = torch.optim.Adam(part.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        for _ in range(STEPS):
            rows = torch.randint(len(x), (BATCH,), generator=generator)
            optimiser.zero_grad()
            functional.mse_loss(network(x[rows]), wanted[rows]).backward()
            optimiser.step()
            schedule.step()
    network.eval().requires_grad_(False)
    lift = error.double().mean() / network(x).double().square().mean()
    network.law.bias.add_(0.5 * lift.clamp(min=1e-12).log().float())


def _conformal(values: Tensor, level: float) -> float:
    """Return the conformal quantile: an exchangeable new value is below it with probability at least `level`.

    If there are too few values, it is the largest one.
    """
    rank = min(math.ceil(level * (len(values) + 1)), len(values))
    return float(values.double().kthvalue(rank).values)


def fit_trust(
    downscaler: Downscaler,
    archive: Archive,
    regions: Sequence[str],
    *,
    members: int = 8,
    hours: int = 96,
    role: str = "validation",
    level: float = 0.9,
    seed: int = 0,
) -> Trust:
    """Fit the trust map of a downscaler to hours of its training regions that were not used in training.

    `hours` of each region are chosen evenly from `role`. The first two thirds fit the network, the last third
    calibrates it. Raises `UserError` if the data have no hours of this role, or the model works on windows of hours.
    """
    if not archive.has_role(role):
        raise UserError(f"a trust map is fitted to {role} hours, and these data have none; reserve some in data.shares")
    if getattr(downscaler, "window", None) is not None:
        raise UserError("trust maps require a model over single hours; this model works on windows of hours")
    learning: list[tuple[Tensor, Tensor]] = []
    calibration: list[tuple[Tensor, Tensor]] = []
    rng = np.random.default_rng(seed)
    for region in regions:
        positions = evenly(len(archive.samples(region, role)[1]), hours)
        cut = (2 * len(positions)) // 3
        for part, chosen in ((learning, positions[:cut]), (calibration, positions[cut:])):
            for batch, _ in whole_fields(archive, region, role, chosen):
                prediction, _ = downscaler.predict(batch, members=members, seed=seed)
                part.extend(_cells(batch, prediction, rng))
    return Trust.fit(learning, calibration, level=level, seed=seed)


def _cells(batch: Batch, prediction: Tensor, rng: np.random.Generator) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield features and absolute errors of a random sample of the known cells of each field."""
    assert batch.target is not None
    found = features(batch, prediction)
    for i in range(len(batch)):
        known = batch.target[i, 0].isfinite() if batch.mask is None else batch.mask[i, 0]
        cells = np.flatnonzero(known.flatten().numpy())
        cells = rng.choice(cells, min(CELLS_A_FIELD, len(cells)), replace=False)
        error = (prediction[i, :, 0].mean(dim=0) - batch.target[i, 0]).abs().flatten()[cells]
        yield found[i].flatten(1).T[cells], error


def auroc(score: NDArray[Any], event: NDArray[np.bool_]) -> float:
    """Compute the area under the ROC curve.

    It is the probability that a cell with the event has a higher score than a cell without it; equal scores count one
    half. NaN if the event occurs in all cells or in none.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875
    """
    from scipy.stats import rankdata

    positive = int(event.sum())
    if positive in (0, event.size):
        return math.nan
    ranks = rankdata(score.ravel())[event.ravel()].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * (event.size - positive)))


def risk_coverage(
    score: NDArray[Any], error: NDArray[Any], *, points: int = 50
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute coverage (share of kept cells) and risk (their mean error) as cells with the highest score are removed.

    Returns two arrays of length `points`. Cells of equal score keep their order. Source: El-Yaniv & Wiener 2010, "On
    the foundations of noise-free selective classification".

    >>> coverage, risk = risk_coverage(np.array([3.0, 1.0, 2.0, 4.0]), np.array([3.0, 1.0, 2.0, 6.0]), points=4)
    >>> coverage.tolist(), risk.tolist()
    ([0.25, 0.5, 0.75, 1.0], [1.0, 1.5, 2.0, 3.0])
    """
    order = np.argsort(score.ravel(), kind="stable")
    mean = np.cumsum(error.ravel()[order], dtype=np.float64) / np.arange(1, order.size + 1)
    coverage = np.arange(1, points + 1) / points
    return coverage, mean[np.maximum(np.rint(coverage * order.size).astype(int), 1) - 1]

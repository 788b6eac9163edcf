"""How far a prediction may be trusted, cell by cell and without a label: expected error, its bound, familiarity.

From hours that the downscaler did not see it is learnt how large the error is where the prediction looks as it does
here. In a place that it was never trained on there is no truth to look at, but there is a prediction, so that the map
can be drawn beside it. Three things are given of each cell:

- the *expected error*, what rank and risk are made of: a power law of predicted rain and of its mean, maximum and
  roughness around, which goes on beyond the rain it was learnt from, times a bounded correction by a small network.
  Predictors and static fields are left out of it: a network that sees them takes a new place for what it is not, and
  ranks the errors there worse than rain alone does;
- a *bound* that errors stay below in a chosen share of the cells, from a split-conformal factor (Romano et al. 2019,
  "Conformalized quantile regression", here of the ratio of error to expected error). It holds on average over weather
  as it was in the hours set apart for it; elsewhere it is a statement about a place that may be unlike;
- *novelty*, the Mahalanobis distance of prediction, predictors and static fields from those hours, and whether it is
  within what they hold.
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

#: Cells taken from each field for learning; neighbours say much the same.
CELLS_A_FIELD = 400
WIDTH, STEPS, BATCH, LEARNING_RATE = 32, 250, 2048, 2e-2
#: The first features, of the predicted rain, are what the error is expected from.
RAIN = 4
#: The network sees standardised features cut to this: beyond it there is the power law alone.
BOUND = 3.0
#: Largest root of an error, in the square root of mm/h.
LARGEST_ROOT = 30.0
#: Expected errors below this, in mm/h, are not told apart.
SMALLEST_ERROR = 0.01
FILE = "trust.safetensors"


@dataclass(frozen=True)
class TrustMap:
    """What `Trust` says of a batch, each `(batch, y, x)`; errors are in mm/h."""

    expected_error: Float[Tensor, "batch y x"]
    bound: Float[Tensor, "batch y x"]
    novelty: Float[Tensor, "batch y x"]
    familiar: Bool[Tensor, "batch y x"]


def features(batch: Batch, prediction: Float[Tensor, "batch member 1 y x"]) -> Float[Tensor, "batch feature y x"]:
    """What can be known of each cell without its truth, on the target grid.

    The ensemble mean, its mean, maximum and standard deviation in the neighbourhood, and the spread; every predictor
    and its standard deviation among coarse neighbours, interpolated; the static fields.
    """
    if batch.dims != 2:
        raise UserError("trust maps are drawn for models over single hours; this one sees windows of hours")
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
    """Mean and standard deviation of each channel in windows cut at the rim."""
    middle = fields.mean(dim=(-2, -1), keepdim=True)  # far from 0, squares would leave no digits
    apart = fields - middle
    mean, square = (
        functional.avg_pool2d(part, size, stride=1, padding=size // 2, count_include_pad=False)
        for part in (apart, apart.square())
    )
    return mean + middle, (square - mean.square()).clamp(min=0).sqrt()


class _Network(nn.Module):
    """Standardised features to the root of the expected error, with their distance from what was learnt from."""

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
        """Features in standard deviations."""
        return (x - self.mean) / self.scale

    def forward(self, x: Float[Tensor, "cell feature"]) -> Float[Tensor, " cell"]:
        """Root of the expected absolute error."""
        z = self.standardise(x)[:, :RAIN]
        root = self.law(z) + self.correction(z.clamp(-BOUND, BOUND))
        return root[:, 0].clamp(max=math.log(LARGEST_ROOT)).exp()

    def novelty(self, x: Float[Tensor, "cell feature"]) -> Float[Tensor, " cell"]:
        """Mahalanobis distance per root feature: about 1 for what is familiar."""
        z = self.standardise(x)
        return ((z @ self.precision) * z).sum(dim=1).clamp(min=0).div(z.shape[1]).sqrt()


@dataclass(frozen=True)
class Trust:
    """A fitted trust map: `factor` and `limit` are the conformal quantiles at `level` of error ratio and novelty."""

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
        """From features `(cell, feature)` and absolute errors `(cell,)` in mm/h of fields, two sets of them.

        Errors: `UserError` for a level outside 0…1, `DataError` where there is nothing to learn from.
        """
        if not 0 < level < 1:
            raise UserError(f"trust level is {level}; expected a share within 0…1, such as 0.9")
        if not all(sum(len(error) for _, error in part) for part in (learning, calibration)):
            raise DataError("no known cells to learn trust from; give it more validation hours")
        x, error = (torch.cat([item[i] for item in learning]) for i in (0, 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _Network(x.shape[1])
        network.mean, network.scale = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
        z = network.standardise(x).double()
        covariance = z.T @ z / len(z)
        # A hundredth of the identity: features that repeat each other would make any noise look new.
        network.precision = torch.linalg.inv(covariance + 0.01 * torch.eye(len(covariance)).double()).float()
        _learn(network, x, error, seed)
        with torch.no_grad():
            ratios = torch.cat([errors / _expected(network, cells) for cells, errors in calibration])
            strange = torch.cat([network.novelty(cells) for cells, _ in calibration])
        return cls(network, _conformal(ratios, level), _conformal(strange, level), level)

    def __call__(self, batch: Batch, prediction: Float[Tensor, "batch member 1 y x"]) -> TrustMap:
        """The map of a prediction; its target, where there is one, is not looked at."""
        found = features(batch, prediction)
        flat = found.movedim(1, -1).flatten(0, -2)
        if flat.shape[1] != len(self.network.mean):
            raise UserError(
                f"trust was learnt from {len(self.network.mean)} features; these predictors give {flat.shape[1]}"
            )
        with torch.no_grad():
            expected, novelty = _expected(self.network, flat), self.network.novelty(flat)
        shape = (len(batch), *found.shape[2:])
        fields = (expected, expected * self.factor, novelty, novelty <= self.limit)
        return TrustMap(*(field.reshape(shape) for field in fields))

    def save(self, folder: Path) -> None:
        """Write the network and, within the file's header, what belongs to it."""
        from safetensors.torch import save_file

        numbers = {name: repr(getattr(self, name)) for name in ("factor", "limit", "level")}
        with atomic_path(folder / FILE) as partial:
            state = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
            save_file(state, partial, metadata=numbers)

    @classmethod
    def load(cls, folder: Path) -> Trust:
        """What `save` wrote; a `DataError` names a file that cannot be read."""
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
    """What was learnt of a trained model, by its run folder or checkpoint folder; None where nothing was."""
    places = (checkpoint / "checkpoints", checkpoint, checkpoint.parent)
    return next((Trust.load(place) for place in places if (place / FILE).exists()), None)


def _expected(network: _Network, x: Tensor) -> Tensor:
    return network(x).square() + SMALLEST_ERROR


def _learn(network: _Network, x: Tensor, error: Tensor, seed: int) -> None:
    """Least squares of roots, since squares would be those of a few cells of heavy rain; the law first, then the rest.

    Learnt together, the correction would take a part of the power that it cannot go on with. The square of a mean root
    is less than the mean of what it is the root of, so that the law is lifted until errors are right on average.
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
    """The value that a further one is below with at least this chance, were all exchangeable; the largest of few."""
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
    """The trust map of a downscaler, from hours of its training regions that it did not learn from.

    The first two thirds of each region's hours, spread evenly over the role's, are learnt from; the last third
    calibrates. Errors: `UserError` where the data keep no such hours.
    """
    if not archive.has_role(role):
        raise UserError(f"trust is learnt from {role} hours, and these data keep none; set data.shares apart for it")
    if getattr(downscaler, "window", None) is not None:
        raise UserError("trust maps are drawn for models over single hours; this one sees windows of hours")
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
    """Features and absolute errors of some known cells of each field."""
    assert batch.target is not None
    found = features(batch, prediction)
    for i in range(len(batch)):
        known = batch.target[i, 0].isfinite() if batch.mask is None else batch.mask[i, 0]
        cells = np.flatnonzero(known.flatten().numpy())
        cells = rng.choice(cells, min(CELLS_A_FIELD, len(cells)), replace=False)
        error = (prediction[i, :, 0].mean(dim=0) - batch.target[i, 0]).abs().flatten()[cells]
        yield found[i].flatten(1).T[cells], error


def auroc(score: NDArray[Any], event: NDArray[np.bool_]) -> float:
    """Chance that a cell with the event has a higher score than one without, equal scores counting half.

    NaN where all or none have it.

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
    """Share of the cells that are kept, and the mean error of these, where those of the highest score go first.

    Source: El-Yaniv & Wiener 2010, "On the foundations of noise-free selective classification". Equal scores go in
    the order in which they stand.

    >>> coverage, risk = risk_coverage(np.array([3.0, 1.0, 2.0, 4.0]), np.array([3.0, 1.0, 2.0, 6.0]), points=4)
    >>> coverage.tolist(), risk.tolist()
    ([0.25, 0.5, 0.75, 1.0], [1.0, 1.5, 2.0, 3.0])
    """
    order = np.argsort(score.ravel(), kind="stable")
    mean = np.cumsum(error.ravel()[order], dtype=np.float64) / np.arange(1, order.size + 1)
    coverage = np.arange(1, points + 1) / points
    return coverage, mean[np.maximum(np.rint(coverage * order.size).astype(int), 1) - 1]

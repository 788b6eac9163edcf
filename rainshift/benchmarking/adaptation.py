"""Adaptation to a region with few hours of local data: fine-tuning with a check on held-out hours, and its gain."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geoml.data.choice import consecutive, evenly
from geoml.errors import UserError
from geoml.metrics import Suite
from geoml.metrics.significance import degradation_percent
from geoml.models.base import Model
from geoml.models.predictor import Predictor, load_predictor
from geoml.train import checkpoint
from rainshift.alignment import Inputs
from rainshift.benchmarking.analysis import Analysis, on_side
from rainshift.evaluation import score
from rainshift.sources.synthetic_climates import SyntheticClimatesSource
from rainshift.training import Recipe, TrainSet, fit, loader_of, seeded_build, started

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from geoml.data.loader import BlockLoader
    from rainshift.benchmarking.plan import BenchmarkPlan, Cell
    from rainshift.data.archive import Archive
    from rainshift.evaluation import Scores
    from rainshift.models.spec import ModelSpec

__all__ = [
    "adapt",
    "adaptation_rows",
    "adapted_hours",
    "block_of",
    "half_gap_hours",
    "inputs_of_climates",
    "recipe_for",
]

logger = logging.getLogger(__name__)

#: Share of the local hours for fine-tuning. The remaining hours are used to choose between old and new weights.
TUNED_SHARE = 0.75
#: Number of fine-tuning samples: per hour, and smallest and largest total.
SAMPLES_AN_HOUR, FEWEST, MOST = 10, 160, 3200
LEARNING_RATE, BATCH = 3e-4, 8
#: Candidate shares of the fine-tuned weights in the average with the given weights.
SHARES = (0.0, 1 / 3, 2 / 3, 1.0)
#: Number of held-out hours and of members for this choice, and smallest relative gain that changes the weights.
HELD_OUT, MEMBERS, LEAST_GAIN = 24, 4, 0.01
#: Number of random climates, and the day of which their predictors are used, in place of the training data of the
#: shipped weights.
CLIMATES, A_DAY = 40, 11323


def adapted_hours(wanted: Any) -> tuple[int, ...]:
    """Parse the setting `adapt` to ascending numbers of hours; empty for null. Raises `UserError` for other values.

    >>> adapted_hours([96, 0, 24])
    (0, 24, 96)
    """
    if wanted is None:
        return ()
    listed = list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    wrong = [
        one for one in listed if not isinstance(one, int) or isinstance(one, bool) or one < 0 or one in range(1, 4)
    ]
    if wrong or not listed or len(set(listed)) < len(listed):
        raise UserError(
            f"adapt is {wanted}; expected different numbers of hours, 0 or at least 4, as in adapt=[0,24,96]"
        )
    return tuple(sorted(listed))


def recipe_for(recipe: Recipe, hours: int) -> Recipe:
    """Return the recipe for fine-tuning on `hours` hours: few samples, a small learning rate, no moving average."""
    samples = min(max(SAMPLES_AN_HOUR * hours, FEWEST), MOST)
    trainer = replace(
        recipe.trainer, samples=samples, learning_rate=LEARNING_RATE, warmup=0.1, floor=0.0, ema_half_life=0,
        validate_every=0, checkpoint_every=0, patience=0, accumulate=1, phases={},
    )  # fmt: skip
    return replace(recipe, trainer=trainer, batch_size=min(recipe.batch_size, BATCH), validation_samples=0)


def block_of(times: NDArray[Any], hours: int, seed: int = 0) -> NDArray[np.int64]:
    """Choose a block of `hours` consecutive entries of ascending `times`. Returns their positions.

    The block has no gaps in time if possible. Seed 0 chooses the middle one of all possible starts, seed 1 the one at a
    quarter, seed 2 the one at three quarters, and so on.

    >>> block_of(np.arange(10), 4).tolist(), block_of(np.arange(10), 4, seed=1).tolist()
    ([3, 4, 5, 6], [1, 2, 3, 4])
    """
    starts = [int(run[i]) for run in consecutive(times) for i in range(len(run) - hours + 1)]
    starts = starts or list(range(len(times) - hours + 1))
    if not starts:
        raise UserError(f"adapt asks for {hours} hours, but the training record has {len(times)}; set fewer hours")
    level = 1 << (seed + 1).bit_length() - 1
    fraction = (2 * (seed + 1 - level) + 1) / (2 * level)
    return starts[int(fraction * len(starts))] + np.arange(hours)


def adapt(spec: ModelSpec, region: str, archive: Archive, *, recipe: Recipe, seed: int, folder: Path) -> dict[str, Any]:
    """Fine-tune the weights of `spec.start` on `spec.local_hours` hours of a region and save the result in `folder`.

    The network is trained on the first three quarters of the hours. On the last quarter, the average of old and new
    weights with the smallest fair CRPS is chosen; the old weights are kept if it gains less than 1 %, or if either part
    has no rain: dry hours teach and show nothing. Returns the training summary with the chosen share.
    """
    assert spec.starting is not None
    assert spec.local_hours is not None
    hours = spec.local_hours
    chosen = block_of(archive.times(region, "train"), max(hours, 1), seed)
    tuned, held = np.split(chosen, [math.ceil(TUNED_SHARE * hours)])
    model = seeded_build(spec, archive.channels, seed)
    assert isinstance(model, Model)

    def hourly(positions: NDArray[np.int64]) -> BlockLoader:
        one = replace(recipe, batch_size=1)
        return loader_of({region: positions}, archive, archive.channels, one, seed=0, window=None)

    transforms = started(model, spec.starting, recipe, hourly(chosen), folder)
    summary: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "samples_seen": 0}
    wet = hours and all(
        any(batch.target is not None and bool((batch.target > 0).any()) for batch in hourly(part))
        for part in (tuned, held)
    )
    if hours and not wet:
        logger.warning("%s: the %d local hours of %s are too dry; its weights are kept", spec.name, hours, region)
        summary["share_of_tuned"] = 0.0
    if wet:
        steps = recipe_for(recipe, len(tuned))
        summary = fit(
            spec, TrainSet((region,), len(tuned)), archive, recipe=steps, seed=seed, folder=folder / "steps",
            start=spec.starting, hours={region: tuned},
        )  # fmt: skip
        summary |= _averaged(
            model, load_predictor(folder / "steps", device="cpu").model, transforms, archive, region, held
        )
    name = checkpoint.name_of(int(summary["samples_seen"]))
    checkpoint.save(folder / name, model=model, ema=model, transforms=transforms, resume={})
    return summary


def _averaged(
    model: Model, tuned: Model, transforms: Any, archive: Archive, region: str, held: NDArray[np.int64]
) -> dict[str, Any]:
    """Set the weights of `model` to the average with the tuned weights that scores best on the held-out hours.

    Returns the share of the tuned weights and the fair CRPS on the held-out hours before and after.
    """
    old, new = ({k: v.clone() for k, v in one.state_dict().items()} for one in (model, tuned))
    parameters = {name for name, _ in model.named_parameters()}
    times = archive.times(region, "train", held[evenly(len(held), HELD_OUT)])
    suite, found = Suite(["crps_fair"]), {}

    def take(share: float) -> None:
        if share:  # buffers, such as training ranges, are those of the tuned network
            model.load_state_dict({k: torch.lerp(old[k], v, share) if k in parameters else v for k, v in new.items()})
        else:
            model.load_state_dict(old)

    for share in SHARES:
        take(share)
        made = score(
            Predictor(model.eval(), transforms),
            archive,
            region,
            suite=suite,
            members=MEMBERS,
            times=times,
            role="train",
        )
        found[share] = suite.evaluate(made.table)["crps_fair"]
    best = min(SHARES, key=lambda share: found[share])
    share = best if found[best] < (1 - LEAST_GAIN) * found[0.0] else 0.0
    take(share)
    return {"share_of_tuned": share, "held_out_before": found[0.0], "held_out_after": found[share]}


def inputs_of_climates(archive: Archive) -> Inputs:
    """Generate coarse predictors of random climates, in place of the training data of the shipped weights.

    Raises `UserError` for predictors that the synthetic planet does not have.
    """
    source = SyntheticClimatesSource(count=CLIMATES)
    fields = []
    for name in source.names:
        condition = source.blocks(name, np.array([A_DAY])).condition
        if missing := [channel for channel in archive.channels.condition if channel not in condition]:
            raise UserError(
                f"the predictors {', '.join(missing)} do not exist in the random climates on which the shipped weights "
                "were trained; remove them from data.condition, or set alignment=none"
            )
        fields.append(np.stack([condition[channel].values for channel in archive.channels.condition], axis=1))
    return Inputs(archive.channels.condition, tuple(fields))


def half_gap_hours(hours: Sequence[float], scores: Sequence[float]) -> float | None:
    """Return the number of hours that closes half the gap between the first and the last score.

    Linear interpolation is used between numbers of hours. Lower scores are better. Returns None if the last score is
    not below the first, or if a score is not finite.

    >>> half_gap_hours([0, 24, 96, 960], [0.5, 0.48, 0.44, 0.4]), half_gap_hours([0, 24, 960], [0.4, 0.4, 0.5])
    (78.0, None)
    """
    first, last = scores[0], scores[-1]
    if not all(map(math.isfinite, scores)) or not last < first:
        return None
    middle = (first + last) / 2
    points = pairwise(zip(hours, scores, strict=True))
    (a, before), (b, after) = next(pair for pair in points if pair[1][1] <= middle)
    return round(a + (b - a) * (before - middle) / (before - after), 1)


def adaptation_rows(
    specs: Mapping[str, ModelSpec],
    plan: BenchmarkPlan,
    scores: Mapping[Cell, Scores],
    analysis: Analysis,
    results: xr.Dataset,
) -> list[dict[str, Any]]:
    """Return one row per adapted model and region: skill by number of hours, the gap, and `half_gap_hours`.

    The last entry of `hours` is the complete training record. `gap_percent` compares the score of the unadapted model
    with that of the model trained on the complete record: relative increase in percent with its confidence interval.
    `half_gap_hours` is None unless the lower bound of the gap is above 0.
    """
    tables = {cell: made.table for cell, made in scores.items() if not made.diverged}
    rows = []
    variants = [spec for spec in specs.values() if spec.local_hours is not None]
    for name in dict.fromkeys(spec.trained_as.removesuffix(f"+{spec.local_hours}h") for spec in variants):
        of_name = [spec for spec in variants if spec.trained_as == f"{name}+{spec.local_hours}h"]
        steps = [spec for spec in of_name if spec.alignment is None]  # in ascending order of hours
        free = [spec for spec in of_name if spec.alignment is not None]
        for region in map(str, results["test_region"].values):
            models = [*(s.name for s in steps), name]
            found = [on_side(tables, plan, model, region, "in") for model in models]
            values = [math.nan if t is None else analysis.suite.evaluate(t)[analysis.metric] for t in found]
            hours = [*(int(s.local_hours or 0) for s in steps), plan.inside[region].samples]
            row: dict[str, Any] = {"model": name, "region": region, "hours": hours, "score": values}
            row |= {"skill": [_skill(results, model, region) for model in models]}
            row["label_free"] = {str(s.alignment): _skill(results, s.name, region) for s in free}
            row["gap_percent"], row["half_gap_hours"] = None, None
            first, last = found[0], found[-1]
            if hours[0] == 0 and first is not None and last is not None:
                gap = analysis.interval(degradation_percent, inside=last, outside=first)
                row["gap_percent"] = [gap.estimate, gap.low, gap.high]
                if (gap.estimate if gap.low is None else gap.low) > 0:
                    row["half_gap_hours"] = half_gap_hours(hours, values)
            rows.append(row)
    return rows


def _skill(results: xr.Dataset, model: str, region: str) -> list[float | None]:
    """Return estimate, lower and upper bound of the skill; None for missing values."""
    place = {"model": model, "test_region": region, "distribution": "in"}
    values = [float(results[f"skill{suffix}"].sel(place)) for suffix in ("", "_low", "_high")]
    return [value if math.isfinite(value) else None for value in values]

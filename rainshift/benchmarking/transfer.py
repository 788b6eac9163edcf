"""What is lost by learning elsewhere, pair by pair of regions, and whether it goes with the distance of climates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geoml.errors import UserError
from rainshift.benchmarking.climate_distance import CONDITIONAL, TARGET
from rainshift.benchmarking.mantel import MIN_REGIONS, Mantel, mantel

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "between",
    "of_predictors",
    "trained_alone",
    "transfer_loss",
    "transfer_losses",
    "transfer_test",
]


def transfer_loss(matrix: xr.DataArray) -> xr.DataArray:
    """What is lost by learning elsewhere, `(region, other)`: score of a model of `other` on `region` over its own, − 1.

    `matrix` holds scores that are 0 when perfect on `(train_set, test_region)`, or also on `seed`, over which the mean
    is taken: `results["matrix"].sel(metric="crps_fair", model=…)` of benchmarks whose training sets are single regions.
    NaN where such a training is missing.
    """
    scores = matrix.mean("seed") if "seed" in matrix.dims else matrix
    regions = [str(name) for name in scores["test_region"].values if name in scores["train_set"].values]
    if len(regions) < 2:
        raise UserError(
            f"a transfer needs models trained on single regions and tested on the others; the training sets are "
            f"{', '.join(map(str, scores['train_set'].values))}"
        )
    chosen = scores.sel(train_set=regions, test_region=regions).transpose("test_region", "train_set")
    own = np.diagonal(chosen.values)[:, None]
    return chosen.copy(data=chosen.values / own - 1).rename(test_region="region", train_set="other")


def trained_alone(results: xr.Dataset) -> list[str]:
    """Networks with scores of trainings on single regions; none where the benchmark did not ask for the transfer."""
    sets = results["train_set"].values if "train_set" in results else ()
    alone = [name for name in sets if name in results["test_region"].values]
    if len(alone) < 2:
        return []
    picked = results["matrix"].sel(metric=results.attrs["skill_metric"], train_set=alone).notnull()
    # Leaving one of two regions out is a training on the other alone, but without a score at home.
    at_home = [picked.sel(train_set=name, test_region=name).any("seed") for name in alone]
    every = np.logical_and.reduce([part.values for part in at_home])
    networks = np.atleast_1d(results.attrs["networks"])  # NetCDF gives a list of one back as its item
    models = zip(results["model"].values, every, strict=True)
    return [str(name) for name, found in models if found and name in networks]


def transfer_losses(results: xr.Dataset) -> xr.DataArray:
    """`transfer_loss` of every model that was trained on single regions, `(model, region, other)`, in per cent."""
    import xarray as xr

    models = trained_alone(results)
    if not models:
        raise UserError("nothing was trained on single regions; run the benchmark with transfer=true")
    matrix = results["matrix"].sel(metric=results.attrs["skill_metric"])
    losses = xr.concat([100 * transfer_loss(matrix.sel(model=name)) for name in models], "model")
    return losses.assign_coords(model=models).assign_attrs(units="percent")


def of_predictors(distance: xr.DataArray) -> xr.DataArray:
    """The mean over predictors: the target rain, marginal or given the coarse rain, is left out."""
    predictors = [name for name in map(str, distance["variable"].values) if name not in (TARGET, CONDITIONAL)]
    return distance.sel(variable=predictors).mean("variable")


def between(shifts: xr.Dataset, losses: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Distances and mean losses of the same pairs `(region, other)`; NaN if any model lacks the pair."""
    distance = of_predictors(shifts["between_wasserstein"])
    distance = distance.sel(region=losses["region"].values, other=losses["other"].values)
    return distance, losses.mean("model", skipna=False).transpose("region", "other")


def transfer_test(shifts: xr.Dataset, losses: xr.DataArray) -> Mantel | None:
    """Mantel's test of distances against losses of pairs; None with fewer than four regions or a failed pair."""
    distance, loss = between(shifts, losses)
    if len(distance["region"]) < MIN_REGIONS or not np.isfinite(loss).all():
        return None
    return mantel(distance.values, loss.values)

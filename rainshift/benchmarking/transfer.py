"""Loss of training on another region, for pairs of regions, and its correlation with climate distance."""

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
    """Compute the relative loss of training on another region, `(region, other)`.

    The loss is the score on `region` of a model trained on `other`, divided by the score of a model trained on
    `region`, minus 1. `matrix` holds scores `(train_set, test_region[, seed])` that are 0 when perfect, such as
    `results["matrix"].sel(metric="crps_fair", model=…)`, with trainings on single regions. The mean over seeds is used.
    The loss is NaN if a training is missing. Raises `UserError` for fewer than two trainings on single regions.
    """
    scores = matrix.mean("seed") if "seed" in matrix.dims else matrix
    regions = [str(name) for name in scores["test_region"].values if name in scores["train_set"].values]
    if len(regions) < 2:
        raise UserError(
            "the loss of transfer needs models trained on single regions and tested on the others; the training sets "
            f"are {', '.join(map(str, scores['train_set'].values))}. Run the benchmark with transfer=true"
        )
    chosen = scores.sel(train_set=regions, test_region=regions).transpose("test_region", "train_set")
    own = np.diagonal(chosen.values)[:, None]
    return chosen.copy(data=chosen.values / own - 1).rename(test_region="region", train_set="other")


def trained_alone(results: xr.Dataset) -> list[str]:
    """Return the networks that were trained on single regions; empty if the benchmark ran without `transfer`."""
    sets = results["train_set"].values if "train_set" in results else ()
    alone = [name for name in sets if name in results["test_region"].values]
    if len(alone) < 2:
        return []
    picked = results["matrix"].sel(metric=results.attrs["skill_metric"], train_set=alone).notnull()
    # With two regions, leaving one out is also a training on a single region, but it is not scored on that region.
    at_home = [picked.sel(train_set=name, test_region=name).any("seed") for name in alone]
    every = np.logical_and.reduce([part.values for part in at_home])
    networks = np.atleast_1d(results.attrs["networks"])  # NetCDF reads a list with one item as that item
    models = zip(results["model"].values, every, strict=True)
    return [str(name) for name, found in models if found and name in networks]


def transfer_losses(results: xr.Dataset) -> xr.DataArray:
    """Compute `transfer_loss` in percent of every model trained on single regions, `(model, region, other)`."""
    import xarray as xr

    models = trained_alone(results)
    if not models:
        raise UserError("no model was trained on single regions; run the benchmark with transfer=true")
    matrix = results["matrix"].sel(metric=results.attrs["skill_metric"])
    losses = xr.concat([100 * transfer_loss(matrix.sel(model=name)) for name in models], "model")
    return losses.assign_coords(model=models).assign_attrs(units="percent")


def of_predictors(distance: xr.DataArray) -> xr.DataArray:
    """Average distances over predictors. The fine rain and its conditional distribution are excluded."""
    predictors = [name for name in map(str, distance["variable"].values) if name not in (TARGET, CONDITIONAL)]
    return distance.sel(variable=predictors).mean("variable")


def between(shifts: xr.Dataset, losses: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return climate distances and losses, both `(region, other)`, on the same pairs of regions.

    Losses are means over models; they are NaN if a model has no loss for the pair.
    """
    distance = of_predictors(shifts["between_wasserstein"])
    distance = distance.sel(region=losses["region"].values, other=losses["other"].values)
    return distance, losses.mean("model", skipna=False).transpose("region", "other")


def transfer_test(shifts: xr.Dataset, losses: xr.DataArray) -> Mantel | None:
    """Apply the Mantel test to climate distances and losses. None for fewer than four regions or missing losses."""
    distance, loss = between(shifts, losses)
    if len(distance["region"]) < MIN_REGIONS or not np.isfinite(loss).all():
        return None
    return mantel(distance.values, loss.values)

"""Curves of a benchmark's scores, in and out of distribution: rank histograms, reliability, spectra, cycles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from geoml.metrics.ranks import ranked
from rainshift.benchmarking.analysis import SIDES, Analysis, learned_first, on_side
from rainshift.benchmarking.plan import BenchmarkPlan, Cell
from rainshift.evaluation import Scores

__all__ = ["calibration", "gather", "spectral_ratio"]

#: Separator of a score's label and a variable of its curve.
JOINT = "."


def gather(plan: BenchmarkPlan, scores: Mapping[Cell, Scores], analysis: Analysis) -> xr.Dataset:
    """Collect all curves of all scores as variables `LABEL.VARIABLE` `(model, test_region, distribution, abscissa)`.

    Curves are means over seeds. Untrained models have the same curve in and out of distribution. Values are NaN if a
    model has no value at an abscissa, such as a probability of 1/8 with one member, or no valid cell.
    """
    sound = {cell: made for cell, made in scores.items() if not made.diverged}
    models = learned_first(plan)
    regions = list(dict.fromkeys(cell.test_region for cell in plan.cells))
    by_model = []
    for model in models:
        by_region = []
        for region in regions:
            sides = [_curves(sound, analysis, model, region, plan, side) for side in SIDES]
            by_region.append(xr.concat(sides, "distribution", join="outer", data_vars="all"))
        by_model.append(xr.concat(by_region, "test_region", join="outer", data_vars="all"))
    every = xr.concat(by_model, "model", join="outer", data_vars="all")
    truths = {cell.test_region: ranked(made.table) for cell, made in sound.items()}
    every["truths"] = ("test_region", [truths.get(region, 0) for region in regions])
    return every.assign_coords(model=models, test_region=regions, distribution=list(SIDES))


def _curves(
    scores: Mapping[Cell, Scores], analysis: Analysis, model: str, region: str, plan: BenchmarkPlan, side: str
) -> xr.Dataset:
    """Return the curves of one model on one region, "in" or "out" of distribution; empty if nothing was scored."""
    merged = xr.Dataset()
    for suite, tables in (
        (analysis.suite, {cell: made.table for cell, made in scores.items()}),
        (analysis.temporal, {cell: made.sequences for cell, made in scores.items() if made.sequences is not None}),
    ):
        if suite is None:
            continue
        table = on_side(tables, plan, model, region, side)
        if table is None:
            continue
        for label, curve in suite.curves(table).items():
            merged = merged.merge(curve.rename({str(name): f"{label}{JOINT}{name}" for name in curve.data_vars}))
    return merged


def calibration(curves: xr.Dataset, label: str) -> xr.Dataset:
    """Compute a reliability diagram `(model, distribution, probability)` over all regions with equal weights."""
    share = curves[f"{label}{JOINT}share"].fillna(0.0)
    total = share.sum("test_region")
    pooled = {
        name: (curves[f"{label}{JOINT}{name}"].fillna(0.0) * share).sum("test_region") / total.where(total > 0)
        for name in ("forecast", "observed")
    }
    return xr.Dataset({**pooled, "share": total / share.sizes["test_region"]})


def spectral_ratio(curves: xr.Dataset, label: str = "ralsd") -> xr.DataArray:
    """Compute predicted over observed power in dB, `(model, distribution, wavenumber)`, as a mean over regions."""
    predicted, observed = (curves[f"{label}{JOINT}{name}"] for name in ("predicted", "observed"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: xr.DataArray = 10 * np.log10(predicted / observed)  # type: ignore[assignment]  # NumPy keeps the kind
    return ratio.where(np.isfinite(ratio)).mean("test_region").rename("power_ratio_db")

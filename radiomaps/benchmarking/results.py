"""The scores of a benchmark as one labelled data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from radiomaps.benchmarking.run import PLAIN
from radiomaps.scores.physical import QUANTITIES
from radiomaps.scores.scoring import PUBLISHED

if TYPE_CHECKING:
    from radiomaps.benchmarking.run import Benchmark, BenchmarkResults

__all__ = ["labelled"]

DIMS = ("task", "model", "split", "seed", "target", "voxels")


def labelled(made: Benchmark, outcome: BenchmarkResults) -> xr.Dataset:
    """Scores of all cells as a Dataset on (task, model, split, seed, target, voxels), NaN if missing.

    `nmse` is computed over all voxels of values scaled to 0 … 1, as in published results, circular for an azimuth.
    Other scores are in the `unit` of their target.
    """
    values: dict[tuple[str, ...], dict[str, float]] = {}
    for (cell, kind), scores in outcome.scores.items():
        if kind != PLAIN:
            continue
        for target in made.tasks[cell.task].targets:
            for group in scores.groups(target):
                if group == PUBLISHED:
                    continue
                near = f"within_{QUANTITIES[target].near:g}"
                found = scores.values(target, group)
                row = {"within" if name == near else name: value for name, value in found.items()}
                if group == "all":
                    row["nmse"] = scores.nmse(target)
                values[cell.task, cell.row, cell.split, str(cell.seed), target, group] = row
    labels = {dim: list(dict.fromkeys(key[place] for key in values)) for place, dim in enumerate(DIMS)}
    names = list(dict.fromkeys(name for row in values.values() for name in row))
    arrays = {name: np.full([len(found) for found in labels.values()], np.nan) for name in names}
    for key, row in values.items():
        place = tuple(labels[dim].index(part) for dim, part in zip(DIMS, key, strict=True))
        for name, value in row.items():
            arrays[name][place] = value
    coords = {**labels, "seed": [int(seed) for seed in labels["seed"]]}
    units = [QUANTITIES[target].unit for target in labels["target"]]
    return xr.Dataset({name: (DIMS, array) for name, array in arrays.items()}, {**coords, "unit": ("target", units)})

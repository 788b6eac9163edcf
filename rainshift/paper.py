"""The results in the layout of the RainShift paper, with the cells of it that are known quoted beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.cli.tables import cell

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PUBLISHED", "QUANTILE_MAPPING", "paper_rows"]

#: The alignment that the paper's tables stand with and without.
QUANTILE_MAPPING = "quantile_mapping"
#: CRPS in mm/h, without and with quantile mapping, of ERA5 → IMERG, from arXiv 2507.04930 as quoted by others: another
#: data set, and evaluation regions whose names are not known here.
PUBLISHED: Mapping[str, Mapping[str, tuple[float | None, float | None]]] = {
    "diffusion": {"E1": (0.091, 0.092), "E3": (0.084, 0.077), "E5": (0.028, 0.024), "E6": (0.295, 0.310)},
    "GAN": {"E1": (0.075, 0.093), "E3": (0.093, 0.080), "E5": (0.027, 0.024)},
    "ResNet": {"E3": (0.308, 0.079), "E5": (18113.558, 0.025)},
}


def paper_rows(results: xr.Dataset, partition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a model and a column an evaluation region: CRPS out of distribution, without → with quantile mapping.

    `partition` has the `name` of the training set and `evaluation`, the region of each column. The published cells
    follow, marked as what they are. A model that learns nothing has one value.
    """
    evaluation = {
        label: region for label, region in partition["evaluation"].items() if region in results["test_region"].values
    }
    score = results["score"].sel(metric=results.attrs["skill_metric"], distribution="out")
    names = [str(name) for name in results["model"].values]
    suffix = f"+{QUANTILE_MAPPING}"
    rows: list[dict[str, Any]] = []
    for name in names:
        if "+" in name and name.rpartition("+")[0] in names:
            continue
        pair = [name, name + suffix] if name + suffix in names else [name]
        rows.append(
            {"model": name, "trained on": partition.get("name")}
            | {
                label: _arrow(*(float(score.sel(model=model, test_region=region)) for model in pair))
                for label, region in evaluation.items()
            }
        )
    for name, cells in PUBLISHED.items():
        rows.append(
            {"model": f"{name}, published", "trained on": "ERA5 → IMERG"}
            | {label: _arrow(*cells[label]) if label in cells else None for label in evaluation}
        )
    return rows


def _arrow(*values: float | None) -> str | None:
    """`0.091 → 0.092`, a dash for what is missing."""
    shown = ["–" if value is None or not np.isfinite(value) else cell(value) or "–" for value in values]
    return None if set(shown) == {"–"} else " → ".join(shown)

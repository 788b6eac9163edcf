"""Scores at stations of every cell of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geoml.grids.grid import grid_of
from rainshift.benchmarking.plan import Cell
from rainshift.data.archive import FOLD, Archive
from rainshift.evaluation import Scores
from rainshift.station_scores import score_stations

__all__ = ["station_rows"]


def station_rows(archive: Archive, scores: Mapping[Cell, Scores], reference: str) -> list[dict[str, Any]]:
    """Return station scores as rows, one per model, training set, region and sampling of fields at stations.

    Scores of the gridded truth are added once per region. Regions without stations have no rows.
    """
    stations = archive.stations
    assert stations is not None
    based = {cell.test_region: made.points for cell, made in scores.items() if cell.model == reference}
    rows: list[dict[str, Any]] = []
    told: set[str] = set()
    for cell, made in scores.items():
        region = cell.test_region
        name = region.partition(FOLD)[0]
        grid = grid_of(archive.open(name, archive.samples(name, "test")[0])["target"])
        if made.points is None or made.diverged:
            continue
        found = score_stations(
            made.points, stations, grid, seconds=archive.step_seconds(name), stamp=archive.stamp(name),
            reference=based.get(region),
        )  # fmt: skip
        trained = "" if cell.train_set is None else "in" if cell.in_distribution else "out"
        for row in found.rows:
            if row["rain"] == "reference" or (row["rain"] == "gridded truth" and region in told):
                continue
            model = cell.model if row["rain"] == "prediction" else row["rain"]
            trained_here = trained if row["rain"] == "prediction" else ""
            head = {"region": region, "model": model, "trained": trained_here, "seed": cell.seed}
            rows.append(head | {key: value for key, value in row.items() if key != "rain"})
        told.add(region)
    return rows

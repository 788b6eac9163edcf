"""Scores of predictions at stations: Markdown tables of one region, and additional columns of the score table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.cli.tables import markdown
from geoml.grids.grid import grid_of
from geoml.runs.files import atomic_path
from rainshift.station_scores import climate_rows, score_stations

if TYPE_CHECKING:
    import xarray as xr

    from rainshift.data.archive import Archive

__all__ = ["AtStations", "at_stations"]

logger = logging.getLogger(__name__)

FILE = "stations-{}.md"


@dataclass(frozen=True)
class AtStations:
    """Rows of scores and of wet-day indices at the stations of a region, and notes that explain them."""

    scores: list[dict[str, Any]]
    climate: list[dict[str, Any]]
    notes: list[str]

    @property
    def columns(self) -> dict[str, Any]:
        """Scores of the prediction in the cells of the stations, to add to the scores on the grid."""
        row = next((r for r in self.scores if r["rain"] == "prediction" and r["taken"] == "nearest"), None)
        if row is None:
            return {}
        return {f"{key} at stations": row[key] for key in ("stations", "values", "crps_fair", "bias", "skill")}

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        """Write `stations-NAME.md` and log its notes. Returns the columns for the table of scores."""
        for note in self.notes:
            logger.warning("stations of %s: %s", name, note)
        parts = [f"# {name} at stations", "", *(f"- {note[:1].upper()}{note[1:]}." for note in self.notes)]
        for title, rows in (("Scores, mm/h", self.scores), ("Days", self.climate)):
            parts += ["", f"## {title}", "", markdown(rows)] if rows else []
        path = folder / FILE.format(name)
        with atomic_path(path) as partial:
            partial.write_text("\n".join(parts) + "\n", encoding="utf-8")
        logger.info("wrote %s", path)
        return self.columns


def at_stations(
    archive: Archive, name: str, role: str, points: xr.Dataset | None, reference: xr.Dataset | None
) -> AtStations | None:
    """Compute scores and wet-day indices from rain stored at stations; None without stations."""
    if points is None or archive.stations is None:
        return None
    base = name.partition("@")[0]
    grid = grid_of(archive.open(base, archive.samples(name, role)[0])["target"])
    options: dict[str, Any] = {"seconds": archive.step_seconds(name), "stamp": archive.stamp(name)}
    scored = score_stations(points, archive.stations, grid, **options, reference=reference)
    climate, notes = climate_rows(points, archive.stations, grid, **options)
    return AtStations(scored.rows, climate, [*scored.notes, *notes])

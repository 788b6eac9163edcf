"""Write the output of a finished benchmark to its run folder: results, maps, summary and pages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from geoml.data.store import write_netcdf
from geoml.report import write_pages
from rainshift.report import example_maps
from rainshift.report.html import CURVES, RESULTS, SHIFTS, report
from rainshift.report.tables import drop_rows, score_rows

if TYPE_CHECKING:
    from geoml.runs.folder import RunFolder
    from rainshift.benchmarking.run import BenchmarkResults, Experiment

__all__ = ["write_benchmark"]

logger = logging.getLogger(__name__)

#: Largest number of regions with maps.
SHOWN_REGIONS = 6


def write_benchmark(experiment: Experiment, outcome: BenchmarkResults, run: RunFolder) -> list[dict[str, Any]]:
    """Write results, curves, climate distances, summary, maps and pages. Returns the rows of the main table."""
    results = outcome.results
    write_netcdf(run.path / RESULTS, results)
    write_netcdf(run.path / CURVES, outcome.curves)
    shown = list(map(str, results["test_region"].values))[:SHOWN_REGIONS]
    for region in shown:
        example_maps.write(run.path, example_maps.showcase(experiment, region))
    if (shifts := experiment.shifts()) is not None:
        write_netcdf(run.path / SHIFTS, shifts)
    rows = score_rows(results, results.attrs["skill_metric"])
    run.write_summary(
        {
            "heading": experiment.heading,
            "scores": rows,
            "skill_lost": drop_rows(results),
            "failures": outcome.failures,
            "trainings": outcome.trainings,
            "notes": list(experiment.notes),
            "leaks": [leak.message for leak in outcome.leaks],
            "stations": outcome.stations,
            "adaptation": outcome.adaptation,
        }
    )
    made = report(run.path)
    assert made is not None
    logger.info("wrote %s", write_pages(made, run.path))
    return rows

"""The Markdown page of a benchmark: tables and figures from its results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.cli.tables import markdown
from geoml.data.store import read_dataset
from geoml.report.figures import save_figure
from geoml.runs.files import atomic_path
from rainshift.benchmarking.transfer import (
    shift_figure,
    trained_alone,
    transfer_figure,
    transfer_losses,
    transfer_rows,
    transfer_test,
)
from rainshift.report import example_maps as showcase
from rainshift.report.figures import (
    calibration_panels,
    degradation_bars,
    rain_panels,
    spectrum_lines,
    transfer_maps,
)
from rainshift.report.tables import (
    degradation_rows,
    drop_rows,
    oracle_rows,
    score_rows,
    shift_rows,
    skill_rows,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from geoml.runs.folder import RunFolder

__all__ = ["CURVES", "RESULTS", "SHIFTS", "introduction", "page", "write_page"]

logger = logging.getLogger(__name__)

#: Maximum number of regions with example maps.
SHOWN_REGIONS = 4
#: Data files in the run folder of a benchmark; the figures are drawn from them.
RESULTS, CURVES, SHIFTS = "benchmark.nc", "curves.nc", "shift.nc"


def page(
    results: xr.Dataset,
    *,
    heading: str,
    failures: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    figures: Sequence[Path] = (),
    shifts: xr.Dataset | None = None,
) -> str:
    """The report in Markdown; `shifts` adds the distances of climates."""
    metric = results.attrs["skill_metric"]
    parts = [f"# {heading}"]
    parts += [f"- {note}" for note in notes]
    parts += ["", f"## {metric}, mm/h", "", markdown(score_rows(results, metric))]
    skills = skill_rows(results)
    if skills:
        parts += ["", f"## Skill against {results.attrs['reference']}", "", markdown(skills)]
    shares = oracle_rows(results)
    if shares:
        parts += ["", "## Share of the oracle's skill", "", "1 is the best possible value.", "", markdown(shares)]
    lost = drop_rows(results)
    if lost:
        parts += [
            "",
            "## Skill lost out of distribution",
            "",
            "(skill in − skill out) / skill in, on the same region and hours. Values above 1 are worse than the "
            "reference; a dash means that there is no skill in distribution. The mean is computed from the skills "
            "averaged over regions. " + results.attrs["interval"] + ".",
            "",
            markdown(lost),
            "",
            "## Increase of CRPS out of distribution, per cent",
            "",
            markdown(degradation_rows(results)),
        ]
    if shifts is not None:
        parts += [
            "",
            "## Distance of the test regions from the training regions",
            "",
            "Wasserstein-1 distance of the predictors (and of the rain, marginal and given the coarse rain) from the "
            "training regions without the tested one, in standard deviations.",
            "",
            markdown(shift_rows(shifts)),
        ]
    parts += _transfer_section(results, shifts)
    others = [str(name) for name in results["metric"].values if str(name) != metric]
    for name in others:
        parts += ["", f"## {name}", "", markdown(score_rows(results, name))]
    if failures:
        parts += ["", "## Failed cells, excluded from all averages", ""]
        parts += [f"- {where}: {why}" for where, why in failures.items()]
    parts += ["", *(f"![{path.stem}]({path.name})" for path in figures)]
    return "\n".join(parts).rstrip() + "\n"


def introduction(results: xr.Dataset) -> list[str]:
    """Notes for the reader on the definition and limits of the scores, one or two sentences each."""
    notes = [
        f"CRPS is the fair estimator (Ferro 2014); deterministic models have one member, for which it is the MAE. "
        f"Skill is 1 − score / score of {results.attrs['reference']} on the same region and hours."
    ]
    blocks = results["blocks"].values
    if (blocks < 20).any():
        notes.append(
            f"No interval is given for fewer than 20 blocks of hours; these have {blocks.min()} to {blocks.max()}."
        )
    if np.isfinite(results["skill_lost"]).any():
        notes.append(_training_noise(results))
    return notes


def _transfer_section(results: xr.Dataset, shifts: xr.Dataset | None) -> list[str]:
    """Losses of models that were trained on a single region, with Mantel's test if distances were measured."""
    if not trained_alone(results):
        return []
    losses = transfer_losses(results)
    parts = ["", "## Trained on a single region: increase of CRPS over training on the tested region, per cent"]
    if shifts is not None and (test := transfer_test(shifts, losses)) is not None:
        parts += [
            "",
            f"Mantel's test of these losses, mean over models, against the distances of the predictors' climates: "
            f"ρ = {test.correlation:.2f}, p = {test.p:.2g} ({test.regions} regions, {test.pairs} pairs, "
            f"{test.arrangements} arrangements).",
        ]
    for model in map(str, losses["model"].values):
        parts += ["", f"### {model}", "", markdown(transfer_rows(losses, model))]
    return parts


def _training_noise(results: xr.Dataset) -> str:
    """A note that intervals exclude training noise: another training of the same model may lie outside them."""
    seeds = results.sizes["seed"]
    trained = "one training of each model" if seeds == 1 else f"the mean of {seeds} trainings of each model"
    return f"Intervals cover the sampling of hours for {trained}; they do not include training noise" + (
        ", which can be larger: compare models with seeds=3 or more." if seeds < 3 else "."
    )


def write_page(run: RunFolder) -> list[dict[str, Any]]:
    """Write `benchmark.md` and the figures from the files of the run folder; returns the headline rows.

    Nothing is trained or scored. Errors: `DataError` if the run has not finished or one of its files is corrupted.
    """
    summary = run.summary
    results = _read(run, RESULTS)
    assert results is not None
    shifts = _read(run, SHIFTS)
    figures = _figures(run, results, shifts)
    notes = [*summary.get("notes", ()), *introduction(results), *summary["leaks"]]
    text = page(
        results,
        heading=summary["heading"],
        failures=summary["failures"],
        notes=notes,
        figures=figures,
        shifts=shifts,
    )
    with atomic_path(run.path / "benchmark.md") as partial:
        partial.write_text(text)
    logger.info("wrote %s", run.path / "benchmark.md")
    return score_rows(results, results.attrs["skill_metric"])


def _read(run: RunFolder, name: str) -> xr.Dataset | None:
    """A data set of the run folder; None if the run did not write it."""
    if name != RESULTS and not (run.path / name).exists():
        return None
    with read_dataset(run.path / name) as stored:
        return stored.load()


def _figures(run: RunFolder, results: xr.Dataset, shifts: xr.Dataset | None) -> list[Path]:
    """Draw all figures that the results allow; returns their paths in the order of the page."""
    drawn: dict[str, Figure | None] = {}
    if np.isfinite(results["degradation"]).any():
        drawn["skill"] = degradation_bars(results, reference=results.attrs["reference"])
    if shown := {region: showcase.panels(data) for region, data in showcase.read(run.path).items()}:
        drawn["maps"] = rain_panels(shown, title="wettest test time of each region; no model was trained on it")
    if (curves := _read(run, CURVES)) is not None:
        members = results["members"].max(("train_set", "test_region", "seed"))
        names = list(map(str, results["model"].values))
        ensembles = [name for name in names if float(members.sel(model=name)) > 1]
        drawn["calibration"] = calibration_panels(curves, ensembles)
        drawn["spectra"] = spectrum_lines(curves, names)
    if shifts is not None:
        drawn["shift"] = shift_figure(shifts, results)
    if trained_alone(results):
        losses = transfer_losses(results)
        drawn["transfer"] = transfer_maps(losses)
        if shifts is not None:
            drawn["transfer-shift"] = transfer_figure(shifts, losses)
    for name, figure in drawn.items():
        if figure is not None:
            save_figure(figure, run.path / f"{name}.png")
    return [path for name in drawn if (path := run.path / f"{name}.png").exists()]

"""Reports of runs of `benchmark`, `predict` and `evaluate`, built only from the files of the run folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from geoml.data.store import read_dataset
from geoml.metrics.ranks import SPACING, rank_deviation_by_chance
from geoml.report import Block, Chart, Report, Section, Table, Text
from geoml.report.palette import colours
from geoml.runs.files import read_json, text_within
from geoml.runs.folder import RunFolder
from rainshift.benchmarking.transfer import (
    between,
    of_predictors,
    trained_alone,
    transfer_losses,
    transfer_test,
)
from rainshift.report import example_maps as showcase
from rainshift.report import figures
from rainshift.report.tables import (
    adaptation_table,
    degradation_rows,
    drop_rows,
    map_rows,
    oracle_rows,
    score_rows,
    shift_rows,
    skill_rows,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CURVES", "RESULTS", "SHIFTS", "report"]

#: The files of a benchmark's run folder.
RESULTS, CURVES, SHIFTS = "benchmark.nc", "curves.nc", "shift.nc"

#: Caption of the table of scores at stations.
STATIONS = (
    "Over the measurement intervals of the gauges, mm/h: interpolated between four cells (bilinear), in the cell of "
    "the gauge (nearest), and against the mean of all gauges in a cell (cell mean). A perfect prediction has the "
    "scores of the gridded truth."
)
#: A colour for each model, the same in all figures.
Palette = dict[str, str]


def report(path: str | os.PathLike[str]) -> Report | None:
    """Build the report of a run of `rainshift benchmark`, `predict` or `evaluate`; None for any other folder.

    Raises `DataError` if the run has not finished or one of its files is corrupted.
    """
    path = Path(path)
    if not (path / RESULTS).exists():
        shown = showcase.read(path) if (path / showcase.FOLDER).is_dir() else {}
        return _of_model(RunFolder.load(path), shown) if shown else None
    run = RunFolder.load(path)
    summary, results = run.summary, _read(run.path / RESULTS)
    assert results is not None
    curves, shifts = _read(run.path / CURVES), _read(run.path / SHIFTS)
    palette = colours(list(map(str, results["model"].values)))
    moved = results["degradation"].notnull().any("test_region")
    learners = {name: colour for name, colour in palette.items() if bool(moved.sel(model=name))}
    sections = [
        _leaderboard(results, summary),
        _distribution(results, learners or palette),
        _adaptation(results, summary),
        _matrix(results, shifts),
        _maps(run.path),
        _curves(results, curves, palette),
        _shift(results, shifts, learners),
        _stations(summary),
        _scores(results),
        _cost(summary),
        _provenance(run),
    ]
    return Report(summary["heading"], _introduction(results)[0], [part for part in sections if part is not None])


def _stations(summary: Mapping[str, Any]) -> Section | None:
    rows = summary.get("stations")
    return Section("At stations", [Table(rows, STATIONS)]) if rows else None


def _adaptation(results: xr.Dataset, summary: Mapping[str, Any]) -> Section | None:
    """Section on the gain from hours of local data over the unadapted model."""
    rows = summary.get("adaptation")
    if not rows:
        return None
    reference = results.attrs["reference"]
    caption = (
        f"Skill against {reference} after fine-tuning on contiguous hours of the region, and of unadapted weights with "
        "aligned predictors, which use no fine rain. Gap: increase of CRPS of the unadapted weights (0 h) over the "
        "training on the complete record. Half gap: hours that close half of it, linearly interpolated."
    )
    note = f"The last point is the training on the complete record. Intervals: {results.attrs['interval']}."
    chart = Chart(figures.adaptation_chart(rows, reference), "Skill against hours of local data", note)
    return Section("Adaptation to local data", [chart, Table(adaptation_table(rows), caption)])


def _of_model(run: RunFolder, shown: dict[str, xr.Dataset]) -> Report:
    """Report on the predictions of one model, their errors and, if a trust map was fitted, the expected errors."""
    rows = run.summary["rows"]
    scored = any("mae" in row or "crps" in row for row in rows)
    trusted = {region: data for region, data in shown.items() if "expected_error" in data and "target" in data}
    maps: list[Block] = [figures.prediction_viewer(shown)]
    if not any("expected_error" in data for data in shown.values()):
        maps.append(Text("`rainshift trust checkpoint=RUN` fits a trust map, which this page then shows."))
    sections = [
        Section("Maps", maps),
        _trust(trusted) if trusted else None,
        Section("Scores", [Table(rows, "Scores against the fine rain, mm/h")])
        if scored
        else Section("Files", [Table(rows, "Predicted files")]),
        _provenance(run),
    ]
    made = f"Predicted by {checkpoint}" if (checkpoint := run.config.get("checkpoint")) else run.config["prediction"]
    return Report(f"Rain of {', '.join(shown)}", f"{made}.", [part for part in sections if part is not None])


def _trust(shown: dict[str, xr.Dataset]) -> Section:
    """Section that compares expected errors with true errors, over the hours of the maps."""
    from rainshift.models.trust import auroc, risk_coverage

    rows, curves = [], {}
    for region, data in shown.items():
        error = abs(data["mean"] - data["target"]).values
        known = np.isfinite(error)
        wrong = error[known]
        said = {name: data[name].values[known] for name in ("expected_error", "error_bound", "familiar")}
        coverage, risk = risk_coverage(said["expected_error"], wrong)
        curves[region] = (coverage, risk, risk_coverage(wrong, wrong)[1])
        rows.append(
            {
                "region": region,
                "mean error": float(wrong.mean()),
                "mean expected error": float(said["expected_error"].mean()),
                "errors within the bound, %": 100 * float((wrong <= said["error_bound"]).mean()),
                "familiar, %": 100 * float(said["familiar"].mean()),
                "AUROC": auroc(said["expected_error"], wrong > np.quantile(wrong, 0.9)),
            }
        )
    figure = figures.risk_chart(curves, colours(list(curves)))
    levels = {float(found) for data in shown.values() if (found := data["error_bound"].attrs.get("level"))}
    meant = f"; nominal coverage of the bound: {'; '.join(f'{level:.0%}' for level in levels)}" if levels else ""
    caption = f"Over the hours of the maps, mm/h{meant}. AUROC: detection of the largest tenth of the errors"
    return Section(
        "Trust map",
        [
            Table(rows, caption),
            Chart(figure, "Mean error of the kept cells against the share kept", "Lower is better. The dotted line "
                  "ranks cells by their true error, which is the best possible; the solid line by the expected error."),
        ],
    )  # fmt: skip


def _read(path: Path) -> xr.Dataset | None:
    if not path.exists():
        return None
    with read_dataset(path) as stored:
        return stored.load()


def _introduction(results: xr.Dataset) -> list[str]:
    """Return notes for the reader on the definition and limits of the scores, one or two sentences each."""
    notes = [
        f"CRPS is the fair estimator (Ferro 2014); deterministic models have one member, for which it is the MAE. "
        f"Skill is 1 − score / score of {results.attrs['reference']} on the same region and hours."
    ]
    blocks = results["blocks"].values
    if (blocks < 20).any():
        span = f"{blocks.min()} to {blocks.max()}" if blocks.min() < blocks.max() else f"{blocks.min()}"
        notes.append(f"No interval is given for fewer than 20 blocks of hours; the number here is {span}.")
    if np.isfinite(results["skill_lost"]).any():
        notes.append(_training_noise(results))
    return notes


def _training_noise(results: xr.Dataset) -> str:
    """State that intervals exclude training noise: another training of the same model may lie outside them."""
    seeds = results.sizes["seed"]
    trained = "one training of each model" if seeds == 1 else f"the mean of {seeds} trainings of each model"
    return f"Intervals cover the sampling of hours for {trained}; they do not include training noise" + (
        ", which can be larger: compare models with seeds=3 or more." if seeds < 3 else "."
    )


def _leaderboard(results: xr.Dataset, summary: dict[str, Any]) -> Section:
    metric = results.attrs["skill_metric"]
    rows = []
    for row in score_rows(results, metric):
        values = [row[str(region)] for region in results["test_region"].values]
        rows.append({**row, "mean": float(np.mean(values))})
    blocks: list[Block] = [
        Table(rows, f"{metric}, mm/h, lower is better; trained in or out of distribution", sort="mean")
    ]
    if any("outside %" in row for row in rows):
        meaning = (
            "outside %: largest share of predictor values outside the training range, which are clipped or ignored."
        )
        blocks.append(Text(meaning, "note"))
    blocks += [Text(note, "note") for note in (*_introduction(results)[1:], *summary["leaks"])]
    if said := summary.get("notes"):
        blocks[:0] = [Text(note, "note") for note in said]
    blocks += [
        Text(f"Failed, excluded from all averages: {k}: {why}", "note") for k, why in summary["failures"].items()
    ]
    return Section("Leaderboard", blocks)


def _distribution(results: xr.Dataset, palette: Palette) -> Section | None:
    if not np.isfinite(results["skill"]).any():
        return None
    figure = figures.skill_chart(results, palette)
    blocks: list[Block] = [
        Chart(
            figure,
            f"Skill against {results.attrs['reference']} of each model by region, in and out of distribution",
            f"Intervals: {results.attrs['interval']}. Filled: trained with the region; hollow: without it."
            if np.isfinite(results["skill_low"]).any()
            else "Filled: trained with the region; hollow: without it.",
        )
    ]
    tables = {
        "Skill lost out of distribution, (skill in − skill out) / skill in. Values above 1 are worse than the "
        "reference; a dash: no skill in distribution. The mean is computed from mean skills": drop_rows(results),
        "Increase of CRPS out of distribution, per cent": degradation_rows(results),
        f"Skill against {results.attrs['reference']}": skill_rows(results),
        "Share of the oracle's skill, 1 is the best possible": oracle_rows(results),
    }
    blocks += [Table(rows, caption) for caption, rows in tables.items() if rows]
    return Section("In and out of distribution", blocks)


def _matrix(results: xr.Dataset, shifts: xr.Dataset | None) -> Section | None:
    """Section on training set × test region: losses if models were trained on single regions, else scores."""
    metric = results.attrs["skill_metric"]
    if results.sizes["test_region"] == 1 and not trained_alone(results):
        return None  # a single column has no transfer
    if trained_alone(results):
        losses = transfer_losses(results)
        figure = figures.heat_maps(losses, unit="increase of CRPS over training on the region, %", diverging=True)
        blocks: list[Block] = [Chart(figure, "Loss of each model for each pair of training and test region")]
        if shifts is not None:
            chart = figures.transfer_chart(*between(shifts, losses))
            note = ""
            if (test := transfer_test(shifts, losses)) is not None:
                note = (
                    f"Mantel's test against the distances of the predictors' climates: ρ = {test.correlation:.2f}, "
                    f"p = {test.p:.2g} ({test.regions} regions, {test.pairs} pairs, {test.arrangements} arrangements)."
                )
            blocks.append(Chart(chart, "Loss against the distance of the two climates", note))
        return Section("Transfer between regions", blocks)
    sets = [name for name in map(str, results["train_set"].values) if name != "none"]
    table = results["matrix"].sel(metric=metric, train_set=sets).mean("seed")
    learned = [str(m) for m in table["model"].values if np.isfinite(table.sel(model=m)).any()]
    if not learned:
        return None
    table = table.sel(model=learned).rename(train_set="other", test_region="region")
    figure = figures.heat_maps(table, unit=f"{metric}, mm/h", diverging=False)
    return Section(
        "Transfer between regions", [Chart(figure, f"{metric} of each model by training set and test region")]
    )


def _maps(path: Path) -> Section | None:
    shown = showcase.read(path)
    if not shown:
        return None
    rows = map_rows(shown)
    caption = "First member at the wettest time, relative to the target; wet means 0.1 mm/h or more"
    return Section("Maps", [figures.rain_viewer(shown), *([Table(rows, caption)] if rows else [])])


def _curves(results: xr.Dataset, curves: xr.Dataset | None, palette: Palette) -> Section | None:
    if curves is None:
        return None
    members = results["members"].max(("train_set", "test_region", "seed"))
    ensembles = {name: colour for name, colour in palette.items() if float(members.sel(model=name)) > 1}
    blocks: list[Block] = []
    if (figure := figures.calibration_chart(curves, ensembles)) is not None:
        caption = "A calibrated ensemble has flat ranks and lies on the diagonal. Means over regions." + _rank_note(
            curves
        )
        blocks.append(Chart(figure, "Rank histograms and reliability diagrams of the ensembles", caption))
    if (figure := figures.spectrum_chart(curves, palette)) is not None:
        caption = "0 dB: same power as the truth; below 0 dB: too smooth. Means over regions."
        blocks.append(Chart(figure, "Power spectra of the models relative to the truth", caption))
    return Section("Calibration and spectra", blocks) if blocks else None


def _rank_note(curves: xr.Dataset) -> str:
    """Return a caption with the number of truths in a rank histogram, and its deviation from flat by chance."""
    if "truths" not in curves or not int(curves["truths"].sum()):
        return ""
    count = int(curves["truths"].sum())
    chance = rank_deviation_by_chance(count, draws=500)
    return (
        f" Ranks of n = {count} truths, {SPACING} cells apart in each field. If all were independent, a bin would "
        f"deviate by up to {chance:.0%} in 95 % of cases; truths of successive times are not independent."
    )


def _shift(results: xr.Dataset, shifts: xr.Dataset | None, palette: Palette) -> Section | None:
    if shifts is None:
        return None
    distance = of_predictors(shifts["wasserstein"])
    chart = figures.shift_chart(distance, results["degradation"], palette)
    caption = (
        "Wasserstein-1 distance of each variable from the training regions without the tested one, std. deviations"
    )
    blocks: list[Block] = [
        Chart(chart, "Loss out of distribution against the distance of climates"),
        Table(shift_rows(shifts), caption),
    ]
    return Section("Climate distance and loss", blocks)


def _scores(results: xr.Dataset) -> Section | None:
    others = [str(n) for n in results["metric"].values if str(n) != results.attrs["skill_metric"]]
    tables = [Table(score_rows(results, name), name, folded=True) for name in others]
    return Section("Other scores", tables) if tables else None


def _cost(summary: dict[str, Any]) -> Section | None:
    rows = [{"training": name, **cost} for name, cost in summary["trainings"].items()]
    rows = [{k: v for k, v in row.items() if not isinstance(v, dict | list)} for row in rows]
    return Section("Cost", [Table(rows, "All trainings with number of parameters and seconds")]) if rows else None


def _configuration(run: RunFolder) -> str:
    """Return the settings of a run; for a prediction from a file without the data settings, which it does not use."""
    text = text_within(run.path, "config.yaml")
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if not isinstance(settings, dict) or not settings.get("input"):
        return text
    return yaml.safe_dump({key: value for key, value in settings.items() if key != "data"}, sort_keys=False)


def _provenance(run: RunFolder) -> Section:
    text_within(run.path, "environment.json")
    around = read_json(run.path / "environment.json")
    return Section(
        "Provenance",
        [
            Text("Configuration:"),
            Text(_configuration(run), "code"),
            Text("Environment:"),
            Text(json.dumps(around, indent=1, ensure_ascii=False), "code"),
        ],
    )

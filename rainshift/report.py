"""From the results of a benchmark to what a person reads: tables, figures, one Markdown page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.data.store import read_dataset, write_netcdf
from geoml.files import atomic_path
from geoml.tables import cell, markdown
from rainshift.figures import degradation_bars, rain_panels, save_figure
from rainshift.mantel import shift_against_drop
from rainshift.paper import paper_rows
from rainshift.shift import CONDITIONAL, TARGET

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from geoml.runs import RunFolder
    from rainshift.experiment import Experiment, Outcome

__all__ = ["drop_rows", "oracle_rows", "page", "score_rows", "write_benchmark", "write_page"]

logger = logging.getLogger(__name__)

#: Regions drawn in the panels.
SHOWN_REGIONS = 4
MAPS, SHIFTS = "maps.png", "shift"
#: The row that draws from the exact law of the rain, on data where that is known.
ORACLE = "oracle"


def _with_interval(estimate: float, low: float, high: float, *, scale: float = 1.0) -> str | None:
    """`0.31 [0.28, 0.35]`, without brackets where there is no interval, None where there is no value."""
    if not np.isfinite(estimate):
        return None
    value = cell(float(estimate) * scale)
    if not (np.isfinite(low) and np.isfinite(high)):
        return value
    return f"{value} [{cell(float(low) * scale)}, {cell(float(high) * scale)}]"


def _models(results: xr.Dataset) -> list[str]:
    return [str(name) for name in results["model"].values]


def _regions(results: xr.Dataset) -> list[str]:
    return [str(name) for name in results["test_region"].values]


def score_rows(results: xr.Dataset, metric: str = "crps_fair") -> list[dict[str, Any]]:
    """A row a model and distribution, a column a region; what learns nothing has one row.

    `bounded %` is the largest share of values, over regions and seeds, that had to be brought within bounds.
    """
    rows = []
    for model in _models(results):
        picked = results["score"].sel(metric=metric, model=model)
        values = {side: picked.sel(distribution=side).values for side in ("in", "out")}
        members = results["members"].sel(model=model).values
        known = members[np.isfinite(members)]
        same = np.array_equal(values["in"], values["out"], equal_nan=True)
        for side in ("any",) if same else ("in", "out"):
            found = values["in" if side == "any" else side]
            if np.isfinite(found).any():
                bounded = results["largest_clipped_share"].sel(
                    model=model, distribution="in" if side == "any" else side
                )
                head = {
                    "model": model,
                    "trained": side,
                    "members": int(known[0]) if len(known) else None,
                    "bounded %": round(100 * float(bounded.max()), 3),
                }
                rows.append(head | dict(zip(_regions(results), map(float, found), strict=True)))
    return rows


def drop_rows(results: xr.Dataset) -> list[dict[str, Any]]:
    """A row a model: skill lost outside the training regions, by region and on average, with intervals."""
    rows = []
    for model in _models(results):
        lost = results[["skill_lost", "skill_lost_low", "skill_lost_high"]].sel(model=model)
        if not np.isfinite(lost["skill_lost"]).any():
            continue
        row: dict[str, Any] = {"model": model}
        for region in _regions(results):
            row[region] = _with_interval(*(float(lost[name].sel(test_region=region)) for name in lost.data_vars))
        mean = [float(results[f"mean_skill_lost{suffix}"].sel(model=model)) for suffix in ("", "_low", "_high")]
        rows.append(row | {"mean": _with_interval(*mean)})
    return rows


def oracle_rows(results: xr.Dataset) -> list[dict[str, Any]]:
    """A row a model and distribution: its skill over the oracle's, where that is among the models."""
    if ORACLE not in _models(results):
        return []
    rows = []
    for model in _models(results):
        if model in (ORACLE, results.attrs["reference"]):
            continue
        for side in ("in", "out"):
            share = results["skill"].sel(model=model, distribution=side) / results["skill"].sel(
                model=ORACLE, distribution=side
            )
            if np.isfinite(share).any():
                values = dict(zip(_regions(results), map(float, share.values), strict=True))
                rows.append({"model": model, "trained": side, **values, "mean": float(share.mean())})
    return rows


def shift_rows(shifts: xr.Dataset) -> list[dict[str, Any]]:
    """A row a variable: its Wasserstein distance by region, marked where chance gives as much in 5 % of cases."""
    rows = []
    for variable in map(str, shifts["variable"].values):
        row: dict[str, Any] = {"variable": variable}
        for region in map(str, shifts["region"].values):
            picked = shifts[["wasserstein", "wasserstein_p"]].sel(variable=variable, region=region)
            chance = "" if float(picked["wasserstein_p"]) < 0.05 else " (chance)"
            row[region] = f"{cell(float(picked['wasserstein']))}{chance}"
        rows.append(row)
    return rows


def shift_figure(shifts: xr.Dataset, results: xr.Dataset) -> Figure:
    """Distance to the regions trained on, mean over predictors, against what models lose there, mean over models."""
    predictors = [name for name in map(str, shifts["variable"].values) if name not in (TARGET, CONDITIONAL)]
    distance = shifts["wasserstein"].sel(variable=predictors).mean("variable")
    distance.attrs["long_name"] = "Wasserstein-1 from the training regions, standard deviations, mean of predictors"
    drop = results["degradation"].rename(test_region="region").mean("model")
    return shift_against_drop(distance, drop, what="CRPS worse out of distribution, %, mean of models")


def degradation_rows(results: xr.Dataset) -> list[dict[str, Any]]:
    """A row a model: by how many per cent the CRPS is worse outside the training regions."""
    rows = []
    for model in _models(results):
        picked = results[["degradation", "degradation_low", "degradation_high"]].sel(model=model)
        if np.isfinite(picked["degradation"]).any():
            cells = {
                region: _with_interval(*(float(picked[name].sel(test_region=region)) for name in picked.data_vars))
                for region in _regions(results)
            }
            rows.append({"model": model, **cells})
    return rows


def page(
    results: xr.Dataset,
    *,
    heading: str,
    failures: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    figures: Sequence[Path] = (),
    partition: Mapping[str, Any] | None = None,
    shifts: xr.Dataset | None = None,
) -> str:
    """The whole report in Markdown; `partition` adds the table in the layout of the RainShift paper."""
    metric = results.attrs["skill_metric"]
    parts = [f"# {heading}"]
    parts += [f"- {note}" for note in notes]
    blocks = results["blocks"].values
    if (blocks < 20).any():
        parts.append(f"- No interval where there are fewer than 20 blocks of hours: {blocks.min()} to {blocks.max()}.")
    parts += ["", f"## {metric}, mm/h", "", markdown(score_rows(results, metric))]
    skills = _skill_rows(results)
    if skills:
        parts += ["", f"## Skill against {results.attrs['reference']}", "", markdown(skills)]
    shares = oracle_rows(results)
    if shares:
        parts += ["", "## Share of the oracle's skill", "", "1 is the best there can be.", "", markdown(shares)]
    lost = drop_rows(results)
    if lost:
        parts += [
            "",
            "## Skill lost out of distribution",
            "",
            "(skill in − skill out) / skill in, on the same region and hours. Above 1 is worse than the reference; "
            "a dash: no skill in distribution that could be lost. The mean is what is lost of the skill averaged over "
            "regions. " + results.attrs["interval"] + ". " + _training_noise(results),
            "",
            markdown(lost),
            "",
            "## CRPS worse out of distribution, per cent",
            "",
            markdown(degradation_rows(results)),
        ]
    if shifts is not None:
        parts += [
            "",
            "## How far the tested regions are from those trained on",
            "",
            "Wasserstein-1 distance of what comes in (and of the rain, alone and given the coarse rain) from the "
            "training regions without the tested one, in standard deviations.",
            "",
            markdown(shift_rows(shifts)),
        ]
    if partition and partition.get("evaluation"):
        parts += [
            "",
            f"## In the layout of the RainShift paper, {metric}, without → with quantile mapping",
            "",
            "Which regions E1…E6 and A1…A4 are is "
            + ("verified" if partition.get("verified") else f"not verified ({partition.get('source')})")
            + "; the published cells are of another data set and cannot be compared cell by cell.",
            "",
            markdown(paper_rows(results, partition)),
        ]
    others = [str(name) for name in results["metric"].values if str(name) != metric]
    for name in others:
        parts += ["", f"## {name}", "", markdown(score_rows(results, name))]
    if failures:
        parts += ["", "## Failed cells, left out of every average", ""]
        parts += [f"- {where}: {why}" for where, why in failures.items()]
    parts += ["", *(f"![{path.stem}]({path.name})" for path in figures)]
    return "\n".join(parts).rstrip() + "\n"


def _training_noise(results: xr.Dataset) -> str:
    """What the intervals leave out: another training of the same model may lie outside them."""
    seeds = results.sizes["seed"]
    trained = "one training of each model" if seeds == 1 else f"the mean of {seeds} trainings of each model"
    return f"Intervals are over hours for {trained}; they hold no training noise" + (
        ", which can be larger: compare models with seeds=3 or more." if seeds < 3 else "."
    )


def _skill_rows(results: xr.Dataset) -> list[dict[str, Any]]:
    rows = []
    for model in _models(results):
        for side in ("in", "out"):
            picked = results[["skill", "skill_low", "skill_high"]].sel(model=model, distribution=side)
            if not np.isfinite(picked["skill"]).any():
                continue
            cells = {
                region: _with_interval(*(float(picked[name].sel(test_region=region)) for name in picked.data_vars))
                for region in _regions(results)
            }
            if rows and rows[-1]["model"] == model and {**rows[-1], "trained": side} == {
                "model": model, "trained": side, **cells
            }:  # fmt: skip
                rows[-1]["trained"] = "any"
                continue
            rows.append({"model": model, "trained": side, **cells})
    return rows


def write_benchmark(experiment: Experiment, outcome: Outcome, run: RunFolder) -> list[dict[str, Any]]:
    """Write `benchmark.nc`, `summary.json`, the maps and the page; returns the rows of the headline table."""
    results = outcome.results
    write_netcdf(run.path / "benchmark.nc", results)
    panels = {region: experiment.panels(region) for region in _regions(results)[:SHOWN_REGIONS]}
    title = "wettest test time of each region; models trained without it"
    save_figure(rain_panels(panels, title=title), run.path / MAPS)
    if (shifts := experiment.shifts()) is not None:
        write_netcdf(run.path / f"{SHIFTS}.nc", shifts)
    run.write_summary(
        {
            "heading": experiment.heading,
            "scores": score_rows(results, results.attrs["skill_metric"]),
            "skill_lost": drop_rows(results),
            "failures": outcome.failures,
            "trainings": outcome.trainings,
            "leaks": [leak.message for leak in outcome.leaks],
        }
    )
    return write_page(run)


def write_page(run: RunFolder) -> list[dict[str, Any]]:
    """Write `benchmark.md` and the bars from what the run folder holds; returns the rows of the headline table.

    Nothing is trained or scored. Errors: `DataError` where the run has not finished or a file of it is broken.
    """
    summary = run.summary
    with read_dataset(run.path / "benchmark.nc") as stored:
        results = stored.load()
    figures = [run.path / MAPS] if (run.path / MAPS).exists() else []
    if np.isfinite(results["degradation"]).any():
        bars = degradation_bars(results, reference=results.attrs["reference"])
        figures.insert(0, save_figure(bars, run.path / "skill.png"))
    shifts = None
    if (run.path / f"{SHIFTS}.nc").exists():
        with read_dataset(run.path / f"{SHIFTS}.nc") as stored:
            shifts = stored.load()
        figures.append(save_figure(shift_figure(shifts, results), run.path / f"{SHIFTS}.png"))
    notes = [
        f"CRPS is the fair estimator (Ferro 2014); deterministic models have one member, for which it is the MAE. "
        f"Skill is 1 − score / score of {results.attrs['reference']} on the same region and hours.",
        *summary["leaks"],
    ]
    text = page(
        results,
        heading=summary["heading"],
        failures=summary["failures"],
        notes=notes,
        figures=figures,
        partition=run.config.get("partition"),
        shifts=shifts,
    )
    with atomic_path(run.path / "benchmark.md") as partial:
        partial.write_text(text)
    logger.info("wrote %s", run.path / "benchmark.md")
    return score_rows(results, results.attrs["skill_metric"])

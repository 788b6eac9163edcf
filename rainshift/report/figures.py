"""Figures of a benchmark: rain on common colour scales, skill in and out of distribution, calibration, spectra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from geoml.metrics.base import reached
from geoml.report.palette import colours
from rainshift.benchmarking.curves import calibration, spectral_ratio

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = [
    "calibration_panels",
    "degradation_bars",
    "rain_panels",
    "ratios",
    "spectrum_lines",
    "transfer_maps",
]

#: Class bounds in mm/h as on weather radar displays, roughly doubling; below the first is drawn as dry.
RAIN_BOUNDS_MM_H = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
#: Axis limits of spectra in dB; a field below the lower limit has no fine structure left.
SHOWN_DB = (-30.0, 10.0)
DRY, UNKNOWN = "#ffffff", "#b9b9b9"


def rain_panels(rows: Mapping[str, Mapping[str, xr.DataArray]], *, title: str = "") -> Figure:
    """One row per region and one column per field, all on one colour scale.

    `rows[region][column]` is rain in mm/h on `(lat, lon)`; coarse fields are drawn at their resolution. Grey is
    unknown, white is below 0.1 mm/h. The text below each prediction gives its wet area and mass relative to the
    target.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = sorted(dict.fromkeys(column for panels in rows.values() for column in panels), key=_place)
    colours = mpl.colormaps["viridis_r"].resampled(len(RAIN_BOUNDS_MM_H)).with_extremes(under=DRY, bad=UNKNOWN)
    norm = mpl.colors.BoundaryNorm(RAIN_BOUNDS_MM_H, len(RAIN_BOUNDS_MM_H), extend="max")
    figure = Figure(figsize=(2.6 * len(columns) + 1.2, 2.5 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(column, fontsize=9)
    for line, (region, panels) in zip(axes, rows.items(), strict=True):
        bounds = _common_bounds(panels.values())
        for axis, column in zip(line, columns, strict=True):
            if column not in panels:
                for part in (axis.xaxis, axis.yaxis, axis.patch, *axis.spines.values()):
                    part.set_visible(False)
                continue
            field = panels[column].transpose("lat", "lon")
            drawn = axis.pcolormesh(field["lon"], field["lat"], field, cmap=colours, norm=norm, rasterized=True)
            axis.set(xlim=bounds[:2], ylim=bounds[2:], aspect=1 / np.cos(np.deg2rad(np.mean(bounds[2:]))))
            axis.tick_params(labelsize=6)
            if column not in ("input", "target") and "target" in panels:
                axis.set_xlabel(ratios(field, panels["target"]), fontsize=7)
        line[0].set_ylabel(region, fontsize=8)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, extend="max", ticks=RAIN_BOUNDS_MM_H)
    bar.set_label("mm/h")
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    return figure


def ratios(field: xr.DataArray, target: xr.DataArray) -> str:
    """Wet area and mass of a field relative to the target, over the cells where both are known."""
    known = np.isfinite(field.values) & np.isfinite(target.values)
    made, true = field.values[known], target.values[known]
    wet = reached(RAIN_BOUNDS_MM_H[0])
    parts = ((made >= wet).sum() / max((true >= wet).sum(), 1), made.sum() / max(true.sum(), 1e-9))
    return "wet area × {:.2f}, mass × {:.2f}".format(*parts)


def _place(column: str) -> int:
    """Sort key of a column: input first, target last, models between them in their given order."""
    return {"input": 0, "target": 2}.get(column, 1)


def _common_bounds(fields: Iterable[xr.DataArray]) -> tuple[float, float, float, float]:
    """Longitude and latitude limits of the field with the finest grid."""
    finest = max(fields, key=lambda field: field.sizes["lat"])
    lat, lon = finest["lat"].values, finest["lon"].values
    half_lat, half_lon = abs(lat[1] - lat[0]) / 2, abs(lon[1] - lon[0]) / 2
    return lon.min() - half_lon, lon.max() + half_lon, lat.min() - half_lat, lat.max() + half_lat


def degradation_bars(table: xr.Dataset, *, reference: str = "bilinear") -> Figure:
    """Skill against `reference` in and out of distribution: one panel per model, one group of bars per test region.

    Models without training have the same skill on both sides and are left out. `table` has
    `skill(model, test_region, distribution)` with `distribution` "in" or "out", and `skill_low` and `skill_high` of
    the same shape, NaN where there is no interval.
    """
    from matplotlib.figure import Figure

    inside, outside = (table["skill"].sel(distribution=side) for side in ("in", "out"))
    moved = (inside != outside) & (np.isfinite(inside) | np.isfinite(outside))
    models = [str(name) for name in table["model"].values if moved.sel(model=name).any()]
    regions = [str(r) for r in table["test_region"].values]
    figure = Figure(figsize=(max(5.0, 1.0 * len(regions) + 2), 2.4 * max(len(models), 1)), layout="constrained")
    axes = figure.subplots(max(len(models), 1), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    place = np.arange(len(regions))
    for axis, model in zip(axes, models, strict=False):
        for shift, which, colour in ((-0.2, "in", "#0072b2"), (0.2, "out", "#d55e00")):
            picked = table.sel(model=model, distribution=which)
            skill = picked["skill"].values
            reach = np.stack([skill - picked["skill_low"].values, picked["skill_high"].values - skill])
            known = np.isfinite(reach).all(axis=0)
            axis.bar(place + shift, skill, 0.38, color=colour, label=f"{which} of distribution".replace("in of", "in"))
            axis.errorbar((place + shift)[known], skill[known], reach[:, known], fmt="none", color="black", capsize=2)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_ylabel(f"{model}\nskill against {reference}", fontsize=8)
    axes[-1].set_xticks(place, regions, rotation=30, ha="right", fontsize=8)
    if models:
        axes[0].legend(fontsize=7, frameon=False, ncols=2)
    return figure


def calibration_panels(curves: xr.Dataset, models: Sequence[str]) -> Figure | None:
    """Rank histograms and reliability diagrams of ensembles: left in, right out of distribution.

    `curves` is the result of `rainshift.benchmarking.curves.gather`. Returns None if it contains neither.
    """
    from matplotlib.figure import Figure

    reliable = [str(name).removesuffix(".forecast") for name in curves.data_vars if str(name).endswith(".forecast")]
    rows = [*(["rank_deviation"] if "rank_deviation.share" in curves else []), *reliable]
    if not rows or not models:
        return None
    figure = Figure(figsize=(8.4, 2.7 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False, sharey="row")
    for line, label in zip(axes, rows, strict=True):
        for axis, side in zip(line, ("in", "out"), strict=True):
            for model, colour in colours(models).items():
                here = {"model": model, "distribution": side}
                if label == "rank_deviation":
                    share = curves["rank_deviation.share"].sel(here).mean("test_region")
                    axis.step(share["rank"], share * share.size, where="mid", color=colour, label=model)
                else:
                    diagram = calibration(curves, label).sel(here).dropna("probability")
                    axis.plot(diagram["forecast"], diagram["observed"], "o-", ms=3, color=colour, label=model)
            if label == "rank_deviation":
                axis.axhline(1, color="black", linewidth=0.6)
                axis.set(xlabel="rank of the truth", ylabel="share relative to a flat histogram", ylim=(0, None))
            else:
                axis.plot([0, 1], [0, 1], color="black", linewidth=0.6)
                what = f"rain above {label.rpartition('_')[2]} mm/h"
                axis.set(
                    xlabel=f"forecast probability of {what}", ylabel="observed frequency", xlim=(0, 1), ylim=(0, 1)
                )
            axis.set_title(f"{side} of distribution".replace("in of", "in"), fontsize=9)
            axis.tick_params(labelsize=7)
    axes[0, 0].legend(fontsize=7, frameon=False, ncols=2)
    return figure


def spectrum_lines(curves: xr.Dataset, models: Sequence[str]) -> Figure | None:
    """Ratio of predicted to observed power by wavenumber, in dB; None if `curves` has no spectra."""
    from matplotlib.figure import Figure

    if "ralsd.predicted" not in curves:
        return None
    ratio = spectral_ratio(curves)
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, side in zip(axes, ("in", "out"), strict=True):
        for model, colour in colours(models).items():
            line = ratio.sel(model=model, distribution=side).dropna("wavenumber")
            axis.semilogx(line["wavenumber"], line, color=colour, label=model)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(
            xlabel="wavenumber, cycles along the longer side", ylabel="predicted / observed power, dB", ylim=SHOWN_DB
        )
        axis.set_title(f"{side} of distribution".replace("in of", "in"), fontsize=9)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def transfer_maps(losses: xr.DataArray) -> Figure:
    """One heat map per model of `(model, region, other)`: increase of the CRPS over training on the region itself."""
    from matplotlib.figure import Figure

    models, regions = (list(map(str, losses[name].values)) for name in ("model", "region"))
    columns = min(3, len(models))
    lines = -(-len(models) // columns)
    edge = 1.2 + 0.55 * len(regions)
    figure = Figure(figsize=((edge + 0.4) * columns + 1.2, edge * lines + 0.6), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    most = float(np.nanmax(np.abs(losses.values))) or 1.0
    for axis, model in zip(axes, models, strict=False):
        table = losses.sel(model=model).transpose("other", "region").values
        shown = axis.imshow(table, cmap="RdBu_r", vmin=-most, vmax=most)
        for (row, column), value in np.ndenumerate(table):
            colour = "white" if abs(value) > 0.6 * most else "black"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
        axis.set_xticks(range(len(regions)), regions, rotation=45, ha="right", fontsize=7)
        axis.set_yticks(range(len(regions)), losses["other"].values, fontsize=7)
        axis.set(xlabel="tested on", ylabel="trained on")
        axis.set_title(model, fontsize=9)
    for axis in axes[len(models) :]:
        axis.set_visible(False)
    figure.colorbar(shown, ax=list(axes), label="increase of CRPS over training on the region, %", shrink=0.8)
    return figure

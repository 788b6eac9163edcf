"""Figures of a benchmark and of predictions: charts and maps, for the browser and for print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.report.blocks import Panel, Viewer, ViewerAxis, ViewerField
from geoml.report.figures import HeatMap, Plot, PlotAxis, Series, Subplot, guide, offset
from geoml.report.palette import OKABE_ITO, colours
from rainshift.benchmarking.curves import calibration, spectral_ratio

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "adaptation_chart",
    "calibration_chart",
    "heat_maps",
    "prediction_viewer",
    "rain_viewer",
    "risk_chart",
    "shift_chart",
    "skill_chart",
    "spectrum_chart",
    "transfer_chart",
]

#: Class bounds in mm/h as on weather radar displays, roughly doubling; rain below the first bound is drawn as dry.
RAIN_BOUNDS_MM_H = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
DRY = "#ffffff"
#: Axis limits of spectra in dB. A field below the lower limit has no fine structure left.
SHOWN_DB = (-30.0, 10.0)
#: Length of region names in letters above which heat maps are drawn below each other instead of in one row.
LONG_NAME = 20
SIDES = {"in": "in distribution", "out": "out of distribution"}
#: Variables of the trust map, and their names on the page.
TRUST = {"expected_error": "expected error", "error_bound": "error bound", "novelty": "novelty"}


def _same_on_both_sides(skill: xr.DataArray) -> bool:
    """Whether a model has the same skill in and out of distribution, since it was not trained."""
    inside, outside = (skill.sel(distribution=side).values for side in SIDES)
    return bool(np.isfinite(inside).any()) and np.array_equal(inside, outside, equal_nan=True)


def skill_chart(results: xr.Dataset, palette: Mapping[str, str]) -> Plot:
    """Plot skill by region with intervals: filled in distribution, hollow out of distribution, one colour per model."""
    regions = [str(name) for name in results["test_region"].values]
    series = []
    for number, (model, colour) in enumerate(palette.items()):
        untrained = _same_on_both_sides(results["skill"].sel(model=model))
        for side, label in {"in": "not trained"}.items() if untrained else SIDES.items():
            picked = results.sel(model=model, distribution=side)
            if not np.isfinite(picked["skill"].values).any():
                continue  # nothing was scored: the reference, or a side without regions
            x = np.arange(len(regions)) + offset(2 * number + (side == "out"), 2 * len(palette))
            low, high = picked["skill_low"].values, picked["skill_high"].values
            series.append(Series(f"{model}, {label}", x, picked["skill"].values, colour, "points", low, high,
                                 hollow=side == "out", texts=regions))  # fmt: skip
    y = PlotAxis(f"skill against {results.attrs['reference']}")
    ends = [-0.5, len(regions) - 0.5]
    return Plot([Subplot([*series, guide(ends, [0, 0])], PlotAxis(names=regions), y)], height=420)


def adaptation_chart(rows: Sequence[Mapping[str, Any]], reference: str) -> Plot:
    """Plot skill with intervals against hours of local data, one line per region and model.

    `rows` is the result of `rainshift.benchmarking.adaptation.adaptation_rows`.
    """
    several = len({row["model"] for row in rows}) > 1
    names = [f"{row['model']}, {row['region']}" if several else str(row["region"]) for row in rows]
    series = []
    for (name, colour), row in zip(colours(names).items(), rows, strict=True):
        middle, low, high = np.array(row["skill"], float).T
        shown = {} if np.isnan([low, high]).all() else {"low": low, "high": high}
        x, texts = np.arange(len(middle)), [f"{hours} h" for hours in row["hours"]]
        series.append(Series(name, x, middle, colour, "both", **shown, texts=texts))
    ticks = [f"{hours} h" for hours in rows[0]["hours"][:-1]] + ["complete record"]
    x_axis = PlotAxis("hours of local data", names=ticks)
    return Plot([Subplot(series, x_axis, PlotAxis(f"skill against {reference}"))])


def heat_maps(table: xr.DataArray, *, unit: str, diverging: bool) -> Plot:
    """Plot one heat map per model of `(model, region, other)`: test region across, training region down."""
    models, regions, others = (list(map(str, table[name].values)) for name in ("model", "region", "other"))
    most = float(np.nanmax(np.abs(table.values))) or 1.0
    low, high = (-most, most) if diverging else (float(np.nanmin(table.values)), float(np.nanmax(table.values)))
    x, y = PlotAxis("tested on", names=regions), PlotAxis("trained on", names=others)
    scale = (unit, low, high, "RdBu_r" if diverging else "Viridis_r")
    parts = [
        Subplot(HeatMap(table.sel(model=model).transpose("other", "region").values, *scale), x, y, model)
        for model in models
    ]
    long = max(map(len, regions)) > LONG_NAME  # long names of records: one map per row
    return Plot(parts, 1 if long else min(3, len(models)), max(260, 120 + 44 * len(others)))


def calibration_chart(curves: xr.Dataset, palette: Mapping[str, str]) -> Plot | None:
    """Plot rank histograms in the first row and reliability diagrams below; left in, right out of distribution.

    `curves` is the result of `rainshift.benchmarking.curves.gather`. Returns None without curves or ensembles.
    """
    reliable = [str(name).removesuffix(".forecast") for name in curves.data_vars if str(name).endswith(".forecast")]
    parts = []
    if "rank_deviation.share" in curves:
        ranks = curves["rank_deviation.share"].mean("test_region")
        for side, label in SIDES.items():
            lines = []
            for model, colour in palette.items():
                share = ranks.sel(model=model, distribution=side)
                lines.append(Series(model, share["rank"].values, share * share.size, colour, "steps"))
            y = PlotAxis("share relative to a flat histogram", (0, None))
            parts.append(Subplot([*lines, guide([0, 1], [1, 1])], PlotAxis("rank of the truth"), y, f"Ranks, {label}"))
    for name in reliable:
        rain = f"rain above {name.rpartition('_')[2]} mm/h"
        diagrams = calibration(curves, name)
        for side, label in SIDES.items():
            lines = []
            for model, colour in palette.items():
                diagram = diagrams.sel(model=model, distribution=side).dropna("probability")
                lines.append(Series(model, diagram["forecast"].values, diagram["observed"].values, colour, "both"))
            x, y = (PlotAxis(title, (0, 1)) for title in ("forecast probability", "observed frequency"))
            parts.append(Subplot([*lines, guide([0, 1], [0, 1])], x, y, f"Reliability of {rain}, {label}"))
    return Plot(parts, 2, 300) if parts and palette else None


def spectrum_chart(curves: xr.Dataset, palette: Mapping[str, str]) -> Plot | None:
    """Plot the ratio of predicted to observed power by wavenumber; 0 dB means equal power. None without spectra."""
    if "ralsd.predicted" not in curves:
        return None
    ratio = spectral_ratio(curves)
    parts = []
    for side, label in SIDES.items():
        lines = []
        for model, colour in palette.items():
            line = ratio.sel(model=model, distribution=side).dropna("wavenumber")
            lines.append(Series(model, line["wavenumber"].values, line.values, colour))
        known = ratio["wavenumber"].values
        lines.append(guide([known.min(), known.max()], [0, 0]))
        x = PlotAxis("wavenumber, cycles along the longer side", log=True)
        parts.append(Subplot(lines, x, PlotAxis("predicted / observed power, dB", SHOWN_DB), label))
    return Plot(parts, 2)


def shift_chart(distance: xr.DataArray, drop: xr.DataArray, palette: Mapping[str, str]) -> Plot:
    """Plot the loss of each model in each test region, in percent, against the distance from the training regions."""
    regions = [str(name) for name in distance["region"].values]
    series = [
        Series(model, distance.values, drop.sel(model=model, test_region=regions).values, colour, "points",
               texts=regions)
        for model, colour in palette.items()
    ]  # fmt: skip
    marks = list(zip(map(float, distance.values), regions, strict=True))
    x = PlotAxis("Wasserstein-1 from the training regions, standard deviations, mean of predictors", marks=marks)
    return Plot([Subplot(series, x, PlotAxis("increase of CRPS out of distribution, %"))])


def transfer_chart(distance: xr.DataArray, loss: xr.DataArray) -> Plot:
    """Plot the loss of training on another region against the climate distance of the two regions."""
    others = distance["other"].values
    series = []
    for number, (region, colour) in enumerate(colours(list(map(str, distance["region"].values))).items()):
        apart = others != region
        x, y = (part.sel(region=region).values[apart] for part in (distance, loss))
        texts = [f"trained on {other}" for other in others[apart]]
        hollow = number // len(OKABE_ITO) % 2 == 1
        series.append(Series(f"tested on {region}", x, y, colour, "points", hollow=hollow, texts=texts))
    x_axis = PlotAxis("Wasserstein-1 between two regions, standard deviations, mean of predictors")
    return Plot([Subplot(series, x_axis, PlotAxis("mean increase of CRPS over training on the region, %"))])


def risk_chart(risks: Mapping[str, tuple[Any, Any, Any]], palette: Mapping[str, str]) -> Plot:
    """Plot risk–coverage curves by region, from `(coverage, risk, risk if cells are ordered by the true error)`."""
    series = []
    for region, (coverage, risk, least) in risks.items():
        series.append(Series(f"{region}, ranked by expected error", coverage, risk, palette[region]))
        series.append(Series(f"{region}, ranked by true error", coverage, least, palette[region], dashed=True))
    x = PlotAxis("coverage: share of cells kept, largest expected error removed first", (0, 1))
    return Plot([Subplot(series, x, PlotAxis("mean error of the kept cells, mm/h", (0, None)))])


def rain_viewer(shown: Mapping[str, xr.Dataset]) -> Viewer:
    """Show input, members of every model and target in radar colour classes, by region, time and member."""
    fields: list[ViewerField] = []
    names: dict[str, None] = {"input": None}
    times = _labels(shown)
    members = max((data.sizes.get("member", 1) for data in shown.values()), default=1)
    for place, now in _hours(shown, fields):
        for name in map(str, now["model"].values if "prediction" in now else ()):
            names[name] = None
            rain = now["prediction"].sel(model=name)
            known = [m for m in range(rain.sizes["member"]) if bool(rain.sel(member=m).notnull().any())]
            for member in known:
                where = place if len(known) == 1 else place | {"member": str(member + 1)}
                fields.append(_field(name, where, rain.sel(member=member), "lon", "lat"))
        fields.append(_field("target", place, now["target"], "lon", "lat"))
    panels = [Panel(name, "mm/h", "Viridis_r", bounds=RAIN_BOUNDS_MM_H, under=DRY) for name in (*names, "target")]
    return Viewer(
        _selectors(shown, times, members),
        panels,
        fields,
        alt="Maps of rain: the coarse input, a member of each model, and the target",
        caption=f"Rain in mm/h around the wettest test time (+0 h: {_when(shown)}); no model was trained on the times "
        "shown. Deterministic models show the same map for every member.",
        x_title="longitude",
        y_title="latitude",
        aspect=_aspect(shown),
        rows="region",
    )


def prediction_viewer(shown: Mapping[str, xr.Dataset]) -> Viewer:
    """Show input, a member, mean and target of one model, and below them the error of the mean and the trust map.

    Expected error, error bound and novelty are shown if the data have them
    (`rainshift.report.example_maps.of_model`).
    """
    fields: list[ViewerField] = []
    times = _labels(shown)
    members = max(data.sizes["member"] for data in shown.values())
    mean = "mean of members" if members > 1 else "prediction"
    for place, now in _hours(shown, fields):
        for member in range(now.sizes["member"] if members > 1 else 0):
            rain = now["prediction"].isel(model=0, member=member)
            fields.append(_field("member", place | {"member": str(member + 1)}, rain, "lon", "lat"))
        parts = {mean: now["mean"]}
        if "target" in now:
            parts |= {"target": now["target"], "error": abs(now["mean"] - now["target"])}
        parts |= {title: now[name] for name, title in TRUST.items() if name in now}
        fields += [_field(name, place, part, "lon", "lat") for name, part in parts.items()]
    found = {field.panel for field in fields}
    rain_panels = [name for name in ("input", "member", mean, "target") if name in found]
    panels = [Panel(name, "mm/h", "Viridis_r", bounds=RAIN_BOUNDS_MM_H, under=DRY) for name in rain_panels]
    wrong = [name for name in ("error", *list(TRUST.values())[:2]) if name in found]
    panels += [Panel(name, "mm/h", "Magma", 0.0, _largest(fields, wrong)) for name in wrong]
    if "novelty" in found:
        panels.append(Panel("novelty", "novelty", "Cividis", 0.0, _largest(fields, ["novelty"])))
    return Viewer(
        _selectors(shown, times, members),
        panels,
        fields,
        alt="Maps of rain: input, prediction, target, error and expected error",
        caption=f"Rain around the wettest time (+0 h: {_when(shown)})."
        + (f" The error is the absolute error of the {mean}." if "error" in found else ""),
        x_title="longitude",
        y_title="latitude",
        aspect=_aspect(shown),
        rows="region",
    )


def _largest(fields: Sequence[ViewerField], names: Sequence[str]) -> float:
    """Return the 99.5th percentile of the known values of some panels; 1 if it is 0 or no value is known."""
    values = np.concatenate([f.values[np.isfinite(f.values)].ravel() for f in fields if f.panel in names] or [[]])
    return float(np.quantile(values, 0.995)) or 1.0 if values.size else 1.0


def _label(time: np.datetime64, wettest: np.datetime64) -> str:
    """Return the offset from the wettest time, to the minute: `-2 h`, `+0 h`, `+15 min`.

    >>> _label(np.datetime64("2001-01-01T00:15"), np.datetime64("2001-01-01T00:00"))
    '+15 min'
    """
    minutes = round((time - wettest) / np.timedelta64(1, "m"))
    return f"{minutes // 60:+d} h" if minutes % 60 == 0 else f"{minutes:+d} min"


def _when(shown: Mapping[str, xr.Dataset]) -> str:
    """Return the wettest times in UTC as text, with the regions if there are several."""
    times = {region: f"{data.attrs['wettest'][:16].replace('T', ' ')} UTC" for region, data in shown.items()}
    return ", ".join(time if len(times) == 1 else f"{region} {time}" for region, time in times.items())


def _labels(shown: Mapping[str, xr.Dataset]) -> list[str]:
    """Return the time offsets of all regions, ascending."""
    found: dict[int, str] = {}
    for data in shown.values():
        wettest = np.datetime64(data.attrs["wettest"])
        for time in data["time"].values:
            found[round((time - wettest) / np.timedelta64(1, "m"))] = _label(time, wettest)
    return [found[minutes] for minutes in sorted(found)]


def _hours(shown: Mapping[str, xr.Dataset], fields: list[ViewerField]) -> Iterator[tuple[dict[str, str], xr.Dataset]]:
    """Yield each region's times and their position in the viewer; appends the input, if any, to `fields`."""
    for region, data in shown.items():
        wettest = np.datetime64(data.attrs["wettest"])
        for time in data["time"].values:
            now = data.sel(time=time)
            place = {"region": region, "time": _label(time, wettest)}
            if "input" in now:
                fields.append(_field("input", place, now["input"], "coarse_lon", "coarse_lat"))
            yield place, now


def _selectors(shown: Mapping[str, xr.Dataset], times: list[str], members: int) -> tuple[ViewerAxis, ...]:
    """Axes of the viewer: regions, times starting at the wettest, and members if there are several."""
    drawn = [ViewerAxis("member", [str(m + 1) for m in range(members)], "range")] if members > 1 else []
    return ViewerAxis("region", list(shown)), ViewerAxis("time", times, "range", start=times.index("+0 h")), *drawn


def _aspect(shown: Mapping[str, xr.Dataset]) -> float:
    """Return the length ratio of a degree of latitude to one of longitude, at the mean latitude of the regions."""
    middle = np.mean([float(data["lat"].mean()) for data in shown.values()])
    return float(1 / np.cos(np.deg2rad(middle)))


def _field(panel: str, place: Mapping[str, str], field: xr.DataArray, x: str, y: str) -> ViewerField:
    rain = field.transpose(y, x)
    return ViewerField(panel, place, rain.values, rain[x].values, rain[y].values)

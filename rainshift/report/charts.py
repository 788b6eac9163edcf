"""Interactive charts of a benchmark, from the same results as the printed figures of `rainshift.report.figures`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.report.blocks import Panel, Viewer, ViewerAxis, ViewerField
from geoml.report.palette import see_through
from rainshift.benchmarking.curves import calibration, spectral_ratio
from rainshift.report.figures import DRY, RAIN_BOUNDS_MM_H, SHOWN_DB

if TYPE_CHECKING:
    import xarray as xr
    from plotly.graph_objects import Figure

__all__ = [
    "calibration_chart",
    "heat_maps",
    "prediction_viewer",
    "rain_viewer",
    "risk_chart",
    "shift_chart",
    "skill_chart",
    "spectrum_chart",
]

SIDES = {"in": "in distribution", "out": "out of distribution"}
#: Variables of the trust map, and their names on the page.
TRUST = {"expected_error": "expected error", "error_bound": "error bound", "novelty": "novelty"}


def skill_chart(results: xr.Dataset, palette: Mapping[str, str]) -> Figure:
    """Skill by region with intervals: filled in distribution, hollow out of distribution, one colour per model."""
    from plotly.graph_objects import Figure, Scatter

    regions = [str(name) for name in results["test_region"].values]
    figure = Figure()
    places = np.linspace(-0.32, 0.32, max(2 * len(palette), 2))
    for number, (model, colour) in enumerate(palette.items()):
        for side, label in SIDES.items():
            picked = results.sel(model=model, distribution=side)
            value = picked["skill"].values
            x = np.arange(len(regions)) + places[2 * number + (side == "out")]
            bars = {
                "type": "data",
                "symmetric": False,
                "array": _known(picked["skill_high"].values - value),
                "arrayminus": _known(value - picked["skill_low"].values),
                "thickness": 1.2,
                "width": 3,
            }
            marker = {"color": colour, "size": 9, "symbol": "circle" if side == "in" else "circle-open"}
            figure.add_trace(
                Scatter(x=x, y=_known(value), mode="markers", name=f"{model}, {label}", marker=marker, error_y=bars,
                        text=regions, hovertemplate="%{text}: %{y:.3f}<extra>" + f"{model}, {label}</extra>")
            )  # fmt: skip
    figure.update_layout(
        height=440,
        yaxis={"title": f"skill against {results.attrs['reference']}", "zeroline": True},
        xaxis={"tickvals": list(range(len(regions))), "ticktext": regions},
        legend={"orientation": "h", "y": -0.18},
        margin={"t": 20, "r": 10},
    )
    return figure


def _known(values: Any) -> list[float | None]:
    """Values for JSON, which has no NaN."""
    return [float(value) if np.isfinite(value) else None for value in np.ravel(values)]


def heat_maps(table: xr.DataArray, *, bar: str, diverging: bool) -> Figure:
    """One heat map per model of `(model, region, other)`: tested region across, training region down."""
    from plotly.subplots import make_subplots

    models, regions, others = (list(map(str, table[name].values)) for name in ("model", "region", "other"))
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    figure = make_subplots(rows, columns, subplot_titles=models, shared_yaxes=True, horizontal_spacing=0.03)
    most = float(np.nanmax(np.abs(table.values))) or 1.0
    low, high = (-most, most) if diverging else (float(np.nanmin(table.values)), float(np.nanmax(table.values)))
    for number, model in enumerate(models):
        values = table.sel(model=model).transpose("other", "region").values
        figure.add_heatmap(
            z=[_known(line) for line in values], x=regions, y=others, coloraxis="coloraxis",
            texttemplate="%{z:.3~g}", hovertemplate="trained on %{y}<br>tested on %{x}<br>%{z:.4~g}<extra></extra>",
            row=number // columns + 1, col=number % columns + 1,
        )  # fmt: skip
    figure.update_layout(
        coloraxis={
            "colorscale": "RdBu" if diverging else "Viridis",
            "reversescale": True,
            "cmin": low,
            "cmax": high,
            "colorbar": {"title": {"text": bar, "side": "right"}, "thickness": 12},
        },
        height=110 + (60 + 44 * len(others)) * rows,
        margin={"t": 40, "r": 10},
    )
    return figure


def calibration_chart(curves: xr.Dataset, palette: Mapping[str, str]) -> Figure | None:
    """Rank histograms in the first row, reliability diagrams below; left in, right out of distribution."""
    from plotly.subplots import make_subplots

    reliable = [str(name).removesuffix(".forecast") for name in curves.data_vars if str(name).endswith(".forecast")]
    labels = [*(["rank_deviation"] if "rank_deviation.share" in curves else []), *reliable]
    if not labels or not palette:
        return None
    titles = [f"{_title(label)}, {side}" for label in labels for side in SIDES.values()]
    figure = make_subplots(
        len(labels), 2, subplot_titles=titles, shared_yaxes=True, vertical_spacing=0.28 / len(labels)
    )
    for row, label in enumerate(labels, start=1):
        for column, side in enumerate(SIDES, start=1):
            for model, colour in palette.items():
                here = {"model": model, "distribution": side}
                look = {"name": model, "legendgroup": model, "showlegend": row == 1 and column == 1}
                if label == "rank_deviation":
                    share = curves["rank_deviation.share"].sel(here).mean("test_region")
                    line = {"x": _known(share["rank"]), "y": _known(share * share.size), "mode": "lines",
                            "line": {"color": colour, "shape": "hvh"}}  # fmt: skip
                else:
                    diagram = calibration(curves, label).sel(here).dropna("probability")
                    line = {"x": _known(diagram["forecast"]), "y": _known(diagram["observed"]),
                            "mode": "lines+markers", "line": {"color": colour}}  # fmt: skip
                figure.add_scatter(**line, **look, row=row, col=column)
            ideal = ([0, 1], [1, 1]) if label == "rank_deviation" else ([0, 1], [0, 1])
            figure.add_scatter(x=ideal[0], y=ideal[1], mode="lines", line={"color": "#888888", "width": 1},
                               hoverinfo="skip", showlegend=False, row=row, col=column)  # fmt: skip
    figure.update_layout(height=330 * len(labels), margin={"t": 40, "r": 10})
    return figure


def _title(label: str) -> str:
    """The title of the panel for a score's curve."""
    if label == "rank_deviation":
        return "Rank of the truth, relative to a flat histogram"
    return f"Reliability of rain above {label.rpartition('_')[2]} mm/h"


def spectrum_chart(curves: xr.Dataset, palette: Mapping[str, str]) -> Figure | None:
    """Ratio of predicted to observed power by wavenumber; at 0 dB the two are equal."""
    from plotly.subplots import make_subplots

    if "ralsd.predicted" not in curves:
        return None
    ratio = spectral_ratio(curves)
    figure = make_subplots(1, 2, subplot_titles=list(SIDES.values()), shared_yaxes=True)
    for column, side in enumerate(SIDES, start=1):
        for model, colour in palette.items():
            line = ratio.sel(model=model, distribution=side).dropna("wavenumber")
            figure.add_scatter(
                x=_known(line["wavenumber"]), y=_known(line), mode="lines", name=model, legendgroup=model,
                line={"color": colour}, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(type="log", title="wavenumber, cycles along the longer side")
    figure.update_yaxes(title="predicted / observed power, dB", col=1)
    figure.update_yaxes(range=list(SHOWN_DB))
    figure.update_layout(height=380, margin={"t": 40, "r": 10})
    return figure


def shift_chart(distance: xr.DataArray, drop: xr.DataArray, palette: Mapping[str, str]) -> Figure:
    """Loss of each model in each test region, in per cent, against the region's distance from the training regions."""
    from plotly.graph_objects import Figure

    regions = [str(name) for name in distance["region"].values]
    figure = Figure()
    for model, colour in palette.items():
        lost = drop.sel(model=model, test_region=regions)
        figure.add_scatter(
            x=_known(distance),
            y=_known(lost),
            mode="markers",
            text=regions,
            hovertemplate="%{text}: %{y:.3~g} % at %{x:.3~g}<extra>" + model + "</extra>",
            name=model,
            marker={"color": see_through(colour, 0.8), "size": 10},
        )
    for region, place in zip(regions, _known(distance), strict=True):
        figure.add_annotation(x=place, y=1, yref="paper", text=region, textangle=-35, showarrow=False, yanchor="bottom",
                              xanchor="left")  # fmt: skip
        figure.add_vline(x=place, line={"width": 0.5, "dash": "dot", "color": "#888888"})
    figure.update_layout(
        height=460,
        xaxis={"title": "Wasserstein-1 from the training regions, standard deviations, mean of predictors"},
        yaxis={"title": "increase of CRPS out of distribution, %"},
        margin={"t": 110, "r": 60},
    )
    return figure


def rain_viewer(shown: Mapping[str, xr.Dataset]) -> Viewer:
    """Input, members of every model and target, in the colour classes of weather radar, by region, time and member."""
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
        caption="Rain in mm/h around the wettest test time (+0 h); no model was trained on the times shown. "
        "Deterministic models show the same map for every member.",
        x_title="longitude",
        y_title="latitude",
        aspect=_aspect(shown),
    )


def prediction_viewer(shown: Mapping[str, xr.Dataset]) -> Viewer:
    """Input, a member, mean and target of one model; below, the error of the mean and the trust map.

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
        caption="Rain around the wettest time (+0 h)."
        + (f" The error is the absolute error of the {mean}." if "error" in found else ""),
        x_title="longitude",
        y_title="latitude",
        aspect=_aspect(shown),
    )


def _largest(fields: Sequence[ViewerField], names: Sequence[str]) -> float:
    """The 99.5th percentile of the known values of some panels; 1 if it is 0 or no value is known."""
    values = np.concatenate([f.values[np.isfinite(f.values)].ravel() for f in fields if f.panel in names] or [[]])
    return float(np.quantile(values, 0.995)) or 1.0 if values.size else 1.0


def risk_chart(curves: Mapping[str, tuple[Any, Any, Any]], palette: Mapping[str, str]) -> Figure:
    """Risk–coverage curves by region, from `(coverage, risk, risk if cells are ordered by the error itself)`."""
    from plotly.graph_objects import Figure

    figure = Figure()
    for region, (coverage, risk, least) in curves.items():
        for values, dash, what in ((risk, "solid", "ranked by expected error"), (least, "dot", "ranked by true error")):
            figure.add_scatter(x=_known(coverage), y=_known(values), mode="lines", name=f"{region}, {what}",
                               line={"color": palette[region], "dash": dash})  # fmt: skip
    figure.update_layout(
        height=380,
        xaxis={"title": "coverage: share of cells kept, largest expected error removed first", "range": [0, 1]},
        yaxis={"title": "mean error of the kept cells, mm/h", "rangemode": "tozero"},
        margin={"t": 20, "r": 10},
    )
    return figure


def _label(time: np.datetime64, wettest: np.datetime64) -> str:
    """Offset from the wettest time, to the minute: `-2 h`, `+0 h`, `+15 min`.

    >>> _label(np.datetime64("2001-01-01T00:15"), np.datetime64("2001-01-01T00:00"))
    '+15 min'
    """
    minutes = round((time - wettest) / np.timedelta64(1, "m"))
    return f"{minutes // 60:+d} h" if minutes % 60 == 0 else f"{minutes:+d} min"


def _labels(shown: Mapping[str, xr.Dataset]) -> list[str]:
    """The time offsets of all regions, ascending."""
    found: dict[int, str] = {}
    for data in shown.values():
        wettest = np.datetime64(data.attrs["wettest"])
        for time in data["time"].values:
            found[round((time - wettest) / np.timedelta64(1, "m"))] = _label(time, wettest)
    return [found[minutes] for minutes in sorted(found)]


def _hours(shown: Mapping[str, xr.Dataset], fields: list[ViewerField]) -> Iterator[tuple[dict[str, str], xr.Dataset]]:
    """Each region's times and their position in the viewer; appends the input, if any, to `fields`."""
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
    """Length of a degree of latitude over that of a degree of longitude, at the mean latitude of the regions."""
    middle = np.mean([float(data["lat"].mean()) for data in shown.values()])
    return float(1 / np.cos(np.deg2rad(middle)))


def _field(panel: str, place: Mapping[str, str], field: xr.DataArray, x: str, y: str) -> ViewerField:
    rain = field.transpose(y, x)
    return ViewerField(panel, place, rain.values, rain[x].values, rain[y].values)

"""`Plot`s as Plotly figures in JSON, for the browser."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoml.report.figures import GUIDE, HeatMap, Plot, PlotAxis, Series

__all__ = ["plotly_figure"]

_MODES = {"line": "lines", "points": "markers", "both": "lines+markers", "steps": "lines"}


def plotly_figure(plot: Plot) -> dict[str, Any]:
    """Data and layout of a Plotly figure.

    >>> from geoml.report.figures import Series, Subplot
    >>> made = plotly_figure(Plot([Subplot([Series("gain", [0, 1], [2.0, float("nan")], "#0072b2")])]))
    >>> made["data"][0]["y"], made["layout"]["height"]
    ([2.0, None], 460)
    """
    marked = any(part.x.marks for part in plot.subplots)
    layout: dict[str, Any] = {
        "height": 80 + plot.height * plot.rows,
        "margin": {"t": 110 if marked else 40, "r": 60 if marked else 10, "b": 90},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "grid": {"rows": plot.rows, "columns": plot.columns, "pattern": "independent", "xgap": 0.08,
                 "ygap": 0.28},
        "annotations": [],
        "shapes": [],
    }  # fmt: skip
    data: list[dict[str, Any]] = []
    named: set[str] = set()
    for number, part in enumerate(plot.subplots):
        row, column = divmod(number, plot.columns)
        end = str(number + 1) if number else ""
        first = row * plot.columns
        place = {"xaxis": f"x{end}", "yaxis": f"y{end}"}
        named_by_data = isinstance(part.content, HeatMap)
        layout[f"xaxis{end}"], layout[f"yaxis{end}"] = (
            _axis(axis, ticks=not named_by_data) for axis in (part.x, part.y)
        )
        if column:
            matched = {"matches": f"y{first + 1 if first else ''}", "title": {"text": ""}, "showticklabels": False}
            layout[f"yaxis{end}"] |= matched
        if isinstance(part.content, HeatMap):
            layout[f"yaxis{end}"]["autorange"] = "reversed"
            layout["coloraxis"] = _colours(part.content)
            data.append(_heat_map(part.content, part.x, part.y) | place)
        else:
            for series in part.content:
                seen = series.name in named or not series.name
                data.append(_trace(series) | place | {"legendgroup": series.name, "showlegend": not seen})
                named.add(series.name)
        text = {"showarrow": False, "yanchor": "bottom", "y": 1.0, "yref": f"y{end} domain"}
        if part.title:
            layout["annotations"].append(text | {"text": part.title, "x": 0.5, "xref": f"x{end} domain"})
        for x, name in part.x.marks:
            layout["annotations"].append(
                text | {"text": name, "x": x, "xref": f"x{end}", "textangle": -35, "xanchor": "left"}
            )
            line = {"width": 0.5, "dash": "dot", "color": GUIDE}
            layout["shapes"].append(
                {"type": "line", "x0": x, "x1": x, "xref": f"x{end}", "y0": 0, "y1": 1, "yref": f"y{end} domain",
                 "line": line}
            )  # fmt: skip
    return {"data": data, "layout": layout}


def _axis(axis: PlotAxis, *, ticks: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"title": {"text": axis.title}, "type": "log" if axis.log else "-"}
    if axis.limits != (None, None):
        made["range"] = [end and float(np.log10(end)) for end in axis.limits] if axis.log else list(axis.limits)
    if axis.names and ticks:
        made |= {"tickvals": list(range(len(axis.names))), "ticktext": list(axis.names)}
    return made


def _trace(series: Series) -> dict[str, Any]:
    style = {"shape": "hvh" if series.style == "steps" else "linear", "dash": "dot" if series.dashed else "solid"}
    trace: dict[str, Any] = {
        "type": "scatter", "mode": _MODES[series.style], "name": series.name, "x": _known(series.x),
        "y": _known(series.y), "line": {"color": series.colour, **style},
        "marker": {"color": series.colour, "size": 9, "symbol": "circle-open" if series.hollow else "circle"},
    }  # fmt: skip
    if not series.name:
        return trace | {"hoverinfo": "skip", "line": {"color": series.colour, "width": 1}}
    if series.low is not None and series.high is not None:
        y = np.asarray(series.y, np.float64)
        trace["error_y"] = {
            "type": "data", "symmetric": False, "array": _known(np.asarray(series.high) - y),
            "arrayminus": _known(y - np.asarray(series.low)), "thickness": 1.2, "width": 3,
        }  # fmt: skip
    if series.texts:
        hover = "%{text}: %{y:.3~g} at %{x:.3~g}<extra>"
        trace |= {"text": list(series.texts), "hovertemplate": f"{hover}{series.name}</extra>"}
    return trace


def _heat_map(content: HeatMap, x: PlotAxis, y: PlotAxis) -> dict[str, Any]:
    hover = f"{y.title} %{{y}}<br>{x.title} %{{x}}<br>%{{z:.4~g}} {content.unit}<extra></extra>"
    values = [_known(line) for line in content.values]
    return {"type": "heatmap", "z": values, "x": list(x.names), "y": list(y.names), "coloraxis": "coloraxis",
            "texttemplate": "%{z:.3~g}", "hovertemplate": hover}  # fmt: skip


def _colours(content: HeatMap) -> dict[str, Any]:
    from plotly.colors import get_colorscale

    bar = {"title": {"text": content.unit, "side": "right"}, "thickness": 12}
    return {"colorscale": get_colorscale(content.colours), "cmin": content.low, "cmax": content.high, "colorbar": bar}


def _known(values: Any) -> list[float | None]:
    """Values for JSON, which has no NaN."""
    return [float(value) if np.isfinite(value) else None for value in np.ravel(np.asarray(values, np.float64))]

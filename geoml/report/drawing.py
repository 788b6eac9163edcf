"""Charts and viewers of a report drawn with Matplotlib, for print."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from geoml.data.choice import spanning
from geoml.report.blocks import Panel, Viewer, ViewerField
from geoml.report.figures import GUIDE, HeatMap, Plot, PlotAxis, Series
from geoml.runs.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = ["draw_plot", "draw_viewer", "save_figure", "save_viewer"]

SOLID, EMPTY, MARK = "#4a4a4a", "#e3e0da", "#d55e00"
#: Largest number of values of the axis `columns` in a printed viewer.
COLUMNS = 3


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 120) -> None:
    """Write a figure atomically, in the format of the file name's suffix."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=dpi, format=Path(path).suffix.lstrip("."))


def draw_plot(plot: Plot) -> Figure:
    """The plot as a Matplotlib figure.

    >>> from geoml.report.figures import Series, Subplot
    >>> figure = draw_plot(Plot([Subplot([Series("gain", [0, 1], [2.0, float("nan")], "#0072b2")])]))
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['gain']
    """
    from matplotlib.figure import Figure

    size = (max(8.4, 3.0 * plot.columns), 0.4 + plot.height / 110 * plot.rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(plot.rows, plot.columns, squeeze=False, sharey="row")
    axes = list(grid.ravel())
    for number, (axis, part) in enumerate(zip(axes, plot.subplots, strict=False)):
        inner = number % plot.columns > 0
        _set_axes(axis, part.x, part.y if not inner else PlotAxis(limits=part.y.limits, names=part.y.names))
        if isinstance(part.content, HeatMap):
            shown = _draw_heat_map(axis, part.content)
        for series in () if isinstance(part.content, HeatMap) else part.content:
            _draw_series(axis, series)
        axis.set_title(part.title, fontsize=9)
    for axis in axes[len(plot.subplots) :]:
        axis.set_visible(False)
    if isinstance(plot.subplots[0].content, HeatMap):
        bar = figure.colorbar(shown, ax=axes)
        bar.set_label(plot.subplots[0].content.unit, fontsize=7)
        bar.ax.tick_params(labelsize=7)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if handles:
        columns = max(1, 120 // (6 + max(map(len, handles))))
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False
        )
    return figure


def _set_axes(axis: Axes, x: PlotAxis, y: PlotAxis) -> None:
    axis.set(xlabel=x.title, ylabel=y.title, xscale="log" if x.log else "linear", yscale="log" if y.log else "linear")
    if x.names:
        axis.set_xticks(range(len(x.names)), x.names, rotation=30, ha="right")
    if y.names:
        axis.set_yticks(range(len(y.names)), y.names)
    axis.set(**{f"{name}lim": part.limits for name, part in (("x", x), ("y", y)) if part.limits != (None, None)})
    for place, name in x.marks:
        axis.axvline(place, color=GUIDE, linewidth=0.5, linestyle=":")
        axis.annotate(name, (place, 1), xycoords=("data", "axes fraction"), rotation=35, fontsize=7, va="bottom")
    axis.tick_params(labelsize=8)
    axis.xaxis.label.set_fontsize(8)
    axis.yaxis.label.set_fontsize(8)


def _draw_series(axis: Axes, series: Series) -> None:
    x, y = np.asarray(series.x, np.float64), np.asarray(series.y, np.float64)
    if not series.name:
        axis.plot(x, y, color=series.colour, linewidth=0.8, zorder=0)
        return
    look: dict[str, Any] = {"color": series.colour, "label": series.name, "markersize": 4}
    if series.hollow:
        look["markerfacecolor"] = "none"
    if series.low is not None and series.high is not None:
        reach = np.stack([y - np.asarray(series.low), np.asarray(series.high) - y])
        known = np.isfinite(reach).all(axis=0)
        axis.errorbar(x[known], y[known], reach[:, known], fmt="none", color=series.colour, capsize=2, elinewidth=0.9)
    axis.plot(
        x, y, drawstyle="steps-mid" if series.style == "steps" else "default",
        linestyle="none" if series.style == "points" else ":" if series.dashed else "-",
        marker="o" if series.style in ("points", "both") else "", **look,
    )  # fmt: skip


def _draw_heat_map(axis: Axes, content: HeatMap) -> Any:
    look: dict[str, Any] = {
        "cmap": _named(content.colours),
        "vmin": content.low,
        "vmax": content.high,
        "aspect": "auto",
    }
    shown = axis.imshow(content.values, **look)
    for (row, column), value in np.ndenumerate(content.values):
        if np.isfinite(value):
            dark = np.dot(shown.to_rgba(value)[:3], (0.3, 0.59, 0.11)) < 0.5
            axis.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=7,
                      color="white" if dark else "black")  # fmt: skip
    return shown


def _named(name: str) -> Colormap:
    """Return Matplotlib's colour map for the name of a Plotly scale, which begins with a capital."""
    from matplotlib import colormaps

    return colormaps[name if name in colormaps else name.lower()]


def save_viewer(viewer: Viewer, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draw the maps of a viewer into a file, in the format of its suffix."""
    save_figure(draw_viewer(viewer, title=title), path)


#: Largest number of panels per printed row; further panels continue in the next row.
ACROSS = 6


class _Cell(NamedTuple):
    title: str
    panel: Panel
    field: ViewerField | None


def draw_viewer(viewer: Viewer, *, title: str = "", at: Mapping[str, str] | None = None) -> Figure:
    """Draw the maps of a viewer: a row per value of its axis `rows`, a column per panel or value of `columns`.

    All other axes have the values in `at`, by default their start values.
    """
    from matplotlib.figure import Figure

    lines = _cells(viewer, dict(at or {}))
    known = [number for number in range(len(lines[0][1])) if any(line[number].field for _, line in lines)]
    lines = [(name, [line[number] for number in known]) for name, line in lines]
    if not viewer.columns:
        lines = _wrapped(lines)
    across = len(lines[0][1])
    scales = {_scale(cell.panel) for _, line in lines for cell in line}
    widest, beside = max(2.8, 8 / across), max(len({_scale(cell.panel) for cell in line}) for _, line in lines)
    heights = [widest * min(max(_ratio(viewer, line), 0.12), 2.0) + 0.35 for _, line in lines]
    size = (widest * across + 0.8 * beside + 0.6, sum(heights) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(lines), across, squeeze=False, gridspec_kw={"height_ratios": heights})
    bars: list[dict[Any, tuple[Any, Panel, list[Axes]]]] = []
    for number, (axes, (name, line)) in enumerate(zip(grid, lines, strict=True)):
        bars.append({})
        finest = max((cell.field.values.size, index) for index, cell in enumerate(line) if cell.field)[1]
        for index, (axis, cell) in enumerate(zip(axes, line, strict=True)):
            if cell.field is None:
                axis.set(xticks=[], yticks=[], frame_on=False)
                continue
            shown = _draw_field(axis, cell.panel, cell.field, viewer.aspect)
            left, right, bottom, top = _extent(line[finest].field)
            axis.set(xlim=sorted((left, right)), ylim=sorted((bottom, top)))
            above = lines[number - 1][1][index].title if number else ""
            if cell.title not in (name, above):
                axis.set_title(cell.title, fontsize=9)
            if number == len(lines) - 1:
                axis.set_xlabel(viewer.x_title, fontsize=7)
            bars[-1].setdefault(_scale(cell.panel), (shown, cell.panel, []))[2].append(axis)
        axes[0].set_ylabel("\n".join(filter(None, (name, viewer.y_title))), fontsize=8)
    if len(scales) == 1:
        (key,) = scales
        bars = [{key: (*bars[0][key][:2], [axis for line in bars for axis in line[key][2]])}]
    for shown, panel, axes in (bar for line in bars for bar in line.values()):
        _draw_bar(figure, shown, panel, axes)
    figure.suptitle(title, fontsize=10)
    return figure


def _wrapped(lines: list[tuple[str, list[_Cell]]]) -> list[tuple[str, list[_Cell]]]:
    """Split rows of more than `ACROSS` panels into several rows of about equal length."""
    width = len(lines[0][1])
    per = -(-width // -(-width // ACROSS))
    made = []
    for name, line in lines:
        for first in range(0, width, per):
            part = line[first : first + per]
            made.append((name, [*part, *[_Cell("", line[0].panel, None)] * (per - len(part))]))
    return made


def _cells(viewer: Viewer, at: dict[str, str]) -> list[tuple[str, list[_Cell]]]:
    """Return for each printed row its name, the value of the axis `rows`, and its maps."""
    values = {axis.name: axis.values for axis in viewer.axes}
    start = {axis.name: axis.values[axis.start] for axis in viewer.axes} | at
    lines = []
    for row in values.get(viewer.rows, [""]):
        line = []
        along = values.get(viewer.columns, [""])
        for column in (along[index] for index in spanning(len(along), COLUMNS)):
            here = start | {name: value for name, value in ((viewer.rows, row), (viewer.columns, column)) if name}
            for panel in viewer.panels:
                if panel.modality in (None, *here.values()):
                    line.append(_Cell(column or panel.name, panel, viewer.field(panel, here)))
        lines.append((row, line))
    return lines


def _scale(panel: Panel) -> tuple[Any, ...]:
    return (panel.colours, panel.low, panel.high, panel.bounds, panel.labels)


def _extent(field: ViewerField | None) -> tuple[float, float, float, float]:
    """Outer edges of a field of evenly spaced cells: left, right, bottom, top."""
    assert field is not None
    ends = []
    for line in (np.asarray(field.x, np.float64), np.asarray(field.y, np.float64)):
        half = (line[-1] - line[0]) / (len(line) - 1) / 2 if len(line) > 1 else 0.5
        ends += [float(line[0] - half), float(line[-1] + half)]
    return ends[0], ends[1], ends[2], ends[3]


def _ratio(viewer: Viewer, line: Sequence[_Cell]) -> float:
    """Height over width of a row's maps."""
    left, right, bottom, top = _extent(next(cell.field for cell in line if cell.field))
    return viewer.aspect * abs((top - bottom) / (right - left))


def _draw_field(axis: Axes, panel: Panel, field: ViewerField, aspect: float) -> Any:
    from matplotlib.colors import ListedColormap

    values, extent = np.asarray(field.values, np.float64), _extent(field)
    colours, low, high = _named(panel.colours), panel.low, panel.high
    if panel.bounds or panel.labels:
        count = len(panel.bounds) + 1
        classes = list(colours(np.linspace(0, 1, count)))
        colours = ListedColormap([panel.under or classes[0], *classes[1:]])
        values = np.where(np.isfinite(values), np.digitize(values, panel.bounds), np.nan)
        low, high = -0.5, count - 0.5
    look: dict[str, Any] = {"origin": "lower", "extent": extent, "aspect": aspect, "interpolation": "none"}
    axis.set_facecolor(EMPTY)
    shown = axis.imshow(values, cmap=colours, vmin=low, vmax=high, **look)
    if field.solid is not None:
        axis.imshow(np.where(field.solid, 1.0, np.nan), cmap=ListedColormap([SOLID]), **look)
    for x, y, *azimuth in field.marks:
        axis.plot(x, y, "^", color=MARK, markeredgecolor="white", markersize=8)
        if azimuth:
            reach = 0.07 * abs(extent[1] - extent[0])
            tip = (x + reach * np.sin(np.radians(azimuth[0])), y + reach * np.cos(np.radians(azimuth[0])))
            axis.annotate("", tip, (x, y), arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.5})
    axis.tick_params(labelsize=6)
    return shown


def _draw_bar(figure: Figure, shown: Any, panel: Panel, axes: Sequence[Axes]) -> None:
    discrete = bool(panel.bounds or panel.labels)
    values = np.concatenate([np.ma.compressed(np.ma.asarray(axis.images[0].get_array())) for axis in axes])
    beyond = not discrete and values.size > 0
    below, above = beyond and values.min() < panel.low, beyond and values.max() > panel.high
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    bar = figure.colorbar(shown, ax=list(axes), shrink=0.9, extend=extend[bool(below), bool(above)])
    if panel.labels:
        bar.set_ticks(list(range(len(panel.labels))), labels=[name[:24] for name in panel.labels])
    elif panel.bounds:
        bar.set_ticks(
            [index + 0.5 for index in range(len(panel.bounds))], labels=[f"{bound:g}" for bound in panel.bounds]
        )
    bar.set_label("" if panel.labels else panel.unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)

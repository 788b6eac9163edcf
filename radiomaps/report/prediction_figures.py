"""Figures of predicted maps: truth, mean, one member, error and uncertainty of each modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from radiomaps.report.figures import BUILDING, NOWHERE
from radiomaps.tasks.encoding import AZIMUTH

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_prediction"]

#: Title, factor to the unit shown, colour map.
_SHOWN: dict[str, tuple[str, float, str]] = {
    "path_gain_db": ("path gain (dB)", 1.0, "viridis"),
    "toa_s": ("time of arrival (ns)", 1e9, "cividis"),
    AZIMUTH: ("azimuth (°)", 180 / np.pi, "twilight"),
    "doa_zenith": ("zenith (°)", 180 / np.pi, "RdBu"),
}


def draw_prediction(
    prediction: xr.Dataset, truth: xr.Dataset | None = None, *, height_m: float | None = None, title: str = ""
) -> Figure:
    """One row per target, at one height (default: the lowest): truth, mean, a member, mean − truth, uncertainty.

    `prediction` is a result of `radiomaps.prediction`; `truth` has the same variables `(z, y, x)`. Without it, the
    panels that need it are left out.
    """
    from matplotlib.figure import Figure

    layer = prediction.sel(z=float(prediction["z"][0]) if height_m is None else height_m, method="nearest")
    index = int(np.abs(prediction["z"].values - float(layer["z"])).argmin())
    names = [name for name in _SHOWN if name in layer]
    columns = ["truth", "mean", "member 0", "mean − truth", "uncertainty"]
    if truth is None:
        columns = ["mean", "member 0", "uncertainty"]
    figure = Figure(figsize=(2.9 * len(columns), 2.6 * len(names) + 0.5), layout="constrained")
    grid = figure.subplots(len(names), len(columns), squeeze=False)
    for row, name in zip(grid, names, strict=True):
        known = None if truth is None else truth[name].isel(z=index).values
        panels = _panels(layer, name, known)
        about, factor, colours = _SHOWN[name]
        low, high = _range(panels["mean"] if known is None else known, name)
        for axis, column in zip(row, columns, strict=True):
            values = panels[column] * factor
            if column == "mean − truth":
                bound = _upper(np.abs(values))
                shown = _draw(axis, layer, values, "RdBu_r", -bound, bound)
            elif column == "uncertainty":
                shown = _draw(axis, layer, values, "magma", 0.0, _upper(values))
            else:
                shown = _draw(axis, layer, values, colours, low * factor, high * factor)
            figure.colorbar(shown, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
            if name == names[0]:
                axis.set_title(column, fontsize=9)
        row[0].set_ylabel(about, fontsize=8)
    figure.suptitle(f"{title}, z = {float(layer['z']):g} m".lstrip(", "), fontsize=10)
    return figure


def _panels(layer: xr.Dataset, name: str, known: Any) -> dict[str, Any]:
    mean = layer[f"{name}_mean"].values
    panels = {"mean": mean, "member 0": layer[name].values[0], "uncertainty": layer[f"{name}_uncertainty"].values}
    if known is not None:
        error = mean - known
        if name == AZIMUTH:
            error = (error + np.pi) % (2 * np.pi) - np.pi
        panels |= {"truth": known, "mean − truth": error}
    return panels


def _range(values: Any, name: str) -> tuple[float, float]:
    if name == AZIMUTH:
        return 0.0, 2 * np.pi
    found = values[np.isfinite(values)]
    if not found.size:
        return 0.0, 1.0
    low, high = map(float, np.percentile(found, [1, 99]))
    if name == "doa_zenith":  # at the transmitter's height all zenith angles are 90° up to rounding
        low, high = min(low, np.pi / 2 - 0.05), max(high, np.pi / 2 + 0.05)
    return low, max(high, low + 1e-12)


def _upper(values: Any) -> float:
    found = values[np.isfinite(values)]
    return float(max(np.percentile(found, 98), 1e-6)) if found.size else 1.0


def _draw(axis: Axes, layer: xr.Dataset, values: Any, colours: str, low: float, high: float) -> Any:
    from matplotlib.colors import ListedColormap

    axis.set_facecolor(NOWHERE)
    place = layer["x"].values, layer["y"].values
    shown = axis.pcolormesh(*place, values, cmap=colours, vmin=low, vmax=high, rasterized=True)
    inside = np.ma.masked_equal(layer["building"].values, 0)
    axis.pcolormesh(*place, inside, cmap=ListedColormap([BUILDING]), rasterized=True)
    axis.plot(float(layer["tx_x"]), float(layer["tx_y"]), marker="^", color="red", mec="white", ms=7)
    axis.set(xlim=(place[0][0], place[0][-1]), ylim=(place[1][0], place[1][-1]))
    axis.set_aspect("equal")
    axis.tick_params(labelsize=6)
    return shown

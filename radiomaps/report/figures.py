"""Figures of scenes and maps: all modalities at some heights, vertical cuts, errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.report.figures import save_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from radiomaps.scenes import Scene

__all__ = ["draw_cut", "draw_errors", "draw_maps", "draw_scene", "save_figure"]

BUILDING, NOWHERE = "#4a4a4a", "#e3e0da"
_LEGEND = "dark: building; light: no path; triangle: transmitter"


@dataclass(frozen=True)
class _Look:
    """Style of a variable: factor to the unit shown, colour map, and limits (None: from the data)."""

    title: str
    factor: float
    colours: str
    limits: tuple[float, float] | None = None


_LOOKS = {
    "path_gain_db": _Look("path gain (dB)", 1.0, "viridis"),
    "toa_s": _Look("time of arrival (ns)", 1e9, "cividis"),
    "doa_azimuth": _Look("azimuth of arrival (°)", 180 / np.pi, "twilight", (0, 360)),
    "doa_zenith": _Look("zenith of arrival (°)", 180 / np.pi, "RdBu", (30, 150)),
    "delay_spread_s": _Look("delay spread (ns)", 1e9, "magma"),
    "angular_spread": _Look("direction spread", 1.0, "magma", (0, 1)),
}


def draw_scene(scene: Scene) -> Figure:
    """A plan of the scene: heights of roofs and ground in colour, with about 600 cells along its longer side."""
    from matplotlib.figure import Figure

    from geoml.grids.grid import Grid

    lower, upper = scene.extent
    step_m = max(upper[0] - lower[0], upper[1] - lower[1]) / 600
    cells = [max(1, int((upper[axis] - lower[axis]) / step_m)) for axis in (0, 1)]
    low = {"z": 0.0, "y": lower[1], "x": lower[0]}
    high = {"z": 1.0, "y": lower[1] + cells[1] * step_m, "x": lower[0] + cells[0] * step_m}
    grid = Grid.box(low, high, {"z": 1.0, "y": step_m, "x": step_m})
    heights = scene.height_map(grid)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(
        heights, origin="lower", cmap="cividis", extent=(low["x"], high["x"], low["y"], high["y"]), interpolation="none"
    )
    figure.colorbar(shown, ax=axes, label="height (m)", shrink=0.85)
    about = f"{len(scene.buildings)} buildings, {scene.triangles} triangles"
    axes.set(title=f"{scene.name}: {about}", xlabel="x, east (m)", ylabel="y, north (m)")
    return figure


def draw_maps(maps: xr.Dataset, *, heights_m: Sequence[float] | None = None, title: str = "") -> Figure:
    """All modalities of one transmitter (rows) at some heights (columns; default: lowest, middle, highest).

    `maps` has dims `(z, y, x)` and scalar coordinates `tx_x`, `tx_y`, `tx_z`. Dark: building; light: no path.
    """
    from matplotlib.figure import Figure

    z = maps["z"].values
    chosen = heights_m or [float(z[index]) for index in sorted({0, len(z) // 2, len(z) - 1})]
    names = [name for name in _LOOKS if name in maps]
    figure = Figure(figsize=(2.9 * len(chosen) + 1.3, 2.6 * len(names) + 0.5), layout="constrained")
    axes = figure.subplots(len(names), len(chosen), squeeze=False)
    for number, (row, name) in enumerate(zip(axes, names, strict=True)):
        limits = _limits(maps[name].values, _LOOKS[name])
        for axis, height in zip(row, chosen, strict=True):
            layer = maps.sel(z=height, method="nearest")
            shown = _panel(axis, layer, name, ("y", "x"), limits)
            axis.plot(float(maps["tx_x"]), float(maps["tx_y"]), marker="^", color="red", mec="white", ms=8)
            axis.set_aspect("equal")
            if number == 0:
                axis.set_title(f"z = {float(layer['z']):g} m", fontsize=9)
            if number == len(names) - 1:
                axis.set_xlabel("x, east (m)", fontsize=7)
        row[0].set_ylabel("y, north (m)", fontsize=7)
        _colour_bar(figure, shown, list(row), _LOOKS[name]).set_label(_LOOKS[name].title, fontsize=8)
    figure.suptitle(f"{title}\n{_LEGEND}", fontsize=9)
    return figure


def draw_cut(maps: xr.Dataset, *, title: str = "") -> Figure:
    """All modalities of one transmitter on a vertical cut along x through it."""
    from matplotlib.figure import Figure

    names = [name for name in _LOOKS if name in maps]
    figure = Figure(figsize=(8, 1.5 * len(names) + 0.6), layout="constrained")
    axes = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    cut = maps.sel(y=float(maps["tx_y"]), method="nearest")
    for axis, name in zip(axes, names, strict=True):
        shown = _panel(axis, cut, name, ("z", "x"), _limits(maps[name].values, _LOOKS[name]))
        axis.plot(float(maps["tx_x"]), float(maps["tx_z"]), marker="^", color="red", mec="white", ms=8, clip_on=False)
        axis.set_ylabel("z (m)", fontsize=8)
        _colour_bar(figure, shown, axis, _LOOKS[name])
        axis.set_title(_LOOKS[name].title, fontsize=8, loc="left")
    axes[-1].set_xlabel("x, east (m)")
    figure.suptitle(f"{title}, cut through the transmitter\n{_LEGEND}", fontsize=9)
    return figure


def draw_errors(maps: xr.Dataset, truth: xr.Dataset, *, height_m: float | None = None, title: str = "") -> Figure:
    """Differences of path gain, time and direction of arrival from another map, at one height."""
    from matplotlib.figure import Figure

    height = float(maps["z"][0]) if height_m is None else height_m
    a, b = (data.sel(z=height, method="nearest") for data in (maps, truth))
    turn = (a["doa_azimuth"] - b["doa_azimuth"] + np.pi) % (2 * np.pi) - np.pi
    panels: dict[str, tuple[xr.DataArray, float]] = {
        "path gain (dB)": (a["path_gain_db"] - b["path_gain_db"], 20.0),
        "time of arrival (ns)": ((a["toa_s"] - b["toa_s"]) * 1e9, 100.0),
        "azimuth (°)": (turn * (180 / np.pi), 90.0),
        "zenith (°)": ((a["doa_zenith"] - b["doa_zenith"]) * (180 / np.pi), 30.0),
    }
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    for axis, (name, (field, bound)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axis.set_facecolor(NOWHERE)
        shown = axis.pcolormesh(
            field["x"], field["y"], field.transpose("y", "x"), cmap="RdBu_r", vmin=-bound, vmax=bound
        )
        _buildings(axis, a, ("y", "x"))
        axis.plot(float(maps["tx_x"]), float(maps["tx_y"]), marker="^", color="black", mec="white", ms=8)
        axis.set_aspect("equal")
        known = field.values[np.isfinite(field.values)]
        axis.set_title(f"{name}: median |Δ| {np.median(np.abs(known)):.2g}" if known.size else name, fontsize=9)
        figure.colorbar(shown, ax=axis, shrink=0.8, extend="both")
    figure.suptitle(f"{title}, z = {height:g} m", fontsize=10)
    return figure


def _limits(values: NDArray[Any], look: _Look) -> tuple[float, float]:
    if look.limits is not None:
        return look.limits
    known = values[np.isfinite(values)] * look.factor
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, [1, 98])  # otherwise a few long paths would dominate the colour scale
    return float(low), float(max(high, low + 1e-9))


def _colour_bar(figure: Figure, shown: Any, axes: Any, look: _Look) -> Any:
    bar = figure.colorbar(shown, ax=axes, extend="neither" if look.limits else "both")
    bar.ax.tick_params(labelsize=7)
    return bar


def _panel(axis: Axes, data: xr.Dataset, name: str, dims: tuple[str, str], limits: tuple[float, float]) -> Any:
    from matplotlib.colors import ListedColormap

    look = _LOOKS[name]
    field = data[name].transpose(*dims) * look.factor
    nowhere = ListedColormap([NOWHERE])
    axis.pcolormesh(data[dims[1]], data[dims[0]], np.zeros(field.shape), cmap=nowhere, rasterized=True)
    shown = axis.pcolormesh(
        data[dims[1]], data[dims[0]], field, cmap=look.colours, vmin=limits[0], vmax=limits[1], rasterized=True
    )
    _buildings(axis, data, dims)
    axis.tick_params(labelsize=6)
    return shown


def _buildings(axis: Axes, data: xr.Dataset, dims: tuple[str, str]) -> None:
    from matplotlib.colors import ListedColormap

    mask = data["building"].transpose(*dims)
    axis.pcolormesh(data[dims[1]], data[dims[0]], mask.where(mask), cmap=ListedColormap([BUILDING]), rasterized=True)

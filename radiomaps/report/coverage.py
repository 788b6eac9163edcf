"""Figures and the page of a coverage: best server, RSRP and SINR at some heights, and tables of shares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.data.netcdf import read_dataset, write_netcdf
from geoml.report.blocks import Block, Panel, Report, Section, Table, Text, Viewer, ViewerAxis, ViewerField

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from geoml.runs.folder import RunFolder

__all__ = ["FILE", "cover", "coverage_report", "draw_coverage", "read_coverage", "shown_heights"]

#: The file of layers that `radiomaps coverage` writes to its run folder.
FILE = "coverage.nc"
_BUILDING, _NOWHERE = "#4a4a4a", "#e3e0da"
#: Largest number of cells along an edge, and of heights, on a page.
_EDGE, _HEIGHTS = 192, 5
_RSRP, _SINR = (-130.0, -60.0), (-10.0, 30.0)


def read_coverage(path: str | os.PathLike[str]) -> xr.Dataset:
    """The layers of a `coverage.nc`, with boolean masks."""
    with read_dataset(path) as opened:
        layers = opened.load()
    return layers.assign({name: layers[name] > 0.5 for name in ("covered", "building")})


def cover(values: Mapping[str, Any], run: RunFolder) -> list[dict[str, Any]]:
    """Write layers, figures and the summary for a configuration of `radiomaps coverage`; returns one row per height."""
    from geoml.report.figures import save_figure
    from radiomaps.antennas.coverage import LinkBudget, coverage, coverage_tables
    from radiomaps.antennas.replanned import maps_of_store

    maps = maps_of_store(values["store"], values["sites"], scene=int(values["scene"]))
    layers = coverage(maps, LinkBudget(**{key: float(value) for key, value in values["budget"].items()}))
    masks = {name: layers[name].astype("int8") for name in ("covered", "building")}
    write_netcdf(run.path / FILE, layers.assign(masks))
    for height in shown_heights(layers, int(values["pictures"])):
        save_figure(draw_coverage(layers, height), run.samples / f"coverage-{height:g}m.png")
    heights, cells = coverage_tables(layers)
    run.write_summary({"heights": heights, "cells": cells})
    return [{**row, "file": str(run.path / FILE)} for row in heights]


def shown_heights(layers: xr.Dataset, count: int) -> list[float]:
    """Up to `count` heights, including the lowest and the highest."""
    z = layers["z"].values
    chosen = sorted({round(index) for index in np.linspace(0, len(z) - 1, min(count, len(z)))}) if count else []
    return [float(z[index]) for index in chosen]


def draw_coverage(layers: xr.Dataset, height_m: float) -> Figure:
    """Best server, RSRP and SINR of one height side by side; arrows show the azimuths of the cells."""
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure

    layer = layers.sel(z=height_m, method="nearest")
    names = [str(name) for name in layers["cell"].values]
    figure = Figure(figsize=(14.5, 4.9), layout="constrained")
    axes = figure.subplots(1, 3)
    colours = ListedColormap(_colours(len(names)))
    norm = BoundaryNorm(np.arange(-0.5, len(names)), colours.N)
    panels: list[tuple[str, Any, dict[str, Any]]] = [
        ("best server", layer["best_server"].where(layer["best_server"] >= 0), {"cmap": colours, "norm": norm}),
        ("RSRP (dBm)", layer["rsrp_dbm"], {"cmap": "viridis", "vmin": _RSRP[0], "vmax": _RSRP[1]}),
        ("SINR (dB)", layer["sinr_db"], {"cmap": "RdYlGn", "vmin": _SINR[0], "vmax": _SINR[1]}),
    ]
    for axis, (title, field, style) in zip(axes, panels, strict=True):
        axis.set_facecolor(_NOWHERE)
        field = field.transpose("y", "x")
        shown = axis.pcolormesh(field["x"], field["y"], field, rasterized=True, **style)
        mask = layer["building"].transpose("y", "x")
        grey = ListedColormap([_BUILDING])
        axis.pcolormesh(mask["x"], mask["y"], mask.where(mask), cmap=grey, rasterized=True)
        _draw_cells(axis, layers)
        axis.set_aspect("equal")
        axis.set(title=title, xlabel="x, east (m)")
        bar = figure.colorbar(shown, ax=axis, shrink=0.8, extend="neither" if title == "best server" else "both")
        if title == "best server":
            bar.set_ticks(list(range(len(names))), labels=[name[:24] for name in names])
            bar.ax.tick_params(labelsize=6 if len(names) > 12 else 8)
    axes[0].set_ylabel("y, north (m)")
    outdoors = ~layer["building"].values
    share = 100 * float(layer["covered"].values[outdoors].mean()) if outdoors.any() else 0.0
    needed = f"RSRP ≥ {layers.attrs['needed_rsrp_dbm']:g} dBm and SINR ≥ {layers.attrs['needed_sinr_db']:g} dB"
    figure.suptitle(
        f"z = {float(layer['z']):g} m: {share:.1f} % outdoors with {needed}\n"
        "dark: building; light: no path; triangle: cell",
        fontsize=10,
    )
    return figure


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    if count <= 10:
        return [colormaps["tab10"](index) for index in range(count)]
    return [colormaps["turbo"](index / (count - 1)) for index in range(count)]


def _draw_cells(axis: Axes, layers: xr.Dataset) -> None:
    x, y = layers["tx_x"].values, layers["tx_y"].values
    axis.plot(x, y, "^", color="red", mec="white", ms=8)
    if "tx_azimuth_deg" not in layers.coords:
        return
    reach = 0.07 * float(np.ptp(layers["x"].values))
    for east, north, azimuth in zip(x, y, np.radians(layers["tx_azimuth_deg"].values), strict=True):
        if np.isfinite(azimuth):
            tip = (east + reach * np.sin(azimuth), north + reach * np.cos(azimuth))
            axis.annotate("", tip, (east, north), arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.5})


def coverage_report(path: str | os.PathLike[str]) -> Report:
    """The page of a run of `radiomaps coverage`."""
    from radiomaps.antennas.coverage import coverage_tables

    layers = read_coverage(Path(path) / FILE)
    heights, cells = coverage_tables(layers)
    attrs = layers.attrs
    budget = {
        "bandwidth (MHz)": attrs["bandwidth_hz"] / 1e6, "subcarrier (kHz)": attrs["subcarrier_hz"] / 1e3,
        "noise figure (dB)": attrs["noise_figure_db"], "noise on a subcarrier (dBm)": round(attrs["noise_dbm"], 1),
        "load of other cells": attrs["load"],
    }  # fmt: skip
    where = [
        {
            "cell": str(name),
            **{f"{axis} (m)": round(float(layers[f"tx_{axis}"][number]), 1) for axis in "xyz"},
            "power (dBm)": float(layers["tx_power_dbm"][number]),
            "carrier (GHz)": float(layers["frequency_hz"][number]) / 1e9,
        }
        for number, name in enumerate(layers["cell"].values)
    ]
    needed = f"RSRP of {attrs['needed_rsrp_dbm']:g} dBm and SINR of {attrs['needed_sinr_db']:g} dB"
    blocks: list[Block] = [_viewer(layers)]
    return Report(
        f"Coverage of {attrs.get('scene', 'a scene')}",
        f"{len(cells)} cells. A voxel outdoors is covered if it has {needed}.",
        [
            Section("Maps", blocks),
            Section("Share covered", [
                Table(heights, "Shares of outdoor voxels by height; medians over voxels with a path"),
                Table(cells, "Shares of all outdoor voxels that each cell serves, and that it covers"),
            ]),
            Section("Cells and link budget", [
                Table(where, "Cells"),
                Table([{"quantity": key, "value": value} for key, value in budget.items()], "Link budget"),
                Text(str(attrs.get("licence", "")), "note"),
            ]),
        ],
    )  # fmt: skip


def _viewer(layers: xr.Dataset) -> Viewer:
    count = layers.sizes["cell"]
    step = max(1, -(-max(layers.sizes["y"], layers.sizes["x"]) // _EDGE))
    thin = layers.isel(y=slice(None, None, step), x=slice(None, None, step))
    shown = shown_heights(layers, _HEIGHTS)
    server = "best server (number of the cell)"
    panels = [
        Panel(server, "1", "Turbo", -0.5, count - 0.5),
        Panel("RSRP", "dBm", "Viridis", *_RSRP),
        Panel("SINR", "dB", "RdYlGn", *_SINR),
    ]
    marks = list(zip(layers["tx_x"].values.tolist(), layers["tx_y"].values.tolist(), strict=True))
    fields = []
    for height in shown:
        layer = thin.sel(z=height, method="nearest").transpose(..., "y", "x")
        found = {server: layer["best_server"].where(layer["best_server"] >= 0), "RSRP": layer["rsrp_dbm"],
                 "SINR": layer["sinr_db"]}  # fmt: skip
        for panel, field in found.items():
            place = {"height": f"{height:g} m"}
            fields.append(ViewerField(panel, place, field.values, field["x"].values, field["y"].values, marks))
    axes = (ViewerAxis("height", [f"{height:g} m" for height in shown], "range"),)
    names = ", ".join(f"{number} {name}" for number, name in enumerate(layers["cell"].values.tolist()))
    left_out = f" Every {step}th voxel is shown." if step > 1 else ""
    caption = f"Empty: inside a building, or no path. Cells: {names}.{left_out}"
    return Viewer(axes, panels, fields, "Best server, RSRP and SINR", caption, "x, east (m)", "y, north (m)")

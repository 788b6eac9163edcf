"""Figures and the page of a coverage: best server, RSRP and SINR at some heights, and tables of shares."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.data.netcdf import read_dataset, write_netcdf
from geoml.report.blocks import Panel, Report, Section, Table, Text, Viewer, ViewerAxis, ViewerField
from geoml.report.drawing import save_viewer
from radiomaps.report.figures import PRINTED, left_out, shown_heights, thinned

if TYPE_CHECKING:
    import xarray as xr

    from geoml.runs.folder import RunFolder

__all__ = ["FILE", "cover", "coverage_report", "read_coverage"]

#: The file of layers that `radiomaps coverage` writes to its run folder.
FILE = "coverage.nc"
#: Largest number of cells along an edge on a page.
_EDGE = 192
LEGEND = "Grey: building; light: no path; triangles and arrows: cells."
_RSRP, _SINR = (-130.0, -60.0), (-10.0, 30.0)


def read_coverage(path: str | os.PathLike[str]) -> xr.Dataset:
    """The layers of a `coverage.nc`, with boolean masks."""
    with read_dataset(path) as opened:
        layers = opened.load()
    return layers.assign({name: layers[name] > 0.5 for name in ("covered", "building")})


def cover(values: Mapping[str, Any], run: RunFolder) -> list[dict[str, Any]]:
    """Write layers, figures and the summary for a configuration of `radiomaps coverage`; returns one row per height."""
    from radiomaps.antennas.coverage import LinkBudget, coverage, coverage_tables
    from radiomaps.antennas.replanned import maps_of_store

    maps = maps_of_store(values["store"], values["sites"], scene=int(values["scene"]))
    layers = coverage(maps, LinkBudget(**{key: float(value) for key, value in values["budget"].items()}))
    masks = {name: layers[name].astype("int8") for name in ("covered", "building")}
    write_netcdf(run.path / FILE, layers.assign(masks))
    for height in shown_heights(layers, int(values["pictures"])):
        _draw(layers, height, run.samples / f"coverage-{height:g}m.png")
    heights, cells = coverage_tables(layers)
    run.write_summary({"heights": heights, "cells": cells})
    return [{**row, "file": str(run.path / FILE)} for row in heights]


def _draw(layers: xr.Dataset, height_m: float, file: Path) -> None:
    """Best server, RSRP and SINR of one height side by side; arrows show the azimuths of the cells."""
    layer = layers.sel(z=height_m)
    outdoors = ~layer["building"].values
    share = 100 * float(layer["covered"].values[outdoors].mean()) if outdoors.any() else 0.0
    title = f"z = {height_m:g} m: {share:.1f} % outdoors with {_needed(layers)}\n{LEGEND}"
    save_viewer(_viewer(layers, [height_m], PRINTED), file, title=title)


def _needed(layers: xr.Dataset) -> str:
    return f"RSRP ≥ {layers.attrs['needed_rsrp_dbm']:g} dBm and SINR ≥ {layers.attrs['needed_sinr_db']:g} dB"


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
            "azimuth (°)": _azimuth(layers, number),
            "carrier (GHz)": float(layers["frequency_hz"][number]) / 1e9,
        }
        for number, name in enumerate(layers["cell"].values)
    ]
    return Report(
        f"Coverage of {attrs.get('scene', 'a scene')}",
        f"{len(cells)} cells. A voxel outdoors is covered if it has {_needed(layers)}.",
        [
            Section("Maps", [_viewer(layers, shown_heights(layers), _EDGE)]),
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


def _azimuth(layers: xr.Dataset, number: int) -> float | None:
    """Azimuth of a cell's boresight in degrees, clockwise from north; None for omnidirectional antennas."""
    if "tx_azimuth_deg" not in layers.coords:
        return None
    azimuth = float(layers["tx_azimuth_deg"][number])
    return round(azimuth, 1) if np.isfinite(azimuth) else None


def _viewer(layers: xr.Dataset, heights: Sequence[float], edge: int) -> Viewer:
    names = tuple(map(str, layers["cell"].values))
    thin = thinned(layers, edge)
    bounds = tuple(number + 0.5 for number in range(len(names) - 1))
    panels = [
        Panel("best server", "cell", "Turbo", bounds=bounds, labels=names),
        Panel("RSRP", "dBm", "Viridis", *_RSRP),
        Panel("SINR", "dB", "RdYlGn", *_SINR),
    ]
    places = ["tx_x", "tx_y", *(["tx_azimuth_deg"] if "tx_azimuth_deg" in layers.coords else [])]
    marks = [
        tuple(value for value in map(float, cell) if np.isfinite(value))
        for cell in zip(*(layers[name].values for name in places), strict=True)
    ]
    fields = []
    for height in heights:
        layer = thin.sel(z=height)
        found = {"best server": layer["best_server"].where(layer["best_server"] >= 0), "RSRP": layer["rsrp_dbm"],
                 "SINR": layer["sinr_db"]}  # fmt: skip
        for panel, field in found.items():
            x, y, solid = layer["x"].values, layer["y"].values, layer["building"].values
            fields.append(ViewerField(panel, {"height": f"{height:g} m"}, field.values, x, y, marks, solid))
    axes = (ViewerAxis("height", [f"{height:g} m" for height in heights], "range"),)
    caption = f"{LEGEND} {left_out(layers, edge, len(heights))}".rstrip()
    return Viewer(axes, panels, fields, "Best server, RSRP and SINR", caption, "x, east (m)", "y, north (m)")

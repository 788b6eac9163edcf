"""Figures of maps and scenes: viewers of quantities, heights and transmitters, vertical cuts, the city in 3-D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.data.choice import spanning
from geoml.report.blocks import Panel, Viewer, ViewerAxis, ViewerField
from radiomaps.scenes.extrude import extrude

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

    from radiomaps.scenes import Footprint, Scene

__all__ = [
    "LEGEND",
    "LOOKS",
    "PRINTED",
    "city",
    "cut_viewer",
    "difference",
    "map_viewer",
    "prediction_viewer",
    "scene_viewer",
    "stored_truth",
]

#: Largest number of cells along an edge, and of heights, on a page. Data in between is left out, and the page says so.
EDGE, HEIGHTS = 128, 5
#: Largest number of cells along an edge in print.
PRINTED = 600
LEGEND = "Grey: building; light: no path; triangle: transmitter."
#: Largest number of building triangles that a browser rotates smoothly.
TRIANGLES = 40_000


@dataclass(frozen=True)
class VariableStyle:
    """Style of a variable: title, unit, the factor to that unit, colour scale, and whether it is circular."""

    title: str
    unit: str
    factor: float
    colours: str
    circular: bool = False


LOOKS = {
    "path_gain_db": VariableStyle("path gain", "dB", 1.0, "Viridis"),
    "toa_s": VariableStyle("time of arrival", "ns", 1e9, "Cividis"),
    "doa_azimuth": VariableStyle("azimuth of arrival", "°", 180 / np.pi, "Twilight", circular=True),
    "doa_zenith": VariableStyle("zenith of arrival", "°", 180 / np.pi, "RdBu"),
    "delay_spread_s": VariableStyle("delay spread", "ns", 1e9, "Magma"),
    "angular_spread": VariableStyle("direction spread", "1", 1.0, "Magma"),
    "k_factor_db": VariableStyle("K-factor", "dB", 1.0, "Plasma"),
}


def map_viewer(
    maps: Mapping[str, xr.Dataset], others: Mapping[str, xr.Dataset] | None = None, *, edge: int = EDGE
) -> Viewer:
    """A viewer of every modality of maps `(z, y, x)`, by name, at some heights, with one scale per modality.

    `others` are maps of the same places by the same names, shown next to them with the difference.
    """
    first = next(iter(maps.values()))
    others = others or {}
    names = [name for name in LOOKS if name in first and all(name in data for data in others.values())]
    panels, fields = [], []
    for name in names:
        look = LOOKS[name]
        limits = _limits([data[name].values * look.factor for data in (*maps.values(), *others.values())], look)
        for what in (look.title, f"{look.title}, the other")[: 2 if others else 1]:
            panels.append(Panel(what, look.unit, look.colours, *limits, modality=look.title))
        if others:
            most = max(_high(np.abs(difference(maps[label], others[label], name))) for label in maps)
            panels.append(Panel(f"{look.title} − the other", look.unit, "RdBu_r", -most, most, modality=look.title))
    for label, data in maps.items():
        for height in shown_heights(first):
            layer = thinned(_layer(data, height), edge)
            place = {"map": label, "height": _metres(layer["z"])}
            for name in names:
                look = LOOKS[name]
                fields.append(_field(look.title, place, layer, layer[name].values * look.factor))
                if label in others:
                    there = thinned(_layer(others[label], height), edge)
                    fields.append(_field(f"{look.title}, the other", place, layer, there[name].values * look.factor))
                    fields.append(_field(f"{look.title} − the other", place, layer, difference(layer, there, name)))
    columns = "" if others else "height"
    return _viewer(maps, names, panels, fields, "", edge=edge, columns=columns)


def cut_viewer(maps: xr.Dataset) -> Viewer:
    """Every modality of one map `(z, y, x)` on the vertical cut along x through its transmitter."""
    cut = maps.isel(y=int(np.abs(maps["y"].values - float(maps["tx_y"])).argmin())).transpose(..., "z", "x")
    names = [name for name in LOOKS if name in maps]
    panels, fields = [], []
    for name in names:
        look = LOOKS[name]
        limits = _limits([maps[name].values * look.factor], look)
        panels.append(Panel(look.title, look.unit, look.colours, *limits, modality=look.title))
        fields.append(_field(look.title, {}, cut, cut[name].values * look.factor, "z"))
    axes = [ViewerAxis("quantity", [LOOKS[name].title for name in names])]
    alt = "A vertical cut through the transmitter"
    caption = f"Cut along x through the transmitter. {LEGEND}"
    return Viewer(axes, panels, fields, alt, caption, "x, east (m)", "z (m)", rows="quantity")


def prediction_viewer(
    predicted: Mapping[str, xr.Dataset], truths: Mapping[str, xr.Dataset], *, edge: int = EDGE
) -> Viewer:
    """A viewer of truth, mean, members, error and uncertainty of every target, by map and height.

    `predicted` is what `radiomaps.prediction` writes, `truths` has the same variables `(z, y, x)`; a map without a
    truth shows the others alone.
    """
    first = next(iter(predicted.values()))
    names = [name for name in LOOKS if f"{name}_mean" in first]
    panels, fields = [], []
    for name in names:
        look = LOOKS[name]
        known = [data[name].values * look.factor for data in truths.values()]
        limits = _limits(known or [data[f"{name}_mean"].values * look.factor for data in predicted.values()], look)
        wrong = [difference(predicted[k], truths[k], name, of=f"{name}_mean") for k in truths if k in predicted]
        spread = [data[f"{name}_uncertainty"].values * look.factor for data in predicted.values()]
        most = max([_high(np.abs(part)) for part in wrong], default=1.0)
        for what in ("truth", "mean", "member"):
            panels.append(Panel(what, look.unit, look.colours, *limits, modality=look.title))
        panels.append(Panel("mean − truth", look.unit, "RdBu_r", -most, most, modality=look.title))
        panels.append(Panel("uncertainty", look.unit, "Magma", 0, max(map(_high, spread)), modality=look.title))
        for label, data in predicted.items():
            for height in shown_heights(first):
                layer = thinned(_layer(data, height), edge)
                truth = thinned(_layer(truths[label], height), edge) if label in truths else None
                place = {"quantity": look.title, "map": label, "height": _metres(layer["z"])}
                fields += _prediction_fields(name, place, layer, truth)
    members = ViewerAxis("member", [str(number + 1) for number in range(first.sizes["member"])], "range")
    about = "Uncertainty is the standard deviation over members, circular for an azimuth."
    return _viewer(predicted, names, panels, fields, about, members, edge=edge)


def _prediction_fields(
    name: str, place: Mapping[str, str], layer: xr.Dataset, truth: xr.Dataset | None
) -> list[ViewerField]:
    factor, mean = LOOKS[name].factor, f"{name}_mean"
    shown = {"mean": layer[mean].values * factor, "uncertainty": layer[f"{name}_uncertainty"].values * factor}
    if truth is not None:
        shown |= {"truth": truth[name].values * factor, "mean − truth": difference(layer, truth, name, of=mean)}
    fields = [_field(panel, place, layer, values) for panel, values in shown.items()]
    for number, values in enumerate(layer[name].transpose("member", ...).values * factor):
        fields.append(_field("member", {**place, "member": str(number + 1)}, layer, values))
    return fields


def _viewer(
    maps: Mapping[str, xr.Dataset],
    names: Sequence[str],
    panels: Sequence[Panel],
    fields: Sequence[ViewerField],
    about: str,
    *more: ViewerAxis,
    edge: int,
    columns: str = "",
) -> Viewer:
    """A viewer of maps by quantity, map and height."""
    first = next(iter(maps.values()))
    heights = shown_heights(first)
    axes = (
        ViewerAxis("quantity", [LOOKS[name].title for name in names]),
        ViewerAxis("map", list(maps)),
        ViewerAxis("height", [_metres(height) for height in heights], "range"),
        *more,
    )
    caption = " ".join(filter(None, (LEGEND, about, left_out(first, edge, len(heights)))))
    alt = "Maps of the chosen quantity"
    return Viewer(axes, panels, fields, alt, caption, "x, east (m)", "y, north (m)", rows="quantity", columns=columns)


def scene_viewer(scene: Scene) -> Viewer:
    """A plan of a scene: heights of roofs and ground, with about 600 cells along its longer side."""
    from geoml.grids.grid import Grid

    lower, upper = scene.extent
    step_m = max(upper[0] - lower[0], upper[1] - lower[1]) / PRINTED
    cells = [max(1, int((upper[axis] - lower[axis]) / step_m)) for axis in (0, 1)]
    low = {"z": 0.0, "y": lower[1], "x": lower[0]}
    high = {"z": 1.0, "y": lower[1] + cells[1] * step_m, "x": lower[0] + cells[0] * step_m}
    grid = Grid.box(low, high, {"z": 1.0, "y": step_m, "x": step_m})
    heights = scene.height_map(grid)
    x, y = (low[axis] + (np.arange(count) + 0.5) * step_m for axis, count in zip("xy", cells, strict=True))
    panel = Panel("height", "m", "Cividis", float(heights.min()), float(heights.max()))
    alt = f"Heights of {scene.name}"
    return Viewer((), [panel], [ViewerField("height", {}, heights, x, y)], alt, "", "x, east (m)", "y, north (m)")


def stored_truth(prediction: xr.Dataset) -> xr.Dataset | None:
    """The truth that `write_samples` stored with a prediction, `(z, y, x)` by target; None if there is none."""
    names = [str(name).removesuffix("_truth") for name in prediction if str(name).endswith("_truth")]
    return prediction[[f"{name}_truth" for name in names]].rename({f"{n}_truth": n for n in names}) if names else None


def difference(maps: xr.Dataset, other: xr.Dataset, name: str, *, of: str | None = None) -> NDArray[Any]:
    """A variable minus that (or the variable `of`) of another map, in the unit of the page; azimuths in ±180°."""
    here = maps[of or name]
    wrong = here.values - other[name].transpose(*here.dims).values
    wrong = (wrong + np.pi) % (2 * np.pi) - np.pi if LOOKS[name].circular else wrong
    return np.asarray(wrong * LOOKS[name].factor)


def shown_heights(maps: xr.Dataset, count: int = HEIGHTS) -> list[float]:
    """Up to `count` heights, including the lowest and the highest."""
    z = maps["z"].values
    return [float(z[index]) for index in spanning(len(z), count)]


def _layer(maps: xr.Dataset, height: float) -> xr.Dataset:
    """Select the layer at a height of `shown_heights`. If a map has no heights, `height` is the index of a layer."""
    return maps.isel(z=int(np.abs(maps["z"].values - height).argmin()))


def _step(maps: xr.Dataset, edge: int) -> int:
    """Smallest step between shown cells that limits each edge to `edge` cells."""
    return max(1, -(-max(maps.sizes["y"], maps.sizes["x"]) // edge))


def thinned(layer: xr.Dataset, edge: int = EDGE) -> xr.Dataset:
    """Return every n-th row and column of a layer for display, with dims `(…, y, x)`; n grows with its size."""
    step = _step(layer, edge)
    return layer.isel(y=slice(None, None, step), x=slice(None, None, step)).transpose(..., "y", "x")


def left_out(maps: xr.Dataset, edge: int, heights: int) -> str:
    """A sentence on the data that a page leaves out; empty if it shows all."""
    step = _step(maps, edge)
    parts = [f"every {step}th cell"] if step > 1 else []
    parts += [f"{heights} of {maps.sizes['z']} heights"] if heights < maps.sizes["z"] else []
    return f"Shown are {' and '.join(parts)}." if parts else ""


def _metres(height: Any) -> str:
    return f"{float(height):g} m"


def _field(panel: str, place: Mapping[str, str], layer: xr.Dataset, values: NDArray[Any], up: str = "y") -> ViewerField:
    """Values of a layer `(up, x)` with its transmitter and buildings."""
    solid = layer["building"].transpose(up, "x").values > 0 if "building" in layer else None
    antenna = [(float(layer["tx_x"]), float(layer[f"tx_{up}"]))]
    return ViewerField(panel, place, values, layer["x"].values, layer[up].values, antenna, solid)


def _limits(parts: Sequence[NDArray[Any]], look: VariableStyle) -> tuple[float, float]:
    """The central 99 % of all values; the full circle for an azimuth."""
    if look.circular:
        return 0.0, 360.0
    values = np.concatenate([part[np.isfinite(part)].ravel() for part in parts])
    if not values.size:
        return 0.0, 1.0
    low, high = map(float, np.quantile(values, [0.005, 0.995]))
    if look.unit == "°":  # at the transmitter's height all zenith angles are 90° up to rounding
        reach = max(90 - low, high - 90, 3.0)
        return 90 - reach, 90 + reach
    return low, high if high > low else low + 1.0


def _high(values: NDArray[Any]) -> float:
    """The 99th percentile of the finite values; 1 if it is not above 0."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, 0.99)) or 1.0 if known.size else 1.0


def city(maps: xr.Dataset, footprints: Sequence[Footprint], *, variable: str = "path_gain_db") -> Figure:
    """Buildings as prisms, the transmitter, and one layer of a map at a height that a slider selects.

    `maps` is one map `(z, y, x)` with `tx_x`, `tx_y`, `tx_z` in the metres of the footprints.
    """
    from plotly.graph_objects import Figure

    look = LOOKS[variable]
    figure = Figure()
    low, high = _limits([maps[variable].values * look.factor], look)
    heights = shown_heights(maps)
    for number, height in enumerate(heights):
        layer = thinned(_layer(maps, height))
        values = (layer[variable] * look.factor).transpose("y", "x").values
        level = np.where(np.isfinite(values), float(layer["z"]), np.nan)
        figure.add_surface(
            x=layer["x"].values.astype(np.float32),
            y=layer["y"].values.astype(np.float32),
            z=level.astype(np.float32),
            surfacecolor=values.astype(np.float32),
            colorscale=look.colours,
            cmin=low,
            cmax=high,
            colorbar={"title": {"text": f"{look.title}, {look.unit}", "side": "right"}, "thickness": 12},
            name=_metres(layer["z"]),
            visible=number == 0,
            hovertemplate="%{x:.4~g}, %{y:.4~g}<br>%{surfacecolor:.4~g} " + look.unit + "<extra>%{z:.3~g} m</extra>",
        )
    vertices, faces = _prisms(maps, footprints)
    if len(faces):
        figure.add_mesh3d(
            **{axis: vertices[:, k].astype(np.float32) for k, axis in enumerate("xyz")},
            **{corner: faces[:, k].astype(np.int32) for k, corner in enumerate("ijk")},
            color="#8a8f99",
            opacity=0.55,
            flatshading=True,
            name="buildings",
            hoverinfo="skip",
        )
    figure.add_scatter3d(
        **{axis: [float(maps[f"tx_{axis}"])] for axis in "xyz"},
        mode="markers",
        marker={"color": "#d55e00", "size": 6, "symbol": "diamond"},
        name="transmitter",
    )
    rest = len(figure.data) - len(heights)
    steps = [
        {
            "method": "update",
            "label": _metres(height),
            "args": [{"visible": [number == k for k in range(len(heights))] + [True] * rest}],
        }
        for number, height in enumerate(heights)
    ]
    figure.update_layout(
        height=620,
        margin={"t": 10, "b": 10, "l": 0, "r": 0},
        scene={
            "aspectmode": "data",
            "xaxis": {"title": {"text": "x (m)"}},
            "yaxis": {"title": {"text": "y (m)"}},
            "zaxis": {"title": {"text": "z (m)"}},
        },
        sliders=[{"steps": steps, "currentvalue": {"prefix": "height "}, "pad": {"t": 10}}],
        showlegend=False,
    )
    return figure


def _prisms(maps: xr.Dataset, footprints: Sequence[Footprint]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Vertices and faces of the buildings within the window, the largest first, up to the limit of triangles."""
    import shapely

    x, y = maps["x"].values, maps["y"].values
    window = shapely.box(x.min(), y.min(), x.max(), y.max())
    inside = [found for found in footprints if found.polygon.intersects(window)]
    vertices, faces, count, triangles = [], [], 0, 0
    for footprint in sorted(inside, key=lambda found: -found.polygon.area):
        mesh = extrude(footprint, floor=False)
        triangles += len(mesh.faces)
        if triangles > TRIANGLES:
            break
        vertices.append(mesh.vertices)
        faces.append(mesh.faces + count)
        count += len(mesh.vertices)
    if not faces:
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    return np.concatenate(vertices), np.concatenate(faces)

"""Maps and scenes for the browser: a viewer of modalities, heights and transmitters, and the city in 3-D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.report.blocks import Panel, Viewer, ViewerAxis, ViewerField
from radiomaps.scenes.extrude import extrude

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

    from radiomaps.scenes import Footprint

__all__ = ["LOOKS", "city", "difference", "map_viewer", "prediction_viewer", "stored_truth"]

#: Largest number of cells along an edge, and of heights, on a page. Data in between is left out, and the page says so.
EDGE, HEIGHTS = 128, 5
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


def map_viewer(maps: Mapping[str, xr.Dataset], others: Mapping[str, xr.Dataset] | None = None) -> Viewer:
    """A viewer of every modality of maps `(z, y, x)`, by name, at some heights, with one scale per modality.

    `others` are maps of the same places by the same names, shown next to them with the difference.
    """
    first = next(iter(maps.values()))
    others = others or {}
    names = [name for name in LOOKS if name in first and all(name in data for data in others.values())]
    heights = _heights(first)
    panels, fields = [], []
    for name in names:
        look = LOOKS[name]
        low, high = _limits([data[name].values * look.factor for data in (*maps.values(), *others.values())], look)
        for what in (look.title, f"{look.title}, the other")[: 2 if others else 1]:
            panels.append(Panel(what, look.unit, look.colours, low, high, modality=look.title))
        if others:
            most = max(_high(np.abs(difference(maps[label], others[label], name))) for label in maps)
            panels.append(Panel(f"{look.title} − the other", look.unit, "RdBu_r", -most, most, modality=look.title))
    for label, data in maps.items():
        for index in heights:
            layer = _thinned(data.isel(z=index))
            place = {"map": label, "height": _metres(layer["z"])}
            fields += [_field(LOOKS[n].title, place, layer[n] * LOOKS[n].factor) for n in names]
            for name in names if label in others else ():
                title, there = LOOKS[name].title, _thinned(others[label].isel(z=index))
                beside = layer[name].copy(data=there[name].transpose(*layer[name].dims).values)
                wrong = layer[name].copy(data=difference(layer, there, name))
                fields.append(_field(f"{title}, the other", place, beside * LOOKS[name].factor))
                fields.append(_field(f"{title} − the other", place, wrong))
    axes = (
        ViewerAxis("quantity", [LOOKS[name].title for name in names]),
        ViewerAxis("map", list(maps)),
        ViewerAxis("height", [_metres(first["z"][index]) for index in heights], "range"),
    )
    caption = "Empty: inside a building, or no path. " + _left_out(first)
    return Viewer(axes, panels, fields, "A map of the chosen quantity", caption, "x, east (m)", "y, north (m)")


def prediction_viewer(predicted: Mapping[str, xr.Dataset], truths: Mapping[str, xr.Dataset]) -> Viewer:
    """A viewer of truth, mean, members, error and uncertainty of every target, by map and height.

    `predicted` is what `radiomaps.prediction` writes, `truths` has the same variables `(z, y, x)`; a map without a
    truth shows the others alone.
    """
    first = next(iter(predicted.values()))
    names = [name for name in LOOKS if f"{name}_mean" in first]
    heights, panels, fields = _heights(first), [], []
    members = first.sizes["member"]
    for name in names:
        look = LOOKS[name]
        known = [data[name].values * look.factor for data in truths.values()]
        low, high = _limits(known or [data[f"{name}_mean"].values * look.factor for data in predicted.values()], look)
        wrong = [difference(predicted[k], truths[k], name, of=f"{name}_mean") for k in truths if k in predicted]
        spread = [data[f"{name}_uncertainty"].values * look.factor for data in predicted.values()]
        most = max([_high(np.abs(part)) for part in wrong], default=1.0)
        for what in ("truth", "mean", "member"):
            panels.append(Panel(what, look.unit, look.colours, low, high, modality=look.title))
        panels.append(Panel("mean − truth", look.unit, "RdBu_r", -most, most, modality=look.title))
        panels.append(Panel("uncertainty", look.unit, "Magma", 0, max(map(_high, spread)), modality=look.title))
    for label, data in predicted.items():
        truth = truths.get(label)
        for name in names:
            for index in heights:
                fields += _prediction_fields(label, name, data.isel(z=index), truth and truth.isel(z=index))
    axes = (
        ViewerAxis("quantity", [LOOKS[name].title for name in names]),
        ViewerAxis("map", list(predicted)),
        ViewerAxis("height", [_metres(first["z"][index]) for index in heights], "range"),
        ViewerAxis("member", [str(number + 1) for number in range(members)], "range"),
    )
    caption = "Uncertainty is the standard deviation over members, circular for an azimuth. " + _left_out(first)
    alt = "Maps of truth, mean, one member, error and uncertainty"
    return Viewer(axes, panels, fields, alt, caption, "x, east (m)", "y, north (m)")


def _prediction_fields(label: str, name: str, layer: xr.Dataset, truth: xr.Dataset | None) -> list[ViewerField]:
    look = LOOKS[name]
    layer = _thinned(layer)
    place = {"quantity": look.title, "map": label, "height": _metres(layer["z"])}
    fields = [
        _field("mean", place, layer[f"{name}_mean"] * look.factor),
        _field("uncertainty", place, layer[f"{name}_uncertainty"] * look.factor),
        *(
            _field("member", place | {"member": str(number + 1)}, layer[name].isel(member=number) * look.factor)
            for number in range(layer.sizes["member"])
        ),
    ]
    if truth is not None:
        truth = _thinned(truth)
        fields.append(_field("truth", place, layer[f"{name}_mean"].copy(data=truth[name].values) * look.factor))
        wrong = layer[f"{name}_mean"].copy(data=difference(layer, truth, name, of=f"{name}_mean"))
        fields.append(_field("mean − truth", place, wrong))
    return fields


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


def _heights(maps: xr.Dataset) -> list[int]:
    """Indices of the layers that are shown, including the lowest and the highest."""
    count = maps.sizes["z"]
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, HEIGHTS))})


def _thinned(layer: Any) -> Any:
    """A layer thinned by a constant step, so that no edge has more than `EDGE` cells."""
    step = max(1, -(-max(layer.sizes["y"], layer.sizes["x"]) // EDGE))
    return layer.isel(y=slice(None, None, step), x=slice(None, None, step))


def _left_out(maps: xr.Dataset) -> str:
    """A sentence on the data that a page leaves out; empty if it shows all."""
    step = max(1, -(-max(maps.sizes["y"], maps.sizes["x"]) // EDGE))
    heights = maps.sizes["z"]
    parts = [f"every {step}th cell"] if step > 1 else []
    parts += [f"{HEIGHTS} of {heights} heights"] if heights > HEIGHTS else []
    return f"Shown are {' and '.join(parts)}." if parts else ""


def _metres(height: Any) -> str:
    return f"{float(height):g} m"


def _field(panel: str, place: Mapping[str, str], layer: xr.DataArray) -> ViewerField:
    layer = layer.transpose("y", "x")
    antenna = [(float(layer["tx_x"]), float(layer["tx_y"]))]
    return ViewerField(panel, place, layer.values, layer["x"].values, layer["y"].values, antenna)


def _limits(parts: Sequence[NDArray[Any]], look: VariableStyle) -> tuple[float, float]:
    """The central 99 % of all values; the full circle for an azimuth."""
    if look.circular:
        return 0.0, 360.0
    values = np.concatenate([part[np.isfinite(part)].ravel() for part in parts])
    if not values.size:
        return 0.0, 1.0
    low, high = map(float, np.quantile(values, [0.005, 0.995]))
    if look.unit == "°":  # at the transmitter's height all zenith angles are 90° up to rounding
        low, high = min(low, 87.0), max(high, 93.0)
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
    heights = _heights(maps)
    for number, index in enumerate(heights):
        layer = _thinned(maps.isel(z=index))
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
            "label": f"{float(maps['z'][index]):g} m",
            "args": [{"visible": [number == k for k in range(len(heights))] + [True] * rest}],
        }
        for number, index in enumerate(heights)
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

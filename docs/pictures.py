"""The three pictures of the front page, drawn from the folder of `make demo`.

    python docs/pictures.py runs/demo docs/pictures

`rain.png`: coarse rain, predictions and fine truth at the wettest hour. `city.png`: a traced city in
3-D, its traced and its learned map. `chat.svg`: questions to the experts over MCP with their answers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

#: Models shown besides the coarse input and the truth, where the demo has them.
MODELS = ("bilinear", "rainfarm", "general-regression", "general")
#: Questions of the chat, in the words of the tool's enumeration.
QUESTIONS = ("line_of_sight", "delay_spread", "doppler", "snr")


def rain(run: Path, file: Path, *, region: str = "melanesia") -> None:
    """Rain in mm/h at the wettest test hour of a region that the models were not trained on."""
    from geoml.report.drawing import draw_viewer, save_figure
    from rainshift.report import example_maps
    from rainshift.report.figures import rain_viewer

    hours = example_maps.read(run)[region]
    viewer = rain_viewer({region: hours.sel(model=[name for name in MODELS if name in hours["model"]])})
    save_figure(draw_viewer(viewer, title="Wettest test hour; models that never saw the region"), file)


def city(traced: Path, predicted: Path, file: Path) -> None:
    """Buildings and traced path gain in 3-D, and next to it truth, prediction and error at street level."""
    from matplotlib.figure import Figure

    import radiomaps
    from geoml.data.store import read_dataset
    from geoml.report.drawing import save_figure

    (first, *_) = sorted((predicted / "samples").glob("map-*.nc"))
    with read_dataset(first) as stored:
        made = stored.load()
    scene = radiomaps.load_scene(str(made.attrs["scene"]))
    layer = made.isel(z=0)
    low, high = np.nanpercentile(layer["path_gain_db_truth"], [2, 98])
    colours = {"cmap": "viridis", "vmin": low, "vmax": high}
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    widths = figure.add_gridspec(1, 4, width_ratios=[1.5, 1, 1, 1])
    _buildings(figure.add_subplot(widths[0], projection="3d"), scene, layer, colours)
    panels = {
        "traced (dB); white: no path": (layer["path_gain_db_truth"], colours),
        "learned, mean of 8 (dB)": (layer["path_gain_db_mean"], colours),
        "uncertainty (dB)": (layer["path_gain_db_uncertainty"], {"cmap": "magma", "vmin": 0}),
    }
    for number, (title, (field, look)) in enumerate(panels.items(), 1):
        axis = figure.add_subplot(widths[number])
        drawn = axis.pcolormesh(layer["x"], layer["y"], field, rasterized=True, **look)
        axis.plot(float(made["tx_x"]), float(made["tx_y"]), "r^", markersize=6)
        inside = np.where(layer["building"].values > 0, 1.0, np.nan)
        axis.pcolormesh(layer["x"], layer["y"], inside, cmap="gray", vmin=0, vmax=1.8, rasterized=True)
        axis.set(title=title, aspect="equal", xticks=[], yticks=[], facecolor="white")
        figure.colorbar(drawn, ax=axis, shrink=0.7, location="bottom")
    save_figure(figure, file)


def _buildings(axis: Any, scene: Any, layer: xr.Dataset, colours: dict[str, Any]) -> None:
    """Meshes of the scene within the layer's window, over the traced gain."""
    from matplotlib import colormaps
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    x, y = layer["x"].values, layer["y"].values
    gain = layer["path_gain_db_truth"].transpose("y", "x").values
    scaled = (gain - colours["vmin"]) / (colours["vmax"] - colours["vmin"])
    faces = colormaps[colours["cmap"]](np.nan_to_num(np.clip(scaled, 0, 1)))
    faces[~np.isfinite(gain)] = (0.85, 0.85, 0.85, 1.0)
    axis.plot_surface(*np.meshgrid(x, y), np.zeros_like(gain), facecolors=faces, rcount=200, ccount=200, shade=False)
    buildings: dict[str, list[Any]] = {}
    for mesh in scene.meshes:
        if mesh.kind == "building":
            buildings.setdefault(mesh.building or mesh.name, []).append(mesh.vertices[mesh.faces])
    built = []
    for parts in map(np.concatenate, buildings.values()):
        middle = (parts.min(axis=(0, 1)) + parts.max(axis=(0, 1))) / 2
        if abs(middle[0] - x.mean()) < np.ptp(x) / 2 and abs(middle[1] - y.mean()) < np.ptp(y) / 2:
            built.append(parts)
    built = np.concatenate(built)
    shown = Poly3DCollection(built, facecolors="#b9c3cf", edgecolors="#8895a3", linewidth=0.1, alpha=0.85, shade=True)
    axis.add_collection3d(shown)
    axis.scatter(*(float(layer[f"tx_{name}"]) for name in "xyz"), color="red", marker="^", depthshade=False)
    axis.set_zlim(0, np.ptp(x) / 3)
    axis.set_box_aspect((1, 1, 0.3), zoom=1.45)
    axis.view_init(elev=42, azim=-60)
    axis.set_axis_off()
    axis.set_title(f"{layer.attrs['scene']}: traced path gain", y=0.9)


def chat(file: Path) -> None:
    """Questions about a synthetic channel, asked through a real MCP client, and the sentences that come back."""
    from rich.console import Console
    from rich.panel import Panel

    console = Console(record=True, width=96, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    for question, call, answer in asyncio.run(_asked(QUESTIONS)):
        console.print(f"[bold cyan]client[/]  {call}")
        console.print(Panel(answer, title=f"[green]{question.replace('_', ' ')}", title_align="left", expand=True))
    file.write_text(console.export_svg(title="mcp-experts serve"), encoding="utf-8")


async def _asked(questions: Sequence[str]) -> list[tuple[str, str, str]]:
    """Question, tool call and first sentence of the answer, from the server started on stdio."""
    import tempfile

    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    import mcp_experts

    channel = mcp_experts.synthetic_channel(delay_spread_s=3e-7, doppler_hz=120, k_factor_db=9, snr_db=22)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(
            Path(folder, "link.npz"),
            csi=channel.csi,
            subcarrier_spacing_hz=channel.subcarrier_spacing_hz,
            snapshot_interval_s=channel.snapshot_interval_s,
        )
        command = StdioServerParameters(command=sys.executable, args=["-m", "mcp_experts", "serve", "--root", folder])
        answers = []
        async with stdio_client(command) as streams, ClientSession(*streams) as session:
            await session.initialize()
            for question in questions:
                arguments = {"source": "link.npz", "question": question}
                result = await session.call_tool("wireless_ask", arguments)
                words = " ".join(getattr(part, "text", "") for part in result.content)
                answers.append((question, f"wireless_ask(source='link.npz', question='{question}')", words))
    return answers


def main(arguments: Sequence[str]) -> int:
    """Draw all three; returns the exit code."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    demo, folder = map(Path, arguments)
    folder.mkdir(parents=True, exist_ok=True)
    rain(demo / "rain", folder / "rain.png")
    city(demo / "etoile", demo / "sampled", folder / "city.png")
    chat(folder / "chat.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

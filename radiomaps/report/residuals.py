"""Figure of a calibration: residuals by position, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from radiomaps.raytrace.calibration import Calibration
    from radiomaps.scenes import Scene

__all__ = ["draw_residuals"]


def draw_residuals(made: Calibration, scene: Scene) -> Figure:
    """Measured minus predicted power in dB at each place over the footprints; held-out places are squares."""
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    points, span = made.measured.points, 5.0
    limit = max(3.0, float(np.percentile(np.abs(made.before_db), 95)))
    outlines = [np.asarray(footprint.polygon.exterior.coords)[:, :2] for footprint in scene.footprints]
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, values, name in zip(panels, (made.before_db, made.after_db), ("before", "after"), strict=True):
        axes.add_collection(PolyCollection(outlines, facecolor="#e3e0da", edgecolor="#b9b5ad", linewidth=0.5))
        for held, marker in ((False, "o"), (True, "s")):
            part = made.held_out == held
            dots = axes.scatter(
                points[part, 0], points[part, 1], c=values[part], cmap="RdBu_r", vmin=-limit, vmax=limit, s=14,
                marker=marker, linewidths=0.3, edgecolors="#4a4a4a",
            )  # fmt: skip
        axes.set_title(f"{name}: RMSE {np.sqrt(np.mean(values**2)):.1f} dB")
        axes.set_aspect("equal")
        axes.set_xlim(points[:, 0].min() - span, points[:, 0].max() + span)
        axes.set_ylim(points[:, 1].min() - span, points[:, 1].max() + span)
        axes.set_xlabel("x (m)")
    panels[0].set_ylabel("y (m)")
    figure.colorbar(dots, ax=panels, label="measured minus predicted (dB)")
    return figure

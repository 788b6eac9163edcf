"""Report on one scene as it was read: counts, areas, heights, reference system and repairs."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from radiomaps.scenes.projection import WGS84, project

if TYPE_CHECKING:
    from radiomaps.scenes.scene import Scene

__all__ = ["SceneReport", "report_of"]


@dataclass(frozen=True)
class SceneReport:
    """A scene in numbers; `print` shows one per line.

    `heights_m` are the lowest, median and highest roof above ground, `covered_m2` is the ground area of buildings,
    `place` the latitude and longitude of (0, 0), None for a scene without a reference system.
    """

    name: str
    buildings: int
    courtyards: int
    raised: int
    covered_m2: float
    covered_share: float
    heights_m: tuple[float, float, float] | None
    materials: dict[str, int]
    ground: str
    extent_m: tuple[tuple[float, float, float], tuple[float, float, float]]
    crs: str
    place: tuple[float, float] | None
    triangles: int
    licence: str
    repairs: tuple[str, ...]
    hash: str

    def lines(self) -> dict[str, str]:
        """The lines that `print` shows, by name."""
        low, high = self.extent_m
        kinds = ((self.courtyards, "with courtyards"), (self.raised, "raised"))
        details = ", ".join(f"{count} {what}" for count, what in kinds if count)
        roofs = self.heights_m
        place = f"; (0, 0) is at {self.place[0]:.6f}, {self.place[1]:.6f}" if self.place else ""
        x, y, z = (f"{a:.{digits}f} … {b:.{digits}f}" for a, b, digits in zip(low, high, (0, 0, 1), strict=True))
        return {
            "scene": self.name,
            "buildings": f"{self.buildings} ({details})" if details else f"{self.buildings}",
            "area": f"{self.covered_m2:,.0f} m² covered, {100 * self.covered_share:.1f} % of the ground",
            "heights": f"{roofs[0]:.1f} … {roofs[2]:.1f} m, median {roofs[1]:.1f} m" if roofs else "none",
            "ground": self.ground,
            "extent": f"x {x}, y {y}, z {z} m",
            "crs": f"{_short(self.crs)}{place}",
            "materials": ", ".join(f"{name} {count}" for name, count in self.materials.items()) or "none",
            "triangles": f"{self.triangles:,}",
            "licence": self.licence or "not stated",
            "hash": self.hash[:8],
            "repairs": "none" if not self.repairs else "",
        }

    def __str__(self) -> str:
        lines = self.lines()
        width = max(map(len, lines))
        shown = [f"{name.ljust(width)}  {text}".rstrip() for name, text in lines.items()]
        return "\n".join([*shown, *(f"  - {line}" for line in self.repairs)])


def report_of(scene: Scene) -> SceneReport:
    """The report of a scene."""
    low, high = scene.extent
    footprints = scene.footprints
    covered = float(shapely.union_all([f.polygon for f in footprints]).area) if footprints else 0.0
    grounds = [mesh for mesh in scene.meshes if mesh.kind == "ground"]
    level = np.concatenate([mesh.vertices[:, 2] for mesh in grounds]) if grounds else np.zeros(1)
    flat = float(np.ptp(level)) < 0.5
    tops = np.array([f.top_m - float(level.min()) if flat else f.height_m for f in footprints])
    ground = f"flat at {level.min():g} m" if flat else f"{level.min():.1f} … {level.max():.1f} m"
    used = Counter(mesh.material for mesh in scene.meshes)
    return SceneReport(
        name=scene.name,
        buildings=len(scene.buildings),
        courtyards=sum(len(f.polygon.interiors) > 0 for f in footprints),
        raised=sum(flat and f.base_m > float(level.min()) + 0.5 for f in footprints),
        covered_m2=covered,
        covered_share=covered / max((high[0] - low[0]) * (high[1] - low[1]), 1e-9),
        heights_m=(float(tops.min()), float(np.median(tops)), float(tops.max())) if len(tops) else None,
        materials=dict(sorted(used.items(), key=lambda item: (-item[1], item[0]))),
        ground=ground if grounds else "none",
        extent_m=scene.extent,
        crs=scene.crs,
        place=_place(scene.crs),
        triangles=scene.triangles,
        licence=scene.licence,
        repairs=scene.repairs,
        hash=scene.hash,
    )


def _place(crs: str) -> tuple[float, float] | None:
    if crs == "local":
        return None
    found: Any = project(np.zeros((1, 2)), crs, WGS84)[0]
    return (float(found[1]), float(found[0])) if np.isfinite(found).all() else None


def _short(crs: str) -> str:
    """A PROJ string unchanged; the name of a WKT system."""
    found = re.match(r'\w+\["([^"]*)"', crs)
    return f"{found[1]}, counted from another origin" if found else crs

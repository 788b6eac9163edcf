"""A scene: meshes with materials, footprints, and geometric queries that need no ray tracer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError, unknown
from geoml.grids.grid import Grid
from radiomaps.materials import ITU_MATERIALS, Material, materials_of
from radiomaps.scenes.columns import surface_height

if TYPE_CHECKING:
    from shapely import Polygon

    from radiomaps.scenes.report import SceneReport

__all__ = ["MATERIALS", "Footprint", "Mesh", "Scene"]

#: Materials of ITU-R P.2040; a table of `Scene.materials` may define others.
MATERIALS = ITU_MATERIALS

Kind = Literal["building", "ground", "object"]

#: Resolution of vertices in the hash, in metres.
_PRECISION = 1e-3


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles of one material: `vertices` (n, 3) in metres, `faces` (m, 3) indices, normals outward.

    `kind` is "building" (solid below its roof), "ground", or "object" (car, reflector; affects rays only). Meshes of
    one `building` (such as walls and roof) share that name. Upward faces of a building have `roof_material`, if set.
    """

    name: str
    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    material: str = "concrete"
    kind: Kind = "building"
    building: str = ""
    roof_material: str = ""

    def __post_init__(self) -> None:
        vertices = np.ascontiguousarray(self.vertices, np.float64)
        faces = np.ascontiguousarray(self.faces, np.int32)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3 or not len(faces):
            shapes = f"vertices {vertices.shape}, faces {faces.shape}"
            raise DataError(f"mesh {self.name!r}: {shapes}; expected (n, 3) and (m, 3) with at least one face")
        if faces.min() < 0 or faces.max() >= len(vertices) or not np.isfinite(vertices).all():
            raise DataError(
                f"mesh {self.name!r}: faces point outside its {len(vertices)} vertices, or one is not finite"
            )
        vertices.setflags(write=False)
        faces.setflags(write=False)
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)
        object.__setattr__(self, "building", self.building or self.name)


@dataclass(frozen=True, eq=False)
class Footprint:
    """A building as a vertical prism: a polygon (holes are courtyards) between `base_m` and `base_m + height_m`."""

    polygon: Polygon
    height_m: float
    base_m: float = 0.0
    material: str = "concrete"
    name: str = ""
    roof_material: str = ""

    @property
    def top_m(self) -> float:
        return self.base_m + self.height_m


@dataclass(frozen=True, eq=False)
class Scene:
    """Meshes in local metres (x east, y north, z up), with the footprints of the buildings.

    `crs` is "local" or the reference system of the local metres (a PROJ string). `repairs` lists the corrections that
    were made while the scene was read.
    """

    name: str
    meshes: tuple[Mesh, ...]
    footprints: tuple[Footprint, ...] = ()
    crs: str = "local"
    licence: str = ""
    repairs: tuple[str, ...] = field(default=())
    materials: tuple[Material, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "meshes", tuple(self.meshes))
        object.__setattr__(self, "footprints", tuple(self.footprints))
        if not self.meshes:
            raise DataError(f"scene {self.name!r} has no mesh")

    def furnished(
        self, *, table: Any = None, walls: str | None = None, roofs: str | None = None, ground: str | None = None
    ) -> Scene:
        """The scene with other materials of all walls, roofs or ground, where given.

        `table` defines materials in addition to those of ITU-R P.2040, or replaces them: an argument of
        `radiomaps.materials.materials_of`, such as the path of a CSV or YAML file.
        """
        materials = materials_of(table) or self.materials
        known = {*MATERIALS, *(material.name for material in materials)}
        for surface, name in (("walls", walls), ("roofs", roofs), ("ground", ground)):
            if name is not None and name not in known:
                raise unknown(f"material of {surface}", name, known)
        meshes = []
        for mesh in self.meshes:
            if mesh.kind == "ground":
                meshes.append(replace(mesh, material=ground or mesh.material))
            elif mesh.kind == "building":
                roof = roofs or mesh.roof_material or (mesh.material if walls else "")
                meshes.append(replace(mesh, material=walls or mesh.material, roof_material=roof))
            else:
                meshes.append(mesh)
        return replace(self, meshes=tuple(meshes), materials=materials)

    @property
    def triangles(self) -> int:
        return sum(len(mesh.faces) for mesh in self.meshes)

    @cached_property
    def extent(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Lowest and highest x, y, z of all meshes."""
        lower = np.min([mesh.vertices.min(axis=0) for mesh in self.meshes], axis=0)
        upper = np.max([mesh.vertices.max(axis=0) for mesh in self.meshes], axis=0)
        return (float(lower[0]), float(lower[1]), float(lower[2])), (float(upper[0]), float(upper[1]), float(upper[2]))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of geometry (to a millimetre) and materials, independent of names and the order of meshes."""
        digests = []
        for mesh in self.meshes:
            roof = f" {mesh.roof_material}" if mesh.roof_material else ""
            part = hashlib.sha256(f"{mesh.material} {mesh.kind}{roof}".encode())
            part.update(np.round(mesh.vertices / _PRECISION).astype("<i8").tobytes())
            part.update(mesh.faces.astype("<i4").tobytes())
            digests.append(part.digest())
        digests += [json.dumps(material.describe(), sort_keys=True).encode() for material in self.materials]
        return hashlib.sha256(b"".join(sorted(digests))).hexdigest()

    @cached_property
    def report(self) -> SceneReport:
        """Report on the scene: buildings, area, heights, materials, reference system, repairs."""
        from radiomaps.scenes.report import report_of

        return report_of(self)

    def _of_kind(self, kind: Kind) -> list[Mesh]:
        return [mesh for mesh in self.meshes if mesh.kind == kind]

    @cached_property
    def buildings(self) -> dict[str, list[Mesh]]:
        """The meshes of each building by its name."""
        found: dict[str, list[Mesh]] = {}
        for mesh in self._of_kind("building"):
            found.setdefault(mesh.building, []).append(mesh)
        return found

    def ground_height(self, grid: Grid) -> NDArray[np.float64]:
        """Height of the ground at cell centres, `(y, x)` (m); the scene's lowest point where there is none."""
        x, y = grid["x"].coordinates, grid["y"].coordinates
        heights = np.full((len(y), len(x)), -np.inf)
        for mesh in self._of_kind("ground"):
            heights = np.maximum(heights, surface_height(mesh.vertices, mesh.faces, x, y))
        return np.where(np.isfinite(heights), heights, self.extent[0][2])

    def _columns(self, grid: Grid) -> Iterator[tuple[tuple[slice, slice], float, NDArray[np.float64]]]:
        """For each building in the grid: its window of cells, its lowest z, and the height of its roof there."""
        x, y = grid["x"].coordinates, grid["y"].coordinates
        for meshes in self.buildings.values():
            vertices = np.concatenate([mesh.vertices for mesh in meshes])
            offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
            faces = np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=True)])
            low, high = vertices.min(axis=0), vertices.max(axis=0)
            columns = slice(int(np.searchsorted(x, low[0] - 1e-6)), int(np.searchsorted(x, high[0] + 1e-6)))
            rows = slice(int(np.searchsorted(y, low[1] - 1e-6)), int(np.searchsorted(y, high[1] + 1e-6)))
            if columns.start < columns.stop and rows.start < rows.stop:
                yield (rows, columns), float(low[2]), _roof(vertices, faces.astype(np.int32), x[columns], y[rows], grid)

    def height_map(self, grid: Grid) -> NDArray[np.float64]:
        """Height of the roof, or else of the ground, at cell centres: `(y, x)`, metres in the scene's z."""
        heights = self.ground_height(grid)
        for window, _, roof in self._columns(grid):
            heights[window] = np.maximum(heights[window], roof)
        return heights

    def building_mask(self, grid: Grid, *, above_ground: bool = False) -> NDArray[np.bool_]:
        """Whether cell centres are inside a building or below the ground: `(z, y, x)`.

        A building fills its column from its lowest point to its roof; a centre exactly at roof height is outside.
        `above_ground`: heights of the grid are above the ground of each column.
        """
        ground = self.ground_height(grid)[None]
        z = grid["z"].coordinates[:, None, None] + (ground if above_ground else np.zeros_like(ground))
        mask = z < ground
        for window, base, roof in self._columns(grid):
            part = (slice(None), *window)
            mask[part] |= (z[part] >= base) & (z[part] < roof[None])
        return mask

    def require_inside(self, grid: Grid) -> None:
        """Raise `UserError` for a grid that is not completely inside the scene."""
        lower, upper = self.extent
        (x0, x1), (y0, y1) = grid["x"].extent, grid["y"].extent
        wide = ",".join(f"{f(a, b):g}" for f, a, b in zip((min, min, max, max), (x0, y0, x1, y1),
                                                          (*lower[:2], *upper[:2]), strict=True))  # fmt: skip
        for name, low, high in zip("xy", lower, upper, strict=False):
            first, last = grid[name].extent
            if first < low - 1e-3 or last > high + 1e-3:
                raise UserError(
                    f"the grid runs {first:g} … {last:g} m along {name}, scene {self.name!r} {low:g} … {high:g} m; "
                    "choose a grid inside the scene, or, for a scene from footprints, more open ground: "
                    f"bounds_m=[{wide}]"
                )

    def require_outdoors(self, positions: Sequence[tuple[float, float, float]], names: Sequence[str] = ()) -> None:
        """Raise `UserError` for the first position inside a building, below the ground or outside the scene."""
        lower, upper = self.extent
        for (x, y, z), name in zip(positions, names or [""] * len(positions), strict=True):
            where = f"transmitter{f' {name!r}' if name else ''} at ({x:g}, {y:g}, {z:g}) m"
            if not (lower[0] <= x <= upper[0] and lower[1] <= y <= upper[1]):
                bounds = f"{lower[0]:g} … {upper[0]:g} m by {lower[1]:g} … {upper[1]:g} m"
                raise UserError(f"{where} is outside scene {self.name!r}, which spans {bounds}")
            point = Grid.box({"z": z - 1, "y": y - 1, "x": x - 1}, {"z": z + 1, "y": y + 1, "x": x + 1}, 2.0)
            if self.building_mask(point)[0, 0, 0]:
                roof = float(self.height_map(point)[0, 0])
                raise UserError(f"{where} is inside a building or the ground; the surface there is at {roof:g} m")

    def grid(self, step_m: float, heights_m: Sequence[float]) -> Grid:
        """The largest grid of cells inside the scene; `heights_m` are first layer, last layer and step.

        >>> from radiomaps.scenes import load
        >>> load("procedural-0").grid(4.0, (1.5, 10.5, 3.0)).shape
        (4, 64, 64)
        """
        first, last, spacing = (float(value) for value in heights_m)
        lower, upper = self.extent
        low = {"z": first - spacing / 2}
        high = {"z": last + spacing / 2}
        for name, start, stop in zip("yx", lower[1::-1], upper[1::-1], strict=True):
            cells = int((stop - start) // step_m)
            if cells < 1:
                raise UserError(f"no cell of {step_m:g} m fits into scene {self.name!r} along {name}")
            low[name] = (start + stop - cells * step_m) / 2
            high[name] = low[name] + cells * step_m
        return Grid.box(low, high, {"z": spacing, "y": step_m, "x": step_m})


def _roof(
    vertices: NDArray[np.float64], faces: NDArray[np.int32], x: NDArray[np.float64], y: NDArray[np.float64], grid: Grid
) -> NDArray[np.float64]:
    """`surface_height` in a window of the grid, whose spacing is unknown from a window of one cell."""
    wide_x = np.array([x[0], x[0] + grid["x"].step]) if len(x) == 1 else x
    wide_y = np.array([y[0], y[0] + grid["y"].step]) if len(y) == 1 else y
    return surface_height(vertices, faces, wide_x, wide_y)[: len(y), : len(x)]

"""The scene in the ray tracer: one mesh per material, and the diffracting edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import drjit as dr
import mitsuba as mi
import numpy as np
import sionna.rt as rt
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from sionna.rt.antenna_pattern import antenna_pattern_to_world_implicit
from sionna.rt.utils import rotation_matrix

from geoml.constants import SPEED_OF_LIGHT
from geoml.grids.grid import Grid
from radiomaps.maps.layout import Transmitter
from radiomaps.materials import materials_used
from radiomaps.raytrace.arrays import floats, integers
from radiomaps.raytrace.lattice import Cap
from radiomaps.raytrace.options import TraceOptions
from radiomaps.raytrace.patterns import antenna_pattern, weighted
from radiomaps.raytrace.surfaces import WELD_M, merged, radio_material, surfaces_of
from radiomaps.scenes import Mesh, Scene

__all__ = ["Edges", "Source", "World"]

#: Faces whose planes differ by less than this angle form no edge.
_FLAT_RAD = np.radians(1.0)
#: Offset of ray origins from surfaces: the minimum in metres, and terms per metre of the scene's longest edge and of
#: the point's coordinates. A plane is accurate to some 3 ulp of the distance to a corner, 2e-7 of it.
_GAP_M, _GAP_AN_EDGE, _GAP_A_METRE = 1e-4, 1e-6, 2e-6


@dataclass(frozen=True)
class Edges:
    """Edges that diffract: convex edges between two faces, and free edges of one.

    `origin`, `along` (unit vector), `length`, the outward `normals` (n, 2, 3) of both faces, the index of the shape and
    of the first face. A free edge has opposite normals.
    """

    origin: NDArray[np.float64]
    along: NDArray[np.float64]
    length: NDArray[np.float64]
    normals: NDArray[np.float64]
    shape: NDArray[np.int64]
    face: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.length)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Edges:
        origin, along, length, normals = (c[chosen] for c in (self.origin, self.along, self.length, self.normals))
        return Edges(origin, along, length, normals, self.shape[chosen], self.face[chosen])


class World:
    """The scene in Mitsuba: faces merged by material, so that there are few shapes.

    Mitsuba computes in float32, so all coordinates here are relative to `origin`, a point in the middle of the traced
    region: the scene's float64 coordinates are shifted before they are rounded. `lower` is the scene's lowest corner,
    shifted likewise.
    """

    def __init__(
        self, scene: Scene, options: TraceOptions, origin: Sequence[float] | NDArray[np.float64] = (0.0, 0.0, 0.0)
    ) -> None:
        self.wavelength_m = SPEED_OF_LIGHT / options.frequency_hz
        self.origin = np.asarray(origin, np.float64)
        self.lower, self.upper = (np.asarray(corner) - self.origin for corner in scene.extent)
        self.scene = rt.load_scene()
        self.scene.frequency = dr.opaque(mi.Float, options.frequency_hz)
        meshes = [replace(mesh, vertices=mesh.vertices - self.origin) for mesh in scene.meshes]
        self.gap_m = _GAP_M + _GAP_AN_EDGE * max(map(_longest_edge, meshes))
        surfaces, self.whole = surfaces_of(meshes)
        used = materials_used((surface.material for surface in surfaces), scene.materials, options.frequency_hz)
        objects: list[rt.SceneObject] = []
        self.corners: list[NDArray[np.float64]] = []
        for index, ((material, half_space), parts) in enumerate(surfaces.items()):
            bsdf = radio_material(used[material], f"{index}-{material}", options, half_space=half_space)
            vertices, faces = merged(parts)
            self.corners.append(vertices[faces])
            objects.append(self._object(f"faces-{index}", vertices, faces, bsdf))
        self.scene.edit(add=objects)
        self.mi_scene = self.scene.mi_scene
        self.shapes = {surface: index for index, surface in enumerate(surfaces)}
        self.meshes = [self.scene.objects[f"faces-{index}"].mi_mesh for index in self.shapes.values()]
        self.materials = [self.scene.objects[f"faces-{index}"].radio_material for index in self.shapes.values()]
        self.surface_of_object = {int(self.scene.objects[f"faces-{i}"].object_id): i for i in self.shapes.values()}

    def _object(
        self, name: str, vertices: NDArray[np.float64], faces: NDArray[np.int64], bsdf: rt.RadioMaterial
    ) -> rt.SceneObject:
        properties = mi.Properties()
        properties["face_normals"] = True
        mesh = mi.Mesh(name, len(vertices), len(faces), props=properties)
        parameters = mi.traverse(mesh)
        parameters["vertex_positions"] = floats(vertices)
        parameters["faces"] = integers(faces)
        parameters.update()
        return rt.SceneObject(mi_mesh=mesh, name=name, radio_material=bsdf)

    def local(self, transmitter: Transmitter) -> Transmitter:
        """A transmitter of the scene in the coordinates of this world."""
        x, y, z = (float(part) for part in np.asarray(transmitter.position) - self.origin)
        return replace(transmitter, position=(x, y, z))

    def local_grid(self, grid: Grid, axes: str = "xyz") -> Grid:
        """A grid of the scene in the coordinates of this world, shifted along these axes."""
        return grid.moved(**{name: -float(by) for name, by in zip("xyz", self.origin, strict=True) if name in axes})

    def cap(self, position: NDArray[np.float64]) -> Cap | None:
        """The cap of directions from a point that contains the scene; None (all directions) within or near it."""
        away = (self.lower + self.upper) / 2 - position
        distance = float(np.linalg.norm(away))
        sine = float(np.linalg.norm(self.upper - self.lower)) / 2 / (distance + 1e-6)
        if sine > 0.9:
            return None
        x, y, z = (float(part) / distance for part in away)
        return Cap((x, y, z), sine**2 / (1 + float(np.sqrt(1 - sine**2))))

    def leaving(self, si: mi.SurfaceInteraction3f, direction: mi.Vector3f) -> mi.Point3f:
        """Origins of rays that leave a surface, with the smallest offset that rounding allows.

        Mitsuba's default offset is 9 cm at a kilometre from the origin, which shifts the next wall by as much.
        """
        gap = self.gap_m + _GAP_A_METRE * dr.max(dr.abs(si.p))
        return si.p + si.n * dr.mulsign(gap, dr.dot(si.n, direction))

    def face_number(self, si: mi.SurfaceInteraction3f) -> mi.UInt:
        """The number of the face that was hit, unique over all shapes."""
        number, first = mi.UInt(si.prim_index), 0
        for mesh, corners in zip(self.meshes, self.corners, strict=True):
            number = dr.select(si.shape == mi.ShapePtr(mesh), si.prim_index + dr.opaque(mi.UInt, first), number)
            first += len(corners)
        return number

    def side_middles(self) -> NDArray[np.float64]:
        """The midpoints of the sides of all faces, `(face, side, 3)`, by the number of the face."""
        corners = np.concatenate(self.corners)
        return (corners + np.roll(corners, -1, axis=1)) / 2

    def edges(self, *, free: bool) -> Edges:
        """The diffracting edges, with free ones if `free`; edges of a building have the material of its walls."""
        parts = [_edges_of(meshes, self.shapes[surface], free) for surface, meshes in self.whole.items()]
        joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        return Edges(*joined)


@dataclass(frozen=True)
class Source:
    """A transmitter for rays: its position and the field that it radiates in any direction."""

    transmitter: Transmitter
    wavelength_m: float

    @property
    def position(self) -> NDArray[np.float64]:
        return np.asarray(self.transmitter.position, np.float64)

    @property
    def isotropic(self) -> bool:
        """Whether it radiates the same power in all directions."""
        return self.transmitter.pattern == "iso" and self.transmitter.rows * self.transmitter.columns == 1

    def point(self) -> mi.Point3f:
        return opaque_point(self.position)

    def field(self, direction: mi.Vector3f) -> mi.Vector4f:
        """Field radiated along `direction`: a Jones vector, of squared norm 1 for an isotropic antenna.

        Ports of two polarisations and elements of an array add coherently. This is linear, so that one field is
        transported for any array.
        """
        yaw, pitch, roll = self.transmitter.orientation
        to_world = rotation_matrix(opaque_point(np.array([yaw, pitch, roll])))
        patterns = antenna_pattern(self.transmitter).patterns
        field = dr.zeros(mi.Vector4f, 1)
        for pattern in patterns:
            field += antenna_pattern_to_world_implicit(pattern, to_world, direction, direction="out")
        field *= np.sqrt(1.0 / len(patterns))
        if self.transmitter.columns * self.transmitter.rows == 1:
            return field
        return weighted(field, self.transmitter, to_world.T @ direction)


def opaque_point(values: NDArray[np.float64]) -> mi.Point3f:
    """A point that compiled kernels take as data, so that the next transmitter needs no new kernel."""
    return mi.Point3f(*(dr.opaque(mi.Float, float(value)) for value in values))


def _longest_edge(mesh: Mesh) -> float:
    corners = mesh.vertices[mesh.faces]
    return float(np.sqrt(((corners - np.roll(corners, 1, axis=1)) ** 2).sum(axis=-1).max()))


def _edges_of(meshes: list[Mesh], shape: int, free: bool) -> tuple[NDArray[np.float64], ...]:
    """The columns of `Edges` for the meshes of one shape; vertices of a mesh within 1 mm are merged."""
    vertices, faces = merged(meshes)
    owner = np.repeat(np.arange(len(meshes)), [len(mesh.vertices) for mesh in meshes])
    points, place = _welded(vertices, owner)
    faces_welded = place[faces]
    a, b, c = (points[faces_welded[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    area = np.linalg.norm(normals, axis=1)
    sound = np.flatnonzero(area > 1e-9)  # slivers have no normal
    normals[sound] /= area[sound, None]
    ends = faces_welded[sound][:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    face = np.repeat(sound, 3)
    opposite = faces_welded[sound][:, [2, 0, 1]].ravel()
    ends.sort(axis=1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    ends, face, opposite = ends[order], face[order], opposite[order]
    start = np.flatnonzero(np.r_[True, (np.diff(ends, axis=0) != 0).any(axis=1)])
    count = np.diff(np.r_[start, len(ends)])
    pair = start[count == 2]
    lone = start[count == 1] if free else start[:0]
    one, two = np.r_[pair, lone], np.r_[pair + 1, lone]
    return _oriented(points, normals, ends, face, opposite, one, two, shape)


def _welded(vertices: NDArray[np.float64], owner: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points in place of the vertices of one owner that lie within 1 mm, and the number of each vertex's point.

    Distances decide, not coordinates rounded to millimetres: those would weld other vertices after a shift.
    """
    rows, alike = np.unique(np.column_stack([owner, vertices]), axis=0, return_inverse=True)
    close = cKDTree(rows[:, 1:]).query_pairs(WELD_M, output_type="ndarray")
    close = close[rows[close[:, 0], 0] == rows[close[:, 1], 0]]
    links = coo_matrix((np.ones(len(close)), (close[:, 0], close[:, 1])), shape=(len(rows), len(rows)))
    _, group = connected_components(links, directed=False)
    _, first = np.unique(group, return_index=True)
    return rows[first, 1:], np.asarray(group[alike.ravel()], np.int64)


def _across(towards: NDArray[np.float64], along: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors from edges `along` to points `towards` of their faces, at right angles to the edges."""
    away = towards - np.einsum("ij,ij->i", towards, along)[:, None] * along
    return np.asarray(away / np.maximum(np.linalg.norm(away, axis=1), 1e-12)[:, None])


def _oriented(
    points: NDArray[np.float64],
    normals: NDArray[np.float64],
    ends: NDArray[np.int64],
    face: NDArray[np.int64],
    opposite: NDArray[np.int64],
    one: NDArray[np.int64],
    two: NDArray[np.int64],
    shape: int,
) -> tuple[NDArray[np.float64], ...]:
    """Edges between the non-coplanar faces of half-edges `one` and `two`, with normals away from the solid."""
    begin, end = points[ends[one, 0]], points[ends[one, 1]]
    length = np.linalg.norm(end - begin, axis=1)
    n0, n1 = normals[face[one]].copy(), normals[face[two]].copy()
    free = one == two
    # At a convex edge each face lies behind the other; of the two orientations of a sheet, this one is used.
    behind = np.einsum("ij,ij->i", n0, points[opposite[two]] - begin)
    n0[behind > 0] *= -1
    behind = np.einsum("ij,ij->i", n1, points[opposite[one]] - begin)
    n1[behind > 0] *= -1
    n1[free] = -n0[free]
    # The signs above are no test: between coplanar faces, such as the halves of a wall, they are rounding.
    along = (end - begin) / np.maximum(length, 1e-12)[:, None]
    across = [_across(points[opposite[half]] - begin, along) for half in (one, two)]
    bent = free | (np.einsum("ij,ij->i", *across) > -np.cos(_FLAT_RAD))
    keep = bent & (length > 1e-3)
    along = along[keep]
    n0, n1, begin, length = n0[keep], n1[keep], begin[keep], length[keep]
    # n0 × along points into the face, so that azimuths about the edge increase from the first face to the second.
    inward = points[opposite[one[keep]]] - begin
    turn = np.einsum("ij,ij->i", np.cross(n0, along), inward) < 0
    begin = np.where(turn[:, None], begin + length[:, None] * along, begin)
    along = np.where(turn[:, None], -along, along)
    both = np.stack([n0, n1], axis=1)
    return begin, along, length, both, np.full(len(length), shape), face[one[keep]]

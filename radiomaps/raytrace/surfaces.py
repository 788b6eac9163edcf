"""Surfaces of a scene by material, and the ray tracer's material for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import drjit as dr
import mitsuba as mi
import numpy as np
import sionna.rt as rt
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from radiomaps.materials import Material
from radiomaps.raytrace.options import TraceOptions
from radiomaps.scenes import Mesh

__all__ = ["WELD_M", "Surface", "buildings_of", "merged", "radio_material", "surfaces_of"]

#: Vertices of a building within this distance in metres are one.
WELD_M = 1e-3
#: Faces of a building whose unit normal has a vertical component above this (slope below 60°) are roof.
_ROOF_SLOPE = 0.5


class Surface(NamedTuple):
    """A material, and whether it is a half-space, such as ground."""

    material: str
    half_space: bool


def surfaces_of(meshes: Iterable[Mesh]) -> tuple[dict[Surface, list[Mesh]], dict[Surface, list[Mesh]]]:
    """Meshes by surface, twice: split where the materials of roof and walls differ, and whole under the walls'.

    A whole building is one mesh, also where a file has its walls and its roof as two.
    """
    meshes = list(meshes)
    cut: dict[Surface, list[Mesh]] = {}
    for mesh in meshes:
        walls = Surface(mesh.material, mesh.kind == "ground")
        roof = mesh.roof_material if mesh.kind == "building" else ""
        up = _faces_up(mesh) if roof and roof != mesh.material else np.zeros(len(mesh.faces), bool)
        cut.setdefault(walls, [])
        for surface, chosen in ((walls, ~up), (Surface(roof, False), up)):
            if chosen.any():
                part = mesh if chosen.all() else replace(mesh, faces=mesh.faces[chosen])
                cut.setdefault(surface, []).append(part)
    whole: dict[Surface, list[Mesh]] = {}
    for parts in buildings_of(meshes):
        most = max(parts, key=lambda part: np.count_nonzero(~_faces_up(part)))
        vertices, faces = merged(parts)
        surface = Surface(most.material, most.kind == "ground")
        # A building without walls still needs a material for its edges: that of the roof.
        surface = surface if cut[surface] else Surface(most.roof_material, False)
        whole.setdefault(surface, []).append(replace(most, vertices=vertices, faces=faces.astype(np.int32)))
    return {surface: parts for surface, parts in cut.items() if parts}, whole


def buildings_of(meshes: Sequence[Mesh]) -> list[list[Mesh]]:
    """Group meshes by the name of their building; walls and roofs of different names that share an edge are united."""
    named: dict[str, list[Mesh]] = {}
    for mesh in meshes:
        named.setdefault(mesh.building, []).append(mesh)
    groups = list(named.values())
    walls: list[int] = []
    roofs: list[int] = []
    for number, parts in enumerate(groups):
        up = np.concatenate([_faces_up(mesh) for mesh in parts])
        if parts[0].kind == "building" and (up.all() or not up.any()):
            (roofs if up.all() else walls).append(number)
    if not walls or not roofs:
        return groups
    wall, wall_middles = _side_middles(groups, walls)
    roof, roof_middles = _side_middles(groups, roofs)
    distance, nearest = cKDTree(wall_middles).query(roof_middles, distance_upper_bound=WELD_M)
    met = np.isfinite(distance)
    links = coo_matrix((np.ones(met.sum()), (roof[met], wall[nearest[met]])), shape=(len(groups), len(groups)))
    united: dict[int, list[Mesh]] = {}
    for number, parts in zip(connected_components(links, directed=False)[1], groups, strict=True):
        united.setdefault(int(number), []).extend(parts)
    return list(united.values())


def _side_middles(
    groups: Sequence[Sequence[Mesh]], chosen: Sequence[int]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Middles of the sides of all triangles of the chosen groups `(side, 3)`, and the number of each one's group."""
    corners = [np.concatenate([mesh.vertices[mesh.faces] for mesh in groups[number]]) for number in chosen]
    owner = np.repeat(np.array(chosen, np.intp), [3 * len(each) for each in corners])
    every = np.concatenate(corners)
    return owner, ((every + np.roll(every, 1, axis=1)) / 2).reshape(-1, 3)


def merged(meshes: Sequence[Mesh]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices and faces of meshes, concatenated."""
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    faces = [mesh.faces.astype(np.int64) + offset for mesh, offset in zip(meshes, offsets, strict=True)]
    return np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces)


def _faces_up(mesh: Mesh) -> NDArray[np.bool_]:
    """Which faces point upwards: flat or pitched roofs."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    return np.abs(normals[:, 2]) > _ROOF_SLOPE * np.maximum(np.linalg.norm(normals, axis=1), 1e-12)


def radio_material(material: Material, name: str, options: TraceOptions, *, half_space: bool) -> rt.RadioMaterial:
    """Sionna's material at the trace's frequency; a half-space is a slab without reflection from its far side."""
    eps_r, sigma, _ = material.at(options.frequency_hz)
    made = rt.RadioMaterial(name, scattering_coefficient=material.scattered(options.scattering), color=(0.5, 0.5, 0.5))
    thickness = material.thickness_m or options.thickness_m
    # Opaque numbers are data of compiled kernels, so that another material or frequency needs no new kernel.
    made.relative_permittivity = dr.opaque(mi.Float, eps_r)
    made.conductivity = dr.opaque(mi.Float, sigma)
    made.thickness = dr.opaque(mi.Float, material.half_space_m(options.frequency_hz) if half_space else thickness)
    return made

"""Surfaces of a scene by material, and the ray tracer's material for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import drjit as dr
import mitsuba as mi
import numpy as np
import sionna.rt as rt
from numpy.typing import NDArray

from radiomaps.materials import Material
from radiomaps.raytrace.options import TraceOptions
from radiomaps.scenes import Mesh

__all__ = ["Surface", "radio_material", "surfaces_of"]

#: Faces of a building whose unit normal has a vertical component above this (slope below 60°) are roof.
_ROOF_SLOPE = 0.5


class Surface(NamedTuple):
    """A material, and whether it is a half-space, such as ground."""

    material: str
    half_space: bool


def surfaces_of(meshes: Iterable[Mesh]) -> tuple[dict[Surface, list[Mesh]], dict[Surface, list[Mesh]]]:
    """Meshes by surface, twice: split where the materials of roof and walls differ, and unsplit under the walls'."""
    cut: dict[Surface, list[Mesh]] = {}
    whole: dict[Surface, list[Mesh]] = {}
    for mesh in meshes:
        walls = Surface(mesh.material, mesh.kind == "ground")
        roof = mesh.roof_material if mesh.kind == "building" else ""
        up = _faces_up(mesh) if roof and roof != mesh.material else np.zeros(len(mesh.faces), bool)
        whole.setdefault(walls, []).append(mesh)
        cut.setdefault(walls, [])
        for surface, chosen in ((walls, ~up), (Surface(roof, False), up)):
            if chosen.any():
                part = mesh if chosen.all() else replace(mesh, faces=mesh.faces[chosen])
                cut.setdefault(surface, []).append(part)
    # A building without walls still needs a material for its edges: that of the roof.
    for surface in [surface for surface, parts in cut.items() if not parts]:
        del cut[surface]
        for mesh in whole.pop(surface):
            whole.setdefault(Surface(mesh.roof_material, False), []).append(mesh)
    return cut, whole


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

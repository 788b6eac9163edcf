"""Scenes: Sionna's cities, footprints with heights, procedural city blocks. No ray tracer is imported."""

from __future__ import annotations

from radiomaps.scenes.load import load, names
from radiomaps.scenes.report import SceneReport
from radiomaps.scenes.scene import MATERIALS, Footprint, Mesh, Scene
from radiomaps.scenes.xml import save_scene

__all__ = ["MATERIALS", "Footprint", "Mesh", "Scene", "SceneReport", "load", "names", "save_scene"]

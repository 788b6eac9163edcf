"""Names of the scenes that need no file, without loading one: listing them imports neither numpy nor a ray tracer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["GENERATED", "licence_of", "names", "sionna_scenes"]

#: Scenes that are made from a seed, and what they are.
GENERATED = {"procedural": "city blocks from a seed", "rooms": "floors of a building from a seed"}
#: Scenes of Sionna RT that are cities from OpenStreetMap.
MAPPED = {"etoile", "florence", "munich", "san_francisco"}


def sionna_scenes() -> dict[str, Path]:
    """The scenes that ship with Sionna RT, by name. The ray tracer itself is not imported."""
    spec = importlib.util.find_spec("sionna")
    folders = [Path(root) / "rt" / "scenes" for root in (spec.submodule_search_locations or ())] if spec else []
    return {
        path.stem: path
        for folder in folders
        for path in sorted(folder.glob("*/*.xml"))
        if path.stem == path.parent.name
    }


def names() -> list[str]:
    """Names of scenes that need no file: Sionna's, if its package is installed, `procedural` and `rooms`."""
    return [*sionna_scenes(), *GENERATED]


def licence_of(name: str) -> str:
    """The licence of a scene of Sionna RT, or of one that is generated."""
    if name in GENERATED:
        return "CC0-1.0 (generated)"
    if name in MAPPED:
        return "ODbL 1.0 (OpenStreetMap contributors); meshes from Sionna RT, Apache-2.0"
    return "Apache-2.0 (Sionna RT)"

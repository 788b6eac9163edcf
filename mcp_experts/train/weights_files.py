"""Write the files of a trained expert."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.runs.files import atomic_path, sha256, write_json
from mcp_experts.inference.definition import Definition
from mcp_experts.inference.registry import CARD, WEIGHTS

__all__ = ["write_expert"]


def write_expert(
    folder: Path, definition: Definition, arrays: Mapping[str, NDArray[Any]], found: Mapping[str, Any]
) -> None:
    """Write weights and card into an expert's folder; the card, which holds the weights' hash, is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as partial:
        stream = io.BytesIO()
        np.savez(stream, **dict(arrays))  # type: ignore[arg-type]
        partial.write_bytes(stream.getvalue())
    about = {"name": definition.name, "version": definition.version, **definition.describe()}
    write_json(folder / CARD, about | dict(found) | {"weights_sha256": sha256(folder / WEIGHTS)})

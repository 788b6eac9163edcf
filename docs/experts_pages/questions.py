"""Create the frozen question sets: channels of unseen seeds with their truths, the same number per class.

python docs/experts_pages/questions.py FOLDER
"""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoml.runs.files import atomic_path, write_json
from mcp_experts.evaluate.questions import CHANNELS, INDEX, encode
from mcp_experts.train.generators import generate
from mcp_experts.train.truths import TRUTHS, observe, truths

__all__ = ["freeze"]

#: Number of links per generator.
LINKS = {"tdl": 320, "cdl": 120, "umi": 80, "uma": 80, "rma": 80, "inf": 80}
DURATION_S = 0.014


def freeze(folder: Path, seed: int = 77) -> int:
    """Write the channels and their truths, quantised to 8 bits; returns how many there are."""
    rng = np.random.default_rng([seed, 5])
    grids: list[NDArray[np.complex64]] = []
    bandwidths: list[NDArray[np.float64]] = []
    known: list[NDArray[np.float64]] = []
    for name, count in LINKS.items():
        for links in generate(name, count, 1000 * seed + 9):
            csi, snr_db = observe(links, rng)
            grids.append(csi[..., :1])
            bandwidths.append(links.bandwidth_hz)
            known.append(truths(links, snr_db))
    csi = np.concatenate(grids)
    quantised, scale = encode(csi)
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        csi=quantised,
        scale=scale,
        bandwidth_hz=np.concatenate(bandwidths),
        duration_s=np.full(len(csi), DURATION_S),
        truths=np.concatenate(known),
    )
    with atomic_path(folder / CHANNELS) as partial:
        partial.write_bytes(stream.getvalue())
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    write_json(folder / INDEX, {"channels": len(csi), "truths": list(TRUTHS), "seed": seed, "sha256": digest})
    return len(csi)


if __name__ == "__main__":
    print(freeze(Path(sys.argv[1])), "channels")

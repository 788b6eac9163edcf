"""A training in double precision for however many processes `torchrun` starts: FOLDER SAMPLES [CHECKPOINT_EVERY PAUSE].

Blocks of unequal size, masked targets and a last batch of an epoch that is short: nothing is shared out evenly.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoml.data.blocks import ArraySource
from geoml.data.fields import Batch
from geoml.data.loader import BlockLoader
from geoml.grids.grid import Grid
from geoml.models.base import Channels, Model
from geoml.models.noise import sample_noise
from geoml.models.registry import build
from geoml.train import Trainer, train
from geoml.train.device import process_group

CHANNELS = Channels(("amount",), ("amount",))
GRID = Grid.latlon(0, 6, 0, 6, 1.0)
SAMPLES, BATCH = 45, 8


def source() -> ArraySource:
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(SAMPLES, 1, *GRID.shape)).astype(np.float32)
    target = 0.5 * fields + 1
    target[rng.random(target.shape) < 0.2] = np.nan
    names = {"condition": ("amount",), "target": ("amount",)}
    return ArraySource(fields, GRID, GRID, target=target, block_samples=4, channels=names)


class Noisy:
    """Double precision, and noise on the input that depends on the sample alone."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s

    def forward(self, batch: Batch) -> Batch:
        time.sleep(self.pause_s)
        noise = sample_noise(batch.condition.shape[1:], batch.ids, torch.Generator().manual_seed(7))
        assert batch.target is not None
        return batch.map(condition=batch.condition.double() + noise, target=batch.target.double())

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "noisy"}


def model() -> Model:
    torch.manual_seed(0)
    return build(
        {"_target_": "geoml.models.unet.UNetRegression", "base": 4, "multipliers": [1, 2]}, CHANNELS, 2
    ).double()


def run(folder: Path, samples: int, *, every: int = 0, pause_s: float = 0.0) -> None:
    config = Trainer(samples=samples, checkpoint_every=every, learning_rate=1e-2, accumulate=2, device="cpu", keep=0)
    with process_group() as world:
        loader = BlockLoader([source()], batch_size=BATCH, rank=world.rank, world_size=world.size)
        validation = BlockLoader([source()], batch_size=7, shuffle=False)
        train(model(), Noisy(pause_s), loader, config=config, folder=folder, validation=validation)


if __name__ == "__main__":
    torch.set_num_threads(1)
    extra = [float(word) for word in sys.argv[3:]] + [0.0, 0.0]
    run(Path(sys.argv[1]), int(sys.argv[2]), every=int(extra[0]), pause_s=extra[1])

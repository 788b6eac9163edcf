"""A training run in miniature; as a script, `python toy.py FOLDER SAMPLES [PAUSE_S]`, it is there to be killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from geoml.data.fields import Batch
from geoml.models.base import Channels, Model
from geoml.models.registry import build
from geoml.testing import toy_batch
from geoml.train import Result, Trainer, train

CHANNELS = Channels(("amount",), ("amount",))
DROPOUT_UNET = {
    "_target_": "geoml.models.unet.UNetRegression",
    "base": 4,
    "multipliers": [1, 2],
    "dropout": 0.2,
}


class MemoryLoader:
    """Shuffled batches of 4 out of a few samples in memory; the order is keyed on the epoch."""

    def __init__(self, samples: int = 18, *, pause_s: float = 0.0) -> None:
        self.all, self.pause_s = toy_batch(CHANNELS, batch=samples, factor=1.0, cells=(8, 8)), pause_s
        self.epoch = self.position = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.position = epoch, 0

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self.all), generator=torch.Generator().manual_seed(self.epoch))
        while self.position + 4 <= len(order):
            chosen = order[self.position : self.position + 4]
            self.position += 4
            time.sleep(self.pause_s)
            tensors = {name: getattr(self.all, name)[chosen] for name in ("condition", "target", "mask")}
            yield self.all.map(ids=tuple(chosen.tolist()), **tensors)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class Halving:
    """A transform that anyone can undo."""

    def forward(self, batch: Batch) -> Batch:
        return batch.map(condition=batch.condition / 2, target=None if batch.target is None else batch.target / 2)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "halving"}


def toy_model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return build(DROPOUT_UNET, CHANNELS, 2)


def run(folder: Path, samples: int = 96, *, pause_s: float = 0.0, **options: Any) -> Result:
    settings = {"samples": 96, "checkpoint_every": 8, "log_every": 8, "learning_rate": 1e-2, "device": "cpu"}
    config = Trainer(**{**settings, "samples": samples, **options})  # type: ignore[arg-type]
    return train(toy_model(), Halving(), MemoryLoader(pause_s=pause_s), config=config, folder=folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]), pause_s=float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)

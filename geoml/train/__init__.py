"""The training loop, its checkpoints and its log."""

from geoml.train.loop import Result, train
from geoml.train.trainer import Trainer

__all__ = ["Result", "Trainer", "train"]

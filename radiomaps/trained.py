"""A trained model of radio maps: the network with its task and the grid and split of its training."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.data.fields import Batch
from geoml.data.transforms import Transforms
from geoml.errors import DataError, UserError
from geoml.models.base import Model
from geoml.models.diffusion import Diffusion
from geoml.models.predictor import Predictor, load_predictor
from geoml.models.tiles import Tiled, Tiling
from geoml.runs.files import read_json
from geoml.runs.stored_config import interpret
from geoml.train.device import Precision
from radiomaps.models.gating import GATE_FILE, gated
from radiomaps.tasks import Task

if TYPE_CHECKING:
    import os

    import torch

__all__ = ["GRID_FILE", "SPLIT_FILE", "TASK_FILE", "WEIGHTS", "Trained", "identity", "load_trained", "weights_of"]

#: File next to the checkpoints with the task of the model, its grid, and the split of its maps.
TASK_FILE, GRID_FILE, SPLIT_FILE = "task.json", "grid.json", "split.json"
#: Folders of exported checkpoints that come with the package.
WEIGHTS = Path(__file__).parent / "models" / "weights"


def weights_of(name: str) -> Path | None:
    """The folder of shipped weights, None for an unknown name."""
    folder = WEIGHTS / name
    return folder if name and Path(name).name == name and (folder / "SHA256SUMS").is_file() else None


@dataclass(frozen=True)
class Trained:
    """A trained model, its task, and the tiling of large maps.

    `window` has the steps and heights of the training's grid as fields of `radiomaps.generation.plan.Window`, `split`
    the split of its maps, if the run recorded it.
    """

    predictor: Predictor
    task: Task
    tiling: Tiling | None = None
    window: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] | None = None

    @property
    def model(self) -> Model:
        """The model without its task."""
        return self.predictor.model

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """`(batch, member, channel, z, y, x)` in the task's encoding, and the share of values that were clipped."""
        if self.tiling is None:
            return self.predictor.predict(batch, members=members, seed=seed)
        return Tiled(self.predictor, self.tiling).predict(batch, members=members, seed=seed)

    def sampled_by(self, **options: Any) -> Trained:
        """A copy with other sampling options (see `Diffusion.sample_by`); None leaves an option unchanged."""
        given = {name: value for name, value in options.items() if value is not None}
        if not given:
            return self
        if not isinstance(self.model, Diffusion):
            raise UserError(
                f"{type(self.model).__name__} has no {', '.join(given)}; expected a diffusion model, or empty sampling"
            )
        model = copy.copy(self.model)  # shares weights
        model.sample_by(**given)
        return replace(self, predictor=replace(self.predictor, model=model))

    def tiled(self, tiles: Mapping[str, int] | None) -> Trained:
        """A copy with these fields of `Tiling`; None leaves the tiling unchanged."""
        return self if tiles is None else replace(self, tiling=Tiling(**tiles))


def load_trained(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: Precision = "fp32",
    tiling: Tiling | None = None,
    allow: Sequence[str] = (),
) -> Trained:
    """Load the model of a run of `radiomaps train` or of a checkpoint folder, or shipped weights ("general").

    `precision` is that of its forward passes: "bf16" is faster on hardware that supports it.

    Raises `UserError` for a folder without a training, `DataError` for files that are damaged or lack the task.
    """
    path = weights_of(str(path)) or Path(path)
    if not path.is_dir():
        raise UserError(f"{path} does not exist; give the run folder that `radiomaps train` printed, or general")
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    beside = next((at / TASK_FILE for at in (folder, folder.parent) if (at / TASK_FILE).exists()), None)
    if beside is None:
        raise DataError(f"{path} has no {TASK_FILE}, the model's task; expected a run folder of `radiomaps train`")
    kept = {
        name: read_json(at) if (at := beside.with_name(name)).exists() else None
        for name in (GRID_FILE, SPLIT_FILE, GATE_FILE)
    }
    predictor = load_predictor(folder, device=device, precision=precision, allow=allow)
    gated(predictor.model, kept[GATE_FILE])
    task = interpret(beside, lambda: Task.recorded(read_json(beside)), "a task")
    return Trained(predictor, task, tiling, kept[GRID_FILE] or {}, kept[SPLIT_FILE])


def identity(task: Task) -> Transforms:
    """Identity transforms, because the batches of a task are already encoded."""
    return Transforms.from_config({"default": {"kind": "identity"}}, task.channels)

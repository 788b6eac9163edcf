"""Estimate the device memory of a training on a small sample before the training starts."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geoml.data.fields import Batch
from geoml.models.base import Model
from geoml.train.device import Precision, autocast

__all__ = ["Memory", "available_memory", "training_memory"]

#: Cells along the last two axes of the sample used for the estimate.
PIECE = 32


@dataclass(frozen=True)
class Memory:
    """Bytes of weights (with gradients, moments and averages) and of the activations of a step."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations

    def __str__(self) -> str:
        return f"{self.total / 1e9:.2f} GB (weights {self.weights / 1e9:.2f}, a step {self.activations / 1e9:.2f})"


def training_memory(model: Model, batch: Batch, *, batch_size: int, precision: Precision = "fp32") -> Memory:
    """Memory of a step on `batch_size` samples like those of `batch`, on the model's device.

    One forward pass on one sample, cut to 32 cells along its last two axes, counts the tensors that are saved for the
    gradient; they grow with the cells. Temporary buffers of kernels, and activations of recomputed levels, are not
    counted. The batch is in transformed space. The model is not changed.
    """
    piece = _piece(batch)
    probe = copy.deepcopy(model).train()
    device = next(probe.parameters()).device
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def note_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        for value in inputs:
            if isinstance(value, Tensor):
                note(value)

    for module in probe.modules():  # recomputed levels store their inputs without calling the hooks
        if getattr(module, "recompute", False):
            module.register_forward_pre_hook(note_inputs)
    weights = {parameter.untyped_storage().data_ptr() for parameter in probe.parameters()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for phase in probe.phases():
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(device, precision):
                generator = torch.Generator(device).manual_seed(0)
                loss = probe.loss(piece.to(device), phase=phase.name, generator=generator)
            del loss
    saved = sum(size for place, size in kept.items() if place not in weights)
    share = batch.target_grid.size / piece.target_grid.size
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    return Memory(5 * parameters, round(saved * share * batch_size))


def available_memory(device: torch.device) -> int | None:
    """Free bytes of a GPU, or total bytes of the machine; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _piece(batch: Batch) -> Batch:
    """A corner of the first sample of a batch if both grids are equal, else the complete first sample."""
    fields = {
        name: value[:1]
        for name in ("condition", "target", "static", "mask")
        if (value := getattr(batch, name)) is not None
    }
    grid = batch.target_grid
    if batch.condition_grid == grid and min(grid.shape[-2:]) > PIECE:
        cut = slice(0, PIECE)
        fields = {name: value[..., cut, cut] for name, value in fields.items()}
        grid = grid.crop(**dict.fromkeys(grid.names[-2:], cut))
        return Batch(condition_grid=grid, target_grid=grid, ids=tuple(batch.ids[:1]), **fields)
    return batch.map(ids=tuple(batch.ids[:1]), **fields)

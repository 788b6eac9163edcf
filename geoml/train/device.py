"""Device, precision and process group of a training; the only module that uses torch.distributed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from geoml.errors import UserError, unknown
from geoml.runs.folder import launched_rank

__all__ = [
    "Precision",
    "ProcessGroup",
    "autocast",
    "choose_device",
    "compile_networks",
    "process_group",
    "to_channels_last",
    "world",
]

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
#: Time that processes wait while one process prepares data; if that process dies, the launcher stops the others.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class ProcessGroup:
    """The group of processes that train one model; `size` is 1 for a single process."""

    rank: int = 0
    size: int = 1

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over all processes; a parameter without a gradient in all of them keeps none."""
        if self.size == 1:
            return
        by_kind: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                by_kind.setdefault((parameter.device, parameter.dtype), []).append(parameter)
        for members in by_kind.values():
            there = torch.tensor([p.grad is not None for p in members], device=members[0].device).to(members[0].dtype)
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in members]
            flat = self.sum(torch.cat([there, *(grad.reshape(-1) for grad in grads)]))
            sums = flat[len(members) :].split([p.numel() for p in members])
            for parameter, known, total in zip(members, flat[: len(members)].tolist(), sums, strict=True):
                parameter.grad = total.view_as(parameter).clone() if known else None

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors from the first process to all others."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def wait(self) -> None:
        """Wait until all processes reach this call."""
        if self.size > 1:
            dist.barrier()

    @contextlib.contextmanager
    def first_alone(self) -> Iterator[None]:
        """Run the block in the first process, then in all others, which find its results on disk."""
        if self.rank > 0:
            self.wait()
        yield
        if self.rank == 0:
            self.wait()


def world() -> ProcessGroup:
    """The active process group, or this process alone."""
    return (
        ProcessGroup(dist.get_rank(), dist.get_world_size())
        if dist.is_available() and dist.is_initialized()
        else ProcessGroup()
    )


@contextlib.contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """The process group of `torchrun` within the block, or this process alone.

    Gloo is used on CPUs, NCCL on GPUs; each process uses the GPU of its local rank.
    """
    if launched_rank() is None or dist.is_initialized():
        yield world()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield world()
    finally:
        dist.destroy_process_group()


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises `UserError` if the name is unknown or the device is not available.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown("device", name, ("auto", "cpu", "cuda", "cuda:0", "mps")) from None
    if device.type == "cuda" and device.index is None and cuda and world().size > 1:
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"device {name!r} is not available ({torch.cuda.device_count()} CUDA devices found); use auto")
    if device.type == "mps" and not mps:
        raise UserError("device 'mps' is not available; use auto")
    return device


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Context manager for forward passes: mixed precision, or full precision for "fp32"."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision == "fp32":
        return contextlib.nullcontext()
    if precision == "fp16" and device.type != "cuda":
        raise UserError(f"precision fp16 needs a CUDA device, not {device}; use bf16 or fp32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"{torch.cuda.get_device_name(device)} has no bf16; use precision fp16 or fp32")
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def to_channels_last(model: nn.Module) -> None:
    """Convert the weights of convolutions to the channels-last layout in place; outputs follow."""
    for parameter in model.parameters():
        if parameter.ndim in (4, 5):
            layout = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout)


def compile_networks(model: nn.Module, device: torch.device) -> bool:
    """Compile the model's networks in place; returns False and logs the reason if compilation does not work.

    Compilation is tested with one addition, because a missing C++ compiler causes an error at the first call only.
    """
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except Exception as error:  # whatever the tool chain raises, training goes on without it
        logger.warning("torch.compile does not work here (%s); continuing without it", str(error).splitlines()[0])
        return False
    for child in model.children():
        for network in child if isinstance(child, nn.ModuleList) else (child,):
            if any(True for _ in network.parameters()):
                network.compile()
    return True

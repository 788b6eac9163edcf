"""Where a model runs and in which precision."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Literal

import torch
from torch import nn

from geoml.errors import UserError, unknown

__all__ = ["Precision", "autocast", "choose_device", "compile_networks", "to_channels_last"]

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Errors: `UserError` where the name is unknown or the device is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown("device", name, ("auto", "cpu", "cuda", "cuda:0", "mps")) from None
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"device {name!r} is not there ({torch.cuda.device_count()} CUDA devices found); use auto")
    if device.type == "mps" and not mps:
        raise UserError("device 'mps' is not there; use auto")
    return device


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """The context in which forward passes run: mixed precision, or nothing for "fp32"."""
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
    """Lay the weights of convolutions out with channels last, in place; their outputs follow."""
    for parameter in model.parameters():
        if parameter.ndim in (4, 5):
            layout = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout)


def compile_networks(model: nn.Module, device: torch.device) -> bool:
    """Compile the model's networks in place; where no compiler works here, say so, leave them and return False.

    Whether one works is found by compiling one addition: a missing C++ compiler shows at the first call only.
    """
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except Exception as error:  # whatever the tool chain raises, training goes on without it
        logger.warning("torch.compile does not work here (%s); going on without", str(error).splitlines()[0])
        return False
    for child in model.children():
        for network in child if isinstance(child, nn.ModuleList) else (child,):
            if any(True for _ in network.parameters()):
                network.compile()
    return True

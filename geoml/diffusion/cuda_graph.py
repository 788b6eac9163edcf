"""CUDA graphs: launch a recorded sequence of kernels at once, which speeds up small networks on a GPU."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["CUDAGraphed"]

logger = logging.getLogger(__name__)


class CUDAGraphed:
    """A function of tensors, replayed from one CUDA graph per set of shapes.

    With gradients or without CUDA the function is called directly. Weights may change in place but not be moved. A
    graph is used only if its first replay equals the function's result; otherwise, or if recording fails, this is
    logged once and the function is called directly from then on.

    >>> CUDAGraphed(torch.add)(torch.ones(2), torch.ones(2))
    tensor([2., 2.])
    """

    #: Number of graphs kept, each with its own memory; the oldest is dropped first.
    MOST = 4

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.usable = True
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> CUDAGraphed:
        """Copy the function without its graphs: recorded graphs refer to the memory of the original."""
        return CUDAGraphed(copy.deepcopy(self.function, memo))

    def __call__(self, *tensors: Tensor) -> Tensor:
        if not self.usable or torch.is_grad_enabled() or any(tensor.device.type != "cuda" for tensor in tensors):
            return self.function(*tensors)
        mixed = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = (mixed, *((tensor.shape, tensor.dtype, tensor.stride(), tensor.device) for tensor in tensors))
        if key not in self._graphs:
            try:
                recorded = self._record(tensors, mixed)
            except RuntimeError as error:
                logger.warning("CUDA graph not used (%s)", str(error).splitlines()[0])
                self.usable = False
                return self.function(*tensors)
            if len(self._graphs) >= self.MOST:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[key] = recorded
        graph, inputs, output = self._graphs[key]
        for kept, given in zip(inputs, tensors, strict=True):
            kept.copy_(given)
        graph.replay()
        return output.clone()

    def _record(
        self, tensors: tuple[Tensor, ...], mixed: torch.dtype | None
    ) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        """The graph of one call with its input and output tensors; raises `RuntimeError` if the replay differs.

        Weights are cast for mixed precision within the graph, because autocast clears its cache after each context.
        """
        inputs = tuple(tensor.clone() for tensor in tensors)
        with torch.autocast("cuda", dtype=mixed, enabled=mixed is not None, cache_enabled=False):
            side = torch.cuda.Stream(device=inputs[0].device)
            side.wait_stream(torch.cuda.current_stream(inputs[0].device))
            with torch.cuda.stream(side):  # libraries pick and load their kernels before the recording
                for _ in range(3):
                    expected = self.function(*inputs)
            torch.cuda.current_stream(inputs[0].device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = self.function(*inputs)
        graph.replay()
        if not torch.allclose(output.float(), expected.float(), rtol=1e-2, atol=1e-3):
            raise RuntimeError("the replayed graph differs from the function")
        return graph, inputs, output

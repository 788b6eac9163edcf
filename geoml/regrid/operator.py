"""The separable operator between two rectilinear grids, for numpy, dask, torch and xarray."""

from __future__ import annotations

import itertools
import os
import sys
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.grids.grid import Grid, grid_of
from geoml.regrid.passes import Passes
from geoml.regrid.weights import Band, Rim, interpolation_weights, overlap_weights

if TYPE_CHECKING:
    import xarray as xr

    Labelled: TypeAlias = xr.Dataset | xr.DataArray

__all__ = ["Method", "Regridder", "operator_for"]

Method = Literal["conservative", "bilinear", "nearest"]
Fields = TypeVar("Fields")

#: Bytes of source fields per block, so that a block and its result fit in the cache.
BLOCK_BYTES = 1 << 20
#: Minimum number of blocks per thread.
BLOCKS_A_THREAD = 4
#: Number of cells above which sums are computed in float64.
LONG_SUM = 64


class Regridder:
    """Maps fields `(…, *source.shape)` to `(…, *target.shape)` by coordinate, with one band matrix per axis.

    `source` and `target` are grids, or xarray data that lie on them (any CF names, order and longitude convention).
    `method`: "conservative" (area means; sin(lat) on a sphere; keeps the integral to rounding), "bilinear" (linear
    along each axis) or "nearest". `rim` is the rule for targets beyond the source ("nearest", "linear", "missing",
    "error": see `overlap_weights` and `interpolation_weights`). Axes that are equal in both grids are not computed.

    Missing values (NaN, or False in a `mask`) are left out and the remaining weights are normalised to one; the result
    is missing if less than `valid_fraction` of the weight remains. `gaps=False` asserts that there are none and skips
    the check, which on a GPU would synchronise.

    >>> fine = Grid.latlon(40, 60, -5, 15, 0.1)
    >>> coarse = Grid.latlon(40, 60, -5, 15, 0.25, "node", half_open=True)
    >>> rain = np.zeros((3, 200, 200), dtype="float32")
    >>> Regridder(fine, coarse)(rain).shape, Regridder(coarse, fine, "bilinear")(np.ones((80, 80))).max()
    ((3, 80, 80), np.float64(1.0))
    """

    def __init__(
        self,
        source: Grid | Labelled,
        target: Grid | Labelled,
        method: Method = "conservative",
        *,
        rim: Rim = "nearest",
        valid_fraction: float = 0.5,
        gaps: bool = True,
    ) -> None:
        if method not in get_args(Method):
            raise ValueError(f"method is {method!r}; expected one of {get_args(Method)}")
        if not 0 <= valid_fraction <= 1:
            raise ValueError(f"valid_fraction {valid_fraction} has to be in 0 … 1")
        source, target = (grid if isinstance(grid, Grid) else grid_of(grid) for grid in (source, target))
        if source.names != target.names:
            raise DataError(f"cannot regrid axes {source.names} to {target.names}: names and order have to be the same")
        if source.crs != target.crs:
            raise DataError(f"cannot regrid from {source.crs} to {target.crs}: one reference system is needed")
        self.source, self.target, self.method, self.rim = source, target, method, rim
        self.valid_fraction, self.gaps = valid_fraction, gaps
        self.bands: tuple[Band, ...] = tuple(
            overlap_weights(a, b, rim=rim)
            if method == "conservative"
            else interpolation_weights(a, b, rim=rim, order=1 if method == "bilinear" else 0)
            for a, b in zip(source.axes, target.axes, strict=True)
        )
        self._passes = Passes(self.bands)

    def __repr__(self) -> str:
        return f"Regridder({self.source.shape} -> {self.target.shape}, {self.method!r}, rim={self.rim!r})"

    @property
    def matrices(self) -> tuple[NDArray[np.float64], ...]:
        """The dense matrix of each axis, `(target size, source size)`; the operator is their Kronecker product."""
        return tuple(band.dense() for band in self.bands)

    @property
    def covered(self) -> NDArray[np.float64]:
        """Fraction of each target cell's area that the source covers, in the target's shape."""
        share = np.ones(())
        for band in self.bands:
            share = share[..., None] * band.covered
        return share

    @property
    def outside(self) -> NDArray[np.bool_]:
        """True for the target cells that are missing by the rim rule, in the target's shape."""
        outside = np.zeros((), dtype=bool)
        for band in self.bands:
            outside = outside[..., None] | band.outside
        return outside

    def __call__(self, fields: Fields, mask: Any = None) -> Fields:
        """The fields on the target grid: the same kind (numpy, dask, torch, xarray), leading axes and float type.

        `mask` is True for valid values and broadcasts against `fields`; missing results are NaN. float16 and bfloat16
        tensors are summed in float32; integers give float32 or float64.
        """
        array: Any = fields
        kind = _kind(array)
        if kind == "xarray":
            from geoml.regrid.labelled import regrid_labelled

            return regrid_labelled(self, array if mask is None else array.where(mask))
        shape = tuple(array.shape)
        lead = len(shape) - len(self.source.shape)
        if lead < 0 or shape[lead:] != self.source.shape:
            raise ValueError(f"fields of shape {shape} do not end with the source grid's {self.source.shape}")
        if kind == "torch":
            return self._torch(array, mask)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"fields of {array.dtype} cannot be averaged; regrid real and imaginary parts separately")
        if kind == "dask":
            return self._dask(array, mask)
        if isinstance(array, np.ma.MaskedArray):
            mask = ~np.ma.getmaskarray(array) & (True if mask is None else mask)
            array = array.data
        values: Any = self._numpy(array if mask is None else np.where(mask, array, np.nan))
        return values

    def masked(self, fields: Fields, mask: Any = None) -> tuple[Fields, Any]:
        """The fields with missing values set to 0, and a mask of valid values: numpy arrays and tensors."""
        result: Any = self(fields, mask)
        if _kind(result) == "torch":
            missing = result.isnan()
            return result.masked_fill(missing, 0), ~missing
        missing = np.isnan(result)
        return np.where(missing, result.dtype.type(0), result), ~missing

    # ---- numpy ------------------------------------------------------------------------------------------------

    def _numpy(self, values: NDArray[Any], threads: int | None = None) -> NDArray[Any]:
        dtype = np.result_type(values.dtype, np.float32)
        lead = values.shape[: values.ndim - len(self.source.shape)]
        flat = values.reshape(-1, *self.source.shape)
        out = np.empty((len(flat), *self.target.shape), dtype)
        work = np.dtype(np.float64) if max(b.index.shape[1] for b in self.bands) > LONG_SUM else dtype
        at_once = max(1, BLOCK_BYTES // (max(self.source.size, self.target.size) * work.itemsize))
        starts = range(0, len(flat), at_once)

        def run(share: range) -> None:
            expect_gaps = False
            for first in share:
                block = np.ascontiguousarray(flat[first : first + at_once], work)
                result = out[first : first + len(block)]
                if not expect_gaps:
                    self._passes.apply_to_blocks(block, result)
                    smaller = result if result.size < block.size else block
                    expect_gaps = self.gaps and bool(np.isnan(smaller.min()))
                if expect_gaps:  # and mostly again in the next block
                    expect_gaps = self._gappy_passes(block, result)

        workers = min(threads or os.cpu_count() or 1, len(starts) // BLOCKS_A_THREAD, 8)
        if workers > 1:  # the loops hold no lock
            with ThreadPoolExecutor(workers) as pool:
                cuts = [len(starts) * i // workers for i in range(workers + 1)]
                list(pool.map(run, [starts[i:j] for i, j in itertools.pairwise(cuts)]))
        else:
            run(starts)
        if self.outside.any():
            out[:, self.outside] = np.nan
        return out.reshape(*lead, *self.target.shape)

    def _gappy_passes(self, block: NDArray[Any], out: NDArray[Any]) -> bool:
        """Apply the passes to a block that may have NaN; returns True if there was any."""
        from geoml.regrid import kernels

        whole, valid = np.empty_like(block), np.empty_like(block)
        gaps = kernels.split_gaps(block.reshape(-1), whole.reshape(-1), valid.reshape(-1))
        self._passes.apply_to_blocks(whole, out)
        if gaps:
            share = np.empty_like(out)
            self._passes.apply_to_blocks(valid, share)
            kernels.divide_by_share(out.reshape(-1), share.reshape(-1), self._threshold)
        return bool(gaps)

    @property
    def _threshold(self) -> float:
        return max(self.valid_fraction - 1e-6, 1e-6)

    # ---- torch ------------------------------------------------------------------------------------------------

    def _torch(self, fields: Any, mask: Any) -> Any:
        import torch

        dtype = torch.float64 if fields.dtype in (torch.float64, torch.int32, torch.int64) else torch.float32
        back = fields.dtype if fields.dtype in (torch.float16, torch.bfloat16) else dtype
        nan = torch.full((), float("nan"), dtype=dtype, device=fields.device)
        with torch.autocast(fields.device.type, enabled=False):
            x = fields.to(dtype)
            if mask is not None:
                x = torch.where(torch.as_tensor(mask, device=x.device), x, nan)
            missing = x.isnan() if self.gaps else None
            if missing is None or not bool(missing.any()):
                result = self._passes.apply_to_tensor(x)
            else:
                share = self._passes.apply_to_tensor((~missing).to(dtype))
                valid = share >= self._threshold
                values = self._passes.apply_to_tensor(x.masked_fill(missing, 0)) / share.masked_fill(~valid, 1)
                result = torch.where(valid, values, nan)
            if self.outside.any():
                result = torch.where(torch.as_tensor(self.outside, device=x.device), nan, result)
        return result.to(back)

    # ---- dask -------------------------------------------------------------------------------------------------

    def _dask(self, fields: Any, mask: Any) -> Any:
        import dask.array as da

        if mask is not None:
            fields = da.where(mask, fields, np.nan)
        lead = fields.ndim - len(self.source.shape)
        fields = fields.rechunk({lead + i: -1 for i in range(len(self.source.shape))})
        dtype = np.result_type(fields.dtype, np.float32)
        chunks = (*fields.chunks[:lead], *((size,) for size in self.target.shape))
        meta = np.empty((0,) * fields.ndim, dtype)
        return fields.map_blocks(self._numpy, threads=1, chunks=chunks, dtype=dtype, meta=meta)


def _kind(fields: Any) -> str:
    """The library of an array: numpy, dask, torch or xarray; checked without importing any."""
    for kind, names in (("torch", ("Tensor",)), ("xarray", ("DataArray", "Dataset")), ("dask.array", ("Array",))):
        module = sys.modules.get(kind)
        if module is not None and isinstance(fields, tuple(getattr(module, name) for name in names)):
            return kind.partition(".")[0]
    if not isinstance(fields, np.ndarray):
        raise TypeError(f"fields have to be a numpy, dask, torch or xarray array, not {type(fields).__name__}")
    return "numpy"


_operators: OrderedDict[Hashable, Regridder] = OrderedDict()


def operator_for(source: Grid, target: Grid, method: Method = "conservative", **options: Any) -> Regridder:
    """Return the operator for a pair of grids, cached and shared by all pairs with the same weights.

    Interpolation depends only on the relative position of the grids, so that all patches share one operator;
    area means depend on latitude too. `options` are those of `Regridder`.
    """
    key: list[Hashable] = [target.relative_to(source), method, tuple(sorted(options.items()))]
    if method == "conservative":
        key += [axis.start for axis in source.axes if axis.is_latitude]
    operator = _operators.get(tuple(key))
    if operator is None:
        operator = _operators[tuple(key)] = Regridder(source, target, method, **options)
        while len(_operators) > 128:
            _operators.popitem(last=False)
    return operator

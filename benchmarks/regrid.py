"""Regridding: speed compared with xarray-regrid and scipy, conservation of mass, and the loss from resizing by index.

The case is a RainShift box: 20° × 20°, 200 × 200 cells of 0.1° registered at centres and 80 × 80 nodes of 0.25°. All
methods get float32 arrays `(time, lat, lon)` and return the same, C-contiguous. Preparation is not timed: our operator,
the sparse matrix of scipy.sparse (Kronecker product of our axis matrices), the target coordinates of the others.
Methods take turns, with a pause before each, so that the threads of the previous one are idle. A ratio is the median
over rounds of the ratio within a round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import xarray as xr
from harness import main, peer
from index_resize import index_resize_cost
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from geoml.grids.grid import Grid, conform, grid_of
from geoml.regrid import Regridder

peer("regrid", "xarray_regrid")  # gives DataArray.regrid

FINE = Grid.latlon(40, 60, -5, 15, 0.1)
COARSE = Grid.latlon(40, 60, -5, 15, 0.25, "node", half_open=True)
Fields = np.ndarray[Any, np.dtype[Any]]
Ways = dict[str, Callable[[], Fields]]


def cascade(grid: Grid, count: int, *, slope: float = 1.0, spread: float = 1.2, seed: int = 0) -> Fields:
    """Generate rain-like fields: exponentials of Gaussian fields with spectral slope `slope`, dry where they are low.

    The slope is at the rough end of radar observations. In smoother fields a shift causes a larger loss relative to the
    small error of bilinear interpolation; a rough field avoids overstating the loss.
    """
    rng = np.random.default_rng(seed)
    height, width = (2 * size for size in grid.shape)  # cut from twice the size: not periodic
    k = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    k[0, 0] = np.inf
    fields = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((count, height, width))) * k ** (-(slope + 1) / 2))
    fields /= fields.std(axis=(1, 2), keepdims=True)
    fields = fields[:, : grid.shape[0], : grid.shape[1]]
    return np.maximum(np.exp(spread * fields) - 1, 0).astype(np.float32)


def labelled(fields: Fields, grid: Grid) -> xr.DataArray:
    return xr.DataArray(fields, grid.coords(), ("time", *grid.names))


def kronecker(regridder: Regridder) -> Any:
    parts = [scipy.sparse.csr_array(matrix) for matrix in regridder.matrices]
    return scipy.sparse.csr_array(scipy.sparse.kron(*parts)).astype(np.float32)


def apply_sparse(matrix: Any, fields: Fields, shape: tuple[int, ...]) -> Fields:
    return np.ascontiguousarray((matrix @ fields.reshape(len(fields), -1).T).T).reshape(len(fields), *shape)


def conservative_ways(fine: Fields) -> Ways:
    """Return methods for conservative regridding of 200 × 200 cells to 80 × 80 nodes."""
    regridder = Regridder(FINE, COARSE)
    matrix, there = kronecker(regridder), xr.Dataset(coords=COARSE.coords())
    theirs = {"latitude_coord": "lat", "nan_threshold": 0.5}
    if not np.isnan(fine).any():
        return {
            "geoml": lambda: regridder(fine),
            "xarray-regrid": lambda: np.ascontiguousarray(
                labelled(fine, FINE).regrid.conservative(there, skipna=False, **theirs)
            ),
            "scipy.sparse": lambda: apply_sparse(matrix, fine, COARSE.shape),
        }

    def sparse_with_gaps() -> Fields:
        gaps = np.isnan(fine)
        values = apply_sparse(matrix, np.where(gaps, np.float32(0), fine), COARSE.shape)
        share = apply_sparse(matrix, (~gaps).astype(np.float32), COARSE.shape)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(share >= 0.5 - 1e-6, values / share, np.float32(np.nan))

    return {
        "geoml": lambda: regridder(fine),
        "xarray-regrid": lambda: np.ascontiguousarray(
            labelled(fine, FINE).regrid.conservative(there, skipna=True, **theirs)
        ),
        "scipy.sparse": sparse_with_gaps,
    }


def bilinear_ways(coarse: Fields) -> Ways:
    """Return methods for bilinear interpolation of 80 × 80 nodes to 200 × 200 cells by coordinate."""
    regridder = Regridder(COARSE, FINE, "bilinear")
    matrix, there = kronecker(regridder), xr.Dataset(coords=FINE.coords())
    clamped = [np.clip(FINE[n].coordinates, *COARSE[n].extent) for n in FINE.names]
    places = np.stack(np.meshgrid(*clamped, indexing="ij"), axis=-1)
    indices = np.stack([(places[..., i] - axis.start) / axis.step for i, axis in enumerate(COARSE.axes)])
    nodes = [axis.coordinates for axis in COARSE.axes]

    def interpolator() -> Fields:
        values = RegularGridInterpolator(nodes, np.moveaxis(coarse, 0, -1))(places)
        return np.ascontiguousarray(np.moveaxis(values, -1, 0))

    def map_coordinates() -> Fields:
        return np.stack([ndimage.map_coordinates(field, indices, order=1, mode="nearest") for field in coarse])

    return {
        "geoml": lambda: regridder(coarse),
        "xarray-regrid": lambda: np.ascontiguousarray(labelled(coarse, COARSE).regrid.linear(there)),
        "scipy.sparse": lambda: apply_sparse(matrix, coarse, FINE.shape),
        "scipy RegularGridInterpolator": interpolator,
        "scipy ndimage.map_coordinates": map_coordinates,
    }


def check_alike(ways: Ways, case: str) -> None:
    """Check that all methods return equal values, at cells with values from all."""
    ours = ways["geoml"]()
    for name, way in ways.items():
        result = way()
        if result.shape != ours.shape or not result.flags.c_contiguous:
            raise AssertionError(f"{case}: {name} gives {result.shape}, C-contiguous {result.flags.c_contiguous}")
        both = np.isfinite(ours) & np.isfinite(result)
        far = np.abs(ours - result)[both] > 2e-3 * np.abs(ours[both]) + 1e-3 * np.abs(ours[both]).mean()
        if both.mean() < 0.8 * np.isfinite(ours).mean() or far.mean() > 0.01:
            raise AssertionError(f"{case}: {name} differs from ours in {far.mean():.1%} of {both.mean():.1%} cells")


def worst_mass_error(fine: Fields) -> float:
    """Return the largest relative error of the area integral, over factors, shifts, directions and float types."""
    worst = 0.0
    for other in (COARSE, FINE.coarsen(2), FINE.coarsen(2.5), FINE.coarsen(8), FINE.refine(2), FINE.moved(lat=0.037)):
        for source, target in ((FINE, other), (other, FINE)):
            there, back = Regridder(source, target), Regridder(target, source)
            before, after = (np.multiply.outer(*(axis.widths for axis in grid.axes)) for grid in (source, target))
            for dtype in (np.float32, np.float64):
                fields = (fine if source is FINE else Regridder(FINE, source)(fine)).astype(dtype)
                mass = np.sum(fields * (before * back.covered), axis=(1, 2), dtype=np.float64)
                kept = np.sum(there(fields) * (after * there.covered), axis=(1, 2), dtype=np.float64)
                worst = max(worst, float(np.abs(kept / mass - 1).max()))
    return worst


def real_costs() -> dict[str, Any]:
    """Return the loss from index resizing on the radar rain in `$GEOML_DATA/precip`; empty without these data."""
    root = Path(os.environ.get("GEOML_DATA", "")) / "precip"
    costs = {}
    for path in sorted(root.glob("*_0p10.nc")) if os.environ.get("GEOML_DATA") else []:
        partner = path.with_name(path.name.replace("0p10", "0p25"))
        if not partner.exists():
            continue
        with xr.open_dataset(path) as fine, xr.open_dataset(partner) as coarse:
            rain = next(v for v in conform(fine).data_vars.values() if v.dims[-2:] == ("lat", "lon") and v.ndim == 3)
            costs[path.stem] = index_resize_cost(rain.values.astype(np.float64), grid_of(coarse), grid_of(fine))
    return costs


def alternate(ways: Ways, rounds: int) -> dict[str, Fields]:
    """Return the seconds of each method in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            time.sleep(0.1)
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    return {name: np.array(values) for name, values in seconds.items()}


def race(case: str, ways: Ways, rounds: int, fields: int) -> float:
    """Print the times of a case. Returns the time of the fastest peer over ours."""
    check_alike(ways, case)
    seconds = alternate(ways, rounds)
    ours = seconds.pop("geoml")
    print(f"{case:28}{'geoml':32}{1e6 * np.median(ours) / fields:9.1f} µs a field")
    ratios = {name: float(np.median(theirs / ours)) for name, theirs in seconds.items()}
    for name, theirs in seconds.items():
        print(f"{case:28}{name:32}{1e6 * np.median(theirs) / fields:9.1f} µs a field{ratios[name]:8.1f} × ours")
    return min(ratios.values())


def measure(quick: bool) -> dict[str, float]:
    """Return the figures of this script by the keys of targets.yaml."""
    count, rounds = (240, 5) if quick else (480, 11)  # fewer fields than that measure the start of threads
    fine = cascade(FINE, count)
    coarse = Regridder(FINE, COARSE)(fine)
    gappy = np.where(np.random.default_rng(1).random(fine.shape) < 0.05, np.float32(np.nan), fine)
    cases = {
        "conservative": conservative_ways(fine),
        "conservative, 5 % missing": conservative_ways(gappy),
        "bilinear": bilinear_ways(coarse),
    }
    ratios = [race(case, ways, rounds, count) for case, ways in cases.items()]
    cost = index_resize_cost(fine, COARSE, FINE)
    for name, real in {"synthetic cascade": cost, **real_costs()}.items():
        print(f"resized by index: {name:44}RMSE {real.rmse_cost:+7.1%}   CRPS {real.crps_cost:+7.1%}")
    return {
        "vs_best": min(ratios),
        "max_rel_error": worst_mass_error(fine[:24]),
        "index_resize_rmse_cost": cost.rmse_cost,
        "index_resize_crps_cost": cost.crps_cost,
    }


if __name__ == "__main__":
    main("regrid", measure)

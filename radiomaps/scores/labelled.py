"""Scores of labelled maps: predicted and true data sets on the same voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.metrics import Suite
from radiomaps.scores.physical import QUANTITIES, laid_flat, suite_of

__all__ = ["evaluate_maps"]

Array = NDArray[Any]
SPACE = ("z", "y", "x")
#: Optional dims along which maps are counted.
MAPS = ("scene", "tx")
#: Tolerance of positions in metres.
SAME_M = 0.01


def evaluate_maps(maps: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Every score on (target, voxels), in dB, ns and degrees; see `radiomaps.evaluate`."""
    targets = [name for name in QUANTITIES if name in maps and name in truth]
    if not targets:
        found = ", ".join(map(str, maps.data_vars)) or "nothing"
        raise DataError(f"maps and truth share none of {', '.join(QUANTITIES)}; the maps have {found}")
    maps, truth = _placed(maps), _placed(truth)
    _require_same_voxels(maps, truth)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    members = 1
    groups: dict[str, Array] = {}
    for target in targets:
        predicted, true = _laid_out(maps[target]), _laid_out(truth[target])[:, 0]
        if len(predicted) != len(true):
            raise DataError(f"{len(predicted)} maps are predicted, {len(true)} are in the truth")
        known = np.isfinite(true)
        if lacking := int((known[:, None] & ~np.isfinite(predicted)).any(axis=1).sum()):
            raise DataError(f"{target} is not predicted in {lacking} of {int(known.sum())} voxels that a path reaches")
        members = max(members, predicted.shape[1])
        groups = groups or _groups(truth, true.shape)
        suite = suite_of(target, members=predicted.shape[1])
        rows[target] = {name: _scores(suite, target, predicted, true, known & mask) for name, mask in groups.items()}
    names = list(dict.fromkeys(name for by_group in rows.values() for row in by_group.values() for name in row))
    values = {
        name: (("target", "voxels"), [[rows[t][g].get(name, np.nan) for g in groups] for t in targets])
        for name in names
    }
    units = [QUANTITIES[target].unit for target in targets]
    coords = {"target": targets, "voxels": list(groups), "unit": ("target", units)}
    return xr.Dataset(values, coords, {"members": members, "maps": len(true)})


def _placed(maps: xr.Dataset) -> xr.Dataset:
    """The maps in scene coordinates: maps of a store begin at the window's corner."""
    if "origin_x" not in maps.coords or "scene" in maps.dims:
        return maps
    return maps.assign_coords({axis: maps[axis] + float(maps[f"origin_{axis}"]) for axis in "xy"} | _moved_site(maps))


def _moved_site(maps: xr.Dataset) -> dict[str, Any]:
    return {
        f"tx_{axis}": maps[f"tx_{axis}"] + float(maps[f"origin_{axis}"]) for axis in "xy" if f"tx_{axis}" in maps.coords
    }


def _require_same_voxels(maps: xr.Dataset, truth: xr.Dataset) -> None:
    for axis in SPACE:
        if axis not in maps.dims or axis not in truth.dims:
            raise DataError(f"maps need the dims z, y, x; {axis} is missing")
        given, wanted = (np.asarray(data[axis].values, float) for data in (maps, truth))
        if given.shape != wanted.shape or not np.allclose(given, wanted, atol=SAME_M):
            raise DataError(
                f"maps run along {axis} from {given[0]:g} to {given[-1]:g} m in {len(given)} steps, the truth from "
                f"{wanted[0]:g} to {wanted[-1]:g} m in {len(wanted)}; both must be on the same voxels"
            )
        place = f"tx_{axis}"
        if place in maps.coords and place in truth.coords and maps[place].shape == truth[place].shape:
            apart = float(np.abs(maps[place].values - truth[place].values).max(initial=0.0))
            if apart > SAME_M:
                raise DataError(f"transmitters of maps and truth differ by up to {apart:g} m along {axis}")


def _laid_out(array: xr.DataArray) -> Array:
    """`(map, member, z, y, x)`, in the order of scenes and transmitters."""
    for dim in array.dims:
        if dim not in (*MAPS, "member", *SPACE):
            raise DataError(f"{array.name} has the dim {dim!r}; expected scene, tx, member, z, y, x")
    missing = [dim for dim in (*MAPS, "member") if dim not in array.dims]
    laid = array.expand_dims(missing).transpose(*MAPS, "member", *SPACE).values
    return laid.reshape(-1, *laid.shape[2:]).astype(np.float64)


def _groups(truth: xr.Dataset, shape: tuple[int, ...]) -> dict[str, Array]:
    """Masks `(map, z, y, x)` by name: all voxels, in and out of line of sight, each height."""
    found: dict[str, Array] = {"all": np.ones(shape, bool)}
    if "los" in truth:
        seen = _laid_out(truth["los"])[:, 0] > 0.5
        found |= {"los": seen, "nlos": ~seen}
    for layer, height in enumerate(truth["z"].values):
        found[f"z = {float(height):g} m"] = np.broadcast_to(np.eye(shape[1], dtype=bool)[layer][:, None, None], shape)
    return found


def _scores(suite: Suite, target: str, predicted: Array, true: Array, mask: Array) -> dict[str, float]:
    """Every metric over the voxels of a mask; NaN if the mask is empty."""
    names = {label: label.partition("_")[0] if label.startswith("within_") else label for label in suite.metrics}
    if not mask.any():
        return dict.fromkeys(names.values(), float("nan"))
    quantity = QUANTITIES[target]
    x = np.where(mask[:, None], predicted, 0.0) * quantity.factor
    y = np.where(mask, true, 0.0) * quantity.factor
    if quantity.circular:
        x, y = laid_flat(x, y)
    table = suite.update(x, y, ids=np.arange(len(y)), mask=mask)
    return {names[label]: value for label, value in suite.evaluate(table).items()}

"""Priors from physics or from the observations, which residual models correct and must beat."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.constants import SPEED_OF_LIGHT
from geoml.data.store import Store
from geoml.errors import DataError
from geoml.grids.grid import Grid
from geoml.runs.files import read_json
from radiomaps.dominant import ONCE, VERSION
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.maps.layout import direction_angles, friis_gain_db
from radiomaps.maps.store import MapStore
from radiomaps.tasks.conditions import Site

__all__ = [
    "dominant_store",
    "everywhere",
    "free_space",
    "interpolate",
    "inverse_distances",
    "is_complete",
    "nearest",
]

_PLAN_FIELDS = ("scenes", "placement", "window", "options", "seed", "frequencies_hz")


def free_space(site: Site, grid: Grid) -> dict[str, NDArray[np.float64]]:
    """Gain (Friis), delay and direction of the straight path to every voxel, as if there were no buildings.

    Distances below one wavelength, where Friis does not hold, are set to one wavelength.
    """
    vector = site.towards(grid)
    distance = np.maximum(np.linalg.norm(vector, axis=0), SPEED_OF_LIGHT / site.frequency_hz)
    azimuth, zenith = direction_angles(vector, axis=0)
    gain = friis_gain_db(distance, site.frequency_hz)
    return {"path_gain_db": gain, "toa_s": distance / SPEED_OF_LIGHT, "doa_azimuth": azimuth, "doa_zenith": zenith}


def everywhere(values: NDArray[Any]) -> NDArray[Any]:
    """Values with NaN replaced by the nearest valid voxel."""
    from scipy.ndimage import distance_transform_edt

    missing = np.isnan(values)
    if missing.all():
        raise DataError("the prior of a map has no path to any voxel; choose another prior, or exclude that map")
    if not missing.any():
        return values
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return values[tuple(nearest)]


def interpolate(
    channels: NDArray[np.float32], observed: NDArray[np.bool_], grid: Grid, *, power: float = 2.0, neighbours: int = 8
) -> NDArray[np.float32]:
    """`inverse_distances` of observed voxels: `(channel, z, y, x)`, exact where observed.

    Without any observation everything is one half.
    """
    places = np.argwhere(observed) * [axis.step for axis in grid.axes]
    if not len(places):
        return np.full(channels.shape, 0.5, np.float32)
    wanted = np.argwhere(np.ones(grid.shape, bool)) * [axis.step for axis in grid.axes]
    found = channels[:, observed]
    filled = inverse_distances(places, found.T, wanted, power=power, neighbours=neighbours)
    made = filled.T.reshape(channels.shape).astype(np.float32)
    made[:, observed] = found
    return made


def inverse_distances(
    places: NDArray[np.float64],
    values: NDArray[Any],
    wanted: NDArray[np.float64],
    *,
    power: float,
    neighbours: int,
) -> NDArray[np.float64]:
    """Inverse-distance weighting (Shepard 1968): values `(m, channel)` at `wanted` `(m, 3)`, in metres.

    From those `(n, channel)` at `places` `(n, 3)`, with weights d^-power of the nearest `neighbours`.

    >>> inverse_distances(np.array([[0.0], [3.0]]), np.array([[0.0], [9.0]]), np.array([[1.0]]), power=1, neighbours=2)
    array([[3.]])
    """
    distance, index = nearest(places, wanted, neighbours)
    weights = np.maximum(distance, 1e-6) ** -power
    weights /= weights.sum(axis=1, keepdims=True)
    made: NDArray[np.float64] = (values[index] * weights[..., None]).sum(axis=1)
    return made


def nearest(
    places: NDArray[np.float64], wanted: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances and indices `(m, k)` of the `count` places nearest to each wanted one (or of all, if fewer)."""
    from scipy.spatial import KDTree

    distance, index = KDTree(places).query(wanted, k=min(count, len(places)))
    return distance.reshape(len(wanted), -1), index.reshape(len(wanted), -1)


def dominant_store(store: str | os.PathLike[str], *, version: int = VERSION, once: bool = False) -> Store:
    """The dominant paths of every map of a store, in a store next to it; computed on the first call and reused.

    Maps of a plan are made by the same plan with the solver replaced; others from the footprints of their records.
    `version` is that of the solver. `once`: only paths with at most one diffraction.
    """
    from radiomaps.generation.generate import generate

    store = MapStore.open(store)
    name = f"dominant-{version}" + ("-once" if once else "")
    if name in store.companions:
        return store.companions[name]
    beside = store.path.with_name(f"{store.path.name.removesuffix('.zarr')}.{name}.zarr")
    if "plan" in store.attributes:
        plan = _dominant_plan(json.loads(store.attributes["plan"]), version)
        plan = replace(plan, options={**plan.options, **ONCE}) if once else plan
        if not is_complete(beside, plan.identity):
            generate(plan, beside)
    else:
        from radiomaps.tasks.footprint_priors import dominant_of_footprints

        dominant_of_footprints(store, beside, version=version, once=once)
    made = Store.open(beside)
    own, other = (each.groups["transmitter"] for each in (store, made))
    if not all(np.allclose(own[name], other[name], atol=1e-3) for name in ("tx_x", "tx_y", "tx_z", "frequency_hz")):
        raise DataError(
            f"{beside} was computed for other transmitters than {store} has; delete {beside} to compute it again"
        )
    store.companions[name] = made
    return made


def is_complete(store: Path, identity: str) -> bool:
    """Whether a plan's store exists; several processes may check at once without writing."""
    if not (store / "manifest.json").exists():
        return False
    return bool(read_json(store / "zarr.json").get("attributes", {}).get("identity") == identity)


def _dominant_plan(described: Mapping[str, Any], version: int) -> Plan:
    """The plan of a store, solved by dominant paths: same scenes, places, window and carriers."""
    values = {name: described[name] for name in _PLAN_FIELDS}
    usual = values["options"].get("frequency_hz", 5.9e9)
    antenna = ("pattern", "rows", "columns", "weights", "electrical_tilt_deg")
    cells = [{key: value for key, value in row.items() if key not in antenna}
             for row in values["placement"].get("sites") or ()]  # fmt: skip
    placement = Placement(**{**values["placement"], "pattern": "iso", "sites": cells})
    turns = described.get("carriers_hz", ())
    carriers = values["frequencies_hz"] or ([] if cells or turns else [usual])
    return Plan(
        tuple(values["scenes"]),
        placement,
        Window(**values["window"]),
        "dominant",
        {
            **({"frequency_hz": usual} if cells or turns else {}),
            **({} if version == VERSION else {"version": version}),
        },
        seed=int(values["seed"]),
        frequencies_hz=tuple(carriers),
        carriers_hz=tuple(turns),
    )

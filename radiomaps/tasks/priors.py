"""First guesses from physics or from the observations alone: what a residual model builds on, and has to beat."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.data.store import open_store
from geoml.errors import DataError
from geoml.files import read_json
from geoml.grids import Grid
from radiomaps.maps import SPEED_OF_LIGHT, direction_angles, friis_gain_db
from radiomaps.plan import Placement, Plan, Window
from radiomaps.tasks.conditions import Site

__all__ = ["dominant_store", "everywhere", "free_space", "interpolate", "is_complete"]

_PLAN_FIELDS = ("scenes", "placement", "window", "options", "seed", "frequencies_hz")


def free_space(site: Site, grid: Grid) -> dict[str, NDArray[np.float64]]:
    """Gain (Friis), delay and direction of the straight path to every voxel, as if there were no buildings.

    Nearer than a wavelength, where Friis does not hold, counts as a wavelength.
    """
    vector = site.towards(grid)
    distance = np.maximum(np.linalg.norm(vector, axis=0), SPEED_OF_LIGHT / site.frequency_hz)
    azimuth, zenith = direction_angles(vector, axis=0)
    gain = friis_gain_db(distance, site.frequency_hz)
    return {"path_gain_db": gain, "toa_s": distance / SPEED_OF_LIGHT, "doa_azimuth": azimuth, "doa_zenith": zenith}


def everywhere(values: NDArray[Any]) -> NDArray[Any]:
    """Values without gaps: where there is NaN, that of the nearest voxel which has one."""
    from scipy.ndimage import distance_transform_edt

    missing = np.isnan(values)
    if missing.all():
        raise DataError("the prior of a map has no path to any voxel; choose another prior, or leave that map out")
    if not missing.any():
        return values
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    return values[tuple(nearest)]


def interpolate(
    channels: NDArray[np.float32], observed: NDArray[np.bool_], grid: Grid, *, power: float = 2.0, neighbours: int = 8
) -> NDArray[np.float32]:
    """Inverse-distance weighting of observed voxels (Shepard 1968): `(channel, z, y, x)`, exact where observed.

    Weights are d^-power of the `neighbours` nearest, in metres. Without any observation everything is one half.
    """
    from scipy.spatial import KDTree

    places = np.argwhere(observed) * [axis.step for axis in grid.axes]
    if not len(places):
        return np.full(channels.shape, 0.5, np.float32)
    wanted = np.argwhere(np.ones(grid.shape, bool)) * [axis.step for axis in grid.axes]
    distance, index = KDTree(places).query(wanted, k=min(neighbours, len(places)))
    distance, index = distance.reshape(len(wanted), -1), index.reshape(len(wanted), -1)
    weights = np.maximum(distance, 1e-6) ** -power
    weights /= weights.sum(axis=1, keepdims=True)
    found = channels[:, observed]
    made = (found[:, index] * weights).sum(axis=-1).reshape(channels.shape).astype(np.float32)
    made[:, observed] = found
    return made


def dominant_store(store: str | os.PathLike[str], *, client: Any = None) -> Path:
    """The dominant paths of every map of a store, in a store beside it; computed at the first call, and then found.

    Maps of a plan are made by the same plan with the solver replaced; others from the footprints of their records.
    """
    from radiomaps.generate import generate

    store = Path(store)
    beside = store.with_name(f"{store.name.removesuffix('.zarr')}.dominant.zarr")
    attributes = read_json(store / "zarr.json").get("attributes", {})
    if "plan" in attributes:
        plan = _dominant_plan(json.loads(attributes["plan"]))
        if not is_complete(beside, plan.identity):
            generate(plan, beside, client=client)
    else:
        from radiomaps.tasks.footprint_priors import dominant_of_footprints

        dominant_of_footprints(store, beside)
    own, other = (open_store(path, "transmitter") for path in (store, beside))
    if not all(np.allclose(own[name], other[name], atol=1e-3) for name in ("tx_x", "tx_y", "tx_z", "frequency_hz")):
        raise DataError(f"{beside} is not of the same transmitters as {store}; delete it, to have it made again")
    return beside


def is_complete(store: Path, identity: str) -> bool:
    """Whether a plan's store is there: several processes may ask at once, of which none may then write."""
    if not (store / "manifest.json").exists():
        return False
    return bool(read_json(store / "zarr.json").get("attributes", {}).get("identity") == identity)


def _dominant_plan(described: Mapping[str, Any]) -> Plan:
    """The plan of a store, solved by dominant paths: same scenes, places, window and carriers."""
    values = {name: described[name] for name in _PLAN_FIELDS}
    carriers = values["frequencies_hz"] or [values["options"].get("frequency_hz", 5.9e9)]
    placement = Placement(**{**values["placement"], "pattern": "iso"})
    return Plan(
        tuple(values["scenes"]),
        placement,
        Window(**values["window"]),
        "dominant",
        seed=int(values["seed"]),
        frequencies_hz=tuple(carriers),
    )

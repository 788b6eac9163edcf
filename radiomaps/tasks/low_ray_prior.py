"""The maps of a store, traced again with a hundredth of the rays as input of a denoising network."""

from __future__ import annotations

import json
import os
from typing import Any

from geoml.data.store import Store
from geoml.errors import UserError
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.maps.store import MapStore
from radiomaps.tasks.priors import is_complete

__all__ = ["FEWER", "cheap_plan", "cheap_store"]

#: Factor by which cheap traces have fewer rays.
FEWER = 100
#: Minimum number of rays of a cheap trace.
_FEWEST = 1_000


def cheap_store(store: str | os.PathLike[str]) -> Store:
    """Cheap traces of every map of a store, in a store next to it; computed on the first call and reused.

    Raises `UserError` for a store that was not traced with rays, or with too few.
    """
    from radiomaps.generation.generate import generate

    store = MapStore.open(store)
    if "cheap" in store.companions:
        return store.companions["cheap"]
    if "plan" not in store.attributes:
        raise UserError(f"{store} was imported, not traced: it cannot be traced again with fewer rays")
    plan = cheap_plan(json.loads(store.attributes["plan"]), store)
    beside = store.path.with_name(f"{store.path.name.removesuffix('.zarr')}.cheap.zarr")
    if not is_complete(beside, plan.identity):
        generate(plan, beside)
    store.companions["cheap"] = Store.open(beside)
    return store.companions["cheap"]


def cheap_plan(described: dict[str, Any], store: MapStore) -> Plan:
    """The plan of a store with fewer rays."""
    options = dict(described["options"])
    if described["solver"] != "sionna":
        raise UserError(
            f"{store} is of solver {described['solver']!r}, which traces no rays; prior=cheap_trace has none"
        )
    from radiomaps.raytrace.options import TraceOptions

    rays = int(options.get("rays", TraceOptions().rays))
    if rays < FEWER * _FEWEST:
        raise UserError(f"{store} was traced with {rays} rays; a hundredth of them is less than {_FEWEST}, the minimum")
    options |= {"rays": rays // FEWER, "error_db": None}
    return Plan(
        tuple(described["scenes"]),
        Placement(**described["placement"]),
        Window(**described["window"]),
        "sionna",
        options,
        seed=int(described["seed"]),
        frequencies_hz=tuple(described["frequencies_hz"]),
    )

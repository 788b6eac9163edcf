"""Data sources of rain by name. A new source needs a class in this folder, an entry in `SOURCES` and a YAML file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from geoml.errors import UserError, unknown

if TYPE_CHECKING:
    from rainshift.sources.base import RegionSource

__all__ = ["SOURCES", "open_source"]

SOURCES = {
    "era5": "rainshift.sources.era5:Era5Source",
    "gridded": "rainshift.sources.gridded:GriddedSource",
    "imerg": "rainshift.sources.imerg:ImergSource",
    "pair": "rainshift.sources.pair:PairSource",
    "rainshift": "rainshift.sources.rainshift_hub:RainShiftSource",
    "synthetic": "rainshift.sources.synthetic:SyntheticSource",
    "synthetic_climates": "rainshift.sources.synthetic_climates:SyntheticClimatesSource",
    "synthetic_exact": "rainshift.sources.synthetic_exact:SyntheticExactSource",
}


def open_source(name: str, **options: Any) -> RegionSource:
    """Open the source `name` with the options of its class.

    Raises `UserError` for an invalid value, and for an unknown name or option, with the most similar known one.
    """
    if name not in SOURCES:
        raise unknown("data source", name, SOURCES)
    module, _, attribute = SOURCES[name].partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    for key in options:
        if key not in cls.__dataclass_fields__:
            raise unknown(f"data.{name} option", key, cls.__dataclass_fields__)
    try:
        return cls(**options)
    except TypeError as error:
        raise UserError(f"data={name}: {error}") from error

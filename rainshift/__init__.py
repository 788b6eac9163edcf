"""Precipitation downscaling across regions.

>>> import rainshift
>>> tree = rainshift.open("melanesia", "test", size_deg=4)  # doctest: +SKIP
>>> results = rainshift.benchmark("experiment=demo")  # doctest: +SKIP
"""

from typing import Any

__all__ = ["benchmark", "open"]

#: Public names and where they live: imported when they are first used, so that listing stays quick.
_LAZY = {"benchmark": "benchmark", "open": "open_region"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from rainshift import api

        return getattr(api, _LAZY[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_LAZY))

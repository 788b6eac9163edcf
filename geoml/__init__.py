"""Fields on n-D grids: regridding, stores, loaders, networks and scores shared by rain and radio.

>>> import geoml
>>> fine, coarse = geoml.Grid.latlon(0, 10, 0, 10, 0.1), geoml.Grid.latlon(0, 10, 0, 10, 0.25)
>>> geoml.Regridder(fine, coarse)
Regridder((100, 100) -> (40, 40), 'conservative', rim='nearest')

Importing this package loads the standard library only; other modules are imported on first use.
"""

from typing import TYPE_CHECKING

from geoml.public import publish
from geoml.runs.caches import place_caches

if TYPE_CHECKING:
    from geoml import scores as scores
    from geoml.grids.grid import Grid as Grid
    from geoml.regrid.operator import Regridder as Regridder

__version__ = "0.1.0.dev0"
#: Temporary folder of compiled functions if no standard cache folder is writable, else "".
_cache = place_caches()

publish(
    __name__,
    {"Grid": "geoml.grids.grid:Grid", "Regridder": "geoml.regrid.operator:Regridder", "scores": "geoml.scores"},
)

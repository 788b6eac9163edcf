"""Fields on n-D grids: regridding, stores, loaders, networks and scores shared by rain and radio.

Importing this package is cheap: nothing heavier than the standard library is loaded until it is asked for.
"""

__version__ = "0.1.0.dev0"

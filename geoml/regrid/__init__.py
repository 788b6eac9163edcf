"""Registration-exact regridding between rectilinear grids: area-conservative, bilinear and nearest."""

from geoml.regrid.operator import Method, Regridder, operator_for
from geoml.regrid.weights import Band, Rim, interpolation_weights, overlap_weights

__all__ = [
    "Band",
    "Method",
    "Regridder",
    "Rim",
    "interpolation_weights",
    "operator_for",
    "overlap_weights",
]

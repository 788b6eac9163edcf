"""Registration-exact regridding between rectilinear grids: area-conservative, bilinear and nearest."""

from geoml.regrid.index_resize import IndexCost, index_resize, index_resize_cost, index_resize_figure
from geoml.regrid.operator import Method, Regridder, operator_for
from geoml.regrid.weights import Band, Rim, interpolation_weights, overlap_weights

__all__ = [
    "Band",
    "IndexCost",
    "Method",
    "Regridder",
    "Rim",
    "index_resize",
    "index_resize_cost",
    "index_resize_figure",
    "interpolation_weights",
    "operator_for",
    "overlap_weights",
]

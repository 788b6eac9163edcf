"""Import and export: UrbanRadio3D, RadioMapSeer, GeoTIFF, NetCDF, and path tables in DeepMIMO's layout."""

from __future__ import annotations

from radiomaps.exchange.deepmimo import export_deepmimo, read_deepmimo
from radiomaps.exchange.deepmimo_import import import_deepmimo, table_of_deepmimo
from radiomaps.exchange.geotiff import export_geotiff
from radiomaps.exchange.netcdf import export_netcdf
from radiomaps.exchange.radiomapseer import import_radiomapseer
from radiomaps.exchange.urbanradio3d import import_urbanradio3d
from radiomaps.exchange.urbanradio3d_export import export_urbanradio3d

__all__ = [
    "export_deepmimo",
    "export_geotiff",
    "export_netcdf",
    "export_urbanradio3d",
    "import_deepmimo",
    "import_radiomapseer",
    "import_urbanradio3d",
    "read_deepmimo",
    "table_of_deepmimo",
]

"""All kinds of scene files, by format."""

from __future__ import annotations

from tests.formats import geojson_cases, geotiff_cases, osm_cases, overpass_cases, urbanradio3d_cases, xml_cases
from tests.formats.case import Case

CASES: list[Case] = [
    case
    for module in (osm_cases, overpass_cases, geojson_cases, geotiff_cases, xml_cases, urbanradio3d_cases)
    for case in module.CASES
]

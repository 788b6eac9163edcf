"""The command line `radiomaps`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from geoml.cli import app
from geoml.cli.definitions import App, Verb

__all__ = ["APP", "main"]

APP = App(
    name="radiomaps",
    config_module="radiomaps.conf",
    help="ray-traced 3-D radio maps",
    extra="radiomaps",
    renamed=(("sample", "predict"),),
    verbs=(
        Verb(
            "trace",
            "radiomaps.verbs:trace",
            "Trace maps of scenes and transmitters into one store",
            example="radiomaps trace scene=etoile transmitters.positions_m=[[0,-10,30]]",
        ),
        Verb(
            "paths",
            "radiomaps.verbs:paths",
            "Find exact paths to receivers, with delays, angles, Doppler",
            example="radiomaps paths scene=etoile receivers.count=1000 receivers.speed_m_s=10",
        ),
        Verb(
            "calibrate",
            "radiomaps.raytrace.calibration.verb:calibrate",
            "Fit sites and materials to measured powers",
            example="radiomaps calibrate scene=munich sites=sites.yaml measurements=drive.csv",
        ),
        Verb(
            "scenes",
            "radiomaps.verbs:scenes",
            "List scenes; report on one scene, and draw it",
            example="radiomaps scenes scene=city.osm default_height_m=9",
            plain=True,
        ),
        Verb(
            "coverage",
            "radiomaps.verbs:coverage",
            "Best server, RSRP, SINR and share covered from several cells",
            example="radiomaps coverage store=maps.zarr sites=sites.yaml",
        ),
        Verb(
            "import",
            "radiomaps.verbs:import_maps",
            "Read UrbanRadio3D, RadioMapSeer or DeepMIMO into a store",
            example="radiomaps import format=urbanradio3d source=DIR store=u3d.zarr",
            run_folder=False,
        ),
        Verb(
            "export",
            "radiomaps.verbs:export_maps",
            "Write a store as UrbanRadio3D pictures, GeoTIFF or NetCDF",
            example="radiomaps export format=geotiff store=maps.zarr target=DIR",
            run_folder=False,
        ),
        Verb(
            "train",
            "radiomaps.verbs:train",
            "Train a model on the maps of a store",
            example="radiomaps train store=maps.zarr model=radiodiff3d",
        ),
        Verb(
            "predict",
            "radiomaps.verbs:predict",
            "Predict maps with a trained model, with mean and uncertainty",
            example="radiomaps predict scene=city.osm members=8",
        ),
        Verb(
            "evaluate",
            "radiomaps.verbs:evaluate",
            "Score a trained model or a baseline on a part of a store",
            example="radiomaps evaluate store=maps.zarr baseline=dominant",
        ),
        Verb(
            "benchmark",
            "radiomaps.verbs:benchmark",
            "Train and score models and baselines on tasks of one store",
            example="radiomaps benchmark store=maps.zarr models=[dominant,unet3d,radiodiff3d]",
        ),
        Verb(
            "report",
            "radiomaps.verbs:report",
            "Write one HTML page about stores and finished runs",
            "radiomaps report runs/trace/etoile",
            plain=True,
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `radiomaps` with these arguments (default: those of the shell); returns the exit code."""
    return app.main(APP, argv)


if __name__ == "__main__":
    sys.exit(main())

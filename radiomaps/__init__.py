"""3-D radio maps: path gain, time and direction of arrival on an x, y, z grid, ray-traced or predicted by a model.

>>> import radiomaps
>>> scene = radiomaps.load_scene("procedural-0")
>>> grid = scene.grid(8.0, (1.5, 7.5, 3.0))
>>> maps = radiomaps.trace(scene, [(60.0, 100.0, 40.0)], grid, solver="dominant")
>>> sorted(maps.sizes.items())
[('tx', 1), ('x', 32), ('y', 32), ('z', 3)]

A trained model predicts the same maps with their uncertainty, for any scene and transmitter:

>>> model = radiomaps.load("runs/model")  # doctest: +SKIP
>>> predicted = model.predict(scene, [(60.0, 100.0, 40.0)], grid, members=8)  # doctest: +SKIP
>>> scores = radiomaps.evaluate(predicted, maps)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from geoml.public import publish

if TYPE_CHECKING:
    from geoml.grids.grid import Grid as Grid
    from radiomaps.api import Model as Model
    from radiomaps.api import benchmark as benchmark
    from radiomaps.api import evaluate as evaluate
    from radiomaps.api import load as load
    from radiomaps.api import load_scene as load_scene
    from radiomaps.api import open as open
    from radiomaps.api import paths as paths
    from radiomaps.api import trace as trace
    from radiomaps.api import train as train
    from radiomaps.maps.layout import Transmitter as Transmitter
    from radiomaps.raytrace.calibration import calibrate as calibrate
    from radiomaps.scenes import Scene as Scene

_NAMES = ("Model", "benchmark", "evaluate", "load", "load_scene", "open", "paths", "trace", "train")
_TYPES = {
    "Grid": "geoml.grids.grid:Grid",
    "Scene": "radiomaps.scenes:Scene",
    "Transmitter": "radiomaps.maps.layout:Transmitter",
    "calibrate": "radiomaps.raytrace.calibration:calibrate",
}

publish(__name__, {**{name: f"radiomaps.api:{name}" for name in _NAMES}, **_TYPES})

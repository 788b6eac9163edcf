"""Precipitation downscaling across regions: from coarse rain and weather to an ensemble of fine rain.

>>> import rainshift
>>> rainshift.regions()["name"][:3]
('africa-south', 'amazon-basin', 'arabian-peninsula')

From the data of a region to scored predictions (the model also applies to any other coarse data set):

>>> tree = rainshift.open("melanesia", "test")  # doctest: +SKIP
>>> model = rainshift.train("edm", regions=["melanesia"], samples=6000)  # doctest: +SKIP
>>> rain = model.predict(tree["condition"], members=8)  # doctest: +SKIP
>>> scores = rainshift.evaluate(rain, tree["target"], metrics="scorecard")  # doctest: +SKIP
>>> results = rainshift.benchmark("experiment=demo")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from geoml.public import publish

if TYPE_CHECKING:
    from rainshift.api import Model as Model
    from rainshift.api import benchmark as benchmark
    from rainshift.api import evaluate as evaluate
    from rainshift.api import load as load
    from rainshift.api import open as open
    from rainshift.api import regions as regions
    from rainshift.api import train as train

_NAMES = ("Model", "benchmark", "evaluate", "load", "open", "regions", "train")

publish(__name__, {name: f"rainshift.api:{name}" for name in _NAMES})

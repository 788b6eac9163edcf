"""RainShift from Python: xarray in, xarray out. The verbs of the command line call the same functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from geoml.cli.tables import DataTable

if TYPE_CHECKING:
    import os

    import xarray as xr

    from geoml.grids.grid import Grid
    from rainshift.trained import Trained

__all__ = ["Model", "benchmark", "evaluate", "load", "open", "regions", "train"]

Conservation = Literal["auto", "additive", "multiplicative", "softmax"] | None


def regions() -> DataTable:
    """The regions of the RainShift protocol and those of the folders in `RAINSHIFT_REGIONS`, one row each.

    Returns a table with `name`, bounds in degrees (`lat_min`, `lat_max`, `lon_min`, `lon_max`), `title`, `continent`,
    `climate_note`, `source`, and `adjacent`, the regions that share an edge. `to_pandas()` gives a data frame.

    >>> import rainshift
    >>> found = rainshift.regions()
    >>> len(found), dict(zip(found["name"], found["lat_max"]))["europe_west"]
    (18, 60.0)
    """
    from rainshift.places.regions import as_rows

    return DataTable(as_rows())


def open(
    region: str, split: str | None = None, *, data: str = "synthetic", cache: str = "runs/cache", **options: Any
) -> xr.DataTree:
    """The prepared data of one region, prepared now where it is not yet.

    Args:
        region: a region, or an event of the data.
        split: "train", "validation" or "test"; None for all that the first store of the data holds.
        data: a configuration of the group `data` (`synthetic`, `gridded`, …); `options` change its settings.
        cache: where prepared data, trainings and scores are kept.

    Returns a tree of lazy data sets: `condition` (time, lat, lon on the coarse grid), `target` with `precipitation` in
    mm/h, and `static` where there is any. Raises `UserError` for unknown names, `DataError` for data that cannot be
    read.

    >>> import rainshift, tempfile
    >>> hours = {"test": {"start": "2022-01-01", "end": "2022-02-01", "hours": 24}}
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     tree = rainshift.open("melanesia", "test", size_deg=1, splits_at=hours, cache=cache)
    ...     dict(tree["target"].sizes)
    {'time': 24, 'lat': 10, 'lon': 10}
    """
    import xarray as xr

    from geoml.cli.compose import compose
    from geoml.cli.words import words_of
    from rainshift.data.archive import ROLES, archive_of

    words = [
        f"data={data}",
        *words_of({f"data.{key}": value for key, value in options.items()}),
        *words_of({"cache": cache}),
    ]
    archive = archive_of(compose("rainshift.conf", "prepare", words))
    store, rows = split or archive.splits[0], None
    if split in ROLES and split not in archive.splits:
        archive.prepare(region, archive.splits[0])
        store, rows = archive.samples(region, split)
    archive.prepare(region, store)
    groups = archive.open(region, store)
    if rows is not None:
        groups = {name: part.isel(time=rows) if "time" in part.dims else part for name, part in groups.items()}
    return xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})


def train(
    model: str | Mapping[str, Any] = "unet",
    *,
    regions: str | Sequence[str],
    samples: int | None = None,
    data: str = "synthetic",
    seed: int = 0,
    run: str | os.PathLike[str] | None = None,
    cache: str = "runs/cache",
    **settings: Any,
) -> Model:
    """Train one model on one or several regions; the run folder keeps it, and the same call finds it again.

    Args:
        model: a name of the group `model`, or a mapping that changes its settings:
            `{"model": "unet", "network": {"base": 8}}`.
        regions: names of the data's regions or events.
        samples: samples that the training sees in all; None for the trainer's own number.
        data: a configuration of the group `data`.
        seed: of initial weights, order and noise.
        run: the run folder; None for one under `runs/train` that is named by the settings.
        cache: where prepared data are kept.
        settings: any key of `rainshift train` as a Python value, dots as double underscores: `data__size_deg=4`.

    Returns the trained model. Raises `UserError` for unknown names and settings, `DataError` for data that cannot be
    read, `Diverged` where the training left the finite numbers.

    >>> import rainshift, tempfile
    >>> hours = {part: {"start": "2021-01-01", "end": "2022-01-01", "hours": 24} for part in ("train", "validation")}
    >>> hours["test"] = {"start": "2022-01-01", "end": "2023-01-01", "hours": 24}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = rainshift.train(
    ...         {"model": "unet", "network": {"base": 4, "multipliers": [1]}}, regions="melanesia", samples=16,
    ...         run=f"{folder}/run", cache=folder, data__size_deg=1, data__splits_at=hours, data__condition=["tp"],
    ...         data__static=[], loader__patch=0, loader__validation_samples=2,
    ...     )
    >>> model
    <rainshift.Model unet: tp -> precipitation, 0.25° -> 0.1°>
    """
    from geoml.cli.words import preset_words, run_verb
    from rainshift.__main__ import APP

    names = [regions] if isinstance(regions, str) else list(regions)
    values: dict[str, Any] = {"train_regions": names, "seed": seed, "cache": cache}
    values |= {} if samples is None else {"trainer.samples": samples}
    values |= {} if run is None else {"run.dir": str(run)}
    return load(run_verb(APP, "train", [f"data={data}", *preset_words("model", model)], values | settings))


def load(
    run: str | os.PathLike[str],
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    allow: Sequence[str] = (),
) -> Model:
    """A trained model of a run folder or checkpoint folder, or an interpolation by its name.

    Args:
        run: the folder that `rainshift train` or `rainshift.train` left, a checkpoint folder, or the name of a model
            that learns nothing, such as "bilinear".
        precision: of the network's forward passes; "bf16" is quicker where processor or GPU calculates in it.
        allow: packages of your own whose models may be built.

    Raises `UserError` where there is no such run, `DataError` for a checkpoint that is not whole.

    >>> import rainshift
    >>> rainshift.load("bilinear")
    <rainshift.Model bilinear: tp -> precipitation>
    """
    from rainshift.trained import load_model

    return Model(load_model(run, precision=precision, allow=tuple(allow)))


@dataclass(frozen=True)
class Model:
    """A trained model with its transforms: what `rainshift.load` and `rainshift.train` return.

    Attributes:
        trained: its parts: the downscaler, its channels and the geometry that it was trained on.
    """

    trained: Trained

    def __repr__(self) -> str:
        return f"<rainshift.Model {self.trained.label}>"

    @property
    def condition(self) -> tuple[str, ...]:
        """Names of the coarse predictors."""
        return self.trained.channels.condition

    @property
    def static(self) -> tuple[str, ...]:
        """Names of the fine static fields."""
        return self.trained.channels.static

    def predict(
        self,
        dataset: xr.Dataset | xr.DataArray | xr.DataTree,
        *,
        members: int = 8,
        seed: int = 0,
        static: xr.Dataset | None = None,
        target: Grid | xr.Dataset | xr.DataArray | None = None,
        conservation: Conservation = "auto",
        trust: bool = True,
        tiles: Mapping[str, int] | None = None,
    ) -> xr.Dataset:
        """An ensemble of fine rain from coarse fields; no fine truth is needed.

        Args:
            dataset: the predictors, `(time, lat, lon)` or `(lat, lon)`, on any even latitude–longitude grid of the
                spacing of the training: either order of latitudes, any longitude convention, across the date line or
                around the globe, CF names. Units are converted (`attrs["units"]`). A node of `rainshift.open`'s tree
                brings its static fields and fine grid with it.
            members: how many to draw; a deterministic model gives one.
            seed: of the members: a time has the same members whatever else is predicted with it.
            static: the model's static fields, where `dataset` does not hold them, on any grid that covers the fine one.
            target: the fine grid, where it is not that of the training relative to the coarse one.
            conservation: a layer that keeps the means of the coarse rain: "additive", "multiplicative", "softmax" or
                None; "auto" is multiplicative where the model was trained on exact means, else None.
            trust: whether to add the maps of expected error that `rainshift trust` learned, where it did.
            tiles: `{"tile": 240, "blend": 8, "halo": 32, "limit": 320}`: fine domains of more than `limit` cells a side
                are predicted in tiles of `tile`, to the same fields up to rounding.

        Returns `precipitation` in mm/h on `(member, [time,] lat, lon)`, on the axes of the data refined; lazy where
        the data are Dask arrays, a block of times a task. Raises `DataError` for predictors that are missing, in wrong
        units or unknown where the model needs them, `UserError` for another factor than that of the training.

        >>> import geoml, numpy as np, rainshift, xarray as xr
        >>> coarse = xr.DataArray(
        ...     np.ones((4, 6)), {"lat": 50 - 0.25 * np.arange(4), "lon": 0.25 * np.arange(6)}, ("lat", "lon"),
        ...     name="tp", attrs={"units": "mm h-1"},
        ... )
        >>> fine = rainshift.load("bilinear").predict(coarse, target=geoml.Grid.latlon(49.15, 50.15, 0, 1, 0.1))
        >>> dict(fine.sizes), fine["precipitation"].attrs["units"]
        ({'member': 1, 'lat': 10, 'lon': 10}, 'mm h-1')
        """
        from rainshift.prediction import predict_fields

        fine_rain, fields = self.trained.prepared(
            dataset,
            members=members,
            seed=seed,
            static=static,
            target=target,
            conservation=conservation,
            trust=trust,
            tiles=tiles,
        )
        return predict_fields(fine_rain, fields, attrs=self.trained.attrs)


def evaluate(
    prediction: xr.Dataset | xr.DataArray | xr.DataTree,
    truth: xr.Dataset | xr.DataArray | xr.DataTree,
    *,
    metrics: str | Sequence[str] | Mapping[str, Any] = "default",
    reference: xr.Dataset | xr.DataArray | None = None,
    over: str | Sequence[str] | None = None,
) -> xr.Dataset:
    """Scores of a prediction against the truth, cells weighted by area; truth that is NaN does not count.

    Args:
        prediction: rain with a unit, `([member,] time, lat, lon)`; any usual names of variable, member and time.
        truth: rain with a unit on the same fine cells; it may hold more times and cells than the prediction.
        metrics: names of `geoml.scores`, or a list that is kept in a file: "default", "scorecard", "sequences".
        reference: another prediction of the same times; `skill` is then 1 − CRPS / CRPS of the reference, both fair.
        over: dims to average over, all unless named.

    Returns a data set with a variable for each score, which says its `units`, `perfect` value and `direction`.
    Raises `DataError` where the grids differ, predicted times are not in the truth, or units are none of rain.

    >>> import numpy as np, rainshift, xarray as xr
    >>> lat, lon = 40.05 + 0.1 * np.arange(5), 5.05 + 0.1 * np.arange(5)
    >>> truth = xr.DataArray(np.ones((5, 5)), {"lat": lat, "lon": lon}, ("lat", "lon"), name="precipitation")
    >>> truth.attrs["units"] = "mm h-1"
    >>> scores = rainshift.evaluate((truth * 1.5).assign_attrs(truth.attrs), truth, metrics=["mae", "mean_ratio"])
    >>> {name: round(float(value), 3) for name, value in scores.items()}
    {'mae': 0.5, 'mean_ratio': 1.5}
    """
    from rainshift.evaluation import evaluate_fields

    return evaluate_fields(prediction, truth, metrics=metrics, reference=reference, over=over)


def benchmark(*overrides: str, **settings: Any) -> xr.Dataset:
    """Train and score models in and out of distribution; the results of a benchmark as one data set.

    Args:
        overrides: words of the command line `rainshift benchmark`: `"experiment=demo"`.
        settings: its keys as Python values, dots as double underscores: `seeds=3, trainer__samples=1000`.

    The run folder is `runs/benchmark/…` as on the command line, with page and figures. Finished cells are taken from
    the cache. The variables are described in `rainshift.benchmarking.analysis.analyse`. Raises `UserError` for unknown
    names and settings, `DataError` for data that cannot be read.

    >>> import rainshift
    >>> results = rainshift.benchmark("experiment=demo", seeds=3)  # doctest: +SKIP
    >>> results["skill"].sel(model="edm", distribution="out")  # doctest: +SKIP
    """
    from geoml.cli.words import run_verb
    from geoml.data.netcdf import read_dataset
    from rainshift.__main__ import APP
    from rainshift.report.markdown import RESULTS

    return read_dataset(run_verb(APP, "benchmark", overrides, settings) / RESULTS).load()

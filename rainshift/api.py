"""The Python API of RainShift: xarray in, xarray out. The command line calls the same functions."""

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
    """List the regions of the RainShift protocol and of the folders in `RAINSHIFT_REGIONS`, one row per region.

    Returns a table with `name`, bounds in degrees (`lat_min`, `lat_max`, `lon_min`, `lon_max`), `title`, `continent`,
    `climate_note`, `source`, and `adjacent`, the regions that share an edge. `to_pandas()` returns a data frame.

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
    """Open the prepared data of one region. Prepares the data first if necessary.

    Args:
        region: name of a region or of an event.
        split: "train", "validation" or "test"; None for all times of the first store.
        data: name of a configuration of the group `data` (`synthetic`, `gridded`, …).
        options: settings of this configuration to change.
        cache: folder of prepared data, trainings and scores.

    Returns a tree of lazy data sets: `condition` with the predictors `(time, lat, lon)` on the coarse grid, `target`
    with `precipitation` in mm/h on the fine grid, and `static` if there are static fields. Raises `UserError` for
    unknown names, `DataError` for data that cannot be read.

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
    """Train one model on one or several regions. Repeating the call loads the result from the run folder.

    Args:
        model: a name of the group `model`, or a mapping that changes its settings:
            `{"model": "unet", "network": {"base": 8}}`.
        regions: names of the data's regions or events.
        samples: total number of training samples; None for the trainer's default.
        data: a configuration of the group `data`.
        seed: seed of initial weights, sample order and noise.
        run: the run folder; None for a folder under `runs/train` that is named by the settings.
        cache: folder of prepared data.
        settings: any key of `rainshift train` as a Python value, with double underscores for dots:
            `data__size_deg=4`.

    Returns the trained model. Raises `UserError` for unknown names and settings, `DataError` for data that cannot be
    read, `Diverged` if the loss is not finite.

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
    """Load a trained model from a run folder or checkpoint folder, or an interpolation method by name.

    Args:
        run: the run folder of `rainshift train` or `rainshift.train`, a checkpoint folder, or the name of a model
            without training, such as "bilinear".
        precision: precision of the network's forward passes; "bf16" is faster on hardware that supports it.
        allow: names of user packages whose models may be built.

    Raises `UserError` if there is no such run, `DataError` for an incomplete or corrupted checkpoint.

    >>> import rainshift
    >>> rainshift.load("bilinear")
    <rainshift.Model bilinear: tp -> precipitation>
    """
    from rainshift.trained import load_model

    return Model(load_model(run, precision=precision, allow=tuple(allow)))


@dataclass(frozen=True)
class Model:
    """A trained model with its transforms, as returned by `rainshift.load` and `rainshift.train`.

    Attributes:
        trained: the downscaler, its channels, and the grids of the training.
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
        observations: str | os.PathLike[str] | None = None,
        observation_error: Mapping[str, float] | None = None,
        coarse: Literal["exact"] | None = None,
    ) -> xr.Dataset:
        """Predict an ensemble of fine rain from coarse fields; no fine truth is required.

        Args:
            dataset: the predictors, `(time, lat, lon)` or `(lat, lon)`, with CF names, on a regular latitude–longitude
                grid with the spacing of the training. Latitudes may ascend or descend; longitudes may use any
                convention, cross the date line or cover the globe. Units are converted (`attrs["units"]`). The node
                `tree["condition"]` of `rainshift.open` also provides static fields and the fine grid.
            members: number of members; a deterministic model gives one.
            seed: random seed. The members at one time do not depend on the other times.
            static: the model's static fields if `dataset` does not have them, on any grid that covers the fine grid.
            target: the fine grid; by default the coarse grid, refined by the factor and offset of the training.
            conservation: layer that conserves the area means of the coarse rain: "additive", "multiplicative",
                "softmax" or None. "auto" means "multiplicative" if the coarse rain of the training was the exact mean
                of the fine rain or `coarse` is "exact", else None.
            trust: whether to add the trust map, if `rainshift trust` fitted one.
            tiles: sizes in fine cells, such as `{"tile": 240, "blend": 8, "halo": 32, "limit": 320}`. A domain with a
                side above `limit` is predicted in tiles of side `tile`. The result is the same up to rounding.
            observations: path of a CSV or NetCDF file of stations, in a format of `data.stations`. A diffusion model
                then draws members conditioned on the station values. A station observes the fine cell that contains
                it.
            observation_error: standard error of an observation, such as `{"share": 0.3, "least": 0.1}`: `share` times
                the observed rate, at least `least` in mm/h.
            coarse: "exact" declares that the coarse rain is the area mean of the fine rain, for example because it was
                averaged from it. It is an input of the general models; by default they expect an analysis with errors.

        Returns `precipitation` in mm/h, `(member, [time,] lat, lon)`, on the fine grid. The result is lazy if the data
        are Dask arrays, with one task per block of times. Raises `DataError` if required predictors are missing or
        have wrong units or missing values, and if stations lie outside the domain or have other times. Raises
        `UserError` if the refinement factor differs from the training, and for observations without a diffusion model.

        >>> import geoml, numpy as np, rainshift, xarray as xr
        >>> coarse = xr.DataArray(
        ...     np.ones((4, 6)), {"lat": 50 - 0.25 * np.arange(4), "lon": 0.25 * np.arange(6)}, ("lat", "lon"),
        ...     name="tp", attrs={"units": "mm h-1"},
        ... )
        >>> fine = rainshift.load("bilinear").predict(coarse, target=geoml.Grid.latlon(49.15, 50.15, 0, 1, 0.1))
        >>> dict(fine.sizes), fine["precipitation"].attrs["units"]
        ({'member': 1, 'lat': 10, 'lon': 10}, 'mm h-1')
        """
        from rainshift.data.observations import readings_of
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
            observations=readings_of(observations, observation_error),
            coarse=coarse,
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
    """Score a prediction against the truth. Cells are weighted by area; cells with a NaN truth are excluded.

    Args:
        prediction: rain with units, `([member,] time, lat, lon)`. Other common names of the variable and of the
            dimensions member and time are recognised.
        truth: rain with units on the same fine cells; it may have more times and cells than the prediction.
        metrics: names of `geoml.scores`, or a predefined list: "default", "scorecard", "sequences".
        reference: another prediction of the same times; adds `skill` = 1 − CRPS / CRPS of the reference, both fair.
        over: dimensions to average over; by default all.

    Returns a data set with one variable per score, with attributes `units`, `perfect` (best value) and `direction`.
    Raises `DataError` if the grids differ, predicted times are not in the truth, or units are not those of rain.

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
    """Train and score models in and out of distribution. Returns all results as one data set.

    Args:
        overrides: arguments of the command line `rainshift benchmark`: `"experiment=demo"`.
        settings: keys of `rainshift benchmark` as Python values, with double underscores for dots:
            `seeds=3, trainer__samples=1000`.

    The HTML page and the figures are written to the run folder, `runs/benchmark/…`, as on the command line. Finished
    trainings and scores are read from the cache. `rainshift.benchmarking.analysis.analyse` describes the variables.
    Raises `UserError` for unknown names and settings, `DataError` for data that cannot be read.

    >>> import rainshift
    >>> results = rainshift.benchmark("experiment=demo", seeds=3)  # doctest: +SKIP
    >>> results["skill"].sel(model="edm", distribution="out")  # doctest: +SKIP
    """
    from geoml.cli.words import run_verb
    from geoml.data.netcdf import read_dataset
    from rainshift.__main__ import APP
    from rainshift.report.html import RESULTS

    return read_dataset(run_verb(APP, "benchmark", overrides, settings) / RESULTS).load()

"""Radio maps from Python: the functions behind the command line, on scenes and xarray objects.

Lengths are metres in the scene's frame (x east, y north, z up), frequencies Hz, powers dBm, angles radians.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geoml.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray

    from geoml.grids.grid import Grid
    from radiomaps.antennas.sites import RadioCell
    from radiomaps.maps.layout import Transmitter
    from radiomaps.scenes import Scene
    from radiomaps.trained import Trained

    SceneLike = Scene | str | os.PathLike[str] | Mapping[str, Any]
    Transmitters = Sequence[Transmitter | RadioCell | Sequence[float]] | str | os.PathLike[str]

__all__ = ["Model", "benchmark", "evaluate", "load", "load_scene", "open", "paths", "trace", "train"]

SOLVERS = ("sionna", "dominant")


def load_scene(scene: str | os.PathLike[str] | Mapping[str, Any], **options: Any) -> Scene:
    """Load a scene by its name or file.

    Args:
        scene: a name (`"procedural-3"`, or one of Sionna's cities such as `"munich"`), the path of a `.geojson`,
            `.osm`, `.tif`, `.xml` or `.ply` file, or a mapping with `name` or `path` and options.
        options: options of the reader, such as `default_height_m=9` for footprints without a height.

    Returns a `Scene`: meshes in local metres, footprints, licence, `extent`, `grid(step_m, heights_m)`. Raises
    `UserError` for unknown names and options, `DataError` for files that cannot be read.

    >>> import radiomaps
    >>> scene = radiomaps.load_scene("procedural-0")
    >>> len(scene.buildings), scene.grid(4.0, (1.5, 10.5, 3.0)).shape
    (19, (4, 64, 64))
    """
    from radiomaps.scenes import load

    if options:
        named = dict(scene) if isinstance(scene, Mapping) else {"path" if Path(scene).suffix else "name": scene}
        return load({**named, **options})
    return load(scene)


def trace(
    scene: SceneLike,
    transmitters: Transmitters,
    grid: Grid,
    *,
    solver: Literal["sionna", "dominant"] = "sionna",
    frequencies_hz: Sequence[float] = (),
    **options: Any,
) -> xr.Dataset:
    """Compute radio maps of transmitters in a scene.

    Args:
        scene: a `Scene`, or an argument of `load_scene`.
        transmitters: `Transmitter` objects, positions x, y, z, or a sites file.
        grid: axes z, y, x in the scene's metres, such as `scene.grid(…)`.
        solver: "sionna" (ray tracing with reflection, diffraction and scattering) or "dominant" (the strongest path
            only, without ray tracing).
        frequencies_hz: carriers, whose maps are concatenated along `tx`; none: `frequency_hz` of the options, 5.9 GHz.
        options: options of the solver: `rays`, `depth`, `diffraction`, `frequency_hz`, …

    Returns a Dataset on `(tx, z, y, x)` of `path_gain_db` (dB), `toa_s` (s), `doa_azimuth` and `doa_zenith` (rad),
    spreads (solver "sionna") and the masks `los`, `no_path`, `building`; fields are NaN where no path arrives. Raises
    `UserError` for a grid outside the scene, a transmitter inside a building and unknown options.

    >>> import radiomaps
    >>> scene = radiomaps.load_scene("procedural-0")
    >>> grid = radiomaps.Grid.box({"z": 1, "y": 96, "x": 96}, {"z": 5, "y": 160, "x": 160}, {"z": 4, "y": 8, "x": 8})
    >>> maps = radiomaps.trace(scene, [(60.0, 100.0, 40.0)], grid, solver="dominant")
    >>> maps["path_gain_db"].dims, maps["path_gain_db"].attrs["units"]
    (('tx', 'z', 'y', 'x'), 'dB')
    """
    from radiomaps.generation.plan import run_solver

    if solver not in SOLVERS:
        raise unknown("solver", solver, SOLVERS)
    scene = _scene(scene)
    sites = _transmitters(transmitters, scene)
    if not frequencies_hz:
        return run_solver(solver, scene, sites, grid, options)
    import xarray as xr

    parts = [run_solver(solver, scene, sites, grid, {**options, "frequency_hz": hz}) for hz in frequencies_hz]
    sweep = xr.concat(parts, "tx", data_vars="minimal", coords="minimal", compat="override", join="exact")
    return sweep.assign_attrs({**parts[0].attrs, "frequency_hz": list(map(float, frequencies_hz))})


def paths(
    scene: SceneLike,
    transmitters: Transmitters,
    points: NDArray[np.float64] | Sequence[Sequence[float]],
    *,
    velocities: NDArray[np.float64] | Sequence[Sequence[float]] | None = None,
    rays: int = 100_000,
    top: int = 16,
    **options: Any,
) -> xr.Dataset:
    """Exact propagation paths from transmitters to receivers.

    Args:
        scene: a `Scene`, or an argument of `load_scene`.
        transmitters: `Transmitter` objects, positions x, y, z, or a sites file.
        points: positions of receivers, `(n, 3)` in metres.
        velocities: velocities of the receivers, `(n, 3)` in m/s, for Doppler shifts.
        rays: number of rays that discover chains of surfaces.
        top: number of strongest paths stored per pair.
        options: options of the tracer: `frequency_hz`, `depth`, `diffraction`, …

    Returns a Dataset on `(tx, rx, path)`, sorted by power and padded with NaN: `gain_db`, `delay_s`, angles of arrival
    and departure, `doppler_hz`, `bounces`, complex amplitudes by `polarisation`. Raises `UserError` for receivers that
    are not of shape `(n, 3)`, a transmitter inside a building, and a machine on which Sionna RT cannot run.

    >>> import radiomaps
    >>> table = radiomaps.paths("etoile", [(0, 0, 30)], [[50, 20, 1.5]])  # doctest: +SKIP
    >>> float(table["delay_s"][0, 0, 0])  # doctest: +SKIP
    2.04e-07
    """
    import numpy as np

    from radiomaps.raytrace import TraceOptions, find_paths

    known = TraceOptions.__dataclass_fields__
    for key in options:
        if key not in known:
            raise unknown("option of the tracer", key, known)
    place = _scene(scene)
    moving = None if velocities is None else np.asarray(velocities, np.float64)
    return find_paths(
        place, _transmitters(transmitters, place), np.asarray(points, np.float64), TraceOptions(**options), rays=rays,
        top=top, velocities=moving,
    )  # fmt: skip


def open(store: str | os.PathLike[str]) -> xr.Dataset:
    """Open the maps of a store that `radiomaps trace` or `radiomaps import` wrote.

    Returns a lazy Dataset on `(scene, tx, z, y, x)` with the variables of `trace`. `x` and `y` are in the scene's
    metres. If several scenes have windows at different positions, `x` and `y` start at the corner of each window, and
    `origin_x` and `origin_y` are the position of the corner in the scene. Raises `DataError` for a folder that is not a
    complete store.

    >>> import radiomaps
    >>> maps = radiomaps.open("runs/trace/etoile/maps.zarr")  # doctest: +SKIP
    >>> maps["path_gain_db"].sel(scene="etoile").max()  # doctest: +SKIP
    """
    from radiomaps.maps.store import open_maps

    return open_maps(store)


def load(
    run: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    allow: Sequence[str] = (),
) -> Model:
    """Load the trained model of a run folder or checkpoint folder.

    Args:
        run: the run folder of `radiomaps train` or `radiomaps.train`, a checkpoint folder, or "general", the weights
            that come with the package.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        precision: precision of the network's forward passes; "bf16" is faster on hardware that supports it.
        allow: names of other packages whose models may be built.

    Raises `UserError` for a run that does not exist, `DataError` for a checkpoint that is damaged or incomplete.

    >>> import radiomaps
    >>> radiomaps.load("benchmarks/weights/radiodiff/aware-radiodiff3d")  # doctest: +SKIP
    <radiomaps.Model RadioDiff3D: path_gain_db, toa_s, doa_azimuth, doa_zenith, radiation=aware, prior=dominant>
    """
    from radiomaps.trained import load_trained

    return Model(load_trained(run, device=device, precision=precision, allow=tuple(allow)))


@dataclass(frozen=True, repr=False)
class Model:
    """A trained model of radio maps, as returned by `radiomaps.load` and `radiomaps.train`.

    Attributes:
        trained: the network with its task and the grid and split of its training.
    """

    trained: Trained

    def __repr__(self) -> str:
        task = self.trained.task
        prior = f", prior={task.prior}" if task.prior else ""
        name = type(self.trained.model).__name__
        return f"<radiomaps.Model {name}: {', '.join(task.targets)}, radiation={task.radiation}{prior}>"

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the predicted variables."""
        return self.trained.task.targets

    def predict(
        self,
        scene: SceneLike,
        transmitters: Transmitters = (),
        grid: Grid | None = None,
        *,
        members: int = 8,
        seed: int = 0,
        frequency_hz: float = 5.9e9,
        observed: xr.Dataset | None = None,
        tiles: Mapping[str, int] | None = None,
        **sampling: Any,
    ) -> xr.Dataset:
        """Predict maps of transmitters in a scene, with the spread of the members as uncertainty.

        Args:
            scene: a `Scene`, or an argument of `load_scene`.
            transmitters: `Transmitter` objects, or positions x, y, z; none for a model that uses observations only.
            grid: axes z, y, x in the scene's metres. None: 256 m around the scene's middle (less in a smaller scene),
                with the steps and heights of the training. Other steps are predicted with a warning.
            members: number of members; a deterministic model has one.
            seed: seed of the members. Those of a transmitter do not depend on what else is predicted.
            frequency_hz: carrier frequency.
            observed: observations for a model that uses them: its targets in dB, s and rad, on `(z, y, x)` with NaN
                where nothing was observed, or along one dimension of points with coordinates `x`, `y`, `z`. With a
                dimension `tx`, one set for each transmitter.
            tiles: `{"tile": 192, "blend": 8, "halo": 32, "limit": 256}`: grids of more than `limit` voxels along an
                axis are predicted in overlapping tiles.
            sampling: options of a diffusion model: `steps`, `sampler`, `guidance`, `keep`.

        Returns each target on `(tx, member, z, y, x)`, its `NAME_mean` and `NAME_uncertainty` (standard deviation) on
        `(tx, z, y, x)`, NaN in buildings, and `building`. Raises `UserError` for a grid outside the scene, a
        transmitter inside a building, and observations that are missing or that the model does not use.

        >>> import radiomaps
        >>> model = radiomaps.load("runs/model")  # doctest: +SKIP
        >>> maps = model.predict("city.geojson", [(10, 20, 30)], members=8)  # doctest: +SKIP
        >>> maps["path_gain_db_uncertainty"].max()  # doctest: +SKIP
        """
        import xarray as xr

        from radiomaps.prediction import predicted_scene, training_grid

        trained = self.trained.tiled(tiles).sampled_by(**sampling)
        place = _scene(scene)
        grid = training_grid(trained, place) if grid is None else grid
        sites = _transmitters(transmitters, place)
        if not sites:
            if trained.task.knows_transmitter:
                raise UserError("this model needs transmitters: give x, y, z of one at least")
            lower, upper = place.extent
            middle = [(low + high) / 2 for low, high in zip(lower[:2], upper[:2], strict=True)]
            sites = _transmitters([(*middle, upper[2])], place)
        maps = [
            made
            for _, made in predicted_scene(
                trained, place, sites, grid, members=members, seed=seed, frequency_hz=frequency_hz, observed=observed
            )
        ]
        alone = [one.drop_vars(("building", *_SITE)) for one in maps]
        joined = xr.concat(alone, "tx", data_vars="all", coords="minimal", compat="override", join="exact")
        joined["building"] = maps[0]["building"].drop_vars(_SITE)
        names = [site.name or f"tx{number}" for number, site in enumerate(sites)]
        fixed = {name: ("tx", [float(one[name]) for one in maps], maps[0][name].attrs) for name in _SITE}
        return joined.assign_coords({"tx": names, **fixed}).transpose("tx", "member", "z", "y", "x")


_SITE = ("tx_x", "tx_y", "tx_z", "frequency_hz")


def evaluate(maps: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Scores of predicted maps against the truth, over the outdoor voxels that a path reaches.

    Args:
        maps: variables on `(tx, [member,] z, y, x)` in dB, s and rad, as returned by `Model.predict` or `trace`.
        truth: the same variables and transmitters on the same voxels, as returned by `trace`, or by `open` with one
            `scene` selected.

    Returns `rmse`, `mae`, `bias`, `within` (the share within 3 dB, 10 ns or 10°), `crps_fair`, and for several members
    `spread`, `spread_skill` and rank scores, on `(target, voxels)` in the `unit` of the target: dB, ns or °. `voxels`
    are "all", "los" and "nlos" (if the truth has line of sight), and each height. Raises `DataError` if grids or
    transmitters differ, or if scored voxels have no prediction.

    >>> import radiomaps
    >>> grid = radiomaps.Grid.box({"z": 1, "y": 96, "x": 96}, {"z": 5, "y": 160, "x": 160}, {"z": 4, "y": 8, "x": 8})
    >>> truth = radiomaps.trace("procedural-0", [(60.0, 100.0, 40.0)], grid, solver="dominant")
    >>> scores = radiomaps.evaluate(truth[["path_gain_db"]] + 2.0, truth)
    >>> float(scores["bias"].sel(target="path_gain_db", voxels="all"))
    2.0
    """
    from radiomaps.scores.labelled import evaluate_maps

    return evaluate_maps(maps, truth)


def train(
    model: str | Mapping[str, Any] = "radiodiff3d",
    *,
    store: str | os.PathLike[str],
    task: str | Mapping[str, Any] = "aware",
    samples: int | None = None,
    seed: int = 0,
    run: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Model:
    """Train one model on the maps of a store. The same call loads a finished training from its run folder.

    Args:
        model: a name of the group `model` ("radiodiff3d", "unet3d"), or a mapping with changed settings:
            `{"model": "unet3d", "loss": "l1"}`.
        store: maps that `radiomaps trace` or `radiomaps import` wrote.
        task: a name of the group `task`, or a mapping: `{"task": "aware", "prior": "dominant"}`.
        samples: total number of training samples; None for the trainer's default.
        seed: seed of initial weights, order and noise.
        run: the run folder; None for a folder under `runs/train` named after the settings.
        settings: any key of `radiomaps train` as a Python value, dots as double underscores: `loader__batch_size=4`.

    Returns the trained model. Raises `UserError` for unknown names and settings, `DataError` for an incomplete store,
    `Diverged` if the loss is no longer finite.

    >>> import radiomaps
    >>> model = radiomaps.train("unet3d", store="maps.zarr", samples=20_000)  # doctest: +SKIP
    """
    from geoml.cli.words import preset_words, run_verb
    from radiomaps.__main__ import APP

    words = [*preset_words("model", model), *preset_words("task", task)]
    values = {"store": str(store), "seed": seed, "trainer.samples": samples, "run.dir": run, "pictures": 0}
    given = {key: value for key, value in values.items() if value is not None}
    return load(run_verb(APP, "train", words, {**given, **settings}))


def benchmark(*overrides: str, **settings: Any) -> xr.Dataset:
    """Train and score models and baselines on tasks of one store.

    Args:
        overrides: arguments of the command `radiomaps benchmark`: `"experiment=generalisation"`.
        settings: its keys as Python values, dots as double underscores: `store="maps.zarr", models=["idw", "unet3d"]`.

    The run folder is `runs/benchmark/…`, with page and tables; finished cells are read from the cache. Returns all
    scores, such as `nmse`, on `(task, model, split, seed, target, voxels)`, NaN where a model has none. Raises
    `UserError` for unknown names and settings, `DataError` for an incomplete store.

    >>> import radiomaps
    >>> results = radiomaps.benchmark(store="maps.zarr", models=["dominant", "unet3d"])  # doctest: +SKIP
    >>> results["rmse"].sel(target="path_gain_db", voxels="nlos")  # doctest: +SKIP
    """
    from geoml.cli.words import run_verb
    from geoml.data.netcdf import read_dataset
    from radiomaps.__main__ import APP

    return read_dataset(run_verb(APP, "benchmark", overrides, settings) / "results.nc").load()


def _scene(scene: SceneLike) -> Scene:
    from radiomaps import scenes

    return scene if isinstance(scene, scenes.Scene) else scenes.load(scene)


def _transmitters(transmitters: Transmitters, scene: Scene) -> list[Transmitter]:
    """Transmitters from positions, cells or a sites file."""
    from radiomaps.antennas.sites import RadioCell, cells_of
    from radiomaps.maps.layout import Transmitter

    if isinstance(transmitters, str | os.PathLike) or any(isinstance(t, RadioCell) for t in transmitters):
        return [cell.transmitter(scene) for cell in cells_of(transmitters)]
    return [t if isinstance(t, Transmitter) else Transmitter(tuple(t)) for t in transmitters]  # type: ignore[arg-type]

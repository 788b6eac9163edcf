"""Predict prepared regions or other coarse fields, as xarray or block by block into a CF file."""

from __future__ import annotations

import functools
import hashlib
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoml.cli.progress import track
from geoml.data.writer import CONVENTIONS
from geoml.errors import DataError
from geoml.grids.grid import Grid, grid_of
from geoml.models.predictor import members_of
from geoml.runs.files import atomic_path
from rainshift.data.archive import Archive
from rainshift.data.inputs import CoarseFields
from rainshift.data.observations import MatchedReadings, Readings
from rainshift.data.output_axes import OutputAxes
from rainshift.data.prediction_file import MEMBER_ATTRS, TRUST_MAPS, bound_attrs, define, define_trust
from rainshift.data.selection import choose, hourly, whole_fields
from rainshift.evaluation import window_of
from rainshift.models.fine_rain import FineRain
from rainshift.models.spec import Downscaler
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    from rainshift.models.trust import Trust, TrustMap

__all__ = ["fingerprint", "predict_fields", "predict_maps", "write_fields", "write_prediction"]

logger = logging.getLogger(__name__)

#: File in the folder of blocks that identifies the prediction to which they belong.
IDENTITY = "identity"


def predict_maps(
    downscaler: Downscaler,
    archive: Archive,
    region: str,
    *,
    positions: np.ndarray,
    role: str = "test",
    members: int = 8,
    seed: int = 0,
    trust: Trust | None = None,
    observations: Readings | None = None,
) -> xr.Dataset:
    """Predict some samples of a role in memory: `precipitation` in mm/h, `(member, time, lat, lon)`.

    With `trust`, the result also has the trust map, `(time, lat, lon)`, as in `write_prediction`. With `observations`,
    members are conditioned on them.
    """
    drawn = members_of(downscaler, members)
    grid = grid_of(archive.open(region, archive.samples(region, role)[0])["target"])
    rain = np.empty((drawn, len(positions), *grid.shape), np.float32)
    maps = {name: np.empty(rain.shape[1:], np.float32) for name in (() if trust is None else TRUST_MAPS)}
    seen = _seen(observations, archive, region, role, grid, positions)
    for rows, part, _, said in _batches(downscaler, archive, region, positions, role, drawn, seed, trust, seen):
        rain[:, rows] = part
        for name, values in maps.items():
            values[rows] = getattr(said, name.removeprefix("error_")).numpy()
    coords = {"member": np.arange(drawn), "time": archive.times(region, role, positions), **grid.coords()}
    made = xr.Dataset({name: (("time", *grid.names), values) for name, values in maps.items()}, coords)
    made["precipitation"] = (("member", "time", *grid.names), rain, VARIABLES["precipitation"].attrs)
    made.attrs |= {} if seen is None else seen.attrs
    if trust is not None:
        made["error_bound"].attrs |= bound_attrs(trust)
    return made


def write_prediction(
    path: Path,
    downscaler: Downscaler,
    archive: Archive,
    region: str,
    *,
    role: str = "test",
    samples: int | None = None,
    members: int = 8,
    seed: int = 0,
    attrs: dict[str, Any] | None = None,
    trust: Trust | None = None,
    observations: Readings | None = None,
) -> dict[str, Any]:
    """Predict a region and write a NetCDF file atomically. Returns a table row that describes the file.

    The file is CF-1.11 with `precipitation(member, time, lat, lon)` in mm/h. Only one batch at a time is in memory.
    With `trust`, the file also has `expected_error` of the ensemble mean, `error_bound`, `novelty` and `familiar`, each
    `(time, lat, lon)`. With `observations`, members are conditioned on them, and attributes state which were used.
    """
    positions = choose(archive, region, role, samples)
    drawn = members_of(downscaler, members)
    grid = grid_of(archive.open(region, archive.samples(region, role)[0])["target"])
    clipped = 0.0
    seen = _seen(observations, archive, region, role, grid, positions)
    with atomic_path(path) as partial:
        import netCDF4

        with netCDF4.Dataset(partial, "w") as file:
            places = {axis.name: (axis.coordinates, axis.attrs) for axis in grid.axes}
            coords = {"time": (archive.times(region, role, positions), {}), **places}
            rain = define(file, coords, drawn, {**(attrs or {}), **({} if seen is None else seen.attrs)})
            maps = {} if trust is None else define_trust(file, tuple(coords), trust)
            batches = _batches(downscaler, archive, region, positions, role, drawn, seed, trust, seen)
            for rows, part, share, drawn_map in track(batches, f"predicting {region}", unit="batches"):
                rain[:, rows] = part
                clipped += share * len(rows)
                for name, variable in maps.items():
                    variable[rows] = getattr(drawn_map, name).numpy()
    return {
        "region": region,
        "hours": len(positions),
        "members": drawn,
        "clipped_share": clipped / max(len(positions), 1),
        **({} if seen is None else {"observations": str(seen)}),
        "file": str(path),
    }


def _batches(
    downscaler: Downscaler,
    archive: Archive,
    region: str,
    positions: np.ndarray,
    role: str,
    members: int,
    seed: int,
    trust: Trust | None = None,
    seen: MatchedReadings | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, float, TrustMap | None]]:
    """Yield for each batch: indices into the positions, rain `(member, time, lat, lon)`, clipped share, trust map."""
    window = window_of(downscaler)
    for batch, rows in whole_fields(archive, region, role, positions, window):
        if seen is not None:
            times = archive.times(region, role, positions)[rows].astype("datetime64[ns]")
            times[rows < 0] = np.datetime64("NaT")  # hours of a window that were not requested
            batch = batch.map(points=seen.points(times))
        prediction, share = downscaler.predict(batch, members=members, seed=seed)
        wanted = np.flatnonzero(rows.ravel() >= 0)
        hours = hourly(prediction, window is not None)[wanted, :, 0]
        drawn = None if trust is None else trust(batch, prediction)
        yield rows.ravel()[wanted], hours.numpy().swapaxes(0, 1), share, drawn


def _seen(
    observations: Readings | None, archive: Archive, region: str, role: str, grid: Grid, positions: np.ndarray
) -> MatchedReadings | None:
    """Match observations to the samples of a region. Logs how many are used."""
    if observations is None:
        return None
    made = MatchedReadings.of_archive(observations, archive, region, role, grid, positions)
    logger.warning("%s: %s", region, made)
    return made


def predict_fields(fine_rain: FineRain, fields: CoarseFields, *, attrs: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Predict coarse fields on their refined axes: `precipitation` in mm/h, `(member, [time,] lat, lon)`.

    Dask arrays stay lazy, with one task per block of times; otherwise the result is in memory, and the coarse fields
    are read in blocks. With trust, the result also has the trust map.
    """
    frame = OutputAxes.of(fields, fine_rain.fine)
    blocks = fine_rain.blocks(fields.times)
    if fields.chunks is not None:
        layers: Any = _lazy_layers(fine_rain, fields, blocks)
    else:
        layers = np.empty((fine_rain.layers, len(fields.times), *fine_rain.fine.shape), np.float32)
        for rows in track(blocks, "predicting", unit="blocks"):
            layers[:, rows] = fine_rain(fields.values(rows), fields.times[rows])
    turned = frame.turned(layers)
    coords: dict[str, Any] = {"member": ("member", np.arange(fine_rain.members), MEMBER_ATTRS)}
    coords |= {name: (name, values, about) for name, (values, about) in frame.coords.items()}
    members = fine_rain.members
    seen = {} if fine_rain.observations is None else fine_rain.observations.attrs
    made = xr.Dataset(coords=coords, attrs={"Conventions": CONVENTIONS, **(attrs or {}), **seen})
    made["precipitation"] = (("member", *frame.dims), turned[:members], VARIABLES["precipitation"].attrs)
    for layer, (name, (kind, units, about)) in zip(turned[members:], TRUST_MAPS.items(), strict=False):
        made[name] = (frame.dims, layer.astype(kind), {"units": units, "long_name": about})
    if fine_rain.trust is not None:
        made["error_bound"].attrs |= bound_attrs(fine_rain.trust)
    return made


def write_fields(
    path: Path, fine_rain: FineRain, fields: CoarseFields, *, parts: Path, identity: str, attrs: Mapping[str, Any]
) -> dict[str, Any]:
    """Predict coarse fields and write a NetCDF file block by block. Returns a table row that describes the file.

    Each block of times is saved in the folder `parts`, so an interrupted prediction resumes. `identity` identifies the
    prediction; blocks of another prediction are discarded. The file is written when all blocks exist.
    """
    axes, blocks = OutputAxes.of(fields, fine_rain.fine), fine_rain.blocks(fields.times)
    members = fine_rain.members
    if (seen := fine_rain.observations) is not None:
        logger.warning("%s", seen)
        attrs = {**attrs, **seen.attrs}
    if not (parts / IDENTITY).exists() or (parts / IDENTITY).read_text(encoding="utf-8") != identity:
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        with atomic_path(parts / IDENTITY) as partial:
            partial.write_text(identity, encoding="utf-8")
    kept = [parts / f"{number:08d}.npz" for number in range(len(blocks))]
    if waiting := sum(part.exists() for part in kept):
        logger.info("%d of %d blocks exist already", waiting, len(blocks))
    for rows, part in track(list(zip(blocks, kept, strict=True)), "predicting", unit="blocks"):
        if not part.exists():
            layers = axes.turned(fine_rain(fields.values(rows), fields.times[rows]))
            with atomic_path(part) as partial, open(partial, "wb") as stream:
                np.savez_compressed(stream, layers=layers)
    with atomic_path(path) as partial:
        import netCDF4

        with netCDF4.Dataset(partial, "w") as file:
            rain = define(file, axes.coords, members, attrs)
            trust = {} if fine_rain.trust is None else define_trust(file, axes.dims, fine_rain.trust)
            for rows, part in zip(blocks, kept, strict=True):
                with np.load(part) as stored:
                    layers = stored["layers"]
                place = rows if axes.has_time else slice(None)
                rain[:, place] = layers[:members]
                for variable, layer in zip(trust.values(), layers[members:], strict=True):
                    variable[place] = layer
    shutil.rmtree(parts)
    row = {"times": len(fields.times), "members": members, "grid": fine_rain.fine.shape, "file": str(path)}
    return row if seen is None else row | {"observations": str(seen)}


def fingerprint(*paths: Path) -> str:
    """Return a hash of the names, sizes and modification times of files and folders."""
    rows = []
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if not file.exists():
                raise DataError(f"{file} does not exist")
            if file.name not in (".lock", "log.txt", "environment.json", "report.html"):
                rows.append(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}")
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _lazy_layers(fine_rain: FineRain, fields: CoarseFields, blocks: list[slice]) -> Any:
    """Return the layers as a Dask array with one task per block of times."""
    import dask.array as da

    parts = [array.data * np.float32(factor) for array, factor in zip(
        fields.arrays.values(), fields.factors.values(), strict=True)]  # fmt: skip
    lengths = tuple(rows.stop - rows.start for rows in blocks)
    stack = da.stack(parts).astype(np.float32).rechunk({0: -1, 1: lengths, 2: -1, 3: -1})
    chunks = ((fine_rain.layers,), lengths, *((size,) for size in fine_rain.fine.shape))
    # A partial is used, since Dask searches arguments for arrays and would hash all weights to name the result.
    work = functools.partial(_block, fine_rain, [fields.times[rows] for rows in blocks])
    meta = np.empty((0,) * 4, np.float32)
    return da.map_blocks(work, stack, chunks=chunks, dtype=np.float32, meta=meta, name=f"fine-rain-{uuid.uuid4().hex}")


def _block(
    fine_rain: FineRain, times: list[np.ndarray], condition: np.ndarray, block_id: tuple[int, ...]
) -> np.ndarray:
    return fine_rain(condition, times[block_id[1]])

"""Score a downscaler on a region: complete fields, all known cells, one row of statistics per hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.cli.progress import track
from geoml.data.store import read_dataset, write_netcdf
from geoml.errors import DataError, Diverged
from geoml.grids.grid import grid_of
from geoml.metrics import StatisticsTable, Suite
from geoml.models.predictor import members_of
from rainshift.data.archive import Archive
from rainshift.data.matching import matched
from rainshift.data.selection import FIELDS_AT_A_TIME, choose, hourly, whole_fields
from rainshift.models.spec import Downscaler, outside_share
from rainshift.sequences import SequenceScores
from rainshift.station_scores import PointRain

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from rainshift.data.stations import Stations

__all__ = ["MAX_CLIPPED_SHARE", "Scores", "evaluate_fields", "score", "score_file", "window_of"]

#: Largest share of clipped values. Cells of a benchmark above it are marked as diverged and excluded from means.
MAX_CLIPPED_SHARE = 1e-3
#: Prefix of the variables of sequences in a file of scores.
PREFIX = "sequence_of_"
#: Prefix of the variables of rain at stations.
POINT = "at_stations_"


@dataclass(frozen=True)
class Scores:
    """Statistics of one downscaler on one region, with rows labelled by valid time.

    `sequences`, if requested, has one row per sequence of consecutive hours, labelled by its first hour.
    """

    table: StatisticsTable
    members: int
    clipped_share: float
    sequences: StatisticsTable | None = None
    #: Rain at stations (`rainshift.station_scores.PointRain`); None without stations.
    points: xr.Dataset | None = None
    #: Share of predictor values outside the training range; None for models that do not count them.
    outside_share: float | None = None

    @property
    def diverged(self) -> bool:
        """Whether the share of clipped values exceeds the limit."""
        return self.clipped_share > MAX_CLIPPED_SHARE

    @classmethod
    def joined(cls, parts: Sequence[Scores], suite: Suite, temporal: Suite | None = None) -> Scores:
        """Join the scores of parts of one record with different hours."""
        rows = np.array([len(part.table) for part in parts])
        clipped = float(np.average([part.clipped_share for part in parts], weights=rows))
        sequences = [part.sequences for part in parts if part.sequences is not None]
        over_time = temporal.merge(sequences) if temporal is not None and sequences else None
        table = suite.merge([part.table for part in parts])
        points, shares = _joined_points([part.points for part in parts]), [part.outside_share for part in parts]
        known = [share for share in shares if share is not None]
        outside = float(np.average(known, weights=rows)) if len(known) == len(parts) else None
        return cls(table, parts[0].members, clipped, over_time, points, outside)

    def save(self, path: Path) -> None:
        """Write a NetCDF file atomically."""
        attrs = {"members": self.members, "clipped_share": self.clipped_share}
        attrs |= {} if self.outside_share is None else {"outside_share": self.outside_share}
        data = self.table.to_dataset()
        if self.sequences is not None:
            over_time = self.sequences.to_dataset()
            data = data.merge(over_time.rename({str(name): f"{PREFIX}{name}" for name in over_time.variables}))
        if self.points is not None:
            names = {str(n): f"{POINT}{n}" for n in (*self.points.variables, *self.points.dims)}
            data = data.merge(self.points.rename(names))
        write_netcdf(path, data.assign_attrs(attrs), single=False)

    @classmethod
    def load(cls, path: Path) -> Scores:
        """Read the file that `save` wrote. Raises `DataError` for a corrupted file."""
        data = read_dataset(path).load()
        data.close()
        at = {str(n): str(n).removeprefix(POINT) for n in (*data.variables, *data.dims) if str(n).startswith(POINT)}
        points = data[[name for name in at if name in data.data_vars]].rename(at) if at else None
        data = data.drop_dims([name for name in at if name in data.dims])
        names = {str(name): str(name).removeprefix(PREFIX) for name in data.variables if str(name).startswith(PREFIX)}
        over_time = StatisticsTable.from_dataset(data[list(names)].rename(names)) if names else None
        table = StatisticsTable.from_dataset(data.drop_vars(names))
        members, clipped, outside = (data.attrs.get(name) for name in ("members", "clipped_share", "outside_share"))
        share = None if outside is None else float(outside)
        return cls(table, int(members), float(clipped), over_time, points, share)  # type: ignore[arg-type]


def _joined_points(parts: Sequence[xr.Dataset | None]) -> xr.Dataset | None:
    import xarray as xr

    found = [part for part in parts if part is not None]
    return xr.concat(found, "time").sortby("time") if len(found) == len(parts) and found else None


def window_of(downscaler: Downscaler) -> int | None:
    """Number of consecutive hours in one input of the model; None for single hours."""
    return getattr(downscaler, "window", None)


def score(
    downscaler: Downscaler,
    archive: Archive,
    region: str,
    *,
    suite: Suite,
    members: int = 8,
    samples: int | None = None,
    times: NDArray[np.datetime64] | None = None,
    role: str = "test",
    seed: int = 0,
    temporal: Suite | None = None,
    sequence_hours: int = 24,
    stations: Stations | None = None,
) -> Scores:
    """Score the predictions of complete fields of a region. Cells are weighted by area; unknown cells are excluded.

    Scores `samples` evenly spaced hours, or the hours `times`, or all hours if both are None. `temporal` contains
    metrics for sequences of `sequence_hours` consecutive hours. With `stations`, rain at stations is stored as well.
    Raises `Diverged` if a prediction is not finite.
    """
    positions = choose(archive, region, role, samples)
    if times is not None:
        positions = np.flatnonzero(np.isin(archive.times(region, role), times))
    valid_times = archive.times(region, role, positions)
    grid = grid_of(archive.open(region, archive.samples(region, role)[0])["target"])
    weights, points = grid.cell_weights(full=False), None if stations is None else PointRain(stations, grid)
    drawn, window = members_of(downscaler, members), window_of(downscaler)
    over_time = None if temporal is None else SequenceScores(temporal, valid_times, sequence_hours, weights)
    tables, clipped, items = [], 0.0, 0
    outside: float | None = 0.0
    outside_share(downscaler)  # resets the count of earlier predictions
    batches = whole_fields(archive, region, role, positions, window)
    for batch, rows in track(batches, f"scoring {region}", unit="batches"):
        prediction, share = downscaler.predict(batch, members=drawn, seed=seed)
        assert batch.target is not None
        if not bool(prediction.isfinite().all()):
            raise Diverged(f"the prediction of {region} is not finite at {valid_times[rows.max()]}")
        hours, windowed = rows.ravel(), window is not None
        wanted = np.flatnonzero(hours >= 0)
        hours = hours[wanted]
        rain, truth = (hourly(fields, windowed)[wanted].numpy() for fields in (prediction, batch.target))
        known = np.ones(truth.shape, bool) if batch.mask is None else hourly(batch.mask, windowed)[wanted].numpy()
        fields = rain[:, :, 0], truth[:, 0]
        tables.append(suite.update(*fields, ids=valid_times[hours], mask=known[:, 0], weights=weights))
        if over_time is not None:
            over_time.add(hours, *fields, known[:, 0])
        if points is not None:
            points.add(valid_times[hours], fields[0], np.where(known[:, 0], fields[1], np.nan))
        clipped, items = clipped + share * len(batch), items + len(batch)
        beyond = outside_share(downscaler)
        outside = None if beyond is None or outside is None else outside + beyond * len(batch)
    sequences = None if over_time is None else over_time.table()
    at_points = None if points is None else points.data_set()
    beyond = None if outside is None else outside / max(items, 1)
    return Scores(suite.merge(tables), drawn, clipped / max(items, 1), sequences, at_points, beyond)


def score_file(
    path: Path, archive: Archive, region: str, *, suite: Suite, role: str = "test", stations: Stations | None = None
) -> Scores:
    """Score a prediction file: rain with units, `([member,] time, lat, lon)`, on the fine grid.

    The dimensions of times and members may have any common name (`valid_time`, `number`, `realization`, …). Raises
    `DataError` for times that the role does not have, or for a different grid.
    """
    known = archive.times(region, role)
    truth = archive.open(region, archive.samples(region, role)[0])["target"]["precipitation"].sel(time=known)
    rain, truth = matched(read_dataset(path), truth, what=(str(path), region))
    grid = grid_of(truth)
    tables, weights = [], grid.cell_weights(full=False)
    points = None if stations is None else PointRain(stations, grid)
    for start in track(range(0, rain.sizes["time"], FIELDS_AT_A_TIME), f"scoring {path.name}", unit="batches"):
        part = slice(start, start + FIELDS_AT_A_TIME)
        fields = rain.isel(time=part).transpose("time", "member", "lat", "lon").values
        observed = truth.isel(time=part).values
        ids, mask = truth["time"].values[part], np.isfinite(observed)
        tables.append(suite.update(fields, observed, ids=ids, mask=mask, weights=weights))
        if points is not None:
            points.add(ids, fields, observed)
    at_points = None if points is None else points.data_set()
    return Scores(suite.merge(tables), int(rain.sizes["member"]), 0.0, points=at_points)


def evaluate_fields(
    prediction: Any,
    truth: Any,
    *,
    metrics: str | Sequence[str] | Mapping[str, Any] = "default",
    reference: Any = None,
    over: str | Sequence[str] | None = None,
) -> xr.Dataset:
    """Score a prediction of rain against the truth; see `rainshift.evaluate`."""
    from geoml.metrics.labelled import evaluate
    from geoml.scores import suite_config

    suite = Suite.from_config(suite_config(metrics))
    rain, observed = matched(prediction, truth)
    made = evaluate(suite, observed, rain, over=over, weights="area")
    if reference is None:
        return made
    against, same = matched(reference, observed, what=("the reference", "the truth"))
    if same.sizes != observed.sizes:
        raise DataError(
            f"the reference has sizes {dict(same.sizes)} and the prediction {dict(observed.sizes)}; expected a "
            "reference at all predicted times and cells"
        )
    fair = Suite(("crps_fair",))
    mine, its = (evaluate(fair, observed, x, over=over, weights="area")["crps_fair"] for x in (rain, against))
    about = {"long_name": "skill of the fair CRPS against the reference", "units": "1", "perfect": 1.0}
    return made.assign(skill=(1 - mine / its.where(its > 0)).assign_attrs(about, direction="higher"))

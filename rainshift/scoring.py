"""Scoring a downscaler on a region: whole fields, every known cell, one row of statistics an hour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoml.data.loader import BlockLoader
from geoml.data.store import read_dataset, write_netcdf
from geoml.errors import DataError, Diverged
from geoml.grids import conform, grid_of, require_same
from geoml.metrics import StatisticsTable, Suite
from geoml.progress import track
from rainshift.archive import Archive
from rainshift.downscalers import Downscaler
from rainshift.training import FIELDS_AT_A_TIME, evenly

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_CLIPPED_SHARE", "Scores", "members_of", "score", "score_file"]

#: A cell of the benchmark in which more values than this had to be bounded has diverged: it is marked, not averaged.
MAX_CLIPPED_SHARE = 1e-3


@dataclass(frozen=True)
class Scores:
    """Statistics of one downscaler on one region; rows are labelled by valid time."""

    table: StatisticsTable
    members: int
    clipped_share: float

    @property
    def diverged(self) -> bool:
        """Whether more values were bounded than an honest score allows."""
        return self.clipped_share > MAX_CLIPPED_SHARE

    def save(self, path: Path) -> None:
        """Write NetCDF, whole or not at all."""
        attrs = {"members": self.members, "clipped_share": self.clipped_share}
        write_netcdf(path, self.table.to_dataset().assign_attrs(attrs))

    @classmethod
    def load(cls, path: Path) -> Scores:
        """What `save` wrote; a `DataError` names a broken file."""
        data = read_dataset(path).load()
        data.close()
        table = StatisticsTable.from_dataset(data)
        return cls(table, int(data.attrs["members"]), float(data.attrs["clipped_share"]))


def members_of(downscaler: Downscaler, wanted: int) -> int:
    """Members to draw: one where all would be equal, since more cost time and change no score."""
    model = getattr(downscaler, "model", downscaler)
    return wanted if getattr(model, "stochastic", True) else 1


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
) -> Scores:
    """Statistics of whole-field predictions of a region, cells weighted by area, unknown cells left out.

    `samples` hours, evenly spread, are scored, or those of `times`; all where both are None. A prediction that is not
    finite raises `Diverged`.
    """
    split, indices = archive.samples(region, role)
    positions = evenly(len(indices), len(indices) if samples is None else samples)
    if times is not None:
        positions = np.flatnonzero(np.isin(archive.times(region, role), times))
    loader = BlockLoader(
        [archive.field_source(region, role, positions)],
        batch_size=FIELDS_AT_A_TIME,
        channels=archive.channels,
        expected_gaps=archive.expected_gaps,
        shuffle=False,
    )
    time = archive.open(region, split)["target"]["time"].values
    drawn = members_of(downscaler, members)
    tables, clipped, cells = [], 0.0, 0
    for batch in track(loader, f"scoring {region}", unit="batches"):
        prediction, share = downscaler.predict(batch, members=drawn, seed=seed)
        assert batch.target is not None
        if not bool(prediction.isfinite().all()):
            raise Diverged(f"the prediction of {region} is not finite at {_times(loader, batch.ids, time)[0]}")
        tables.append(
            suite.update(
                prediction[:, :, 0].numpy(),
                batch.target[:, 0].numpy(),
                ids=_times(loader, batch.ids, time),
                mask=None if batch.mask is None else batch.mask[:, 0].numpy(),
                weights=batch.target_grid.cell_weights(full=False),
            )
        )
        clipped, cells = clipped + share * len(batch), cells + len(batch)
    return Scores(suite.merge(tables), drawn, clipped / max(cells, 1))


def score_file(path: Path, archive: Archive, region: str, *, suite: Suite, role: str = "test") -> Scores:
    """Statistics of a prediction file: `precipitation` in mm/h on `([member,] time, lat, lon)`, on the fine grid.

    Its times have to be among the role's. Errors: `DataError` for other times or another grid.
    """
    data = read_dataset(path)
    if "precipitation" not in data:
        raise DataError(f"{path} holds {', '.join(map(str, data.data_vars)) or 'nothing'}; expected precipitation")
    rain = conform(data["precipitation"])
    units = str(rain.attrs.get("units", ""))
    if units not in ("mm h-1", "mm/h", "mm hr-1"):
        raise DataError(f"{path}: precipitation is in {units or 'no units'}; expected mm h-1")
    if "member" not in rain.dims:
        rain = rain.expand_dims("member")
    rain = rain.transpose("time", "member", "lat", "lon")
    split, _ = archive.samples(region, role)
    truth = archive.open(region, split)["target"]["precipitation"]
    grid = grid_of(truth)
    require_same(grid_of(rain), grid, f"{path} and {region}")
    known = archive.times(region, role)
    if not np.isin(rain["time"].values, known).all():
        raise DataError(f"{path} has times that are not among the {role} times of {region}, {known[0]} to {known[-1]}")
    tables = []
    for start in track(range(0, rain.sizes["time"], FIELDS_AT_A_TIME), f"scoring {path.name}", unit="batches"):
        part = rain.isel(time=slice(start, start + FIELDS_AT_A_TIME)).load()
        observed = truth.sel(time=part["time"]).load()
        tables.append(
            suite.update(
                part.values,
                observed.values,
                ids=part["time"].values,
                mask=np.isfinite(observed.values),
                weights=grid.cell_weights(full=False),
            )
        )
    return Scores(suite.merge(tables), int(rain.sizes["member"]), 0.0)


def _times(loader: BlockLoader, ids: tuple[int, ...], time: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """Valid times of the items of a batch."""
    return time[[loader.locate(int(item))[1] for item in ids]]

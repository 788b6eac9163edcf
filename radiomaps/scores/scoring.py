"""Score trained networks and baselines on the maps of a store. The tables of scores can be merged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoml.cli.progress import track
from geoml.data.store import read_dataset, write_netcdf
from geoml.errors import Diverged
from geoml.metrics import StatisticsTable, Suite
from geoml.metrics.aggregate import merge
from geoml.models.predictor import members_of
from radiomaps.scores import normalised
from radiomaps.scores.physical import QUANTITIES, groups_of_distance, laid_flat, suite_of
from radiomaps.tasks.dataset import TaskLoader, TaskSource, loader
from radiomaps.tasks.encoding import AZIMUTH

if TYPE_CHECKING:
    import torch

    from geoml.data.fields import Batch
    from radiomaps.tasks import Task

__all__ = ["PUBLISHED", "Builder", "MapScores", "published_suite", "score"]

Array = NDArray[Any]
#: Name of the group of scores on 0 … 1 as published, where an azimuth is a number without wrap-around.
PUBLISHED = "published"
CIRCULAR = f"{AZIMUTH} (circular)"
_DISTANCES_M = (0, 25, 50, 100, 200, 400, 800)


class Builder(Protocol):
    """Protocol of objects that predict maps: trained networks and baselines."""

    @property
    def task(self) -> Task:
        """The task that defines inputs and targets."""

    def predict(self, batch: Batch, members: int = 1, seed: int = 0) -> tuple[torch.Tensor, float]:
        """`(batch, member, channel, z, y, x)` in the task's encoding, and the share of values that were clipped."""


def published_suite() -> Suite:
    """RMSE, NMSE, SSIM and PSNR of fields on 0 … 1, over all voxels and averaged over maps."""
    return Suite.of(
        [
            normalised.RMSE(), normalised.NMSE(), normalised.SSIM(), normalised.PSNR(), normalised.RMSEOfMaps(),
            normalised.NMSEOfMaps(), normalised.SSIMOfMaps(), normalised.PSNROfMaps(),
        ]
    )  # fmt: skip


@dataclass(frozen=True)
class MapScores:
    """Statistics of one builder by target and group of voxels, with one row per map.

    `tables` is keyed by (target, group): "published" is on 0 … 1, "all", "los", "nlos", layers and classes of distance
    are in dB, ns and degrees. `members` is the number of members drawn, `clipped_share` the share of clipped values.
    """

    tables: Mapping[tuple[str, str], StatisticsTable]
    members: int
    clipped_share: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def suite(self, target: str, group: str) -> Suite:
        """The suite of a table."""
        return published_suite() if group == PUBLISHED else suite_of(target, members=self.members)

    def values(self, target: str, group: str = PUBLISHED) -> dict[str, float]:
        """Every metric of a table over all its maps; NaN without valid voxels."""
        table, suite = self.tables[target, group], self.suite(target, group)
        if not (table.weights > 0).any():
            return dict.fromkeys(suite.metrics, float("nan"))
        return suite.evaluate(table)

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(target for target, _ in self.tables))

    @property
    def samples(self) -> list[int]:
        """Indices of the scored maps."""
        return [int(number) for number in next(iter(self.tables.values())).ids]

    def groups(self, target: str) -> list[str]:
        """Groups of voxels that a target was scored on."""
        return [group for name, group in self.tables if name == target]

    def nmse(self, target: str) -> float:
        """Normalised squared error over all voxels; of an azimuth, of the error around the circle."""
        return self.values(CIRCULAR if target == AZIMUTH else target)["nmse"]

    def merged(self, other: MapScores) -> MapScores:
        """The scores on the maps of both, which must be disjoint."""
        tables = {key: merge([table, other.tables[key]]) for key, table in self.tables.items()}
        counts = [len(next(iter(part.tables.values()))) for part in (self, other)]
        clipped = float(np.average([self.clipped_share, other.clipped_share], weights=counts))
        return MapScores(tables, self.members, clipped, self.about)

    def select(self, samples: Iterable[int]) -> MapScores:
        """The scores on selected maps."""
        wanted = np.asarray(sorted(samples))
        tables = {key: table.aligned(wanted) for key, table in self.tables.items()}
        return MapScores(tables, self.members, self.clipped_share, self.about)

    def save(self, path: Path) -> None:
        """Write NetCDF atomically."""
        import xarray as xr

        parts = []
        for number, table in enumerate(self.tables.values()):
            data = table.to_dataset()
            parts.append(data.rename({str(name): f"{name}_{number}" for name in data.variables}))
        attrs = {
            "tables": json.dumps(list(self.tables)), "members": self.members, "clipped_share": self.clipped_share,
            "about": json.dumps(dict(self.about)),
        }  # fmt: skip
        write_netcdf(path, xr.merge(parts).assign_attrs(attrs), single=False)

    @classmethod
    def load(cls, path: Path) -> MapScores:
        """Read what `save` wrote; raises `DataError` for a damaged file."""
        data = read_dataset(path).load()
        data.close()
        tables = {}
        for number, key in enumerate(json.loads(data.attrs["tables"])):
            names = {f"{name}_{number}": name for name in ("sum", "weight", "sample", "statistic")}
            part = data[[f"sum_{number}", f"weight_{number}"]].rename(names)
            tables[key[0], key[1]] = StatisticsTable.from_dataset(part)
        about = json.loads(data.attrs["about"])
        return cls(tables, int(data.attrs["members"]), float(data.attrs["clipped_share"]), about)


def score(
    builder: Builder,
    store: str | os.PathLike[str],
    samples: Iterable[int] | NDArray[Any],
    *,
    members: int = 1,
    seed: int = 0,
    batch_size: int = 4,
    given: Task | None = None,
    change: Callable[[Batch], Batch] | None = None,
    title: str = "scoring",
) -> MapScores:
    """Score the maps that `builder`, a trained network or a baseline, predicts, over valid voxels.

    `given` is a task with the same channels; its conditions replace those of the builder's task. `change` is applied to
    each batch before prediction, for example to remove an input. A prediction that is not finite raises `Diverged`.
    Noise is keyed on (seed, number of the map in its store).
    """
    drawn = members_of(builder, members)
    if given is not None and given.channels != builder.task.channels:
        raise ValueError("the given conditions have other channels than the builder's task")
    batches = loader(store, samples, given or builder.task, batch_size=batch_size, shuffle=False)
    groups = _Groups(batches)
    tables: dict[tuple[str, str], list[StatisticsTable]] = {}
    clipped, count = 0.0, 0
    for batch in track(batches, title, unit="batches"):
        numbers = [batches.sample_of(item) for item in batch.ids]
        told = batch.map(ids=tuple(numbers)) if change is None else change(batch.map(ids=tuple(numbers)))
        fields, share = builder.predict(told.map(target=None, mask=None), members=drawn, seed=seed)
        if not bool(fields.isfinite().all()):
            raise Diverged(f"the prediction of map {numbers[0]} … {numbers[-1]} is not finite")
        for key, table in _tables(builder.task, batch, fields, np.array(numbers), groups, drawn):
            tables.setdefault(key, []).append(table)
        clipped, count = clipped + share * len(batch), count + len(batch)
    merged = {key: merge(parts) for key, parts in tables.items()}
    return MapScores(merged, drawn, clipped / max(count, 1), {"task": builder.task.describe(), "seed": seed})


class _Groups:
    """Groups of voxels: in and out of line of sight, layers, classes of distance."""

    def __init__(self, batches: TaskLoader) -> None:
        source = batches.sources[0]
        assert isinstance(source, TaskSource)
        self.source, self.grid = source, source.target_grid
        self.distances = groups_of_distance(_DISTANCES_M)

    def of(self, samples: NDArray[Any]) -> dict[str, Array]:
        """Masks `(sample, z, y, x)` by name; line of sight only if the store has it."""
        shape = (len(samples), *self.grid.shape)
        found: dict[str, Array] = {"all": np.ones(shape, bool)}
        sight = self.source.sight(samples)
        if sight is not None:
            found |= {"los": sight, "nlos": ~sight}
        for layer, height in enumerate(self.grid["z"].coordinates):
            found[f"z = {height:g} m"] = np.zeros(shape, bool)
            found[f"z = {height:g} m"][:, layer] = True
        away = np.stack([np.linalg.norm(self.source.site(int(n)).towards(self.grid), axis=0) for n in samples])
        return found | {name: (away >= low) & (away < high) for name, low, high in self.distances}


def _tables(
    task: Task, batch: Batch, fields: torch.Tensor, numbers: NDArray[Any], groups: _Groups, members: int
) -> Iterable[tuple[tuple[str, str], StatisticsTable]]:
    """Every table of a batch."""
    assert batch.target is not None
    assert batch.mask is not None
    drawn, mean, truth = (
        {name: values.double().numpy() for name, values in task.decode(part).items()}
        for part in (fields, fields.mean(dim=1), batch.target)
    )
    known = batch.mask.numpy().all(axis=1)
    kinds, published = groups.of(numbers), published_suite()
    for target in task.targets:
        quantity = QUANTITIES[target]
        expected, observed = (task.codecs.scaled(target, part[target]) for part in (mean, truth))
        yield (target, PUBLISHED), published.update(expected[:, None], observed, ids=numbers, mask=known)
        told, true = drawn[target] * quantity.factor, truth[target] * quantity.factor
        if quantity.circular:
            turn = task.codecs.scaled(target, 2 * np.pi) - task.codecs.scaled(target, 0.0)
            short = observed + (expected - observed + turn / 2) % turn - turn / 2
            yield (CIRCULAR, PUBLISHED), published.update(short[:, None], observed, ids=numbers, mask=known)
            told, true = laid_flat(told, true)
        suite = suite_of(target, members=members)
        for name, mask in kinds.items():
            yield (target, name), suite.update(told, true, ids=numbers, mask=known & mask)

"""Prepared data: one CF store per region and split, made from a source once and reused afterwards."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.cli.progress import track
from geoml.data.fingerprint import Files, fingerprint
from geoml.errors import UserError, unknown
from geoml.runs.folder import config_hash, jsonable, plain
from geoml.runs.workers import ambient_client, spread
from rainshift.data.upkeep import hold, supersede, unchanged
from rainshift.places.splits import fold_count, purge_for, split_fold
from rainshift.sources import open_source
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from geoml.data.blocks import FieldSource
    from geoml.data.slabs import SlabWriter
    from geoml.data.store import Store
    from geoml.models.base import Channels
    from rainshift.data.stations import Stations
    from rainshift.sources.base import RegionData, RegionSource

logger = logging.getLogger(__name__)

__all__ = ["FOLD", "Archive", "archive_of"]

#: Keys of the data configuration that control how stores are read; the others are options of the source.
READING_KEYS = ("condition", "static", "first_guess", "expected_gaps", "shares", "blocks", "purge_hours")
#: Keys of data that predictions are compared with, in addition to the fine rain.
COMPARING_KEYS = ("stations",)
#: Roles of samples.
ROLES = ("train", "validation", "test")
WHOLE = "all"
#: Default region of the verbs.
DEFAULT_REGION = "melanesia"
#: Separator of a region and the number of the fold (block of time) that is left out of training and tested.
FOLD = "@"
#: Options that select regions and events without changing their data.
SELECTING = ("include", "boxes", "count")
#: Version of the preparation code: increase it if the same files give different values.
PREPARED_BY = 2


def archive_of(config: Mapping[str, Any]) -> Archive:
    """Return the archive of a command's configuration: its `data`, stored in `archive` (a folder or URL) or `cache`."""
    from geoml.data.location import location

    given = plain(config)
    place = location(given.get("archive") or f"{given['cache']}/data")
    return Archive(given["data"], place, shared=bool(given.get("archive")))


@dataclass(frozen=True)
class Archive:
    """The prepared stores of one data configuration.

    `config` is the `data` group: `source`; channels (`condition`, `static`, `first_guess`) and the channels that may
    have missing values (`expected_gaps`); the split of the time if the source has no splits (`shares`, `blocks`,
    `purge_hours`); and the options of the source. Stores are folders under `root`. Their names contain a hash of the
    source files, the settings and the version of the code, so changed files never reuse old data.
    """

    config: Mapping[str, Any]
    root: Path
    #: Cache of opened stores.
    _opened: dict[Path, Store] = field(default_factory=dict, compare=False, repr=False)
    _identities: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)
    #: Whether other users share `root`; stores of replaced files are then not removed.
    shared: bool = False

    @cached_property
    def options(self) -> dict[str, Any]:
        """Options of the source."""
        return {k: v for k, v in plain(self.config).items() if k not in ("source", *READING_KEYS, *COMPARING_KEYS)}

    @cached_property
    def source(self) -> RegionSource:
        """The data source."""
        return open_source(str(self.config["source"]), **self.options)

    def identity(self, name: str, split: str) -> dict[str, Any]:
        """Return everything that determines a store: region, settings, content of source files, and code version."""
        key = (name, split)
        if key not in self._identities:
            files = self._files(name, split)
            self._identities[key] = {
                "source": str(self.config["source"]),
                "name": name,
                "place": _place(name),
                "options": {k: v for k, v in self.options.items() if k not in (*SELECTING, *self.source.locations)},
                "files": {file: list(found) for file, found in fingerprint(files).items()},
                "prepared_by": PREPARED_BY,
            }
        return self._identities[key]

    def identity_of(self, names: Iterable[str]) -> dict[str, Any]:
        """Return everything that determines a training or score on some regions: stores and reading settings."""
        config = plain(self.config)
        stores = {name: [self.path(name, split).parent.name for split in self.splits] for name in names}
        return {"stores": stores, **{key: config.get(key) for key in READING_KEYS}}

    def _files(self, name: str, split: str) -> Files:
        return self.source.files(name, None if split == WHOLE else split)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of regions or events."""
        return tuple(self.source.names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with separate stores; `("all",)` if the source has no splits."""
        return tuple(self.source.splits) or (WHOLE,)

    @cached_property
    def channels(self) -> Channels:
        """The channels of models on these data."""
        from geoml.models.base import Channels

        config = plain(self.config)
        pairs = tuple((str(k), str(v)) for k, v in (config.get("first_guess") or {}).items())
        names = {key: tuple(config.get(key) or ()) for key in ("condition", "static")}
        return Channels(names["condition"], ("precipitation",), names["static"], pairs)

    @property
    def expected_gaps(self) -> tuple[str, ...]:
        """Predictors and static fields that may have missing values; in any other channel these are an error."""
        return tuple(plain(self.config).get("expected_gaps") or ())

    @cached_property
    def stations(self) -> Stations | None:
        """The gauges of `data.stations`; None without any."""
        from rainshift.data.stations import read_stations

        given = plain(self.config).get("stations")
        return None if not given else read_stations(str(given))

    def stamp(self, name: str) -> str:
        """Return the position of a region's times in their intervals: "start", "middle" or "end"."""
        return self.attribute(name, "stamp") or "end"

    def among(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """Return the regions `wanted`, or all regions for None.

        If only the default region is wanted and the data do not have it, all regions are returned with a warning.
        """
        if wanted is None:
            return tuple(self.names)
        if list(wanted) == [DEFAULT_REGION] and self.source.locations and DEFAULT_REGION not in self.names:
            logger.warning("using all regions of these data: %s (region=NAME selects one)", ", ".join(self.names))
            return self.names
        return tuple(wanted)

    def folds(self, name: str) -> list[str]:
        """Return the names of a region's cross-validation folds: `storm@0`, `storm@1`, …"""
        return [f"{name}{FOLD}{number}" for number in range(fold_count(self.times(name, "test")))]

    def path(self, name: str, split: str) -> Path:
        """Path of the store of a region's split, whether it exists or not."""
        name = name.partition(FOLD)[0]
        if name not in self.names:
            raise unknown("region or event", name, self.names)
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        folder = f"{self.config['source']}-{config_hash(self.identity(name, split), ignore=())}"
        return self.root / folder / (f"{name}.zarr" if split == WHOLE else f"{name}-{split}.zarr")

    def command(self, name: str) -> str:
        """Return the command that prepares a region again, without local paths."""
        kept = {k: v for k, v in self.options.items() if isinstance(v, str | int | float)}
        words = [f"data.{k}={k.upper()}" if k in self.source.locations else f"data.{k}={v}" for k, v in kept.items()]
        return " ".join([f"rainshift prepare data={self.config['source']} regions=[{name}]", *words])

    def prepare(self, name: str, split: str) -> Path:
        """Prepare the store of a region's split, or complete it. A complete store is left unchanged.

        Slabs of hours are written one by one, or in parallel by the workers of the active Dask client; the result is
        the same. An interrupted preparation resumes. A store is written by one process at a time; others wait. Raises
        `DataError` for errors of the source, or if a source file changes meanwhile, and `UserError` for a full disk or
        a folder that is not writable.
        """
        from geoml.data.location import is_remote, object_store_errors
        from geoml.data.manifest import MANIFEST
        from geoml.data.slabs import SlabWriter
        from geoml.data.store import StoreWriter

        path = self.path(name, split)
        with object_store_errors(path):
            if (path / MANIFEST).exists():
                return path
        if not self.shared:
            supersede(self.root, [plain(self.config), name, split], path)
        data = self.source.open(name, None if split == WHOLE else split)
        template = {"condition": data.condition, "target": data.target}
        if data.static is not None:
            template["static"] = data.static
        files = self._files(name, split)
        with StoreWriter.create(
            path,
            template,
            align=chunks[0][0] if (chunks := data.target["precipitation"].chunks) else 1,
            packing=data.packing,
            attrs=_attributes(data) | {"prepared_from": self.identity(name, split)["files"]},
            prepare_command=self.command(name),
        ) as writer:
            what = f"preparing {path.stem}"
            with unchanged(files, self.identity(name, split)["files"], path) as check:
                if (client := ambient_client()) is None:
                    for start in track(writer.missing(), what, unit="slabs"):
                        made = _slab(data, writer.span(start))
                        check()
                        writer.write(start, made)
                else:
                    slabs = SlabWriter(path if is_remote(path) else path.absolute(), writer.slabs.plan)
                    jobs = [(plain(self.config), name, split, slabs, start) for start in writer.missing()]
                    for job, done in track(
                        spread(_write_slab, jobs, client=client), what, total=len(jobs), unit="slabs"
                    ):
                        hashes = done()
                        check()
                        writer.note(job[-1], hashes)
            writer.finish()
        return path

    def open(self, name: str, split: str) -> dict[str, xr.Dataset]:
        """Open the groups `condition`, `target` and `static` of a prepared store lazily. Verified when first opened."""
        return self._store(name, split).groups

    def _store(self, name: str, split: str) -> Store:
        from geoml.data.store import Store

        path = self.path(name, split)
        if path not in self._opened:
            hold(path)
            self._opened[path] = Store.open(path)
        return self._opened[path]

    def samples(self, name: str, role: str) -> tuple[str, np.ndarray]:
        """Return the split whose store contains the samples of a role, and their indices in it, ascending.

        If the source has splits, a role is a split. Otherwise `data.shares` divides time into blocks with purge gaps.
        Without shares, all samples of a region belong to every role; `check_leakage` then ensures that a region has one
        role only. Raises `UserError` for a role that the data do not have.
        """
        import numpy as np

        if role not in ROLES:
            raise unknown("role", role, ROLES)
        split = role if role in self.splits else WHOLE
        if split not in self.splits:
            raise UserError(f"{self.config['source']} has no {role} samples; its splits are {', '.join(self.splits)}")
        time = self.open(name, split)["target"]["time"].values
        shares = plain(self.config).get("shares")
        missing = np.asarray(self._attribute(name, split, "missing_samples", ()), int)
        if fold := name.partition(FOLD)[2]:
            known = np.setdiff1d(np.arange(len(time)), missing)
            parts = split_fold(time[known], int(fold), fold_count(time[known]), self.purge_of(name))
            return split, known[parts["test" if role == "test" else "train"]]
        if split != WHOLE or not shares:
            return split, np.setdiff1d(np.arange(len(time)), missing)
        from rainshift.places.splits import split_blocks

        parts = split_blocks(time, shares, blocks=int(self.config["blocks"]), purge=self.purge)
        if role not in parts:
            raise UserError(f"data.shares has no {role!r}; its parts are {', '.join(parts)}")
        return split, np.setdiff1d(parts[role], missing)

    @property
    def purge(self) -> timedelta:
        """Purge gap between hours of training and of test: `purge_hours`, by default 48 h."""
        from rainshift.places.splits import PURGE

        hours = self.config.get("purge_hours")
        return PURGE if hours is None else timedelta(hours=float(hours))

    def purge_of(self, name: str) -> timedelta:
        """Return the purge gap around a fold: `purge_hours`; by default it depends on the length of the record."""
        hours, base = self.config.get("purge_hours"), name.partition(FOLD)[0]
        return purge_for(self.times(base, "test")) if hours is None else timedelta(hours=float(hours))

    def has_role(self, role: str) -> bool:
        """Whether a role has samples."""
        shares = plain(self.config).get("shares")
        return role in self.splits or (self.splits == (WHOLE,) and role in (shares or ("train", "test")))

    def times(self, name: str, role: str, positions: np.ndarray | None = None) -> np.ndarray:
        """Return the valid times of a role's samples, or of the samples at `positions`."""
        split, indices = self.samples(name, role)
        indices = indices if positions is None else indices[positions]
        return self.open(name, split)["target"]["time"].values[indices]

    def step_seconds(self, name: str) -> float:
        """The time step of a region in seconds."""
        return float(self._attribute(name, self._prepared(name), "step_seconds"))

    def attribute(self, name: str, key: str) -> str | None:
        """Return a global attribute of a region's store, such as `source`, `coarse` or `licence`; None if missing."""
        found = self._attribute(name, self._prepared(name), key)
        return None if found is None else str(found)

    def _prepared(self, name: str) -> str:
        """Return the first split of a region that is prepared."""
        from geoml.data.manifest import MANIFEST

        return next((split for split in self.splits if (self.path(name, split) / MANIFEST).exists()), self.splits[0])

    def _attribute(self, name: str, split: str, key: str, default: Any = None) -> Any:
        return self._store(name, split).attributes.get(key, default)

    def field_source(self, name: str, role: str, positions: np.ndarray | None = None) -> FieldSource:
        """Return the configured channels of a role's samples (or of those at `positions`) as input of a loader."""
        from geoml.data.blocks import FieldSource

        channels = self.channels
        split, samples = self.samples(name, role)
        samples = samples if positions is None else samples[positions]
        self._require_channels(name, split)
        return FieldSource(
            self._store(name, split),
            condition=channels.condition,
            target=channels.target,
            static=channels.static,
            samples=samples,
        )

    def _require_channels(self, name: str, split: str) -> None:
        groups = self.open(name, split)
        for key in ("condition", "static"):
            held = list(groups[key].data_vars) if key in groups else []
            for channel in getattr(self.channels, key):
                if channel not in held:
                    raise UserError(
                        f"data.{key} contains {channel!r}, but {name} has {', '.join(map(str, held)) or 'none'}. "
                        f"Choose data.{key} from these"
                    )


def _slab(data: RegionData, span: slice) -> dict[str, xr.Dataset]:
    part = data.isel(span)
    return {"condition": part.condition.load(), "target": part.target.load()}


@functools.lru_cache(maxsize=4)
def _region_data(config: str, name: str, split: str) -> RegionData:
    return Archive(json.loads(config), Path()).source.open(name, None if split == WHOLE else split)


def _write_slab(config: dict[str, Any], name: str, split: str, slabs: SlabWriter, start: int) -> dict[str, str]:
    """Compute and write one slab of a store in a worker; returns the hashes of its files."""
    import dask

    data = _region_data(json.dumps(config, sort_keys=True), name, split)
    with dask.config.set(scheduler="synchronous"):  # the workers of the cluster are used for slabs
        return slabs.write(start, _slab(data, slabs.span(start)))


def _place(name: str) -> dict[str, Any] | None:
    """Return bounds and climate of a region by name; None for an event."""
    from rainshift.places.regions import regions

    known = regions()
    found = known.get(name) or known.get(name.partition(".")[0])
    if found is None:
        return None
    bounds = {key: getattr(found, key) for key in ("lat_min", "lat_max", "lon_min", "lon_max")}
    return {**bounds, "climate": jsonable(asdict(found.climate)) if found.climate else None}


def _attributes(data: RegionData) -> dict[str, Any]:
    """Return the global attributes of a store: description and origin."""
    known = ", ".join(str(name) for name in data.condition.data_vars if name in VARIABLES)
    return {
        "title": f"Coarse predictors and fine precipitation: {data.name}",
        "region": data.name,
        "step_seconds": data.step.total_seconds(),
        **({"missing_samples": list(data.missing)} if data.missing else {}),
        "history": f"prepared by rainshift; predictors {known or 'rain alone'}",
        **{key: str(value) for key, value in data.provenance.items()},
    }

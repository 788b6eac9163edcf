"""Prepared data: one CF store a region and split, made from a source once and found again afterwards."""

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
from geoml.data.reading import ambient_client, spread
from geoml.errors import UserError, unknown
from geoml.runs.folder import config_hash, jsonable, plain
from rainshift.data.upkeep import hold, supersede, unchanged
from rainshift.places.splits import fold_count, purge_for, split_fold
from rainshift.sources import open_source
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from geoml.data.blocks import FieldSource
    from geoml.data.slabs import SlabWriter
    from geoml.models.base import Channels
    from rainshift.sources.base import RegionData, RegionSource

logger = logging.getLogger(__name__)

__all__ = ["FOLD", "Archive", "archive_of"]

#: Keys of the data configuration that say how stores are read; the others are options of the source.
READING_KEYS = ("condition", "static", "first_guess", "expected_gaps", "shares", "blocks", "purge_hours")
#: What samples are for.
ROLES = ("train", "validation", "test")
WHOLE = "all"
#: What the verbs of one region take unless told.
DEFAULT_REGION = "melanesia"
#: Stands between a region and the number of the block of its time that is left out and tested.
FOLD = "@"
#: Options that choose among regions and events, and change none of them.
SELECTING = ("include", "boxes")
#: The version of the code that prepares: raise it by one wherever the same files give other values.
PREPARED_BY = 2


def archive_of(config: Mapping[str, Any]) -> Archive:
    """The archive of a verb's configuration: its `data`, in `archive`, a folder or URL, or in `cache`."""
    from geoml.data.location import location

    given = plain(config)
    place = location(given.get("archive") or f"{given['cache']}/data")
    return Archive(given["data"], place, shared=bool(given.get("archive")))


@dataclass(frozen=True)
class Archive:
    """The prepared stores of one data configuration.

    `config` is the `data` group: `source`; channels (`condition`, `static`, `first_guess`) and which of them may have
    gaps (`expected_gaps`); how time is shared out where the source does not do it (`shares`, `blocks`,
    `purge_hours`); and the source's options. Stores lie under `root`, each in a folder named by its identity: the
    content of its source files, the settings and the code, so that what changed never meets old data.
    """

    config: Mapping[str, Any]
    root: Path
    #: Groups of stores opened so far: a benchmark asks for the same few over and over.
    _opened: dict[Path, dict[str, xr.Dataset]] = field(default_factory=dict, compare=False, repr=False)
    _identities: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)
    #: Whether others use the same root: stores whose files were replaced are then left where they are.
    shared: bool = False

    @cached_property
    def options(self) -> dict[str, Any]:
        """What the source is opened with."""
        return {k: v for k, v in plain(self.config).items() if k not in ("source", *READING_KEYS)}

    @cached_property
    def source(self) -> RegionSource:
        """The source of the data."""
        return open_source(str(self.config["source"]), **self.options)

    def identity(self, name: str, split: str) -> dict[str, Any]:
        """What a store holds: its region, the settings, the content of each source file, and the code that makes it."""
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
        """What a training or a score on some regions depends on: their stores, and how they are read."""
        config = plain(self.config)
        stores = {name: [self.path(name, split).parent.name for split in self.splits] for name in names}
        return {"stores": stores, **{key: config.get(key) for key in READING_KEYS}}

    def _files(self, name: str, split: str) -> Files:
        return self.source.files(name, None if split == WHOLE else split)

    @property
    def names(self) -> tuple[str, ...]:
        """Regions or events."""
        return tuple(self.source.names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Parts kept in stores of their own; `("all",)` where the source has no parts."""
        return tuple(self.source.splits) or (WHOLE,)

    @cached_property
    def channels(self) -> Channels:
        """The channels that models are built for."""
        from geoml.models.base import Channels

        config = plain(self.config)
        pairs = tuple((str(k), str(v)) for k, v in (config.get("first_guess") or {}).items())
        names = {key: tuple(config.get(key) or ()) for key in ("condition", "static")}
        return Channels(names["condition"], ("precipitation",), names["static"], pairs)

    @property
    def expected_gaps(self) -> tuple[str, ...]:
        """Predictors and static fields that may be missing somewhere; a gap in any other is an error."""
        return tuple(plain(self.config).get("expected_gaps") or ())

    def among(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """The regions asked for; all of the data where the one asked for is a default that they do not have."""
        if list(wanted) == [DEFAULT_REGION] and self.source.locations and DEFAULT_REGION not in self.names:
            logger.warning("regions of these data: %s; all are taken (region=NAME chooses)", ", ".join(self.names))
            return self.names
        return tuple(wanted)

    def folds(self, name: str) -> list[str]:
        """Names of the blocks of a region's time, each tested by a training on the others: `storm@0`, `storm@1`, …"""
        return [f"{name}{FOLD}{number}" for number in range(fold_count(self.times(name, "test")))]

    def path(self, name: str, split: str) -> Path:
        """Where the store of a region's split is, or will be: in a folder named by its identity."""
        name = name.partition(FOLD)[0]
        if name not in self.names:
            raise unknown("region or event", name, self.names)
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        folder = f"{self.config['source']}-{config_hash(self.identity(name, split), ignore=())}"
        return self.root / folder / (f"{name}.zarr" if split == WHOLE else f"{name}-{split}.zarr")

    def command(self, name: str) -> str:
        """What a user types to prepare a region again, without the places of this machine."""
        kept = {k: v for k, v in self.options.items() if isinstance(v, str | int | float)}
        words = [f"data.{k}={k.upper()}" if k in self.source.locations else f"data.{k}={v}" for k, v in kept.items()]
        return " ".join([f"rainshift prepare data={self.config['source']} regions=[{name}]", *words])

    def prepare(self, name: str, split: str) -> Path:
        """Make the store of a region's split, or complete it; one that is complete is left alone.

        Slabs of hours are written one after another behind a progress bar, or side by side by the workers of the Dask
        client that is active, to the same bytes; an interrupted preparation goes on where it was. One process writes
        a store, others wait for it. Errors: `DataError` from the source, or where a source file changes meanwhile,
        `UserError` for a full disk or a folder that cannot be written.
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
        """The groups `condition`, `target`, `static` of a prepared store, lazy, checked when first opened."""
        from geoml.data.store import open_store

        path = self.path(name, split)
        if path not in self._opened:
            hold(path)
            self._opened[path] = open_store(path)
        return self._opened[path]

    def samples(self, name: str, role: str) -> tuple[str, np.ndarray]:
        """The split in whose store a role's samples of a region are, and their indices, ascending.

        Where the source keeps splits apart, a role is a split. Elsewhere `data.shares` cuts time into blocks with a
        purge gap; without shares a region is whole in every role, and no region may have two (`check_leakage`).
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
            raise UserError(f"data.shares has no {role!r}; it gives {', '.join(parts)}")
        return split, np.setdiff1d(parts[role], missing)

    @property
    def purge(self) -> timedelta:
        """The least time between hours of training and of test: `purge_hours`, 48 where the data do not say."""
        from rainshift.places.splits import PURGE

        hours = self.config.get("purge_hours")
        return PURGE if hours is None else timedelta(hours=float(hours))

    def purge_of(self, name: str) -> timedelta:
        """The gap around a fold of a region's time: `purge_hours`, or as its length allows."""
        hours, base = self.config.get("purge_hours"), name.partition(FOLD)[0]
        return purge_for(self.times(base, "test")) if hours is None else timedelta(hours=float(hours))

    def has_role(self, role: str) -> bool:
        """Whether samples are set apart for a role."""
        shares = plain(self.config).get("shares")
        return role in self.splits or (self.splits == (WHOLE,) and role in (shares or ("train", "test")))

    def times(self, name: str, role: str, positions: np.ndarray | None = None) -> np.ndarray:
        """Valid times of a role's samples, or of some of them."""
        split, indices = self.samples(name, role)
        indices = indices if positions is None else indices[positions]
        return self.open(name, split)["target"]["time"].values[indices]

    def step_seconds(self, name: str) -> float:
        """The time step of a region's samples."""
        return float(self._attribute(name, self.splits[0], "step_seconds"))

    def attribute(self, name: str, key: str) -> str | None:
        """What a region's store says of itself: its `source`, `coarse` rain, `licence`, …"""
        found = self._attribute(name, self.splits[0], key)
        return None if found is None else str(found)

    def _attribute(self, name: str, split: str, key: str, default: Any = None) -> Any:
        import zarr

        from geoml.data.location import zarr_location

        return zarr.open_group(zarr_location(self.path(name, split)), mode="r").attrs.get(key, default)

    def field_source(self, name: str, role: str, positions: np.ndarray | None = None) -> FieldSource:
        """What a loader reads: the configured channels of a role's samples, or of those at some positions."""
        from geoml.data.blocks import FieldSource

        channels = self.channels
        split, samples = self.samples(name, role)
        samples = samples if positions is None else samples[positions]
        self._require_channels(name, split)
        return FieldSource(
            self.path(name, split),
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
                        f"data.{key} names {channel!r}; {name} holds {', '.join(map(str, held)) or 'none'}. "
                        f"Choose data.{key} among them"
                    )


def _slab(data: RegionData, span: slice) -> dict[str, xr.Dataset]:
    part = data.isel(span)
    return {"condition": part.condition.load(), "target": part.target.load()}


@functools.lru_cache(maxsize=4)
def _region_data(config: str, name: str, split: str) -> RegionData:
    return Archive(json.loads(config), Path()).source.open(name, None if split == WHOLE else split)


def _write_slab(config: dict[str, Any], name: str, split: str, slabs: SlabWriter, start: int) -> dict[str, str]:
    """One slab of a store, made and written by a worker; returns the hashes of its files."""
    import dask

    data = _region_data(json.dumps(config, sort_keys=True), name, split)
    with dask.config.set(scheduler="synchronous"):  # the cluster is busy with slabs: this one is made here
        return slabs.write(start, _slab(data, slabs.span(start)))


def _place(name: str) -> dict[str, Any] | None:
    """Bounds and climate of the region of a name (or of a box cut from an event); None for an event."""
    from rainshift.places.regions import regions

    known = regions()
    found = known.get(name) or known.get(name.partition(".")[0])
    if found is None:
        return None
    bounds = {key: getattr(found, key) for key in ("lat_min", "lat_max", "lon_min", "lon_max")}
    return {**bounds, "climate": jsonable(asdict(found.climate)) if found.climate else None}


def _attributes(data: RegionData) -> dict[str, Any]:
    """Global attributes of a store: what it is and where it came from."""
    known = ", ".join(str(name) for name in data.condition.data_vars if name in VARIABLES)
    return {
        "title": f"Coarse predictors and fine precipitation: {data.name}",
        "region": data.name,
        "step_seconds": data.step.total_seconds(),
        **({"missing_samples": list(data.missing)} if data.missing else {}),
        "history": f"prepared by rainshift; predictors {known or 'rain alone'}",
        **{key: str(value) for key, value in data.provenance.items()},
    }

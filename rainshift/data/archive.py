"""Prepared data: one CF store a region and split, made from a source once and found again afterwards."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.errors import UserError, unknown
from geoml.runs.folder import config_hash, plain
from rainshift.sources import open_source
from rainshift.sources.variables import VARIABLES

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from geoml.data.blocks import FieldSource
    from geoml.data.slabs import SlabWriter
    from geoml.models.base import Channels
    from rainshift.sources.base import RegionData, RegionSource

__all__ = ["RATE_STEP_MM_H", "Archive", "archive_of"]

#: Fine rain is kept as integers of this step.
RATE_STEP_MM_H = 0.01
#: Keys of the data configuration that say how stores are read; the others are options of the source.
READING_KEYS = ("condition", "static", "first_guess", "expected_gaps", "shares", "blocks", "purge_hours")
#: What samples are for.
ROLES = ("train", "validation", "test")
WHOLE = "all"


def archive_of(config: Mapping[str, Any]) -> Archive:
    """The archive of a verb's configuration: its `data`, in `archive`, a folder or URL, or in `cache`."""
    from geoml.data.location import location

    given = plain(config)
    return Archive(given["data"], location(given.get("archive") or f"{given['cache']}/data"))


@dataclass(frozen=True)
class Archive:
    """The prepared stores of one data configuration.

    `config` is the `data` group: `source`; channels (`condition`, `static`, `first_guess`) and which of them may have
    gaps (`expected_gaps`); how time is shared out where the source does not do it (`shares`, `blocks`,
    `purge_hours`); and the source's options. Stores lie under `root`, in a folder named by what the source's options
    mean, so that a changed option never meets old data.
    """

    config: Mapping[str, Any]
    root: Path
    #: Groups of stores opened so far: a benchmark asks for the same few over and over.
    _opened: dict[Path, dict[str, xr.Dataset]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def options(self) -> dict[str, Any]:
        """What the source is opened with."""
        return {k: v for k, v in plain(self.config).items() if k not in ("source", *READING_KEYS)}

    @cached_property
    def source(self) -> RegionSource:
        """The source of the data."""
        return open_source(str(self.config["source"]), **self.options)

    @cached_property
    def folder(self) -> Path:
        """Where this configuration's stores lie."""
        name = str(self.config["source"])
        return self.root / f"{name}-{config_hash({'source': name, **self.options})}"

    @property
    def identity(self) -> dict[str, Any]:
        """What a training or a score depends on: the stores, and everything that says how they are read."""
        config = plain(self.config)
        return {"stores": self.folder.name, **{key: config.get(key) for key in READING_KEYS}}

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

    def path(self, name: str, split: str) -> Path:
        """Where the store of a region's split is, or will be."""
        if name not in self.names:
            raise unknown("region or event", name, self.names)
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        return self.folder / (f"{name}.zarr" if split == WHOLE else f"{name}-{split}.zarr")

    def command(self, name: str) -> str:
        """What a user types to prepare a region again."""
        options = " ".join(f"data.{k}={v}" for k, v in self.options.items() if isinstance(v, str | int | float))
        return f"rainshift prepare data={self.config['source']} regions=[{name}] archive={self.root} {options}".strip()

    def prepare(self, name: str, split: str) -> Path:
        """Make the store of a region's split, or complete it; one that is whole is left alone.

        Slabs of hours are written one after another behind a progress bar, or side by side by the workers of the Dask
        client that is active, to the same bytes; an interrupted preparation goes on where it was. Errors: `DataError`
        from the source, `UserError` for a full disk or a folder that cannot be written.
        """
        from geoml.cli.progress import track
        from geoml.data.location import is_remote, object_store_errors
        from geoml.data.manifest import MANIFEST
        from geoml.data.reading import ambient_client, spread
        from geoml.data.slabs import SlabWriter
        from geoml.data.store import Packing, StoreWriter

        path = self.path(name, split)
        with object_store_errors(path):
            if (path / MANIFEST).exists():
                return path
        data = self.source.open(name, None if split == WHOLE else split)
        template = {"condition": data.condition, "target": data.target}
        if data.static is not None:
            template["static"] = data.static
        with StoreWriter.create(
            path,
            template,
            align=chunks[0][0] if (chunks := data.target["precipitation"].chunks) else 1,
            packing={"precipitation": Packing(RATE_STEP_MM_H)} if "precipitation" not in data.condition else None,
            attrs=_attributes(data),
            prepare_command=self.command(name),
        ) as writer:
            missing, what = writer.missing(), f"preparing {path.stem}"
            if (client := ambient_client()) is None:
                for start in track(missing, what, unit="slabs"):
                    writer.write(start, _slab(data, writer.span(start)))
            else:
                slabs = SlabWriter(path if is_remote(path) else path.absolute(), writer.slabs.plan)
                jobs = [(plain(self.config), name, split, slabs, start) for start in missing]
                done = spread(_write_slab, jobs, client=client)
                for job, files in track(done, what, total=len(jobs), unit="slabs"):
                    writer.note(job[-1], files())
            writer.finish()
        return path

    def prepare_all(self, names: Iterable[str] | None = None, splits: Iterable[str] | None = None) -> list[Path]:
        """The stores of several regions and splits, all unless named."""
        return [
            self.prepare(name, split)
            for name in (self.names if names is None else names)
            for split in (self.splits if splits is None else splits)
        ]

    def open(self, name: str, split: str) -> dict[str, xr.Dataset]:
        """The groups `condition`, `target`, `static` of a prepared store, lazy, checked when first opened."""
        from geoml.data.store import open_store

        path = self.path(name, split)
        if path not in self._opened:
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
        if split != WHOLE or not shares:
            return split, np.arange(len(time))
        from rainshift.places.splits import split_blocks

        parts = split_blocks(time, shares, blocks=int(self.config["blocks"]), purge=self.purge)
        if role not in parts:
            raise UserError(f"data.shares has no {role!r}; it gives {', '.join(parts)}")
        return split, parts[role]

    @property
    def purge(self) -> timedelta:
        """The least time between hours of training and of test: `purge_hours`, 48 where the data do not say."""
        from rainshift.places.splits import PURGE

        hours = self.config.get("purge_hours")
        return PURGE if hours is None else timedelta(hours=float(hours))

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
        import zarr

        from geoml.data.location import zarr_location

        place = zarr_location(self.path(name, self.splits[0]))
        return float(str(zarr.open_group(place, mode="r").attrs["step_seconds"]))

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


def _attributes(data: RegionData) -> dict[str, Any]:
    """Global attributes of a store: what it is and where it came from."""
    known = ", ".join(str(name) for name in data.condition.data_vars if name in VARIABLES)
    return {
        "title": f"Coarse predictors and fine precipitation: {data.name}",
        "region": data.name,
        "step_seconds": data.step.total_seconds(),
        "history": f"prepared by rainshift; predictors {known or 'rain alone'}",
        **{key: str(value) for key, value in data.provenance.items()},
    }

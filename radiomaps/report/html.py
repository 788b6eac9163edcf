"""Reports: stores of maps, sampled maps, benchmarks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.data.store import read_dataset
from geoml.errors import DataError, UserError
from geoml.report import Block, Chart, Report, Section, Table, Text
from geoml.runs.files import read_json, text_within
from radiomaps.maps.store import in_scene, open_maps, scene_records
from radiomaps.report import figures
from radiomaps.report.coverage import FILE as COVERAGE
from radiomaps.report.coverage import coverage_report

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["TABLES", "numbers", "report", "store_of"]

#: Largest number of maps on a page.
SHOWN = 4
STORE = "maps.zarr"
#: Files that `radiomaps predict` writes, for each `format=`.
SAMPLED = (".nc", ".zarr")
#: The tables of a benchmark, which `radiomaps.benchmarking.tables` writes for this page.
TABLES = "tables.json"


def report(path: str | os.PathLike[str], *, against: Path | None = None) -> Report | None:
    """The report of a store of maps, or of a run of `radiomaps trace`, `predict` or `benchmark`; None for others.

    `against` is a store of the same maps, whose differences are shown. Raises `DataError` for a damaged store or file,
    `UserError` for a store of other maps.
    """
    path = Path(path)
    if (path / TABLES).exists():
        return _of_benchmark(path)
    if (path / COVERAGE).exists():
        return coverage_report(path)
    if sampled := sorted(file for file in (path / "samples").glob("map-*") if file.suffix in SAMPLED):
        return _of_samples(path, sampled)
    store = store_of(path)
    return None if store is None else _of_store(store, scene_records(store), against)


def store_of(path: str | os.PathLike[str]) -> Path | None:
    """Find the store of maps at a path, which is a store or the run folder of a trace. Returns None for other paths."""
    path = Path(path)
    for store in (path / STORE, path):
        if (store / "zarr.json").exists():
            try:
                scene_records(store)
            except DataError:  # a store of other data
                continue
            return store
    return None


def _of_store(store: Path, records: list[Any], against: Path | None) -> Report:
    maps = open_maps(store)
    other = None if against is None else _same_maps(maps, against)
    shown: dict[str, xr.Dataset] = {}
    others: dict[str, xr.Dataset] = {}
    rows = []
    total = maps.sizes["scene"] * maps.sizes["tx"]
    for index in range(min(total, SHOWN)):
        # Show different scenes before further transmitters of one scene.
        tx, scene = divmod(index, maps.sizes["scene"])
        one = in_scene(maps.isel(scene=scene, tx=tx).load())
        label = f"{one['scene'].item()}, {records[scene].cell_names(maps['frequency_hz'].values)[tx]}"
        shown[label] = one
        rows.append({"map": label, **numbers(one)})
        if other is not None:
            others[label] = in_scene(other.isel(scene=scene, tx=tx).load())
            rows[-1] |= _differences(one, others[label])
    first = next(iter(shown.values()))
    blocks: list[Block] = [figures.map_viewer(shown, others)]
    figure = figures.city(first, records[0].footprints)
    blocks.append(Chart(figure, "The buildings of the first scene, its transmitter and a layer of path gain"))
    facts = {key: maps.attrs.get(key) for key in ("solver", "solver_version", "frequency_hz", "seed", "identity")}
    scenes = [
        {key: record[key] if not isinstance(record[key], list) else len(record[key])
         for key in ("name", "crs", "licence", "hash", "footprints")}
        for record in records
    ]  # fmt: skip
    note = f"{total} maps in all; {len(shown)} are shown." if total > len(shown) else ""
    return Report(
        f"Radio maps of {first['scene'].item()}" if len(records) == 1 else f"Radio maps of {len(records)} scenes",
        f"Path gain, time and direction of arrival on {' × '.join(str(maps.sizes[d]) for d in 'zyx')} voxels. {note}",
        [
            Section("Maps", blocks),
            Section("In numbers", [Table(rows, "Shares of outdoor voxels, and path gain")]),
            Section("Scenes and provenance", [
                Table(scenes, "Scenes, with the number of footprints"),
                Table([{"what": k, "value": json.dumps(v)} for k, v in facts.items() if v is not None], "How traced"),
            ]),
        ],
    )  # fmt: skip


def _same_maps(maps: xr.Dataset, against: Path) -> xr.Dataset:
    """The maps of another store; raises `UserError` if they are of other places."""
    other = open_maps(against)
    same = all(maps.sizes[name] == other.sizes.get(name) for name in maps["path_gain_db"].dims)
    if not same or not all(np.allclose(maps[f"tx_{axis}"], other[f"tx_{axis}"]) for axis in "xyz"):
        raise UserError(f"{against} contains other scenes, transmitters or voxels; give a store of the same maps")
    return other


def _differences(one: xr.Dataset, other: xr.Dataset) -> dict[str, Any]:
    """Median absolute differences of two maps of a place."""
    return {
        f"{look.title}, median |Δ| {look.unit}": float(np.nanmedian(np.abs(figures.difference(one, other, name))))
        for name, look in figures.LOOKS.items()
        if name in one and name in other
    }


def numbers(one: xr.Dataset) -> dict[str, Any]:
    """Numbers of one map: shares of voxels, and median and largest path gain.

    Shares in line of sight and without a path are relative to outdoor voxels.
    """
    outdoors = max(int((~one["building"]).sum()), 1)
    return {
        "buildings %": round(100 * float(one["building"].mean()), 1),
        "line of sight %": round(100 * float(one["los"].sum()) / outdoors, 1),
        "no path %": round(100 * float(one["no_path"].sum()) / outdoors, 1),
        "median gain dB": round(float(one["path_gain_db"].median()), 1),
        "largest gain dB": round(float(one["path_gain_db"].max()), 1),
    }


def _of_benchmark(path: Path) -> Report:
    found = read_json(path / TABLES)
    sections = []
    for table in found["tables"]:
        rows, about = table["rows"], str(table["about"])
        first = next((name for name in rows[0] if "NMSE" in name), None)
        sections.append(Section(str(table["title"]), [Table(rows, about or str(table["title"]), sort=first)]))
    notes: list[Block] = [Text(f"Maps by split and part: {json.dumps(found['maps'])}.")]
    notes += [Text(f"Pairs of scenes that share buildings across parts, by split: {json.dumps(found['leaks'])}.")]
    notes += [Text(f"Failed: {line}", "note") for line in found["failures"]]
    about = "Networks and baselines on the same ray-traced maps; NMSE is Σe² / ΣI² over all valid voxels."
    return Report("Radio maps: models and baselines", about, [*sections, Section("Maps and splits", notes)])


def _of_samples(path: Path, files: list[Path]) -> Report:
    """Maps that a model sampled, next to the truth that the files contain, if any."""
    from geoml.runs.folder import RunFolder

    run = RunFolder.load(path)
    predicted, truths, rows = {}, {}, []
    for file in files[:SHOWN]:
        with read_dataset(file) as opened:
            made = opened.load()
        number = int(file.stem.removeprefix("map-"))
        label = f"{made.attrs['scene']}, map {number}"
        predicted[label] = made
        row = {"map": label, "members": made.sizes["member"]}
        truth = figures.stored_truth(made)
        if truth is not None:
            truths[label] = truth
        for name in (name for name in figures.LOOKS if f"{name}_mean" in made):
            look = figures.LOOKS[name]
            row[f"{look.title} ± {look.unit}"] = look.factor * float(made[f"{name}_uncertainty"].median())
            if truth is not None:
                wrong = figures.difference(made, truth, name, of=f"{name}_mean")
                row[f"{look.title}, median error {look.unit}"] = float(np.nanmedian(np.abs(wrong)))
        rows.append(row)
    note = "" if truths else "These files contain no truth for comparison."
    return Report(
        "Sampled radio maps",
        f"Sampled with {run.config.get('checkpoint')}. {note}",
        [
            Section("Truth, prediction, error and uncertainty", [figures.prediction_viewer(predicted, truths)]),
            Section("In numbers", [Table(rows, "Medians over outdoor voxels")]),
            Section("Configuration", [
                Text(text_within(path, "config.yaml"), "code"),
                Text("; ".join(sorted({str(made.attrs.get("licence")) for made in predicted.values()})), "note"),
            ]),
        ],
    )  # fmt: skip

"""Stores of maps and sampled maps as sections of a report for the browser."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.data.store import read_dataset
from geoml.errors import DataError
from geoml.files import read_json
from geoml.report import Block, Chart, Report, Section, Table, Text
from radiomaps import charts
from radiomaps.store import open_maps, scene_records

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["TABLES", "report"]

#: Maps that a page shows at most.
SHOWN = 4
STORE = "maps.zarr"
#: What `radiomaps sample` writes, by `format=`.
SAMPLED = (".nc", ".zarr")
#: The tables of a benchmark, which `radiomaps.benchmark_report` leaves for this page.
TABLES = "tables.json"


def report(path: str | os.PathLike[str]) -> Report | None:
    """The report of a store of maps, of the run that traced one, of `radiomaps sample` or `benchmark`; else None.

    Errors: `DataError` for a store or file that is broken.
    """
    path = Path(path)
    if (path / TABLES).exists():
        return _of_benchmark(path)
    if sampled := sorted(file for file in (path / "samples").glob("map-*") if file.suffix in SAMPLED):
        return _of_samples(path, sampled)
    store = path / STORE if (path / STORE).exists() else path
    if not (store / "zarr.json").exists():
        return None
    try:
        records = scene_records(store)
    except DataError:  # a store of something else
        return None
    return _of_store(store, records)


def _of_store(store: Path, records: list[Any]) -> Report:
    maps = open_maps(store)
    shown: dict[str, xr.Dataset] = {}
    rows = []
    total = maps.sizes["scene"] * maps.sizes["tx"]
    for index in range(min(total, SHOWN)):
        # Different scenes before further transmitters of one.
        tx, scene = divmod(index, maps.sizes["scene"])
        one = _placed(maps.isel(scene=scene, tx=tx).load())
        label = f"{one['scene'].item()}, transmitter {tx}"
        shown[label] = one
        rows.append({"map": label, **_numbers(one)})
    first = next(iter(shown.values()))
    blocks: list[Block] = [charts.map_viewer(shown)]
    figure = charts.city(first, records[0].footprints)
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
            Section("In numbers", [Table(rows, "Shares of voxels outdoors, and path gain")]),
            Section("Scenes and provenance", [
                Table(scenes, "Scenes, with the number of footprints"),
                Table([{"what": k, "value": json.dumps(v)} for k, v in facts.items() if v is not None], "How traced"),
            ]),
        ],
    )  # fmt: skip


def _placed(one: xr.Dataset) -> xr.Dataset:
    """A map of a store in its scene's metres: a store's axes begin at each window's corner."""
    moved = {
        name: one[name] + float(one[f"origin_{axis}"]) for axis in "xy" for name in (axis, f"tx_{axis}") if name in one
    }
    return one.assign_coords(moved)


def _numbers(one: xr.Dataset) -> dict[str, Any]:
    outdoors = max(int((~one["building"]).sum()), 1)
    return {
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
    """Maps that a model drew, beside those of the store they were asked for, where it has them."""
    from geoml.runs import RunFolder

    run = RunFolder.load(path)
    predicted, truths, rows = {}, {}, []
    for file in files[:SHOWN]:
        with read_dataset(file) as opened:
            made = opened.load()
        number = int(file.stem.removeprefix("map-"))
        label = f"{made.attrs['scene']}, map {number}"
        predicted[label] = made
        row = {"map": label, "members": made.sizes["member"]}
        truth = _truth(run, number)
        if truth is not None:
            truths[label] = truth
        for name in (name for name in charts.LOOKS if f"{name}_mean" in made):
            look = charts.LOOKS[name]
            row[f"{look.title} ± {look.unit}"] = look.factor * float(made[f"{name}_uncertainty"].median())
            if truth is not None:
                wrong = abs(charts.error_of(made, truth, name)) * look.factor
                row[f"{look.title}, median error {look.unit}"] = float(np.nanmedian(wrong))
        rows.append(row)
    note = "" if truths else "No truth is known of these maps."
    return Report(
        "Sampled radio maps",
        f"Drawn by {run.config.get('checkpoint')}. {note}",
        [
            Section("Truth, prediction, error and uncertainty", [charts.prediction_viewer(predicted, truths)]),
            Section("In numbers", [Table(rows, "Medians over voxels outdoors")]),
            Section("What was asked for", [
                Text((path / "config.yaml").read_text(), "code"),
                Text("; ".join(sorted({str(made.attrs.get("licence")) for made in predicted.values()})), "note"),
            ]),
        ],
    )  # fmt: skip


def _truth(run: Any, number: int) -> xr.Dataset | None:
    """The store's own map of that number; None where nothing was traced, or its store is gone."""
    store = run.config.get("store")
    if not store or not Path(store).exists():
        return None
    from radiomaps.sampling import truth_of
    from radiomaps.training import load_trained

    return truth_of(load_trained(Path(run.config["checkpoint"])).task, store, number)

"""Calibration: rows that are read or refused, derivatives, parameters that come back, and no change without a cause."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from geoml.errors import DataError, UserError
from radiomaps.antennas.sites import cells_of, read_sites
from radiomaps.maps.layout import Transmitter
from radiomaps.materials import read_materials
from radiomaps.raytrace.calibration import Measurements, Priors, read_measurements
from radiomaps.raytrace.calibration.fit import fit
from radiomaps.raytrace.calibration.forward import StoredPaths
from radiomaps.raytrace.calibration.noise import Shadowing, Whitened
from radiomaps.raytrace.calibration.run import calibrated, held_out
from radiomaps.scenes import Footprint, Scene
from radiomaps.scenes.extrude import scene_of_footprints
from radiomaps.scenes.projection import WGS84, local_crs, project

NAMES = ("a", "b")


def scene(crs: str = "local") -> Scene:
    made = scene_of_footprints("block", [Footprint(shapely.box(40, 40, 60, 60), 10.0)], bounds=(0, 0, 200, 200))
    return replace(made, crs=crs)


def stored(seed: int = 0, count: int = 160) -> tuple[StoredPaths, np.ndarray]:
    """Paths of three directive cells as a tracer might find them, with some mirrored by two materials."""
    random = np.random.default_rng(seed)
    sites = [(0.0, 0.0, 0.5), (200.0, 0.0, 2.5), (100.0, 200.0, -1.5)]
    cells = [
        Transmitter((x, y, 20.0), 40.0, f"cell{k}", "tr38901", "V", (yaw, 0.0, 0.0))
        for k, (x, y, yaw) in enumerate(sites)
    ]
    points = np.column_stack([random.uniform(0, 200, (count, 2)), np.full(count, 1.5)])
    cell, direct = random.integers(0, 3, count), random.random(count) < 0.3
    away = points - np.array([cells[k].position for k in cell])
    length = np.linalg.norm(away, axis=1)
    turned = away[:, None] / length[:, None, None] + random.normal(0, 0.5, (count, 8, 3)) * [1, 1, 0.1]
    turned[:, 0] = away / length[:, None]
    hits = np.zeros((count, 8, 2))
    number = random.poisson(1.5, (count, 8))
    number[direct, 0] = 0
    np.put_along_axis(hits, random.integers(0, 2, (count, 8, 1)), number[..., None], axis=2)
    power = (0.085 / (4 * np.pi * length[:, None] * (1 + 0.3 * np.arange(8)))) ** 2 * 10 ** (-0.6 * number)
    turned /= np.linalg.norm(turned, axis=-1, keepdims=True)
    return StoredPaths(tuple(cells), NAMES, cell, power, turned, hits, direct), points


def shadowed(paths: StoredPaths, points: np.ndarray, values: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    power = paths.predict(values, paths.parameters)[0]
    sigma = np.where(paths.direct, 3.0, 5.0)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    covariance = sigma[:, None] * sigma * np.exp(-apart / 20) * (paths.cell[:, None] == paths.cell)
    factor = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(points)))
    return power + factor @ random.normal(size=len(points)) + random.normal(0, 1.5, len(points))


def test_derivatives_are_those_of_the_powers():
    paths, _ = stored()
    names = paths.parameters
    assert len(names) == 3 + 3 + 2
    values = np.array([1.0, -2.0, 3.0, 5.0, -4.0, 7.0, 1.0, 2.0])
    _, slopes = paths.predict(values, names)
    for k in range(len(names)):
        step = np.eye(len(names))[k] * 1e-3
        numeric = (paths.predict(values + step, names)[0] - paths.predict(values - step, names)[0]) / 2e-3
        assert slopes[:, k] == pytest.approx(numeric, abs=1e-3)


def test_what_is_wrong_comes_back_and_intervals_hold():
    inside, errors = [], []
    for seed in range(4):
        paths, points = stored(seed)
        random = np.random.default_rng([seed, 1])
        truth = np.array([*random.normal(0, 6, 3), *random.normal(0, 10, 3), *np.abs(random.normal(0, 3, 2))])
        measured = shadowed(paths, points, truth, seed)
        found = fit(paths, points, measured, np.ones(len(points), int), Priors())
        low, high = found.interval()
        inside.append((low <= truth) & (truth <= high))
        errors.append(found.draws.mean(axis=0) - truth)
        before, after = (np.std(measured - paths.predict(v, paths.parameters)[0]) for v in (0 * truth, found.values))
        assert after < before
    assert np.mean(inside) > 0.75
    assert np.abs(np.array(errors)[:, :3]).mean() < 2.0


def test_nothing_changes_without_a_cause():
    for seed in range(4):
        paths, points = stored(seed)
        measured = shadowed(paths, points, np.zeros(8), seed)
        found = fit(paths, points, measured, np.ones(len(points), int), Priors())
        changed = paths.predict(found.values, paths.parameters)[0] - paths.predict(np.zeros(8), paths.parameters)[0]
        assert np.abs(changed).max() < 0.1
        assert not found.applied.any()


def test_priors_of_zero_are_not_fitted():
    paths, points = stored()
    measured = shadowed(paths, points, np.array([9.0, 0, 0, 0, 0, 0, 0, 0]), 3)
    found = fit(paths, points, measured, np.ones(len(points), int), Priors(azimuth_deg=0, loss_db=0))
    assert found.values[0] == pytest.approx(9, abs=2.5)
    assert (found.values[3:] == 0).all()
    with pytest.raises(UserError, match="offset_db=-1"):
        Priors(offset_db=-1)


def test_files_are_those_that_trace_takes(tmp_path: Path):
    paths, points = stored(2)
    cells = cells_of(
        [
            {"name": t.name, "position": list(t.position), "azimuth_deg": 90 - np.degrees(t.orientation[0]),
             "pattern": "tr38901", "power_dbm": 40.0}
            for t in paths.transmitters
        ]
    )  # fmt: skip
    paths = replace(paths, transmitters=tuple(cell.transmitter() for cell in cells), materials=("brick", "concrete"))
    truth = np.array([8.0, 0, -8.0, 25.0, 0, 0, 0, 5.0])
    power = shadowed(paths, points, truth, 2)
    names = np.array([paths.transmitters[k].name for k in paths.cell])
    measured = Measurements(points, names, power, np.ones(len(power), np.int64), {"without a power": 3})
    made = calibrated(cells, paths, measured, Priors(), block_m=50, share=0.25, seed=0)
    assert made.scores["held_out_after_rmse_db"] < made.scores["held_out_before_rmse_db"]
    files = made.write(tmp_path)
    back = read_sites(files["sites"])
    assert [cell.name for cell in back] == ["cell0", "cell1", "cell2"]
    assert back[0].power_dbm - 40 == pytest.approx(8, abs=3)
    turn = (back[0].azimuth_deg - cells[0].azimuth_deg + 180) % 360 - 180
    assert turn == pytest.approx(25, abs=12)
    (material,) = [m for m in read_materials(files["materials"]) if m.name == "concrete"]
    assert material.loss_db == pytest.approx(5, abs=2.5)
    lines = files["residuals"].read_text().splitlines()
    assert lines[0] == "x,y,z,cell,power_dbm,readings,before_db,after_db,held_out"
    assert len(lines) == len(measured) + 1
    # What the files say is what was fitted.
    turned = replace(paths, transmitters=tuple(cell.transmitter() for cell in back))
    losses = np.zeros(len(turned.parameters))
    for m in read_materials(files["materials"]):
        losses[turned.parameters.names.index(f"loss_db:{m.name}")] = m.loss_db
    assert turned.predict(losses, turned.parameters)[0] == pytest.approx(measured.power_dbm - made.after_db, abs=0.02)


def test_rows_are_read_by_name_place_and_unit(tmp_path: Path):
    file = tmp_path / "drive.csv"
    file.write_text("\ufeffX;Y;Cell_ID;RSRP;speed\n10,5;20;north;-81,5;3\n\n30;20;south;;3\n30;20;south;-90;3\n")
    found = read_measurements(file, scene())
    assert found.points.tolist() == [[10.5, 20.0, 1.5], [30.0, 20.0, 1.5]]
    assert found.cell.tolist() == ["north", "south"]
    assert found.power_dbm.tolist() == [-81.5, -90.0]
    assert found.left_out == {"without a power": 1}
    for heading in ("PCI,x,y,SS-RSRP (dBm),RSSI (dBm),RSRQ [dB]", "Cell Name,X_m,Y_m,rsrp,rssi,SINR"):
        file.write_text(f"{heading}\nnorth,1,2,-81.5,-60,-9\n")
        assert read_measurements(file, scene()).power_dbm.tolist() == [-81.5]
    file.write_text("cell,x,y,RSSI\nnorth,1,2,-60\n")
    assert read_measurements(file, scene()).power_dbm.tolist() == [-60.0]
    crs = local_crs(11.57, 48.14)
    lon, lat = project(np.array([[25.0, 30.0]]), crs, WGS84)[0]
    file.write_text(f"lat,lon,height_m,cell,dbm\n{lat:.9f},{lon:.9f},3,north,-70\n")
    assert read_measurements(file, scene(crs)).points[0] == pytest.approx([25, 30, 3], abs=0.01)
    with pytest.raises(UserError, match="is not georeferenced"):
        read_measurements(file, scene())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,power_dbm\n1,2,-80\n", "lacks a column for cell"),
        ("x,cell,power_dbm\n1,a,-80\n", "x and y, or lat and lon"),
        ("x,y,cell,power_dbm\n1,2,a,loud\n", "line 2: power_dbm is 'loud'"),
        ("x,y,cell,power_dbm\n1,2,a,-80\n1,2,a\n", "line 3: 3 values under 4 columns"),
        ("x,y,cell,power_dbm\n1,inf,a,-80\n", "line 2: y is 'inf'"),
        ("x,y,cell,power_dbm\n1,2,a,-8000\n", "expected a number, -250 … 100"),
        ("x,y,cell,power_dbm,rsrp\n1,2,a,-80,-80\n", "two columns for power_dbm"),
        ("x,y,cell,power_dbm\n1,2,a,\n", "contains no measured power"),
        ("", "its header is empty"),
    ],
)
def test_rows_that_are_wrong_are_named(tmp_path: Path, text: str, message: str):
    file = tmp_path / "drive.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_measurements(file, scene())


def test_places_outside_and_indoors_are_counted():
    points = np.array([[50.0, 50, 1.5], [50, 50, 12], [20, 20, 1.5], [20.4, 20.2, 1.5], [900, 0, 1.5]])
    measured = Measurements(points, np.array(["a"] * 5), np.array([-80.0, -70, -60, -64, -50]), np.ones(5, np.int64))
    found = measured.within(scene(), ["a"])
    assert found.left_out == {"outside the scene": 1, "inside a building": 1}
    assert len(found) == 3
    averaged = found.averaged(2.0)
    assert sorted(averaged.power_dbm.tolist()) == [-70.0, -62.0]
    assert sorted(averaged.count.tolist()) == [1, 2]
    with pytest.raises(UserError, match="measured cell 'a' unknown"):
        measured.within(scene(), ["b"])


def test_blocks_are_held_out_whole():
    points = np.random.default_rng(0).uniform(0, 300, (500, 3))
    apart = held_out(points, 50, 0.25, 1)
    assert 0.15 < apart.mean() < 0.35
    blocks = np.floor(points[:, :2] / 50)
    for block in np.unique(blocks, axis=0):
        assert len(set(apart[(blocks == block).all(axis=1)])) == 1


def test_intervals_hold_more_often_where_the_map_is_wrong():
    """Errors that look like a turn of an antenna widen the intervals of the turn, and not those of offsets alone."""
    paths, points = stored(3)
    white = Whitened(points, paths, np.ones(len(points), np.int64))
    parameters = paths.parameters
    slopes = paths.predict(np.zeros(len(parameters)), parameters)[1]
    turns = np.array([name.startswith("azimuth") for name in parameters.names])
    doubting = white.doubting(slopes * turns)
    wider = [np.diag(more - less) for more, less in zip(doubting.shared, white.shared, strict=True)]
    assert all((extra >= 0).all() for extra in wider)
    assert sum(extra.sum() for extra in wider) > 1
    noise = white.drawn(64, np.random.default_rng(0), Shadowing(), np.zeros(len(points)), np.ones(len(points)),
                        slopes, np.ones(len(parameters)))  # fmt: skip
    spread = np.std([one.logs for one in noise], axis=0)
    assert (spread > 0.05).all()
    assert (spread < 2.0).all()


def test_drive_tests_with_gaps_and_other_units(tmp_path):
    file = tmp_path / "drive.csv"
    rows = ["10,5,5,7.0,-110", "10,6,5,7.0,N/A", "10,,5,7.0,-111", "10,7,5,,-111", "10,8,5,8,−100"]
    file.write_text("# drive\nHeight (ft),x,y,PCI,Power (dBW)\n" + "\n".join(rows) + "\n")
    found = read_measurements(file, scene())
    assert found.power_dbm.tolist() == [-80.0, -70.0]
    assert found.cell.tolist() == ["7", "8"]
    assert found.points[:, 2] == pytest.approx([3.048, 3.048])
    assert found.left_out == {"without a power": 1, "without a place": 1, "without a cell": 1}


def test_powers_without_their_sign_are_refused(tmp_path):
    (tmp_path / "drive.csv").write_text("x,y,cell,rsrp\n10,5,a,80\n10,6,a,91\n")
    with pytest.raises(DataError, match=r"the median power is 85.5 dBm"):
        read_measurements(tmp_path / "drive.csv", scene())

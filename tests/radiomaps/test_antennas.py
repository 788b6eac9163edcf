"""Patterns against their closed forms and Sionna's, turning by invariance, arrays, Planet files, and site files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import radiomaps
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from radiomaps.antennas.arrays import antenna_field, rotation, steering_weights
from radiomaps.antennas.pattern import PATTERNS, MeasuredPattern, gain_dbi
from radiomaps.antennas.planet import read_pattern
from radiomaps.antennas.sites import RadioCell, cells_of, read_sites, write_sites
from radiomaps.maps.layout import Transmitter
from radiomaps.raytrace import TraceOptions, activate, find_paths
from radiomaps.scenes.extrude import flat_ground
from radiomaps.scenes.scene import Scene


def directions(count=200, seed=1):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def planet(path, gain="15.5 dBi", horizontal=None, vertical=None, extra=""):
    def cut(name, values):
        return "\n".join([f"{name} {len(values)}", *(f"{angle} {loss:.2f}" for angle, loss in values)])

    angle = np.arange(360)
    wrapped = (angle + 180) % 360 - 180
    horizontal = (
        list(zip(angle, np.minimum(12 * (wrapped / 65) ** 2, 25), strict=True)) if horizontal is None else horizontal
    )
    vertical = (
        list(zip(angle, np.minimum(12 * ((wrapped - 6) / 10) ** 2, 22), strict=True)) if vertical is None else vertical
    )
    head = f"NAME a sector\nFREQUENCY 1800\nGAIN {gain}\n{extra}"
    path.write_text(f"{head}{cut('HORIZONTAL', horizontal)}\n{cut('VERTICAL', vertical)}\n")
    return path


def test_patterns_are_their_closed_forms():
    zenith, azimuth = np.meshgrid(np.radians(np.arange(1, 180.0)), np.radians(np.arange(-179, 180.0)), indexing="ij")
    # TR 38.901, table 7.3-1, in degrees as it is printed there
    vertical = -np.minimum(12 * ((np.degrees(zenith) - 90) / 65) ** 2, 30)
    horizontal = -np.minimum(12 * (np.degrees(azimuth) / 65) ** 2, 30)
    expected = 8 - np.minimum(-(vertical + horizontal), 30)
    np.testing.assert_allclose(gain_dbi("tr38901", zenith, azimuth), expected, atol=1e-9)
    np.testing.assert_allclose(gain_dbi("tr38901", zenith, azimuth + 4 * np.pi), expected, atol=1e-6)
    np.testing.assert_allclose(gain_dbi("dipole", zenith, azimuth), 10 * np.log10(1.5 * np.sin(zenith) ** 2), atol=1e-9)
    assert (gain_dbi("iso", zenith, azimuth) == 0).all()
    solid = np.sin(zenith) * np.radians(1.0) ** 2 / (4 * np.pi)
    for lossless in ("iso", "dipole", "hw_dipole"):  # as much power is sent as is fed
        assert (10 ** (gain_dbi(lossless, zenith, azimuth) / 10) * solid).sum() == pytest.approx(1, abs=0.005)
    with pytest.raises(UserError, match="'tr38091' unknown; did you mean 'tr38901'"):
        gain_dbi("tr38091", zenith, azimuth)


@pytest.mark.parametrize("polarization", ["V", "H", "cross"])
@pytest.mark.parametrize("pattern", [*PATTERNS, "measured"])
def test_fields_are_those_that_the_ray_tracer_sends(tmp_path, pattern, polarization):
    activate()
    import mitsuba as mi
    from sionna.rt.antenna_pattern import antenna_pattern_registry, antenna_pattern_to_world_implicit

    from radiomaps.raytrace.world import Source

    what = read_pattern(planet(tmp_path / "a.msi")) if pattern == "measured" else pattern
    weights = tuple(np.random.default_rng(0).normal(size=6) + 1j * np.random.default_rng(1).normal(size=6))
    transmitter = Transmitter((0, 0, 0), 0, "", what, polarization, (0.7, 0.2, -0.4), 2, 3, weights)
    vectors = directions()
    direction = mi.Vector3f(*(mi.Float(vectors[:, k].astype(np.float32)) for k in range(3)))
    field = Source(transmitter, 0.1).field(direction).numpy()
    eye = mi.Matrix3f([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    ours = antenna_field(transmitter, vectors)
    for index, name in enumerate("VH"):  # the parts along V and H of the same frame
        (basis,) = antenna_pattern_registry.get("iso")(polarization=name).patterns
        part = antenna_pattern_to_world_implicit(basis, eye, direction, direction="out").numpy()
        found = (field[:2] * part[:2]).sum(0) + 1j * (field[2:] * part[:2]).sum(0)
        np.testing.assert_allclose(found, ours[:, index], atol=2e-3)


def test_turning_the_antenna_turns_its_field():
    """|field| along R d of an antenna turned by R is that along d of the antenna as it was."""
    vectors = directions()
    antenna = Transmitter((0, 0, 0), pattern="tr38901", rows=4, columns=2)
    turned = antenna.turned(azimuth_deg=200, tilt_deg=12)
    power = (np.abs(antenna_field(antenna, vectors)) ** 2).sum(-1)
    moved = (np.abs(antenna_field(turned, vectors @ rotation(turned.orientation).T)) ** 2).sum(-1)
    np.testing.assert_allclose(moved, power, rtol=1e-9)
    # Azimuth counts clockwise from north, tilt below the horizon.
    best = vectors[np.argmax((np.abs(antenna_field(turned, vectors)) ** 2).sum(-1))]
    boresight = np.array([np.sin(np.radians(200)), np.cos(np.radians(200)), 0]) * np.cos(np.radians(12))
    boresight[2] = -np.sin(np.radians(12))
    assert best @ boresight > 0.97


def test_weights_steer_the_beam():
    elevation = np.radians(np.linspace(-60, 60, 241))
    ahead = np.stack([np.cos(elevation), np.zeros_like(elevation), np.sin(elevation)], -1)
    weights = tuple(steering_weights(8, 1, tilt_deg=10).ravel())
    array = Transmitter((0, 0, 0), rows=8, weights=weights)
    power = (np.abs(antenna_field(array, ahead)) ** 2).sum(-1)
    assert np.degrees(elevation[power.argmax()]) == pytest.approx(-10, abs=0.3)
    assert power.max() == pytest.approx(8, rel=1e-3)  # as many elements, as much gain
    sphere = directions(40_000)
    assert (np.abs(antenna_field(array, sphere)) ** 2).sum(-1).mean() == pytest.approx(1, abs=0.03)
    with pytest.raises(UserError, match="2 weights for an array of 8 × 1"):
        replace(array, weights=(1, 2))


def test_a_planet_file_is_read_as_its_makers_mean_it(tmp_path):
    pattern = read_pattern(planet(tmp_path / "a.msi", gain="15.5 dBi"))
    assert pattern.name == "a sector"
    assert pattern.gain_dbi == 15.5
    below = gain_dbi(pattern, np.radians(96.0), 0.0)  # vertical angles count downwards: the lobe is 6° below
    assert float(below) == pytest.approx(15.5, abs=0.01)
    assert float(gain_dbi(pattern, np.radians(84.0), 0.0)) < 2
    assert read_pattern(planet(tmp_path / "b.pln", gain="13,35")).gain_dbi == pytest.approx(15.5)  # dBd, decimal comma
    left = [(a, 20.0 if 180 < a < 360 else 0.0) for a in range(360)]  # weak over 180 … 360: to the left of boresight
    lopsided = read_pattern(planet(tmp_path / "c.msi", horizontal=left, vertical=[(a, 0.0) for a in range(360)]))
    assert float(gain_dbi(lopsided, np.pi / 2, np.radians(90.0))) == pytest.approx(-4.5)
    assert float(gain_dbi(lopsided, np.pi / 2, np.radians(-90.0))) == pytest.approx(15.5)


def test_both_measured_cuts_are_met(tmp_path):
    pattern = read_pattern(planet(tmp_path / "a.msi"))
    azimuth = np.radians(np.arange(360.0))
    level = gain_dbi(pattern, np.full(360, np.radians(96)), azimuth)  # the horizontal cut runs through the lobe
    np.testing.assert_allclose(level, 15.5 - np.array(pattern.horizontal), atol=1e-9)
    elevation = np.radians(np.arange(-90, 91.0))
    front = -np.interp(np.arange(-90, 91) % 360, np.arange(360), pattern.vertical)
    np.testing.assert_allclose(gain_dbi(pattern, np.pi / 2 - elevation, 0 * elevation) - 15.5, front, atol=1e-9)


def test_vertical_angles_that_count_upwards_are_turned_over(tmp_path):
    angle = np.arange(360)
    up = [(a, min(12 * (((a + 180) % 360 - 180 + 6) / 10) ** 2, 22.0)) for a in angle]
    with pytest.warns(UserWarning, match="main lobe at -6° with ELECTRICAL_TILT 6"):
        pattern = read_pattern(planet(tmp_path / "up.msi", vertical=up, extra="ELECTRICAL_TILT 6\n"))
    assert float(gain_dbi(pattern, np.radians(96.0), 0.0)) == pytest.approx(15.5, abs=0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no HORIZONTAL cut"),
        ("NAME x\nGAIN 3\nHORIZONTAL 360\n0 0\n1 0\n", "HORIZONTAL announces 360 lines, but only 2 follow"),
        ("GAIN 3\nHORIZONTAL many\n", "expected the number of lines"),
        ("GAIN ?\nHORIZONTAL 8\n" + "\n".join(f"{a} 0" for a in range(0, 360, 45)) + "\nVERTICAL 8\n"
         + "\n".join(f"{a} 0" for a in range(0, 360, 45)), "has no GAIN"),
        ("GAIN 3\nHORIZONTAL 8\n" + "\n".join(f"{a} 0" for a in range(8)) + "\nVERTICAL 8\n"
         + "\n".join(f"{a} 0" for a in range(0, 360, 45)), "a cut has a gap of 353°"),
    ],
)  # fmt: skip
def test_a_broken_planet_file_says_so(tmp_path, text, message):
    (tmp_path / "x.msi").write_text(text)
    with pytest.raises(DataError, match=message):
        read_pattern(tmp_path / "x.msi")


SITES = """
frequency_mhz: 3500
power_dbm: 40
sites:
  - name: A
    position: [10, 20, 30]
    pattern: a.msi
    cells:
      - azimuth: 0
        tilt: 4
      - {azimuth: 120, power_dbm: 43}
  - {name: B, lat: 48.1, lon: 11.5, height_m: 12, pattern: tr38901, rows: 4, electrical_tilt_deg: 6, frequency_ghz: 0.7}
"""


def test_sites_come_in_yaml_and_csv(tmp_path):
    planet(tmp_path / "a.msi")
    (tmp_path / "s.yaml").write_text(SITES)
    cells = read_sites(tmp_path / "s.yaml")
    assert [(c.name, c.azimuth_deg, c.tilt_deg, c.power_dbm, c.frequency_hz) for c in cells] == [
        ("A-1", 0, 4, 40, 3.5e9), ("A-2", 120, 0, 43, 3.5e9), ("B", 0, 0, 40, 0.7e9)]  # fmt: skip
    assert isinstance(cells[0].pattern, MeasuredPattern)
    transmitter = cells[1].transmitter()
    assert transmitter.position == (10, 20, 30)
    assert transmitter.orientation == pytest.approx((np.radians(-30), 0, 0))
    assert read_sites(write_sites(tmp_path / "again.yaml", cells)) == cells
    assert cells_of(json.loads(json.dumps([cell.describe() for cell in cells]))) == cells
    (tmp_path / "s.csv").write_text(
        "\ufeffCell;X;Y;Z;Azimuth;Tilt;Power_dBm;Frequency_MHz;Antenna\nc1;1,5;2;3;45;2;46;868;dipole\n\n"
    )
    expected = RadioCell(
        name="c1", x=1.5, y=2, z=3, azimuth_deg=45, tilt_deg=2, power_dbm=46, frequency_hz=868e6, pattern="dipole"
    )
    assert read_sites(tmp_path / "s.csv") == (expected,)


def test_places_on_earth_and_heights_above_ground_need_the_scene():
    from radiomaps.scenes.projection import local_crs

    cell = RadioCell(name="B", lat=48.1 + 0.0009, lon=11.5, height_m=12)
    with pytest.raises(UserError, match="need the scene"):
        cell.transmitter()
    scene = Scene("s", (flat_ground((-50, -50, 50, 150), z=7.0),), crs=local_crs(11.5, 48.1))
    assert cell.transmitter(scene).position == pytest.approx((0, 100.1, 19), abs=0.1)
    with pytest.raises(UserError, match="is not georeferenced"):
        cell.transmitter(replace(scene, crs="local"))


def test_headings_of_planning_tools(tmp_path):
    (tmp_path / "s.csv").write_text(
        "Site Name,Latitude (°),Longitude (°),Antenna Height [m],Azimuth (deg),Mechanical Tilt,TX Power (dBm),"
        "Frequency (MHz)\nA,48.1,11.5,25,120,4,43,3500\n"
    )
    expected = RadioCell(name="A", lat=48.1, lon=11.5, height_m=25, azimuth_deg=120, tilt_deg=4, power_dbm=43,
                         frequency_hz=3.5e9)  # fmt: skip
    assert read_sites(tmp_path / "s.csv") == (expected,)


@pytest.mark.parametrize(
    ("head", "row", "expected"),
    [
        ("power (W)", "20", {"power_dbm": 43.0103}),
        ("Tx Power [mW]", "100", {"power_dbm": 20.0}),
        ("Mechanical Downtilt (deg)", "4", {"tilt_deg": 4.0}),
        ("tilt", "−3", {"tilt_deg": -3.0}),
        ("polarization", "±45°", {"polarization": "cross"}),
        ("Antenna", "TR38901", {"pattern": "tr38901"}),
        ("Frequency (GHz)", "3.5", {"frequency_hz": 3.5e9}),
    ],
)
def test_a_column_in_another_unit_or_word(tmp_path, head, row, expected):
    (tmp_path / "s.csv").write_text(f"sep=,\n# planned\nname,x,y,z,{head}\n# north\na,1,2,3,{row}\n")
    (cell,) = read_sites(tmp_path / "s.csv")
    for name, value in expected.items():
        assert getattr(cell, name) == (pytest.approx(value) if isinstance(value, float) else value)


def test_names_of_site_and_cell(tmp_path):
    (tmp_path / "s.csv").write_text("site,sector,x,y,height (ft)\nn,1,0,0,100\nn,2,0,0,100\n")
    assert [(c.name, round(c.height_m, 2)) for c in read_sites(tmp_path / "s.csv")] == [("n-1", 30.48), ("n-2", 30.48)]
    (tmp_path / "s.csv").write_text("site,cell,x,y,z\nn,c7,0,0,3\n")
    assert [cell.name for cell in read_sites(tmp_path / "s.csv")] == ["c7"]
    assert [cell.name for cell in cells_of({"sites": {"a": {"x": 0, "y": 0, "z": 1}}})] == ["a"]
    assert [cell.name for cell in cells_of({"a": {"x": 0, "y": 0, "z": 1}, "b": {"x": 1, "y": 0, "z": 1}})] == [
        "a",
        "b",
    ]


def test_planet_files_with_gains_are_refused_and_zenith_angles_noted(tmp_path):
    gains = [(angle, 15 - min(12 * (((angle + 180) % 360 - 180) / 65) ** 2, 30)) for angle in range(360)]
    planet(tmp_path / "a.msi", horizontal=gains)
    with pytest.raises(DataError, match=r"attenuations run -15 … 15 dB; expected 0 or more"):
        read_pattern(tmp_path / "a.msi")
    zenith = [(angle, min(12 * ((angle - 96) / 10) ** 2, 22)) for angle in range(360)]
    planet(tmp_path / "b.msi", vertical=zenith)
    with pytest.warns(UserWarning, match="96° off the horizon"):
        read_pattern(tmp_path / "b.msi")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_tables_of_spreadsheets_in_their_encodings(tmp_path, encoding):
    (tmp_path / "s.csv").write_bytes("name;x;y;z\r\nMünchner Straße;1,5;2;3\r\n".encode(encoding))
    (cell,) = read_sites(tmp_path / "s.csv")
    assert (cell.name, cell.x) == ("Münchner Straße", 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cells: [{name: &n A, x: 1, y: 2, z: 3}, {name: *n, x: 1, y: 2, z: 3}]", "an anchor .* is not allowed"),
        ("cells: " + "[" * 60 + "]" * 60, "more than 40 levels"),
        ("cells: !!python/object/apply:os.getcwd []", "the tag .* is not allowed"),
        ("\0\1\2", "is not text"),
    ],
)
def test_sites_of_others_are_data(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_sites(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,z\n1,2,here\n", "a cell: z='here' is no number"),
        ("x,y\n1,2\n", "cell 'cell1': give its height, either z"),
        ("z\n1\n", "either x and y in metres or lat and lon"),
        ("x,y,z,azimut\n1,2,3,4\n", "field 'azimut' unknown; did you mean 'azimuth'"),
        ("x,y,z,azimuth,azimuth_deg\n1,2,3,4,5\n", "both set 'azimuth_deg'"),
        ("x,y,z,pattern\n1,2,3,horn\n", "pattern 'horn' unknown"),
        ("x,y,z,pattern\n1,2,3,none.msi\n", "none.msi does not exist"),
        ("x,y,z,tilt\n1,2,3,100\n", "tilt_deg=100; expected -90 … 90"),
        ("x,y,z,rows\n1,2,3,2.5\n", "rows=2.5; expected a whole number"),
        ("x,y,z,rows,weights\n1,2,3,2,1\n", "1 weights for 2 elements"),
        ("name,x,y,z\na,1,2,3\na,1,2,4\n", "cell 'a' is defined twice"),
        ("x,y,z\n1,2,3,4\n", "1 values more than the header"),
        ("x,y,z,x\n1,2,3,4\n", "two columns 'x'"),
        ("x,y,z,\n1,2,3,4\n", "line 2 has '4' in a column without a name"),
        ("", "no cell; expected"),
    ],
)
def test_a_wrong_sites_file_names_the_cell(tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_sites(tmp_path / "s.csv")


def test_cells_are_traced_with_their_antennas_and_carriers():
    """In free space a map of two cells is Friis' law with each cell's pattern at its own carrier."""
    from radiomaps.generation.plan import Placement, Plan, Window
    from radiomaps.maps.layout import friis_gain_db

    scene = Scene("empty", (flat_ground((0, 0, 128, 128), z=-300.0, material="vacuum"),))
    cells = cells_of([{"x": 64, "y": 20, "z": 10, "pattern": "tr38901", "azimuth": 20, "tilt": 5, "frequency_ghz": 3.5},
                      {"x": 64, "y": 20, "z": 10, "pattern": "dipole", "frequency_ghz": 0.868}])  # fmt: skip
    grid = Grid.box({"z": 1, "y": 60, "x": 32}, {"z": 3, "y": 100, "x": 96}, {"z": 2, "y": 8, "x": 8})
    maps = radiomaps.trace(scene, [cell.transmitter() for cell in cells], grid, rays=1000, depth=0)
    assert maps.frequency_hz.values.tolist() == [3.5e9, 0.868e9]
    z, y, x = np.meshgrid(maps.z, maps.y, maps.x, indexing="ij")
    away = np.stack([x - 64, y - 20, z - 10], -1)
    distance = np.linalg.norm(away, axis=-1)
    for index, cell in enumerate(cells):
        gain = (np.abs(antenna_field(cell.transmitter(), away / distance[..., None])) ** 2).sum(-1)
        expected = friis_gain_db(distance, cell.frequency_hz) + 10 * np.log10(gain)
        np.testing.assert_allclose(maps.path_gain_db.values[index], expected, atol=0.01)
    plan = Plan(
        ({"name": "procedural"},), Placement(sites=[cell.describe() for cell in cells]), Window(64, 8, (2, 2, 1))
    )
    assert plan.samples == 2
    assert plan.frequencies_of(0, 2) == [3.5e9, 0.868e9]
    assert plan.describe()["placement"]["sites"][1]["pattern"] == "dipole"
    with pytest.raises(UserError, match="leave one of them out"):
        replace(plan, frequencies_hz=(1e9,))


def test_weights_of_an_array_act_on_exact_paths():
    scene = Scene("empty", (flat_ground((-100, -100, 100, 100), z=-50.0, material="vacuum"),))
    weights = tuple(steering_weights(4, 1, tilt_deg=-20).ravel())
    transmitter = Transmitter((0, 0, 0), rows=4, weights=weights)
    points = np.array([[50.0, 0, 50 * np.tan(np.radians(20))], [50.0, 0, -20]])
    table = find_paths(scene, [replace(transmitter, frequency_hz=2e9)], points, TraceOptions(depth=0), top=1)
    assert table.attrs["frequency_hz"] == 2e9
    distance = np.linalg.norm(points, axis=1)
    gain = (np.abs(antenna_field(transmitter, points / distance[:, None])) ** 2).sum(-1)
    assert gain[0] == pytest.approx(4, rel=1e-3)
    single = find_paths(scene, [Transmitter((0, 0, 0))], points, TraceOptions(frequency_hz=2e9, depth=0), top=1)
    np.testing.assert_allclose((table.gain_db - single.gain_db).values.ravel(), 10 * np.log10(gain), atol=0.01)

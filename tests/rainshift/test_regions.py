"""Regions: the boxes of the protocol, who touches whom, and one's own files."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations

import pytest

from geoml.errors import UserError
from rainshift.places import regions as module
from rainshift.places.regions import (
    SHIPPED,
    Region,
    adjacent,
    as_rows,
    grids,
    load_region,
    neighbours,
    overlap,
    region,
    regions,
)

BOUNDS = {
    "africa-south": (-40, -20, 18, 38),
    "amazon-basin": (-20, 0, -60, -40),
    "arabian-peninsula": (15, 35, 40, 60),
    "australasia-east": (-40, -20, 137, 157),
    "blacksea": (35, 55, 22, 42),
    "cape-horn": (-56, -36, -80, -60),
    "caribbean": (5, 25, -80, -60),
    "east-asia-north-east": (30, 50, 130, 150),
    "east-asia-south": (20, 40, 100, 120),
    "europe_west": (40, 60, -5, 15),
    "horn-of-africa": (-5, 15, 32, 52),
    "melanesia": (-15, 5, 130, 150),
    "northamerica-east": (30, 50, -90, -70),
    "northamerica-west": (40, 60, -130, -110),
    "southamerica-east": (-40, -20, -60, -40),
    "southeastasia-west": (-2, 18, 90, 110),
    "tibetan-plateau": (30, 50, 75, 95),
    "west-africa": (4, 24, -10, 10),
}


def test_bounds_are_those_of_the_data_set():
    found = {name: (r.lat_min, r.lat_max, r.lon_min, r.lon_max) for name, r in regions().items()}
    assert found == BOUNDS
    assert len(list(SHIPPED.glob("*.yaml"))) == 18


def test_every_shipped_region_says_whence_and_has_a_climate():
    for name, found in regions().items():
        assert found.source, name
        assert found.climate is not None, name
        assert all((found.title, found.continent, found.climate_note)), name


def test_four_pairs_share_an_edge_and_none_overlaps():
    assert {frozenset(pair) for pair in neighbours(regions())} == {
        frozenset(pair)
        for pair in (
            ("amazon-basin", "southamerica-east"),
            ("arabian-peninsula", "blacksea"),
            ("arabian-peninsula", "horn-of-africa"),
            ("cape-horn", "southamerica-east"),
        )
    }
    assert not any(overlap(a, b) for a, b in combinations(regions().values(), 2))


def test_adjacency_needs_an_edge_and_knows_the_date_line():
    box = Region("box", 0, 10, 0, 10)
    assert not adjacent(box, Region("corner", 10, 20, 10, 20))
    assert adjacent(box, Region("part of an edge", 10, 20, 9, 20))
    assert adjacent(Region("east", 0, 10, 170, 180), Region("west", 0, 10, -180, -170))
    assert overlap(box, Region("inside", 2, 3, 2, 3))
    assert not adjacent(box, Region("inside", 2, 3, 2, 3))


def test_grids_are_the_published_ones():
    coarse, fine = grids(region("europe_west"))
    assert (coarse.shape, fine.shape) == ((80, 80), (200, 200))
    assert (coarse["lat"].extent, coarse["lon"].extent) == ((40.25, 60.0), (-5.0, 14.75))
    assert fine["lat"].coordinates[[0, -1]].tolist() == pytest.approx([40.05, 59.95])
    assert coarse["lat"].registration == "node"


def test_rows_are_json():
    rows = json.loads(json.dumps(as_rows()))
    assert len(rows) == 18
    assert {"name", "lat_min", "lat_max", "lon_min", "lon_max", "adjacent"} <= set(rows[0])
    assert {row["name"]: row["adjacent"] for row in rows}["blacksea"] == ["arabian-peninsula"]


def test_unknown_region_gets_the_nearest():
    with pytest.raises(UserError, match="did you mean 'melanesia'"):
        region("melanesa")


def test_own_folder_adds_regions(tmp_path, monkeypatch):
    text = "name: alps\nlat_min: 43\nlat_max: 49\nlon_min: 5\nlon_max: 17\n"
    (tmp_path / "alps.yaml").write_text(text)
    monkeypatch.setenv(module.SEARCH_VARIABLE, str(tmp_path))
    assert region("alps").size_deg == (6, 12)
    assert len(regions()) == 19
    other = tmp_path / "more"
    other.mkdir()
    (other / "melanesia.yaml").write_text(text.replace("alps", "melanesia"))
    monkeypatch.setenv(module.SEARCH_VARIABLE, str(other))
    with pytest.raises(UserError, match="the name of an existing region, 'melanesia'"):
        regions()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: box\nlat_min: 0\nlat_max: 5\nlon_min: 0\n", "has no lon_max"),
        ("name: other\nlat_min: 0\nlat_max: 5\nlon_min: 0\nlon_max: 5\n", "the file name without suffix"),
        ("name: box\nlat_min: 5\nlat_max: 0\nlon_min: 0\nlon_max: 5\n", "expected -90 <= min < max"),
        ("name: box\nlat_min: 0\nlat_max: 5\nlon_min: 200\nlon_max: 220\n", "expected -180"),
        ("name: box\nlat_mn: 0\n", "did you mean 'lat_min'"),
        ("name: box\nlat_min: 0\nlat_max: 5\nlon_min: 0\nlon_max: 5\nclimate: {wet_fracton: 0.1}\n", "wet_fraction"),
        ("[", "not valid YAML"),
        ("- a\n", "expected the keys"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    path = tmp_path / "box.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_region(path)
    assert "box.yaml" in str(error.value)


def test_listing_imports_nothing_heavy():
    heavy = ("torch", "xarray", "dask", "scipy")
    code = f"import sys, rainshift.places.regions as r; r.as_rows(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_shipped_regions_read_the_same_as_files_of_others():
    from geoml.runs.stored_config import parse_yaml

    files = sorted(SHIPPED.glob("*.yaml"))
    assert len(files) >= 18
    assert all(module._values(path) == parse_yaml(path.read_text(), path) for path in files)

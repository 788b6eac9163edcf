"""The command line of radio maps, run in this process on small windows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from geoml.cli.compose import compose
from radiomaps.__main__ import main
from radiomaps.maps.store import open_maps
from radiomaps.scenes import load, names

SMALL = [
    "solver=dominant",
    "window.size_m=64",
    "window.step_m=8",
    "window.heights_m=[1.5,9.5,4]",
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def test_trace_and_report(capsys: pytest.CaptureFixture[str]):
    command = ["trace", *SMALL, "transmitters.count=2", "store=a.zarr", "pictures=1"]
    assert main(command) == 0
    maps = open_maps("a.zarr")
    assert dict(maps.sizes) == {"scene": 1, "tx": 2, "z": 3, "y": 8, "x": 8}
    assert "procedural-0-tx0" in capsys.readouterr().out
    assert main(["trace", *SMALL, "transmitters.count=2", "store=b.zarr", "pictures=0", "solver.options.turns=0"]) == 0
    capsys.readouterr()
    assert main(["report", "a.zarr", "--against", "b.zarr"]) == 0
    assert "report.html" in capsys.readouterr().out
    page = Path("report.html").read_text()
    for text in ("path gain, the other", "azimuth of arrival, the other", "median |Δ| dB"):
        assert text in page
    drawn = {file.name for file in Path("runs").rglob("samples/*.png")}
    assert drawn == {"procedural-0-tx0.png", "procedural-0-tx0-cut.png"}
    assert "procedural-0, tx1" in page
    assert main(["report", "a.zarr", "--against", "b.zarr", "--output", "printed/maps.md"]) == 0
    assert {file.name for file in Path("printed").iterdir()} == {"maps.md", "maps.png"}


def test_maps_have_the_names_of_their_cells(capsys: pytest.CaptureFixture[str]):
    cells = [
        {"name": name, "x": 20.0 + 8 * k, "y": 20.0, "z": 30.0, "pattern": "iso"}
        for k, name in enumerate(("roof/1", "b"))
    ]
    Path("sites.yaml").write_text(yaml.safe_dump({"sites": cells}))
    assert main(["trace", *SMALL, "transmitters.sites=sites.yaml", "store=a.zarr", "pictures=2"]) == 0
    out = capsys.readouterr().out
    assert "procedural-0-roof/1" in out
    assert "procedural-0-b" in out
    drawn = {file.name for file in Path("runs").rglob("samples/*.png")}
    assert drawn == {f"procedural-0-{name}{part}.png" for name in ("roof_1", "b") for part in ("", "-cut")}
    sweep = ["transmitters.sites=sites.yaml", "frequencies_hz=[2.4e9,5.9e9]", "store=b.zarr", "pictures=3"]
    assert main(["trace", *SMALL, *sweep]) == 0
    assert "procedural-0-roof/1-5.9GHz" in capsys.readouterr().out
    assert main(["export", "format=geotiff", "store=b.zarr", "target=tif"]) == 0
    assert Path("tif/procedural-0-b-2_4GHz-path_gain_db.tif").exists()


def test_the_page_of_a_run_is_in_its_folder():
    assert main(["trace", *SMALL, "pictures=0", "run.dir=traced"]) == 0
    assert main(["report", "traced", "--title", "Streets"]) == 0
    assert "<h1>Streets</h1>" in Path("traced/report.html").read_text()


def test_many_scenes_from_one_list():
    scenes = "scenes=[{name:procedural,seed:4,count:2}]"
    assert main(["trace", *SMALL, scenes, "store=m.zarr", "pictures=0"]) == 0
    assert open_maps("m.zarr")["scene"].values.tolist() == ["procedural-4", "procedural-5"]


def test_export_and_import(capsys: pytest.CaptureFixture[str]):
    assert main(["trace", *SMALL, "store=a.zarr", "pictures=0"]) == 0
    for form, target in (("geotiff", "tif"), ("netcdf", "a.nc"), ("urbanradio3d", "set")):
        assert main(["export", f"format={form}", "store=a.zarr", f"target={target}"]) == 0
        assert Path(target).exists()
    capsys.readouterr()
    assert main(["import", "source=set", "store=b.zarr"]) == 0
    assert "path_gain_db" in capsys.readouterr().out
    assert open_maps("b.zarr").sizes["tx"] == 1


def test_a_file_without_heights_is_drawn_with_one_for_all(capsys: pytest.CaptureFixture[str]):
    square = [[[0, 0], [20, 0], [20, 20], [0, 20], [0, 0]]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": square}}
    Path("campus.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert main(["scenes", "campus.geojson"]) == 2
    assert "give metric=true" in capsys.readouterr().err
    assert main(["scenes", "campus.geojson", "metric=true"]) == 2
    assert "give default_height_m" in capsys.readouterr().err
    assert main(["scenes", "campus.geojson", "metric=true", "default_height_m=7"]) == 0
    assert "0 … 7" in capsys.readouterr().out
    Path("file").write_text("")
    words = ["scenes", "campus.geojson", "metric=true", "default_height_m=7", "--draw", "file"]
    assert main(words) == 2
    assert "file cannot be written to; choose another folder" in capsys.readouterr().err


def test_listed_scenes_are_those_that_load_with_their_licences(capsys: pytest.CaptureFixture[str]):
    assert main(["scenes"]) == 0
    listed = capsys.readouterr().out
    for name in ("procedural", "rooms", *[city for city in ("box", "etoile") if city in names()]):
        assert name in names()
        row = next(line for line in listed.splitlines() if line.split()[:1] == [name])
        assert row.endswith(load(name).licence)


def test_scenes_are_drawn_and_saved(capsys: pytest.CaptureFixture[str]):
    assert main(["scenes", "procedural-3", "--draw", "plans", "--save", "files"]) == 0
    assert "procedural-3" in capsys.readouterr().out
    assert Path("plans/procedural-3.png").read_bytes().startswith(b"\x89PNG")
    assert Path("files/procedural-3/scene.xml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trace", "scene=etoil"], "did you mean 'etoile'"),
        (["trace", "solver=dominant", "solver.options.turn=1"], "did you mean 'solver.options.turns'"),
        (["trace", *SMALL, "window.heights_m=[1,2]"], "expected 3 numbers"),
        (["trace", *SMALL, "transmitters.positions_m=[[900,0,1]]"], "is outside scene"),
        (["trace", *SMALL, "scene=file", "scene.path=none.geojson"], "does not exist"),
        (["report", "none.zarr"], "does not exist"),
        (["report", "store=none.zarr"], "give folders without a key: none.zarr instead of store=none.zarr"),
        (["report", "."], "holds nothing that radiomaps can show"),
        (["trace", *SMALL, "scene=city.geojson"], "scene file city.geojson does not exist"),
        (["trace", *SMALL, "scene=city.geojson,b.osm"], "add -m to run each of them"),
        (["trace", *SMALL, "scene=city"], "for your own file: scene=PATH"),
        (["trace", *SMALL, "scene=city.osm", "windoww.size_m=2"], "key 'windoww.size_m' unknown"),
        (["trace", *SMALL, "experiment=dmeo"], "experiment 'dmeo' unknown; did you mean 'demo'"),
        (["trace", *SMALL, "transmitters.count=two"], "expected a number, as transmitters.count=1"),
        (["trace", *SMALL, "transmitters.positions_m=[0,0,5]"], "expected [[x, y, z], …] in metres"),
        (["trace", *SMALL, "window=5"], "expected window.NAME=VALUE with one of size_m"),
        (["trace", *SMALL, "window.heights_m=5"], "expected a list, window.heights_m=[5]"),
        (["trace", *SMALL, "frequencies_hz=[five]"], "expected numbers"),
        (["trace", *SMALL, "fill_shadows=maybe"], "expected fill_shadows=true or fill_shadows=false"),
        (["trace", *SMALL, "seed=-1"], "seed=-1; expected a whole number"),
        (["trace", *SMALL, "store=s3://bucket/maps"], "is a URL"),
        (["paths", "scene=procedural", "rays=0"], "rays=0; expected"),
        (["train", "store=nowhere"], "nowhere does not exist"),
        (["import", "format=urbanradio", "source=x", "store=y"], "did you mean 'urbanradio3d'"),
        (["import", "source=x", "store=y"], "x does not exist"),
        (["export", "format=tiff", "store=x", "target=y"], "did you mean 'geotiff'"),
        (["export", "store=x", "target=y"], "x does not exist"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    "scene", ["munich", "etoile", "florence", "san_francisco", "simple_street_canyon", "procedural", "rooms"]
)
@pytest.mark.parametrize("solver", ["sionna", "dominant"])
def test_configurations_name_what_the_code_knows(scene: str, solver: str):
    from radiomaps.generation.plan import Placement, Plan, Window

    config = compose("radiomaps.conf", "trace", [f"scene={scene}", f"solver={solver}"])
    plan = Plan(
        (config.scene,), Placement(**config.transmitters), Window(**config.window), solver, dict(config.solver.options)
    )
    assert plan.frequencies_of(0, 1) == [5.9e9]
    assert plan.samples == 1

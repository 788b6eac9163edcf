"""Pages of radio maps: what a store and a set of sampled maps show, and that the numbers are those of the files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from geoml.__main__ import main
from geoml.errors import UserError
from geoml.report import Chart, Viewer
from geoml.report.page import render
from geoml.runs.folder import RunFolder
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.prediction import FORMATS
from radiomaps.report.html import report


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("maps") / "maps.zarr"
    window = Window(size_m=64, step_m=4, heights_m=(2, 14, 4))
    return generate(Plan(({"name": "procedural", "seed": 1, "count": 2},), Placement(2, height_m=10), window), path)


def viewer_of(page) -> Viewer:
    return next(block for section in page.sections for block in section.blocks if isinstance(block, Viewer))


def test_a_store_is_shown_in_its_scenes_metres(store) -> None:
    page = report(store)
    assert page is not None
    viewer = viewer_of(page)
    # four maps: each scene's first transmitter before its second
    assert list(viewer.axes[1].values) == [f"procedural-{s}, tx{t}" for t in (0, 1) for s in (1, 2)]
    record = json.loads((store / "scenes" / "00000.json").read_text())
    field = viewer.fields[0]
    assert field.x[0] == 98.0  # a window of 60 m about the middle of a scene of 256 m
    assert field.marks == [pytest.approx(tuple(record["transmitters_m"][0][:2]))]
    known = np.concatenate([f.values[np.isfinite(f.values)] for f in viewer.fields if f.panel == "path gain"])
    panel = viewer.panels[0]
    assert (panel.low, panel.high) == pytest.approx(tuple(np.quantile(known, [0.005, 0.995])), rel=1e-5)
    figure = next(block for section in page.sections for block in section.blocks if isinstance(block, Chart)).figure
    assert [trace.type for trace in figure.data] == ["surface"] * 4 + ["mesh3d", "scatter3d"]
    tops = {entry["top_m"] for entry in record["footprints"]}
    assert np.isin(np.unique(figure.data[4].z), np.float32([0.0, *tops])).all()
    assert render(page).endswith("</html>")


def test_the_folder_of_a_run_stands_for_its_store(store, tmp_path, capsys) -> None:
    assert report(store.parent).title == report(store).title == "Radio maps of 2 scenes"
    assert report(tmp_path) is None
    assert main(["report", str(store.parent), "--output", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size < 15e6


def test_a_store_against_another_shows_both_and_what_they_differ_by(store, tmp_path) -> None:
    scenes, window = ({"name": "procedural", "seed": 1, "count": 2},), Window(size_m=64, step_m=4, heights_m=(2, 14, 4))
    plan = Plan(scenes, Placement(2, height_m=10), window, options={"turns": 0})
    other = generate(plan, tmp_path / "other.zarr")
    page = report(store, against=other)
    assert page is not None
    fields = {(f.panel, *f.place.values()): f.values for f in viewer_of(page).fields}
    place = ("procedural-1, tx0", "2 m")
    here, there = fields["path gain", *place], fields["path gain, the other", *place]
    assert (here[np.isfinite(here)] != there[np.isfinite(here)]).any()
    np.testing.assert_allclose(fields["path gain − the other", *place], here - there, atol=1e-4)
    turned = fields["azimuth of arrival − the other", *place]
    assert float(np.nanmax(np.abs(turned))) <= 180
    fewer = generate(Plan(scenes, Placement(1, height_m=10), window), tmp_path / "fewer.zarr")
    with pytest.raises(UserError, match="contains other scenes, transmitters or voxels"):
        report(store, against=fewer)


@pytest.mark.parametrize("suffix", FORMATS.values())
def test_sampled_maps_are_shown_with_members_and_without_a_truth_that_nobody_has(tmp_path, suffix: str) -> None:
    folder = tmp_path / "run"
    with RunFolder.open(folder, {"checkpoint": "runs/model", "store": None}) as run:
        (run.path / "samples").mkdir(exist_ok=True)
        space, rng = ("z", "y", "x"), np.random.default_rng(0)
        gain = rng.normal(-100, 5, (3, 2, 8, 8)).astype("f4")
        sampled = xr.Dataset(
            {
                "path_gain_db": (("member", *space), gain, {"units": "dB"}),
                "path_gain_db_mean": (space, gain.mean(0)),
                "path_gain_db_uncertainty": (space, gain.std(0)),
            },
            {"z": [1.0, 3.0], "y": np.arange(8.0), "x": np.arange(8.0), "tx_x": 3.0, "tx_y": 4.0, "tx_z": 1.5},
            {"scene": "somewhere", "licence": "CC0"},
        )
        path = run.path / "samples" / f"map-00007{suffix}"
        sampled.to_zarr(path) if suffix == ".zarr" else sampled.to_netcdf(path)
    page = report(folder)
    assert page is not None
    assert "contain no truth" in page.summary
    viewer = viewer_of(page)
    panels = {field.panel for field in viewer.fields}
    assert panels == {"mean", "member", "uncertainty"}
    second = next(f for f in viewer.fields if f.panel == "member" and f.place["member"] == "2")
    np.testing.assert_allclose(second.values, gain[1, 0])
    assert render(page)

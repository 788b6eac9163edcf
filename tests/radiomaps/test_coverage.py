"""Best server, RSRP and SINR against a calculation by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geoml.cli import app
from geoml.errors import DataError, UserError
from radiomaps.__main__ import APP
from radiomaps.antennas.coverage import LinkBudget, coverage, coverage_tables
from radiomaps.maps.store import scene_records


def maps_of(gains, powers, carriers, building=None):
    """Maps of cells on one row of voxels."""
    gains = np.array(gains, np.float32)[:, None, None, :]
    space = {"z": [1.5], "y": [0.5], "x": np.arange(gains.shape[-1]) + 0.5}
    building = np.zeros(gains.shape[1:], bool) if building is None else np.array(building)[None, None]
    cells = {
        name: ("tx", np.array(values, float))
        for name, values in (
            ("tx_power_dbm", powers),
            ("frequency_hz", carriers),
            ("tx_x", powers),
            ("tx_y", powers),
            ("tx_z", powers),
        )
    }
    return xr.Dataset(
        {"path_gain_db": (("tx", "z", "y", "x"), gains), "building": (("z", "y", "x"), building)},
        {**space, "tx": [f"c{index}" for index in range(len(powers))], **cells},
    )  # fmt: skip


def test_sinr_is_what_a_hand_calculation_gives():
    """Two cells on one carrier, one on another; 1,200 subcarriers take 30.79 dB, noise on one is -125.22 dBm."""
    nan = np.nan
    gains = [[-100, -110, nan, -90], [-103, nan, nan, -90], [-101, -140, nan, -90]]
    maps = maps_of(gains, [43, 43, 46], [2e9, 2e9, 3e9], building=[False, False, False, True])
    layers = coverage(maps, LinkBudget(rsrp_dbm=-100, sinr_db=0)).isel(z=0, y=0)
    spread = 10 * np.log10(1200)
    np.testing.assert_allclose(layers.rsrp_dbm, [46 - 101 - spread, 43 - 110 - spread, nan, nan], atol=1e-4)
    assert layers.best_server.values.tolist() == [2, 0, -1, -1]  # the third has 3 dB more power
    noise = 10 * np.log10(1.380649e-23 * 290 * 15e3 * 1e3) + 7
    np.testing.assert_allclose(layers.sinr_db[:2], [46 - 101 - spread - noise, 43 - 110 - spread - noise], atol=1e-4)
    assert layers.covered.values.tolist() == [True, True, False, False]
    two = coverage(maps.isel(tx=[0, 1]), LinkBudget(load=0.5)).isel(z=0, y=0)
    signal, other = 10 ** ((43 - 100 - spread) / 10), 10 ** ((43 - 103 - spread) / 10)
    expected = 10 * np.log10(signal / (0.5 * other + 10 ** (noise / 10)))
    assert float(two.sinr_db[0]) == pytest.approx(expected, abs=1e-3)
    assert float(two.sinr_db[0]) == pytest.approx(6.0, abs=0.02)  # interference alone: 3 dB and half the load


def test_tables_count_shares_of_voxels_outdoors():
    maps = maps_of(
        [[-80, -170, np.nan, -80], [-90, -170, np.nan, -80]], [40, 40], [2e9, 3e9], [False, False, False, True]
    )
    heights, cells = coverage_tables(coverage(maps))
    assert heights[0]["covered_%"] == pytest.approx(33.3)
    assert heights[0]["no_path_%"] == pytest.approx(33.3)
    assert [row["serves_%"] for row in cells] == [66.7, 0.0]
    assert cells[1]["rsrp_median_dbm"] != cells[1]["rsrp_median_dbm"]  # NaN: it serves nowhere


def test_an_impossible_budget_is_refused():
    with pytest.raises(UserError, match="load=2 in the link budget; expected 0 … 1"):
        LinkBudget(load=2)
    with pytest.raises(UserError, match="is wider than"):
        LinkBudget(bandwidth_hz=1e3)


def test_the_command_covers_a_store_and_makes_its_page(tmp_path):
    """From a sites file over a trace to layers, picture and page; a cell that was not traced is refused."""
    from radiomaps.__main__ import main
    from radiomaps.report.coverage import read_coverage
    from radiomaps.report.html import report

    sites = "name,x,y,z\nwest,60,100,40\neast,190,140,40\n"
    (tmp_path / "sites.csv").write_text(sites)
    run, made = tmp_path / "trace", tmp_path / "coverage"
    words = ["window.size_m=64", "window.step_m=8", "window.heights_m=[2,5,3]", "solver=dominant", "pictures=0"]
    assert main(["trace", f"transmitters.sites={tmp_path / 'sites.csv'}", f"run.dir={run}", *words]) == 0
    assert main(["coverage", f"store={run}", f"run.dir={made}", "pictures=1", "budget.load=0.3"]) == 0
    layers = read_coverage(made / "coverage.nc")
    assert layers.cell.values.tolist() == ["west", "east"]
    assert layers.tx_x.values.tolist() == pytest.approx([60, 190], abs=0.01)
    assert layers.x.values[0] == pytest.approx(100)  # the scene's metres: the window is its middle
    assert (made / "samples" / "coverage-2m.png").stat().st_size > 10_000
    assert [section.title for section in report(made).sections] == ["Maps", "Share covered", "Cells and link budget"]
    assert main(["coverage", f"store={run}", f"run.dir={tmp_path / 'other'}", f"sites={tmp_path / 'sites.csv'}"]) == 2


def test_coverage_of_a_trace_that_failed_names_the_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["solver=dominant", "transmitters.positions_m=[[500,500,3]]", f"run.dir={tmp_path / 'run'}"]
    assert app.main(APP, ["trace", *words]) == 2
    for store in (tmp_path / "run", tmp_path / "run" / "maps.zarr"):
        capsys.readouterr()
        assert app.main(APP, ["coverage", f"store={store}", f"run.dir={tmp_path / 'coverage'}"]) == 2
        message = capsys.readouterr().err
        assert "unfinished" in message
        assert "is outside scene 'procedural-0'" in message
    (tmp_path / "run" / "log.txt").unlink()
    with pytest.raises(DataError, match="the command that began it resumes"):
        scene_records(tmp_path / "run" / "maps.zarr")

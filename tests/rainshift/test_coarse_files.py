"""`rainshift predict input=COARSE.nc`: any box, written as it goes, resumed after a kill, means kept where exact."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import geoml
import rainshift
from geoml.grids.grid import grid_of
from rainshift.__main__ import main
from rainshift.report.html import report

HOURS = np.datetime64("2021-06-01T00", "ns") + np.arange(600) * np.timedelta64(1, "h")


def fine_rain(lat, lon, *, times=48, size=50, seed=0):
    """Smooth rain on 0.1° cells, in blobs that move."""
    rng = np.random.default_rng(seed)
    axes = {"lat": lat + 0.05 + 0.1 * np.arange(size), "lon": lon + 0.05 + 0.1 * np.arange(size)}
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    field = np.zeros((times, size, size), "f4")
    for _ in range(6):
        cy, cx, vy, vx, wide = rng.uniform([0, 0, -0.5, -0.5, 3], [size, size, 0.5, 0.5, 9])
        for t in range(times):
            field[t] += rng.gamma(2.0, 2.0) * np.exp(
                -(((y - cy - vy * t) % size - 0) ** 2 + ((x - cx - vx * t) % size) ** 2) / wide**2
            )
    array = xr.DataArray(field, {"time": HOURS[:times], **axes}, ("time", "lat", "lon"), name="precipitation")
    array["lat"].attrs["units"], array["lon"].attrs["units"] = "degrees_north", "degrees_east"
    return array.assign_attrs(units="mm h-1")


def coarse_of(fine, step=0.25):
    axis = {name: (float(fine[name][0]) - 0.05, float(fine[name][-1]) + 0.05) for name in ("lat", "lon")}
    grid = geoml.Grid.latlon(*axis["lat"], *axis["lon"], step)
    return geoml.Regridder(fine, grid)(fine).rename("tp").assign_attrs(units="mm h-1").to_dataset()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coarse")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("in").mkdir()
        fine_rain(60.0, 20.0).to_netcdf("in/finland.nc")
        data = ["data=gridded", "data.root=in", "data.coarse_registration=centre", "data.purge_hours=0",
                "data.shares={train:0.6,validation:0.2,test:0.2}", "data.blocks=1"]  # fmt: skip
        small = ["model=gan", "model.width=4", "model.coarse_blocks=1", "model.fine_blocks=1", "model.critic_width=4"]
        words = ["trainer.samples=64", "loader.patch=20", "loader.validation_samples=2", "run.dir=trained"]
        assert main(["train", *data, *small, *words, "train_regions=[finland]"]) == 0
        coarse_of(fine_rain(51.0, 4.0, seed=1)).to_netcdf("coarse.nc")
    return folder


@pytest.fixture
def inside(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


def test_train_in_one_country_predict_another_from_its_coarse_file_alone(inside, capsys):
    words = ["predict", "checkpoint=trained", "input=coarse.nc", "output=fine.nc", "members=2", "run.dir=p"]
    assert main(words) == 0
    with xr.open_dataset("fine.nc") as made, xr.open_dataset("coarse.nc") as coarse:
        rain, tp = made["precipitation"].load(), coarse["tp"].load()
        assert rain.dims == ("member", "time", "lat", "lon")
        assert made.attrs["Conventions"].startswith("CF-")
        assert made["member"].attrs["standard_name"] == "realization"
        # the coarse rain is the exact mean of the fine rain, so that the mean is kept without being asked for
        means = geoml.Regridder(rain, grid_of(tp))(rain)
        np.testing.assert_allclose(means, tp.expand_dims(member=2), rtol=1e-3, atol=1e-4)
        python = rainshift.load("trained").predict(coarse, members=2)
        np.testing.assert_allclose(python["precipitation"], rain, rtol=1e-5, atol=1e-6)
        free = rainshift.load("trained").predict(coarse, members=2, conservation=None)["precipitation"]
        assert float(abs(free - rain).max()) > 1e-3
    truth = fine_rain(51.0, 4.0, seed=1)
    scores = rainshift.evaluate(rain, truth, metrics=["crps_fair", "mean_ratio"])
    assert float(scores["mean_ratio"]) == pytest.approx(1, abs=2e-3)
    before = os.stat("fine.nc").st_mtime_ns
    assert main(words) == 0
    assert os.stat("fine.nc").st_mtime_ns == before
    page = report("p")
    assert page is not None
    assert "coarse" in page.title
    assert not (inside / "p" / "parts").exists()


def test_another_factor_and_wrong_inputs_are_one_message(inside, capsys):
    coarse_of(fine_rain(51.0, 4.0), step=0.5).to_netcdf("halves.nc")
    xr.Dataset({"snow": coarse_of(fine_rain(51.0, 4.0))["tp"]}).to_netcdf("snow.nc")
    Path("torn.nc").write_bytes(Path("coarse.nc").read_bytes()[:4000])
    for words, message in (
        (["input=halves.nc"], "factor of 2.5"),
        (["input=snow.nc"], "snow: tp missing"),
        (["input=nowhere.nc"], "nowhere.nc does not exist"),
        (["input=torn.nc"], "torn.nc"),
        (["input=coarse.nc", "output=fine.tif"], "with suffix .nc"),
        (["output=fine.nc"], "is an option of input=FILE"),
        (["data=gridded", "data.root=in", "regions=[finland]", "data.coarse_step=0.5"], "factor of 2.5"),
    ):
        assert main(["predict", "checkpoint=trained", "run.dir=wrong", "run.fresh=true", *words]) == 2, words
        error = capsys.readouterr().err
        assert message in error, error
        assert "Traceback" not in error


@pytest.mark.slow
def test_a_killed_prediction_goes_on_where_it_was(inside):
    long = coarse_of(fine_rain(-10.0, 170.0, times=150, seed=2))
    long.to_netcdf("long.nc")
    words = ["predict", "checkpoint=trained", "input=long.nc", "members=1", "conservation=softmax"]
    command = [sys.executable, "-m", "rainshift", *words, "output=long_fine.nc", "run.dir=killed"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    parts = inside / "killed" / "parts"
    while process.poll() is None and len(list(parts.glob("*.npz"))) < 5:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("long_fine.nc").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.npz")}
    assert len(kept) >= 5
    resumed = subprocess.run(command, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "blocks exist already" in resumed.stderr
    assert main([*words, "output=whole.nc", "run.dir=whole"]) == 0
    with xr.open_dataset("long_fine.nc") as one, xr.open_dataset("whole.nc") as other:
        xr.testing.assert_identical(one["precipitation"], other["precipitation"])
        assert one.sizes["time"] == 150


def test_a_changed_input_is_predicted_again(inside):
    words = ["predict", "checkpoint=trained", "input=changing.nc", "output=changed.nc", "members=1", "run.dir=changing"]
    data = coarse_of(fine_rain(0.0, 0.0, times=8))
    data.to_netcdf("changing.nc")
    assert main(words) == 0
    with xr.open_dataset("changed.nc") as first:
        first.load()
    (data * 2).assign(tp=(data["tp"] * 2).assign_attrs(data["tp"].attrs)).to_netcdf("changing.nc")
    assert main(words) == 0
    with xr.open_dataset("changed.nc") as second:
        assert float(second["precipitation"].sum()) > 1.5 * float(first["precipitation"].sum())

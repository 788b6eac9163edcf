"""IMERG's half hours: every version gives the same hours, or is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from geoml.errors import DataError, UserError
from rainshift.places.regions import grids, region
from rainshift.sources import open_source
from rainshift.sources.imerg_files import HalfHours, find_granules

sys.path.insert(0, str(Path(__file__).parent))
from imerg_era5_cases import START, TIME, half_hour, half_hours, rain_at, samples, small_region  # noqa: F401


@pytest.mark.parametrize(("version", "style"), [("07B", "hdf5"), ("06B", "hdf5"), ("06B", "nc4")])
def test_hours_are_means_of_the_halves_that_era5s_sums_cover(tmp_path, version, style):
    folder = half_hours(tmp_path / "imerg", 9, version=version, style=style)
    halves = HalfHours(tuple(find_granules(folder)))
    np.testing.assert_array_equal(halves.hours, TIME[:4])  # the ninth has no partner
    source = open_source("imerg", root=str(folder), boxes=["tiny"])
    made = source.open("tiny")
    fine = grids(region("tiny"))[1]
    lat, lon = fine["lat"].coordinates, fine["lon"].coordinates
    for place, end in enumerate(TIME[:4]):
        halves_of = [rain_at(end.astype("datetime64[s]") - np.timedelta64(m, "m"), lat, lon) for m in (60, 30)]
        np.testing.assert_allclose(made.target["precipitation"].values[place], sum(halves_of) / 2, rtol=1e-5)
    np.testing.assert_array_equal(made.time, TIME[:4])
    # a linear field's area mean is its value in the middle of the cell, but for the cosine of latitude
    coarse = made.coarse
    nodes = [rain_at(TIME[0].astype("datetime64[s]") - np.timedelta64(m, "m"), coarse["lat"].coordinates,
                     coarse["lon"].coordinates) for m in (60, 30)]  # fmt: skip
    np.testing.assert_allclose(made.condition["tp"].values[0], sum(nodes) / 2, atol=2e-4)


def test_fill_values_are_missing_and_half_a_pair_is_none(tmp_path):
    folder = tmp_path / "imerg"
    folder.mkdir()
    start = START.astype("datetime64[s]") - np.timedelta64(60, "m")
    holes = rain_at(start)
    holes[22, 32] = np.nan  # of the box, row and column 2
    half_hour(folder, start, holes)
    half_hour(folder, start + np.timedelta64(30, "m"), rain_at(start))
    data = open_source("imerg", root=str(folder), boxes=["tiny"]).open("tiny")
    rain = data.target["precipitation"].values
    assert np.argwhere(np.isnan(rain[0])).tolist() == [[2, 2]]
    assert np.isfinite(data.condition["tp"].values).all()  # the mean of what is known of a cell


def test_granules_that_do_not_go_together_are_refused(tmp_path):
    folder = half_hours(tmp_path / "imerg", 2)
    start = START.astype("datetime64[s]") + np.timedelta64(60, "m")

    def refused(message):
        halves = HalfHours(tuple(find_granules(folder)))
        with pytest.raises(DataError, match=message):
            halves.read_hours(halves.hours, slice(0, 2), slice(0, 2))

    extra = half_hour(folder, start, rain_at(start), version="06B")
    refused("has version 06.*version 07")
    extra.unlink()
    extra = half_hour(folder, START.astype("datetime64[s]") - np.timedelta64(60, "m"), rain_at(start), run="HHR-L")
    refused("both contain the half hour")
    extra.unlink()
    half_hour(folder, START.astype("datetime64[s]") - np.timedelta64(60, "m"), rain_at(start), time="2020-01-01")
    refused("the start in the name is 2020-01-31T19:00:00, in the time coordinate 2020-01-01")
    extra = half_hour(folder, START.astype("datetime64[s]") - np.timedelta64(60, "m"), rain_at(start) * 1e5)
    refused("more than rain can be")
    extra.write_bytes(extra.read_bytes()[:500])
    refused("may be truncated")
    extra.write_bytes(b"")
    half_hour(folder, START.astype("datetime64[s]") - np.timedelta64(60, "m"), rain_at(start)[:10], run="DAY",
              lat=np.arange(0.05, 1, 0.1))  # fmt: skip
    with pytest.raises(DataError, match=r"expected half hours \(3B-HHR\)"):
        _ = HalfHours(tuple(find_granules(folder))).hours
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="bare contains no IMERG file"):
        find_granules(tmp_path / "bare")


@pytest.mark.real_data
def test_a_real_half_hour_of_imerg():
    late = HalfHours((samples() / "3B-HHR-E.MS.MRG.3IMERG.20231117-S093000-E095959.0570.V06E.HDF5.nc4",))
    assert late.grid.shape == (128, 192)
    assert late.grid["lat"].start == pytest.approx(-34.35)
    start = np.datetime64("2023-11-17T09:30:00")
    rain = late.read(start, slice(0, 128), slice(0, 192))
    assert rain.shape == (128, 192)
    assert 20 < np.nanmax(rain) < 30
    with h5py.File(late.files[0]) as file:
        np.testing.assert_array_equal(rain, file["precipitationCal"][0].T)
    with pytest.raises(DataError, match="no complete hour"):
        _ = late.hours
    final = HalfHours((samples() / "3B-HHR.MS.MRG.3IMERG.20000601-S000000-E002959.0000.V07A.HDF5",))
    assert list(final.places) == [np.datetime64("2000-06-01T00:00:00")]
    polar = final.read(np.datetime64("2000-06-01T00:00:00"), slice(0, 10), slice(0, 10))
    assert set(np.unique(polar[np.isfinite(polar)])) <= {0.0}
    assert np.isnan(polar).any()

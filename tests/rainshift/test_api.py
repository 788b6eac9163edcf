"""RainShift from Python: any coarse data set, anywhere on the globe, predicts what the same weather elsewhere does."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import geoml
import rainshift
from geoml.errors import DataError, UserError

HOURS = {
    "train": {"start": "2001-01-01", "end": "2003-01-01", "hours": 24},
    "validation": {"start": "2003-01-01", "end": "2004-01-01", "hours": 24},
    "test": {"start": "2004-01-01", "end": "2006-01-01", "hours": 48},
}
DATA = {"size_deg": 2, "splits_at": HOURS}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def trained(cache, name, *, model="gan", **settings):
    small = {"model": model, "width": 4, "coarse_blocks": 1, "fine_blocks": 1, "critic_width": 4}
    data = {f"data__{key}": value for key, value in (DATA | settings.pop("data", {})).items()}
    return rainshift.train(
        small if model == "gan" else {"model": model, "network": {"base": 4, "multipliers": [1]}},
        regions=["europe_west"], samples=32, run=f"{cache}/{name}", cache=cache, loader__patch=0,
        loader__validation_samples=2, **data, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(cache):
    return trained(cache, "rain_alone", data={"condition": ["tp"], "static": []})


@pytest.fixture(scope="module")
def all_fields(cache):
    return trained(cache, "all_fields", model="unet")


def coarse(lat=40.0, lon=10.0, *, rows=9, columns=12, times=3, step=0.25, units="mm h-1"):
    """Rain of one pattern at any place."""
    field = np.random.default_rng(0).gamma(0.5, 2.0, (times, rows, columns)).astype("f4")
    when = np.datetime64("2021-06-01T00", "ns") + np.arange(times) * np.timedelta64(1, "h")
    coords = {"time": when, "lat": lat + step * np.arange(rows), "lon": lon + step * np.arange(columns)}
    array = xr.DataArray(field, coords, ("time", "lat", "lon"), name="tp", attrs={"units": units})
    array["lat"].attrs["units"], array["lon"].attrs["units"] = "degrees_north", "degrees_east"
    return array.to_dataset()


def test_the_whole_way_from_a_region_to_scores(all_fields, cache):
    tree = rainshift.open("europe_west", "test", cache=cache, **DATA)
    rain = all_fields.predict(tree["condition"].to_dataset(), static=tree["static"].to_dataset(), members=2)
    scores = rainshift.evaluate(rain, tree["target"], metrics=["crps_fair", "rmse"])
    assert rain["precipitation"].dims == ("member", "time", "lat", "lon")
    np.testing.assert_array_equal(rain["lat"], tree["target"]["lat"])
    assert set(scores.data_vars) == {"crps_fair", "rmse"}
    assert all(np.isfinite(value) for value in scores.values())
    same = rainshift.load(f"{cache}/all_fields").predict(tree["condition"], members=2)
    xr.testing.assert_identical(rain["precipitation"], same["precipitation"])
    fields = tree["target"]["precipitation"].mean(("lat", "lon"))
    assert float(abs(rain["precipitation"].mean(("member", "lat", "lon")) - fields).max()) < float(fields.max())


def test_a_time_has_its_members_whatever_is_predicted_with_it(model):
    data = coarse(times=7)
    whole = model.predict(data, members=3, seed=4)["precipitation"]
    alone = model.predict(data.isel(time=[5]), members=3, seed=4)["precipitation"]
    np.testing.assert_allclose(alone[:, 0], whole[:, 5], rtol=1e-5, atol=1e-6)
    assert float(abs(whole[0] - whole[1]).max()) > 0
    single = model.predict(data.isel(time=5, drop=True), members=1)["precipitation"]
    assert single.dims == ("member", "lat", "lon")


def test_dask_gives_the_same_and_only_when_asked(model):
    data = coarse(times=9)
    whole = model.predict(data, members=2)["precipitation"]
    lazy = model.predict(data.chunk({"time": 4, "lat": 5}), members=2)["precipitation"]
    assert isinstance(lazy.data, da.Array)
    np.testing.assert_allclose(lazy.compute(scheduler="threads"), whole, rtol=1e-5, atol=1e-6)


def variants():
    """The same data written otherwise, and what brings the prediction back onto the canonical grid."""
    yield "descending", lambda d: d.isel(lat=slice(None, None, -1)), lambda p: p.sortby("lat")
    names = {"lat": "latitude", "lon": "longitude", "time": "valid_time"}
    yield "other names", lambda d: d.rename(names), lambda p: p.rename({v: k for k, v in names.items()})
    yield (
        "float32",
        lambda d: d.assign_coords({k: d[k].astype("f4").assign_attrs(d[k].attrs) for k in ("lat", "lon")}),
        lambda p: p,
    )
    yield "transposed", lambda d: d.transpose("lon", "time", "lat"), lambda p: p
    yield "0-360", lambda d: d.assign_coords(lon=(d["lon"] % 360).assign_attrs(d["lon"].attrs)), (
        lambda p: p.assign_coords(lon=(p["lon"] + 180) % 360 - 180))  # fmt: skip
    yield "m per hour", lambda d: d.assign(tp=(d["tp"] / 1000).assign_attrs(units="m")), lambda p: p
    yield "kg m-2 s-1", lambda d: d.assign(tp=(d["tp"] / 3600).assign_attrs(units="kg m-2 s-1")), lambda p: p
    yield "another name", lambda d: d.rename(tp="rainfall_rate"), lambda p: p
    yield "an ensemble dim of one", lambda d: d.expand_dims(number=1), lambda p: p


@pytest.mark.parametrize(("name", "write", "back"), list(variants()), ids=[v[0] for v in variants()])
def test_how_a_file_is_written_changes_nothing(model, name, write, back):
    data = coarse(lon=-30.0)
    plain = model.predict(data, members=2)["precipitation"]
    other = back(model.predict(write(data), members=2)["precipitation"])
    np.testing.assert_allclose(other["lon"], plain["lon"])
    np.testing.assert_allclose(other.transpose(*plain.dims), plain, rtol=1e-4, atol=1e-5)


def test_longitudes_keep_the_convention_of_the_data(model):
    east = model.predict(coarse(lon=300.0), members=1)
    assert 299 < float(east["lon"].min()) < float(east["lon"].max()) < 304
    across = coarse(lon=178.5)
    across = across.assign_coords(lon=((across["lon"] + 180) % 360 - 180).assign_attrs(across["lon"].attrs))
    rain = model.predict(across, members=1)
    assert (np.diff(rain["lon"]) > 0).all()
    np.testing.assert_allclose(
        rain["precipitation"], model.predict(coarse(lon=178.5), members=1)["precipitation"], atol=1e-5
    )


def test_the_place_of_the_grids_is_that_of_the_training(model):
    rain = model.predict(coarse(lat=0.0, lon=0.0), members=1)
    edges = np.round((rain["lat"].values - 0.05) / 0.1, 6)
    np.testing.assert_array_equal(edges, np.round(edges))
    elsewhere = model.predict(coarse(lat=-70.0, lon=100.0), members=1)
    assert elsewhere.sizes == rain.sizes
    np.testing.assert_allclose(elsewhere["precipitation"], rain["precipitation"], rtol=1e-4, atol=1e-5)


def test_around_the_globe_there_is_no_seam(model):
    globe = coarse(lat=-1.0, lon=0.0, rows=8, columns=1440, times=1)
    tiles = {"tile": 400, "blend": 8, "halo": 32, "limit": 400}
    rain = model.predict(globe, members=1, tiles=tiles)["precipitation"]
    assert rain.sizes["lon"] == 3600
    assert float(rain["lon"].min()) == pytest.approx(0.05)
    turned = globe.roll(lon=720, roll_coords=True)
    turned = turned.assign_coords(lon=((turned["lon"] + 180) % 360 - 180).assign_attrs(globe["lon"].attrs))
    other = model.predict(turned, members=1, tiles=tiles)["precipitation"]
    other = other.assign_coords(lon=np.round(other["lon"] % 360, 6)).sortby("lon")
    np.testing.assert_allclose(other, rain, rtol=1e-3, atol=1e-3)


def test_another_factor_is_refused(model):
    with pytest.raises(UserError, match=r"0\.25° to 0\.1°, a factor of 2\.5.*0\.5°.*factor of 5"):
        model.predict(coarse(step=0.5))
    with pytest.raises(UserError, match=r"factor of 2\.5.*it is 1\.25"):
        model.predict(coarse(), target=geoml.Grid.latlon(40, 42, 10, 12, 0.2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.rename(tp="snow"), "requires tp; the data have snow: tp missing"),
        (lambda d: d.assign(tp=d["tp"].assign_attrs(units="K")), "'tp' has units 'K'"),
        (lambda d: d.assign(tp=d["tp"].drop_attrs()), "tp has no units; expected mm h-1"),
        (lambda d: d.isel(time=[0]).assign(tp=d["tp"].isel(time=[0]).assign_attrs(units="mm")), "interval"),
        (lambda d: d.where(d["lat"] > 40.5), "tp is nan at 2021-06-01T00.*lat 40"),
        (lambda d: d.isel(lat=[0]), "lat"),
        (lambda d: d.expand_dims(level=[500, 700]), "level"),
        (lambda d: d.assign_coords(lat=d["lat"] ** 2 / 40), "a factor of 2 along lat"),
        (lambda d: d.drop_vars(["lat", "lon"]), "no pair of lat and lon"),
        (lambda d: d["tp"].values, "got ndarray"),
    ],
)
def test_wrong_inputs_are_one_clear_error(model, change, said):
    with pytest.raises(UserError, match=said):
        model.predict(change(coarse()))


def test_static_fields_are_asked_for_by_name(all_fields, cache):
    tree = rainshift.open("europe_west", "test", cache=cache, **DATA)
    with pytest.raises(DataError, match="static fields lsm, z; pass static="):
        all_fields.predict(tree["condition"].to_dataset())


def test_evaluate_takes_any_usual_names_and_refuses_other_grids(model):
    data = coarse(lat=-20)
    rain = model.predict(data, members=3)
    truth = rain["precipitation"].isel(member=0, drop=True)
    scores = rainshift.evaluate(rain, truth, metrics="default", reference=rain.isel(member=[0, 1, 2]))
    assert float(scores["skill"]) == pytest.approx(0, abs=1e-9)
    other = rain.rename(member="realization", time="valid_time", lat="latitude", lon="longitude").sortby(
        "latitude", ascending=False
    )
    xr.testing.assert_allclose(scores.drop_vars("skill"), rainshift.evaluate(other, truth))
    cut = rainshift.evaluate(rain.isel(lat=slice(3, None)), truth)
    assert float(cut["mae"]) != float(scores["mae"])
    with pytest.raises(DataError, match="grids differ"):
        rainshift.evaluate(rain.assign_coords(lat=rain["lat"] + 0.03), truth)
    with pytest.raises(DataError, match="not among the times"):
        rainshift.evaluate(rain.assign_coords(time=rain["time"] + np.timedelta64(5, "D")), truth)


def test_public_names():
    assert dir(rainshift) == ["Model", "benchmark", "evaluate", "load", "open", "regions", "train"]
    assert rainshift.benchmark.__doc__
    table = rainshift.regions()
    assert table._repr_html_().startswith("<table>")
    assert len(table.to_pandas()) == len(table)

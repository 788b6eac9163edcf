"""Others' layouts in and out: axes by modality, codecs to half a level, places on the ground."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from geoml.data.store import open_store, read_dataset
from geoml.errors import DataError, UserError
from radiomaps.exchange import (
    export_geotiff,
    export_netcdf,
    export_urbanradio3d,
    import_radiomapseer,
    import_urbanradio3d,
)
from radiomaps.exchange.grey import URBANRADIO3D, GreyCodec, read_grey
from radiomaps.exchange.orientation import from_picture, to_picture
from radiomaps.generation.generate import generate
from radiomaps.generation.plan import Placement, Plan, Window
from radiomaps.maps.store import open_maps, scene_records
from radiomaps.scenes.projection import WGS84, local_crs, project

N = 48


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    window = Window(size_m=N, step_m=1, heights_m=(1, 4, 1), centre_m=(100, 150))
    scenes = ({"name": "procedural", "seed": 1}, {"name": "procedural", "seed": 5})
    plan = Plan(scenes, Placement(count=2, clear_m=2), window, options={"turns": 1})
    return generate(plan, tmp_path_factory.mktemp("exchange") / "maps.zarr")


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def circular(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)


def test_urbanradio3d_there_and_back(store: Path, tmp_path: Path):
    wide = (-300.0, -30.0)
    export_urbanradio3d(store, tmp_path / "set", path_gain_range_db=wide)
    import_urbanradio3d(tmp_path / "set", tmp_path / "back.zarr", path_gain_range_db=wide)
    ours, theirs = open_maps(store).load(), open_maps(tmp_path / "back.zarr").load()
    assert (ours["building"].values == theirs["building"].values).mean() > 0.999
    for scene in range(2):
        for tx in range(2):
            a = ours.isel(scene=scene, tx=tx)
            # Pictures know cells of the window; ours are in the scene's metres.
            place = [float(a[f"tx_{letter}"] - a[letter][0]) + 0.5 for letter in "xy"]
            found = [[float(theirs[f"tx_{letter}"][scene, k]) for letter in "xy"] for k in range(2)]
            b = theirs.isel(scene=scene, tx=int(np.argmin(np.abs(np.array(found) - place).sum(axis=1))))
            known = np.isfinite(a["path_gain_db"].values) & np.isfinite(b["path_gain_db"].values)
            assert known.sum() > 0.9 * np.isfinite(a["path_gain_db"].values).sum()
            gain = np.abs(a["path_gain_db"].values - b["path_gain_db"].values)[known]
            assert gain.max() <= (wide[1] - wide[0]) / 510 + 0.006
            delay = np.abs(a["toa_s"].values - b["toa_s"].values)[known]
            assert delay.max() <= 1180e-9 / 510 * 1.01
            azimuth = circular(a["doa_azimuth"].values, b["doa_azimuth"].values)[known]
            assert azimuth.max() <= 6.3 / 510 + 2e-4
            zenith = a["doa_zenith"].values
            inside = known & (zenith > 0.51) & (zenith < 2.24)
            assert np.abs(zenith - b["doa_zenith"].values)[inside].max() <= 1.75 / 510 + 2e-4


def test_layout_and_axes_are_those_of_the_published_files(store: Path, tmp_path: Path):
    export_urbanradio3d(store, tmp_path / "set", path_gain_range_db=(-300, -30))
    maps = open_maps(store).isel(scene=0, tx=0).load()
    x, y = (int(maps[f"tx_{axis}"] - maps[axis][0] + 0.5) for axis in "xy")
    name = f"0_{x}X_{y}Y.png"
    loss = read_grey((tmp_path / "set/pathLoss/h1" / name).read_bytes(), name)
    delay = read_grey((tmp_path / "set/ToA/h1" / name).read_bytes(), name)
    assert loss[N - 1 - x, y] == loss.max()
    assert np.unravel_index(np.argmin(np.where(delay == 0, 999, delay)), delay.shape) == pytest.approx(
        (N - 1 - y, x), abs=3
    )
    azimuth = read_grey((tmp_path / "set/Doa_Azi/h1" / name).read_bytes(), name)
    row, column = N - 1 - y, x
    east = azimuth[row, column + 2] * 6.3 / 255
    assert east == pytest.approx(np.pi, abs=0.03)  # seen from the east, the transmitter is in the west
    folders = {p.name for p in (tmp_path / "set").iterdir()}
    assert folders == {"pathLoss", "ToA", "Doa_Azi", "Doa_Ele", "Building_Infomation", "ranges.json"}
    assert {p.name for p in (tmp_path / "set/ToA").iterdir()} == {"h1", "h2", "h3", "h4"}


def hand_made(form: str) -> dict[str, bytes]:
    """A set of one map by the published facts: transmitter in cell X = 30, Y = 10, one building."""
    files = {}
    x, y = 30, 10
    yy, xx = np.mgrid[0:N, 0:N]
    distance = np.hypot(xx - x, yy - y) + 1
    building = (xx >= 5) & (xx < 12) & (yy >= 20) & (yy < 40)
    for height in (1, 2):
        gain = np.where(building & (height < 2), 0, np.clip(255 - 2 * distance, 1, 255)).astype(np.uint8)
        delay = np.where(building & (height < 2), 0, np.clip(2 * distance, 1, 255)).astype(np.uint8)
        picture_of_loss = np.zeros((N, N), np.uint8)
        picture_of_loss[N - 1 - xx, yy] = gain
        picture_of_delay = np.zeros((N, N), np.uint8)
        picture_of_delay[N - 1 - yy, xx] = delay
        name = {"paper": f"7_{x}X_{y}Y", "readme": f"7_X{x}_Y{y}", "demo": f"7_{x}_{y}"}[form]
        files[f"pathLoss/h{height}/{name}.png"] = png(picture_of_loss)
        files[f"ToA/h{height}/{name}.png"] = png(picture_of_delay)
    heights = np.zeros((N, N), np.uint8)
    heights[N - 1 - yy, xx] = np.where(building, round(1.5 / 19.8 * 255), 0)
    files["Building_Infomation/buildingsWHeight/7.png"] = png(heights)
    polygon = [[5, 20], [12, 20], [12, 40], [5, 40]]
    files["Building_Infomation/buildings/7.json"] = json.dumps([{"polygon": polygon, "height": 1.5}]).encode()
    return files


@pytest.mark.parametrize("form", ["paper", "readme", "demo"])
@pytest.mark.parametrize("packed", [False, True])
def test_axes_are_resolved_by_modality(tmp_path: Path, form: str, packed: bool, recwarn: pytest.WarningsRecorder):
    files = hand_made(form)
    if packed:
        source = tmp_path / "set.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        source = tmp_path / "set"
        for name, content in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
    rows = import_urbanradio3d(source, tmp_path / "in.zarr")
    maps = open_maps(tmp_path / "in.zarr").isel(scene=0, tx=0).load()
    assert (float(maps["tx_x"]), float(maps["tx_y"])) == (30.5, 10.5)
    assert np.unravel_index(maps["path_gain_db"][0].argmax().item(), (N, N)) == (10, 30)
    assert np.unravel_index(maps["toa_s"][0].argmin().item(), (N, N)) == (10, 30)
    assert maps["building"][0, 20:40, 5:12].all()
    assert int(maps["building"][0].sum()) == 20 * 7
    assert not maps["building"][1].any()
    assert scene_records(tmp_path / "in.zarr")[0].footprints[0].polygon.area == 140
    assert {row["variable"] for row in rows} == {"path_gain_db", "toa_s"}
    assert not [warning for warning in recwarn if "axes swapped" in str(warning.message)]


def test_swapped_axes_are_warned_of(tmp_path: Path):
    files = {name: content for name, content in hand_made("paper").items() if name.startswith("ToA")}
    for name, content in files.items():
        file = tmp_path / "set" / name.replace("ToA", "pathLoss")
        file.parent.mkdir(parents=True, exist_ok=True)
        delay = np.asarray(Image.open(io.BytesIO(content)))
        file.write_bytes(png(np.where(delay > 0, 255 - delay, 0).astype(np.uint8)))
    with pytest.warns(UserWarning, match="axes swapped"):
        import_urbanradio3d(tmp_path / "set", tmp_path / "in.zarr")


def test_the_default_range_of_an_export_saturates_one_percent_at_most(store: Path, tmp_path: Path):
    rows = {row["variable"]: row for row in export_urbanradio3d(store, tmp_path / "set")}
    assert rows["path_gain_db"]["low_%"] + rows["path_gain_db"]["high_%"] <= 1
    low, high = json.loads((tmp_path / "set/ranges.json").read_text())["path_gain_db"]
    gain = open_maps(store)["path_gain_db"].values
    known = gain[np.isfinite(gain)]
    assert ((known <= low) | (known > high)).mean() <= 0.01
    # The recorded range is read back.
    (row, *_) = import_urbanradio3d(tmp_path / "set", tmp_path / "in.zarr")
    assert abs(row["off_free_space_db"]) < 0.3
    # What the printed range would cut off is told.
    (row, *_) = export_urbanradio3d(store, tmp_path / "cut", path_gain_range_db=(-169, -92))
    assert row["high_%"] == pytest.approx(100 * (known > -92).mean(), abs=0.01)
    assert row["high_%"] > 5


def test_a_set_that_is_off_free_space_is_told(store: Path, tmp_path: Path):
    """Pictures on the scale that agrees with free space, read by the printed one: 40 dB too low."""
    export_urbanradio3d(store, tmp_path / "set", path_gain_range_db=(-129, -52))
    with pytest.warns(UserWarning, match=r"is -40\.\d dB from free space at 5\.9 GHz.*=\[-1(28|29)"):
        (row, *_) = import_urbanradio3d(tmp_path / "set", tmp_path / "off.zarr", path_gain_range_db=(-169, -92))
    assert row["variable"] == "path_gain_db"
    assert row["off_free_space_db"] == pytest.approx(-40, abs=0.3)


def test_a_wave_from_due_east_survives(tmp_path: Path):
    """Azimuth 0 is 2π, and level 0 stands for nothing: west of the transmitter, and in a published picture."""
    codec = URBANRADIO3D["doa_azimuth"]
    azimuth = np.array([0.0, 0.003, 0.012, 2 * np.pi - 1e-6, np.pi])
    assert (codec.encode(azimuth) > 0).all()
    assert circular(codec.decode(codec.encode(azimuth)), azimuth).max() <= codec.step / 2 + 0.017
    files = hand_made("paper")
    building = np.asarray(Image.open(io.BytesIO(files["ToA/h1/7_30X_10Y.png"]))) == 0
    for height in (1, 2):
        yy, xx = np.mgrid[0:N, 0:N]
        picture = np.zeros((N, N), np.uint8)
        picture[N - 1 - yy, xx] = np.rint((np.arctan2(10 - yy, 30 - xx) % (2 * np.pi)) / 6.3 * 255)
        assert (picture[N - 1 - 10, :30] == 0).all()  # due west of the transmitter
        files[f"Doa_Azi/h{height}/7_30X_10Y.png"] = png(np.where(building & (height < 2), 0, picture).astype(np.uint8))
    for name, content in files.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(content)
    import_urbanradio3d(tmp_path / "set", tmp_path / "in.zarr")
    maps = open_maps(tmp_path / "in.zarr").isel(scene=0, tx=0).load()
    assert not maps["no_path"].any()
    assert float(maps["doa_azimuth"][0, 10, 20]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", list(URBANRADIO3D))
def test_codecs_keep_values_to_half_a_level(name: str):
    codec = URBANRADIO3D[name]
    values = np.linspace(codec.low + codec.step, codec.high, 1001)
    assert np.abs(codec.decode(codec.encode(values)) - values).max() <= codec.step / 2 * 1.0001


def test_pictures_turn_and_turn_back():
    field = np.arange(6).reshape(2, 3)
    for variable in ("path_gain_db", "toa_s"):
        assert (from_picture(to_picture(field, variable), variable) == field).all()


def test_incomplete_and_broken_sets_are_refused(tmp_path: Path):
    files = hand_made("paper")
    source = tmp_path / "set"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    broken = source / "ToA/h2/7_30X_10Y.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no readable picture"):
        import_urbanradio3d(source, tmp_path / "a.zarr")
    broken.unlink()
    with pytest.raises(DataError, match="lacks toa_s at h2"):
        import_urbanradio3d(source, tmp_path / "b.zarr")
    with pytest.raises(DataError, match="no pictures named"):
        import_urbanradio3d(source / "Building_Infomation", tmp_path / "c.zarr")
    with pytest.raises(UserError, match="lower end first"):
        GreyCodec(-92, -169)


def test_a_stopped_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = tmp_path / "set"
    for name, content in hand_made("paper").items():
        for to in [name] if "Building" in name else [name, name.replace("30X", "31X"), name.replace("7_", "8_")]:
            (source / to).parent.mkdir(parents=True, exist_ok=True)
            (source / to).write_bytes(content)
    rows = import_urbanradio3d(source, tmp_path / "whole.zarr")
    reads: list[str] = []

    def stops(content: bytes, name: str) -> np.ndarray:
        reads.append(name)
        if len(reads) == 12:
            raise KeyboardInterrupt
        return read_grey(content, name)

    with monkeypatch.context() as patch:
        patch.setattr("radiomaps.exchange.urbanradio3d.read_grey", stops)
        with pytest.raises(KeyboardInterrupt):
            import_urbanradio3d(source, tmp_path / "stopped.zarr")
    with pytest.raises(DataError, match="not complete"):
        open_store(tmp_path / "stopped.zarr")
    with pytest.raises(UserError, match="other settings or files"):
        import_urbanradio3d(source, tmp_path / "stopped.zarr", path_gain_range_db=(-170, -90))
    assert import_urbanradio3d(source, tmp_path / "stopped.zarr") == rows
    ours, theirs = (open_store(tmp_path / f"{name}.zarr") for name in ("whole", "stopped"))
    for group in ours:
        assert ours[group].load().identical(theirs[group].load())
    assert scene_records(tmp_path / "whole.zarr") == scene_records(tmp_path / "stopped.zarr")
    with pytest.raises(DataError, match="exists; delete it"):
        import_urbanradio3d(source, tmp_path / "stopped.zarr")


def test_radiomapseer(tmp_path: Path):
    source, random = tmp_path / "seer", np.random.default_rng(1)
    building = np.zeros((N, N), np.uint8)
    building[5:15, 20:30] = 255
    for kind, name, array in [
        ("gain/DPM", "3_0", np.where(building, 0, random.integers(1, 256, (N, N))).astype(np.uint8)),
        ("png/buildings_complete", "3", building),
        ("png/antennas", "3_0", (np.indices((N, N)).sum(axis=0) == 0).astype(np.uint8) * 255),
    ]:
        (source / kind).mkdir(parents=True)
        (source / kind / f"{name}.png").write_bytes(png(array))
    import_radiomapseer(source, tmp_path / "seer.zarr")
    maps = open_maps(tmp_path / "seer.zarr").isel(scene=0, tx=0, z=0).load()
    assert (float(maps["tx_x"]), float(maps["tx_y"])) == (0.5, N - 0.5)  # first row is north
    assert maps["building"][N - 15 : N - 5, 20:30].all()
    level = np.asarray(Image.open(source / "gain/DPM/3_0.png"))[-1, 0]
    assert float(maps["path_gain_db"][0, 0]) == pytest.approx(-147 + 99.16 * level / 255, abs=0.006)
    with pytest.raises(UserError, match="did you mean 'DPM'"):
        import_radiomapseer(source, tmp_path / "x.zarr", model="DMP")


def test_geotiff_lies_where_the_scene_is(tmp_path: Path):
    crs = local_crs(11.57, 48.14)
    ring = project(np.array([[-60.0, -60], [-40, -60], [-40, 60], [-60, 60]]), crs, WGS84)
    far = project(np.array([[60.0, 40], [70, 40], [70, 60], [60, 60]]), crs, WGS84)
    features = [
        {"type": "Feature", "properties": {"height": 9}, "geometry": json.loads(shapely.to_geojson(shapely.Polygon(r)))}
        for r in (ring, far)
    ]
    (tmp_path / "town.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    window = Window(size_m=60, step_m=2, heights_m=(1, 11, 5))
    plan = Plan(({"path": str(tmp_path / "town.geojson")},), Placement(count=1), window)
    export_geotiff(generate(plan, tmp_path / "town.zarr"), tmp_path / "tif")
    maps = open_maps(tmp_path / "town.zarr").isel(scene=0, tx=0).load()
    with rasterio.open(tmp_path / "tif/town-tx0-path_gain_db.tif") as file:
        assert file.count == 3
        assert file.descriptions == ("z = 1 m", "z = 6 m", "z = 11 m")
        assert file.units[0] == "dB"
        values = file.read()
        assert np.array_equal(values[:, ::-1], maps["path_gain_db"].values.astype("f4"), equal_nan=True)
        i, j = 7, 11
        x, y = float(maps["x"][i] + maps["origin_x"]), float(maps["y"][j] + maps["origin_y"])
        assert file.index(x, y) == (30 - 1 - j, i)
        place = project(np.array([[x, y]]), file.crs.to_string(), WGS84)
        assert place[0] == pytest.approx([11.57, 48.14], abs=0.01)


def test_netcdf_holds_everything(store: Path, tmp_path: Path):
    export_netcdf(store, tmp_path / "maps.nc")
    ours, theirs = open_maps(store).load(), read_dataset(tmp_path / "maps.nc").load()
    assert theirs["path_gain_db"].dims == ("scene", "tx", "z", "y", "x")
    for name in ours.data_vars:
        same = np.asarray(theirs[name].values, ours[name].dtype)
        assert np.allclose(same, ours[name].values, rtol=1e-6, atol=0, equal_nan=ours[name].dtype != bool), name
    assert theirs["los"].attrs["flag_meanings"] == "not_los los"
    assert theirs["path_gain_db"].attrs["units"] == "dB"
    assert theirs["scene_hash"].values.tolist() == ours["scene_hash"].values.tolist()


def test_ragged_sets_are_read_by_sample(tmp_path: Path):
    source = tmp_path / "set"
    for name, content in hand_made("paper").items():
        for to in [name] if "Building" in name else [name, name.replace("7_", "8_"), name.replace("30X", "31X")]:
            (source / to).parent.mkdir(parents=True, exist_ok=True)
            (source / to).write_bytes(content)
    import_urbanradio3d(source, tmp_path / "ragged.zarr")
    with pytest.raises(DataError, match="1 to 2 transmitters"):
        open_maps(tmp_path / "ragged.zarr")
    assert open_store(tmp_path / "ragged.zarr")["target"].sizes["sample"] == 3

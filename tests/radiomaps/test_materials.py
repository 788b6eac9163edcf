"""Materials against ITU-R's tables as Sionna has them, half-space ground against two rays in closed form, tables."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import shapely

from geoml.constants import SPEED_OF_LIGHT
from geoml.errors import DataError, UserError
from geoml.grids.grid import Grid
from radiomaps.maps.layout import Transmitter
from radiomaps.materials import ITU_MATERIALS, Material, materials_of, materials_used, read_materials
from radiomaps.materials.itu import itu_properties, soil_properties
from radiomaps.raytrace import TraceOptions, activate, find_paths, trace
from radiomaps.scenes import Footprint, Scene, load
from radiomaps.scenes.extrude import flat_ground, scene_of_footprints

SOURCE, HEIGHT = (0.0, 0.0, 12.0), 1.5


def flat(material, **options):
    return Scene("flat", (flat_ground((-300, -300, 300, 300), material=material),), **options)


def fresnel(eps, cosine):
    """Reflection of a half-space, TE and TM."""
    root = np.sqrt(eps - (1 - cosine**2))
    return (cosine - root) / (cosine + root), (eps * cosine - root) / (eps * cosine + root)


def two_rays(distance, eps_r, sigma, frequency):
    """Lengths of both ways and the ground's reflection of vertical polarisation."""
    direct, mirrored = (np.hypot(distance, SOURCE[2] + sign * HEIGHT) for sign in (-1, 1))
    eps = eps_r - 1j * sigma / (2 * np.pi * frequency * 8.8541878128e-12)
    return direct, mirrored, fresnel(eps, (SOURCE[2] + HEIGHT) / mirrored)[1]


@pytest.mark.filterwarnings("ignore:.*outside the frequencies")
@pytest.mark.parametrize(
    ("material", "frequencies"),
    [("concrete", (300e6, 868e6, 1e9, 28e9)), ("medium_dry_ground", (700e6, 60e9)), ("very_dry_ground", (2e9, 60e9))],
)
def test_ground_is_a_half_space(material, frequencies):
    """The map is the sum of both powers, paths have each and (where float32 has their phases) their sum: to 0.05 dB."""
    grid = Grid.box({"z": 1.0, "y": -0.5, "x": 4.5}, {"z": 2.0, "y": 0.5, "x": 200.5}, {"z": 1, "y": 1, "x": 4})
    scene, transmitter = flat(material), Transmitter(SOURCE)
    for frequency in frequencies:
        eps_r, sigma, _ = itu_properties(material, frequency)
        options = TraceOptions(frequency_hz=frequency, rays=2_000_000, depth=1)
        maps = trace(scene, [transmitter], grid, options)
        x = maps.x.values
        direct, mirrored, reflection = two_rays(x, eps_r, sigma, frequency)
        scale = (SPEED_OF_LIGHT / (4 * np.pi * frequency)) ** 2
        both = np.array([direct**-2, np.abs(reflection / mirrored) ** 2])
        np.testing.assert_allclose(maps.path_gain_db.values.ravel(), 10 * np.log10(scale * both.sum(0)), atol=0.05)
        points = np.stack([x, np.zeros_like(x), np.full_like(x, HEIGHT)], -1)
        paths = find_paths(scene, [transmitter], points, options, top=2).isel(tx=0)
        powers = 10 * np.log10(scale * np.sort(both, axis=0)[::-1])
        np.testing.assert_allclose(paths.gain_db.values, powers.T, atol=0.05)
        wave = 2 * np.pi * frequency / SPEED_OF_LIGHT
        total = np.exp(-1j * wave * direct) / direct + reflection * np.exp(-1j * wave * mirrored) / mirrored
        sound = (np.abs(total) * direct > 0.2) & (wave * direct * 2**-23 < 0.002)
        coherent = 10 * np.log10(scale * np.abs(total) ** 2)
        np.testing.assert_allclose(paths.coherent_gain_db.values[sound], coherent[sound], atol=0.05)
        assert sound.mean() > 0.5 or frequency > 10e9


def test_the_table_is_that_of_p2040_as_sionna_has_it():
    activate()
    from sionna.rt.radio_materials.itu import ITU_MATERIALS_PROPERTIES, itu_material

    assert set(ITU_MATERIALS_PROPERTIES) == set(ITU_MATERIALS)
    for name, bands in ITU_MATERIALS_PROPERTIES.items():
        for low, high in bands:
            for f in (low, (low * high) ** 0.5, high):
                known = [float(np.ravel(part)[0]) for part in itu_material(name, f * 1e9)]
                assert itu_properties(name, f * 1e9)[:2] == pytest.approx(known, rel=1e-5)


@pytest.mark.parametrize("name", ITU_MATERIALS)
def test_every_material_has_plausible_properties_from_100_mhz_to_100_ghz(name):
    found = [itu_properties(name, f) for f in np.geomspace(1e8, 1e11, 61)]
    eps = np.array([properties.eps_r for properties in found])
    assert (eps >= 1).all()
    assert (eps < 40).all()
    assert all(properties.sigma >= 0 for properties in found)
    assert (np.abs(np.diff(np.log(eps))) < 0.25).all()  # one law follows another without a jump


def test_soil_is_that_of_p527():
    """Values of another implementation of the recommendation (github.com/elvd/rf_sewer_pipes)."""
    for f, celsius, sand, clay, water, real, imaginary in (
        (0.3, 23, 35, 30, 0.25, 12.0185206, 1.1586371),
        (1, 10, 65, 10, 0.2, 14.9978443, 0.9504253),
        (10, 23, 20, 60, 0.4, 20.1143284, 7.1200304),
        (60, 30, 65, 10, 0.1, 4.3130525, 0.8612104),
    ):
        soil = soil_properties(water, f * 1e9, sand=sand, clay=clay, celsius=celsius)
        loss = soil.sigma / (2 * np.pi * f * 1e9 * 8.8541878128e-12)
        assert (soil.eps_r, loss) == pytest.approx((real, imaginary), rel=1e-6)


def test_one_warning_names_the_materials_beyond_the_tables():
    with pytest.warns(UserWarning, match=r"brick, concrete at 0\.868 GHz: outside") as seen:
        materials_used(["concrete", "brick", "concrete", "glass"], (), 868e6)
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        materials_used(["concrete", "glass"], (), 2e9)
        materials_used(["concrete"], [Material(name="concrete", a=5, c=0.1)], 868e6)


def test_a_table_in_a_file_changes_what_is_traced(tmp_path):
    """A roof of its own material reflects by it, and what loses 6 dB a reflection does so."""
    text = "\ufeffname, eps_r, sigma, thickness_m, scattering\ntar, 2.5, 0.001, 30, 0.5\nmetal,,,,\n"
    (tmp_path / "m.csv").write_text(text)
    table = read_materials(tmp_path / "m.csv")
    assert table[0] == Material(name="tar", a=2.5, c=0.001, thickness_m=30.0, scattering=0.5)
    scene = scene_of_footprints("roof", [Footprint(shapely.box(-40, -40, 40, 40), 10.0, material="brick")])
    grid = Grid.box({"z": 14.0, "y": -1, "x": -11}, {"z": 16.0, "y": 1, "x": 11}, {"z": 2, "y": 2, "x": 2})
    transmitter, options = Transmitter((0.0, 0.0, 25.0)), TraceOptions(rays=200_000, depth=1)

    def mirrored(scene):
        maps = trace(scene, [transmitter], grid, options).isel(tx=0)
        direct = maps.k_factor_db
        return float((maps.path_gain_db - direct).mean()), maps

    _, metal = mirrored(scene.furnished(roofs="metal"))
    _, tar = mirrored(scene.furnished(table=tmp_path / "m.csv", roofs="tar"))
    _, loss = mirrored(scene.furnished(table={"metal": {"loss_db": 6.0}}, roofs="metal"))
    normal = abs((1 - np.sqrt(2.5)) / (1 + np.sqrt(2.5))) ** 2 * (1 - 0.5**2)
    middle = metal.sizes["x"] // 2
    step = (tar.k_factor_db - metal.k_factor_db).values[0, 0, middle]
    assert step == pytest.approx(-10 * np.log10(normal), abs=0.1)
    np.testing.assert_allclose(loss.k_factor_db - metal.k_factor_db, 6.0, atol=0.02)


def test_roof_and_wall_of_two_materials_share_their_edge():
    """Diffraction over a roof's edge does not need walls and roof to be of one material."""
    scene = scene_of_footprints("screen", [Footprint(shapely.box(-60, -5, 60, 5), 10.0, material="metal")])
    transmitter = Transmitter((0.0, -20.0, 30.0))
    grid = Grid.box({"z": 3.0, "y": 7, "x": -4}, {"z": 5.0, "y": 11, "x": 4}, 2.0)
    options = TraceOptions(rays=200_000, depth=0, diffraction=True)
    one, two = (trace(s, [transmitter], grid, options) for s in (scene, scene.furnished(roofs="concrete")))
    assert (~one.no_path).any()
    np.testing.assert_allclose(two.path_gain_db, one.path_gain_db, atol=1e-3)


@pytest.mark.parametrize("building", ["b", ""])
def test_walls_and_roof_in_two_meshes_share_their_edge(building):
    """A building whose file has its walls and its roof as two meshes, as Sionna's cities do, diffracts at its roof.

    Meshes are of one building by its name, or, if their names have nothing in common, since they share sides.
    """
    scene = scene_of_footprints("screen", [Footprint(shapely.box(-60, -5, 60, 5), 10.0, material="metal")])
    ground, solid = scene.meshes
    up = np.ptp(solid.vertices[solid.faces][..., 2], axis=1) < 1e-6
    parts = [
        replace(solid, name=name, faces=solid.faces[chosen], material=material, building=building)
        for name, chosen, material in (("b-wall", ~up, "metal"), ("b-roof", up, "concrete"))
    ]
    transmitter = Transmitter((0.0, -20.0, 30.0))
    grid = Grid.box({"z": 3.0, "y": 7, "x": -4}, {"z": 5.0, "y": 11, "x": 4}, 2.0)
    options = TraceOptions(rays=200_000, depth=0, diffraction=True)
    one, two = (trace(s, [transmitter], grid, options) for s in (scene, replace(scene, meshes=(ground, *parts))))
    assert (~one.no_path).any()
    np.testing.assert_allclose(two.path_gain_db, one.path_gain_db, atol=1e-3)
    points = np.array([[1.0, 8.0, 4.0]])
    with pytest.warns(UserWarning, match="1 of 1 buildings have walls and a roof of two materials"):
        find_paths(replace(scene, meshes=(ground, *parts)), [transmitter], points, options)
    exact = find_paths(scene, [transmitter], points, replace(options, depth=1))
    assert exact.path_gain_db.item() == pytest.approx(two.path_gain_db.sel(x=1, y=8, z=4).item(), abs=1e-3)


def test_scenes_are_furnished(tmp_path):
    scene = scene_of_footprints("s", [Footprint(shapely.box(0, 0, 9, 9), 5.0)])
    other = scene.furnished(ground="wet_ground", walls="brick")
    assert [(m.kind, m.material, m.roof_material) for m in other.meshes] == [
        ("ground", "wet_ground", ""), ("building", "brick", "concrete")]  # fmt: skip
    assert len({scene.hash, other.hash, scene.furnished(table={"concrete": {"eps_r": 6}}).hash}) == 3
    assert scene.furnished().hash == scene.hash
    with pytest.raises(UserError, match=r"material of ground 'wet_grund' unknown; did you mean 'wet_ground'"):
        scene.furnished(ground="wet_grund")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,eps_r\nx,0.5\n", r"material 'x': eps_r=0.5; expected 1 …"),
        ("name,eps_r\nx,five\n", "a='five' is no number"),
        ("name,sigma\nx,1\n", "has no eps_r, and ITU-R P.2040 has no material"),
        ("name,eps_s\nx,1\n", "column of material 'x': 'eps_s' unknown; did you mean 'eps_r'"),
        ("name,eps,eps_r\nx,1,1\n", "both set 'a'"),
        ("name,eps_r\nx,3\nx,4\n", "is defined twice"),
        ("eps_r\n3\n", "a material without a name"),
        ("name,eps_r,sigma\nx,3,nan\n", "c='nan' is no number"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_materials(tmp_path / "m.csv")


def test_tables_with_semicolons_and_decimal_commas(tmp_path):
    (tmp_path / "m.csv").write_text("name; eps_r; sigma\nstucco; 4,5; 0,02\n")
    (stucco,) = read_materials(tmp_path / "m.csv")
    assert stucco.at(1e9) == pytest.approx((4.5, 0.02, True))


@pytest.mark.parametrize(
    "text",
    [
        "Name,Eps_r,Sigma,Thickness_m\nx,4,0.02,0.3\n",
        "material,epsilon,Conductivity (S/m),thickness (m)\nx,4,0.02,0.3\n",
        "# walls\nname;ε_r;σ (mS/m);Thickness (cm)\n# render\nx;4,0;20;30\n",
        "NAME\tA\tB\tC\tD\tthickness_mm\nx\t4\t0\t0.02\t0\t300\n",
    ],
)
def test_spellings_of_columns(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    (found,) = read_materials(tmp_path / "m.csv")
    assert (found.a, found.b, found.c, found.d, found.thickness_m) == pytest.approx((4, 0, 0.02, 0, 0.3))


def test_names_of_itu_in_other_letters_keep_their_properties():
    table = materials_of([{"name": "Concrete", "thickness_m": 0.3}, {"name": "ITU Medium-dry ground"}])
    assert [material.name for material in table] == ["concrete", "medium_dry_ground"]
    assert table[0].at(2e9) == itu_properties("concrete", 2e9)


def test_aliases_that_multiply_are_refused(tmp_path):
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))]
    (tmp_path / "m.yaml").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"an anchor .* is not allowed"):
        read_materials(tmp_path / "m.yaml")


def test_tables_come_as_yaml_too(tmp_path):
    (tmp_path / "m.yaml").write_text("stucco: {a: 4, c: 0.02, d: 0.5}\nbrick: {scattering: 0.3}\n")
    stucco, brick = read_materials(tmp_path / "m.yaml")
    assert stucco.at(4e9) == pytest.approx((4.0, 0.04, True))
    assert brick.at(4e9) == itu_properties("brick", 4e9)
    assert materials_of([material.describe() for material in (stucco, brick)]) == (stucco, brick)
    (tmp_path / "m.yaml").write_text("- [1")
    with pytest.raises(DataError, match="not valid YAML"):
        read_materials(tmp_path / "m.yaml")
    assert replace(brick, loss_db=3.0).scattered(0.0) == pytest.approx(np.sqrt(1 - 0.91 * 10**-0.3))


def test_tags_name_materials_of_the_table(tmp_path):
    box = {"type": "Polygon", "coordinates": [[[500, 0], [520, 0], [520, 20], [500, 20], [500, 0]]]}
    tags = [{"material": "stucco", "roof:material": "roof_tiles"}, {"material": "cheese", "roof_material": "fondue"}]
    features = [
        {"type": "Feature", "geometry": {**box, "coordinates": [[[x + 50 * i, y] for x, y in box["coordinates"][0]]]},
         "properties": {"height": 9, **own}} for i, own in enumerate(tags)
    ]  # fmt: skip
    (tmp_path / "t.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    scene = load({"path": tmp_path / "t.geojson", "material": "brick", "materials": {"table": {"stucco": {"a": 4}}}})
    assert [(m.material, m.roof_material) for m in scene.meshes[1:]] == [("stucco", "brick"), ("brick", "")]
    assert [line.partition(":")[0] for line in scene.repairs] == [
        "unknown material, brick used", "unknown roof material, that of the walls used"]  # fmt: skip
    with pytest.raises(UserError, match=r"materials: 'roof' unknown; did you mean 'roofs'"):
        load({"name": "procedural-1", "materials": {"roof": "metal"}})
    with pytest.raises(UserError, match=r"material 'bric' unknown; did you mean 'brick'"):
        load({"path": tmp_path / "t.geojson", "material": "bric"})

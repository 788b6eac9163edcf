"""Many values at once: the channels of a folder, and radio maps along a route or over an area, through the server."""

import anyio
import numpy as np
import pytest
from mcp import Client

from geoml.errors import UserError
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.registry import Registry
from mcp_experts.inference.verdicts import ChannelView, describe
from mcp_experts.serve.map_surveys import corners_of, survey_map
from mcp_experts.serve.server import build_server
from tests.mcp_experts.test_maps import HZ, free_space

REGISTRY = Registry()
CHANNELS = [synthesize(k_factor_db=k, snr_db=25, seed=seed) for k in (12, None) for seed in (1, 2)]


def save(path, csi):
    sampling = {name: getattr(CHANNELS[0], name) for name in ("subcarrier_spacing_hz", "snapshot_interval_s")}
    np.savez(path, csi=csi, **sampling)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "day").mkdir()
    for number, channel in enumerate(CHANNELS):
        save(tmp_path / "day" / f"link{number}.npz", channel.csi)
    noise = np.random.default_rng(0).normal(size=(2, 64, 14, 1))
    save(tmp_path / "noise.npz", noise[0] + 1j * noise[1])
    save(tmp_path / "many.npz", np.stack([channel.csi for channel in CHANNELS]))
    np.savez(tmp_path / "day" / "table.npz", numbers=np.arange(3))
    np.savez(tmp_path / "map.npz", **free_space(), frequency_hz=HZ)
    return tmp_path


def call(root, tool, **arguments):
    async def run():
        server = build_server(registry=REGISTRY, root=root)
        try:
            async with Client(server) as client:
                return await client.call_tool(tool, arguments)
        finally:
            server.close()

    return anyio.run(run)


def test_labels_are_counted_over_a_folder_and_over_a_file(root):
    labels = [describe(REGISTRY, ChannelView(channel))["los"].label for channel in CHANNELS]
    wanted = {label or "undecided": labels.count(label) for label in labels}
    for folder, unreadable in (("day", ["day/table.npz"]), ("many.npz", [])):
        found = call(root, "wireless_describe_many", folder=folder).structured_content
        assert found["channels"] == 4
        assert found["unreadable"] == unreadable
        counts = found["counts"]["line_of_sight"]
        assert sum(counts.values()) == 4
        assert {name: counts.get(name, 0) for name in wanted if name != "undecided"} == {
            name: count for name, count in wanted.items() if name != "undecided"
        }
        assert set(found["counts"]) == {each.definition.question for each in REGISTRY.classifiers}
        assert all(0 <= share <= 1 for share in found["classical_agrees"].values())
        assert found["next_start"] is None
    every = call(root, "wireless_describe_many")
    assert every.content[0].text.startswith("6 channels; ")
    assert every.structured_content["channels"] == 6


def test_a_folder_is_read_in_parts(root, monkeypatch):
    monkeypatch.setattr("mcp_experts.serve.surveys.MOST_CHANNELS", 3)
    first = call(root, "wireless_describe_many", folder="many.npz").structured_content
    assert (first["channels"], first["next_start"]) == (3, 3)
    rest = call(root, "wireless_describe_many", folder="many.npz", start=3).structured_content
    assert (rest["channels"], rest["next_start"]) == (1, None)


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("wireless_describe_many", {"folder": "night"}, "folders with files: day"),
        ("wireless_describe_many", {"folder": "../day"}, "no channels there"),
        ("wireless_map", {"path": "map.npz"}, "give one of at, route and area"),
        ("wireless_map", {"path": "map.npz", "route": "1,2", "area": "1,2"}, "give one of at, route and area"),
        ("wireless_map", {"path": "map.npz", "at": "1,2"}, "is not a point"),
        ("wireless_map", {"path": "map.npz", "route": "1,2"}, "is not a list of corners"),
        ("wireless_map", {"path": "map.npz", "route": "1,2;3,x"}, "is not a list of corners"),
        ("wireless_map", {"path": "map.npz", "route": "1,2;nan,2"}, "is not a list of corners"),
        ("wireless_map", {"path": "map.npz", "area": "1,2;3,4;5,6"}, "two opposite corners; 3 are given"),
        ("wireless_map", {"path": "map.npz", "route": "1,2;50,2"}, "x is 50; the map covers 0 to 30 m"),
        ("wireless_map", {"path": "map.npz", "route": "1,2;3,2", "z_m": 9}, "z_m is 9"),
        ("wireless_map", {"path": "map.npz", "area": "27,17;29,19"}, "inside buildings"),
        ("wireless_map", {"path": "noise.npz", "area": "27,17;29,19"}, "not a radio map"),
    ],
)
def test_what_cannot_be_surveyed_is_refused_with_a_reason(root, tool, arguments, message):
    found = call(root, tool, **arguments)
    assert found.is_error
    assert message in found.content[0].text


def test_an_area_is_covered_where_the_gain_is_enough(root):
    fields = free_space()
    layer = fields["path_gain_db"][0, 1]  # z = 2
    outdoors = ~fields["building"][1]
    for least in (-70.0, -65.0, -200.0):
        found = survey_map(root / "map.npz", corners=[(0, 0), (30, 20)], area=True, z_m=2.0, least_gain_db=least)
        assert found["cells"] == outdoors.sum()
        assert found["share_outdoors"] == pytest.approx(outdoors.mean(), rel=1e-3)
        assert found["share_covered"] == pytest.approx((layer[outdoors] >= least).mean(), rel=1e-3)
    assert found["gain_db"][1] == pytest.approx(np.nanmedian(layer[outdoors]), rel=1e-3)
    assert found["weakest_db"] is None  # a cell without a path
    assert found["servers"] == {"0": 1.0}
    said = call(root, "wireless_map", path="map.npz", area="0,0;30,20", z_m=2, least_gain_db=-70).content[0].text
    assert " % of the area outdoors has a path gain of -70 dB or more" in said


def test_a_point_has_all_values_next_to_free_space(root):
    found = call(root, "wireless_map", path="map.npz", at="20.5,10.5,2").structured_content
    assert found["path_gain_db"] == pytest.approx(found["free_space_db"], abs=0.1)
    assert found["answer"].endswith("dB; the direct path is clear.")


def test_a_route_has_gaps_and_handovers(tmp_path):
    one, other = free_space(tx=(2.5, 10.5, 2.2)), free_space(tx=(27.5, 10.5, 2.2))
    both = {**one, **{name: np.concatenate([one[name], other[name]]) for name in ("path_gain_db", "toa_s", "los")}}
    both |= {f"tx_{axis}": np.concatenate([one[f"tx_{axis}"], other[f"tx_{axis}"]]) for axis in "xyz"}
    both["no_path"] = np.concatenate([one["no_path"], other["no_path"]])
    np.savez(tmp_path / "two.npz", **both, frequency_hz=HZ)
    route = {"corners": corners_of("0.5,10.5; 29.5,10.5"), "area": False, "z_m": 2.0}
    found = survey_map(tmp_path / "two.npz", **route, least_gain_db=-200.0)
    assert (found["cells"], found["handovers"], found["gaps_m"]) == (30, 1, [])
    assert found["servers"]["0"] == pytest.approx(0.5, abs=0.04)
    middle = survey_map(tmp_path / "two.npz", **route, least_gain_db=-60.0)
    ((start, end),) = middle["gaps_m"]
    assert start < 14.5 < end
    assert middle["share_covered"] == pytest.approx(1 - (end - start + 1) / 30, abs=1e-3)
    with pytest.raises(UserError, match="not a list of corners"):
        corners_of("1,2; 3")

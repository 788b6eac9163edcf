"""What-if traces of a scene under the data root: a process with limits, that ends with the request."""

import json
import math
import os
from pathlib import Path

import anyio
import pytest
from mcp import Client

from mcp_experts.serve import traces
from mcp_experts.serve.server import build_server


def box(west, south, east, north, height):
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Feature", "properties": {"height": height}, "geometry": {"type": "Polygon", "coordinates": [ring]}}


@pytest.fixture
def root(tmp_path):
    street = {"type": "FeatureCollection", "features": [box(-10, -20, 10, 20, 15), box(-60, 40, 60, 55, 20)]}
    (tmp_path / "street.geojson").write_text(json.dumps(street))
    return tmp_path


ASKED = {
    "scene": "street.geojson",
    "transmitter": "-40,0,10",
    "receivers": "-30,10,1.5; (40,0,1.5)",
    "metric": True,
    "bounces": 1,
}


def talk(root, conversation):
    async def run():
        server = build_server(root=root, toolsets=["trace"])
        try:
            async with Client(server) as client:
                return await conversation(client)
        finally:
            server.close()

    return anyio.run(run)


def children():
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.slow
def test_a_trace_says_for_each_receiver_what_geometry_says(root):
    pytest.importorskip("sionna.rt")
    seen = []

    async def progress(passed, most, message):
        seen.append((passed, most))

    found = talk(root, lambda client: client.call_tool("wireless_trace", ASKED, progress_callback=progress))
    assert not found.is_error, found.content
    near, behind = found.structured_content["receivers"]
    assert (near["clear"], behind["clear"]) == (True, False)
    assert near["distance_m"] == pytest.approx(math.dist((-40, 0, 10), (-30, 10, 1.5)), abs=0.01)
    assert near["first_delay_s"] == pytest.approx(near["distance_m"] / 299_792_458, rel=1e-3)
    assert near["free_space_db"] == pytest.approx(-72.2, abs=0.1)
    assert abs(near["path_gain_db"] - near["free_space_db"]) < 6
    assert behind["path_gain_db"] is None or behind["path_gain_db"] < behind["free_space_db"]
    first, second, inputs = found.content[0].text.splitlines()
    assert first.startswith("Receiver 1 at (-30, 10, 1.5): the direct path is clear; gain ")
    assert second.startswith("Receiver 2 at (40, 0, 1.5): ")
    assert "blocked" in second
    assert inputs.startswith("Inputs: street.geojson, transmitter at (-40, 0, 10), 5.9 GHz, up to 1 reflections")
    assert seen
    assert seen[-1][0] <= seen[-1][1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scene": "../street.geojson"}, "without '..'"),
        ({"scene": "/etc/passwd"}, "relative to the data root"),
        ({"scene": "file:///etc/passwd.geojson"}, "URLs are not opened"),
        ({"scene": "link.geojson"}, "without following a link"),
        ({"scene": "pipe.geojson"}, "not a regular file"),
        ({"scene": "scene.xml"}, "expected one of .geojson, .osm; the data root holds"),
        ({"scene": "none.geojson"}, "no such file"),
        ({"transmitter": "1,2"}, "'1,2' is no point"),
        ({"transmitter": "1,2,3;4,5,6"}, "transmitter: expected 'x,y,z'"),
        ({"transmitter": "nan,0,1"}, "at most 100000 m"),
        ({"receivers": ";"}, "receivers: 0 points; expected 1 to 16"),
        ({"receivers": "0,0,1;" * 17}, "receivers: 17 points"),
        ({"receivers": "0,0,1] scene.path=/etc/passwd"}, "is no point"),
        ({"bounces": 7}, "refused"),
        ({"frequency_ghz": 1e9}, "refused"),
    ],
)
def test_hostile_scenes_and_wrong_points_are_refused_before_anything_runs(root, changed, message):
    (root / "link.geojson").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe.geojson")
    before = children()
    found = talk(root, lambda client: client.call_tool("wireless_trace", ASKED | changed))
    assert found.is_error
    assert message in found.content[0].text
    assert children() <= before


def test_a_scene_that_is_none_is_refused_in_the_words_of_radiomaps(root):
    pytest.importorskip("sionna.rt")
    (root / "street.geojson").write_text("[" * 100_000)
    found = talk(root, lambda client: client.call_tool("wireless_trace", ASKED))
    assert found.is_error
    assert found.content[0].text.startswith("radiomaps paths refused it: ")
    assert "Traceback" not in found.content[0].text
    assert "/tmp" not in found.content[0].text


def test_a_trace_ends_with_its_request_and_with_its_time(root, monkeypatch):
    async def cancelled(client):
        before = children()
        with anyio.move_on_after(1.5):
            await client.call_tool("wireless_trace", ASKED)
        with anyio.fail_after(5):
            while children() - before:
                await anyio.sleep(0.1)
        monkeypatch.setattr(traces, "MOST_S", 0.5)
        late = await client.call_tool("wireless_trace", ASKED)
        return late, children() - before

    late, left = talk(root, cancelled)
    assert late.is_error
    assert "the trace took more than 0.5 s" in late.content[0].text
    assert not left


def test_one_trace_runs_at_a_time(root, monkeypatch):
    monkeypatch.setattr(traces, "MOST_S", 2.0)

    async def both(client):
        found = []

        async def one():
            found.append(await client.call_tool("wireless_trace", ASKED))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            await anyio.sleep(0.3)
            tasks.start_soon(one)
        return found

    assert any("another trace is running" in found.content[0].text for found in talk(root, both))

"""The server through a real client: in memory in both eras, and as a child over stdio."""

import json
import time

import anyio
import numpy as np
import pytest
from mcp import Client

from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.registry import Registry
from mcp_experts.serve.server import build_server

ERAS = ("auto", "legacy")
REGISTRY = Registry()


def talk(conversation, *, era="auto", **settings):
    async def run():
        async with Client(build_server(registry=REGISTRY, **settings), mode=era) as client:
            return await conversation(client)

    return anyio.run(run)


async def loaded(client, **specification):
    result = await client.call_tool("wireless_load_synthetic", specification)
    assert not result.is_error, result.content[0].text
    return result.structured_content["channel_id"]


async def refused(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return result.content[0].text


@pytest.mark.parametrize("era", ERAS)
def test_list_load_describe_ask_drop(era):
    async def conversation(client):
        listed = await client.call_tool("wireless_list_experts")
        channel_id = await loaded(client, k_factor_db=12, snr_db=25)
        described = await client.call_tool("wireless_describe_channel", {"channel_id": channel_id})
        one = await client.call_tool("wireless_los", {"channel_id": channel_id})
        dropped = await client.call_tool("wireless_drop_channel", {"channel_id": channel_id})
        text = await refused(client, "wireless_los", channel_id=channel_id)
        return listed, described, one, dropped, text

    listed, described, one, dropped, text = talk(conversation, era=era)
    names = [row["name"] for row in listed.structured_content["experts"]]
    assert set(names) == set(REGISTRY.experts)
    verdicts = {verdict["expert"]: verdict for verdict in described.structured_content["verdicts"]}
    assert set(verdicts) == set(names) - {"ood"}
    assert described.structured_content["in_distribution"]
    assert verdicts["los"]["label"] == "clear"
    assert verdicts["fading"]["interval_low"] == 7
    assert verdicts["snr"]["classical"]["value"] == pytest.approx(25, abs=2)
    assert json.loads(one.content[0].text) == one.structured_content
    assert one.structured_content["label"] == "clear"
    assert dropped.structured_content["dropped"]
    assert "load the channel again" in text


def test_outside_its_training_no_expert_promises_a_limit():
    async def conversation(client):
        channel_id = await loaded(client, snr_db=-30, doppler_hz=1e5, antennas=16)
        described = await client.call_tool("wireless_describe_channel", {"channel_id": channel_id})
        return described.structured_content

    described = talk(conversation)
    assert not described["in_distribution"]
    assert len(described["verdicts"]) == len(REGISTRY.classifiers)
    for verdict in described["verdicts"]:
        assert verdict["abstained"]
        assert (verdict["label"], verdict["interval_low"], verdict["interval_high"]) == (None, None, None)
        assert verdict["classical"]["value"] is not None


def test_few_files_are_in_memory_at_once_however_many_are_asked_for(tmp_path, monkeypatch):
    from mcp_experts.serve import state, tools

    reading, most = [], []
    read = tools.channel_from_file

    def slowly(path, index):
        reading.append(path)
        most.append(len(reading))
        time.sleep(0.05)
        reading.pop()
        return read(path, index)

    monkeypatch.setattr(tools, "channel_from_file", slowly)
    sampling = {"subcarrier_spacing_hz": 3e4, "snapshot_interval_s": 1e-3}
    np.savez(tmp_path / "link.npz", csi=synthesize().csi, **sampling)

    async def conversation(client):
        async def load():
            found = await client.call_tool("wireless_load_file", {"path": "link.npz"})
            assert not found.is_error

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(load)

    talk(conversation, root=tmp_path)
    assert len(most) == 6
    assert max(most) == state.READ_AT_ONCE


def test_every_tool_is_described_flat_and_honest_about_what_it_changes():
    async def conversation(client):
        return (await client.list_tools()).tools, (await client.list_prompts()).prompts

    tools, prompts = talk(conversation)
    assert len(tools) <= 20
    for tool in tools:
        assert tool.name.startswith("wireless_")
        assert len(tool.description) > 40
        assert tool.output_schema
        assert tool.input_schema["additionalProperties"] is False
        assert "$defs" not in tool.input_schema
        for about in tool.input_schema["properties"].values():
            assert about["description"]
            assert about.get("type") != "object"
        changes = tool.name.startswith("wireless_load") or tool.name == "wireless_drop_channel"
        assert tool.annotations.read_only_hint is not changes
        assert tool.annotations.destructive_hint is (tool.name == "wireless_drop_channel")
    assert all(prompt.description for prompt in prompts)
    assert prompts

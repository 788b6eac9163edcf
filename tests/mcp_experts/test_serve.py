"""The server through a real client: in memory in both eras, and as a child over stdio."""

import json
import re
import time

import anyio
import numpy as np
import pytest
from mcp import Client

from geoml.errors import UserError
from mcp_experts.__main__ import main
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


def save(path, *channels):
    """A file of one channel, or of several."""
    csi = channels[0].csi if len(channels) == 1 else np.stack([channel.csi for channel in channels])
    sampling = {name: getattr(channels[0], name) for name in ("subcarrier_spacing_hz", "snapshot_interval_s")}
    np.savez(path, csi=csi, **sampling)


@pytest.fixture
def root(tmp_path):
    """A data root with a clear link, three blocked ones in one file, and noise."""
    save(tmp_path / "link.npz", synthesize(k_factor_db=12, doppler_hz=100, snr_db=25))
    save(tmp_path / "links.npz", *(synthesize(seed=seed, doppler_hz=100, snr_db=25) for seed in range(3)))
    noise = np.random.default_rng(0).normal(size=(2, 64, 14))
    sampling = {"subcarrier_spacing_hz": 3e5, "snapshot_interval_s": 1e-3}
    np.savez(tmp_path / "noise.npz", csi=noise[0] + 1j * noise[1], **sampling)
    return tmp_path


async def asked(client, source, question, **more):
    result = await client.call_tool("wireless_ask", {"source": source, "question": question, **more})
    assert not result.is_error, result.content[0].text
    return result


@pytest.mark.parametrize("era", ERAS)
def test_a_file_is_asked_about_by_its_path(root, era):
    async def conversation(client):
        listed = await client.call_tool("wireless_list")
        clear = await asked(client, "link.npz", "line-of-sight")
        blocked = await asked(client, "links.npz#1", "Is the path blocked?")
        fading = await asked(client, "link.npz", "fading", at="1,2,3")
        described = await client.call_tool("wireless_describe", {"source": "link.npz"})
        return listed, clear, blocked, fading, described

    listed, clear, blocked, fading, described = talk(conversation, era=era, root=root)
    assert listed.structured_content["sources"] == ["link.npz", "links.npz", "noise.npz"]
    questions = listed.structured_content["questions"]
    assert questions["line_of_sight"] == ["blocked", "clear"]
    assert len(questions) == len(REGISTRY.experts)
    first, second = clear.content[0].text.splitlines()
    assert first == clear.structured_content["answer"]
    assert first.startswith("The direct path is clear: the link has line of sight, with")
    assert second.startswith("label: clear; confidence: ")
    assert clear.structured_content["label"] == "clear"
    assert blocked.structured_content["label"] == "blocked"
    found = fading.structured_content
    assert (found["label"], found["interval"], found["unit"]) == ("specular", [7.0, None], "dB")
    assert found["classical"].startswith("K-factor 1")
    assert fading.structured_content["answer"].endswith("Note: at is for radio maps and was ignored.")
    assert set(described.structured_content["answers"]) == set(questions) - {"in_distribution"}
    assert described.structured_content["handle"].startswith("link.npz@")


def test_a_handle_of_a_file_means_the_same_in_every_process(root):
    """Clients that start a server for each call keep a handle from one to the next."""

    async def describe(client):
        found = await client.call_tool("wireless_describe", {"source": "links.npz#1"})
        return found.structured_content["handle"]

    handle = talk(describe, root=root)
    assert handle == talk(describe, root=root)
    path, digest = handle.split("@")
    assert path == "links.npz#1"

    async def conversation(client):
        well = await asked(client, handle, "line_of_sight")
        expert = await client.call_tool("wireless_los", {"source": handle})
        wrong = await refused(client, "wireless_ask", source=f"links.npz#2@{digest}", question="snr")
        save(root / "links.npz", *(synthesize(seed=seed) for seed in (4, 5, 6)))
        changed = await refused(client, "wireless_ask", source=handle, question="snr")
        lost = await refused(client, "wireless_ask", source="ch_0", question="snr")
        return well, expert, wrong, changed, lost

    well, expert, wrong, changed, lost = talk(conversation, root=root)
    assert well.structured_content["label"] == expert.structured_content["label"] == "blocked"
    for text in (wrong, changed):
        assert "links.npz has changed since this handle was made; use the path" in text
    assert "pass the path of its file" in lost


def test_a_file_is_read_once_as_long_as_it_does_not_change(root, monkeypatch):
    from mcp_experts.serve.readers import Readers

    read, ask = [], Readers.channel

    def counted(self, opened, index):
        read.append(opened.name)
        return ask(self, opened, index)

    monkeypatch.setattr(Readers, "channel", counted)

    async def conversation(client):
        for question in ("line_of_sight", "snr", "doppler"):
            await asked(client, "link.npz", question)
        await client.call_tool("wireless_describe", {"source": "link.npz"})
        save(root / "link.npz", synthesize(snr_db=10))
        return await asked(client, "link.npz", "snr")

    assert "between" in talk(conversation, root=root).structured_content["answer"]
    assert read == ["link.npz"] * 2


def test_an_answer_says_why_there_is_none(root):
    async def conversation(client):
        outside = await asked(client, "noise.npz", "line_of_sight")
        described = await client.call_tool("wireless_describe", {"source": "noise.npz"})
        undecided = await asked(client, "link.npz", "scenario")
        gate = await asked(client, "noise.npz", "in_distribution")
        return [found.structured_content for found in (outside, described, undecided, gate)]

    outside, described, undecided, gate = talk(conversation, root=root)
    assert outside["reason"] == "unlike the training data"
    assert (outside["label"], outside["confidence"], outside["interval"]) == (None, None, None)
    assert "the classical K-factor is" in outside["answer"]
    assert "unlike the training data: all experts abstain" in described["answer"]
    assert set(described["answers"].values()) == {"Abstained."}
    assert any(note.startswith("classical estimates: ") for note in described["notes"])
    assert re.search(
        r"The data do not decide on the deployment scenario: \w+ is likeliest, at \d+ %\.$", undecided["answer"]
    )
    assert undecided["label"] is None
    assert undecided["reason"] == "the data do not decide"
    assert gate["label"] == "outside"


def test_what_cannot_be_asked_says_what_can(root):
    async def conversation(client):
        return [
            await refused(client, "wireless_ask", source=source, question=question, **more)
            for source, question, more in (
                ("nope.npz", "snr", {}),
                ("link.npz", "weather", {}),
                ("links.npz#3", "snr", {}),
                ("", "snr", {}),
            )
        ]

    missing, unknown, beyond, empty = talk(conversation, root=root)
    assert "it holds link.npz, links.npz, noise.npz" in missing
    assert "line_of_sight" in unknown
    assert "index 3 is beyond the last" in beyond
    assert "source is empty" in empty


def test_few_files_are_read_at_once_however_many_are_asked_for(root, monkeypatch):
    from mcp_experts.serve import readers

    reading, most = [], []
    ask = readers._Process.ask

    def slowly(self, request, descriptors):
        reading.append(request)
        most.append(len(reading))
        time.sleep(0.05)
        try:
            return ask(self, request, descriptors)
        finally:
            reading.pop()

    monkeypatch.setattr(readers._Process, "ask", slowly)

    async def conversation(client):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(asked, client, f"links.npz#{number}", "snr")
                group.start_soon(asked, client, "link.npz", "snr")

    talk(conversation, root=root)
    assert len(most) >= 4
    assert max(most) == readers.READ_AT_ONCE


def test_three_tools_are_listed_and_the_others_can_be_called(root):
    async def conversation(client):
        names = [tool.name for tool in (await client.list_tools()).tools]
        channel_id = await loaded(client, k_factor_db=12, snr_db=25)
        verdict = await client.call_tool("wireless_los", {"channel_id": channel_id})
        card = await client.call_tool("wireless_expert_card", {"expert": "line of sight"})
        dropped = await client.call_tool("wireless_drop_channel", {"source": channel_id})
        gone = await refused(client, "wireless_los", source=channel_id)
        unknown = await refused(client, "wireless_nothing")
        return names, verdict.structured_content, card.structured_content, dropped, gone, unknown

    names, verdict, card, dropped, gone, unknown = talk(conversation, root=root)
    assert names == ["wireless_ask", "wireless_describe", "wireless_list"]
    assert (verdict["expert"], verdict["label"]) == ("los", "clear")
    assert sum(verdict["probabilities"].values()) == pytest.approx(1, abs=0.01)
    assert card["labels"] == ["blocked", "clear"]
    assert card["share_right"]["in_distribution"]["expert"] > card["share_right"]["in_distribution"]["majority"]
    assert dropped.structured_content["dropped"]
    assert "pass the path of its file" in gone
    assert "wireless_nothing" in unknown
    with pytest.raises(UserError, match="toolset 'map' unknown; did you mean 'maps'"):
        build_server(toolsets=["map"])


def tokens(value):
    """At least as many tokens as o200k makes of JSON: English in it has 4.4 characters a token."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text) / 3.5


def test_little_of_a_context_is_taken(root):
    async def conversation(client):
        listed = (await client.list_tools()).tools
        answers = [await asked(client, source, question) for source in ("link.npz", "links.npz#1", "noise.npz")
                   for question in REGISTRY.experts]  # fmt: skip
        described = [
            await client.call_tool("wireless_describe", {"source": source})
            for source in ("link.npz", "links.npz#1", "noise.npz")
        ]
        cards = [await client.call_tool("wireless_expert_card", {"expert": name}) for name in REGISTRY.experts]
        return listed, answers, described, cards

    listed, answers, described, cards = talk(conversation, root=root)
    shown = [{"name": tool.name, "description": tool.description, "parameters": tool.input_schema} for tool in listed]
    assert tokens(shown) <= 900
    for results, most in ((answers, 120), (described, 400), (cards, 500)):
        for result in results:
            assert tokens(result.content[0].text) <= most, result.content[0].text
            assert tokens(result.structured_content) <= most, result.structured_content


def test_lists_and_cards_may_be_kept():
    async def conversation(client):
        results = [await client.list_tools(), await client.list_prompts(), await client.list_resource_templates()]
        return results, await client.read_resource("expert://los/card")

    lists, card = talk(conversation)
    assert all((found.ttl_ms, found.cache_scope) == (3_600_000, "public") for found in lists)
    assert card.ttl_ms > 0


def test_every_tool_is_described_flat_and_honest_about_what_it_changes():
    async def conversation(client):
        return (await client.list_tools()).tools, (await client.list_prompts()).prompts

    tools, prompts = talk(conversation, toolsets=["all"])
    assert len(tools) <= 22
    for tool in tools:
        assert tool.name.startswith("wireless_")
        assert len(tool.description) > 40
        assert tool.output_schema
        assert tool.input_schema["additionalProperties"] is False
        assert "$defs" not in tool.input_schema
        for about in tool.input_schema["properties"].values():
            assert about["description"]
            assert about.get("type") != "object"
        changes = tool.name in ("wireless_load_inline", "wireless_load_synthetic", "wireless_drop_channel")
        assert tool.annotations.read_only_hint is not changes
        assert tool.annotations.destructive_hint is (tool.name == "wireless_drop_channel")
    assert all(prompt.description for prompt in prompts)
    assert prompts


def test_the_skill_names_questions_and_tools_that_there_are(capsys):
    assert main(["skill"]) == 0
    text = capsys.readouterr().out
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert {line.split(":")[0] for line in head.splitlines()} == {"name", "description"}
    for expert in REGISTRY.experts.values():
        assert f"`{expert.definition.question}`" in body
    for tool in ("wireless_ask", "wireless_describe", "wireless_list"):
        assert f"`{tool}" in body

"""Asking through a language model: the agent loop end to end, endpoints that fail, snippets."""

import json
import subprocess
import tomllib
from types import SimpleNamespace

import anyio
import pytest

from geoml.__main__ import main as geoml_main
from geoml.errors import DataError, UserError
from mcp_experts.__main__ import main
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.client.endpoints import Anthropic, Call, OpenAI, from_environment
from mcp_experts.client.snippets import CLIENTS, snippet
from mcp_experts.inference.registry import Registry
from tests.mcp_experts.scripts import calls, last_text, says

VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "ANTHROPIC_API_KEY", "ANTHROPIC_MODEL")


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def channel_file(tmp_path):
    import numpy as np

    channel = synthesize(k_factor_db=12, snr_db=25)
    sampling = {name: getattr(channel, name) for name in ("subcarrier_spacing_hz", "snapshot_interval_s")}
    np.savez(tmp_path / "office.npz", csi=channel.csi, **sampling)
    return tmp_path / "office.npz"


def describe_then_ask(number, body):
    """A script that does what a sensible model does, and answers from what it was told."""
    if number < 3:
        path = next(message["content"] for message in body["messages"] if message["role"] == "user").split("'")[1]
        if number == 1:
            return calls("wireless_describe", {"source": path})
        return calls("wireless_ask", {"source": path, "question": "line_of_sight"})
    return says(last_text(body).splitlines()[0])


def use(monkeypatch, model):
    monkeypatch.setenv("OPENAI_BASE_URL", model.base_url)
    monkeypatch.setenv("OPENAI_MODEL", "scripted")


def test_ask_drives_the_server_and_prints_the_answer(scripted, monkeypatch, channel_file, capsys, tmp_path):
    model = scripted(describe_then_ask)
    use(monkeypatch, model)
    record = tmp_path / "transcript.json"
    code = main(["ask", "Is it line of sight?", "--channel", str(channel_file), "--transcript", str(record)])
    out, err = capsys.readouterr()
    assert code == 0
    assert "The direct path is clear" in out
    assert "wireless_describe, wireless_ask; 300 + 30 tokens" in err
    exchanges = json.loads(record.read_text())
    assert [entry.get("tool") for entry in exchanges if "tool" in entry] == [
        "wireless_describe",
        "wireless_ask",
    ]
    offered = {tool["function"]["name"] for tool in model.requests[0]["tools"]}
    assert offered == {"wireless_ask", "wireless_describe", "wireless_list"}


def test_without_an_endpoint_ask_says_so_and_describe_answers(channel_file, capsys):
    assert main(["ask", " "]) == 2
    assert "the question is empty" in capsys.readouterr().err
    assert main(["ask", "What is it?", "--transcript", "nowhere/at/all.json"]) == 2
    assert "nowhere/at is not a folder" in capsys.readouterr().err
    assert main(["ask", "What is it?", "--channel", str(channel_file)]) == 2
    assert f"mcp-experts describe {channel_file}" in capsys.readouterr().err
    assert main(["describe", str(channel_file)]) == 0
    table_text = capsys.readouterr().out
    for name in Registry().experts:
        assert name in table_text
    assert main(["describe", str(channel_file) + "x"]) == 2


def converse_with(model, turns=4):
    from mcp_experts.client.agent import connected, converse
    from mcp_experts.serve.server import build_server

    async def run():
        async with connected(build_server()) as client:
            return await converse(OpenAI("scripted", model.base_url), client, "system", "question", turns=turns)

    return anyio.run(run)


def test_a_model_that_misuses_tools_is_told_and_one_that_never_ends_is_cut_off(scripted):
    def misuses(number, body):
        if number == 1:
            return calls("wireless_nothing", {})
        if number == 2:
            assert "there is no tool" in body["messages"][-1]["content"]
            return 200, {
                "role": "assistant",
                "tool_calls": [{"id": "x", "function": {"name": "wireless_ask", "arguments": "{not json"}}],
            }
        assert "refused" in body["messages"][-1]["content"]
        return says("I give up")

    assert converse_with(scripted(misuses)).answer == "I give up"
    endless = converse_with(scripted(lambda number, body: calls("wireless_list", {}, number)))
    assert not endless.finished
    assert len(endless.tools) == 4


def test_endpoints_that_fail_are_named(scripted, caplog):
    refused = scripted(lambda number, body: (401, {"message": "bad key"}))
    with pytest.raises(UserError, match="status 401"):
        converse_with(refused)
    assert len(refused.requests) == 1
    busy = scripted(lambda number, body: (503, {"message": "busy"}) if number == 1 else says("well"))
    assert converse_with(busy).answer == "well"
    assert "status 503: " in caplog.text
    assert "try 1 of 4" in caplog.text
    odd = scripted(lambda number, body: (200, "text"))
    with pytest.raises(DataError, match=r"did not answer in OpenAI's format .* usually ends in /v1"):
        converse_with(odd)
    for address in ("http://[::1/v1", "localhost/v1"):
        with pytest.raises(UserError, match="is not a valid address"):
            converse_with(SimpleNamespace(base_url=address))


def test_an_endpoint_that_fails_midway_loses_no_answer(scripted, monkeypatch, tmp_path, capsys):
    model = scripted(lambda number, body: says("ANSWER: A") if number < 3 else (401, {"message": "no more credit"}))
    use(monkeypatch, model)
    words = ["evaluate", "arms=[A0,A1]", "tasks=los", "questions=4", f"run.dir={tmp_path}"]
    assert main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "status 401" in line
    assert "answers so far are kept: run the same command to resume" in line
    use(monkeypatch, scripted(lambda number, body: says("ANSWER: B")))
    assert main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "exchanges.jsonl").read_text().splitlines()]
    assert [row["letter"] for row in rows if row["arm"] == "A1"] == ["A", "A", "B", "B"]


def test_an_endpoint_that_counts_no_tokens_is_listened_to(scripted):
    silent = scripted(lambda number, body: (*says("well"), {"prompt_tokens": None}))
    assert converse_with(silent).answer == "well"


def test_the_environment_names_the_endpoint(monkeypatch):
    assert from_environment() is None
    monkeypatch.setenv("OPENAI_MODEL", "small")
    assert from_environment() is None
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:11434/v1")
    assert from_environment() == OpenAI("small", "http://localhost:11434/v1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    monkeypatch.setenv("ANTHROPIC_MODEL", "large")
    found = from_environment()
    assert isinstance(found, Anthropic)
    assert "key" not in repr(found).replace("key=", "")
    blocks = found.results([(Call("1", "t", {}), "text", True)])
    assert blocks[0]["content"][0] == {"type": "tool_result", "tool_use_id": "1", "content": "text", "is_error": True}


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_snippets_are_what_clients_read(client, capsys, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["config", client, "--root", "data"]) == 0
    out, err = capsys.readouterr()
    assert CLIENTS[client] in err
    found = tomllib.loads(out) if client == "codex" else json.loads(out)
    if client == "registry":
        entry = snippet(client)
        assert len(entry["description"]) <= 100
        assert entry["packages"][0]["transport"] == {"type": "stdio"}
        words = [argument["value"] for argument in entry["packages"][0]["packageArguments"]]
        assert geoml_main([*words, "--help"]) == 0
        assert "--toolsets" in capsys.readouterr().out
        return
    (servers,) = found.values()
    assert list(found) == [{"vscode": "servers", "codex": "mcp_servers"}.get(client, "mcpServers")]
    server = servers["wireless-experts"]
    assert server["args"][-3:] == ["serve", "--root", str(tmp_path / "data")]
    # The command starts, from any folder and without a search path.
    done = subprocess.run([server["command"], *server["args"][:-3], "--version"], env={}, cwd="/", capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"mcp-experts ")


def test_snippets_name_only_what_exists(capsys, tmp_path, monkeypatch):
    assert main(["config", "claude", "--root", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["config", "claude", "--uvx"]) == 2
    assert "uvx is not on the search path" in capsys.readouterr().err
    (tmp_path / "uvx").write_text("#!/bin/sh\n")
    (tmp_path / "uvx").chmod(0o755)
    server = snippet("claude", uvx=True)["mcpServers"]["wireless-experts"]
    assert server["command"] == str(tmp_path / "uvx")
    assert server["args"][:3] == ["--from", "geoml[mcp]", "mcp-experts"]
    assert main(["config", "claude"]) == 0
    assert "without --root" in capsys.readouterr().err

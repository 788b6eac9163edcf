"""Asking through a language model: the agent loop end to end, endpoints that fail, evaluation, snippets."""

import itertools
import json
import re
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
from mcp_experts.evaluate.conditions import parse_answer
from mcp_experts.evaluate.distractors import distractors
from mcp_experts.evaluate.paraphrases import FRAMES, wording
from mcp_experts.evaluate.questions import load_questions
from mcp_experts.evaluate.table import comparison, mcnemar, table
from mcp_experts.evaluate.verb import run_arms
from mcp_experts.inference.registry import Registry

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


def says(text):
    return 200, {"role": "assistant", "content": text}


def calls(tool, arguments, number=1):
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return 200, {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call{number}", "type": "function", "function": function}],
    }


def last_text(body):
    return body["messages"][-1]["content"]


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


def test_an_evaluation_with_a_scripted_model_resumes_and_is_refused_by_the_table(scripted, tmp_path):
    registry = Registry()
    questions = load_questions(registry, tasks=["los", "los+doppler"], count=6)
    asked = {"count": 0}

    def by_description(_, body):
        text = body["messages"][-1]["content"]
        if body["messages"][-1]["role"] == "user":
            asked["count"] += 1
            if "tools" not in body:
                return says("ANSWER: A")
            return calls("wireless_ask", {"source": text.split("'")[1], "question": "Line of sight?"})
        if "This channel (" not in text and "experts decide" not in text:
            source = next(m["content"] for m in body["messages"] if m["role"] == "user").split("'")[1]
            return calls("wireless_describe", {"source": source})
        return says("Thinking.\nANSWER: B")

    endpoint = OpenAI("scripted", scripted(by_description).base_url)

    def run(arms):
        return anyio.run(lambda: run_arms(arms, questions, registry, endpoint, tmp_path, kind="scripted"))

    rows = run(["A0", "A1", "A4", "A5", "A7"])
    assert len(rows) == 5 * 12
    assert asked["count"] == 24
    assert run(["A0", "A1", "A4", "A5", "A7"]) == rows
    assert asked["count"] == 24
    log = tmp_path / "exchanges.jsonl"
    log.write_text(log.read_text().replace(registry.digest, "from another training"))
    assert run(["A0", "A1", "A4", "A5", "A7"]) != rows
    assert asked["count"] == 48
    five = [row for row in rows if row["arm"] == "A5"]
    assert {tuple(row["tools"]) for row in five} == {("wireless_ask:los", "wireless_describe")}
    for make in (table, comparison):
        with pytest.raises(DataError, match="live models only"):
            make(rows)
    alone = table([row for row in rows if row["model_kind"] == "none"])
    assert {entry["arm"] for entry in alone} == {"A0", "A4", "A7"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("arms=[A4,A11]", "arm 'A11' unknown"),
        ("most_usd=5", "most_usd needs prices"),
        ("usd_per_million=[3]", "expected two prices"),
        ("tasks=lso", "task 'lso' unknown"),
        ("tasks=[]", "of at least one task"),
        ("questions=-3", "questions=-3 of tasks=all; expected 1 or more"),
        ("arms=[]", "arms is []; expected some of A0"),
        ("arms=[A3,A5]", "A3, A5 need a language model, and the environment sets none"),
        ("folder=pyproject.toml", "does not exist"),
        ("weights=model.gguf", "weights without local=true"),
        ("local=true weights=none.gguf", "none.gguf does not exist"),
    ],
)
def test_an_evaluation_that_is_asked_wrongly_says_so(words, message, tmp_path, capsys):
    assert main(["evaluate", *words.split(), f"run.dir={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


def test_doctored_experts_know_lie_or_abstain_through_a_server(scripted, tmp_path):
    """Arms A6, A8 and A9: pasted verdicts reach the model, and what the tools say is the truth, a lie, or nothing."""
    registry = Registry()
    questions = load_questions(registry, tasks="doppler", count=8)
    classes = registry.expert("doppler").definition.classes

    def asks_doppler(_, body):
        text = body["messages"][-1]["content"]
        if body["messages"][-1]["role"] == "user":
            if "tools" not in body:
                return says(f"ANSWER: {'A' if 'set_coverage' not in text and 'ood_score' in text else 'B'}")
            return calls("wireless_ask", {"source": text.split("'")[1], "question": "doppler"})
        label = re.search(r"^label: (\w+)", text, re.MULTILINE)
        remaining = sum(name.replace("_", " ") in text for name in classes)
        reason = re.search(r"(^|; )reason: \S", text, re.MULTILINE) is not None
        return says(f"{label[1] if label else None} {remaining} {reason}\nANSWER: A")

    endpoint = OpenAI("scripted", scripted(asks_doppler).base_url)
    rows = anyio.run(lambda: run_arms(["A6", "A8", "A9"], questions, registry, endpoint, tmp_path, kind="scripted"))
    assert all(row["letter"] == "A" for row in rows if row["arm"] == "A6")
    by_question = {question.identifier: question for question in questions.questions}
    seen = {"A8": 0, "A9": 0}
    for row in rows:
        if row["arm"] == "A6":
            continue
        question = by_question[row["question"]]
        said = row["exchanges"][-1]["assistant"].split("\n")[0].split()
        truth = classes[questions.labels(question.channel, registry)["doppler"]]
        if said[0] == "None":
            # The gate found the channel outside or the expert abstained (all classes are likely), or the channel does
            # not meet the expert's requirements (none is named, and the reason is).
            assert said[2] == "True"
            assert row["arm"] == "A8" or question.channel % 2 == 0 or said[1] in ("0", str(len(classes)))
            continue
        seen[row["arm"]] += 1
        assert (said[0] == truth) == (row["arm"] == "A8")
        assert row["arm"] == "A8" or question.channel % 2 == 0
    assert all(seen.values())


def test_comparison_of_live_rows():
    def row(arm, number, right):
        return {"task": "los", "arm": arm, "question": str(number), "right": right, "model_kind": "live"}

    right = {"A3": 4, "A5": 8, "A7": 9}
    rows = [row(arm, number, number < count) for arm, count in right.items() for number in range(10)]
    found = comparison(rows)[0]
    assert found["points"] == pytest.approx(40)
    assert found["relative_gain"] == pytest.approx(1)
    assert found["ceiling_recovery"] == pytest.approx(0.8)
    assert found["mcnemar_p"] == pytest.approx(mcnemar(4, 0)) == pytest.approx(0.125)
    assert 0 < found["recovery_low"] < 0.8 < found["recovery_high"] <= 1
    right["A3"] = 8
    rows = [row(arm, number, number < count) for arm, count in right.items() for number in range(10)]
    assert [comparison(rows)[0][name] for name in ("ceiling_recovery", "recovery_low", "recovery_high")] == [None] * 3


def test_wrong_answers_and_unparsable_ones_are_counted_apart():
    def row(letter, right):
        who = {"task": "los", "arm": "A1", "model": "m", "model_kind": "live", "wanted_tools": ()}
        return {**who, "letter": letter, "right": right, "tokens_in": 1, "tokens_out": 1, "seconds": 1.0}

    (found,) = table([row("A", True), row("B", False), row("", False), row("", False)])
    assert (found["accuracy"], found["wrong"], found["unparsable"]) == (0.25, 1, 2)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The direct path is clear.", "B"),
        ("BLOCKED", "A"),
        ("clear or blocked", ""),
        ("not clear", ""),
        ("unclear", ""),
        ("It could be blocked. ANSWER: clear", "B"),
        ("A or B? ANSWER: A\nno: ANSWER: (b)", "B"),
        ("", ""),
        ("B", ""),
        ("ANSWER:", ""),
        ("ANSWER: E", ""),
    ],
)
def test_an_answer_names_one_option_or_cannot_be_read(text, letter):
    assert parse_answer(text, ("blocked", "clear")) == letter


def test_answers_to_two_questions_name_both_labels():
    options = ("clear, below_resolution", "blocked, slow", "clear, slow")
    assert parse_answer("clear, and the Doppler shift is below resolution", options) == "A"
    assert parse_answer("blocked", options) == ""


def test_questions_have_twenty_wordings_without_a_label():
    assert len(set(FRAMES)) == 20
    registry = Registry()
    questions = load_questions(registry, count=60).questions
    heads = {question.text.split("\n")[0] for question in questions if question.task == "los"}
    assert len(heads) >= 20
    for question in questions:
        head = question.text.split("\n")[0].lower()
        assert not any(label.lower() in head.split() for option in question.options for label in option.split(", "))
    assert wording("los-3", ["line_of_sight"]) == wording("los-3", ["line_of_sight"])
    tasks = [question.task for question in questions]
    assert sum(one != other for one, other in itertools.pairwise(tasks)) > len(tasks) / 2


def test_distractors_are_offered_beside_the_servers_tools(scripted, tmp_path):
    registry = Registry()
    questions = load_questions(registry, tasks="los", count=1)

    def script(number, body):
        if number == 1:
            return calls("read_calendar", {"day": "2026-11-30"})
        assert last_text(body) == "no appointments"
        return says("clear")

    model = scripted(script)
    endpoint = OpenAI("scripted", model.base_url)
    (row,) = anyio.run(lambda: run_arms(["A5"], questions, registry, endpoint, tmp_path, kind="scripted"))
    offered = [tool["function"]["name"] for tool in model.requests[0]["tools"]]
    assert offered == ["wireless_ask", "wireless_describe", "wireless_list", *(tool.name for tool in distractors())]
    assert row["tools"] == ["read_calendar"]
    system = model.requests[0]["messages"][0]["content"]
    assert "Ask with the path of a file" in system  # the server's own instructions


def test_questions_are_frozen_shuffled_and_even():
    registry = Registry()
    one, again = (load_questions(registry, count=60, seed=1) for _ in range(2))
    other = load_questions(registry, count=60, seed=2)
    assert one.digest == again.digest != other.digest
    los = [question for question in one.questions if question.task == "los"]
    right = [question.options[ord(question.answer) - ord("A")] for question in los]
    assert right.count("clear") == 30
    assert 10 < [question.answer for question in los].count("A") < 50
    assert all(len(question.experts) == 2 for question in one.questions if "+" in question.task)
    with pytest.raises(DataError, match="at most that many"):
        load_questions(registry, count=10_000)


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

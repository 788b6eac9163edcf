"""Evaluation of language models: conditions, questions, tables, and answers that cannot be read."""

import itertools
import re

import anyio
import pytest

from geoml.errors import DataError
from mcp_experts.__main__ import main
from mcp_experts.client.endpoints import OpenAI
from mcp_experts.evaluate.conditions import parse_answer
from mcp_experts.evaluate.distractors import distractors
from mcp_experts.evaluate.paraphrases import FRAMES, wording
from mcp_experts.evaluate.questions import load_questions
from mcp_experts.evaluate.table import comparison, mcnemar, table
from mcp_experts.evaluate.verb import run_arms
from mcp_experts.inference.registry import Registry
from tests.mcp_experts.scripts import calls, last_text, says


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
        why = r"(^|; )reason: \S|^No answer about the [\w ]+: \S|do not decide|unlike the training data"
        reason = re.search(why, text, re.MULTILINE) is not None
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
    assert "For a question about a file call wireless_ask" in system  # the server's own instructions


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

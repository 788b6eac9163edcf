"""Forty live questions: a language model on this machine chooses tools of the server by itself and follows them.

The weights are those of a file in GGUF format that the environment names: the packaged ones are too small to choose.
"""

import os
from pathlib import Path

import anyio
import pytest

from mcp_experts.evaluate.questions import load_questions
from mcp_experts.evaluate.table import table
from mcp_experts.evaluate.verb import run_arms
from mcp_experts.inference.registry import Registry
from mcp_experts.local import model

WEIGHTS = os.environ.get("MCP_EXPERTS_WEIGHTS", "")
#: Share of questions in which the model asked the right expert, and followed it, at least.
LEAST_RECALL, LEAST_FAITHFUL = 0.9, 0.8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not model.installed(), reason="make llm-setup installs the local model"),
    pytest.mark.skipif(not WEIGHTS, reason="MCP_EXPERTS_WEIGHTS names no weights of half a billion parameters or more"),
]


def test_forty_questions_are_asked_of_the_right_expert_and_answered_as_it_says(tmp_path):
    from mcp_experts.local.endpoint import local_endpoint

    registry = Registry()
    questions = load_questions(registry, tasks=["los"], count=40)
    endpoint = local_endpoint(Path(WEIGHTS))
    rows = anyio.run(lambda: run_arms(["A5"], questions, registry, endpoint, tmp_path, kind="live"))
    (found,) = table(rows)
    assert found["n"] == 40
    assert found["tool_recall"] >= LEAST_RECALL
    assert found["faithful"] >= LEAST_FAITHFUL
    assert found["unparsable"] <= 40 * (1 - LEAST_FAITHFUL)

"""Endpoints: what newer ones refuse, what small models leave out, and the vendors' own types of requests."""

import json

import anyio
import pytest
from mcp import Client
from pydantic import TypeAdapter

from geoml.errors import UserError
from mcp_experts.client.agent import connected, converse
from mcp_experts.client.endpoints import Anthropic, Call, OpenAI, wire_of
from mcp_experts.serve.server import build_server

HOSTS = {
    "openai": "https://api.openai.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "mistral": "https://api.mistral.ai/v1",
    "ollama": "http://localhost:11434/v1",
    "llama.cpp": "http://localhost:8080/v1",
}


def talk(endpoint, *, turns=4, **settings):
    async def run():
        async with connected(build_server(**settings)) as client:
            return await converse(endpoint, client, "system", "question", turns=turns)

    return anyio.run(run)


def tools():
    async def run():
        async with Client(build_server(toolsets=["all"])) as client:
            listed = (await client.list_tools()).tools
            return [{"name": t.name, "description": t.description, "schema": t.input_schema} for t in listed]

    return anyio.run(run)


def says(content, **more):
    return 200, {"role": "assistant", "content": content, **more}


@pytest.mark.parametrize(
    ("complaint", "lacks", "has"),
    [
        ("Unsupported: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens", "max_completion_tokens"),
        ("'temperature' does not support 0 with this model. Only the default (1) value.", "temperature", "max_tokens"),
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_left_out_from_then_on(scripted, complaint, lacks, has):
    def script(number, body):
        if lacks in body:
            return 400, {"message": complaint}
        return says("well")

    model = scripted(script)
    endpoint = OpenAI("m", model.base_url)
    assert talk(endpoint).answer == talk(endpoint).answer == "well"
    assert [lacks in body for body in model.requests] == [True, False, False]
    assert all(has in body for body in model.requests[1:])


def test_a_server_that_refuses_for_ever_is_left_alone(scripted):
    model = scripted(lambda number, body: (400, {"message": "temperature, max_tokens: no"}))
    with pytest.raises(UserError, match="status 400"):
        talk(OpenAI("m", model.base_url))
    assert len(model.requests) == 2


def test_malformed_arguments_are_never_sent_back(scripted):
    """llama.cpp answers 500 to arguments that are not JSON."""
    calls = [{"id": "c", "type": "function", "function": {"name": "wireless_list", "arguments": '{"cursor": '}}]

    def script(number, body):
        for message in body["messages"]:
            for call in message.get("tool_calls", ()):
                json.loads(call["function"]["arguments"])
        return says(None, tool_calls=calls) if number == 1 else says("done")

    found = talk(OpenAI("m", scripted(script).base_url))
    assert found.answer == "done"
    assert "unreadable_arguments" in found.exchanges[2]["result"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"function": {"name": None, "arguments": "{}"}}, "there is no tool unnamed"),
        ({"id": None, "function": {"name": "wireless_list", "arguments": {}}}, "Questions and labels"),
        ({"function": {"name": "wireless_list", "arguments": None}}, "Questions and labels"),
        ({"id": 3, "type": "function", "function": {"name": "wireless_list"}}, "Questions and labels"),
        ({"id": "x"}, "there is no tool unnamed"),
    ],
)
def test_what_models_leave_out_is_filled(scripted, call, told):
    def script(number, body):
        if number == 1:
            return says([{"type": "text", "text": "let me "}, {"type": "text", "text": "see"}], tool_calls=[call])
        sent, answered = body["messages"][-2:]
        assert sent["tool_calls"][0]["id"] == answered["tool_call_id"]
        assert sent["content"] == "let me see"
        return says([{"type": "text", "text": "done"}])

    found = talk(OpenAI("m", scripted(script).base_url))
    assert found.answer == "done"
    assert told in found.exchanges[2]["result"]


def test_gemini_gets_its_signature_back_and_fewer_keywords():
    calls = [Call("c", "wireless_list", {}, {"extra_content": {"google": {"thought_signature": "s"}}})]
    from mcp_experts.client.endpoints import _assistant

    assert _assistant("", calls)["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s"}}
    body = OpenAI("m", HOSTS["gemini"])._body("system", [], tools())
    assert "additionalProperties" not in json.dumps(body)
    assert "anyOf" not in json.dumps(body)
    plain = OpenAI("m", HOSTS["ollama"])._body("system", [], tools())
    assert "additionalProperties" in json.dumps(plain)


def conversation(endpoint):
    """The messages after a call that was malformed and one that was well."""
    calls = [Call("call00000", "wireless_list", {}), Call("call00001", "wireless_ask", {"unreadable_arguments": "{"})]
    results = endpoint.results([(call, "text", False) for call in calls])
    return calls, results


@pytest.mark.parametrize("host", HOSTS)
def test_requests_are_of_openais_own_types(host):
    params = pytest.importorskip("openai.types.chat.completion_create_params")
    from mcp_experts.client.endpoints import _assistant

    endpoint = OpenAI("model", HOSTS[host])
    calls, results = conversation(endpoint)
    messages = [endpoint.user("question"), _assistant("", calls), *results]
    body = endpoint._body("system", messages, tools())
    TypeAdapter(params.CompletionCreateParamsNonStreaming).validate_python(body, strict=True, extra="forbid")
    assert wire_of(HOSTS[host]).limit in body
    assert ("temperature" in body) == (host != "openai")
    assert all(len(call["id"]) == 9 and call["id"].isalnum() for call in messages[1]["tool_calls"])


def test_requests_are_of_anthropics_own_types():
    params = pytest.importorskip("anthropic.types.message_create_params")
    endpoint = Anthropic("model", "https://api.anthropic.com", "key")
    calls, results = conversation(endpoint)
    blocks = [{"type": "tool_use", "id": call.identifier, "name": call.tool, "input": call.arguments} for call in calls]
    messages = [endpoint.user("question"), {"role": "assistant", "content": blocks}, *results]
    body = endpoint._body("system", messages, tools())
    read = TypeAdapter(params.MessageCreateParamsNonStreaming).validate_python(body, strict=True, extra="forbid")
    assert set(read) == set(body)

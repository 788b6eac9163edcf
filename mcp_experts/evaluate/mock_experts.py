"""Mock experts that know the truth, give wrong labels or abstain, to bound how a language model uses verdicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from mcp_experts.inference.features import FEATURES
from mcp_experts.inference.registry import Registry

__all__ = ["Kind", "doctored"]

Kind = Literal["oracle", "lying", "abstaining"]
#: Probability of the class that a mock expert names.
SURE = 0.98


def doctored(registry: Registry, labels: dict[str, int], *, kind: Kind) -> Registry:
    """Mock experts for one channel with true classes `labels`, by expert; experts without a label are unchanged.

    "oracle" experts name the true class, "lying" ones the first or last class, whichever is farther from it, and
    "abstaining" ones give equal probabilities. Cards, definitions and the gate are unchanged.
    """
    changed = Registry(registry.only, registry.plugins, consistent=False)
    for name, label in labels.items():
        honest = registry.expert(name)
        classes = len(honest.definition.classes)
        named = label if kind == "oracle" else 0 if label >= classes / 2 else classes - 1
        probabilities = np.full(classes, 1 / classes)
        if kind != "abstaining":
            probabilities = np.where(np.arange(classes) == named, SURE, (1 - SURE) / (classes - 1))
        blind = (np.zeros((FEATURES, classes), np.float32), np.log(probabilities).astype(np.float32))
        expert = replace(honest)
        # Replace the value of the cached property by a network of one layer that ignores its input.
        vars(expert)["network"] = replace(
            honest.network, layers=(blind,), temperature=1.0, threshold=np.full(classes, 0.5 / classes, np.float32)
        )
        changed.experts[name] = expert
    return changed

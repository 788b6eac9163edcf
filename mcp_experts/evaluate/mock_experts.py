"""Experts that know the truth, lie, or say nothing: they show what a language model makes of the best and the worst."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from mcp_experts.inference.features import FEATURES
from mcp_experts.inference.registry import Registry

__all__ = ["Kind", "doctored"]

Kind = Literal["oracle", "lying", "abstaining"]
#: Probability of the class that a doctored expert names.
SURE = 0.98


def doctored(registry: Registry, labels: dict[str, int], *, kind: Kind) -> Registry:
    """The experts on one channel whose classes are `labels`, by name of expert; those without a truth stay honest.

    "oracle" experts name the true class, "lying" ones the class farther from it at an end, and "abstaining" ones find
    all alike. Cards, definitions and the gate are those of the honest.
    """
    changed = Registry(registry.only, registry.plugins)
    for name, label in labels.items():
        honest = registry.expert(name)
        classes = len(honest.definition.classes)
        named = label if kind == "oracle" else 0 if label >= classes / 2 else classes - 1
        probabilities = np.full(classes, 1 / classes)
        if kind != "abstaining":
            probabilities = np.where(np.arange(classes) == named, SURE, (1 - SURE) / (classes - 1))
        blind = (np.zeros((FEATURES, classes), np.float32), np.log(probabilities).astype(np.float32))
        expert = replace(honest)
        # Where the cached property keeps what it has read: a network of one layer that looks at nothing.
        vars(expert)["network"] = replace(honest.network, layers=(blind,), temperature=1.0, threshold=0.5 / classes)
        changed.experts[name] = expert
    return changed

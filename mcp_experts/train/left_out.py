"""Trainings without one kind of channels, which measure what a verdict on a new kind is worth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mcp_experts.train.dataset import Examples

__all__ = ["KINDS", "without"]

#: Kinds of channels by the generators that draw them.
KINDS: dict[str, tuple[str, ...]] = {
    "delay_lines": ("tdl", "cdl"),
    "systems": ("umi", "uma", "rma", "inf"),
    "waves": ("rays",),
    "offices": ("inh",),
    "ultra_wideband": ("uwb",),
    "traced": ("traced",),
}


def without(sets: Mapping[str, Examples], kind: str) -> dict[str, Examples]:
    """The sets without a kind, and the test channels of that kind as "left_out"."""
    inside = {part: np.isin(each.source, KINDS[kind]) for part, each in sets.items()}
    kept = {part: each.rows(~inside[part]) for part, each in sets.items()}
    return kept | {"left_out": sets["test"].rows(inside["test"])}

"""Training without one kind of channels, to measure the reliability of verdicts on new kinds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mcp_experts.train.dataset import Examples

__all__ = ["KINDS", "without"]

#: Kinds of channels, each with the names of its generators.
KINDS: dict[str, tuple[str, ...]] = {
    "delay_lines": ("tdl", "cdl"),
    "systems": ("umi", "uma", "rma", "inf"),
    "waves": ("rays",),
    "offices": ("inh",),
    "ultra_wideband": ("uwb",),
    "traced": ("traced",),
}


def without(sets: Mapping[str, Examples], kind: str) -> dict[str, Examples]:
    """Remove a kind of channels from all sets; its test channels become the set "left_out"."""
    inside = {part: np.isin(each.source, KINDS[kind]) for part, each in sets.items()}
    kept = {part: each.rows(~inside[part]) for part, each in sets.items()}
    return kept | {"left_out": sets["test"].rows(inside["test"])}

"""`mcp-experts train`, importing what only training needs when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoml.errors import missing_packages
from geoml.runs import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["train"]


def train(config: DictConfig, run: RunFolder) -> list[dict[str, Any]]:
    """Train experts, write their weights and cards, and give a row each on channels that were not seen."""
    with missing_packages("experts"):
        from mcp_experts.train.session import train_experts

        return train_experts(config, run)

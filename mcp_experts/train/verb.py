"""`mcp-experts train`; imports training packages only when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from geoml.errors import UserError, missing_packages, unknown
from geoml.runs.folder import RunFolder
from mcp_experts.inference.registry import Registry
from mcp_experts.train.left_out import KINDS

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["check", "train"]


def train(config: DictConfig, run: RunFolder) -> list[dict[str, Any]]:
    """Train experts, write their weights and cards, and return one row per expert on unseen channels."""
    check(config)  # before slow imports
    with missing_packages("experts"):
        from mcp_experts.train.session import train_experts

        return train_experts(config, run)


def check(config: DictConfig) -> None:
    """Raise `UserError` for unknown experts and invalid counts."""
    names = [config.expert] if isinstance(config.expert, str) else list(config.expert or ())
    if not names:
        raise UserError(f"expert is {config.expert}; name one or several, or all")
    if names != ["all"]:
        Registry(names)
    if config.left_out is not None and config.left_out not in KINDS:
        raise unknown("left_out:", str(config.left_out), KINDS)
    for key in ("links", "recipe"):
        if config[key] is None:
            raise UserError(f"{key}=null; expected settings by name, or leave it out for the defaults")
    least = {"threads": 1, "recipe.epochs": 1, "recipe.batch": 1} | {f"links.{name}": 0 for name in config.links}
    for key, lowest in least.items():
        value = OmegaConf.select(config, key)
        if not isinstance(value, int | float) or value < lowest or value % 1:
            raise UserError(f"{key}={value}; expected a whole number, {lowest} or more")

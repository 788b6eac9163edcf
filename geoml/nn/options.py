"""Options of a U-Net, common to all models with a U-Net: the setting `network` of their presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoml.nn.blocks import Norm
    from geoml.nn.ops import Operator

__all__ = ["NETWORK", "UNetOptions"]


@dataclass(frozen=True)
class UNetOptions:
    """Size and kind of a U-Net; see `geoml.nn.unet.UNet` for the meaning of each option.

    >>> UNetOptions.of({"base": 8, "multipliers": [1, 2]}).multipliers
    (1, 2)
    """

    base: int = 16
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1
    attention: tuple[int, ...] = ()
    norm: Norm = "group"
    dropout: float = 0.0
    operator: Operator = "full"
    first_axis_halvings: int | None = None
    recompute: bool = False

    @classmethod
    def of(cls, entry: UNetOptions | Mapping[str, Any]) -> UNetOptions:
        """Build the options from a configuration; an unknown setting raises `UserError`."""
        if isinstance(entry, UNetOptions):
            return entry
        from geoml.cli.config import build

        values = {key: tuple(value) if isinstance(value, list) else value for key, value in dict(entry).items()}
        return build(cls, values, where="network")


#: Default network options of a model.
NETWORK = UNetOptions()

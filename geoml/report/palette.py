"""Colours that are distinguishable with colour-vision deficiency; a name has the same colour in every figure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["OKABE_ITO", "colours"]

#: Okabe & Ito 2008, "Color Universal Design", without black, which is invisible on a dark page.
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")


#: Brightness of each further round of the eight colours, relative to the round before.
SHADE = 0.55


def colours(names: Sequence[str]) -> dict[str, str]:
    """Map each name to a colour; after eight names the colours repeat with a darker shade.

    >>> colours(["edm", "gan"])
    {'edm': '#0072b2', 'gan': '#d55e00'}
    """
    return {name: _shaded(index) for index, name in enumerate(names)}


def _shaded(index: int) -> str:
    shade = SHADE ** (index // len(OKABE_ITO))
    base = OKABE_ITO[index % len(OKABE_ITO)]
    return "#" + "".join(f"{round(int(base[at : at + 2], 16) * shade):02x}" for at in (1, 3, 5))

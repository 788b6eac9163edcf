"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

__all__ = ["Block", "Chart", "Panel", "Report", "Section", "Table", "Text", "Viewer", "ViewerAxis", "ViewerField"]


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text, an empty line between them; "note" is set apart, "code" stands letter by letter."""

    text: str
    kind: Literal["plain", "note", "code"] = "plain"


@dataclass(frozen=True)
class Table:
    """Rows as a table that sorts by any column; `caption` says what the numbers are and in which unit.

    `sort` names the column by which it is sorted at first; a `folded` one shows its caption until it is opened.
    """

    rows: Sequence[Mapping[str, Any]]
    caption: str
    sort: str | None = None
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A Plotly figure; `alt` says in a sentence what it shows to who cannot see it."""

    figure: Figure
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class ViewerAxis:
    """What a viewer can be moved along: "select" for names, "range" for what has an order, from number `start` on."""

    name: str
    values: Sequence[str]
    control: Literal["select", "range"] = "select"
    start: int = 0


@dataclass(frozen=True)
class Panel:
    """How the fields of a panel are coloured: `bounds` of classes, or a continuous scale from `low` to `high`.

    `modality` picks among several looks of one panel: the value on the axis of that name for which this one holds.
    """

    name: str
    unit: str
    colours: str = "Viridis"
    low: float = 0.0
    high: float = 1.0
    bounds: tuple[float, ...] = ()
    modality: str | None = None


@dataclass(frozen=True)
class ViewerField:
    """One field `(y, x)` of a panel: shown where the viewer stands at `place`, axis name to value.

    An axis that `place` does not name does not matter to it. NaN is unknown and stays empty. `marks` are points
    `(x, y)` drawn upon it, of an antenna, say.
    """

    panel: str
    place: Mapping[str, str]
    values: NDArray[Any]
    x: NDArray[Any]
    y: NDArray[Any]
    marks: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Viewer:
    """Maps side by side on common colours, moved along `axes` together; `aspect` is a y unit in x units on screen."""

    axes: Sequence[ViewerAxis]
    panels: Sequence[Panel]
    fields: Sequence[ViewerField]
    alt: str
    caption: str = ""
    x_title: str = "x"
    y_title: str = "y"
    aspect: float = 1.0


Block = Text | Table | Chart | Viewer


@dataclass(frozen=True)
class Section:
    """A headed part of a report; sections of one `group` follow each other under its name."""

    title: str
    blocks: Sequence[Block]
    group: str = ""


@dataclass(frozen=True)
class Report:
    """A whole page: what it is called, a sentence on it, and its sections."""

    title: str
    summary: str
    sections: Sequence[Section] = field(default_factory=tuple)

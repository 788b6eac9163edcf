"""The blocks of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from geoml.report.figures import Plot

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

__all__ = ["Block", "Chart", "Panel", "Report", "Section", "Table", "Text", "Viewer", "ViewerAxis", "ViewerField"]


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text, separated by empty lines; "note" is set in small type, "code" verbatim."""

    text: str
    kind: Literal["plain", "note", "code"] = "plain"


@dataclass(frozen=True)
class Table:
    """A table that sorts by any column; `caption` explains the numbers and their units.

    `sort` names the initial sort column; a `folded` table shows only its caption until it is opened.
    """

    rows: Sequence[Mapping[str, Any]]
    caption: str
    sort: str | None = None
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart; `alt` describes it in one sentence for screen readers. Plotly figures (3-D) are left out in print."""

    figure: Plot | Figure
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class ViewerAxis:
    """A control of a viewer: "select" for names, "range" for ordered values; `start` is the initial index."""

    name: str
    values: Sequence[str]
    control: Literal["select", "range"] = "select"
    start: int = 0


@dataclass(frozen=True)
class Panel:
    """Colours of a panel: classes between `bounds`, `under` for values below the first, or a scale `low` to `high`.

    `labels` are the names of the classes, one more than bounds; without labels the bounds are shown.
    `modality` selects among several colourings of one panel, by the value of the viewer's first axis.
    """

    name: str
    unit: str
    colours: str = "Viridis"
    low: float = 0.0
    high: float = 1.0
    bounds: tuple[float, ...] = ()
    modality: str | None = None
    under: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ViewerField:
    """One field `(y, x)` of a panel, shown when the viewer's axes have the values in `place`.

    Axes that `place` does not name are ignored. NaN stays empty, `solid` cells are dark. `marks` are points `(x, y)`
    drawn on the field, for example antennas, or `(x, y, azimuth)` of directed ones, in degrees from y towards x.
    """

    panel: str
    place: Mapping[str, str]
    values: NDArray[Any]
    x: NDArray[Any]
    y: NDArray[Any]
    marks: Sequence[tuple[float, ...]] = ()
    solid: NDArray[Any] | None = None


@dataclass(frozen=True)
class Viewer:
    """Maps side by side with common colours and controls `axes`; `aspect` is the length of a y unit in x units.

    In print the axis `rows` goes down the page and the axis `columns` along a row; the others stay at their start.
    """

    axes: Sequence[ViewerAxis]
    panels: Sequence[Panel]
    fields: Sequence[ViewerField]
    alt: str
    caption: str = ""
    x_title: str = "x"
    y_title: str = "y"
    aspect: float = 1.0
    rows: str = ""
    columns: str = ""

    def field(self, panel: Panel, here: Mapping[str, str]) -> ViewerField | None:
        """Return the field of a panel for the axis values `here`; None if there is no such field."""
        return next(
            (field for field in self.fields if field.panel == panel.name and field.place.items() <= here.items()), None
        )


Block = Text | Table | Chart | Viewer


@dataclass(frozen=True)
class Section:
    """A section of a report with a heading; sections of one `group` are listed under its name."""

    title: str
    blocks: Sequence[Block]
    group: str = ""


@dataclass(frozen=True)
class Report:
    """A page: title, one-sentence summary and sections."""

    title: str
    summary: str
    sections: Sequence[Section] = field(default_factory=tuple)

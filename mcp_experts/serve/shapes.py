"""The shapes of results, flat: what each tool promises in its output schema, with `Verdict`."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

__all__ = ["Card", "Description", "Dropped", "ExpertList", "Loaded", "MapPoint"]


class Description(TypedDict):
    """The verdicts of all experts on one channel."""

    channel_id: str
    in_distribution: bool
    verdicts: list[dict[str, Any]]
    hint: str


class ExpertList(TypedDict):
    """A page of experts."""

    experts: list[dict[str, Any]]
    next_cursor: str | None


class Card(TypedDict):
    """The card of one expert."""

    expert: str
    card: dict[str, Any]


class Loaded(TypedDict):
    """A handle and what it stands for."""

    channel_id: str
    subcarriers: int
    snapshots: int
    antennas: int
    bandwidth_hz: float
    duration_s: float
    lifetime_s: float
    warnings: list[str]


class Dropped(TypedDict):
    """A handle that is no more."""

    channel_id: str
    dropped: bool


class MapPoint(TypedDict):
    """A radio map at one point."""

    expert: str
    path: str
    path_gain_db: float | None
    los: bool | None
    toa_s: float | None
    inside_building: bool
    no_path: bool
    distance_m: float
    uncertainty_db: float | None
    abstained: bool
    classical: dict[str, float | str | None]
    warnings: list[str]
    latency_ms: float

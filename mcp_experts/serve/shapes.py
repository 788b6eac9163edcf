"""The shapes of results, flat: what each tool promises in its output schema, with `Verdict`."""

from __future__ import annotations

from typing_extensions import TypedDict

__all__ = ["Answer", "Budget", "Card", "Description", "Design", "Dropped", "Listing", "Loaded", "MapPoint"]


class Answer(TypedDict):
    """One question, answered: a sentence first."""

    answer: str
    question: str
    label: str | None
    confidence: float | None
    interval: list[float | None] | None
    unit: str | None
    reason: str | None
    classical: str | None


class Description(TypedDict):
    """All questions about one channel, answered shortly."""

    answer: str
    handle: str
    answers: dict[str, str]
    notes: list[str]


class Listing(TypedDict):
    """What can be asked about, and what can be asked."""

    answer: str
    sources: list[str]
    questions: dict[str, list[str]]
    next_cursor: str | None


class Card(TypedDict):
    """How far an expert can be trusted, in short."""

    question: str
    labels: list[str]
    edges: list[str]
    meaning: str
    limits: str
    share_right: dict[str, dict[str, float]]
    calibration_error: float | None
    version: str
    resource: str


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

    source: str
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


class Design(TypedDict):
    """What follows from a channel: rows of quantity, value, rule and source."""

    answer: str
    rows: list[dict[str, str]]


class Budget(TypedDict):
    """A link's budget."""

    answer: str
    path_loss_db: float
    received_dbm: float
    noise_dbm: float
    snr_db: float
    rate_bit_s: float
    range_m: float | None
    model: str

"""Types of the results of tools, flat, from which output schemas are made (see also `Verdict`)."""

from __future__ import annotations

from typing_extensions import TypedDict

__all__ = ["Answer", "Budget", "Card", "Description", "Design", "Dropped", "Listing", "Loaded"]


class Answer(TypedDict):
    """The answer to one question; a sentence comes first."""

    answer: str
    question: str
    label: str | None
    confidence: float | None
    interval: list[float | None] | None
    unit: str | None
    reason: str | None
    classical: str | None


class Description(TypedDict):
    """Short answers to all questions about one channel."""

    answer: str
    handle: str
    answers: dict[str, str]
    notes: list[str]


class Listing(TypedDict):
    """Files that can be asked about, and questions."""

    answer: str
    sources: list[str]
    questions: dict[str, list[str]]
    next_cursor: str | None


class Card(TypedDict):
    """Summary of an expert's card."""

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
    """A handle and a summary of its channel."""

    channel_id: str
    subcarriers: int
    snapshots: int
    antennas: int
    bandwidth_hz: float
    duration_s: float
    lifetime_s: float
    warnings: list[str]


class Dropped(TypedDict):
    """A handle that was dropped."""

    source: str
    dropped: bool


class Design(TypedDict):
    """Design values for a channel: rows of quantity, value, rule and source."""

    answer: str
    rows: list[dict[str, str]]


class Budget(TypedDict):
    """A link budget."""

    answer: str
    path_loss_db: float
    received_dbm: float
    noise_dbm: float
    snr_db: float
    rate_bit_s: float
    range_m: float | None
    model: str

"""Reasons for an expert to abstain: a channel outside the limits of its card, or a contradiction to other experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mcp_experts.channels.channel import ChannelWindow
    from mcp_experts.inference.registry import Expert

__all__ = ["contradiction", "invalid"]

#: Lowest SNR of the training data, and margin below it that is tolerated in the estimate, in dB.
LEAST_SNR_DB, SNR_ERROR_DB = -5.0, 2.0
#: Factor by which a window's bandwidth may exceed the limits in the card.
TOLERANCE = 1.1
#: Two experts contradict each other if their probabilities of the same event differ by more than this.
MOST_APART = 0.6


def invalid(expert: Expert, window: ChannelWindow, snr_db: float) -> str | None:
    """Return the reason for which the expert's card does not cover the window; None if it does."""
    definition, valid = expert.definition, expert.card.get("valid", {})
    low, high = valid.get("bandwidth_hz", (0.0, np.inf))
    if not low / TOLERANCE <= window.bandwidth_hz <= high * TOLERANCE:
        return (
            f"the bandwidth of {window.bandwidth_hz / 1e6:.3g} MHz is outside the {low / 1e6:.3g} MHz to "
            f"{high / 1e6:.3g} MHz of the expert's card"
        )
    if definition.needs_time and not window.shows_time:
        return "the snapshots do not show how the channel changes over time"
    if definition.name == "snr" and window.padded:
        return "most delays are exactly zero, so that no noise is seen"
    if definition.name != "snr" and snr_db < LEAST_SNR_DB - SNR_ERROR_DB:
        return f"the SNR is about {snr_db:.0f} dB, below the {LEAST_SNR_DB:g} dB that the expert was trained on"
    return None


def _los_and_profile(p: Mapping[str, Mapping[str, float]]) -> bool:
    """Return True if `los` and `profile` disagree: only TDL-D and TDL-E have line of sight."""
    return abs(p["los"]["clear"] - p["profile"]["TDL-D"] - p["profile"]["TDL-E"]) > MOST_APART


def _motion(p: Mapping[str, Mapping[str, float]]) -> bool:
    """Return True if Doppler shift and coherence time disagree.

    A fast channel can stay constant if a steady path dominates, but not with Rayleigh fading. A channel without motion
    cannot change fast.
    """
    static, fast = p["coherence_time"]["static"], p["doppler"]["fast"]
    still, brief = p["doppler"]["below_resolution"], p["coherence_time"]["fast"]
    return min(static, fast, p["fading"]["rayleigh"]) > MOST_APART or min(still, brief) > MOST_APART


#: Rules: experts that are compared, experts that abstain, condition on the class probabilities, and reason as text.
CONTRADICTIONS: tuple[
    tuple[tuple[str, ...], tuple[str, ...], Callable[[Mapping[str, Mapping[str, float]]], bool], str], ...
] = (
    (
        ("los", "profile"),
        ("los", "profile"),
        _los_and_profile,
        "line of sight and delay profile contradict each other, as on channels of another kind",
    ),
    (
        ("doppler", "coherence_time", "fading"),
        ("doppler", "coherence_time"),
        _motion,
        "Doppler shift and coherence time contradict each other",
    ),
)


def contradiction(
    name: str, experts: Mapping[str, Expert], probabilities: Callable[[Expert], NDArray[np.float32]]
) -> str | None:
    """Return the contradiction between the expert `name` and other `experts` as text; None if there is none."""
    for parts, silent, contradict, said in CONTRADICTIONS:
        if name in silent and all(part in experts for part in parts):
            each = {
                part: dict(zip(experts[part].definition.classes, probabilities(experts[part]).tolist(), strict=True))
                for part in parts
            }
            if contradict(each):
                return said
    return None

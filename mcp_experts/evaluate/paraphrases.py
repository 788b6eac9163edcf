"""Wordings of the frozen questions: 20 frames and a few names for what each expert knows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["FRAMES", "TOPICS", "wording"]

FRAMES = (
    "What is {} here?",
    "Please determine {}.",
    "Which option describes {}?",
    "I need to know {}.",
    "Tell me {} of this recording.",
    "How would you classify {}?",
    "Find out {}.",
    "What can be said about {}?",
    "Our report lacks {}. Which option belongs there?",
    "A colleague asks about {}. What do I reply?",
    "Choose the option that fits {}.",
    "For this measurement, what is {}?",
    "Could you check {}?",
    "Before we plan the link: what is {}?",
    "Name {}.",
    "Judge {} from the data.",
    "Which of the options is right about {}?",
    "We disagree about {}. Who is right?",
    "Fill in the form: {}.",
    "Look at the channel and give {}.",
)
TOPICS = {
    "line_of_sight": ("the state of the direct path", "the line of sight", "the view from one antenna to the other"),
    "doppler": ("the Doppler shift", "the maximum Doppler shift", "the band of the Doppler shift"),
    "delay_spread": ("the delay spread", "the RMS delay spread", "the spread of delays"),
    "fading": ("the family of fading", "the fading statistics", "the kind of fading"),
    "coherence_bandwidth": ("the coherence bandwidth", "the frequency selectivity"),
    "coherence_time": ("the coherence time", "the time selectivity"),
    "profile": ("the delay profile", "the most similar profile of TR 38.901"),
    "scenario": ("the deployment scenario", "the scenario of TR 38.901"),
    "snr": ("the signal-to-noise ratio", "the level of noise"),
}


def wording(identifier: str, topics: Sequence[str]) -> str:
    """The question in one of the wordings, which its identifier chooses.

    >>> wording("los-3", ["line_of_sight"])
    'For this measurement, what is the view from one antenna to the other?'
    """
    number = int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:4], "big")
    frame, rest = FRAMES[number % len(FRAMES)], number // len(FRAMES)
    names = [TOPICS.get(topic, (f"the {topic.replace('_', ' ')}",)) for topic in topics]
    return frame.format(" and ".join(name[rest % len(name)] for name in names))

"""Verdicts in words: sentences for users, natural units, and answers that seem to conflict."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mcp_experts.inference.definition import Definition
from mcp_experts.inference.verdicts import Verdict

__all__ = [
    "between",
    "classical",
    "conflicts",
    "disagrees",
    "likeliest",
    "natural",
    "percent",
    "reason",
    "scaled",
    "sentence",
]

PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}
SCALED = ("s", "Hz")
LEAST_CONFIDENCE = 0.995
#: Probabilities up to this multiple of chance count as equal.
EQUAL = 1.05


def scaled(values: tuple[float | None, ...], unit: str) -> tuple[tuple[float | None, ...], str]:
    """Values in one natural unit, with three significant digits.

    >>> scaled((1.2e-7, None), "s"), scaled((7.0,), "dB")
    (((120.0, None), 'ns'), ((7.0,), 'dB'))
    """
    known = [abs(value) for value in values if value]
    if unit in SCALED and known:
        power = min(max(3 * math.floor(math.log10(max(known)) / 3 + 1e-9), min(PREFIXES)), max(PREFIXES))
        factor, unit = 10.0**-power, PREFIXES[power] + unit
    else:
        factor = 1.0
    return tuple(None if value is None else float(f"{value * factor:.3g}") for value in values), unit


def natural(value: float | None, unit: str | None) -> str:
    """Format a value with its unit as text, with an SI prefix; bandwidths and durations stay relative.

    >>> natural(8.637e-08, "s"), natural(10.2, "dB"), natural(0.5, "bandwidth"), natural(1.7, "1/bandwidth")
    ('86.4 ns', '10.2 dB', '0.5 of the bandwidth', '1.7/bandwidth')
    """
    if value is None:
        return "none"
    if unit in ("1/bandwidth", "1/duration"):
        return f"{value:.3g}{unit[1:]}"
    if unit in ("bandwidth", "duration"):
        return f"{value:.3g} of the {unit}"
    (number,), named = scaled((value,), unit or "")
    return f"{number:g} {named}".strip()


def between(low: float | None, high: float | None, unit: str) -> str:
    """Format limits in a unit as text; None is an open end.

    >>> between(1e-7, 4e-7, "s"), between(None, 35.7, "Hz"), between(7.0, None, "dB")
    ('between 100 and 400 ns', 'below 35.7 Hz', 'above 7 dB')
    """
    (first, last), named = scaled((low, high), unit)
    if first is None:
        return f"below {last:g} {named}"
    return f"above {first:g} {named}" if last is None else f"between {first:g} and {last:g} {named}"


def classical(verdict: Verdict) -> str | None:
    """The classical estimate with its unit, and the label by it alone if that is another; None for the gate."""
    found = verdict.classical
    if found.label is None:
        return None
    value = f"{_estimator(found.estimator)} {natural(found.value, found.unit)}"
    return value if found.label == verdict.label else f"{value}: {words(found.label)}"


def _estimator(name: str) -> str:
    return {"k_factor": "K-factor", "snr": "SNR", "doppler": "Doppler shift"}.get(name, name.replace("_", " "))


def percent(confidence: float) -> str:
    """Format a probability as text.

    >>> percent(0.9987), percent(0.83)
    ('over 99 %', '83 %')
    """
    return "over 99 %" if confidence >= LEAST_CONFIDENCE else f"{100 * confidence:.0f} %"


def words(label: str) -> str:
    """A label as words."""
    return label.replace("_", " ")


def reason(verdict: Verdict, outside: bool) -> str | None:
    """Why an expert abstained; None if it did not."""
    if verdict.label is not None:
        return None
    return "unlike the training data" if outside else verdict.refused or "the data do not decide"


def sentence(definition: Definition, verdict: Verdict, *, outside: bool) -> str:
    """A verdict as one sentence; `outside` means that the gate found the channel unlike the training data.

    It names one label with its confidence. If the expert abstains because no class exceeds 50 %, this is the likeliest
    label, for a reader who has to choose.
    """
    noun, label = definition.noun, verdict.label
    if label is None:
        if outside and verdict.classical.value is not None:
            estimate = verdict.classical
            value = natural(estimate.value, estimate.unit)
            name = _estimator(estimate.estimator)
            return f"This channel is unlike the training data, so the experts abstain; the classical {name} is {value}."
        if verdict.refused:
            return f"No answer about the {noun}: {verdict.refused}."
        return f"The data do not decide on the {noun}: {_likeliest(verdict)}{_bounds(verdict, '; it is ')}."
    said = definition.says.get(label, f"The {noun} is {words(label)}")
    sure = f", with {percent(verdict.confidence)} confidence"
    if len(verdict.likely) > 1:
        # The bounds cover all likely labels, but only the most likely one is named.
        said = said if "most like" in said else f"Most likely {said[0].lower()}{said[1:]}"
        return f"{said}{sure}{_bounds(verdict, '; likely range: ')}."
    return f"{said}{_bounds(verdict, f', {noun} ' if label in definition.says else ', ')}{sure}."


def likeliest(verdict: Verdict) -> str | None:
    """The label with the largest probability as words; None if all are equally probable."""
    found = verdict.probabilities
    best = max(found, key=found.__getitem__)
    return None if found[best] <= EQUAL / len(found) else words(best)


def _likeliest(verdict: Verdict) -> str:
    best = likeliest(verdict)
    if best is None:
        return f"{' and '.join(map(words, verdict.probabilities))} are equally likely"
    return f"{best} is likeliest, at {percent(verdict.confidence)}"


def _bounds(verdict: Verdict, before: str) -> str:
    low, high = verdict.interval_low, verdict.interval_high
    return "" if low is None and high is None else before + between(low, high, verdict.unit or "")


def disagrees(verdict: Verdict) -> str:
    """Return a sentence if the label by the classical estimate differs from the verdict's; otherwise "".

    The sentence does not name the other label, since small language models repeat the wrong label if they read two.
    """
    found = verdict.classical
    if found.label in (None, verdict.label) or verdict.label is None:
        return ""
    return (
        f" The classical {_estimator(found.estimator)}, {natural(found.value, found.unit)}, alone would say otherwise."
    )


UNLIKELY = "line of sight and profile contradict each other, which is rare in training: do not rely on either"
#: Pairs of labels that seem to contradict each other: two experts with some of their labels, and the explanation.
CONFLICTS: tuple[tuple[str, tuple[str, ...], str, tuple[str, ...], str], ...] = (
    ("los", ("clear",), "fading", ("rayleigh",), "clear and Rayleigh: scattering outweighs the direct path"),
    ("los", ("blocked",), "fading", ("specular",), "blocked and specular: one reflection dominates"),
    ("los", ("clear",), "profile", ("TDL-A", "TDL-B", "TDL-C"), UNLIKELY),
    ("los", ("blocked",), "profile", ("TDL-D", "TDL-E"), UNLIKELY),
    (
        "doppler",
        ("moderate", "fast"),
        "coherence_time",
        ("static",),
        "motion, yet static: a strong path stays constant",
    ),
    ("delay_spread", ("moderate", "long"), "coherence_bandwidth", ("flat",), "spread, yet flat: one path dominates"),
)


def conflicts(verdicts: Mapping[str, Verdict]) -> list[str]:
    """Return an explanation for each pair of answers that seem to contradict each other (`CONFLICTS`)."""
    found = [
        clause
        for one, labels, other, others, clause in CONFLICTS
        if one in verdicts and other in verdicts and verdicts[one].label in labels and verdicts[other].label in others
    ]
    return list(dict.fromkeys(found))

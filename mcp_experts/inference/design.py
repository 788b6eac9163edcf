"""Design values derived from verdicts: guard interval, pilots, numerology, coherence block, each with its rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_experts.inference.sentences import between, natural
from mcp_experts.inference.verdicts import Verdict

__all__ = ["design"]

#: Ratio of guard interval to RMS delay spread, and of maximum Doppler shift to subcarrier spacing.
GUARD, MOST_SHIFT = 4.0, 0.05
SPACINGS_HZ = (15e3, 30e3, 60e3, 120e3, 240e3)
#: Normal cyclic prefix at 15 kHz, in s: 144 samples at 30.72 MHz.
PREFIX_S = 144 / 30.72e6
VAN_NEE = "van Nee and Prasad 2000: two to four times the RMS delay spread"
HOEHER = "Hoeher, Kaiser and Robertson 1997: sampling theorem"
NR = "3GPP TS 38.211: normal cyclic prefix and subcarrier spacing"
MARZETTA = "Marzetta 2010: samples over which a channel stays constant"


def design(verdicts: Mapping[str, Verdict]) -> list[dict[str, str]]:
    """Rows of quantity, value, rule and source, from the worst case within the intervals of the verdicts.

    The worst case is the upper limit of delay spread and Doppler shift, and the lower limit of coherence bandwidth and
    time. If a verdict has no such limit, the row states that the channel does not bound the value.
    """
    spread = verdicts["delay_spread"].interval_high
    shift = verdicts["doppler"].interval_high
    return [
        _row("cyclic prefix", spread and f"at least {natural(GUARD * spread, 's')}", "4 × RMS delay spread", VAN_NEE),
        _row(
            "pilot spacing in frequency",
            spread and f"at most {natural(1 / (2 * GUARD * spread), 'Hz')}",
            "1 / (2 × longest delay), with 4 × RMS delay spread as longest delay",
            HOEHER,
        ),
        _row(
            "pilot spacing in time",
            shift and f"at most {natural(1 / (2 * shift), 's')}",
            "1 / (2 × maximum Doppler shift)",
            HOEHER,
        ),
        _row("numerology", _numerology(spread, shift), "prefix ≥ 4 × spread, shift ≤ 5 % of the spacing", NR),
        _row("coherence block", _block(verdicts), "coherence bandwidth × coherence time, 50 % each", MARZETTA),
    ]


def _row(quantity: str, value: str | float | None, rule: str, source: str) -> dict[str, str]:
    return {"quantity": quantity, "value": str(value or "not bounded by this channel"), "rule": rule, "source": source}


def _numerology(spread: float | None, shift: float | None) -> str | None:
    """The subcarrier spacings of 5G NR that suit the channel."""
    if spread is None or shift is None:
        return None
    fit = [
        f"{spacing / 1e3:g}"
        for spacing in SPACINGS_HZ
        if PREFIX_S * SPACINGS_HZ[0] / spacing >= GUARD * spread and shift <= MOST_SHIFT * spacing
    ]
    return f"{', '.join(fit)} kHz fit" if fit else "no spacing of 5G NR fits with a normal prefix"


def _block(verdicts: Mapping[str, Verdict]) -> str | None:
    band, time = verdicts["coherence_bandwidth"].interval_low, verdicts["coherence_time"].interval_low
    if band is None or time is None:
        return None
    sides: tuple[Any, ...] = (between(band, None, "Hz"), between(time, None, "s"))
    return f"at least {band * time:.0f} samples ({sides[0]}, {sides[1]})"

"""Coherence time, 50 % definition, relative to the duration."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="coherence_time",
    title="Coherence time (50 %)",
    purpose=(
        "Bounds the 50 % coherence time in seconds: fast, medium, slow, or static (longer than observed). Use it for "
        "questions about time selectivity, channel ageing, pilot density in time, or how long an estimate stays valid."
    ),
    classes=("fast", "medium", "slow", "static"),
    truth="coherence_time",
    estimator="coherence_time",
    edges=(0.1, 0.4, 1.0),
    needs_time=True,
    scale="times_duration",
    unit="s",
    cells_unit="duration",
    meaning="the lag at which the autocorrelation of the fading first falls to 0.5; never, with a strong direct path",
    aliases=("time selectivity", "channel ageing", "channel aging"),
    noun="50 % coherence time",
    version="2.0.0",
    limits="static means longer than the observed time, by an unknown factor",
    examples=(
        Example({"doppler_hz": 1, "snr_db": 25}, ("static",)),
        Example({"doppler_hz": 300, "delay_spread_s": 2e-7, "snr_db": 25}, ("fast",)),
    ),
)

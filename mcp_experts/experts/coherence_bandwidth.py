"""Coherence bandwidth, 50 % definition, relative to the band."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="coherence_bandwidth",
    title="Coherence bandwidth (50 %)",
    purpose=(
        "Bounds the 50 % coherence bandwidth in Hz: narrow, moderate, wide, or flat (wider than the band). Use it for "
        "questions about frequency selectivity, subcarrier spacing, pilot density in frequency, or flat fading."
    ),
    classes=("narrow", "moderate", "wide", "flat"),
    truth="coherence_bandwidth",
    estimator="coherence_bandwidth",
    edges=(0.125, 0.5, 1.0),
    scale="times_bandwidth",
    unit="Hz",
    cells_unit="bandwidth",
    meaning="the separation at which the correlation of the paths' frequency response first falls to 0.5",
    aliases=("frequency selectivity", "frequency selective", "flat fading"),
    noun="50 % coherence bandwidth",
    version="2.0.0",
    limits="flat means wider than the observed band, by an unknown factor",
    examples=(
        Example({"delay_spread_s": 4e-10, "snr_db": 25}, ("flat",)),
        Example({"delay_spread_s": 4.5e-7, "doppler_hz": 200, "snr_db": 25}, ("narrow",)),
    ),
)

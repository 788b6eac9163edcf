"""Line of sight: whether a direct path reaches the receiver."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="los",
    title="Line of sight",
    purpose=(
        "Decides whether the link has a line-of-sight path (los) or is obstructed (nlos). Use it for questions about "
        "obstruction, blockage, visibility of the transmitter, or before trusting a delay as a distance."
    ),
    classes=("nlos", "los"),
    truth="los",
    estimator="k_factor_db",
    meaning="los: the generator placed a direct path between transmitter and receiver",
    version="1.1.0",
    limits=(
        "a direct path far weaker than the scattered ones (K below about -5 dB) is mostly taken for nlos; "
        "on streets of a city that training never saw it is right far less often (held_out_city in the card)"
    ),
    examples=(
        Example({"k_factor_db": 12, "doppler_hz": 100, "snr_db": 25}, ("los",)),
        Example({"delay_spread_s": 2e-7, "doppler_hz": 200, "snr_db": 25}, ("nlos",)),
    ),
)

"""Delay profile of TR 38.901: TDL and CDL A to E."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="profile",
    title="Delay profile (TR 38.901 A to E)",
    purpose=(
        "Tells which tapped or clustered delay line profile of 3GPP TR 38.901 the channel looks like: A, B, C (no line "
        "of sight) or D, E (line of sight). Use it to choose a standard model for simulating a like channel."
    ),
    classes=("A", "B", "C", "D", "E"),
    truth="profile",
    estimator="delay_spread_cells",
    meaning="TDL and CDL of one letter are one class",
    version="1.1.0",
    limits=(
        "profiles differ in shape only where the band resolves it: below a delay spread of 1/bandwidth A, B and C look "
        "alike; measured and ray-traced channels have no profile, the answer is the nearest"
    ),
    examples=(Example({"k_factor_db": 13, "delay_spread_s": 1e-7, "doppler_hz": 50, "snr_db": 25}, ("D", "E")),),
)

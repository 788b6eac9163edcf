"""Delay profile of TR 38.901: TDL and CDL A to E."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="profile",
    title="Delay profile (TR 38.901 A to E)",
    purpose=(
        "Names the delay line profile of 3GPP TR 38.901, tapped or clustered, that the channel looks like: TDL-A to "
        "TDL-C "
        "(no line of sight), TDL-D or TDL-E (line of sight). Use it to choose a standard model to simulate with."
    ),
    classes=("TDL-A", "TDL-B", "TDL-C", "TDL-D", "TDL-E"),
    truth="profile",
    estimator="delay_spread_cells",
    meaning="TDL and CDL with the same letter are one class",
    aliases=("delay profile", "tdl", "cdl", "tapped delay line", "power delay profile"),
    noun="delay profile",
    says={
        "TDL-A": "The channel looks most like delay profile TDL-A of TR 38.901, a non-line-of-sight one",
        "TDL-B": "The channel looks most like delay profile TDL-B of TR 38.901, a non-line-of-sight one",
        "TDL-C": "The channel looks most like delay profile TDL-C of TR 38.901, a non-line-of-sight one",
        "TDL-D": "The channel looks most like delay profile TDL-D of TR 38.901, a line-of-sight one",
        "TDL-E": "The channel looks most like delay profile TDL-E of TR 38.901, a line-of-sight one",
    },
    renamed={
        "A": "TDL-A",
        "B": "TDL-B",
        "C": "TDL-C",
        "D": "TDL-D",
        "E": "TDL-E",
    },
    version="2.0.0",
    limits=(
        "profiles differ in shape only if the band resolves it: below a delay spread of 1/bandwidth A, B and C look "
        "alike; measured and ray-traced channels have no profile, and the answer is the most similar one"
    ),
    examples=(
        Example({"k_factor_db": 13, "delay_spread_s": 1e-7, "doppler_hz": 50, "snr_db": 25}, ("TDL-D", "TDL-E")),
    ),
)

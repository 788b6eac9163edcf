"""Scenario of TR 38.901: urban micro, urban macro, rural macro, indoor factory."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="scenario",
    title="Deployment scenario (TR 38.901)",
    purpose=(
        "Names the deployment scenario of 3GPP TR 38.901 that the channel looks like: UMi (street canyon), UMa (urban "
        "macro), RMa (rural macro) or InF (indoor factory). Use it for questions about the kind of environment."
    ),
    classes=("UMi", "UMa", "RMa", "InF"),
    truth="scenario",
    estimator="delay_spread_cells",
    meaning="the system-level model that drew the link, at 3.5 GHz, outdoors except for InF",
    aliases=("environment", "deployment", "deployment scenario"),
    noun="deployment scenario",
    says={
        "UMi": "The channel looks most like urban micro (UMi, street canyon)",
        "UMa": "The channel looks most like urban macro (UMa)",
        "RMa": "The channel looks most like rural macro (RMa)",
        "InF": "The channel looks most like an indoor factory (InF)",
    },
    version="2.0.0",
    limits="scenarios overlap widely in the properties of a single link; valid at carriers near 3.5 GHz",
    examples=(Example({"delay_spread_s": 4e-7, "doppler_hz": 50, "snr_db": 25}, ("UMa", "UMi")),),
)

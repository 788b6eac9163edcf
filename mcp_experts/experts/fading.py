"""Fading family, by the K-factor: power of the specular path over that of all others."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="fading",
    title="Fading family and K-factor",
    purpose=(
        "Identifies the small-scale fading family and bounds the K-factor in dB: rayleigh (no dominant path), rician, "
        "or "
        "specular (one path dominates). Use it for questions about fading statistics, K-factor or fade depth."
    ),
    classes=("rayleigh", "rician", "specular"),
    truth="k_factor_db",
    estimator="k_factor_db",
    edges=(0.0, 7.0),
    unit="dB",
    cells_unit="dB",
    meaning="K is the power of the specular path over that of all others; rayleigh: below 0 dB, or no specular path",
    aliases=("k factor", "rician", "rayleigh", "small scale fading", "fading family", "fading statistics"),
    noun="K-factor",
    says={
        "rayleigh": "The fading is Rayleigh",
        "rician": "The fading is Rician",
        "specular": "The fading is specular",
    },
    renamed={
        "strong_rician": "specular",
    },
    version="2.0.0",
    limits=(
        "data without a specular path and with one 10 dB below the rest hardly differ: both are rayleigh; accuracy is "
        "far lower on streets of a city outside the training data (held_out_city in the card)"
    ),
    examples=(
        Example({"k_factor_db": 15, "doppler_hz": 100, "snr_db": 25}, ("specular",)),
        Example({"delay_spread_s": 2e-7, "doppler_hz": 200, "snr_db": 25}, ("rayleigh",)),
    ),
)

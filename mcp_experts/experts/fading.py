"""Fading family, by the K-factor: power of the specular path over that of all others."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="fading",
    title="Fading family and K-factor",
    purpose=(
        "Tells the small-scale fading family and bounds the Rician K-factor in dB: rayleigh (no dominant path), "
        "rician, or strong_rician. Use it for questions about fading statistics, K-factor or fade depth."
    ),
    classes=("rayleigh", "rician", "strong_rician"),
    truth="k_factor_db",
    estimator="k_factor_db",
    edges=(0.0, 7.0),
    unit="dB",
    cells_unit="dB",
    meaning="K is the power of the specular path over that of all other paths; rayleigh: below 0 dB or none",
    version="1.1.0",
    limits=(
        "between no specular path and one 10 dB below the rest the data hardly differ: both are rayleigh; on "
        "streets of a city that training never saw it is right far less often (held_out_city in the card)"
    ),
    examples=(
        Example({"k_factor_db": 15, "doppler_hz": 100, "snr_db": 25}, ("strong_rician",)),
        Example({"delay_spread_s": 2e-7, "doppler_hz": 200, "snr_db": 25}, ("rayleigh",)),
    ),
)

"""RMS delay spread, relative to the resolution of the band."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="delay_spread",
    title="RMS delay spread",
    purpose=(
        "Bounds the RMS delay spread in seconds: below_resolution, short, moderate or long relative to the band. Use "
        "it for questions about multipath, cyclic prefix length, inter-symbol interference or equaliser length."
    ),
    classes=("below_resolution", "short", "moderate", "long"),
    truth="delay_spread",
    estimator="delay_spread_cells",
    edges=(0.1, 0.5, 2.0),
    scale="over_bandwidth",
    unit="s",
    cells_unit="1/bandwidth",
    meaning="root of the second central moment of the path delays, weighted with their powers over the window",
    aliases=("rms delay spread", "multipath", "multipath spread", "inter symbol interference"),
    noun="RMS delay spread",
    version="2.0.0",
    limits="spreads below a tenth of 1/bandwidth cannot be distinguished; a wider band resolves more",
    examples=(
        Example({"delay_spread_s": 4e-10, "snr_db": 25}, ("below_resolution",)),
        Example({"delay_spread_s": 3e-7, "doppler_hz": 200, "snr_db": 25}, ("long",)),
    ),
)

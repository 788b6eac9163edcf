"""Signal-to-noise ratio."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="snr",
    title="Signal-to-noise ratio band",
    purpose=(
        "Bounds the signal-to-noise ratio of the channel coefficients in dB: low, fair, good or high. Use it for "
        "questions about noise, estimation quality, usable modulation, or whether other verdicts can be trusted."
    ),
    classes=("low", "fair", "good", "high"),
    truth="snr_db",
    estimator="snr_db",
    edges=(5.0, 15.0, 25.0),
    unit="dB",
    cells_unit="dB",
    meaning="power of the channel over power of the white noise per coefficient, mean over the window",
    aliases=("signal to noise", "signal to noise ratio", "noise", "noise level"),
    noun="signal-to-noise ratio",
    version="2.0.0",
    limits="interference and estimation errors that are smooth over frequency are counted as signal",
    examples=(
        Example({"snr_db": 32}, ("high",)),
        Example({"snr_db": -2}, ("low",)),
    ),
)

"""Maximum Doppler shift, relative to the resolution of the duration."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="doppler",
    title="Doppler band",
    purpose=(
        "Bounds the maximum Doppler shift in Hz (speed over wavelength): below_resolution, slow, moderate or fast "
        "relative to the observed time. Use it for questions about speed, mobility, or how fast the channel changes."
    ),
    classes=("below_resolution", "slow", "moderate", "fast"),
    truth="doppler",
    estimator="doppler_cells",
    edges=(0.1, 0.5, 2.0),
    needs_time=True,
    scale="over_duration",
    unit="Hz",
    cells_unit="1/duration",
    meaning="speed over wavelength, the largest shift that a path can have",
    aliases=("doppler shift", "doppler spread", "maximum doppler", "speed", "velocity", "mobility"),
    noun="maximum Doppler shift",
    version="2.0.0",
    limits=(
        "shifts below a tenth of 1/duration cannot be distinguished from zero; a path that arrives across the motion "
        "has less than the maximum shift; shifts above half the snapshot rate alias; a carrier frequency offset that "
        "drifts "
        "during the window counts as motion, a constant one does not"
    ),
    examples=(
        Example({"doppler_hz": 1, "snr_db": 30, "delay_spread_s": 2e-7}, ("below_resolution",)),
        Example({"doppler_hz": 300, "snr_db": 25, "delay_spread_s": 2e-7}, ("fast",)),
    ),
)

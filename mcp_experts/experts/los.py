"""Line of sight: whether a direct path reaches the receiver."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="los",
    title="Line of sight",
    purpose=(
        "Decides whether the direct path from transmitter to receiver is clear or blocked. Use it for questions about "
        "obstruction, blockage, visibility of the transmitter, or before trusting a delay as a distance."
    ),
    classes=("blocked", "clear"),
    truth="los",
    estimator="k_factor_db",
    meaning="clear: the generator placed a direct path between transmitter and receiver",
    question="line_of_sight",
    aliases=(
        "los",
        "nlos",
        "line of sight",
        "blockage",
        "blocked",
        "obstruction",
        "obstructed",
        "visibility",
        "direct path",
    ),
    noun="line of sight",
    says={
        "blocked": "The direct path is blocked: there is no line of sight",
        "clear": "The direct path is clear: the link has line of sight",
    },
    renamed={
        "nlos": "blocked",
        "los": "clear",
    },
    version="2.0.0",
    # Trained without IEEE 802.15.4a (100 MHz to 1 GHz), the expert's accuracy on it is .14 below its mean confidence.
    widest_hz=100e6,
    limits=(
        "a direct path far weaker than the scattered ones (K below about -5 dB) is mostly classified as blocked; "
        "accuracy is far lower on streets of a city outside the training data (held_out_city in the card); on kinds of "
        "channels that training lacked it is right less often than its confidence says; it gives no verdict on "
        "ultra-wideband channels, of which it missed clear paths, unless it is adapted to a rig"
    ),
    examples=(
        Example({"k_factor_db": 12, "doppler_hz": 100, "snr_db": 25}, ("clear",)),
        Example({"delay_spread_s": 2e-7, "doppler_hz": 200, "snr_db": 25}, ("blocked",)),
    ),
)

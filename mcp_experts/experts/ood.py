"""The gate: whether a channel is like those that the experts were trained on."""

from mcp_experts.inference.definition import Definition, Example

EXPERT = Definition(
    name="ood",
    title="Out-of-distribution gate",
    purpose=(
        "Decides whether the channel resembles the training data (inside) or not (outside: noise, interference, wrong "
        "axis order, broken estimates). Outside, every expert abstains. Use it when verdicts look odd."
    ),
    classes=("inside", "outside"),
    truth="outside",
    estimator="snr_db",
    meaning="outside: farther from the training channels than 99 % of such channels are",
    question="in_distribution",
    aliases=("ood", "out of distribution", "gate", "familiar", "training data"),
    noun="similarity to the training channels",
    says={
        "inside": "The channel resembles those that the experts were trained on",
        "outside": "The channel is unlike those that the experts were trained on: they abstain on it",
    },
    version="2.0.0",
    limits=(
        "features do not show every error in a channel: magnitudes without phase, swapped axes and constant channels "
        "mostly pass (see the card); inside is not a proof of correctness"
    ),
    kind="gate",
    examples=(Example({"snr_db": 20, "doppler_hz": 100}, ("inside",)),),
)

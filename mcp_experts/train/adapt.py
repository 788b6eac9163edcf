"""`mcp-experts adapt`: fit an expert to one measurement setup (a rig), from 10 to 300 channels of known classes.

Leave-one-link-out cross-validation chooses which part is fitted: a linear map of the shipped network's logits, its last
layer, or a linear classifier on all or some of the features. The gate (the check for channels unlike the training data)
and the prediction sets are calibrated on this rig's channels and are not valid for other rigs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from geoml.runs.files import sha256
from geoml.runs.folder import RunFolder, plain
from mcp_experts.channels.channel import Channel
from mcp_experts.channels.loading import labelled_channels
from mcp_experts.inference.classical import ESTIMATORS
from mcp_experts.inference.definition import Definition
from mcp_experts.inference.features import FEATURES
from mcp_experts.inference.network import Gate, Network, decided, softmax, standardised
from mcp_experts.inference.registry import Expert, Registry
from mcp_experts.inference.verdicts import ChannelView
from mcp_experts.train.calibration import COVERAGE, class_thresholds, temperature
from mcp_experts.train.scores import calibration_error
from mcp_experts.train.weights_files import write_expert

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["Adapted", "adapt", "balanced_accuracy", "fit_to", "views"]

Arrays = dict[str, NDArray[Any]]
Reals = NDArray[np.float64]
LEAST_CHANNELS, LEAST_LINKS = 10, 4
#: Ridge penalties that are tried, and number of principal directions of the inputs that are kept.
RIDGES, DIRECTIONS = (0.003, 0.03, 0.3), 24
STEPS = 12
#: Feature sets of the linear classifiers: all; the classical estimates; and these with the delay profile from 8 cells
#: before the strongest to 16 after it, which contains a weak first path.
COLUMNS = {
    "features": np.arange(FEATURES),
    "estimates": np.arange(FEATURES - len(ESTIMATORS), FEATURES),
    "profile": np.concatenate([np.arange(25), np.arange(FEATURES - len(ESTIMATORS), FEATURES)]),
}


@dataclass(frozen=True, eq=False)
class Adapted:
    """Arrays of an adapted expert's weights file, and entries of its card."""

    arrays: Arrays
    card: dict[str, Any]


def adapt(config: DictConfig, run: RunFolder) -> list[dict[str, Any]]:
    """Fit an expert to the labelled channels of a file, write weights and card, and return a row of its scores."""
    values = plain(config)
    if not values["labels"]:
        raise UserError("labels is missing; name a file of labelled channels: mcp-experts adapt labels=FILE")
    path = Path(values["labels"])
    if not path.exists():
        raise UserError(f"labels={path} does not exist")
    registry = Registry()
    expert = registry.expert(str(values["expert"]))
    if expert.definition.kind == "gate":
        raise UserError("the gate is adapted together with an expert; name one, such as expert=los")
    channels, labels, links = labelled_channels(path)
    found = fit_to(expert, registry.gate, views(channels), classes_of(expert.definition, labels), links)
    target = Path(values["target"])
    about = found.card | {"labels": path.name, "labels_sha256": sha256(path)}
    write_expert(target / expert.name, expert.definition, found.arrays, about)
    scores = found.card["metrics"]["leave_one_link_out"]
    run.write_summary({"expert": expert.name, "target": str(target), **found.card["adapted"], **scores})
    return [{"expert": expert.name, "written to": str(target / expert.name), **found.card["adapted"], **scores}]


def views(channels: Sequence[Channel]) -> list[ChannelView]:
    """Create a `ChannelView` of each channel."""
    return [ChannelView(channel) for channel in channels]


def classes_of(definition: Definition, labels: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
    """Class index of each label. Labels are current or former names of classes; case is ignored."""
    numbers = {name.lower(): index for index, name in enumerate(definition.classes)}
    numbers |= {old.lower(): numbers[new.lower()] for old, new in definition.renamed.items()}
    unknown = sorted({str(label) for label in labels if str(label).lower() not in numbers})
    if unknown:
        raise DataError(f"labels hold {unknown[0][:40]!r}; expected {', '.join(definition.classes)}")
    return np.array([numbers[str(label).lower()] for label in labels])


def fit_to(
    expert: Expert, gate: Gate, looks: Sequence[ChannelView], labels: NDArray[np.int64], links: NDArray[Any]
) -> Adapted:
    """Fit an expert to labelled channels. Raises `DataError` for too few channels, links or classes."""
    definition, network = expert.definition, expert.network
    _, link = np.unique(links, return_inverse=True)
    count, classes = int(link.max(initial=-1)) + 1, np.unique(labels)
    if len(labels) < LEAST_CHANNELS or count < LEAST_LINKS or len(classes) < 2:
        raise DataError(
            f"{len(labels)} channels of {count} links and {len(classes)} classes; adapting needs {LEAST_CHANNELS} "
            f"channels of {LEAST_LINKS} links and two classes, of each class several links"
        )
    features = np.concatenate([look.features for look in looks])
    weights = _weights(labels, link)
    tried = {
        (name, ridge): (inputs, _left_out(inputs, labels, link, len(definition.classes), ridge))
        for name, inputs in _inputs(network, features).items()
        for ridge in RIDGES
    }
    losses = {key: _loss(logits, labels, weights) for key, (_, logits) in tried.items()}
    name, ridge = min(losses, key=losses.__getitem__)
    inputs, logits = tried[name, ridge]
    sharpness = temperature(logits, labels)
    probabilities = softmax(logits / sharpness)
    arrays = _network(network, name, _fitted(inputs, labels, weights, len(definition.classes), ridge))
    arrays |= {"temperature": np.asarray(sharpness), "threshold": class_thresholds(probabilities, labels)}
    moved, scores = _gate(gate, features, link)
    members = probabilities >= arrays["threshold"]
    certain = decided(probabilities) & (scores <= 1)
    right = probabilities.argmax(axis=1) == labels
    bands = [look.window.bandwidth_hz for look in looks]
    card = {
        "adapted": {"fitted": name, "ridge": ridge, "channels": len(labels), "links": count},
        "class_counts": np.bincount(labels, minlength=len(definition.classes)).tolist(),
        "parameters": sum(int(array.size) for key, array in arrays.items() if key.startswith(("weight_", "bias_"))),
        "set_coverage_asked": COVERAGE,
        "metrics": {
            "leave_one_link_out": {
                "balanced_accuracy": round(balanced_accuracy(labels, probabilities.argmax(axis=1), link), 4),
                "answered": round(float(certain.mean()), 4),
                "accuracy_answered": round(float(right[certain].mean()), 4) if certain.any() else None,
                "set_coverage": round(float(members[np.arange(len(labels)), labels].mean()), 4),
                "calibration_error": round(calibration_error(labels, probabilities), 4),
            }
        },
        "input": expert.card.get("input", {}),
        "valid": expert.card.get("valid", {}) | {"bandwidth_hz": [min(bands), max(bands)]},
        "training": expert.card.get("training", {}),
        "licence": expert.card.get("licence", ""),
        "adapted_from_sha256": expert.card["weights_sha256"],
    }
    return Adapted(arrays | {f"gate_{key}": array for key, array in moved.items()}, card)


def balanced_accuracy(labels: NDArray[np.int64], given: NDArray[np.int64], link: NDArray[Any]) -> float:
    """Balanced accuracy: averaged over the channels of each link, then over links, then over classes."""
    shares = []
    for one in np.unique(labels):
        own = labels == one
        shares.append(np.mean([np.mean(given[own & (link == each)] == one) for each in np.unique(link[own])]))
    return float(np.mean(shares))


def _weights(labels: NDArray[np.int64], link: NDArray[np.int64]) -> Reals:
    """Weights of channels with sum 1: classes have equal weight, and so have the links within a class."""
    weights = np.zeros(len(labels))
    for one in np.unique(labels):
        own = labels == one
        for each in np.unique(link[own]):
            these = own & (link == each)
            weights[these] = 1 / these.sum()
        weights[own] /= weights[own].sum()
    return weights / weights.sum()


def _inputs(network: Network, features: NDArray[np.float32]) -> Mapping[str, Reals]:
    """Candidate inputs of a linear layer: the network's logits, its last hidden layer, or standardised features."""
    x = standardised(features, network.mean, network.scale)
    hidden = x
    for weight, bias in network.layers[:-1]:
        hidden = np.maximum(hidden @ weight + bias, 0)
    logits = hidden @ network.layers[-1][0] + network.layers[-1][1]
    found = {"offsets": logits, "last layer": hidden, **{name: x[:, columns] for name, columns in COLUMNS.items()}}
    return {name: np.asarray(inputs, np.float64) for name, inputs in found.items()}


def _left_out(inputs: Reals, labels: NDArray[np.int64], link: NDArray[np.int64], classes: int, ridge: float) -> Reals:
    """Cross-validated logits: each link's channels are predicted by a layer fitted on all other links."""
    logits = np.zeros((len(labels), classes))
    for one in np.unique(link):
        held = link == one
        weight, bias = _fitted(inputs[~held], labels[~held], _weights(labels[~held], link[~held]), classes, ridge)
        logits[held] = inputs[held] @ weight + bias
    return logits


def _fitted(
    inputs: Reals, labels: NDArray[np.int64], weights: Reals, classes: int, ridge: float
) -> tuple[Reals, Reals]:
    """Fit weight and bias of a layer: ridge logistic regression on principal directions, by Newton's method."""
    mean = weights @ inputs
    scale = np.sqrt(weights @ (inputs - mean) ** 2) + 1e-3
    z = (inputs - mean) / scale
    _, _, directions = np.linalg.svd(z * np.sqrt(weights)[:, None], full_matrices=False)
    directions = directions[:DIRECTIONS].T
    x = np.concatenate([z @ directions, np.ones((len(z), 1))], axis=1)
    size = x.shape[1]
    truth = np.eye(classes)[labels]
    penalty = np.full(size, ridge)
    penalty[-1] = 1e-3  # keeps the bias of a class without channels finite
    beta = np.zeros((size, classes))
    for _ in range(STEPS):
        p = softmax(x @ beta)
        gradient = x.T @ (weights[:, None] * (p - truth)) + penalty[:, None] * beta
        blocks = [
            [x.T @ ((weights * p[:, i] * ((i == j) - p[:, j]))[:, None] * x) for j in range(classes)]
            for i in range(classes)
        ]
        hessian = np.block(blocks) + np.diag(np.tile(penalty, classes))
        beta -= np.linalg.solve(hessian, gradient.T.ravel()).reshape(classes, size).T
    weight = (directions @ beta[:-1]) / scale[:, None]
    return weight, beta[-1] - mean @ weight


def _loss(logits: Reals, labels: NDArray[np.int64], weights: Reals) -> float:
    chosen = np.take_along_axis(softmax(logits / temperature(logits, labels)), labels[:, None], axis=1)[:, 0]
    return float(-weights @ np.log(np.maximum(chosen, 1e-12)))


def _network(network: Network, name: str, layer: tuple[Reals, Reals]) -> Arrays:
    """Arrays of a weights file whose last layer is `layer`; `name` is its kind of input (see `_inputs`)."""
    weight, bias = layer
    kept = list(network.layers[:-1])
    if name in COLUMNS:
        kept, weight = [], np.zeros((FEATURES, len(bias)))
        weight[COLUMNS[name]] = layer[0]
    elif name == "offsets":
        last, shift = network.layers[-1]
        weight, bias = last @ layer[0], shift @ layer[0] + layer[1]
    arrays: Arrays = {"mean": network.mean, "scale": network.scale}
    layers: list[tuple[NDArray[Any], NDArray[Any]]] = [*kept, (weight, bias)]
    for index, (each, offset) in enumerate(layers):
        arrays |= {f"weight_{index}": each.astype(np.float32), f"bias_{index}": offset.astype(np.float32)}
    rules = ("cuts", "cut_order", "rule_mean", "rule_scale", "rule_weight", "rule_bias")
    return arrays | {key: network.arrays[key] for key in rules if key in network.arrays}


def _gate(gate: Gate, features: NDArray[np.float32], link: NDArray[np.int64]) -> tuple[Arrays, Reals]:
    """Fit a gate to these channels. Also returns each channel's score by a gate fitted without its link."""

    def about(rows: NDArray[np.bool_]) -> Arrays:
        mean = np.mean([features[rows & (link == one)].mean(axis=0) for one in np.unique(link[rows])], axis=0)
        x = (features[rows] - mean) / gate.scale
        along = x @ gate.directions
        beside = np.sum((x - along @ gate.directions.T) ** 2, axis=1)
        return {
            "mean": mean.astype(np.float32),
            "scale": gate.scale,
            "directions": gate.directions,
            "spread": np.maximum(along.std(axis=0), 0.1 * gate.spread).astype(np.float32),
            "residual": np.asarray(max(float(beside.mean()), 1e-3)),
            "limit": np.asarray(1.0),
        }

    distance = np.zeros(len(link))
    for one in np.unique(link):
        held = link == one
        distance[held] = Gate.from_arrays(about(~held)).score(features[held])
    arrays = about(np.ones(len(link), bool))
    limit = float(np.quantile(distance, 0.99))
    arrays |= {"limit": np.asarray(limit), "usual": np.asarray(np.quantile(distance, 0.9) / limit)}
    return arrays, distance / limit

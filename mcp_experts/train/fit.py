"""Fit one expert: network, temperature, conformal thresholds, and the class limits of the classical estimator."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mcp_experts.inference.classical import ESTIMATORS
from mcp_experts.inference.definition import Definition
from mcp_experts.inference.network import Gate, Network, softmax, standardised
from mcp_experts.train.calibration import class_thresholds, temperature
from mcp_experts.train.dataset import Examples
from mcp_experts.train.left_out import KINDS
from mcp_experts.train.scores import calibration_error

__all__ = ["FitOptions", "best_cuts", "fit_classifier", "fit_gate"]

Arrays = dict[str, NDArray[Any]]
#: Number of principal directions of a gate, and share of channels of a new kind that it accepts.
DIRECTIONS, OF_A_NEW_KIND = 32, 0.95
#: For calibration on kinds that are left out of training: smallest number of calibration channels of a kind, smallest
#: number of kinds, and largest number of training links of a network trained without a kind.
LEAST_OF_A_KIND, LEAST_KINDS, MOST_WITHOUT_A_KIND = 100, 2, 60_000


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Training options of a network."""

    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 30
    batch: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    dropout: float = 0.1
    label_smoothing: float = 0.0
    seed: int = 0


def fit_classifier(
    definition: Definition, train: Examples, calibration: Examples, recipe: FitOptions, *, new_kinds: bool = True
) -> tuple[Arrays, dict[str, Any]]:
    """Train and calibrate a classifier. Returns the arrays of its weights file, and the card's entry on calibration.

    Each kind of channels (`KINDS`) is left out of the training of a separate network once. Temperature and thresholds
    are fitted to the predictions for the kinds left out, since users' files are of kinds that training lacks. If
    `new_kinds` is False, or fewer than two kinds can be left out, they are fitted on all calibration channels.
    """
    train, labels = _known(definition, train)
    calibration, held = _known(definition, calibration)
    arrays = _network(definition, train, labels, recipe)
    found = _of_new_kinds(definition, train, calibration, recipe) if new_kinds else []
    if len(found) < LEAST_KINDS:
        found = [(_logits(arrays, calibration), held, calibration.group % 2 == 1, np.full(len(held), ""))]
    # Even groups set the temperature and odd groups the threshold, so that both are independent.
    logits, truth, odd, kinds = (np.concatenate(column) for column in zip(*found, strict=True))
    arrays["temperature"] = np.asarray(temperature(logits[~odd], truth[~odd]))
    probabilities = softmax(logits / float(arrays["temperature"]))
    arrays["threshold"] = class_thresholds(probabilities[odd], truth[odd])
    about = {str(kind): _row(probabilities[kinds == kind], truth[kinds == kind]) for kind in np.unique(kinds) if kind}
    return arrays | _classical_rule(definition, train, labels), {"calibrated_on_kinds_left_out": about}


def _known(definition: Definition, examples: Examples) -> tuple[Examples, NDArray[np.int64]]:
    """Select the rows with known truth; also returns their class indices."""
    labels = definition.labels(examples.truth(definition.truth))
    return examples.rows(labels >= 0), labels[labels >= 0]


def _network(definition: Definition, train: Examples, labels: NDArray[np.int64], recipe: FitOptions) -> Arrays:
    """Train a network and return its arrays, without temperature and thresholds."""
    spread = np.maximum(train.features.std(axis=0), 1e-3)
    arrays: Arrays = {"mean": train.features.mean(axis=0), "scale": spread}
    inputs = torch.from_numpy(standardised(train.features, arrays["mean"], spread))
    network = _trained(inputs, torch.from_numpy(labels), len(definition.classes), recipe)
    for index, layer in enumerate(part for part in network if isinstance(part, nn.Linear)):
        # Half precision from here on, so that the stored weights are calibrated.
        arrays[f"weight_{index}"] = layer.weight.detach().numpy().T.astype(np.float16)
        arrays[f"bias_{index}"] = layer.bias.detach().numpy().copy()
    return arrays


def _logits(arrays: Arrays, examples: Examples) -> NDArray[np.float64]:
    plain = Network.from_arrays(arrays | {"temperature": np.asarray(1), "threshold": np.asarray(0)})
    logits: NDArray[np.float64] = np.log(np.maximum(plain.probabilities(examples.features), 1e-30).astype(np.float64))
    return logits


def _of_new_kinds(
    definition: Definition, train: Examples, calibration: Examples, recipe: FitOptions
) -> list[tuple[NDArray[Any], ...]]:
    """Predict the calibration channels of each kind by a network that was trained without this kind.

    Returns, for each kind, logits, class indices, a mask of odd groups and the kind's name. All kinds have the same
    number of channels.
    """
    rng = np.random.default_rng(recipe.seed)
    found = []
    for kind, generators in KINDS.items():
        held, truth = _known(definition, calibration.rows(np.isin(calibration.source, generators)))
        rest, labels = _known(definition, train.rows(~np.isin(train.source, generators)))
        counts = np.bincount(labels, minlength=len(definition.classes))
        if len(truth) < LEAST_OF_A_KIND or len(rest) == len(train) or counts.min() < LEAST_OF_A_KIND:
            continue
        some = rng.permutation(len(rest))[:MOST_WITHOUT_A_KIND]
        arrays = _network(definition, rest.rows(some), labels[some], recipe)
        found.append((_logits(arrays, held), truth, held.group % 2 == 1, np.full(len(truth), kind)))
    count = min((len(part[1]) for part in found), default=0)
    chosen = [rng.permutation(len(part[1]))[:count] for part in found]
    return [tuple(column[rows] for column in part) for part, rows in zip(found, chosen, strict=True)]


def _row(probabilities: NDArray[Any], truth: NDArray[np.int64]) -> dict[str, float | int]:
    """The card's entry for a kind that was left out of training."""
    right = probabilities.argmax(axis=1) == truth
    return {
        "channels": len(truth),
        "accuracy": round(float(right.mean()), 4),
        "mean_confidence": round(float(probabilities.max(axis=1).mean()), 4),
        "calibration_error": round(calibration_error(truth, probabilities), 4),
    }


def _trained(inputs: torch.Tensor, labels: torch.Tensor, classes: int, recipe: FitOptions) -> nn.Sequential:
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    widths = (inputs.shape[1], *recipe.hidden)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(recipe.dropout)]
    network = nn.Sequential(*layers, nn.Linear(widths[-1], classes))
    steps = recipe.epochs * -(-len(inputs) // recipe.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.15)
    loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    network.train()
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(inputs), generator=generator).split(recipe.batch):
            optimizer.zero_grad(set_to_none=True)
            loss(network(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _classical_rule(definition: Definition, train: Examples, labels: NDArray[np.int64]) -> Arrays:
    """Fit the classical rule: limits on one estimator for two or ordered classes, else a linear discriminant on all."""
    classes = len(definition.classes)
    if definition.edges or classes == 2:
        values = train.estimates[:, list(ESTIMATORS).index(definition.estimator)]
        ascending = float(np.corrcoef(np.argsort(np.argsort(values)), labels)[0, 1]) >= 0
        order = np.arange(classes) if ascending else np.arange(classes)[::-1]
        return {"cuts": best_cuts(values, labels if ascending else classes - 1 - labels, classes), "cut_order": order}
    mean, scale = train.estimates.mean(axis=0), np.maximum(train.estimates.std(axis=0), 1e-6)
    x = (train.estimates - mean) / scale
    centres = np.stack([x[labels == one].mean(axis=0) for one in range(classes)])
    within = np.cov((x - centres[labels]).T) + 1e-3 * np.eye(x.shape[1])
    weight = np.linalg.solve(within, centres.T)
    prior = np.log(np.bincount(labels, minlength=classes) / len(labels))
    bias = prior - 0.5 * np.einsum("cf,fc->c", centres, weight)
    return {"rule_mean": mean, "rule_scale": scale, "rule_weight": weight, "rule_bias": bias}


def best_cuts(values: NDArray[np.float64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return the `classes − 1` ascending limits on `values` that classify the most labels correctly.

    Limits are chosen among 256 quantiles; dynamic programming finds the optimum.

    >>> best_cuts(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1]), 2).tolist()
    [2.0]
    """
    candidates = np.unique(np.quantile(values, np.linspace(0, 1, 256), method="nearest"))
    cell = np.searchsorted(candidates, values, side="right") - 1
    counts = np.zeros((classes, len(candidates) + 1))
    for one in range(classes):
        counts[one, 1:] = np.cumsum(np.bincount(cell[labels == one], minlength=len(candidates)))
    best, choice = counts[0].copy(), []
    for one in range(1, classes):
        # If class `one` starts at cell k: correct labels below k, plus the labels of this class from k on.
        gain = best - counts[one]
        first = np.maximum.accumulate(gain)
        at = np.where(gain == first, np.arange(len(gain)), 0)
        choice.append(np.maximum.accumulate(at))
        best = first + counts[one]
    limits, end = [], len(candidates)
    for table in reversed(choice):
        end = int(table[end])
        limits.append(candidates[min(end, len(candidates) - 1)])
    return np.array(limits[::-1])


def fit_gate(train: Examples, calibration: Examples) -> Arrays:
    """Fit the gate and return the arrays of its weights file: principal directions, spreads, and the limit.

    Each kind of channels is left out once, and the 95th percentile of its distances from the remaining kinds is
    computed. The limit is the median of these percentiles over kinds, and at least the 99th percentile of the distances
    of all calibration channels.
    """
    arrays = _about(train)
    distance = Gate.from_arrays(arrays).score(calibration.features)
    limits = [float(np.quantile(distance, 0.99))]
    for generators in KINDS.values():
        inside = np.isin(calibration.source, generators)
        if LEAST_OF_A_KIND <= inside.sum() <= len(inside) - LEAST_OF_A_KIND:
            gate = Gate.from_arrays(_about(train.rows(~np.isin(train.source, generators))))
            limits.append(float(np.quantile(gate.score(calibration.rows(inside).features), OF_A_NEW_KIND)))
    limit = max(limits[0], float(np.median(limits[1:] or limits)))
    usual = np.asarray(np.quantile(distance, 0.9) / limit)
    return arrays | {"limit": np.asarray(limit), "usual": usual}


def _about(train: Examples) -> Arrays:
    """Fit the arrays of a gate to these channels, with a limit of 1."""
    mean, scale = train.features.mean(axis=0), np.maximum(train.features.std(axis=0), 1e-3)
    x = (train.features - mean) / scale
    _, vectors = np.linalg.eigh(np.cov(x.T))
    leading = vectors[:, ::-1][:, :DIRECTIONS].astype(np.float32)
    along = x @ leading
    beside = np.sum((x - along @ leading.T) ** 2, axis=1)
    return {
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "directions": leading,
        "spread": along.std(axis=0).astype(np.float32),
        "residual": np.asarray(beside.mean()),
        "limit": np.asarray(1.0),
    }

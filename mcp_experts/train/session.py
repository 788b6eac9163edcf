"""A training: channels are drawn, experts fitted and scored, their weights and cards written."""

from __future__ import annotations

import importlib.metadata
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoml.files import atomic_path, sha256, write_json
from geoml.runs import RunFolder, plain
from mcp_experts import experts
from mcp_experts.definition import Definition
from mcp_experts.network import Gate, Network
from mcp_experts.registry import CARD, WEIGHTS, Registry
from mcp_experts.train import card, dataset
from mcp_experts.train.dataset import Examples
from mcp_experts.train.fit import COVERAGE, Recipe, fit_classifier, fit_gate
from mcp_experts.train.spoilt import spoilt

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["train_experts", "write_expert"]

LOG = logging.getLogger(__name__)
Rows = list[dict[str, Any]]
SPOILT_LINKS = 512


def train_experts(config: DictConfig, run: RunFolder) -> Rows:
    """Train the experts of a configuration; a row each on channels that were not seen."""
    values = plain(config)
    torch.set_num_threads(int(values["threads"]))
    torch.use_deterministic_algorithms(True)
    asked = values["expert"]
    registry = Registry(None if asked == "all" else [asked] if isinstance(asked, str) else list(asked))
    target = Path(values["target"] or Path(str(experts.__file__)).parent)
    sets = _sets(values)
    recipe = Recipe(**{**values["recipe"], "hidden": tuple(values["recipe"]["hidden"])}, seed=int(values["seed"]))
    rows = []
    for expert in registry.experts.values():
        definition = expert.definition
        if definition.kind == "gate" and asked != "all" and definition.name not in np.atleast_1d(asked):
            continue
        LOG.info("training %s", definition.name)
        if definition.kind == "gate":
            arrays, found = _gate(sets, int(values["seed"]))
            row: dict[str, Any] = {"expert": definition.name, "outside_test": found["gate"]["test"]["outside"]}
        else:
            arrays, found = _classifier(definition, sets, recipe, boosted=bool(values["boosted"]))
            row = _row(definition.name, found)
        write_expert(target / definition.name, definition, arrays, found | _circumstances(values, sets))
        run.metrics.append(row)
        rows.append(row)
    run.write_summary({"experts": rows, "training_set": sets["train"].digest})
    return rows


def _sets(values: Mapping[str, Any]) -> dict[str, Examples]:
    counts = {name: int(count) for name, count in values["links"].items()}
    # Whole groups of links that share parameters.
    held = {name: max(32, round(count * values["held_share"] / 32) * 32) for name, count in counts.items() if count}
    cache, seed = Path(values["cache"]), int(values["seed"])
    sets = {
        "train": dataset.build(counts, seed=seed, part="train", cache=cache),
        "calibration": dataset.build(held, seed=seed, part="calibration", cache=cache),
        "test": dataset.build(held, seed=seed, part="test", cache=cache),
    }
    if values["traced"]:
        from mcp_experts.train.traced import traced_links

        rng = np.random.default_rng([seed, 7])
        sets["traced"] = dataset.collect("traced", traced_links(values["traced"], seed), rng)
    return sets


def _classifier(
    definition: Definition, sets: Mapping[str, Examples], recipe: Recipe, *, boosted: bool
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    arrays = fit_classifier(definition, sets["train"], sets["calibration"], recipe)
    network = Network.from_arrays(arrays)
    labels = definition.labels(sets["train"].truth(definition.truth))
    rival = _boosted(sets["train"].estimates[labels >= 0], labels[labels >= 0], recipe.seed) if boosted else None
    prior = int(np.bincount(labels[labels >= 0]).argmax())
    metrics = {
        "in_distribution": card.scores(definition, network, sets["test"], rival, prior),
        "held_out_generator": card.scores(definition, network, sets.get("traced"), rival, prior),
    }
    about = {
        "parameters": sum(weight.size + bias.size for weight, bias in network.layers),
        "temperature": float(arrays["temperature"]),
        "set_threshold": float(arrays["threshold"]),
        "set_coverage_asked": COVERAGE,
    }
    return arrays, about | {"metrics": metrics}


def _boosted(estimates: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=seed, max_iter=120, early_stopping=True).fit(estimates, labels)


def _gate(sets: Mapping[str, Examples], seed: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    from mcp_experts.train.generators import generate

    arrays = fit_gate(sets["train"], sets["calibration"])
    wrong = spoilt(generate("tdl", SPOILT_LINKS, 1000 * seed + 3), seed)
    return arrays, {"gate": card.gate_card(Gate.from_arrays(arrays), sets["test"], sets.get("traced"), wrong)}


def write_expert(
    folder: Path, definition: Definition, arrays: Mapping[str, NDArray[Any]], found: Mapping[str, Any]
) -> None:
    """Write weights and card into an expert's folder, the card last: it holds the weights' hash."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as partial:
        stream = io.BytesIO()
        narrow: dict[str, Any] = {name: _narrow(array) for name, array in arrays.items()}
        np.savez(stream, **narrow)
        partial.write_bytes(stream.getvalue())
    about = {"name": definition.name, "version": definition.version, **definition.describe()}
    write_json(folder / CARD, about | dict(found) | {"weights_sha256": sha256(folder / WEIGHTS)})


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float64 and array.ndim == 2 else array


def _circumstances(values: Mapping[str, Any], sets: Mapping[str, Examples]) -> dict[str, Any]:
    return {
        "input": {
            "shape": "csi[subcarrier, time, antenna], complex; at least 64 × 14 × 1",
            "units": "linear, any gain; spacing of subcarriers in Hz, of snapshots in s",
            "looked_at": "64 subcarriers and 14 snapshots, spread as far as does not alias",
        },
        "valid": {
            "snr_db": "-5 and more",
            "bandwidth_hz": [3e6, 80e6],
            "carrier_hz": "trained at 3.5 GHz; only scenario depends on it",
            "antennas": "trained with 1 and 2; of more all are averaged over",
        },
        "training": {
            "generators": {name: int(count) for name, count in values["links"].items()},
            "held_out_generator": "ray-traced cities" if "traced" in sets else "none",
            "seed": int(values["seed"]),
            "recipe": dict(values["recipe"]),
            "links": len(sets["train"]),
            "sha256": sets["train"].digest,
            "versions": {name: importlib.metadata.version(name) for name in ("numpy", "torch", "sionna")},
        },
        "licence": "Apache-2.0",
    }


def _row(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"expert": name}
    for place, scores in found["metrics"].items():
        if isinstance(scores, str):
            row[place] = scores
            continue
        short = {"in_distribution": "", "held_out_generator": "traced_"}[place]
        for rival in ("majority", "classical", "boosted_classical", "expert"):
            if rival in scores:
                row[f"{short}{rival}"] = scores[rival]["accuracy"]
        row[f"{short}kappa"] = scores["expert"]["kappa"]
        row[f"{short}ece"] = scores["calibration_error"]
    return row

"""A training session: draw channels, fit and score experts, write weights and cards."""

from __future__ import annotations

import glob
import importlib.metadata
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoml.errors import UserError
from geoml.runs.files import read_json, sha256
from geoml.runs.folder import RunFolder, jsonable, plain
from mcp_experts import experts
from mcp_experts.inference.classical import ESTIMATORS
from mcp_experts.inference.definition import Definition
from mcp_experts.inference.network import Gate, Network
from mcp_experts.inference.registry import CARD, WEIGHTS, Registry
from mcp_experts.train import card, dataset
from mcp_experts.train.calibration import COVERAGE
from mcp_experts.train.corruptions import spoilt
from mcp_experts.train.dataset import Examples
from mcp_experts.train.fit import FitOptions, fit_classifier, fit_gate
from mcp_experts.train.left_out import without
from mcp_experts.train.truths import BANDWIDTH_HZ
from mcp_experts.train.weights_files import write_expert

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["bandwidths", "find_tables", "train_experts"]

LOG = logging.getLogger(__name__)
Rows = list[dict[str, Any]]
SPOILT_LINKS = 512
#: Largest number of training links for gradient boosting on the classical estimates.
MOST_BOOSTED = 40_000
#: Additional scores in a card: generators that a second model is trained without and tested on.
HIDDEN = {"held_out_generator": "traced", "held_out_standard": "standard"}


def train_experts(config: DictConfig, run: RunFolder) -> Rows:
    """Train the experts of a configuration; returns one row per expert on unseen channels."""
    values = plain(config)
    torch.set_num_threads(int(values["threads"]))
    torch.use_deterministic_algorithms(True)
    asked = values["expert"]
    registry = Registry(None if asked == "all" else [asked] if isinstance(asked, str) else list(asked))
    target = Path(values["target"] or Path(str(experts.__file__)).parent)
    sets = _sets(values)
    recipe = FitOptions(**{**values["recipe"], "hidden": tuple(values["recipe"]["hidden"])}, seed=int(values["seed"]))
    rows = []
    for expert in registry.experts.values():
        definition = expert.definition
        if definition.kind == "gate" and asked != "all" and definition.name not in np.atleast_1d(asked):
            continue
        about = _circumstances(values, sets, bandwidths(definition, sets["train"]))
        kept = None if values["run"]["fresh"] else _trained_before(target / definition.name, definition, about)
        if kept is not None:
            LOG.info("%s is already trained on this set: kept", definition.name)
            rows.append(_row(definition.name, kept))
            continue
        LOG.info("training %s", definition.name)
        if definition.kind == "gate":
            arrays, found = _gate(sets, int(values["seed"]))
        else:
            arrays, found = _classifier(definition, sets, recipe, boosted=bool(values["boosted"]))
        row = _row(definition.name, found)
        write_expert(target / definition.name, definition, arrays, found | about)
        run.metrics.append(row)
        rows.append(row)
    run.write_summary({"experts": rows, "training_set": sets["train"].digest})
    return rows


def _trained_before(folder: Path, definition: Definition, about: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the card of an expert that was already trained on this set with this recipe; None if there is none."""
    if not (folder / CARD).exists() or not (folder / WEIGHTS).exists():
        return None
    found = read_json(folder / CARD)
    expected = jsonable({**about, "version": definition.version, **definition.describe()})
    same = all(found.get(key) == value for key, value in expected.items())
    return found if same and found.get("weights_sha256") == sha256(folder / WEIGHTS) else None


def _sets(values: Mapping[str, Any]) -> dict[str, Examples]:
    """Return the sets "train", "calibration" and "test", and with path tables of held-out cities two more.

    "city" has the links of the cities that are not used in training; "traced" has all ray-traced links. With the
    setting `left_out`, a kind of channels is removed from all sets, and "left_out" has its test channels.
    """
    counts = {name: int(count) for name, count in values["links"].items()}
    held = {name: max(32, round(count * values["held_share"])) for name, count in counts.items() if count}
    cache, seed = Path(values["cache"]), int(values["seed"])
    seen, apart = find_tables(values["traced"]), find_tables(values["traced_apart"])
    sets = {
        part: dataset.build(counts if part == "train" else held, seed=seed, part=part, cache=cache, tables=seen)
        for part in dataset.PARTS
    }
    if values["left_out"]:
        return without(sets, values["left_out"])
    if apart:
        city = dataset.merge(
            [dataset.traced([path], seed=seed, part=None, cache=cache, name=path.stem) for path in apart]
        )
        known = [each.rows(each.source == dataset.TRACED) for each in sets.values()] if seen else []
        sets |= {"city": city, "traced": dataset.merge([*known, city])}
    return sets


def find_tables(patterns: Sequence[str]) -> list[Path]:
    """Return the path tables that match the patterns, in order; raises `UserError` for a pattern without files."""
    found = []
    for pattern in patterns:
        files = sorted(Path(name) for name in glob.glob(pattern))
        if not files:
            raise UserError(
                f"no path table {pattern}; docs/experts-training.md has the commands of radiomaps that trace them, or "
                "train without: traced=[] traced_apart=[]"
            )
        found += files
    return found


def _classifier(
    definition: Definition, sets: Mapping[str, Examples], recipe: FitOptions, *, boosted: bool
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return weights and card of a classifier, with scores of models trained without some generators (`HIDDEN`)."""
    arrays, score, kinds = _trained(definition, sets["train"], sets["calibration"], recipe, boosted=boosted)
    metrics = {"in_distribution": score(sets["test"])}
    if "left_out" in sets:
        metrics["left_out"] = score(sets["left_out"])
    else:
        metrics["held_out_city"] = score(sets.get("city"))
    for name, hidden in HIDDEN.items() if "left_out" not in sets else ():
        metrics[name] = "not measured"
        if "traced" in sets:
            train, calibration = (_generators(sets[part], hidden, without=True) for part in dataset.PARTS[:2])
            tested = sets["traced"] if hidden == "traced" else _generators(sets["test"], hidden)
            truths = (definition.labels(part.truth(definition.truth)) for part in (train, calibration))
            metrics[name] = "not applicable"
            if min(int(np.sum(labels >= 0)) for labels in truths) >= card.LEAST:
                metrics[name] = _trained(definition, train, calibration, recipe, boosted=boosted, new_kinds=False)[1](
                    tested
                )
    about = {
        "parameters": sum(int(array.size) for name, array in arrays.items() if name.startswith(("weight_", "bias_"))),
        "temperature": float(arrays["temperature"]),
        "set_threshold": np.round(arrays["threshold"], 4).tolist(),
        "set_coverage_asked": COVERAGE,
    }
    return arrays, about | kinds | {"metrics": metrics}


def _generators(examples: Examples, kind: str, *, without: bool = False) -> Examples:
    """Select ray-traced links (`kind` "traced") or all others ("standard"); `without` inverts the selection."""
    traced = examples.source == dataset.TRACED
    return examples.rows(traced == ((kind == "traced") != without))


def _trained(
    definition: Definition,
    train: Examples,
    calibration: Examples,
    recipe: FitOptions,
    *,
    boosted: bool,
    new_kinds: bool = True,
) -> tuple[dict[str, NDArray[Any]], Callable[[Examples | None], dict[str, Any] | str], dict[str, Any]]:
    """Train a classifier and its baselines on the same links.

    Returns the arrays of its weights file, a function that scores classifier and baselines on a set, and the card's
    entry on kinds left out.
    """
    arrays, kinds = fit_classifier(definition, train, calibration, recipe, new_kinds=new_kinds)
    network = Network.from_arrays(arrays)
    labels = definition.labels(train.truth(definition.truth))
    known, labels = labels >= 0, labels[labels >= 0]
    rival = _boosted(train.estimates[known], labels, recipe.seed) if boosted else None
    prior = int(np.bincount(labels).argmax())
    return arrays, lambda examples: card.scores(definition, network, examples, rival, prior), kinds


def _boosted(estimates: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    if len(labels) > MOST_BOOSTED:
        some = np.random.default_rng(seed).permutation(len(labels))[:MOST_BOOSTED]
        estimates, labels = estimates[some], labels[some]
    return HistGradientBoostingClassifier(random_state=seed, max_iter=120, early_stopping=True).fit(estimates, labels)


def _gate(sets: Mapping[str, Examples], seed: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    from mcp_experts.train.generators import generate

    arrays = fit_gate(sets["train"], sets["calibration"])
    wrong = spoilt(generate("tdl", SPOILT_LINKS, 1000 * seed + 3), seed)
    return arrays, {"gate": card.gate_card(Gate.from_arrays(arrays), sets, wrong)}


def bandwidths(definition: Definition, train: Examples) -> list[float]:
    """Lowest and highest bandwidth in Hz at which every class occurs in training, to two digits.

    Outside this range the bandwidth alone would exclude classes, such as scenarios whose long delays do not occur with
    wide bands. `widest_hz` of the definition may lower the upper limit.
    """
    if definition.kind == "gate":
        return list(BANDWIDTH_HZ)
    labels = definition.labels(train.truth(definition.truth))
    decades = train.estimates[:, list(ESTIMATORS).index("bandwidth_decades")]
    known = [decades[labels == one] for one in np.unique(labels[labels >= 0])]
    low, high = np.array([np.quantile(each, (0.002, 0.998)) for each in known]).T
    return [float(f"{10**value:.2g}") for value in (low.max(), min(high.min(), np.log10(definition.widest_hz)))]


def _circumstances(values: Mapping[str, Any], sets: Mapping[str, Examples], valid_hz: list[float]) -> dict[str, Any]:
    return {
        "input": {
            "shape": "csi[subcarrier, time, antenna], complex; at least 32 × 1 × 1",
            "units": "linear, any gain; spacing of subcarriers in Hz, of snapshots in s",
            "looked_at": "64 subcarriers and 14 snapshots, spread as far as does not alias",
        },
        "valid": {
            "snr_db": "-5 and more; drawn evenly from -5 to 35 dB, and for an eighth of the links up to 80 dB",
            "bandwidth_hz": valid_hz,
            "doppler": "largest shifts of 0.05 to 6 over the observed time",
            "frequency_offset": "0.1 over the observed time (standard deviation); no expert estimates or removes one",
            "carrier_hz": "trained at 3.5 GHz; only scenario depends on it",
            "antennas": "trained with 1 and 2; of more all are averaged over",
        },
        "training": {
            "generators": {name: int(count) for name, count in values["links"].items()},
            "ray_traced": int(np.sum(sets["train"].source == dataset.TRACED)),
            "cities": [path.stem for path in find_tables(values["traced"])],
            "held_out_city": [path.stem for path in find_tables(values["traced_apart"])],
            **({"left_out": values["left_out"]} if values["left_out"] else {}),
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
    if "gate" in found:
        return row | {"outside_test": found["gate"]["test"]["outside"]}
    for place, scores in found["metrics"].items():
        if isinstance(scores, str):
            row[place] = scores
            continue
        if place == "in_distribution":
            for rival in ("majority", "classical", "boosted_classical", "expert"):
                if rival in scores:
                    row[rival] = scores[rival]["accuracy"]
            row["ece"] = scores["calibration_error"]
        row["kappa" if place == "in_distribution" else place] = scores["expert"]["kappa"]
    return row

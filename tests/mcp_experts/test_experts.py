"""Every expert is whole: definition, weights of the card's hash, complete card, examples through a client, targets."""

import json
from dataclasses import replace

import anyio
import numpy as np
import pytest
from mcp import Client

from geoml.errors import DataError, UserError
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.classical import ESTIMATORS
from mcp_experts.inference.features import FEATURES, names
from mcp_experts.inference.registry import CARD, WEIGHTS, Registry
from mcp_experts.inference.verdicts import ChannelView, judge
from mcp_experts.serve.server import build_server
from mcp_experts.train.scaffold import new

REGISTRY = Registry()
EXPERTS = sorted(REGISTRY.experts)
CLASSIFIERS = [expert.name for expert in REGISTRY.classifiers]
CARD_KEYS = {
    "name",
    "version",
    "task",
    "purpose",
    "classes",
    "edges",
    "edges_unit",
    "meaning",
    "limits",
    "input",
    "valid",
    "training",
    "licence",
    "weights_sha256",
}


def test_the_experts_that_are_promised():
    promised = {"los", "fading", "delay_spread", "doppler", "coherence_bandwidth", "coherence_time", "profile"}
    assert promised | {"scenario", "snr", "ood"} <= set(EXPERTS)
    assert len(set(names())) == FEATURES


@pytest.mark.parametrize("name", EXPERTS)
def test_card_is_complete_and_the_weights_are_its_own(name):
    expert = REGISTRY.expert(name)
    assert set(expert.card) >= CARD_KEYS
    assert expert.card.items() >= expert.definition.describe().items()
    assert expert.card["version"] == expert.definition.version
    assert len(expert.card["training"]["sha256"]) == 64
    assert expert.definition.examples
    if name == "ood":
        assert expert.gate.directions.shape[0] == FEATURES
        return
    network = expert.network
    assert network.layers[0][0].shape[0] == FEATURES
    assert network.layers[-1][1].shape == (len(expert.definition.classes),)
    parameters = sum(weight.size + bias.size for weight, bias in network.layers)
    assert parameters == expert.card["parameters"] <= 100_000


@pytest.mark.parametrize("name", EXPERTS)
def test_labels_cannot_be_taken_for_each_other_nor_for_the_question(name):
    """A small model that reads "los" in "nlos", or in the task's own name, answers wrongly."""
    definition = REGISTRY.expert(name).definition
    labels = [label.lower() for label in definition.classes]
    for label in labels:
        assert not [other for other in labels if other != label and label in other]
        assert label not in definition.question.lower()
        assert label not in definition.title.lower()
        assert label not in definition.name.lower()
    assert set(definition.renamed.values()) <= set(definition.classes)
    assert definition.edges or set(definition.says) == set(definition.classes)


def test_experts_are_found_by_what_people_ask():
    for question, name in (
        ("line_of_sight", "los"),
        ("line-of-sight", "los"),
        ("Is the link in line of sight?", "los"),
        ("nlos", "los"),
        ("How long is the RMS delay spread?", "delay_spread"),
        ("delay profile", "profile"),
        ("K-factor", "fading"),
        ("coherence time", "coherence_time"),
        ("in_distribution", "ood"),
    ):
        assert REGISTRY.asked(question).name == name
    for question in ("", "weather"):
        with pytest.raises(UserError, match="line_of_sight"):
            REGISTRY.asked(question)
    with pytest.raises(UserError, match="is several: ask one at a time, of delay_spread, doppler"):
        REGISTRY.asked("doppler and delay spread")


def test_cards_with_earlier_names_of_classes_are_read(tmp_path):
    expert = REGISTRY.expert("los")
    (tmp_path / CARD).write_text(json.dumps(expert.card | {"classes": ["nlos", "los"]}))
    assert type(expert)(expert.definition, tmp_path).card["classes"] == ["blocked", "clear"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_card_compares_with_rivals_where_a_truth_exists(name):
    metrics = REGISTRY.expert(name).card["metrics"]
    for place in ("in_distribution", "held_out_generator"):
        if place == "held_out_generator" and name in ("profile", "scenario"):
            assert metrics[place] == "not applicable"
            continue
        scores = metrics[place]
        for rival in ("majority", "classical", "boosted_classical", "expert"):
            for score in ("accuracy", "kappa"):
                low, high = scores[rival][f"{score}_95"]
                assert low <= scores[rival][score] + 0.01
                assert scores[rival][score] <= high + 0.01
        assert len(scores["by_snr_db"]) == 5
        if place == "in_distribution":
            assert scores["risk_at_coverage"]["0.5"] <= scores["risk_at_coverage"]["1"]


@pytest.mark.parametrize("name", EXPERTS)
def test_examples_run_through_a_client(name):
    async def run():
        async with Client(build_server(registry=REGISTRY)) as client:
            answers = []
            for example in REGISTRY.expert(name).definition.examples:
                loaded = await client.call_tool("wireless_load_synthetic", dict(example.specification))
                arguments = {"source": loaded.structured_content["channel_id"]}
                answers.append((example, (await client.call_tool(f"wireless_{name}", arguments)).structured_content))
            return answers

    for example, verdict in anyio.run(run):
        assert set(verdict["likely"]) & set(example.likely), (dict(example.specification), verdict)
        assert verdict["ood_score"] < 1, dict(example.specification)
        assert sum(verdict["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_all_weights_together_are_small():
    size = sum((expert.folder / WEIGHTS).stat().st_size for expert in REGISTRY.experts.values())
    assert size <= 5e6


def test_damaged_weights_are_refused_by_hash(tmp_path):
    whole = REGISTRY.expert("los")
    for name in (WEIGHTS, CARD):
        (tmp_path / name).write_bytes((whole.folder / name).read_bytes())
    data = bytearray((tmp_path / WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(DataError, match="SHA-256"):
        _ = type(whole)(whole.definition, tmp_path).network


def test_weights_of_other_classes_are_refused(tmp_path):
    whole = REGISTRY.expert("doppler")
    (tmp_path / CARD).write_text(json.dumps(whole.card))
    moved = replace(whole.definition, edges=(0.2, 0.5, 2.0))
    with pytest.raises(DataError, match="belongs to another definition of doppler"):
        _ = type(whole)(moved, tmp_path).card


def test_a_pickle_is_not_opened(tmp_path):
    whole = REGISTRY.expert("los")
    np.savez(tmp_path / WEIGHTS, mean=np.array([{"a": 1}], dtype=object))
    from geoml.runs.files import sha256

    (tmp_path / CARD).write_text(json.dumps(whole.card | {"weights_sha256": sha256(tmp_path / WEIGHTS)}))
    with pytest.raises(DataError, match="not a file of plain arrays"):
        _ = type(whole)(whole.definition, tmp_path).network


def test_a_new_expert_is_refused_until_it_is_trained(tmp_path, monkeypatch, capsys):
    from mcp_experts import experts

    monkeypatch.setattr(experts, "__path__", [*experts.__path__, str(tmp_path)])
    assert new(["rain_fade", "--folder", str(tmp_path)]) == 0
    assert "mcp-experts train expert=rain_fade" in capsys.readouterr().out
    begun = Registry().expert("rain_fade")
    assert begun.definition.classes == ("low", "high")
    with pytest.raises(DataError, match="not trained yet"):
        _ = begun.card
    for name in ("rain_fade", "los", "Los", "../x", "import"):
        with pytest.raises(UserError):
            new([name, "--folder", str(tmp_path)])
    with pytest.raises(UserError, match="cannot be written to"):
        new(["snow_fade", "--folder", str(tmp_path / "rain_fade.py")])


def test_a_classical_estimate_is_told_in_its_own_unit():
    look, los = ChannelView(synthesize(doppler_hz=100, snr_db=30)), REGISTRY.expert("los")
    for estimator, unit in (("doppler_cells", "1/duration"), ("coherence_time", "duration"), ("k_factor_db", "dB")):
        asked = replace(los, definition=replace(los.definition, estimator=estimator))
        found = judge(asked, look, REGISTRY).classical
        assert found.unit == unit
        assert found.value == pytest.approx(look.estimates[0, list(ESTIMATORS).index(estimator)], rel=1e-3)


@pytest.mark.parametrize(
    ("probabilities", "label", "likely"),
    [
        ((0.02, 0.9, 0.05, 0.03), 1, [1]),
        ((0.05, 0.51, 0.4, 0.04), 1, [1, 2]),
        ((0.05, 0.5, 0.41, 0.04), None, [1, 2]),
        ((0.1, 0.35, 0.3, 0.25), None, [1, 2, 3]),
        ((0.28, 0.24, 0.24, 0.24), None, [0, 1, 2, 3]),
    ],
)
def test_a_label_is_more_likely_than_all_others_together_and_the_set_is_shown_with_it(probabilities, label, likely):
    honest = REGISTRY.expert("delay_spread")
    classes = honest.definition.classes
    blind = (np.zeros((FEATURES, 4), np.float32), np.log(probabilities).astype(np.float32))
    certain = replace(honest)
    threshold = np.full(4, 0.2, np.float32)
    vars(certain)["network"] = replace(honest.network, layers=(blind,), temperature=1.0, threshold=threshold)
    look = ChannelView(synthesize(delay_spread_s=1e-7, snr_db=30))
    look._scores[REGISTRY.gate] = 0.0
    found = judge(certain, look, REGISTRY)
    assert found.label == (None if label is None else classes[label])
    assert found.abstained is (label is None)
    assert found.likely == [classes[number] for number in likely]
    assert found.confidence == pytest.approx(max(probabilities), abs=1e-3)
    assert any("the data do not decide" in warning for warning in found.warnings) is (label is None)


def test_the_set_holds_the_label_even_if_its_own_threshold_is_higher():
    network = replace(REGISTRY.expert("los").network, threshold=np.array([0.9, 0.1], np.float32))
    assert network.members(np.array([[0.7, 0.3]], np.float32)).tolist() == [[True, True]]

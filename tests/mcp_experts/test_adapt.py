"""Adapting an expert to a rig: it learns what the labels say, says so honestly, and a server answers with it."""

import json

import numpy as np
import pytest

from geoml.cli.compose import compose
from geoml.errors import DataError, UserError
from geoml.runs.folder import RunFolder
from mcp_experts import api
from mcp_experts.__main__ import main
from mcp_experts.channels.synthetic import synthesize
from mcp_experts.inference.registry import Registry
from mcp_experts.train.adapt import balanced_accuracy, classes_of


def rig(path, links=12, of_each=4, labels=("NLOS", "LOS"), **change):
    """Channels of links at 200 MHz, beyond the band of the shipped card; every second link has a strong first path."""
    csi, label, link = [], [], []
    for one in range(links):
        clear = one % 2
        for each in range(of_each):
            found = synthesize(
                k_factor_db=8.0 if clear else None,
                delay_spread_s=(10e-9 if clear else 25e-9) * (1 + 0.05 * one),
                bandwidth_hz=200e6,
                snr_db=25,
                seed=100 * one + each,
            )
            csi.append(found.csi)
            label.append(labels[clear])
            link.append(one)
    arrays = {
        "csi": np.stack(csi),
        "label": np.array(label),
        "link": np.array(link),
        "subcarrier_spacing_hz": 200e6 / 64,
        "snapshot_interval_s": 1e-3,
    }
    np.savez(path, **{name: value for name, value in (arrays | change).items() if value is not None})
    return path


def test_an_adapted_expert_answers_its_rig_and_says_how_well(tmp_path, capsys):
    path = rig(tmp_path / "rig.npz")
    assert main(["adapt", f"labels={path}", f"target={tmp_path / 'own'}", f"run.dir={tmp_path / 'run'}"]) == 0
    card = json.loads((tmp_path / "own" / "los" / "card.json").read_text())
    scores = card["metrics"]["leave_one_link_out"]
    assert scores["balanced_accuracy"] > 0.9
    assert card["adapted"]["links"] == 12
    assert card["valid"]["bandwidth_hz"] == pytest.approx([200e6, 200e6], rel=0.1)
    fresh = rig(tmp_path / "fresh.npz", links=14)
    right = []
    for index in range(48, 56):  # of two links that were not in the file
        found = api.describe(api.load_channel(fresh, index), adapted=tmp_path / "own")["los"]
        right.append(found.label in (None, ("blocked", "clear")[(index // 4) % 2]))
    assert np.mean(right) >= 0.75
    capsys.readouterr()
    assert main(["describe", str(fresh), "--index", "0", "--adapted", str(tmp_path / "own"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_the_scores_of_labels_at_random_are_those_of_chance(tmp_path):
    """Leaving out a link keeps what is told of a rig honest: nothing here can be learnt."""
    rng = np.random.default_rng(0)
    path = rig(tmp_path / "rig.npz", links=16, of_each=3, label=np.repeat(rng.permutation(["LOS", "NLOS"] * 8), 3))
    values = compose("mcp_experts.conf", "adapt", [f"labels={path}", f"target={tmp_path / 'own'}"])
    from mcp_experts.train.adapt import adapt

    with RunFolder(tmp_path / "run", values) as run:
        (row,) = adapt(values, run)
    assert row["balanced_accuracy"] < 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "needs taps"),
        ({"label": np.array(["LOS"] * 5)}, "expected one label and one link for each channel"),
        ({"label": np.array(["LOS"] * 48)}, "two classes"),
        ({"label": np.array(["maybe", "LOS"] * 24)}, "labels hold 'maybe'; expected blocked, clear"),
        ({"link": np.zeros(48, int)}, "48 channels of 1 links"),
    ],
)
def test_files_that_cannot_be_learnt_from_are_refused(change, message, tmp_path, capsys):
    path = rig(tmp_path / "rig.npz", **change)
    assert main(["adapt", f"labels={path}", f"target={tmp_path / 'own'}", f"run.dir={tmp_path / 'run'}"]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


def test_a_folder_without_adapted_experts_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no adapted expert; mcp-experts adapt"):
        Registry(adapted=tmp_path)


def test_labels_are_known_by_current_and_earlier_names():
    definition = Registry().expert("los").definition
    assert classes_of(definition, ["LOS", "nlos", "Clear", "blocked"]).tolist() == [1, 0, 1, 0]
    with pytest.raises(DataError, match="expected blocked, clear"):
        classes_of(definition, ["x"])


def test_balanced_accuracy_counts_links_and_classes_alike():
    labels, link = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 2, 3])
    given = np.array([0, 1, 0, 1, 0])
    assert balanced_accuracy(labels, given, link) == pytest.approx(((0.5 + 1) / 2 + 0.5) / 2)

"""The volumes that the GPU benchmark makes for itself, and its slices."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from gpu_volumes import CASES, Slices, edge_loss_db, learned, volumes

CPU = torch.device("cpu")


def test_volumes_are_free_space_in_sight_and_weaker_in_shadows():
    predictors, gain, outdoors = volumes(2, (6, 40, 40), CPU, 0)
    assert predictors.shape == (2, 4, 6, 40, 40)
    loss = ((predictors[:, 3:] - gain) * 77)[outdoors]
    assert float(loss.min()) >= 0
    assert 0.05 < float((loss == 0).float().mean()) < 0.999
    assert 6 < float(loss[loss > 0].median()) < 50
    again = volumes(2, (6, 40, 40), CPU, 0)[1]
    assert torch.equal(gain, again)


def test_an_edge_costs_what_the_recommendation_says():
    """None well below the path, 6.0 dB at grazing, 19 dB at ν = 2 (ITU-R P.526-15, figure 9)."""
    assert edge_loss_db(torch.tensor([-1.0, 0.0, 2.0])).tolist() == pytest.approx([0.0, 6.0, 19.0], abs=0.1)


def test_a_stage_is_run_once_and_again_for_another_case(tmp_path):
    calls = []

    def run():
        calls.append(1)
        return {"a": 1.0}

    for about in ("one", "one", "other"):
        assert Slices(tmp_path, about).stage("x", run) == {"a": 1.0}
    assert len(calls) == 2
    assert json.loads((tmp_path / "stages.json").read_text()) == {"about": "other", "x": {"a": 1.0}}


def test_a_training_that_was_cut_goes_on(tmp_path):
    case = CASES["tiny"]
    for folder, slices in ((tmp_path / "cut", (0.0, 1e9)), (tmp_path / "whole", (1e9,))):
        folder.mkdir()
        for seconds in slices:
            curve = learned(case, CPU, folder, seconds)
    assert [row["step"] for row in curve] == [1, 2, 3, 4]
    cut, whole = (torch.load(tmp_path / name / "training.pt", weights_only=True) for name in ("cut", "whole"))
    assert cut["step"] == whole["step"] == 4
    assert all(torch.equal(cut["model"][name], whole["model"][name]) for name in whole["model"])
    assert learned(case, CPU, tmp_path / "whole", 1e9) == curve

"""Run folders and checkpoints made at commit 9c6128b load, and predict what they predicted there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geoml.data.fields import Batch
from geoml.grids.grid import Grid
from geoml.models.predictor import load_predictor
from radiomaps.trained import load_trained

FOLDER = Path(__file__).parent.parent / "data" / "checkpoints_9c6128b"
CASES = sorted(path.parent.relative_to(FOLDER) for path in FOLDER.glob("*/*/case.npz"))


def batch(domain: str, condition: np.ndarray) -> Batch:
    """The batch of an input, as `make.py` has it."""
    fields = torch.from_numpy(condition)
    if domain == "rain":
        coarse, fine = Grid.latlon(-5, 0, 150, 156, 1.0), Grid.latlon(-5, 0, 150, 156, 0.25)
        return Batch(fields, coarse, fine, ids=(7, 9))
    grid = Grid.box({"z": 1, "y": 0, "x": 0}, {"z": 5, "y": 56, "x": 48}, {"z": 1, "y": 8, "x": 8})
    return Batch(fields, grid, grid, ids=(7, 9))


def test_every_model_has_a_case() -> None:
    assert len(CASES) == 16
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_old_run_predicts_what_it_did(case: Path) -> None:
    saved = np.load(FOLDER / case / "case.npz")
    load = load_predictor if case.parts[0] == "rain" else load_trained
    made, _ = load(FOLDER / case, device="cpu").predict(batch(case.parts[0], saved["condition"]), members=2, seed=3)
    reference = saved["prediction"]
    np.testing.assert_allclose(made.numpy(), reference, rtol=0, atol=1e-6 * max(1.0, np.abs(reference).max()))

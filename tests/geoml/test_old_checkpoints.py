"""Run folders and checkpoints made at commit 9c6128b load, and predict what they predicted there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geoml.data.fields import Batch
from geoml.errors import UserError
from geoml.grids.grid import Grid
from geoml.models.moved import upgraded
from geoml.models.predictor import load_predictor
from geoml.models.registry import available, changed, preset
from geoml.runs.folder import RunFolder
from geoml.runs.stored_config import read_config
from geoml.train.checkpoint import load_resume
from radiomaps.models import available as radio_models
from radiomaps.trained import load_trained

FOLDER = Path(__file__).parent.parent / "data" / "checkpoints_9c6128b"
WEIGHTS = Path(__file__).parent.parent.parent / "benchmarks" / "weights"
CASES = sorted(path.parent.relative_to(FOLDER) for path in FOLDER.glob("*/*/case.npz"))


def batch(domain: str, condition: np.ndarray) -> Batch:
    """The batch of an input, as `make.py` has it."""
    fields = torch.from_numpy(condition)
    if domain == "rain":
        coarse, fine = Grid.latlon(-5, 0, 150, 156, 1.0), Grid.latlon(-5, 0, 150, 156, 0.25)
        return Batch(fields, coarse, fine, ids=(7, 9))
    grid = Grid.box({"z": 1, "y": 0, "x": 0}, {"z": 5, "y": 56, "x": 48}, {"z": 1, "y": 8, "x": 8})
    return Batch(fields, grid, grid, ids=(7, 9))


@contextmanager
def double_precision(predictor: Any) -> Iterator[None]:
    """Compute in float64, as `make.py` does: sums in float32 depend on the processor, and a sampler adds them up."""
    getattr(predictor, "predictor", predictor).model.double()
    single = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = single


def test_every_model_has_a_case() -> None:
    assert len(CASES) == 16
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_old_run_predicts_what_it_did(case: Path) -> None:
    saved = np.load(FOLDER / case / "case.npz")
    load = load_predictor if case.parts[0] == "rain" else load_trained
    predictor = load(FOLDER / case, device="cpu")
    with double_precision(predictor):
        made, _ = predictor.predict(batch(case.parts[0], saved["condition"].astype(float)), members=2, seed=3)
    reference = saved["prediction"]
    np.testing.assert_allclose(made.numpy(), reference, rtol=0, atol=1e-6 * max(1.0, np.abs(reference).max()))


def test_the_same_settings_find_an_old_run_again() -> None:
    """What differs between presets of then and now is only how they are written."""
    for case in CASES:
        config = read_config(FOLDER / case / "config.yaml")
        name = case.name.partition("-")[0]
        if name == "full" or case.name == "flow":  # with an option added to the preset
            continue
        today = {**available(), **radio_models()}
        made = changed(preset(name, today), {key: value for key, value in config["model"].items() if key != "_target_"})
        assert made == upgraded(config["model"]), case


def test_an_old_training_is_found_again_by_the_command_that_made_it(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "rain" / "full", tmp_path / "rain" / "full")
    config = read_config(FOLDER / "rain" / "full" / "config.yaml")
    config["model"] = upgraded(config["model"])
    with RunFolder.open(tmp_path / "rain" / "full", config) as run:
        assert run.finished
        assert load_resume(run.checkpoints / "000000000048")["samples"] == 48
    config["model"]["network"] |= {"base": 8}
    with pytest.raises(UserError, match=r"model\.network\.base was 4, now 8"):
        RunFolder.open(tmp_path / "rain" / "full", config)


@pytest.mark.parametrize("folder", sorted(WEIGHTS.glob("*/*/ema.safetensors")), ids=lambda path: path.parent.name)
def test_committed_weights_load(folder: Path) -> None:
    predictor = load_predictor(folder.parent, device="cpu")
    assert predictor.model.config == upgraded(predictor.model.config or {})


@pytest.mark.parametrize(
    ("config", "network", "sampling"),
    [
        ({"_target_": "geoml.models.ddpm.DDPM"}, {}, {"sampler": "ddim", "steps": 32}),
        ({"_target_": "geoml.models.unet.UNetRegression"}, {"multipliers": [1, 2, 4]}, None),
        ({"_target_": "geoml.models.unet.UNetRegression", "network": {"base": 4}}, {"base": 4}, None),
        ({"_target_": "mine.Model", "base": 4}, None, None),
    ],
)
def test_what_was_not_said_then_keeps_its_meaning(
    config: dict[str, object], network: dict[str, object] | None, sampling: dict[str, object] | None
) -> None:
    made = upgraded(config)
    assert made.get("network", None if network is None else {}) == network
    assert made.get("sampling") == sampling
    assert upgraded(made) == made

"""Make the run folders and predictions beside this file, with the package as it was at commit 9c6128b.

    git worktree add ../old 9c6128b
    PYTHONPATH=../old python tests/data/checkpoints_9c6128b/make.py EMPTY_FOLDER

Each case is a run folder of a short training, exported to what predicts, with `case.npz`: an input of random numbers
and the members that the model predicted from it, in float64. Only the case `full` keeps what a training goes on from.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from geoml.fields import Batch
from geoml.grids import Grid
from geoml.models.predictor import load_predictor
from geoml.train import checkpoint as checkpoints
from radiomaps.__main__ import main as radiomaps
from radiomaps.training import load_trained
from rainshift.__main__ import main as rainshift

NETWORK = ["model.base=4", "model.multipliers=[1,2]"]
RAIN = {
    "resnet": ["model=resnet", "model.width=6", "model.coarse_blocks=1", "model.fine_blocks=1"],
    "unet": ["model=unet", *NETWORK, "model.loss=huber"],
    "gan": ["model=gan", "model.width=6", "model.critic_width=6", "model.coarse_blocks=1", "model.fine_blocks=1"],
    "ddpm": ["model=ddpm", *NETWORK, "model.steps=6"],
    "ddpm-epsilon": [
        "model=ddpm", *NETWORK, "model.parameterisation=epsilon", "model.schedule=linear", "model.steps=5",
        "model.sampler={name:ddim,eta:1.0}", "model.residual=false",
    ],
    "edm": ["model=edm", *NETWORK, "model.attention=[1]", "model.steps=5"],
    "edm-karras": [
        "model=edm", *NETWORK, "model.sampler=heun", "model.steps=4", "model.spacing=karras", "model.sigma_min=0.002",
        "model.sigma_data=0.4", "model.norm=none",
    ],
    "corrdiff": ["model=corrdiff", *NETWORK, "model.steps=4"],
    "flow": ["model=flow", *NETWORK, "model.steps=4", "+model.conditioning=[cross_attention,film]"],
    "full": ["model=edm", "model.base=4", "model.multipliers=[1]", "model.steps=2"],
}  # fmt: skip
RADIO = {
    "unet3d": ["model=unet3d", *NETWORK, "task.prior=dominant"],
    "unet3d-mixed": ["model=unet3d", *NETWORK, "model.operator=planar", "task=mixed"],
    "radiodiff3d": ["model=radiodiff3d", *NETWORK, "task.prior=dominant"],
    "radiodiff3d-flow": ["model=radiodiff3d", *NETWORK, "model.process=flow", "task=mixed", "model.guidance=0.5"],
    "radiodiff3d-layers": ["model=radiodiff3d", *NETWORK, "model.layers_at_once=2", "model.operator=factorised"],
    "radiodiff3d_paper": ["model=radiodiff3d_paper", "model.base=4", "model.multipliers=[1,2]", "model.steps=5"],
}
TRAINER = [
    "trainer.samples=48", "trainer.validate_every=0", "trainer.checkpoint_every=48", "trainer.learning_rate=0.01",
    "trainer.ema_half_life=8", "trainer.device=cpu",
]  # fmt: skip


def main(folder: Path) -> None:
    """Train, predict and export every case into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    torch.set_num_threads(1)
    data = ["data=synthetic_exact", "data.splits_at.train.hours=24", "data.splits_at.validation.hours=24"]
    data += ["cache=cache", "loader.batch_size=4", "loader.patch=0", "loader.validation_samples=4"]
    for name, words in RAIN.items():
        run("rain", name, ["train", *data, *words], rainshift)
    store = ["window.size_m=96", "window.step_m=8", "window.heights_m=[1,4,1]", "scene.size_m=96", "pictures=0"]
    words = ["trace", "solver=dominant", "scene.count=5", *store, "transmitters.count=4", "run.dir=traced"]
    assert radiomaps(words) == 0
    for name, words in RADIO.items():
        fixed = ["store=traced/maps.zarr", "split.parts={train:0.6,validation:0.2,test:0.2}", "loader.batch_size=2"]
        run("radio", name, ["train", *words, *fixed, "pictures=0"], radiomaps)
    for spare in ("cache", "traced"):
        shutil.rmtree(spare)


def run(domain: str, name: str, words: list[str], command: object) -> None:
    """One case: train, predict, keep what is small."""
    target = Path(domain) / name
    assert command([*words, *TRAINER, f"run.dir={target}"]) == 0  # type: ignore[operator]
    best = checkpoints.chosen(target)
    predictor = load_predictor(best, device="cpu")
    inputs = numbers(domain, predictor.model.channels)
    whole = predictor if domain == "rain" else load_trained(target, device="cpu")
    getattr(whole, "predictor", whole).model.double()
    single = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # equal on every processor
    torch.set_default_dtype(torch.float64)
    try:
        made, _ = whole.predict(batch(domain, {"condition": inputs["condition"].astype(float)}), members=2, seed=3)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = single  # type: ignore[method-assign]
    np.savez_compressed(target / "case.npz", prediction=made.numpy(), **inputs)
    if name != "full":
        checkpoints.export(best, target / "exported")
        shutil.rmtree(best)
        (target / "exported").rename(best)
    kept = {"config.yaml", "summary.json", "checkpoints", "case.npz"}
    for path in [path for path in target.iterdir() if path.name not in kept]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def numbers(domain: str, channels: object) -> dict[str, np.ndarray]:
    """Random fields: rain in mm/h and a latent one, or channels of a task, on 0 … 1."""
    random = np.random.default_rng(0)
    if domain == "rain":
        fields = {"latent": random.normal(size=(2, 5, 6)), "tp": random.gamma(0.5, 2.0, size=(2, 5, 6))}
    else:
        fields = {name: random.uniform(size=(2, 4, 7, 6)) for name in channels.condition}  # type: ignore[attr-defined]
        for name in {"building", "observed", "sight_prior"} & set(fields):
            fields[name] = fields[name].round()
    order = channels.condition  # type: ignore[attr-defined]
    return {"condition": np.stack([fields[name] for name in order], axis=1).astype(np.float32)}


def batch(domain: str, inputs: dict[str, np.ndarray]) -> Batch:
    """The batch of an input."""
    condition = torch.from_numpy(inputs["condition"])
    if domain == "rain":
        coarse, fine = Grid.latlon(-5, 0, 150, 156, 1.0), Grid.latlon(-5, 0, 150, 156, 0.25)
        return Batch(condition, coarse, fine, ids=(7, 9))
    grid = Grid.box({"z": 1, "y": 0, "x": 0}, {"z": 5, "y": 56, "x": 48}, {"z": 1, "y": 8, "x": 8})
    return Batch(condition, grid, grid, ids=(7, 9))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Part `radiodiff` of `gpu.py`: the diffusion network on volumes of 256 × 256 × 20, and a short real training.

Torch and numpy are enough. The volumes are generated here: cities of boxes, and the gain of the path over the roofs
(free space minus the loss of its strongest knife edge). Each finished stage is saved in a folder, so a run can be split
into slices of some minutes: the same command resumes.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from geoml.diffusion.cuda_graph import CUDAGraphed
from geoml.diffusion.denoiser import expand
from geoml.diffusion.network import DenoisingUNet
from geoml.diffusion.preconditioning import Karras, noise_label
from geoml.diffusion.samplers import DPMSolver2M
from geoml.diffusion.spacing import log_snr
from geoml.nn.options import UNetOptions

__all__ = ["CASES", "Case", "Slices", "edge_loss_db", "measure_volumes", "volumes"]

#: building, distance, roof; and the free-space prior.
PREDICTORS, PRECONDITIONING, WAVELENGTH = 4, Karras(0.5), 299_792_458 / 5.9e9
#: Scale of the network's residual: standard deviation of the residual of free space, in units of 77 dB.
SCALE = 0.2
Timer = Callable[..., dict[str, list[float]]]


@dataclass(frozen=True)
class Case:
    """Size of a case: volumes, batch, widths of the network, steps and rounds, and length of the training."""

    shape: tuple[int, int, int]
    bases: tuple[int, ...]
    train_batch: int
    members: int
    steps: int
    rounds: int
    learn_base: int
    learn_steps: int
    held_out: int


CASES = {
    "tiny": Case((4, 16, 16), (4, 4), 1, 2, 2, 1, 4, 4, 2),
    "quick": Case((20, 128, 128), (32, 64), 1, 2, 4, 3, 32, 100, 4),
    "full": Case((20, 256, 256), (32, 64), 2, 2, 16, 7, 32, 2000, 8),
}


class Slices:
    """Results by stage in a JSON file. Finished stages are not run again."""

    def __init__(self, folder: Path, about: str) -> None:
        self.folder, self.path, self.about = folder, folder / "stages.json", about
        folder.mkdir(parents=True, exist_ok=True)
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.results: dict[str, Any] = kept if kept.get("about") == about else {"about": about}

    def stage(self, name: str, run: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return the numbers of a stage, from the file or from `run`."""
        if name not in self.results:
            self.results[name] = run()
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps(self.results))
            partial.replace(self.path)
        return dict(self.results[name])


def edge_loss_db(nu: Tensor) -> Tensor:
    """Return the loss in dB of a knife edge with diffraction parameter ν (ITU-R P.526-15, eq. 31)."""
    bent = 6.9 + 20 * torch.log10(((nu - 0.1).square() + 1).sqrt() + nu - 0.1)
    return torch.where(nu > -0.78, bent, 0.0).clamp(min=0)


def volumes(count: int, shape: tuple[int, int, int], device: torch.device, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Generate conditions `(count, 4, z, y, x)`, path gain scaled to about 0 … 1, and the mask of outdoor voxels.

    The gain is free space minus the knife-edge loss of the roof that extends furthest into the Fresnel zone of the
    straight path, on voxels of 1 m (ITU-R P.526-15, eq. 26 and 31).
    """
    z, y, x = shape
    generator = torch.Generator().manual_seed(seed)
    roofs, places = torch.zeros(count, y, x), torch.zeros(count, 3)
    for city, place in zip(roofs, places, strict=True):
        for _ in range(max(4, y * x // 700)):
            corner = (torch.rand(2, generator=generator) * torch.tensor([y, x])).long()
            size = (6 + torch.rand(2, generator=generator) * 18).long()
            rows, columns = (slice(int(c), int(c + s)) for c, s in zip(corner, size, strict=True))
            city[rows, columns] = 6.6 + 13.2 * float(torch.rand((), generator=generator))
        free = (city == 0).nonzero()
        row, column = free[int(torch.randint(len(free), (), generator=generator))].tolist()
        place.copy_(torch.tensor([1.5, row + 0.5, column + 0.5]))
    roofs, places = roofs.to(device), places.to(device)
    heights = torch.arange(1, z + 1, device=device, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(heights, *(torch.arange(n, device=device) + 0.5 for n in (y, x)), indexing="ij"))
    away = grid[None] - places[:, :, None, None, None]
    distance = away.square().sum(1).sqrt().clamp(min=1.0)
    deepest = torch.full_like(distance, -5.0)
    which = torch.arange(count, device=device)[:, None, None, None]
    for share in np.linspace(0.03, 0.97, 32):
        at = places[:, :, None, None, None] + float(share) * away
        row, column = (at[:, 1].long().clamp(0, y - 1), at[:, 2].long().clamp(0, x - 1))
        above = roofs[which, row, column] - at[:, 0]
        reach = (2 / (WAVELENGTH * distance * float(share * (1 - share)))).sqrt()
        deepest = torch.maximum(deepest, torch.where(roofs[which, row, column] > 0, above * reach, -5.0))
    loss = edge_loss_db(deepest)
    free_space = 20 * torch.log10(WAVELENGTH / (4 * math.pi * distance))
    prior, gain = ((values + 169) / 77 for values in (free_space, free_space - loss))
    building = (heights[:, None, None] < roofs[:, None]).float()
    roof = (roofs / 20)[:, None].expand_as(building)
    return torch.stack((building, distance.log10() / 3, roof, prior), 1), gain[:, None], building[:, None] == 0


def network(base: int, device: torch.device) -> DenoisingUNet:
    """Two halvings of height too: 20, 10, 5 layers. The last layer is away from 0, as after some training."""
    torch.manual_seed(0)
    made = DenoisingUNet(
        1, PREDICTORS, dims=3, network=UNetOptions(base=base, multipliers=(1, 2, 4), first_axis_halvings=2)
    )
    nn.init.normal_(made.unet.head.conv.weight, std=0.02)
    return made.to(device)


def tuned(
    plain: DenoisingUNet, device: torch.device, layout: torch.memory_format = torch.channels_last_3d
) -> DenoisingUNet:
    """Return a copy with channels last; compiled on a GPU if compiling works, which one addition tests."""
    ours = copy.deepcopy(plain).to(memory_format=layout)  # type: ignore[call-overload]
    if device.type == "cuda":
        try:
            torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
        except Exception as error:
            print(f"torch.compile does not work here ({str(error).splitlines()[0]}); ours runs without")
        else:
            ours.compile()
    return ours


def loss_of(model: nn.Module, data: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> Tensor:
    """Return the EDM loss of the residual on free space over outdoor voxels."""
    predictors, gain, outdoors = data
    clean = torch.where(outdoors, (gain - predictors[:, 3:]) * (0.5 / SCALE), 0.0)
    draws = [torch.randn(shape, generator=generator).to(clean.device) for shape in ((len(clean),), clean.shape)]
    sigma, noise = torch.exp(-1.2 + 1.2 * draws[0]), draws[1]
    into = expand(PRECONDITIONING.coefficients(sigma).into, clean)
    given = model(into * (clean + expand(sigma, clean) * noise), predictors, noise_label(sigma)).float()
    error = (given - PRECONDITIONING.target(clean, noise, sigma)).square() * outdoors
    return error.sum() / outdoors.sum().clamp(min=1)


def training(model: DenoisingUNet, case: Case, device: torch.device, *, fused: bool) -> Callable[[], None]:
    """Return a function that runs one training step in bf16."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
    data = volumes(case.train_batch, case.shape, device, 0)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = loss_of(model, data, torch.Generator().manual_seed(0))
        loss.backward()
        optimiser.step()

    return step


def sampling(function: Callable[..., Tensor], predictors: Tensor, case: Case, steps: int) -> Callable[[], Tensor]:
    """Return a function that samples residuals under these conditions."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn((len(predictors), 1, *case.shape), generator=generator).to(predictors.device)
    sigmas = log_snr(steps, smallest=0.02)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return PRECONDITIONING.denoise(lambda scaled, label: function(scaled, predictors, label), x, sigma)

    @torch.no_grad()
    def sample() -> Tensor:
        with torch.autocast(predictors.device.type, dtype=torch.bfloat16):
            return DPMSolver2M()(denoiser, noise, sigmas)

    return sample


def _timed(case: Case, base: int, device: torch.device, timer: Timer, best: float) -> dict[str, float]:
    """Return ratios of eager bf16 to ours, and the share of the best matrix product, at one width."""
    plain = network(base, device)
    step = training(copy.deepcopy(plain), case, device, fused=False)
    with FlopCounterMode(display=False) as counted:
        step()
    ways = {
        "eager bf16": step,
        "ours": training(tuned(plain, device), case, device, fused=device.type == "cuda"),
    }
    trained = timer(ways, device, case.rounds)
    plain.requires_grad_(False).eval()
    predictors = volumes(1, case.shape, device, 1)[0].repeat(case.members, 1, 1, 1, 1)
    samplings = {
        "eager bf16": sampling(plain, predictors, case, case.steps),
        "ours": sampling(CUDAGraphed(tuned(plain, device)), predictors, case, case.steps),
    }
    sampled = timer(samplings, device, case.rounds)
    ours = float(np.median(trained["ours"]))
    return {
        "train": float(np.median(np.divide(trained["eager bf16"], trained["ours"]))),
        "sample": float(np.median(np.divide(sampled["eager bf16"], sampled["ours"]))),
        "share": counted.get_total_flops() / ours / best,
        "step_ms": 1e3 * ours,
        "sampling_ms": 1e3 * float(np.median(sampled["ours"])),
        "parameters": sum(p.numel() for p in plain.parameters()),
    }


def learned(case: Case, device: torch.device, folder: Path, seconds: float) -> list[dict[str, float]]:
    """Run a short training. Returns its curve: NMSE of the mean of members on held-out volumes, and of free space.

    Resumes from its checkpoint, and stops after `seconds`.
    """
    begin, path = time.perf_counter(), folder / "training.pt"
    state = torch.load(path, map_location=device, weights_only=True) if path.exists() else None
    model = network(case.learn_base, device)
    if state is not None:
        model.load_state_dict(state["model"])
    model = tuned(model, device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=device.type == "cuda")
    step, curve = 0, []
    if state is not None:
        optimiser.load_state_dict(state["optimiser"])
        step, curve = state["step"], state["curve"]
    every = max(1, case.learn_steps // 10)
    while step < case.learn_steps and time.perf_counter() - begin < seconds:
        data = volumes(case.train_batch, case.shape, device, 1000 + step)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = loss_of(model, data, torch.Generator().manual_seed(step))
        loss.backward()
        optimiser.step()
        step += 1
        if step % every == 0 or step == case.learn_steps:
            curve.append({"step": step, "loss": float(loss.detach()), **_scored(model, case, device, folder)})
            print("  " + ", ".join(f"{name} {value:.4g}" for name, value in curve[-1].items()))
            kept = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "curve": curve}
            torch.save(kept, path.with_suffix(".partial"))
            path.with_suffix(".partial").replace(path)
    return curve


def _scored(model: DenoisingUNet, case: Case, device: torch.device, folder: Path) -> dict[str, float]:
    """Return the NMSE on held-out volumes; truth and prediction of the first volume are saved as arrays."""
    error = prior = power = 0.0
    model.eval()
    for index in range(case.held_out):
        predictors, gain, outdoors = volumes(1, case.shape, device, index)
        rows = predictors.repeat(case.members, 1, 1, 1, 1)
        made = predictors[:, 3:] + sampling(model, rows, case, 4)().mean(0, keepdim=True) * (SCALE / 0.5)
        if index == 0:
            both = torch.cat((gain, made)).float().cpu().numpy()
            np.save(folder / "truth_and_prediction.npy", both)
        error += float((made - gain)[outdoors].square().sum())
        prior += float((predictors[:, 3:] - gain)[outdoors].square().sum())
        power += float(gain[outdoors].square().sum())
    model.train()
    return {"nmse": error / power, "nmse_free_space": prior / power}


def measure_volumes(
    case: Case, device: torch.device, timer: Timer, best: Callable[[], float], folder: Path, seconds: float = 400.0
) -> dict[str, float]:
    """Return the figures of part `radiodiff`; `timer` is `seconds_of` of gpu.py, `best` the matrix product rate."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    slices = Slices(folder, f"{name}, {case}")
    rate = slices.stage("matrix product", lambda: {"rate": best()})["rate"]
    found = []
    for index, base in enumerate(case.bases):

        def run(base: int = base) -> dict[str, float]:
            return _timed(case, base, device, timer, rate)

        found.append(slices.stage(f"{index}: {base} channels", run))
        shown = ", ".join(f"{key} {value:.4g}" for key, value in found[-1].items())
        print(f"volumes {' × '.join(map(str, case.shape))}, {base} channels: {shown}")
    print(f"training at {case.learn_base} channels")
    learned(case, device, folder, seconds)
    return {
        "radiodiff_train_vs_eager_bf16": min(part["train"] for part in found),
        "radiodiff_sample_vs_eager_bf16": min(part["sample"] for part in found),
        "radiodiff_roofline_share_32": found[0]["share"],
        "radiodiff_roofline_share_64": found[1]["share"],
    }

"""Training and sampling on one GPU, against plain PyTorch: `python benchmarks/gpu.py [PART …]`, all without one named.

Only torch and numpy are needed. Without the rest of the project, the figures are printed as JSON and not compared with
their targets. Without a GPU, all code runs with a small network on the CPU, and every figure is null.

Part `rain` is the 2-D network of `model=edm-large` in size (64 channels × [1, 2, 3, 4], two blocks a level), with ten
predictors. A training step is that of an EDM on fields of 128 × 128, batch 32, with AdamW; a sampling is eight members
of one field of 200 × 200 together, by the default sampler in 16 steps. The contenders run the same network on the same
numbers: plain PyTorch ("eager") in fp32, TF32 and bf16; ours in bf16 with channels last, compiled (where a compiler
works), a fused optimiser for training and a CUDA graph for sampling. They take turns, and a ratio is the median over
the rounds of the quotients within a round.

- `train_vs_eager_bf16`, `sample_vs_eager_bf16`: seconds of eager bf16 over ours.
- `roofline_share`: floating point operations of a training step, over our seconds, over the rate of the best square
  bf16 matrix product measured in the same run.

Part `radiodiff` is the network of `radiomaps` on volumes of 20 × 256 × 256 at 32 and 64 channels, with the same figures
(`radiodiff_…`), and a short real training whose curve is printed. It keeps what is done in `--folder=DIR`, stage by
stage, and stops training after `--seconds=N`: the same command resumes.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

with contextlib.suppress(ModuleNotFoundError):
    import geoml  # noqa: F401
if "geoml" not in sys.modules:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpu_volumes import CASES, measure_volumes, tuned

from geoml.diffusion.cuda_graph import CUDAGraphed
from geoml.diffusion.denoiser import expand
from geoml.diffusion.network import DenoisingUNet
from geoml.diffusion.preconditioning import Karras, noise_label
from geoml.diffusion.samplers import DPMSolver2M
from geoml.diffusion.spacing import log_snr
from geoml.nn.options import UNetOptions

FIGURES = (
    "train_vs_eager_bf16",
    "sample_vs_eager_bf16",
    "roofline_share",
    "radiodiff_train_vs_eager_bf16",
    "radiodiff_sample_vs_eager_bf16",
    "radiodiff_roofline_share_32",
    "radiodiff_roofline_share_64",
)
#: Options of part `radiodiff` only.
OPTIONS = ("--folder=", "--seconds=")
PREDICTORS, PRECONDITIONING = 10, Karras(0.5)
Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Case:
    """Size of a case: network, fields, batch, steps and rounds."""

    base: int
    train_edge: int
    train_batch: int
    sample_edge: int
    members: int
    steps: int
    rounds: int


TINY = Case(base=4, train_edge=16, train_batch=2, sample_edge=20, members=2, steps=2, rounds=1)
QUICK = Case(base=64, train_edge=128, train_batch=8, sample_edge=200, members=8, steps=4, rounds=3)
FULL = Case(base=64, train_edge=128, train_batch=32, sample_edge=200, members=8, steps=16, rounds=11)
SIZES = {"tiny": TINY, "quick": QUICK, "full": FULL}


def network(case: Case, device: torch.device) -> DenoisingUNet:
    """Build the network with a nonzero last layer, as after some training."""
    torch.manual_seed(0)
    made = DenoisingUNet(
        1,
        PREDICTORS,
        dims=2,
        network=UNetOptions(base=case.base, multipliers=(1, 2, 3, 4), blocks=2),
    )
    nn.init.normal_(made.unet.head.conv.weight, std=0.02)
    return made.to(device)


@contextlib.contextmanager
def precision(device: torch.device, kind: str) -> Iterator[None]:
    """Context manager for eager "fp32" or "tf32", or "bf16" by autocast; restores the global flags."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind != "fp32"
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=kind == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def training(model: DenoisingUNet, case: Case, device: torch.device, kind: str, *, fused: bool) -> Callable[[], None]:
    """Return a function that runs one training step of an EDM."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
    shape = (case.train_batch, 1, case.train_edge, case.train_edge)
    clean, noise = 0.5 * torch.randn(shape, device=device), torch.randn(shape, device=device)
    predictors = torch.randn((shape[0], PREDICTORS, *shape[2:]), device=device)
    sigma = torch.exp(torch.linspace(-3.6, 1.2, case.train_batch, device=device))
    wanted = PRECONDITIONING.target(clean, noise, sigma)
    scaled = expand(PRECONDITIONING.coefficients(sigma).into, clean) * (clean + expand(sigma, clean) * noise)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with precision(device, kind):
            loss = (model(scaled, predictors, noise_label(sigma)).float() - wanted).square().mean()
        loss.backward()
        optimiser.step()

    return step


def sampling(function: Callable[..., Tensor], case: Case, device: torch.device, kind: str) -> Callable[[], Tensor]:
    """Return a function that samples all members of one field."""
    noise = torch.randn((case.members, 1, case.sample_edge, case.sample_edge), device=device)
    predictors = torch.randn((1, PREDICTORS, case.sample_edge, case.sample_edge), device=device)
    predictors = predictors.expand(case.members, -1, -1, -1).contiguous()
    sigmas = log_snr(case.steps, smallest=0.02)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return PRECONDITIONING.denoise(lambda scaled, label: function(scaled, predictors, label), x, sigma)

    @torch.no_grad()
    def sample() -> Tensor:
        with precision(device, kind):
            return DPMSolver2M()(denoiser, noise, sigmas)

    return sample


def seconds_of(ways: Mapping[str, Callable[[], object]], device: torch.device, rounds: int) -> Seconds:
    """Return the seconds of each method in each round, with device synchronisation; the first call is not counted."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    taken: Seconds = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            wait()
            begin = time.perf_counter()
            way()
            wait()
            if turn:
                taken[name].append(time.perf_counter() - begin)
    return taken


def ratio(taken: Seconds, peer: str) -> float:
    """Return the median over rounds of the seconds of `peer` over ours."""
    return float(np.median(np.divide(taken[peer], taken["ours"])))


def matmul_rate(device: torch.device, edge: int) -> float:
    """Return the floating point operations per second of the fastest of some square bf16 matrix products."""
    a, b = (torch.randn((edge, edge), device=device, dtype=torch.bfloat16) for _ in range(2))
    taken = seconds_of({"product": lambda: a @ b}, device, 20)
    return 2 * edge**3 / min(taken["product"])


def report(title: str, taken: Seconds) -> None:
    print(f"\n{title}")
    for name, values in taken.items():
        print(f"  {name:12}{1e3 * float(np.median(values)):10.2f} ms")


def rain(size: str, device: torch.device, options: Mapping[str, str]) -> dict[str, float]:
    """Return the figures of the 2-D network."""
    case = SIZES[size]
    plain = network(case, device)
    step = training(copy.deepcopy(plain), case, device, "fp32", fused=False)
    with FlopCounterMode(display=False) as counted:
        step()
    eager = {f"eager {kind}": kind for kind in ("fp32", "tf32", "bf16")}
    ways: dict[str, Callable[[], object]] = {
        name: training(copy.deepcopy(plain), case, device, kind, fused=False) for name, kind in eager.items()
    }
    ways["ours"] = training(
        tuned(plain, device, torch.channels_last), case, device, "bf16", fused=device.type == "cuda"
    )
    trained = seconds_of(ways, device, case.rounds)
    report(f"training step, {case.train_edge} × {case.train_edge}, batch {case.train_batch}", trained)
    plain.requires_grad_(False).eval()
    samplings = {name: sampling(plain, case, device, kind) for name, kind in eager.items()}
    samplings["ours"] = sampling(CUDAGraphed(tuned(plain, device, torch.channels_last)), case, device, "bf16")
    sampled = seconds_of(samplings, device, case.rounds)
    report(f"{case.members} members of {case.sample_edge} × {case.sample_edge}, {case.steps} steps", sampled)
    rate = counted.get_total_flops() / float(np.median(trained["ours"]))
    best = matmul_rate(device, 8192 if device.type == "cuda" else 64)
    print(
        f"\n{rate / 1e12:.3g} of {best / 1e12:.3g} TFLOP/s; {sum(p.numel() for p in plain.parameters()):,} parameters"
    )
    return {
        "train_vs_eager_bf16": ratio(trained, "eager bf16"),
        "sample_vs_eager_bf16": ratio(sampled, "eager bf16"),
        "roofline_share": rate / best,
    }


def radiodiff(size: str, device: torch.device, options: Mapping[str, str]) -> dict[str, float]:
    """Return the figures of the network on volumes."""
    folder = Path(options.get("folder") or f"runs/gpu-radiodiff-{size}")
    best = functools.partial(matmul_rate, device, 8192 if device.type == "cuda" else 64)
    return measure_volumes(CASES[size], device, seconds_of, best, folder, float(options.get("seconds", 400)))


PARTS: dict[str, Callable[[str, torch.device, Mapping[str, str]], dict[str, float]]] = {
    "rain": rain,
    "radiodiff": radiodiff,
}


def figures_of(parts: tuple[str, ...], options: Mapping[str, str], quick: bool) -> dict[str, float | None]:
    """Return the figures by the keys of targets.yaml; null without a GPU, and for parts that are not selected."""
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    there = torch.cuda.is_available()
    device = torch.device("cuda" if there else "cpu")
    print(torch.cuda.get_device_name(device) if there else "no GPU: a small network on the CPU, and nothing to compare")
    for part in parts or tuple(PARTS):
        found = PARTS[part]("tiny" if not there else "quick" if quick else "full", device, options)
        if there:
            figures.update(found)
    return figures


def run() -> None:
    """Run the parts on the command line, and judge them if the harness can be imported."""
    wanted = tuple(word for word in sys.argv[1:] if not word.startswith("-"))
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        sys.exit(f"part {unknown[0]!r} unknown (known: {', '.join(PARTS)})")
    settings = [word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if word.startswith(OPTIONS)]
    arguments = [word for word in sys.argv[1:] if word.startswith("-") and not word.startswith(OPTIONS)]
    measure = functools.partial(figures_of, wanted, dict(settings))
    try:
        from harness import main
    except ModuleNotFoundError as missing:
        print(f"{missing.name} is not installed: figures without goals")
        print(json.dumps({"benchmark": "gpu", "figures": measure("--quick" in arguments)}))
        return
    sys.argv[1:] = arguments
    main("gpu", measure)


if __name__ == "__main__":
    run()

"""The network of a denoiser, its embedding, and what records it for a GPU."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from geoml.diffusion.cuda_graph import CUDAGraphed
from geoml.diffusion.network import DenoisingUNet
from geoml.nn.embedding import ScalarEmbedding
from geoml.nn.options import UNetOptions


def network(dims: int) -> DenoisingUNet:
    torch.manual_seed(0)
    made = DenoisingUNet(1, 2, dims=dims, network=UNetOptions(base=8, multipliers=(1, 2)))
    torch.nn.init.normal_(made.unet.head.conv.weight)
    return made


@pytest.mark.parametrize("dims", [2, 3])
def test_the_network_hears_noise_level_and_predictors(dims: int) -> None:
    net, space = network(dims), (6, 5, 4)[:dims]
    x, predictors, label = torch.randn(2, 1, *space), torch.randn(2, 2, *space), torch.tensor([-1.0, 1.0])
    out = net(x, predictors, label)
    assert out.shape == x.shape
    assert not torch.allclose(out, net(x, predictors, -label))
    assert not torch.allclose(out, net(x, -predictors, label))


def test_embeddings_tell_levels_apart_and_change_smoothly() -> None:
    torch.manual_seed(0)
    vectors = ScalarEmbedding(32)(torch.linspace(-2, 2, 401))
    step = vectors.diff(dim=0).norm(dim=1)
    apart = (vectors[0] - vectors[-1]).norm()
    assert float(step.min()) > 0
    assert float(step.max()) < float(apart) / 2


def test_away_from_cuda_the_function_is_simply_called() -> None:
    net = network(2)
    graphed = CUDAGraphed(net)
    given = torch.randn(1, 1, 4, 4), torch.randn(1, 2, 4, 4), torch.zeros(1)
    assert torch.equal(graphed(*given), net(*given))
    assert graphed(*given).requires_grad


def test_a_copy_calls_the_copied_function() -> None:
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Linear(1, 1)
            self.graphed = CUDAGraphed(self.network)

    holder = Holder()
    twin = copy.deepcopy(holder)
    assert twin.graphed.function is twin.network
    assert twin.network is not holder.network
    assert set(twin.state_dict()) == {"network.weight", "network.bias"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mixed", [False, True])
def test_a_graph_gives_what_the_function_gives(mixed: bool) -> None:
    net = network(2).cuda()
    graphed = CUDAGraphed(net)

    def given(batch: int) -> tuple[Tensor, ...]:
        return torch.randn(batch, 1, 8, 8).cuda(), torch.randn(batch, 2, 8, 8).cuda(), torch.randn(batch).cuda()

    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=mixed):
        for batch in (2, 3, 2, 2):
            fields = given(batch)
            torch.testing.assert_close(graphed(*fields), net(*fields), rtol=1e-2, atol=1e-3)
    assert graphed.usable


def test_torch_and_numpy_suffice() -> None:
    """On a bare GPU machine nothing else is installed; `benchmarks/gpu.py` runs there."""
    code = (
        "import sys\n"
        "for name in ('jaxtyping', 'yaml', 'rich', 'hydra', 'xarray', 'numba', 'scipy', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "import geoml.diffusion.network, geoml.diffusion.samplers, geoml.diffusion.spacing\n"
        "import geoml.diffusion.levels, geoml.diffusion.preconditioning, geoml.diffusion.cuda_graph"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

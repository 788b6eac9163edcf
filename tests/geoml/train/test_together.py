"""Training by several processes: what one process would do on the whole."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from geoml.data.loader import BlockLoader
from geoml.data.shuffling import BlockOrder
from geoml.models.noise import sample_noise
from geoml.train import checkpoint

sys.path.insert(0, str(Path(__file__).parent))
import together

STEPS = 20
#: 45 samples in batches of 8, two of them a step: in 20 steps 8 epochs begin.
SEEN = 2 * STEPS * together.BATCH - 7 * 3


def by_two(*words: str | Path) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, together.__file__, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    together.run(tmp_path / "one", SEEN)
    done = by_two(tmp_path / "two", SEEN)
    assert done.returncode == 0, done.stderr
    one, two = (checkpoint.latest(tmp_path / name) for name in ("one", "two"))
    assert one is not None
    assert two is not None
    assert one.name == two.name
    states = [checkpoint.load_resume(path) for path in (one, two)]
    assert [state["step"] for state in states] == [STEPS, STEPS]
    assert states[0]["loader"] == states[1]["loader"]
    np.testing.assert_allclose(states[0]["validation"], states[1]["validation"], rtol=1e-9)
    for name in ("model.safetensors", "ema.safetensors"):
        ours, theirs = load_file(one / name), load_file(two / name)
        for tensor in ours:
            assert ours[tensor].dtype == torch.float64
            torch.testing.assert_close(ours[tensor], theirs[tensor], rtol=0, atol=1e-6)
    # What two processes began, one goes on with.
    together.run(tmp_path / "two", SEEN + 16)
    together.run(tmp_path / "one", SEEN + 16)
    ours, theirs = (load_file(checkpoint.latest(tmp_path / name) / "model.safetensors") for name in ("one", "two"))
    for tensor in ours:
        torch.testing.assert_close(ours[tensor], theirs[tensor], rtol=0, atol=1e-6)


def test_parts_of_the_ranks_make_up_the_batches_of_one() -> None:
    options = {"batch_size": together.BATCH, "seed": 3}
    whole = list(BlockLoader([together.source()], **options))
    ranks = [list(BlockLoader([together.source()], rank=rank, world_size=3, **options)) for rank in range(3)]
    assert {len(parts) for parts in ranks} == {len(whole)}
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert sorted(batch.ids) == sorted(i for part in parts for i in part.ids)
        for part in parts:
            rows = [batch.ids.index(i) for i in part.ids]
            assert torch.equal(batch.condition[rows], part.condition)
            assert torch.equal(batch.mask[rows], part.mask)


def test_workers_of_a_rank_share_its_part() -> None:
    options = {"batch_size": together.BATCH, "rank": 1, "world_size": 2}
    alone = list(BlockLoader([together.source()], **options))
    shared = list(BlockLoader([together.source()], workers=2, **options))
    assert [batch.ids for batch in alone] == [batch.ids for batch in shared]
    assert all(torch.equal(a.condition, b.condition) for a, b in zip(alone, shared, strict=True))


def test_shares_of_a_batch_are_nearly_even() -> None:
    order = BlockOrder(np.full(600, 24), batch_size=32, resident=64, key=(0, 0))
    for size in (2, 4, 8):
        largest = [max(Counter(position % size for position in step.positions.tolist()).values()) for step in order]
        assert np.mean(largest[:-20]) <= 1.15 * 32 / size


def test_noise_of_a_sample_is_its_own() -> None:
    seeded = torch.Generator().manual_seed(5)
    whole = sample_noise((3, 4), [1, 2, 3], seeded)
    assert torch.equal(whole[1:], sample_noise((3, 4), [2, 3], seeded))
    assert not torch.equal(whole, sample_noise((3, 4), [1, 2, 3], seeded, draw="level"))
    many = sample_noise((50, 50), range(40), seeded, uniform=True)
    assert abs(float(many.mean()) - 0.5) < 0.005
    assert 0 <= float(many.min()) <= float(many.max()) < 1

"""Stores behind a URL, on an S3 server of this machine: written, resumed, read and trained from as folders are."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "train"))
import test_store as stores
import toy
from object_store import Server, s3_server, slow

from geoml.data.blocks import FieldSource
from geoml.data.fields import Batch
from geoml.data.loader import BlockLoader
from geoml.data.location import location
from geoml.data.patches import PatchSpec
from geoml.data.store import open_store, verify_store
from geoml.errors import DataError, UserError
from geoml.models.base import Channels
from geoml.models.registry import build
from geoml.train import Trainer, checkpoint, train

URL = "s3://rain-store/a.zarr"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def store(server: Server) -> Iterator[str]:
    server.fault = None
    stores.make_store(location(URL))
    yield URL
    server.fault = None
    location(URL).fs.rm("rain-store/a.zarr", recursive=True)


def test_the_same_bytes_as_in_a_folder(store: str, tmp_path: Path) -> None:
    stores.make_store(tmp_path / "a.zarr")
    there, here = json.loads((location(store) / "manifest.json").read_text()), stores.read_manifest(tmp_path / "a.zarr")
    assert there == here
    assert verify_store(store) == len(here["files"])
    assert not (location(store) / "journal").exists()
    local, remote = FieldSource(tmp_path / "a.zarr").read(3, 20), FieldSource(store).read(3, 20)
    assert all(np.array_equal(local[role], remote[role], equal_nan=True) for role in local)
    assert open_store(store, "target").rate.shape == (26, 50, 50)
    with pytest.raises(UserError, match="other variables, samples or settings"):
        stores.begin(location(store), stores.make_groups(), packing={})


def test_preparation_resumes(server: Server) -> None:
    server.fault = None
    path, groups = location("s3://rain-store/begun.zarr"), stores.make_groups()
    with stores.begin(path, groups) as writer:
        stores.write_slabs(writer, groups, [0, 16])
    with pytest.raises(DataError, match=f"begun.zarr is not complete.*{stores.COMMAND}"):
        open_store(path)
    path.fs.rm((path / "condition/tp/c/2/0/0").path)  # noted as written, and lost
    with stores.begin(path, groups) as writer:
        assert writer.missing() == [8, 16, 24]
        stores.write_slabs(writer, groups, writer.missing())
        writer.finish()
    assert verify_store(path) > 10


class ToRates:
    def forward(self, batch: Batch) -> Batch:
        return batch

    def to_dict(self) -> dict[str, str]:
        return {"kind": "none"}


def test_training_on_it_stops_and_resumes(store: str, tmp_path: Path) -> None:
    channels = Channels(("tp",), ("rate",), first_guess=(("rate", "tp"),))

    def go(folder: Path, samples: int) -> Path:
        torch.manual_seed(0)
        loader = BlockLoader([FieldSource(store)], batch_size=4, channels=channels, patch=PatchSpec(20))
        config = Trainer(samples=samples, learning_rate=1e-3, warmup=0, floor=1, device="cpu", ema_half_life=0)
        return train(build(toy.DROPOUT_UNET, channels, 2), ToRates(), loader, config=config, folder=folder).checkpoint

    whole, begun = go(tmp_path / "whole", 40), go(tmp_path / "parts", 20)
    assert begun.name == checkpoint.name_of(20)
    assert (whole / "model.safetensors").read_bytes() == (go(tmp_path / "parts", 40) / "model.safetensors").read_bytes()


@pytest.mark.fault("slow S3 server", "the right values, later")
def test_a_slow_server_gives_the_right_result(store: str, server: Server) -> None:
    """A slow server: the right values, later."""
    expected = FieldSource(store).read(0, 8)
    server.fault = slow(0.05)
    begun = time.monotonic()
    read = FieldSource(store).read(0, 8)
    assert time.monotonic() - begun > 0.05
    assert read.keys() == expected.keys() >= {"condition", "target"}
    assert all(np.array_equal(read[role], expected[role], equal_nan=True) for role in read)


def test_urls_of_no_known_kind_are_refused() -> None:
    with pytest.raises(UserError, match="abc://x cannot be opened"):
        location("abc://x")

"""Checkpoints: found whole or refused, with the file named."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from geoml.data.transforms import Transforms
from geoml.errors import DataError, UserError
from geoml.models.base import Channels
from geoml.models.predictor import load_predictor
from geoml.models.registry import build
from geoml.runs.files import sha256
from geoml.testing import toy_batch
from geoml.train import Trainer, checkpoint, train

sys.path.insert(0, str(Path(__file__).parent))
from toy import CHANNELS, MemoryLoader, toy_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's checkpoints, at 8 and at 16 samples."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoints"
    transforms = Transforms.from_config({"default": {"kind": "zscore"}}, CHANNELS).fit(MemoryLoader())
    config = Trainer(samples=16, checkpoint_every=8, device="cpu")
    train(toy_model(), transforms, MemoryLoader(), config=config, folder=folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy that can be broken."""
    return Path(shutil.copytree(trained, tmp_path / "checkpoints"))


def newest(folder: Path) -> Path:
    return folder / checkpoint.name_of(16)


def rehash(path: Path) -> None:
    """Hashes that fit whatever the files hold now, as an attacker would write them."""
    names = sorted(p.name for p in path.iterdir() if p.name != "SHA256SUMS")
    (path / "SHA256SUMS").write_text("".join(f"{sha256(path / name)}  {name}\n" for name in names))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


FILES = ["model.safetensors", "ema.safetensors", "config.yaml", "transform.json", "resume.pt"]


def test_a_checkpoint_is_five_files_and_their_hashes(trained: Path) -> None:
    assert sorted(path.name for path in newest(trained).iterdir()) == sorted([*FILES, "SHA256SUMS"])
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=newest(trained), check=True)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
@pytest.mark.fault("checkpoint with a flipped bit", "refused by file; training resumes from the checkpoint before it")
def test_damage_is_found_and_the_checkpoint_before_it_taken(
    folder: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(newest(folder) / name)
    with pytest.raises(DataError, match=name):
        checkpoint.verify(newest(folder))
    with pytest.raises(DataError, match=name):
        load_predictor(newest(folder), device="cpu")
    with caplog.at_level(logging.WARNING):
        assert checkpoint.latest(folder) == folder / checkpoint.name_of(8)
    assert name in caplog.text


def test_hashes_that_are_missing_or_short(folder: Path) -> None:
    sums = newest(folder) / "SHA256SUMS"
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="does not list"):
        checkpoint.verify(newest(folder))
    sums.unlink()
    with pytest.raises(DataError, match="SHA256SUMS is missing"):
        checkpoint.verify(newest(folder))


@pytest.mark.fault("every checkpoint damaged", "refused: starting anew has to be asked for")
def test_all_broken_is_not_the_same_as_none(folder: Path, tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") is None
    for path in folder.glob("[0-9]*"):
        flip_a_bit(path / "resume.pt")
    with pytest.raises(DataError, match="none of the 2 checkpoints"):
        checkpoint.latest(folder)


@pytest.mark.fault("checkpoint with a pickle payload", "refused, nothing is run")
def test_a_pickle_that_runs_code_is_refused(folder: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    dump = pickle.dumps(Payload(), protocol=2)
    for save in (lambda path: torch.save(Payload(), path), lambda path: path.write_bytes(dump)):
        save(newest(folder) / "resume.pt")  # type: ignore[no-untyped-call]
        rehash(newest(folder))
        checkpoint.verify(newest(folder))
        with pytest.raises(DataError, match=r"resume\.pt"):
            checkpoint.load_resume(newest(folder))
        assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("target", ["os.mkdir", "subprocess.Popen"])
@pytest.mark.fault("hostile _target_", "refused, nothing is built")
def test_a_config_that_names_foreign_code_is_refused(folder: Path, target: str) -> None:
    config = newest(folder) / "config.yaml"
    config.write_text(config.read_text().replace("geoml.models.unet.UNetRegression", target))
    rehash(newest(folder))
    with pytest.raises(UserError, match="allowed"):
        load_predictor(newest(folder), device="cpu")


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "!!python/object/apply:os.mkdir ['x']"])
def test_a_config_that_is_none_is_refused(folder: Path, text: str) -> None:
    (newest(folder) / "config.yaml").write_text(text)
    rehash(newest(folder))
    with pytest.raises(DataError, match=r"config\.yaml"):
        load_predictor(newest(folder), device="cpu")


@pytest.mark.fault("checkpoint of another architecture", "refused, with the first tensor that differs")
def test_another_architecture_names_the_first_tensor(folder: Path) -> None:
    config = newest(folder) / "config.yaml"
    config.write_text(config.read_text().replace("base: 4", "base: 8"))
    rehash(newest(folder))
    with pytest.raises(UserError, match=r"'network\.stem\.conv\.weight' is \(4, 1, 3, 3\) there, \(8, 1, 3, 3\) in"):
        load_predictor(newest(folder), device="cpu")
    bigger = build({"_target_": "geoml.models.unet.UNetRegression", "base": 4, "multipliers": [1, 2, 2]}, CHANNELS, 2)
    with pytest.raises(UserError, match="another architecture"):
        checkpoint.load_weights(bigger, newest(folder) / "model.safetensors")


def test_training_refuses_to_go_on_from_another_architecture(folder: Path) -> None:
    other = build({"_target_": "geoml.models.unet.UNetRegression", "base": 8}, CHANNELS, 2)
    transforms = Transforms.from_config({"default": {"kind": "zscore"}}, CHANNELS).fit(MemoryLoader())
    with pytest.raises(UserError, match="another architecture"):
        train(other, transforms, MemoryLoader(), config=Trainer(samples=32, device="cpu"), folder=folder)


def test_what_cannot_be_rebuilt_or_read_back_is_not_written(tmp_path: Path) -> None:
    model = toy_model()
    transforms = Transforms.from_config({"default": {"kind": "identity"}}, CHANNELS)
    with pytest.raises(TypeError, match="plain values"):
        checkpoint.save(tmp_path / "0", model=model, ema=model, transforms=transforms, resume={"x": object()})
    model.config = None
    with pytest.raises(TypeError, match="registry"):
        checkpoint.save(tmp_path / "0", model=model, ema=model, transforms=transforms, resume={})
    assert not list(tmp_path.iterdir())


def test_a_broken_checkpoint_is_written_anew(folder: Path) -> None:
    flip_a_bit(newest(folder) / "resume.pt")
    transforms = Transforms.load(newest(folder) / "transform.json")
    train(toy_model(), transforms, MemoryLoader(), config=Trainer(samples=16, device="cpu"), folder=folder)
    checkpoint.verify(newest(folder))
    assert checkpoint.load_resume(newest(folder))["samples"] == 16


# -- prediction


def test_a_predictor_gives_physical_fields_whatever_the_cut(trained: Path) -> None:
    predictor = load_predictor(newest(trained), device="cpu")
    batch = toy_batch(CHANNELS, batch=3, factor=2.5)
    fields, clipped = predictor.predict(batch, 2, seed=1)
    assert fields.shape == (3, 2, 1, *batch.target_grid.shape)
    assert 0 <= clipped <= 1
    assert not fields.requires_grad
    one = batch.map(condition=batch.condition[1:2], target=None, mask=None, ids=batch.ids[1:2])
    torch.testing.assert_close(predictor.predict(one, 2, seed=1)[0], fields[1:2], rtol=1e-4, atol=1e-5)


def test_half_precision_predicts_nearly_the_same_and_is_refused_at_once_where_it_cannot(trained: Path) -> None:
    batch = toy_batch(CHANNELS, batch=2, factor=2.5)
    single = load_predictor(newest(trained), device="cpu").predict(batch, seed=1)[0]
    half = load_predictor(newest(trained), device="cpu", precision="bf16").predict(batch, seed=1)[0]
    assert half.dtype == single.dtype
    assert not torch.equal(half, single)
    assert (half - single).square().mean() < 1e-3 * single.square().mean()
    for precision, message in (("half", "precision 'half' unknown"), ("fp16", "needs a CUDA device")):
        with pytest.raises(UserError, match=message):
            load_predictor(newest(trained), device="cpu", precision=precision)  # type: ignore[arg-type]


def test_a_run_stands_for_its_newest_or_best_checkpoint(folder: Path, tmp_path: Path) -> None:
    batch = toy_batch(CHANNELS, batch=1, factor=1.0)

    def values(path: Path) -> torch.Tensor:
        return load_predictor(path, device="cpu").predict(batch)[0]

    assert torch.equal(values(folder), values(newest(folder)))
    checkpoint.mark_best(folder, folder / checkpoint.name_of(8), 0.5)
    assert torch.equal(values(folder), values(folder / checkpoint.name_of(8)))
    assert not torch.equal(values(folder), values(newest(folder)))
    with pytest.raises(DataError, match="contains none"):
        load_predictor(tmp_path / "nothing")


def test_training_goes_on_after_predicting_in_the_same_process(trained: Path, tmp_path: Path) -> None:
    """Regridding matrices are kept between uses: made while predicting, they have to serve gradients too."""
    channels_batch = toy_batch(CHANNELS, batch=2, factor=2.5, cells=(10, 6))
    load_predictor(newest(trained), device="cpu").predict(channels_batch)
    model = build("resnet", CHANNELS, 2)
    model.loss(channels_batch).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_is_exported_predicts_and_cannot_be_gone_on_from(folder: Path, tmp_path: Path) -> None:
    weights = checkpoint.export(newest(folder), tmp_path / "weights")
    assert sorted(path.name for path in weights.iterdir()) == [
        "SHA256SUMS", "config.yaml", "ema.safetensors", "transform.json"
    ]  # fmt: skip
    whole, light = load_predictor(newest(folder), device="cpu"), load_predictor(weights, device="cpu")
    for a, b in zip(whole.model.parameters(), light.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(DataError, match=r"resume\.pt was left out"):
        checkpoint.load_resume(weights)
    truncate(weights / "ema.safetensors")
    with pytest.raises(DataError, match=r"ema\.safetensors"):
        checkpoint.verify(weights)


def test_a_training_starts_from_the_averaged_weights_of_another(folder: Path) -> None:
    fresh = toy_model()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    found = checkpoint.start_from(fresh, folder)
    assert found == newest(folder)
    wanted = load_predictor(folder).model.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in fresh.state_dict().items())
    assert all(parameter.requires_grad for parameter in fresh.parameters())


def test_a_training_starts_from_no_model_of_other_channels(folder: Path, tmp_path: Path) -> None:
    config = checkpoint.load_config(newest(folder))
    names = {**config["channels"], "condition": ["other"]}
    other = build(config["model"], Channels(**{key: tuple(names[key]) for key in names}), config["dims"])
    with pytest.raises(UserError, match=r"was trained with condition .*; this training has other"):
        checkpoint.start_from(other, folder)
    with pytest.raises(DataError, match="is not a checkpoint and contains none"):
        checkpoint.start_from(toy_model(), tmp_path / "nothing")

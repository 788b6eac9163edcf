"""Checkpoints: folders of safe formats, written atomically and verified by hash before reading."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geoml import __version__
from geoml.errors import DataError, Diverged, UserError
from geoml.models.base import Channels, Model
from geoml.runs.files import atomic_path, read_json, sha256, write_json
from geoml.runs.stored_config import interpret, read_config

__all__ = [
    "best",
    "chosen",
    "found",
    "latest",
    "load_config",
    "load_model",
    "load_resume",
    "load_weights",
    "mark_best",
    "name_of",
    "prune",
    "save",
    "shapes_in",
    "start_from",
    "verify",
]

logger = logging.getLogger(__name__)

SUMS, BEST = "SHA256SUMS", "best.json"
#: Files of a checkpoint for prediction, and files for resuming only.
PREDICTS = ("ema.safetensors", "config.yaml", "transform.json")
RESUMES = ("model.safetensors", "resume.pt")


def name_of(samples: int) -> str:
    """The folder name of the checkpoint after a number of samples; names sort by it."""
    return f"{samples:012d}"


def save(
    folder: Path,
    *,
    model: Model,
    ema: Model,
    transforms: Any,
    resume: Mapping[str, Any],
    trainer: Mapping[str, Any] | None = None,
) -> Path:
    """Write `model.safetensors, ema.safetensors, config.yaml, transform.json, resume.pt, SHA256SUMS` to `folder`.

    `resume` holds tensors and plain values only. An existing valid checkpoint is kept.
    """
    if model.config is None:
        raise TypeError("only models built by geoml.models.registry.build can be saved; others could not be rebuilt")
    if folder.is_dir():
        try:
            verify(folder)
            return folder
        except DataError:
            logger.warning("%s is damaged; writing it again", folder)
    config = {
        "geoml": __version__,
        "model": dict(model.config),
        "channels": json.loads(json.dumps(asdict(model.channels))),
        "dims": model.dims,
        "trainer": dict(trainer or {}),
    }
    with atomic_path(folder) as partial:
        partial.mkdir()
        save_file(_tensors(model), partial / "model.safetensors")
        save_file(_tensors(ema), partial / "ema.safetensors")
        (partial / "config.yaml").write_text(
            yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False), encoding="utf-8"
        )
        (partial / "transform.json").write_text(
            json.dumps(transforms.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        with open(partial / "resume.pt", "wb") as stream:  # torch's writer does not report why it fails
            torch.save(_safe(dict(resume)), stream)
        _write_sums(partial)
    return folder


def export(checkpoint: Path, folder: Path) -> Path:
    """Write the part of a checkpoint that predicts to `folder`: averaged weights, configuration, transforms, hashes.

    It is much smaller, but training cannot resume from it. An existing folder is replaced.
    """
    verify(checkpoint)
    shutil.rmtree(folder, ignore_errors=True)
    with atomic_path(folder) as partial:
        partial.mkdir()
        for name in PREDICTS:
            shutil.copyfile(checkpoint / name, partial / name)
        _write_sums(partial)
    return folder


def _write_sums(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names), encoding="utf-8")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def _safe(state: Any) -> Any:
    """Convert numpy values of `state` to plain values; all objects except tensors raise `TypeError`."""
    if isinstance(state, dict):
        return {_safe(key): _safe(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_safe(item) for item in state)
    if isinstance(state, np.ndarray | np.generic):
        return state.tolist()
    if isinstance(state, Tensor | int | float | str | bytes) or state is None:
        return state
    raise TypeError(f"a checkpoint cannot hold {type(state).__name__}; states must be tensors and plain values")


def verify(folder: Path) -> None:
    """Compare every file with its hash; `DataError` names the first that is missing or differs.

    The result of `export` is valid, too: it does not list the files for resuming.
    """
    sums = folder / SUMS
    if not sums.is_file():
        raise DataError(f"{folder} is not a complete checkpoint: {SUMS} is missing")
    lines = [line.split("  ", 1) for line in sums.read_text(errors="replace").splitlines() if "  " in line]
    listed = {name: digest for digest, name in lines}
    exported = not any(name in listed or (folder / name).exists() for name in RESUMES)
    for name in PREDICTS if exported else (*PREDICTS, *RESUMES):
        path = folder / name
        if name not in listed:
            raise DataError(f"{sums} does not list {name}; the checkpoint is incomplete or was not written by geoml")
        if not path.is_file():
            raise DataError(f"{path} is missing; use another checkpoint")
        if sha256(path) != listed[name]:
            raise DataError(f"{path} is corrupt: its SHA-256 is not the one in {SUMS}; use another checkpoint")


def found(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first, valid or not, without temporary ones."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def latest(folder: Path) -> Path | None:
    """The newest valid checkpoint in a run's `checkpoints` folder, None if the folder has none.

    Damaged checkpoints are skipped with a warning. If all are damaged, `DataError` is raised rather than starting over
    silently.
    """
    candidates = found(Path(folder))
    for path in reversed(candidates):
        try:
            verify(path)
        except DataError as error:
            logger.warning("skipping a damaged checkpoint: %s", error)
        else:
            return path
    if candidates:
        raise DataError(f"none of the {len(candidates)} checkpoints in {folder} is valid; delete them to start over")
    return None


def mark_best(folder: Path, checkpoint: Path, validation: float) -> None:
    """Record the checkpoint with the smallest validation loss."""
    write_json(Path(folder) / BEST, {"checkpoint": checkpoint.name, "validation": validation})


def best(folder: Path) -> Path | None:
    """The checkpoint with the smallest validation loss, None if none is recorded."""
    path = Path(folder) / BEST
    if not path.exists():
        return None
    record = read_json(path)
    name = record.get("checkpoint") if isinstance(record, dict) else None
    if not isinstance(name, str) or not name.isdecimal():  # a name in this folder, never a path out of it
        raise DataError(f"{path} names no checkpoint: expected digits as in {name_of(4000)}, not {name!r}")
    return Path(folder) / name


def chosen(path: Path) -> Path:
    """Find the checkpoint at a path: itself, or the best (else newest) of a run or its `checkpoints` folder.

    Raises `DataError` if there is none.
    """
    path = Path(path)
    if (path / SUMS).exists():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    picked = (best(folder) or latest(folder)) if folder.is_dir() else None
    if picked is None:
        raise DataError(f"{path} is not a checkpoint and contains none")
    return picked


def start_from(model: Model, path: Path) -> Path:
    """Load the averaged weights of a checkpoint into a model for fine-tuning; returns the checkpoint.

    Raises `UserError` if it was trained on other channels or has another architecture.
    """
    folder = chosen(path)
    verify(folder)
    names, mine = dict(load_config(folder)["channels"]), json.loads(json.dumps(asdict(model.channels)))
    for role in ("target",) if getattr(model, "any_channels", False) else ("condition", "target", "static"):
        if list(names[role]) != mine[role]:
            raise UserError(
                f"{folder} was trained with {role} {', '.join(names[role]) or 'nothing'}; this training has "
                f"{', '.join(mine[role]) or 'nothing'}. Start from a model of the same channels, or from none"
            )
    load_weights(model, folder / "ema.safetensors")
    return folder


def prune(folder: Path, *, keep: int) -> None:
    """Remove all checkpoints except the `keep` newest and the best, and temporary folders of killed runs."""
    kept = {*found(folder)[-keep:], best(folder)} if keep > 0 else {*found(folder)}
    for path in found(folder):
        if path not in kept:
            shutil.rmtree(path)
    for path in folder.glob(".[0-9]*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def load_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's `config.yaml`: model, channels, dims, trainer."""
    path = folder / "config.yaml"
    config = read_config(path)
    for key, kind in (("model", dict), ("channels", dict), ("dims", int)):
        if not isinstance(config.get(key), kind):
            raise DataError(f"{path} has no {key}; it is not the configuration of a checkpoint")
    return config


def load_model(folder: Path, *, allow: Sequence[str] = ()) -> Model:
    """Load the model of a checkpoint with its averaged weights; its class must be in geoml's packages or in `allow`.

    The configuration is checked against the shapes in the weights before memory is allocated. Errors: `DataError`
    for a configuration that describes no model or weights that are broken, `UserError` for a class that is not allowed
    and for another architecture, `Diverged` for weights that are not finite.
    """
    config, weights = load_config(folder), folder / "ema.safetensors"
    place = folder / "config.yaml"
    with torch.device("meta"):
        sketch = interpret(place, lambda: _built(config, allow), "a model")
    _require_shapes(weights, shapes_in(weights), {name: tuple(x.shape) for name, x in sketch.state_dict().items()})
    model = _built(config, allow)
    load_weights(model, weights)
    return model


def _built(config: Mapping[str, Any], allow: Sequence[str]) -> Model:
    from geoml.models.registry import build

    names = dict(config["channels"])
    guess = tuple((str(a), str(b)) for a, b in names.pop("first_guess", ()))
    channels = Channels(**{str(key): tuple(map(str, value)) for key, value in names.items()}, first_guess=guess)
    return build(config["model"], channels, config["dims"], allow=allow)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` from a safetensors file; `UserError` names the first tensor that does not match.

    Weights that are not finite raise `Diverged`, which names the first.
    """
    _require_shapes(path, shapes_in(path), {name: tuple(x.shape) for name, x in model.state_dict().items()})
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Diverged(
                f"{path}: {name!r} holds values that are not finite; this training diverged, use another checkpoint"
            )
    model.load_state_dict(tensors)


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a safetensors file, from its header."""
    try:
        with safetensors.safe_open(path, framework="pt") as stored:
            return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} cannot be read as safetensors ({error})") from error


def _require_shapes(path: Path, stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        if name not in stored:
            raise UserError(f"{path} has another architecture: it lacks {name!r}, {shape}")
        if stored[name] != shape:
            raise UserError(f"{path} has another architecture: {name!r} is {stored[name]} there, {shape} in this model")
    for name in stored:
        if name not in expected:
            raise UserError(f"{path} has another architecture: this model has no {name!r}")


def load_resume(folder: Path) -> dict[str, Any]:
    """States of optimiser, loader and random numbers; only tensors and plain values are accepted."""
    path = folder / "resume.pt"
    if not path.exists():
        raise DataError(f"{folder} can predict but not be trained on: {path.name} was left out when it was exported")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} holds objects that could run code; it is refused") from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error

"""The folder that a command writes: configuration, environment, log, metrics and summary.

    config.yaml  environment.json  log.txt  metrics.jsonl  summary.json  checkpoints/  samples/

The same command finds its folder again and resumes; a folder of another configuration is refused with the key that
differs, unless that run wrote nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from geoml.errors import DataError, UserError
from geoml.models.moved import upgraded
from geoml.runs.files import atomic_path, read_json, write_json, writing
from geoml.runs.stored_config import read_config

__all__ = ["MetricsLog", "RunFolder", "config_hash", "jsonable", "launched_rank", "plain"]

#: Keys that do not change results; they may differ when a run is resumed.
VOLATILE = ("run",)


def launched_rank() -> int | None:
    """The rank of this process under `torchrun`, or None if it did not start several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
        return None
    return int(os.environ["RANK"])


def jsonable(value: Any) -> Any:
    """`value` in JSON types: numpy and torch scalars as numbers, non-finite numbers as None, paths as text.

    >>> jsonable({"loss": float("nan"), "shape": (2, 3)})
    {'loss': None, 'shape': [2, 3]}
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # arrays and scalars of numpy and torch
        return jsonable(value.tolist())
    return str(value)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration (a mapping or an OmegaConf node) as nested dicts and lists, interpolations resolved."""
    return {str(key): _plain(item) for key, item in config.items()}


def _plain(item: Any) -> Any:
    if isinstance(item, Mapping):
        return plain(item)
    if isinstance(item, Sequence) and not isinstance(item, str | bytes):
        return [_plain(part) for part in item]
    return item if isinstance(item, bool | int | float | str) or item is None else str(item)


def _without(config: Mapping[str, Any], dropped: Iterable[str]) -> dict[str, Any]:
    """A copy of nested dicts without the dotted keys in `dropped`."""
    copy: dict[str, Any] = json.loads(json.dumps(config))
    for key in dropped:
        *parents, last = key.split(".")
        node: Any = copy
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return copy


def config_hash(config: Any, *, ignore: Iterable[str] = VOLATILE) -> str:
    """A hash of a configuration as twelve hexadecimal digits.

    It does not depend on the order of keys or on the dotted keys in `ignore`.

    >>> config_hash({"a": 1, "b": [0.001]}) == config_hash({"b": [1e-3], "a": 1, "run": {"dir": "here"}})
    True
    """
    text = json.dumps(_without(plain(config), ignore), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with both values; "absent" if one side lacks the key."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(
                old.get(key, "absent"), new.get(key, "absent"), f"{prefix}.{key}" if prefix else key
            )
    elif old != new:
        yield prefix, old, new


class MetricsLog:
    """Rows of numbers in a JSON Lines file, each on disk before `append` returns.

    A row is an object. Training rows hold `samples`, the number of samples seen; a resumed run drops the rows that it
    will repeat. An incomplete last line is dropped on opening; an invalid line elsewhere raises `DataError`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.exists():
            content = self.path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                self._replace(whole)

    def append(self, row: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        """Add one row, given as a mapping, as keywords, or both; NaN and infinities are written as null."""
        line = json.dumps(jsonable({**(row or {}), **values}), allow_nan=False) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.path), open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line)

    def rows(self) -> list[dict[str, Any]]:
        """All rows, oldest first; empty if nothing was written yet."""
        if not self.path.exists():
            return []
        rows = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise DataError(f"{self.path}, line {number}: not a JSON object: {line[:60]!r}")
            rows.append(row)
        return rows

    def keep_until(self, samples: int) -> None:
        """Drop rows with more than this many `samples`; a resumed run writes them again."""
        rows = self.rows()
        kept = [row for row in rows if row.get("samples") is None or row["samples"] <= samples]
        if len(kept) < len(rows):
            self._replace("".join(json.dumps(row) + "\n" for row in kept).encode())

    def _replace(self, content: bytes) -> None:
        with atomic_path(self.path) as partial:
            partial.write_bytes(content)


class RunFolder:
    """A run folder on disk, created or resumed by `open`, read by `load`."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config
        #: True if `write_summary` was called through this object.
        self.summarised = False
        self._lock: BinaryIO | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        config: Any,
        *,
        resume: bool = True,
        ignore: Iterable[str] = VOLATILE,
    ) -> RunFolder:
        """The run folder at `path` for `config`: created, or resumed if the configuration is the same.

        Under `torchrun` only the first process writes. Raises `UserError` if the folder holds a run of another
        configuration, naming the keys that differ, or if another process is writing it. A run that stopped before it
        wrote anything is overwritten. `resume=False` deletes an older run first. Dotted keys in `ignore` may differ.
        """
        path, config = Path(path), plain(config)
        if launched_rank():
            return cls(path, config)
        known = path / "config.yaml"
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file; a run folder was expected")
        if path.is_dir() and not known.exists() and any(item.name != ".lock" for item in path.iterdir()):
            raise UserError(f"{path} is not empty and is not a run folder; choose another folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path} cannot be made ({error.strerror}); choose another folder") from error
        folder = cls(path, config)
        with writing(path / ".lock"):
            folder._take_lock()
        if known.exists() and not resume:
            folder._clear()
        if known.exists() and not folder._nothing_made():
            _refuse_other(path, _of_today(read_config(known)), config, tuple(ignore))
        else:
            _write_yaml(known, config)
        for name in ("checkpoints", "samples"):
            (path / name).mkdir(exist_ok=True)
        for name in ("log.txt", "metrics.jsonl"):
            (path / name).touch()
        if not folder.finished:  # a finished run keeps the environment that made its results
            folder._write_environment()
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RunFolder:
        """A run folder to read from; missing or damaged files raise `DataError` when they are accessed."""
        path = Path(path)
        if not path.is_dir():
            raise DataError(f"run folder {path} does not exist")
        return cls(path, _config_in(path))

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Folder of example outputs."""
        return self.path / "samples"

    @property
    def metrics(self) -> MetricsLog:
        """The log of metrics, `metrics.jsonl`."""
        return MetricsLog(self.path / "metrics.jsonl")

    @property
    def environment(self) -> dict[str, Any]:
        """The environment of the latest run that wrote something."""
        return _read_object(self.path / "environment.json")

    @property
    def summary(self) -> dict[str, Any]:
        """The contents of `summary.json`; raises `DataError` if the run has not finished."""
        if not (self.path / "summary.json").exists():
            raise DataError(f"{self.path} has no summary.json: the run has not finished; the same command resumes it")
        return _read_object(self.path / "summary.json")

    @property
    def finished(self) -> bool:
        """Return whether the run has written its summary."""
        return (self.path / "summary.json").exists()

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`, which marks the run as complete; non-finite numbers become null."""
        self.summarised = True
        if launched_rank():
            return
        if self.finished:  # a new summary belongs to the present environment
            self._write_environment()
        write_json(self.path / "summary.json", jsonable(summary))

    def close(self) -> None:
        """Let other processes write to the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_environment(self) -> None:
        """Write `environment.json`."""
        from geoml.runs.environment import describe

        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.path / "environment.json", describe() | {"started": now})

    def _take_lock(self) -> None:
        stream = open(self.path / ".lock", "a+b")  # noqa: SIM115 - held until close()
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().decode(errors="replace").strip()
            stream.close()
            if holder != str(os.getpid()):
                raise UserError(
                    f"{self.path} is being written by process {holder or '?'}; wait for it, or name another folder"
                ) from None
            return
        except OSError:  # some network file systems do not support locks
            stream.close()
            return
        stream.truncate(0)
        stream.write(str(os.getpid()).encode())
        stream.flush()
        self._lock = stream

    def _nothing_made(self) -> bool:
        """Return whether all files are empty, except those that every run writes at its start."""
        own = {self.path / name for name in (".lock", "config.yaml", "environment.json", "log.txt")}
        return not any(item.is_file() and item not in own and item.stat().st_size for item in self.path.rglob("*"))

    def _clear(self) -> None:
        for item in self.path.iterdir():
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            elif item.name != ".lock":
                item.unlink()


def _refuse_other(path: Path, old: dict[str, Any], new: dict[str, Any], ignore: tuple[str, ...]) -> None:
    found = list(_differences(_without(old, ignore), _without(new, ignore)))
    if found:
        shown = "; ".join(f"{key} was {before!r}, now {now!r}" for key, before, now in found[:3])
        more = f" (and {len(found) - 3} keys more)" if len(found) > 3 else ""
        raise UserError(
            f"{path} holds a run of another configuration: {shown}{more}; name another folder, or start it over with "
            "run.fresh=true"
        )


def _read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} holds {type(value).__name__}, not an object")
    return value


def _config_in(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    if not path.exists():
        raise DataError(f"{folder} is not a run folder: {path.name} is missing")
    return _of_today(read_config(path))


def _of_today(config: dict[str, Any]) -> dict[str, Any]:
    """Convert the model of a stored configuration to the present form."""
    model = config.get("model")
    return {**config, "model": upgraded(model)} if isinstance(model, Mapping) else config


def _write_yaml(path: Path, config: dict[str, Any]) -> None:
    from omegaconf import OmegaConf

    with atomic_path(path) as partial:
        partial.write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")

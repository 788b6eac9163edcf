"""Data settings that are stored with a trained model, and the times of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.errors import UserError
from geoml.grids.grid import grid_of
from geoml.runs.files import read_json, write_json
from geoml.runs.folder import RunFolder, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rainshift.data.archive import Archive

__all__ = ["data_settings", "note_trained", "require_untrained", "trained_share"]

TRAINED_ON = "trained_on.json"
CHANNELS = ("condition", "static", "first_guess", "expected_gaps")


def data_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `data` settings of a command: with a checkpoint, those of the training with the user's changes.

    A setting that differs from its default counts as a change by the user. If the user chooses another source, its
    settings are used with the channels of the model.
    """
    given, checkpoint = plain(config["data"]), config.get("checkpoint")
    known = None if not checkpoint else _trained_with(Path(str(checkpoint)))
    if known is None:
        return given
    from geoml.cli.compose import compose

    default = plain(compose("rainshift.conf", "prepare", [f"data={given['source']}"]).data)
    said = {key: value for key, value in given.items() if value != default.get(key)}
    if given["source"] == known["source"] or not said:
        return {**known, **said}
    return {**given, **{key: known[key] for key in CHANNELS if key in known and key not in said}}


def _trained_with(checkpoint: Path) -> dict[str, Any] | None:
    """Return the data settings of a run of `rainshift train`; None for any other folder."""
    run = checkpoint.parent if checkpoint.name == "checkpoints" else checkpoint
    if not (run / "config.yaml").exists():
        return None
    found = RunFolder.load(run).config.get("data")
    return dict(found) if isinstance(found, Mapping) and "source" in found else None


def note_trained(folder: Path, archive: Archive, regions: Sequence[str], shares: Sequence[NDArray[Any]]) -> None:
    """Write the training regions and times to the folder of a checkpoint: bounds, and runs of consecutive times."""
    noted = {}
    for region, positions in zip(regions, shares, strict=True):
        split, _ = archive.samples(region, "train")
        times = archive.times(region, "train", positions).astype("datetime64[s]").astype(np.int64)
        step = int(archive.step_seconds(region))
        breaks = np.flatnonzero(np.diff(times) != step) + 1
        runs = [[int(run[0]), int(run[-1])] for run in np.split(times, breaks) if len(run)]
        noted[region] = {"bounds": _bounds(archive, region, split), "step": step, "runs": runs}
    write_json(folder / TRAINED_ON, noted)


def _bounds(archive: Archive, region: str, split: str) -> list[float]:
    grid = grid_of(archive.open(region, split)["target"])
    return [float(edge) for axis in grid.axes for edge in axis.edges[[0, -1]]]


def trained_share(checkpoint: Path, archive: Archive, region: str, role: str, positions: NDArray[Any]) -> float:
    """Return the share of a region's times on which a model was trained, in any overlapping region."""
    folder = checkpoint / "checkpoints" if (checkpoint / "checkpoints").is_dir() else checkpoint
    if not (folder / TRAINED_ON).exists():
        return 0.0
    times = archive.times(region, role, positions).astype("datetime64[s]").astype(np.int64)
    here = _bounds(archive, region, archive.samples(region, role)[0])
    seen = np.zeros(len(times), bool)
    for noted in read_json(folder / TRAINED_ON).values():
        if not _overlap(noted["bounds"], here):
            continue
        for first, last in noted["runs"]:
            seen |= (times >= first) & (times <= last)
    return float(seen.mean()) if len(seen) else 0.0


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    south, north, west, east = one
    inside = max(south, other[0]) < min(north, other[1])
    turns = (-360.0, 0.0, 360.0)
    return inside and any(max(west + turn, other[2]) < min(east + turn, other[3]) for turn in turns)


def require_untrained(share: float, region: str, role: str, allowed: bool) -> None:
    """Raise `UserError` if the model was trained on some of the times, unless that is `allowed`."""
    if share > 0 and not allowed:
        raise UserError(
            f"the model was trained on {share:.0%} of the {role} times of {region}, so this is no score for unseen "
            "weather. Train with data.shares='{train: 0.8, test: 0.2}' and score role=test, or set on_trained=mark "
            "to get a marked score"
        )

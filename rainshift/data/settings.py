"""Settings of the data that come with a trained model, and the times that it was trained on."""

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
    """The `data` of a verb: as it was trained with where the verb has a checkpoint, with what was said otherwise.

    Settings that are not those of the configuration's default count as said. Data of another source are taken as
    they are, with the channels of the model.
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
    """The data settings of a run of `rainshift train`; None for a folder that has none."""
    run = checkpoint.parent if checkpoint.name == "checkpoints" else checkpoint
    if not (run / "config.yaml").exists():
        return None
    found = RunFolder.load(run).config.get("data")
    return dict(found) if isinstance(found, Mapping) and "source" in found else None


def note_trained(folder: Path, archive: Archive, regions: Sequence[str], shares: Sequence[NDArray[Any]]) -> None:
    """Keep next to a checkpoint where and when it was trained: bounds of each region, and its runs of times."""
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
    """The share of a region's times that a model was trained on, at any place that overlaps the region."""
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
    """Refuse to score times that the model was trained on, unless that was asked for."""
    if share > 0 and not allowed:
        raise UserError(
            f"{share:.0%} of the {role} times of {region} are among those that the model was trained on: its score "
            "would not be one of new weather. Train with data.shares='{train: 0.8, test: 0.2}' and score role=test, "
            "or say on_trained=mark to have the score with a mark"
        )

"""Figures of predicted maps next to the truth: during training, in evaluation, and of written predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.models.base import Model
from geoml.models.predictor import Predictor
from geoml.report.drawing import save_viewer
from radiomaps.maps.store import MapStore
from radiomaps.prediction import predicted_maps, truth_of
from radiomaps.report.figures import LEGEND, PRINTED, prediction_viewer, stored_truth
from radiomaps.tasks import Task
from radiomaps.trained import Trained, identity

if TYPE_CHECKING:
    import xarray as xr

    from radiomaps.scores import Builder

__all__ = ["draw", "draw_predictions", "picture_taker"]


def picture_taker(
    task: Task, store: MapStore, samples: Sequence[int], folder: Path, *, members: int = 4, seed: int = 0
) -> Callable[[Model, int], None]:
    """A callback for `watch` of `fit` that draws maps of a store as predicted by the model in training."""
    transforms = identity(task)

    def watch(model: Model, seen: int) -> None:
        trained = Trained(Predictor(model, transforms), task)
        for number, made in predicted_maps(trained, store, samples, members=members, seed=seed):
            file = folder / f"{seen:012d}-map-{number:05d}.png"
            _save(made, truth_of(task, store, number), file, f"map {number}, after {seen} samples")

    return watch


def draw(builder: Builder, store: MapStore, samples: Sequence[int], folder: Path, members: int) -> None:
    """Draw truth, prediction, error and uncertainty of every target of some maps to `folder`."""
    if not samples:
        return
    for number, made in predicted_maps(builder, store, samples, members=members):  # type: ignore[arg-type]
        _save(made, truth_of(builder.task, store, number), folder / f"map-{number:05d}.png", f"map {number}")


def draw_predictions(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a figure next to each written file, with the truth that the file contains."""
    from geoml.data.netcdf import read_dataset

    for row in rows:
        path = Path(row["file"])
        with read_dataset(path) as stored:
            made = stored.load()
        _save(made, stored_truth(made), path.with_suffix(".png"), f"map {row['map']}")


def _save(made: xr.Dataset, truth: xr.Dataset | None, file: Path, about: str) -> None:
    """Draw one predicted map at its lowest height."""
    if truth is not None:  # on the cells of the prediction, in the metres of the scene
        truth = truth.assign_coords({axis: made[axis] for axis in ("z", "y", "x")})
    viewer = prediction_viewer({about: made}, {} if truth is None else {about: truth}, edge=PRINTED)
    title = f"{made.attrs['scene']}, {about}, z = {float(made['z'][0]):g} m\n{LEGEND}"
    save_viewer(viewer, file, title=title)

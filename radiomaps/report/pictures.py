"""Figures of predicted maps next to the truth: during training, in evaluation, and of written predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.models.base import Model
from geoml.models.predictor import Predictor
from radiomaps.prediction import predicted_maps, truth_of
from radiomaps.report.figures import save_figure
from radiomaps.report.prediction_figures import draw_prediction
from radiomaps.tasks import Task
from radiomaps.trained import Trained, identity

if TYPE_CHECKING:
    from radiomaps.scores import Builder

__all__ = ["draw", "draw_predictions", "picture_taker"]


def picture_taker(
    task: Task, store: Path, samples: Sequence[int], folder: Path, *, members: int = 4, seed: int = 0
) -> Callable[[Model, int], None]:
    """A callback for `watch` of `fit` that draws maps of a store as predicted by the model in training."""
    transforms = identity(task)

    def watch(model: Model, seen: int) -> None:
        trained = Trained(Predictor(model, transforms), task)
        for number, made in predicted_maps(trained, store, samples, members=members, seed=seed):
            title = f"{made.attrs['scene']}, map {number}, after {seen} samples"
            figure = draw_prediction(made, truth_of(task, store, number), title=title)
            save_figure(figure, folder / f"{seen:012d}-map-{number:05d}.png")

    return watch


def draw(builder: Builder, store: Path, samples: Sequence[int], folder: Path, members: int) -> None:
    """Draw truth, prediction, error and uncertainty of every target of some maps to `folder`."""
    if not samples:
        return
    for number, made in predicted_maps(builder, store, samples, members=members):  # type: ignore[arg-type]
        title = f"{made.attrs['scene']}, map {number}"
        save_figure(
            draw_prediction(made, truth_of(builder.task, store, number), title=title), folder / f"map-{number:05d}.png"
        )


def draw_predictions(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a figure next to each written file, with the truth that the file contains."""
    from geoml.data.netcdf import read_dataset
    from radiomaps.report.charts import stored_truth

    for row in rows:
        path = Path(row["file"])
        with read_dataset(path) as made:
            title = f"{row['scene']}, map {row['map']}"
            picture = draw_prediction(made.load(), stored_truth(made), title=title)
            save_figure(picture, path.with_suffix(".png"))

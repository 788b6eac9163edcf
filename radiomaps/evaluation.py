"""Scoring one trained model or baseline: the verb `evaluate`, and the tables of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError, unknown
from geoml.runs.folder import RunFolder, plain
from radiomaps.scores.physical import QUANTITIES
from radiomaps.scores.scoring import CIRCULAR, MapScores, score
from radiomaps.tasks import Task
from radiomaps.tasks.encoding import AZIMUTH
from radiomaps.tasks.splits import on_layers

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from radiomaps.scores import Builder

__all__ = ["evaluate", "group_rows", "physical_rows", "published_rows", "some_of"]

Rows = list[dict[str, Any]]
#: Maps on which a network's flip error is measured.
_MIRRORED = 4


def published_rows(scores: MapScores) -> Rows:
    """A row a target: RMSE, NMSE, SSIM and PSNR on 0 … 1 over all voxels, and averaged over maps."""
    views = [name for target in scores.targets if target != CIRCULAR for name in _views(target)]
    return [{"target": view, **scores.values(view)} for view in views]


def _views(target: str) -> tuple[str, ...]:
    return (target, CIRCULAR) if target == AZIMUTH else (target,)


def physical_rows(scores: MapScores, groups: Sequence[str] = ("all", "los", "nlos")) -> Rows:
    """A row a target and group of voxels, in dB, ns and degrees."""
    rows = []
    for target in scores.targets:
        if target == CIRCULAR:
            continue
        there = scores.groups(target)
        for group in groups:
            if group in there:
                values = scores.values(target, group)
                near = f"within_{QUANTITIES[target].near:g}"
                values = {("within" if name == near else name): value for name, value in values.items()}
                rows.append({"target": target, "unit": QUANTITIES[target].unit, "voxels": group, **values})
    return rows


def group_rows(scores: MapScores, metric: str = "rmse") -> Rows:
    """A row a layer or class of distance, a column a target: how errors grow with height and distance."""
    targets = [target for target in scores.targets if target != CIRCULAR]
    names = [group for group in scores.groups(targets[0]) if group.startswith("z = ") or group.endswith(" m")]
    rows = []
    for group in names:
        row: dict[str, Any] = {"voxels": group}
        for target in targets:
            row[f"{target}, {QUANTITIES[target].unit}"] = scores.values(target, group)[metric]
        if np.isfinite([value for key, value in row.items() if key != "voxels"]).any():
            rows.append(row)
    return rows


def some_of(samples: NDArray[Any] | Sequence[int], wanted: int | None) -> list[int]:
    """All of the samples, or so many evenly spread."""
    count = len(samples) if wanted is None else min(wanted, len(samples))
    return [int(samples[len(samples) * i // count]) for i in range(count)]


def evaluate(config: DictConfig, run: RunFolder) -> Rows:
    """Score a checkpoint or a baseline on a part of a store: tables by target, group and layer, and pictures."""
    from geoml.cli.tables import show
    from radiomaps.training import parts_of

    values = plain(config)
    store = Path(values["store"])
    builder, split = _builder(values, store)
    parts = parts_of(store, split)
    if values["part"] not in parts:
        raise unknown("part", values["part"], parts)
    chosen = some_of(parts[values["part"]], values["samples"])
    scores = score(
        builder, store, chosen, members=int(values["members"]), seed=int(values["seed"]),
        batch_size=int(values["batch_size"]),
    )  # fmt: skip
    scores.save(run.path / "scores.nc")
    show(published_rows(scores), title="0 … 1, as published: over all voxels, and averaged over maps")
    show(group_rows(scores), title="root-mean-square error by height and distance")
    if values["checkpoint"] is not None and (mirrored := mirror_rows(builder, store, chosen[:_MIRRORED])):
        show(mirrored, title="0 … 1: prediction of a flipped scene minus the flipped prediction, all 7 flips and turns")
    draw(builder, store, chosen[: int(values["pictures"])], run.path / "samples", int(values["members"]))
    return physical_rows(scores)


def mirror_rows(builder: Any, store: Path, samples: Sequence[int]) -> Rows:
    """A row a target channel: how far a network is from treating a scene and its mirror images alike.

    Root mean square on 0 … 1 over the corners of some maps, see `radiomaps.models.symmetry.flip_errors`; nothing where
    layers are sampled in groups.
    """
    import torch

    from radiomaps.models.symmetry import corner, flip_errors
    from radiomaps.tasks.dataset import loader

    model, channels = builder.model, builder.task.target_channels
    if not samples or getattr(model, "layers_at_once", None) is not None:
        return []
    device = builder.predictor.device
    maps = loader(store, samples, builder.task, batch_size=1, shuffle=False)
    found = torch.stack([flip_errors(model, corner(batch).to(device)) for batch in maps])
    return [
        {"channel": name, "flip error": float(value)}
        for name, value in zip(channels, found.square().mean(dim=0).sqrt(), strict=True)
    ]


def _builder(values: dict[str, Any], store: Path) -> tuple[Builder, dict[str, Any]]:
    """What is scored, on the layers of the part that scores, and the split of the store that it was trained by."""
    if (values["checkpoint"] is None) == (values["baseline"] is None):
        raise UserError("give either checkpoint=RUN_FOLDER or baseline=NAME")
    split, part = values["split"], values["part"]
    if values["checkpoint"] is not None:
        from geoml.models.tiles import Tiling
        from radiomaps.training import load_trained

        tiling = Tiling(**values["tiles"]) if values["tiles"] else None
        trained = load_trained(
            values["checkpoint"], precision=values["precision"], tiling=tiling, allow=values["allow_targets"]
        )
        trained.sample_by(**values["sampling"])
        if split is None and trained.split is None:
            raise UserError(f"{values['checkpoint']} does not say how its maps were split; give split={{by: scene}}")
        split = split or dict(trained.split or {})
        return replace(trained, task=on_layers(trained.task, split, part)), split
    from radiomaps.baselines import baseline
    from radiomaps.tasks.dataset import loader
    from radiomaps.training import parts_of

    split = split or {"by": "scene"}
    made = baseline(values["baseline"], on_layers(Task.of(values["task"]), split, "train"), **values["options"])
    if made.learns:
        train = parts_of(store, split)["train"]
        if not len(train):
            raise UserError(f"baseline {values['baseline']} learns, and the split leaves no map of {store} to train")
        made.fit(loader(store, train, made.task, batch_size=8, shuffle=False))
    made.task = on_layers(made.task, split, part)
    return made, split


def draw(builder: Builder, store: Path, samples: Sequence[int], folder: Path, members: int) -> None:
    """Truth, prediction, error and uncertainty of some maps, every target, in `folder`."""
    from radiomaps.prediction import sample_maps, truth_of
    from radiomaps.report.figures import save_figure
    from radiomaps.report.prediction_figures import draw_prediction

    if not samples:
        return
    for number, made in sample_maps(builder, store, samples, members=members):  # type: ignore[arg-type]
        title = f"{made.attrs['scene']}, map {number}"
        save_figure(
            draw_prediction(made, truth_of(builder.task, store, number), title=title), folder / f"map-{number:05d}.png"
        )

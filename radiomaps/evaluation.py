"""Evaluation of one trained model or baseline: the builder to score, and tables of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.errors import UserError
from radiomaps.maps.store import MapStore
from radiomaps.scores.physical import QUANTITIES
from radiomaps.scores.scoring import CIRCULAR, MapScores
from radiomaps.tasks import Task
from radiomaps.tasks.encoding import AZIMUTH
from radiomaps.tasks.splits import on_layers, parts_of

if TYPE_CHECKING:
    from radiomaps.scores import Builder

__all__ = ["builder_of", "group_rows", "mirror_rows", "physical_rows", "published_rows"]

Rows = list[dict[str, Any]]


def published_rows(scores: MapScores) -> Rows:
    """One row per target: RMSE, NMSE, SSIM and PSNR on 0 … 1, over all voxels and as means over maps."""
    views = [name for target in scores.targets if target != CIRCULAR for name in _views(target)]
    return [{"target": view, **scores.values(view)} for view in views]


def _views(target: str) -> tuple[str, ...]:
    return (target, CIRCULAR) if target == AZIMUTH else (target,)


def physical_rows(scores: MapScores, groups: Sequence[str] = ("all", "los", "nlos")) -> Rows:
    """One row per target and group of voxels, in dB, ns and degrees."""
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
    """Errors by height and distance: one row per layer or class of distance, one column per target."""
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


def mirror_rows(builder: Any, store: MapStore, samples: Sequence[int]) -> Rows:
    """One row per target channel: the deviation of a network from equivariance under mirror images of the scene.

    Root mean square on 0 … 1 over the corners of some maps, see `radiomaps.models.symmetry.flip_errors`. Empty for
    models that sample layers in groups.
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


def builder_of(values: dict[str, Any], store: MapStore) -> tuple[Builder, dict[str, Any]]:
    """Load the model or fit the baseline to score, for the layers of the scored part.

    Returns it with the split of the store: the configured one, or the split of the model's training.
    """
    if (values["checkpoint"] is None) == (values["baseline"] is None):
        raise UserError("give either checkpoint=RUN_FOLDER or baseline=NAME")
    split, part = values["split"], values["part"]
    if values["checkpoint"] is not None:
        from geoml.models.tiles import Tiling
        from radiomaps.trained import load_trained

        tiling = Tiling(**values["tiles"]) if values["tiles"] else None
        trained = load_trained(
            values["checkpoint"], precision=values["precision"], tiling=tiling, allow=values["allow_targets"]
        )
        trained = trained.sampled_by(**values["sampling"])
        if split is None and trained.split is None:
            raise UserError(f"{values['checkpoint']} does not say how its maps were split; give split={{by: scene}}")
        split = split or dict(trained.split or {})
        return replace(trained, task=on_layers(trained.task, split, part)), split
    from radiomaps.baselines import baseline
    from radiomaps.tasks.dataset import loader

    split = split or {"by": "scene"}
    made = baseline(values["baseline"], on_layers(Task.of(values["task"]), split, "train"), **values["options"])
    if made.learns:
        train = parts_of(store, split)["train"]
        if not len(train):
            raise UserError(f"baseline {values['baseline']} learns, and the split leaves no map of {store} to train")
        made.fit(loader(store, train, made.task, batch_size=8, shuffle=False))
    made.task = on_layers(made.task, split, part)
    return made, split

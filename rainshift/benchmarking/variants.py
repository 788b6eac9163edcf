"""Entries of a benchmark: the usual models, and the aligned, conserving and adapted variants that it adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from geoml.errors import UserError
from rainshift.benchmarking.adaptation import adapted_hours
from rainshift.data.archive import Archive
from rainshift.data.geometry import Geometry
from rainshift.models.general import WEIGHTS
from rainshift.models.spec import ModelSpec

__all__ = ["usual_models", "with_variants"]

#: Models of a benchmark that names none, and the one that is added if the factor of the grids is that of its training.
USUAL, GENERAL = ("bilinear", "conservative", "nearest", "climatology", "rainfarm", "resnet", "unet"), "general"


def usual_models(archive: Archive, names: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """The models of a benchmark of prepared regions that names none, and a note if the general model is left out."""
    trained = Geometry.load(WEIGHTS / GENERAL)
    assert trained is not None
    for name in names:
        here = Geometry.of(archive, name)
        try:
            trained.check(here.coarse, here.fine)
        except UserError:
            factors = f"{max(trained.factor):.3g} times finer, and {name} is {max(here.factor):.3g} times finer"
            return list(USUAL), (f"The model {GENERAL} is left out: its fine grid is {factors}.",)
    return [*USUAL, GENERAL], ()


def with_variants(
    specs: Iterable[ModelSpec], alignments: Sequence[str], config: Mapping[str, Any], *, exact: bool
) -> dict[str, ModelSpec]:
    """The entries by name, each followed by its variants.

    A network is followed by one variant per alignment and, if the coarse rain is the `exact` mean of the fine rain, by
    one that conserves the mean. With `adapt`, a network with `start` is followed by one variant per number of hours
    instead, and the variant of 0 hours by its alignments.
    """
    hours = adapted_hours(config["adapt"])
    rows: list[ModelSpec] = []
    for spec in (spec.with_exact(exact) for spec in specs):
        if hours and spec.is_network and spec.start is not None:
            rows += _adapted(spec, hours, alignments, conserved=exact and bool(config["conserved_rows"]))
            continue
        rows.append(spec)
        if hours:
            continue
        rows += [spec.aligned(name) for name in alignments if spec.is_network]
        if config["conserved_rows"] and spec.is_network and exact and spec.conservation is None:
            rows.append(spec.conserving())
    if hours and not any(row.local_hours is not None for row in rows):
        raise UserError(
            "adapt fine-tunes networks that start from given weights, and models has none; add one with "
            "models=[bilinear,{model:anchored,start:general}] transforms=physical, or use experiment=adapt"
        )
    return {spec.name: spec for spec in rows}


def _adapted(spec: ModelSpec, hours: Sequence[int], alignments: Sequence[str], *, conserved: bool) -> list[ModelSpec]:
    """The entry trained on the complete local record, its variants for numbers of hours, and label-free variants."""
    if conserved and spec.conservation is None:
        spec = spec.conserving(keep_name=True)
    variants = [spec.with_local_hours(count) for count in hours]
    if alignments and spec.start_is_shipped:
        unadapted = next((one for one in variants if one.local_hours == 0), None)
        if unadapted is None:
            raise UserError("alignments with adapt are applied to the unadapted model; add 0 to adapt")
        variants += [unadapted.aligned(name) for name in alignments]
    elif alignments:
        raise UserError(
            f"{spec.name} starts from {spec.start}, whose training data are not known here; alignments with adapt "
            "need start=general or general-regression. Set alignment=none"
        )
    return [spec, *variants]

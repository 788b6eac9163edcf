"""Entries that a benchmark adds to those of `models`: aligned, conserving and adapted variants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from geoml.errors import UserError
from rainshift.benchmarking.adaptation import adapted_hours
from rainshift.data.archive import Archive
from rainshift.data.geometry import exact_means
from rainshift.models.spec import ModelSpec

__all__ = ["with_variants"]


def with_variants(
    specs: Iterable[ModelSpec], archive: Archive, alignments: Sequence[str], config: Mapping[str, Any]
) -> dict[str, ModelSpec]:
    """The entries by name, each followed by its variants.

    A network is followed by one variant per alignment and, if the coarse rain is the exact mean of the fine rain, by
    one that conserves the mean. With `adapt`, a network with `start` is followed by one variant per number of hours
    instead, and the variant of 0 hours by its alignments.
    """
    exact, hours = exact_means(archive.config), adapted_hours(config["adapt"])
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

"""Entries of a benchmark: entries that fit the grids, and their aligned, conserving and adapted variants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from geoml.errors import UserError
from rainshift.benchmarking.adaptation import adapted_hours
from rainshift.data.archive import Archive
from rainshift.data.geometry import Geometry
from rainshift.models.general import WEIGHTS
from rainshift.models.spec import ModelSpec

__all__ = ["fitting", "with_variants"]


def fitting(
    specs: Mapping[str, ModelSpec], archive: Archive, names: Iterable[str]
) -> tuple[dict[str, ModelSpec], tuple[str, ...]]:
    """The entries without general models that were trained for another refinement factor, and a note for each of these.

    `names` are prepared regions.
    """
    kept, notes = dict(specs), []
    for model, spec in specs.items():
        trained = None if spec.shipped is None else Geometry.load(WEIGHTS / spec.shipped)
        for name in names if trained is not None else ():
            assert trained is not None
            here = Geometry.of(archive, name)
            try:
                trained.check(here.coarse, here.fine)
            except UserError:
                factors = f"{max(trained.factor):.3g} times finer, and that of {name} is {max(here.factor):.3g} times"
                notes.append(f"The model {model} is left out: its fine grid is {factors} finer.")
                del kept[model]
                break
    return kept, tuple(notes)


def with_variants(
    specs: Iterable[ModelSpec], alignments: Sequence[str], config: Mapping[str, Any], *, exact: bool
) -> dict[str, ModelSpec]:
    """Return the entries by name, each followed by its variants.

    Without `adapt`, a network has one variant per alignment. If the coarse rain is the `exact` mean of the fine rain,
    it also has a variant that conserves this mean. With `adapt`, a network with `start` has one variant per number of
    local hours; the variant of 0 hours is also aligned.
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
            "adapt fine-tunes networks with start weights, but no entry of models has start; add one with "
            "models=[bilinear,{model:anchored,start:general}] transforms=physical, or use experiment=adapt"
        )
    return {spec.name: spec for spec in rows}


def _adapted(spec: ModelSpec, hours: Sequence[int], alignments: Sequence[str], *, conserved: bool) -> list[ModelSpec]:
    """Return the entry trained on the complete local record, its variants by number of hours, and aligned variants."""
    if conserved and spec.conservation is None:
        spec = spec.conserving(keep_name=True)
    variants = [spec.with_local_hours(count) for count in hours]
    if alignments and spec.start_is_shipped:
        unadapted = next((one for one in variants if one.local_hours == 0), None)
        if unadapted is None:
            raise UserError("with adapt, alignments are applied to the variant of 0 hours; add 0 to adapt")
        variants += [unadapted.aligned(name) for name in alignments]
    elif alignments:
        raise UserError(
            f"{spec.name} starts from {spec.start}; alignments with adapt need known training data, that is "
            "start=general or start=general-regression. Set alignment=none otherwise"
        )
    return [spec, *variants]

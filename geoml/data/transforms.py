"""The transforms of a data set's channels: fitted once on the training batches, then saved with the model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from geoml.cli.progress import track
from geoml.data.curves import Array, Transform, array_module, to_numpy, transform_from_dict
from geoml.data.moments import Moments
from geoml.errors import DataError, UserError, unknown
from geoml.runs.files import read_json, write_json
from geoml.runs.stored_config import interpret

if TYPE_CHECKING:
    from geoml.data.fields import Batch
    from geoml.models.base import Channels

__all__ = ["Transforms"]

ROLES = ("condition", "target", "static")
FORMAT = 1


@dataclass(frozen=True)
class Transforms:
    """One transform per channel, in the order of the channel axis, for condition, target and static fields.

    A channel name that occurs in two roles (coarse and fine field of one quantity) has one configuration and two sets
    of statistics.
    """

    channels: Channels
    condition: tuple[Transform, ...]
    target: tuple[Transform, ...]
    static: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        for role in ROLES:
            names, transforms = getattr(self.channels, role), getattr(self, role)
            if len(names) != len(transforms):
                raise ValueError(f"{len(transforms)} {role} transforms for {len(names)} channels {names}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], channels: Channels) -> Transforms:
        """Unfitted transforms from a mapping of channel name to options; `default` applies to all other channels.

        Raises `UserError` for an unknown channel, kind or option, or a channel without a transform.
        """
        known = [name for role in ROLES for name in getattr(channels, role)]
        for name in config:
            if name != "default" and name not in known:
                raise unknown("channel", name, [*known, "default"], hint="in the transforms")

        def build(name: str) -> Transform:
            options = config.get(name, config.get("default"))
            if options is None:
                raise UserError(f"channel {name!r} has no transform; name one, or a default: {{kind: zscore}}")
            if not isinstance(options, Mapping):
                raise UserError(f"transform of {name!r} is {options!r}; expected a mapping such as {{kind: zscore}}")
            return transform_from_dict({key: options[key] for key in options})

        return cls(channels, *(tuple(build(name) for name in getattr(channels, role)) for role in ROLES))

    def fit(self, batches: Iterable[Batch]) -> Transforms:
        """The same transforms with the statistics of all batches; each batch is read once.

        Cells of the target where `batch.mask` is False do not count. Errors: `DataError`, with channel and sample
        named, where a value that is not masked is not finite; where a target is constant; where there is no batch.
        """
        totals = {role: [(Moments(), Moments()) for _ in getattr(self, role)] for role in ROLES}
        for batch in track(batches, "fitting transforms", unit="batch"):
            for role in ROLES:
                for i, (transform, values, mask) in enumerate(self._channels_of(batch, role)):
                    _check_finite(self._place(role, i), values, mask, batch.ids)
                    old, new = totals[role][i], transform.moments(values, mask)
                    totals[role][i] = old[0].merge(new[0]), old[1].merge(new[1])
        fitted: dict[str, Any] = {}
        for role in ROLES:
            done = []
            for i, (transform, (physical, curved)) in enumerate(zip(getattr(self, role), totals[role], strict=True)):
                try:
                    done.append(transform.fitted(physical, curved))
                except DataError as error:
                    raise DataError(f"{self._place(role, i)}: {error}") from error
                if role == "target" and physical.span == 0:
                    raise DataError(
                        f"{self._place(role, i)} is {physical.minimum:g} at all {physical.count} training cells; "
                        "nothing can be learned from it"
                    )
            fitted[role] = tuple(done)
        return replace(self, **fitted)

    def forward(self, batch: Batch) -> Batch:
        """Transform a batch and its points; masked target cells become 0 and stay masked.

        Errors: `DataError`, with channel and sample named, where a value that is not masked is not finite.
        """
        changes: dict[str, Any] = {} if batch.points is None else {"points": batch.points.map(self.target[0].forward)}
        for role in ROLES:
            done = []
            for i, (transform, values, mask) in enumerate(self._channels_of(batch, role)):
                _check_finite(self._place(role, i), values, mask, batch.ids)
                y = transform.forward(values)
                done.append(y if mask is None else array_module(y).where(mask, y, 0.0))
            if done:
                changes[role] = array_module(done[0]).stack(done, 1)
        return batch.map(**changes)

    def inverse_target(self, prediction: Array) -> tuple[Array, float]:
        """Return physical values of a prediction `(batch, member, channel, *space)`, and the share of clipped values.

        A large share indicates a diverged network (see `Transform.clipped`).
        """
        if prediction.ndim < 3 or prediction.shape[2] != len(self.target):
            raise ValueError(f"prediction has shape {tuple(prediction.shape)}; expected {len(self.target)} channels")
        xp = array_module(prediction)
        if prediction.dtype.itemsize < 4:  # the inverse of a logarithm amplifies the rounding of half precision
            prediction = prediction.float() if hasattr(prediction, "float") else prediction.astype("float32")
        parts = [prediction[:, :, i] for i in range(len(self.target))]
        values = [transform.inverse(part) for transform, part in zip(self.target, parts, strict=True)]
        clipped = sum(int(transform.clipped(part).sum()) for transform, part in zip(self.target, parts, strict=True))
        return xp.stack(values, 2), clipped / max(math.prod(prediction.shape), 1)

    def to_dict(self) -> dict[str, Any]:
        """Channels, options and statistics as plain values for JSON."""
        record: dict[str, Any] = {"format": FORMAT}
        for role in ROLES:
            pairs = zip(getattr(self.channels, role), getattr(self, role), strict=True)
            record[role] = [{"channel": name, **transform.to_dict()} for name, transform in pairs]
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Transforms:
        """The inverse of `to_dict`; raises `DataError` for an invalid record."""
        from geoml.models.base import Channels

        if not isinstance(record, Mapping) or set(record) != {"format", *ROLES}:
            raise DataError(f"transforms must hold exactly format, {', '.join(ROLES)}")
        if record["format"] != FORMAT:
            raise DataError(f"transforms have format {record['format']!r}; this version reads format {FORMAT}")
        names: dict[str, Any] = {}
        transforms: dict[str, Any] = {}
        for role in ROLES:
            entries = [dict(entry) for entry in record[role]]
            names[role] = tuple(str(entry.pop("channel", "")) for entry in entries)
            try:
                transforms[role] = tuple(transform_from_dict(entry) for entry in entries)
            except UserError as error:
                raise DataError(f"{role} transforms: {error}") from error
        return cls(Channels(**names), **transforms)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `transform.json` atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Transforms:
        """Read what `save` wrote; a `DataError` names the file and the cause."""
        return interpret(path, lambda: cls.from_dict(read_json(path)), "transforms")

    def _place(self, role: str, index: int) -> str:
        return f"{role} channel {getattr(self.channels, role)[index]!r}"

    def _channels_of(self, batch: Batch, role: str) -> Iterator[tuple[Transform, Array, Array | None]]:
        """Transform, values `(batch, *space)` and mask of every channel of a role that the batch has."""
        array, transforms = getattr(batch, role), getattr(self, role)
        if array is None:
            return
        if array.shape[1] != len(transforms):
            wanted = ", ".join(getattr(self.channels, role)) or "none"
            raise UserError(f"the data give {array.shape[1]} {role} channels; expected those of the training: {wanted}")
        for i, transform in enumerate(transforms):
            mask = batch.mask[:, i] if role == "target" and batch.mask is not None else None
            yield transform, array[:, i], mask


def _check_finite(place: str, values: Array, mask: Array | None, ids: Any) -> None:
    """Raise `DataError` with the place of the first value that is neither finite nor masked."""
    finite = array_module(values).isfinite(values)
    good = finite if mask is None else finite | ~mask
    if bool(good.all()):
        return
    bad = ~to_numpy(good)
    first = tuple(int(index[0]) for index in bad.nonzero())
    sample = ids[first[0]] if len(ids) else first[0]
    raise DataError(
        f"{place} of sample {sample} is {float(values[first])} at cell {first[1:]}, which is not masked "
        f"({int(bad.sum())} such cells in this batch)"
    )

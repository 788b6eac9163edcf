"""The definition of a radio-map task: targets, conditions, observations and prior."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from geoml.errors import UserError, unknown
from radiomaps.exchange.grey import PRINTED_RANGE_DB
from radiomaps.tasks.encoding import TARGETS, Encoding
from radiomaps.tasks.features import FEATURES, ONCE_FEATURE
from radiomaps.tasks.observations import Observations

if TYPE_CHECKING:
    from torch import Tensor

    from geoml.models.base import Channels

__all__ = ["CONSTANTS", "PRIORS", "SIGHT", "TRANSMITTER", "Task"]

#: Encodings of a transmitter and their channels, see `radiomaps.tasks.conditions`.
TRANSMITTER = {
    "map": ("tx_map",),
    "distance": ("tx_distance",),
    "direction": ("tx_east", "tx_north", "tx_up"),
}
#: Conditions with one value per map.
CONSTANTS = ("frequency", "power", "tx_height")
PRIORS = ("free_space", "dominant", "interpolated")
#: In addition to a prior from physics: 1 in line of sight.
SIGHT = "sight_prior"
RADIATION = ("aware", "unaware", "mixed")


@dataclass(frozen=True)
class Task:
    """Inputs and targets of a model.

    - `radiation`: inputs in addition to buildings: "aware" the transmitter, "unaware" observed voxels, "mixed" both.
    - `observations`: how voxels are observed; a mapping of the fields of `Observations`.
    - `heights`: heights of the layers in metres, evenly spaced; None uses all layers.
    - `encoding`, `ranges`: see `Encoding`. `threshold_dbm`: voxels that receive less are masked.
    - `prior`: physics or interpolation as a channel per target, which residual models correct: "free_space",
      "dominant" (the dominant-path solver, computed once), "interpolated" (the observations). Physics also gives the
      channel `sight_prior`, 1 in line of sight.
    - `dominant_version`: of the solver behind prior=dominant; networks keep the one that they were trained with.
    - `transmitter`: its encodings, of "map", "distance", "direction"; `constants`: of frequency, power, tx_height.
    - `features`: inputs derived from buildings and transmitter, of "walls", "obstruction", "roofs",
      "diffracted_once", see `radiomaps.tasks.features`.

    >>> Task(targets=("toa_s", "doa_azimuth"), prior="free_space").channels.target
    ('toa_s', 'doa_azimuth_sin', 'doa_azimuth_cos')
    """

    targets: tuple[str, ...] = ("path_gain_db",)
    radiation: Literal["aware", "unaware", "mixed"] = "aware"
    observations: Observations | None = None
    heights: tuple[float, ...] | None = None
    encoding: Literal["physical", "uint8"] = "physical"
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    threshold_dbm: float | None = None
    prior: Literal["free_space", "dominant", "interpolated"] | None = None
    transmitter: tuple[str, ...] = ("distance", "direction")
    constants: tuple[str, ...] = ()
    dominant_version: int = 2
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.observations, Mapping):
            object.__setattr__(self, "observations", Observations(**self.observations))
        for name in ("targets", "transmitter", "constants", "features"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if self.heights is not None:
            object.__setattr__(self, "heights", tuple(float(height) for height in self.heights))
        object.__setattr__(self, "ranges", self.codecs.ranges)
        for what, names, known in (
            ("target", self.targets, TARGETS), ("transmitter encoding", self.transmitter, TRANSMITTER),
            ("constant condition", self.constants, CONSTANTS), ("feature", self.features, FEATURES),
            ("radiation", (self.radiation,), RADIATION),
        ):  # fmt: skip
            for name in names:
                if name not in known:
                    raise unknown(what, name, known)
            if len(set(names)) < len(names):
                raise UserError(f"{what}s {list(names)}: one is repeated")
        if not self.targets:
            raise UserError(f"a task needs a target: {', '.join(TARGETS)}")
        self._check_knowledge()

    def _check_knowledge(self) -> None:
        """Raise `UserError` for contradictory settings, such as a prior from unknown data."""
        if (self.observations is None) == (self.radiation != "aware"):
            have = "has observations" if self.observations else "needs observations"
            raise UserError(
                f"a task that is radiation={self.radiation} {have}: aware has no observations, unaware and mixed have"
            )
        if self.knows_transmitter and not self.transmitter:
            raise UserError(f"radiation={self.radiation} shows the transmitter; name its encodings in transmitter")
        for name in ("obstruction", ONCE_FEATURE):
            if name in self.features and not self.knows_transmitter:
                raise UserError(f"features={name} needs the transmitter, which an unaware task does not know")
        if self.prior is None:
            return
        if self.prior not in PRIORS:
            raise unknown("prior", self.prior, PRIORS)
        if self.prior == "interpolated" and self.observations is None:
            raise UserError("prior=interpolated interpolates observations; an aware task has none")
        if self.prior != "interpolated" and not self.knows_transmitter:
            raise UserError(f"prior={self.prior} needs the transmitter, which an unaware task does not know")

    @property
    def knows_transmitter(self) -> bool:
        return self.radiation != "unaware"

    @cached_property
    def codecs(self) -> Encoding:
        """The encoding of targets."""
        return Encoding(self.encoding, self.ranges)

    @cached_property
    def target_channels(self) -> tuple[str, ...]:
        return tuple(name for target in self.targets for name in Encoding.channels(target))

    @cached_property
    def channels(self) -> Channels:
        """The channels of its batches; targets are paired with their prior as first guess."""
        from geoml.models.base import Channels

        condition = ["building", "roof", "height"]
        if self.knows_transmitter:
            condition += [channel for name in self.transmitter for channel in TRANSMITTER[name]]
            condition += self.constants
        condition += [channel for name in self.features for channel in FEATURES[name]]
        if self.observations is not None:
            condition += [*(f"{name}_observed" for name in self.target_channels), "observed"]
        guesses: tuple[tuple[str, str], ...] = ()
        if self.prior is not None:
            guesses = tuple((name, f"{name}_prior") for name in self.target_channels)
            condition += [guess for _, guess in guesses]
            if self.prior != "interpolated":
                condition.append(SIGHT)
        return Channels(tuple(condition), self.target_channels, first_guess=guesses)

    def decode(self, fields: Tensor) -> dict[str, Tensor]:
        """Physical fields (dB, s, rad) `(…, z, y, x)` of encoded ones `(…, channel, z, y, x)`."""
        return self.codecs.decode(self.targets, fields)

    def encode(self, fields: Mapping[str, Any]) -> list[Any]:
        """Channels in order from physical fields by target."""
        return [channel for target in self.targets for channel in self.codecs.encode(target, fields[target])]

    def changed(self, **changes: Any) -> Task:
        """The same task with other values of these fields."""
        return replace(self, **changes)

    def describe(self) -> dict[str, Any]:
        """The task in JSON types; `Task.of` is the inverse."""
        described = json.loads(json.dumps(asdict(self)))
        if not self.features:  # tasks from before features keep their identity
            del described["features"]
        return described

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Task:
        """The task of a mapping from `describe` or YAML; raises `UserError` for an unknown key."""
        known = list(cls.__dataclass_fields__)
        for key in values:
            if key not in known:
                raise unknown("key of a task", key, known)
        return cls(**{key: value for key, value in values.items() if key != "ranges" or value is not None})

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> Task:
        """The task of a training's record; one without `dominant_version` has the defaults of its time.

        >>> Task.recorded({"prior": "dominant"}).dominant_version
        1
        """
        if "dominant_version" in values:
            return cls.of(values)
        ranges = {"path_gain_db": PRINTED_RANGE_DB, **(values.get("ranges") or {})}
        return cls.of({**values, "dominant_version": 1, "ranges": ranges})

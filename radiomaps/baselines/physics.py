"""Physical baselines: free space, a fitted log-distance law, 3GPP path loss, the dominant path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np

from geoml.constants import SPEED_OF_LIGHT
from geoml.data.fields import Batch
from geoml.errors import DataError, UserError, unknown
from radiomaps.baselines.base import Array, Baseline, positions
from radiomaps.tasks import Task
from radiomaps.tasks.conditions import HEIGHT_M, distance_of

__all__ = ["DominantPath", "FreeSpace", "LogDistance", "Prior", "Tr38901"]

_GAIN = "path_gain_db"


class Prior(Baseline):
    """The task's prior without a correction: the reference for models that correct it."""

    @classmethod
    def adapted(cls, task: Task) -> Task:
        """Return the task unchanged; raises `UserError` if it has no prior."""
        if task.prior is None:
            raise UserError("this task has no prior; set task.prior")
        return task

    def maps(self, batch: Batch) -> Array:
        """The channels of the prior."""
        return self.channels(batch, "_prior")


class _Physics(Prior):
    """Base class of path-gain models. Other targets are those of the free-space prior."""

    prior: ClassVar[Literal["free_space", "dominant"]] = "free_space"

    @classmethod
    def adapted(cls, task: Task) -> Task:
        """Return the task with this prior, and with the transmitter's distance, direction and carrier as conditions."""
        if not task.knows_transmitter:
            raise UserError(
                f"{cls.__name__} needs the transmitter, which a task with radiation=unaware does not include"
            )
        return task.changed(prior=cls.prior, transmitter=("distance", "direction"), constants=("frequency",))

    def with_gain(self, batch: Batch, gain_db: Array) -> Array:
        """Replace the path gain of the prior's maps, if path gain is a target."""
        made = self.channels(batch, "_prior")
        if _GAIN in self.task.targets:
            made[:, self.task.target_channels.index(_GAIN)] = self.task.codecs.encode(_GAIN, gain_db)[0]
        return made


class FreeSpace(_Physics):
    """Free-space path gain (Friis), delay and direction of the straight path; buildings are ignored."""


class DominantPath(_Physics):
    """The dominant-path solver of `radiomaps.dominant`: straight, over roofs or around corners, without reflections."""

    prior = "dominant"


class LogDistance(_Physics):
    """Log-distance path gain a − 10 n log₁₀ d (Rappaport 2002, sect. 4.9). Other targets are as in free space.

    a and n are fitted to the valid voxels of the training maps that are farther than 1 m from the transmitter.
    """

    learns = True

    @classmethod
    def adapted(cls, task: Task) -> Task:
        """Return the task as for free space; raises `UserError` if path gain is not a target."""
        if _GAIN not in task.targets:
            raise UserError(f"log_distance fits {_GAIN}, which is not in task.targets; use free_space for the others")
        return super().adapted(task)

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.intercept_db, self.exponent = float("nan"), float("nan")

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fit by least squares to the valid voxels of all batches; raises `DataError` if all distances are equal."""
        moments = np.zeros((2, 2)), np.zeros(2)
        channel = self.task.target_channels.index(_GAIN)
        for batch in batches:
            assert batch.target is not None
            assert batch.mask is not None
            distance = distance_of(self.channel(batch, "tx_distance").astype(np.float64))
            known = batch.mask[:, channel].numpy() & (distance > 1)
            decades = np.log10(distance[known])
            gain = self.task.decode(batch.target)[_GAIN].numpy()[known].astype(np.float64)
            design = np.stack([np.ones_like(decades), decades])
            moments[0][...] += design @ design.T
            moments[1][...] += design @ gain
        if np.linalg.matrix_rank(moments[0]) < 2:
            raise DataError(
                "log_distance needs valid voxels at two or more distances beyond 1 m; the training maps have fewer"
            )
        intercept, slope = np.linalg.solve(*moments)
        self.intercept_db, self.exponent = float(intercept), float(-slope / 10)

    def state(self) -> dict[str, Any]:
        """Gain at 1 m and path-loss exponent."""
        return {"intercept_db": self.intercept_db, "exponent": self.exponent}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.intercept_db, self.exponent = float(state["intercept_db"]), float(state["exponent"])

    def maps(self, batch: Batch) -> Array:
        """The fitted law at each voxel's distance."""
        decades = np.log10(distance_of(self.channel(batch, "tx_distance").astype(np.float64)))
        return self.with_gain(batch, self.intercept_db - 10 * self.exponent * decades)


class Tr38901(_Physics):
    """Path loss of 3GPP TR 38.901 (table 7.4.1-1), scenario "uma" or "umi". Other targets are as in free space.

    `sight`: "chance" averages over the probability of line of sight (table 7.4.2-1); "roofs" determines line of sight
    from the roofs of the map. Transmitters lower than the report's range are accepted; effective heights are at least
    0.1 m.
    """

    def __init__(
        self, task: Task, *, scenario: Literal["uma", "umi"] = "umi", sight: Literal["chance", "roofs"] = "chance"
    ) -> None:
        super().__init__(task)
        for what, value, known in (("scenario", scenario, ("uma", "umi")), ("sight", sight, ("chance", "roofs"))):
            if value not in known:
                raise unknown(what, value, known)
        self.scenario, self.sight = scenario, sight

    def maps(self, batch: Batch) -> Array:
        """Path gain from the losses with and without line of sight, weighted by the probability of line of sight."""
        places = positions(batch.target_grid)
        distance = distance_of(self.channel(batch, "tx_distance").astype(np.float64))
        east, north, up = (self.channel(batch, f"tx_{name}").astype(np.float64) for name in ("east", "north", "up"))
        flat = distance * np.hypot(east, north)
        carrier = 10.0 ** self.channel(batch, "frequency").astype(np.float64)
        terminal = np.maximum(places[..., 0], 0.5)[None]
        station = np.maximum((places[..., 0] + distance * up).mean(axis=(1, 2, 3), keepdims=True), 0.5)
        seen, hidden = street_loss_db(self.scenario, distance, flat, carrier, station, terminal)
        if self.sight == "chance":
            chance = sight_probability(self.scenario, flat, terminal)
        else:
            vector = np.stack([up, north, east], axis=-1) * distance[..., None]
            chance = clear_of_roofs(self.channel(batch, "roof")[:, 0] * HEIGHT_M, vector, batch.target_grid)
        return self.with_gain(batch, -(chance * seen + (1 - chance) * hidden))


def street_loss_db(
    scenario: str, distance: Array, flat: Array, carrier_ghz: Array, station: Array, terminal: Array
) -> tuple[Array, Array]:
    """Path loss with and without line of sight, in dB; distances and heights in metres (TR 38.901, table 7.4.1-1).

    >>> at = np.array(100.0)
    >>> loss = street_loss_db("umi", at, at, np.array(3.5), np.array(10.0), np.array(1.5))
    >>> [round(float(part), 2) for part in loss]
    [85.28, 104.59]
    """
    lift, near, far, bend = (28.0, 22.0, 40.0, 9.0) if scenario == "uma" else (32.4, 21.0, 40.0, 9.5)
    decades, tone = np.log10(np.maximum(distance, 1.0)), 20 * np.log10(carrier_ghz)
    effective = np.maximum(station - 1, 0.1) * np.maximum(terminal - 1, 0.1)
    breakpoint_m = 4 * effective * carrier_ghz * 1e9 / SPEED_OF_LIGHT
    beyond = lift + far * decades + tone - bend * np.log10(breakpoint_m**2 + (station - terminal) ** 2)
    seen = np.where(flat <= breakpoint_m, lift + near * decades + tone, beyond)
    if scenario == "uma":
        hidden = 13.54 + 39.08 * decades + tone - 0.6 * (terminal - 1.5)
    else:
        hidden = 22.4 + 35.3 * decades + 21.3 * np.log10(carrier_ghz) - 0.3 * (terminal - 1.5)
    return seen, np.maximum(seen, hidden)


def sight_probability(scenario: str, flat: Array, terminal: Array) -> Array:
    """Probability of line of sight at a horizontal distance (TR 38.901, table 7.4.2-1).

    >>> [round(float(sight_probability("umi", np.array(d), np.array(1.5))), 3) for d in (10.0, 100.0)]
    [1.0, 0.231]
    """
    reach = np.maximum(flat, 18.0)
    decay = 63.0 if scenario == "uma" else 36.0
    chance = 18 / reach + np.exp(-reach / decay) * (1 - 18 / reach)
    if scenario == "uma":
        raised = np.where(terminal <= 13, 0.0, (np.maximum(terminal - 13, 0) / 10) ** 1.5)
        chance = chance * (1 + raised * 1.25 * (reach / 100) ** 3 * np.exp(-reach / 150))
    return np.minimum(chance, 1.0)


def clear_of_roofs(roofs_m: Array, vector: Array, grid: Any) -> Array:
    """Line of sight above roofs `(batch, z, y, x)`: 1 if no roof blocks the straight line to the transmitter, else 0.

    `roofs_m` `(batch, y, x)` are roof heights in metres. `vector` `(batch, z, y, x, 3)` points from each voxel to the
    transmitter, with components z, y, x in metres. There are no roofs outside the map.
    """
    places = positions(grid)
    rows, columns = grid["y"], grid["x"]
    steps = 2 * max(rows.size, columns.size)
    clear = np.ones(vector.shape[:-1], bool)
    for share in (np.arange(steps) + 0.5) / steps:
        z, y, x = np.moveaxis(places[None] + share * vector, -1, 0)
        j = np.rint((y - rows.start) / rows.step).astype(int)
        i = np.rint((x - columns.start) / columns.step).astype(int)
        inside = (j >= 0) & (j < rows.size) & (i >= 0) & (i < columns.size)
        item = np.arange(len(roofs_m))[:, None, None, None]
        roof = roofs_m[item, j.clip(0, rows.size - 1), i.clip(0, columns.size - 1)]
        clear &= ~(inside & (z < roof))
    return clear.astype(np.float64)

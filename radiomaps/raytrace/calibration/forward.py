"""Powers of stored paths at measured places, as functions of the fitted parameters, with derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radiomaps.antennas.arrays import antenna_field
from radiomaps.maps.layout import Transmitter

if TYPE_CHECKING:
    from radiomaps.raytrace import TraceOptions
    from radiomaps.raytrace.calibration.measurements import Measurements
    from radiomaps.scenes import Scene

__all__ = ["Parameters", "StoredPaths", "store_paths"]

_TURN_RAD = np.radians(0.25)


@dataclass(frozen=True)
class Parameters:
    """Names of the parameters, in order: offsets of cells, corrections of their azimuths, losses of materials."""

    cells: tuple[str, ...]
    turning: tuple[str, ...]
    materials: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (
            *(f"offset_db:{cell}" for cell in self.cells),
            *(f"azimuth_deg:{cell}" for cell in self.turning),
            *(f"loss_db:{material}" for material in self.materials),
        )

    def __len__(self) -> int:
        return len(self.cells) + len(self.turning) + len(self.materials)


@dataclass(frozen=True, eq=False)
class StoredPaths:
    """Paths from an isotropic antenna at each cell to measured places, padded: dimensions point `(n,)` and path.

    `power` is |a|² (0 where there is no path), `departure` unit vectors, `hits` `(n, path, material)` the number of
    reflections by each material, `direct` whether a point is in line of sight. `cell` is an index into `transmitters`.
    """

    transmitters: tuple[Transmitter, ...]
    materials: tuple[str, ...]
    cell: NDArray[np.int64]
    power: NDArray[np.float64]
    departure: NDArray[np.float64]
    hits: NDArray[np.float64]
    direct: NDArray[np.bool_]

    def __getitem__(self, chosen: NDArray[Any]) -> StoredPaths:
        return replace(
            self, cell=self.cell[chosen], power=self.power[chosen], departure=self.departure[chosen],
            hits=self.hits[chosen], direct=self.direct[chosen],
        )  # fmt: skip

    @property
    def parameters(self) -> Parameters:
        """The parameters of these paths: azimuths of directive antennas, and materials that reflect some power."""
        turning = []
        for number, transmitter in enumerate(self.transmitters):
            here = self.cell == number
            if here.any() and np.abs(self._turn_slope(here, transmitter)).max() > 1e-3:
                turning.append(transmitter.name)
        share = self.power / np.maximum(self.power.sum(axis=1, keepdims=True), 1e-300)
        used = (share[:, :, None] * self.hits).sum(axis=1).max(axis=0) > 0.01 if len(share) else np.zeros(0, bool)
        materials = tuple(name for name, some in zip(self.materials, used, strict=True) if some)
        return Parameters(tuple(t.name for t in self.transmitters), tuple(turning), materials)

    def _turn_slope(self, here: NDArray[np.bool_], transmitter: Transmitter) -> NDArray[np.float64]:
        return np.asarray(self._gain_db(here, transmitter, 20.0) - self._gain_db(here, transmitter, -20.0))

    def _gain_db(self, here: NDArray[np.bool_], transmitter: Transmitter, turn_deg: float) -> NDArray[np.float64]:
        """Gain of the antenna along paths, with the antenna rotated clockwise."""
        yaw, pitch, roll = transmitter.orientation
        turned = replace(transmitter, orientation=(yaw - np.radians(turn_deg), pitch, roll))
        field = antenna_field(turned, self.departure[here])
        # Paths were traced with the same polarisation and an isotropic pattern.
        return np.asarray(10 * np.log10(np.maximum((np.abs(field) ** 2).sum(axis=-1), 1e-12)))

    def sight_share(self) -> NDArray[np.float64]:
        """Share of each point's power on the direct path, which errors of the map do not affect."""
        gain = np.zeros_like(self.power)
        for number, transmitter in enumerate(self.transmitters):
            here = self.cell == number
            if here.any():
                gain[here] = self._gain_db(here, transmitter, 0.0)
        weighed = self.power * 10 ** (gain / 10)
        # The strongest path is stored first, and from an isotropic antenna that is the direct one.
        return np.asarray(np.where(self.direct, weighed[:, 0] / np.maximum(weighed.sum(axis=1), 1e-300), 0.0))

    def predict(
        self, values: NDArray[np.float64], parameters: Parameters
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Power in dBm at each point `(n,)`, and its derivatives with respect to the parameters `(n, parameter)`."""
        offsets, turns, losses = np.split(values, np.cumsum([len(parameters.cells), len(parameters.turning)]))
        places = [self.materials.index(name) for name in parameters.materials]
        hits = self.hits[:, :, places]
        gain = np.zeros_like(self.power)
        slope = np.zeros_like(self.power)
        level = np.zeros(len(self.cell))
        for number, transmitter in enumerate(self.transmitters):
            here = self.cell == number
            if not here.any():
                continue
            level[here] = transmitter.power_dbm + offsets[parameters.cells.index(transmitter.name)]
            turn = 0.0
            if transmitter.name in parameters.turning:
                turn = float(turns[parameters.turning.index(transmitter.name)])
                step = np.degrees(_TURN_RAD)
                slope[here] = (
                    self._gain_db(here, transmitter, turn + step) - self._gain_db(here, transmitter, turn - step)
                ) / (2 * step)
            gain[here] = self._gain_db(here, transmitter, turn)
        weighed = self.power * 10 ** ((gain - hits @ losses) / 10)
        total = weighed.sum(axis=1)
        with np.errstate(divide="ignore"):
            predicted = level + 10 * np.log10(total)
        share = weighed / np.maximum(total, 1e-300)[:, None]
        jacobian = np.zeros((len(self.cell), len(parameters)))
        for index, name in enumerate(parameters.cells):
            jacobian[:, index] = self._of(name)
        for index, name in enumerate(parameters.turning, start=len(parameters.cells)):
            jacobian[:, index] = np.where(self._of(name), (share * slope).sum(axis=1), 0.0)
        jacobian[:, len(parameters.cells) + len(parameters.turning) :] = -(share[:, :, None] * hits).sum(axis=1)
        return predicted, jacobian

    def _of(self, name: str) -> NDArray[np.bool_]:
        return np.asarray([self.transmitters[number].name == name for number in self.cell])


def store_paths(
    scene: Scene,
    transmitters: Sequence[Transmitter],
    measured: Measurements,
    options: TraceOptions,
    *,
    rays: int = 100_000,
    top: int = 32,
) -> StoredPaths:
    """Exact paths from each cell, with an isotropic antenna, to the places where it was measured.

    Points are in the order of `measured`; the `top` strongest paths of each are stored.
    """
    from geoml.cli.progress import track
    from radiomaps.raytrace import find_paths

    number = np.array([[t.name for t in transmitters].index(name) for name in measured.cell], np.int64)
    tables = []
    for index, transmitter in track(list(enumerate(transmitters)), "paths of cells", unit="cells"):
        here = np.flatnonzero(number == index)
        if len(here):
            plain = replace(transmitter, pattern="iso", rows=1, columns=1, weights=(), orientation=(0.0, 0.0, 0.0))
            carrier = replace(options, frequency_hz=transmitter.frequency_hz or options.frequency_hz)
            table = find_paths(scene, [plain], measured.points[here], carrier, rays=rays, top=top).isel(tx=0)
            tables.append((here, table))
    names = tuple(tables[0][1]["material"].values.tolist())
    power, departure = np.zeros((len(measured), top)), np.zeros((len(measured), top, 3))
    hits, direct = np.zeros((len(measured), top, len(names))), np.zeros(len(measured), bool)
    for here, table in tables:
        there = np.isfinite(table["gain_db"].values)
        power[here] = np.where(there, 10 ** (table["gain_db"].values / 10), 0.0)
        zenith, azimuth = (np.where(there, table[f"departure_{part}"].values, 0.0) for part in ("zenith", "azimuth"))
        flat = np.sin(zenith)
        departure[here] = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.cos(zenith)], axis=-1)
        hits[here] = table["reflections"].values
        direct[here] = (there & (table["bounces"].values == 0)).any(axis=1)
    return StoredPaths(tuple(transmitters), names, number, power, departure, hits, direct)

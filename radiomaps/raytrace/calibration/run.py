"""A calibration from measurements to files: held-out blocks, residuals, and sites and materials for `trace`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import UserError
from geoml.runs.files import atomic_path, write_json
from radiomaps.antennas.sites import RadioCell, cells_of, write_sites
from radiomaps.materials import ITU_MATERIALS, Material
from radiomaps.raytrace.calibration.fit import Fit, Priors, fit
from radiomaps.raytrace.calibration.forward import StoredPaths, store_paths
from radiomaps.raytrace.calibration.measurements import Measurements, read_measurements
from radiomaps.raytrace.options import TraceOptions

if TYPE_CHECKING:
    from radiomaps.scenes import Scene

__all__ = ["Calibration", "calibrate", "held_out"]

_MOST = 3000


@dataclass(frozen=True, eq=False)
class Calibration:
    """Result of a calibration.

    `fit` is the fit to all readings. `scores` compare powers before and after calibration, on held-out blocks (with a
    fit that excludes them) and on the fitted readings. `cells` and `materials` include the applied corrections.
    `measured` are the averaged readings with a path, `before_db` and `after_db` their residuals, measured minus
    predicted.
    """

    fit: Fit
    scores: dict[str, float]
    cells: tuple[RadioCell, ...]
    materials: tuple[Material, ...]
    measured: Measurements
    before_db: NDArray[np.float64]
    after_db: NDArray[np.float64]
    held_out: NDArray[np.bool_]

    def write(self, folder: str | os.PathLike[str]) -> dict[str, Path]:
        """Write `sites.yaml` and `materials.yaml` for `radiomaps trace`, `residuals.csv` and `calibration.json`."""
        import yaml

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {"sites": write_sites(folder / "sites.yaml", self.cells)}
        if self.materials:
            files["materials"] = folder / "materials.yaml"
            rows = {row.pop("name"): row for row in (material.describe() for material in self.materials)}
            with atomic_path(files["materials"]) as partial:
                partial.write_text(yaml.safe_dump(rows, sort_keys=False), encoding="utf-8")
        files["residuals"] = folder / "residuals.csv"
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["x", "y", "z", "cell", "power_dbm", "readings", "before_db", "after_db", "held_out"])
        for k in range(len(self.measured)):
            place = (f"{value:.2f}" for value in self.measured.points[k])
            numbers = (f"{value:.2f}" for value in (self.before_db[k], self.after_db[k]))
            power, count = f"{self.measured.power_dbm[k]:.2f}", int(self.measured.count[k])
            writer.writerow([*place, self.measured.cell[k], power, count, *numbers, int(self.held_out[k])])
        with atomic_path(files["residuals"]) as partial:
            partial.write_text(stream.getvalue(), encoding="utf-8")
        files["summary"] = folder / "calibration.json"
        left_out = dict(self.measured.left_out)
        write_json(files["summary"], {"parameters": self.fit.rows(), **self.scores, "left_out": left_out})
        return files


def calibrate(
    scene: Scene | str | os.PathLike[str] | Mapping[str, Any],
    sites: Any,
    measurements: str | os.PathLike[str] | Measurements,
    *,
    options: TraceOptions | None = None,
    priors: Priors | None = None,
    average_m: float = 2.0,
    block_m: float = 50.0,
    held_out_share: float = 0.25,
    height_m: float = 1.5,
    rays: int = 100_000,
    top: int = 32,
    seed: int = 0,
) -> Calibration:
    """Fit offsets and azimuths of cells and losses of materials to measured powers.

    Args:
        scene: a `Scene`, or an argument of `radiomaps.load_scene`.
        sites: the measured cells, or their file.
        measurements: a CSV file of positions, cells and dBm (see `read_measurements`), or `Measurements`.
        options: options of the exact paths; by default three bounces, one diffraction, and 5.9 GHz for cells without a
            carrier.
        priors: prior standard deviations of the corrections.
        average_m: readings of a cell are averaged in squares of this size, larger if more than 3000 remain; 0: off.
        block_m: size of the square blocks, of which `held_out_share` is held out to score the fit. The final fit uses
            all readings.
        height_m: height of receivers above the ground, if the file has none.
        rays: number of rays that discover chains of surfaces.
        top: number of strongest paths stored per place and cell.

    Returns a `Calibration` with `fit.rows()`, `scores`, corrected `cells` and `materials`, and residuals;
    `write(folder)` writes the files for `radiomaps trace`. Raises `UserError` for cells that are missing in `sites`,
    `DataError` for files with an invalid row.

    >>> import radiomaps
    >>> made = radiomaps.calibrate("city.osm", "sites.yaml", "drive.csv")  # doctest: +SKIP
    >>> made.scores["held_out_after_rmse_db"]  # doctest: +SKIP
    """
    from radiomaps.scenes import Scene, load

    scene = scene if isinstance(scene, Scene) else load(scene)
    options = options or TraceOptions(diffraction=True)
    priors = priors or Priors()
    cells = cells_of(sites)
    for name, value, low, high in (("average_m", average_m, 0.0, 1e3), ("block_m", block_m, 1.0, 1e5),
                                   ("held_out_share", held_out_share, 0.0, 0.9)):  # fmt: skip
        if not low <= value <= high:
            raise UserError(f"{name}={value}; expected {low:g} … {high:g}")
    if not isinstance(measurements, Measurements):
        measurements = read_measurements(measurements, scene, height_m=height_m)
    found = measurements.within(scene, [cell.name for cell in cells])
    while average_m > 0 and len(narrow := found.averaged(average_m)) > _MOST:
        average_m *= 1.5
    found = narrow if average_m > 0 else found
    if not len(found):
        raise UserError(f"no measurement lies outdoors in scene {scene.name!r}: {_reasons(found.left_out)}")
    paths = store_paths(scene, [cell.transmitter(scene) for cell in cells], found, options, rays=rays, top=top)
    return calibrated(
        cells, paths, found, priors, table=scene.materials, block_m=block_m, share=held_out_share, seed=seed
    )


def calibrated(
    cells: Sequence[RadioCell], paths: StoredPaths, measured: Measurements, priors: Priors, *, block_m: float,
    share: float, seed: int, table: Sequence[Material] = (),
) -> Calibration:  # fmt: skip
    """The calibration of stored paths; `table` are the materials that the scene defines."""
    lit = paths.power.sum(axis=1) > 0
    if not lit.all():
        dark = int(measured.count[~lit].sum())
        measured = replace(measured, left_out={**measured.left_out, "without a path": dark})
    if not lit.any():
        raise UserError("no path reaches any measured place; set options.diffraction=true, or check the sites")
    paths, measured = paths[lit], measured[lit]
    apart = held_out(measured.points, block_m, share, seed)
    scores: dict[str, float] = {"places": float(len(measured))}
    whole = fit(paths, measured.points, measured.power_dbm, measured.count, priors, seed=seed)
    names = whole.parameters
    before = measured.power_dbm - paths.predict(np.zeros(len(names)), names)[0]
    after = measured.power_dbm - paths.predict(whole.values, names)[0]
    if apart.any() and not apart.all():
        kept = ~apart
        some = measured[kept]
        partial = fit(paths[kept], some.points, some.power_dbm, some.count, priors, seed=seed)
        values = matched(partial, names.names)
        scores["held_out_before_rmse_db"] = rmse(before[apart])
        scores["held_out_after_rmse_db"] = rmse((measured.power_dbm - paths.predict(values, names)[0])[apart])
    # Corrections that do not improve the held-out readings are not applied.
    if scores.get("held_out_after_rmse_db", -np.inf) >= scores.get("held_out_before_rmse_db", np.inf):
        whole = replace(whole, values=np.zeros(len(names)), applied=np.zeros(len(names), bool))
        after = before
    scores |= {"before_rmse_db": rmse(before), "after_rmse_db": rmse(after)}
    scores |= {"shadowing_los_db": whole.noise.lit_db, "shadowing_nlos_db": whole.noise.dark_db}
    scores["decorrelation_m"] = whole.noise.distance_m
    rounded = {key: round(value, 3) for key, value in scores.items()}
    sites = _corrected(cells, whole)
    return Calibration(whole, rounded, sites, _materials(whole, table), measured, before, after, apart)


def matched(found: Fit, names: Sequence[str]) -> NDArray[np.float64]:
    """The applied values of a fit in the order of these names, 0 for names that it lacks."""
    values = dict(zip(found.parameters.names, found.values, strict=True))
    return np.array([float(values.get(name, 0.0)) for name in names])


def rmse(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def held_out(points: NDArray[np.float64], block_m: float, share: float, seed: int) -> NDArray[np.bool_]:
    """Which places are held out: those in a random `share` of the square blocks that contain places."""
    _, block = np.unique(np.floor(points[:, :2] / block_m).astype(np.int64), axis=0, return_inverse=True)
    block = block.ravel()
    number = int(block.max()) + 1
    chosen = np.random.default_rng(seed).permutation(number)[: round(share * number)]
    return np.isin(block, chosen)


def _corrected(cells: Sequence[RadioCell], found: Fit) -> tuple[RadioCell, ...]:
    """Cells with corrected powers and azimuths."""
    values = dict(zip(found.parameters.names, found.values, strict=True))
    made = []
    for cell in cells:
        power = cell.power_dbm + float(values.get(f"offset_db:{cell.name}", 0.0))
        turned = (cell.azimuth_deg + float(values.get(f"azimuth_deg:{cell.name}", 0.0))) % 360.0
        azimuth = turned if values.get(f"azimuth_deg:{cell.name}") else cell.azimuth_deg
        made.append(replace(cell, power_dbm=round(power, 3), azimuth_deg=round(azimuth, 3)))
    return tuple(made)


def _materials(found: Fit, table: Sequence[Material]) -> tuple[Material, ...]:
    """The table of materials with fitted reflection losses; empty if there are none."""
    made = {material.name: material for material in table}
    changed = False
    for name, value in zip(found.parameters.names, found.values, strict=True):
        kind, _, material = name.partition(":")
        if kind == "loss_db" and value > 0:
            usual = made.get(material, Material(name=material) if material in ITU_MATERIALS else None)
            assert usual is not None
            made[material] = replace(usual, loss_db=round(usual.loss_db + float(value), 3))
            changed = True
    return tuple(made.values()) if changed else ()


def _reasons(left_out: Any) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in left_out.items()) or "the file has no rows"

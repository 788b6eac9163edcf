"""Coverage of several cells: best server, RSRP and SINR on the grid, and the share of covered voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.constants import BOLTZMANN
from geoml.errors import UserError

__all__ = ["LinkBudget", "coverage", "coverage_tables"]


@dataclass(frozen=True, kw_only=True)
class LinkBudget:
    """Parameters of the link budget that converts path gains to RSRP and SINR.

    A cell's power is distributed evenly over its subcarriers, which fill 90 % of the bandwidth, as in LTE and NR. RSRP
    is the power received on one subcarrier. The noise power on a subcarrier is k T times the subcarrier's width and the
    noise figure. Other cells of the same carrier interfere with the share `load` of their power. A voxel is covered if
    RSRP is at least `rsrp_dbm` and SINR at least `sinr_db`.
    """

    bandwidth_hz: float = 20e6
    subcarrier_hz: float = 15e3
    noise_figure_db: float = 7.0
    temperature_k: float = 290.0
    load: float = 1.0
    receiver_gain_db: float = 0.0
    rsrp_dbm: float = -110.0
    sinr_db: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (("bandwidth_hz", 1.0, 1e11), ("subcarrier_hz", 1.0, 1e11), ("load", 0.0, 1.0),
                                ("noise_figure_db", -10.0, 100.0), ("temperature_k", 1.0, 1e4),
                                ("receiver_gain_db", -100.0, 100.0), ("rsrp_dbm", -300.0, 200.0),
                                ("sinr_db", -200.0, 200.0)):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name}={value} in the link budget; expected {low:g} … {high:g}")
        if self.subcarrier_hz > self.bandwidth_hz:
            raise UserError(f"subcarrier_hz={self.subcarrier_hz:g} is wider than bandwidth_hz={self.bandwidth_hz:g}")

    @property
    def subcarriers(self) -> int:
        """Number of subcarriers in the bandwidth.

        >>> LinkBudget(bandwidth_hz=20e6, subcarrier_hz=15e3).subcarriers
        1200
        """
        return max(1, round(0.9 * self.bandwidth_hz / self.subcarrier_hz))

    @property
    def noise_dbm(self) -> float:
        """Noise power on one subcarrier, in dBm.

        >>> round(LinkBudget().noise_dbm, 1)
        -125.2
        """
        noise = BOLTZMANN * self.temperature_k * self.subcarrier_hz
        return 10 * math.log10(noise * 1e3) + self.noise_figure_db


def coverage(maps: xr.Dataset, budget: LinkBudget | None = None) -> xr.Dataset:
    """Coverage from the maps of several cells on `(tx, z, y, x)`, as returned by `radiomaps.trace`.

    Returns `rsrp_dbm` of the best server, `best_server` (index of the cell along `cell`, -1 for none), `sinr_db`,
    `covered`, and `cell_rsrp_dbm` of every cell. The best server is the cell with the highest RSRP. The other cells of
    its carrier interfere. Values are NaN in buildings and in voxels that no path of any cell reaches.

    >>> import radiomaps
    >>> scene = radiomaps.load_scene("procedural-0")
    >>> grid = radiomaps.Grid.box({"z": 1, "y": 96, "x": 96}, {"z": 5, "y": 160, "x": 160}, {"z": 4, "y": 8, "x": 8})
    >>> maps = radiomaps.trace(scene, [(60.0, 100.0, 40.0), (190.0, 140.0, 40.0)], grid, solver="dominant")
    >>> layers = coverage(maps)
    >>> layers["rsrp_dbm"].dims, sorted(set(layers["best_server"].values.ravel().tolist()) - {-1})
    (('z', 'y', 'x'), [0, 1])
    """
    budget = budget or LinkBudget()
    gain = maps["path_gain_db"].transpose("tx", "z", "y", "x")
    outdoors = ~maps["building"].transpose("z", "y", "x").values.astype(bool)
    shift = budget.receiver_gain_db - 10 * math.log10(budget.subcarriers)
    level = gain.values.astype(float) + maps["tx_power_dbm"].values[:, None, None, None] + shift
    level = np.where(outdoors, level, np.nan)
    best, rsrp, sinr = _servers(level, maps["frequency_hz"].values, budget)
    covered = (rsrp >= budget.rsrp_dbm) & (sinr >= budget.sinr_db)
    space = ("z", "y", "x")
    names = [str(name) for name in maps["tx"].values]
    about = {"flag_values": list(range(-1, len(names))), "flag_meanings": " ".join(["none", *map(_flag, names)])}
    layers: dict[str, Any] = {
        "rsrp_dbm": (space, rsrp.astype(np.float32), {"units": "dBm", "long_name": "RSRP of the best server"}),
        "sinr_db": (space, sinr.astype(np.float32), {"units": "dB", "long_name": "SINR of the best server"}),
        "best_server": (space, best, {"units": "1", "long_name": "index of the best server", **about}),
        "covered": (space, covered, {"units": "1", "long_name": "RSRP and SINR reach their thresholds"}),
        "building": (space, ~outdoors, {"units": "1", "long_name": "inside a building or below the ground"}),
        "cell_rsrp_dbm": (("cell", *space), level.astype(np.float32), {"units": "dBm", "long_name": "RSRP"}),
    }
    coords: dict[str, Any] = {name: maps[name] for name in (*space, "ground_m") if name in maps.coords}
    coords["cell"] = ("cell", names, {"long_name": "cell"})
    for name in ("tx_x", "tx_y", "tx_z", "tx_power_dbm", "frequency_hz", "tx_azimuth_deg"):
        if name in maps.coords:
            coords[name] = ("cell", maps[name].values, maps[name].attrs)
    kept = {
        key: value for key, value in maps.attrs.items() if key in ("scene", "scene_hash", "licence", "crs", "solver")
    }
    settings = {name: getattr(budget, name) for name in ("bandwidth_hz", "subcarrier_hz", "noise_figure_db", "load")}
    settings |= {"needed_rsrp_dbm": budget.rsrp_dbm, "needed_sinr_db": budget.sinr_db, "noise_dbm": budget.noise_dbm}
    return xr.Dataset(layers, coords, {"title": "Coverage", **kept, **settings})


def _flag(name: str) -> str:
    """Replace characters that CF does not allow in `flag_meanings` by underscores."""
    return "".join(letter if letter.isalnum() or letter in "_-.+@" else "_" for letter in name) or "_"


def _servers(
    level: NDArray[np.float64], carriers: Sequence[float] | NDArray[Any], budget: LinkBudget
) -> tuple[NDArray[np.int16], NDArray[np.float64], NDArray[np.float64]]:
    """Index, RSRP and SINR of the best server, from the RSRP of all cells `(cell, …)`."""
    known = np.where(np.isfinite(level), level, -np.inf)
    best = known.argmax(axis=0)
    rsrp = np.take_along_axis(known, best[None], 0)[0]
    power = 10 ** (known / 10)
    carriers = np.asarray(carriers, float)
    same = carriers[:, None] == carriers[None, :]
    total = np.einsum("ij,j...->i...", same.astype(float), power)  # all power on each cell's carrier
    own = np.take_along_axis(power, best[None], 0)[0]
    others = np.maximum(np.take_along_axis(total, best[None], 0)[0] - own, 0.0)
    with np.errstate(divide="ignore"):
        sinr = rsrp - 10 * np.log10(budget.load * others + 10 ** (budget.noise_dbm / 10))
    found = np.isfinite(rsrp)
    return (
        np.where(found, best, -1).astype(np.int16),
        np.where(found, rsrp, np.nan),
        np.where(found, sinr, np.nan),
    )


def coverage_tables(layers: xr.Dataset) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two tables: shares of covered outdoor voxels by height, and shares of voxels that each cell serves."""
    outdoors = ~layers["building"].values
    best, covered = layers["best_server"].values, layers["covered"].values
    rsrp, sinr = layers["rsrp_dbm"].values, layers["sinr_db"].values
    needed, wanted = layers.attrs["needed_rsrp_dbm"], layers.attrs["needed_sinr_db"]

    def share(part: NDArray[Any], of: NDArray[Any]) -> float:
        return round(100 * float(part[of].mean()), 1) if of.any() else 0.0

    heights = []
    for index, height in enumerate(layers["z"].values):
        here = outdoors[index]
        heights.append({
            "height_m": float(height),
            "covered_%": share(covered[index], here),
            f"rsrp_{needed:g}_dbm_%": share(rsrp[index] >= needed, here),
            f"sinr_{wanted:g}_db_%": share(sinr[index] >= wanted, here),
            "no_path_%": share(best[index] < 0, here),
            "rsrp_median_dbm": _median(rsrp[index]),
            "sinr_median_db": _median(sinr[index]),
        })  # fmt: skip
    cells = []
    for number, name in enumerate(layers["cell"].values):
        served = best == number
        cells.append({
            "cell": str(name),
            "serves_%": share(served, outdoors),
            "covered_%": share(served & covered, outdoors),
            "rsrp_median_dbm": _median(rsrp[served]),
            "sinr_median_db": _median(sinr[served]),
        })  # fmt: skip
    return heights, cells


def _median(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return round(float(np.median(known)), 1) if known.size else math.nan

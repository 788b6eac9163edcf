"""Path tables in the layout of DeepMIMO 4: a folder of matrices for each transmitter, and `params.json`.

Layout of DeepMIMO's `{matrix}_t{tx set}_tx{transmitter}_r{rx set}.npz`, each with one array of the matrix's name:

| matrix | shape | what |
|---|---|---|
| `power`, `phase`, `delay` | user, path | dB (of 1 W sent, dBW), degrees, s |
| `aoa_az`, `aoa_el`, `aod_az`, `aod_el` | user, path | degrees; "elevation" is the angle from the zenith there too |
| `inter` | user, path | one digit per interaction: 0 line of sight, 1 reflection, 2 diffraction |
| `doppler` | user, path | Hz |
| `rx_pos`, `tx_pos` | user, 3 and 1, 3 | m |

NaN where there is no path. Transmitters are set 0, receivers set 1. A channel is Σ √power exp(i phase) exp(-2πi f τ) at
the offset `f` Hz from the carrier, whose phase over the delay is included in `phase`. Path tables lack some data of
DeepMIMO: positions of interactions (`inter_pos`), the order of diffraction and reflections (diffraction is written
first), and the scene's faces.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml.errors import DataError, UserError
from geoml.runs.files import atomic_path, read_json, write_json
from radiomaps.maps.layout import Transmitter

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["ANGLES", "MATRICES", "export_deepmimo", "read_deepmimo"]

ANGLES = {
    "aoa_az": "arrival_azimuth",
    "aoa_el": "arrival_zenith",
    "aod_az": "departure_azimuth",
    "aod_el": "departure_zenith",
}
_FILE = re.compile(r"^power_t\d+_tx\d+_r\d+\.(npz|mat)$")
MATRICES = ("power", "phase", "delay", *ANGLES, "inter", "doppler", "rx_pos", "tx_pos")


def export_deepmimo(
    table: xr.Dataset, folder: str | os.PathLike[str], *, polarisation: str = "V"
) -> list[dict[str, Any]]:
    """Write a table of `radiomaps.raytrace.find_paths` in DeepMIMO's layout; returns one row per transmitter.

    DeepMIMO has one polarisation per receiver; `polarisation` ("V" or "H") selects it. Paths are sorted by the power in
    this polarisation. The folder is written atomically.
    """
    if polarisation not in table["polarisation"].values:
        raise UserError(f"polarisation={polarisation!r}; expected one of {', '.join(table['polarisation'].values)}")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; delete it, or choose another name")
    rows: list[dict[str, Any]] = []
    with atomic_path(folder) as partial:
        partial.mkdir(parents=True)
        for index in range(table.sizes["tx"]):
            matrices = _matrices(table.isel(tx=index).sel(polarisation=polarisation))
            for name, values in matrices.items():
                file: Any = partial / f"{name}_t000_tx{index:03d}_r001.npz"
                np.savez_compressed(file, **{name: values.astype(np.float32)})  # type: ignore[arg-type]
            active = int(np.isfinite(matrices["power"]).any(axis=1).sum())
            name = str(table["tx"].values[index])
            rows.append({"transmitter": name, "users": table.sizes["rx"], "active": active, "folder": str(folder)})
        write_json(partial / "params.json", _params(table, max(row["active"] for row in rows)))
    return rows


def _matrices(one: xr.Dataset) -> dict[str, NDArray[Any]]:
    """The matrices of one transmitter and polarisation."""
    amplitude = one["amplitude_real"].values + 1j * one["amplitude_imag"].values.astype(np.float64)
    there = np.isfinite(one["delay_s"].values) & (np.abs(amplitude) > 0)
    with np.errstate(divide="ignore"):
        power = np.where(there, 20 * np.log10(np.abs(amplitude)), np.nan)
    bent, bounces = one["diffracted"].values.astype(bool), one["bounces"].values.astype(np.int64)
    # n reflections are written as 11…1; a diffraction replaces one digit.
    codes = (10.0**bounces - 1) // 9 + np.where(bent, 10.0 ** (bounces - 1), 0)
    found = {
        "power": power,
        "phase": np.degrees(np.angle(amplitude)),
        "delay": one["delay_s"].values,
        "inter": codes,
        "doppler": one["doppler_hz"].values,
        **{name: np.degrees(one[variable].values) for name, variable in ANGLES.items()},
    }
    order = np.argsort(np.where(there, -power, np.inf), axis=1, kind="stable")
    matrices = {
        name: np.take_along_axis(np.where(there, values, np.nan), order, axis=1) for name, values in found.items()
    }
    places = {f"{end}_pos": np.stack([one[f"{end}_{axis}"].values for axis in "xyz"], axis=-1) for end in ("rx", "tx")}
    return matrices | {name: np.atleast_2d(values) for name, values in places.items()}


def _params(table: xr.Dataset, active: int) -> dict[str, Any]:
    """Content of DeepMIMO's `params.json`, without values that a path table does not contain."""

    def end(number: int, name: str, points: int, active: int) -> dict[str, Any]:
        return {
            "name": name,
            "id_orig": number,
            "id": number,
            "is_tx": number == 0,
            "is_rx": number == 1,
            "num_points": points,
            "num_active_points": active,
            "num_ant": 1,
            "dual_pol": False,
            "ant_rel_positions": [[0, 0, 0]],
            "array_orientation": [0, 0, 0],
            "grid_spacing": None,
        }

    depth, count = int(table.attrs["depth"]), table.sizes["tx"]
    return {
        "version": "4.0.0",
        "rt_params": {
            "raytracer_name": "Sionna Ray Tracing",
            "raytracer_version": str(table.attrs["solver_version"]),
            "frequency": float(table.attrs["frequency_hz"]),
            "max_path_depth": depth,
            "max_reflections": depth,
            "max_diffractions": int(table["diffracted"].values.any()),
            "max_scattering": 0,
            "max_transmissions": 0,
            "num_rays": int(table.attrs["rays"]),
            "synthetic_array": True,
        },
        "scene": {"num_scenes": 1, "name": str(table.attrs["scene"]), "licence": str(table.attrs["licence"])},
        "materials": {},
        "txrx_sets": {
            "txrx_set_0": end(0, "transmitters", count, count),
            "txrx_set_1": end(1, "receivers", table.sizes["rx"], active),
        },
    }


def read_deepmimo(folder: str | os.PathLike[str]) -> tuple[list[Transmitter], list[dict[str, NDArray[np.float32]]]]:
    """Read transmitters and their matrices from a folder of `.npz` or `.mat` files, in order of set and number.

    Power, phase and delay are required, other matrices are optional. A transmitter's name is that of its files, such as
    `t000_tx000_r001`.
    """
    folder = Path(folder)
    read_json(folder / "params.json")
    pairs = sorted(path.name.removeprefix("power") for path in folder.glob("power_*") if _FILE.match(path.name))
    if not pairs:
        raise DataError(f"{folder} holds no power_t000_tx000_r001.npz or the like; expected DeepMIMO 4's matrices")
    transmitters, every = [], []
    for pair in pairs:
        matrices = {name: _matrix(folder / f"{name}{pair}", name) for name in MATRICES}
        kept = {name: values for name, values in matrices.items() if values is not None}
        missing = [name for name in ("power", "phase", "delay", "tx_pos") if name not in kept]
        if missing:
            raise DataError(f"{folder} lacks {', '.join(f'{name}{pair}' for name in missing)}")
        place = np.ravel(kept["tx_pos"]).tolist()
        if len(place) != 3:
            raise DataError(f"{folder}: tx_pos{pair} has {len(place)} numbers; expected x, y, z of one transmitter")
        x, y, z = map(float, place)
        transmitters.append(Transmitter((x, y, z), name=pair.rpartition(".")[0].lstrip("_")))
        every.append(kept)
    return transmitters, every


def _real(values: Any) -> NDArray[np.float32]:
    found = np.asarray(values)
    if found.dtype.kind not in "iufb":
        raise ValueError(f"values of type {found.dtype}; real numbers were expected")
    return found.astype(np.float32)


def _matrix(path: Path, name: str) -> NDArray[np.float32] | None:
    if not path.exists():
        return None
    try:
        if path.suffix == ".mat":
            from scipy.io import loadmat

            return _real(loadmat(path, variable_names=[name])[name])
        with np.load(path, allow_pickle=False) as content:
            return _real(content[name])
    except (OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no matrix of DeepMIMO, or it is damaged ({error})") from error

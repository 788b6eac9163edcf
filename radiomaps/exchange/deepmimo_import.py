"""Import path files in DeepMIMO's layout as a path table. DeepMIMO's converters write them for other ray tracers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.errors import DataError
from geoml.runs.files import read_json
from radiomaps.exchange.deepmimo import ANGLES, read_deepmimo
from radiomaps.maps.path_files import require_suffix, write_paths

__all__ = ["import_deepmimo", "table_of_deepmimo"]

_PAIR = re.compile(r"^(t\d+_tx\d+)_(r\d+)$")
_DIFFRACTION = "2"
#: Matrices, and between which numbers they lie in DeepMIMO's units.
_LIMITS = (("delay", 0.0, 0.1, "seconds"), ("aoa_el", 0.0, 180.0, "degrees from the zenith"),
           ("aod_el", 0.0, 180.0, "degrees from the zenith"), ("power", -1000.0, 100.0, "dB of 1 W sent"))  # fmt: skip


def import_deepmimo(source: str | os.PathLike[str], store: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Write the paths of a folder as a table, `.npz` or `.nc`; returns one row per transmitter."""
    require_suffix(Path(store))
    if Path(store).exists():
        raise DataError(f"{store} exists; delete it, or choose another name")
    table = table_of_deepmimo(source)
    write_paths(Path(store), table)
    count = table["path_count"].values
    return [
        {
            "transmitter": str(name),
            "receivers": table.sizes["rx"],
            "no_path_%": round(100 * float((count[index] == 0).mean()), 1),
            "paths_median": float(np.median(count[index])),
            "file": str(store),
        }
        for index, name in enumerate(table["tx"].values)
    ]


def table_of_deepmimo(source: str | os.PathLike[str]) -> xr.Dataset:
    """The path table of a folder: every transmitter to the receivers of all sets, strongest path first.

    Gains are of one polarisation, V. Phases include the phase of the delay at the carrier, as in other path tables.
    Raises `DataError` if a transmitter has no paths to one of the receiver sets, or receivers have no positions.
    """
    folder = Path(source)
    transmitters, matrices = read_deepmimo(folder)
    about = _about(folder)
    pairs: dict[tuple[str, str], Mapping[str, NDArray[np.float32]]] = {}
    places: dict[str, tuple[float, float, float]] = {}
    for transmitter, found in zip(transmitters, matrices, strict=True):
        match = _PAIR.match(transmitter.name)
        assert match is not None
        if "rx_pos" not in found:
            raise DataError(f"{folder} lacks rx_pos_{transmitter.name}; expected a matrix of receiver positions in m")
        pairs[match[1], match[2]] = _by_user(found, f"{folder}: {transmitter.name}")
        places[match[1]] = transmitter.position
    sets = sorted({name for _, name in pairs})
    for tx in places:
        if missing := [name for name in sets if (tx, name) not in pairs]:
            raise DataError(f"{folder} has no paths of transmitter {tx} to receivers {missing[0]}, which others have")
    width = max(found["power"].shape[1] for found in pairs.values())
    columns = [_columns([pairs[tx, name] for name in sets], width, f"{folder}, transmitter {tx}") for tx in places]
    points = np.concatenate([pairs[next(iter(places)), name]["rx_pos"] for name in sets]).astype(float)
    return _table(columns, list(places), np.array(list(places.values())), points, about)


def _about(folder: Path) -> dict[str, Any]:
    """What `params.json` says of the tracer and the scene, with the carrier in Hz."""
    about = read_json(folder / "params.json")
    parts = {key: about.get(key) if isinstance(about, Mapping) else None for key in ("rt_params", "scene")}
    known = {key: dict(part) if isinstance(part, Mapping) else {} for key, part in parts.items()}
    try:
        carrier = float(known["rt_params"]["frequency"])
    except (KeyError, TypeError, ValueError):
        raise DataError("params.json names no rt_params.frequency, the carrier of these paths in Hz") from None
    if not 1e6 <= carrier <= 1e12:
        raise DataError(f"params.json has rt_params.frequency={carrier:g}; expected Hz, 1e6 … 1e12")
    known["rt_params"]["frequency"] = carrier
    return known


def _by_user(found: Mapping[str, NDArray[np.float32]], where: str) -> dict[str, NDArray[np.float32]]:
    """Matrices (user, path) and places (user, 3), whose numbers can be of the units of DeepMIMO."""
    places = np.atleast_2d(found["rx_pos"])
    if places.ndim != 2 or places.shape[1] != 3 or not np.isfinite(places).all() or not len(places):
        raise DataError(f"{where}: rx_pos of shape {found['rx_pos'].shape}; expected x, y, z of each receiver")
    made = {"rx_pos": places, "tx_pos": found["tx_pos"]}
    for name, values in found.items():
        if name in made:
            continue
        if values.ndim == 1:  # one path, or one user
            values = values[:, None] if len(values) == len(places) else values[None]
        if values.ndim != 2 or len(values) != len(places):
            raise DataError(f"{where}: {name} of shape {values.shape} for {len(places)} receivers; expected user, path")
        made[name] = values
    known = {name: values[np.isfinite(values)] for name, values in made.items()}
    for name, low, high, unit in _LIMITS:
        values = known.get(name, known["power"][:0])
        if values.size and (values.min() < low or values.max() > high):
            raise DataError(f"{where}: {name} runs from {values.min():.4g} to {values.max():.4g}; expected {unit}")
    if known["power"].size and known["power"].min() >= 0:
        raise DataError(f"{where}: no power is below 0 dB; expected dB of 1 W sent, not a linear power")
    for name, turn in (("phase", 2 * np.pi), ("aoa_el", np.pi)):
        values = known.get(name, known["power"][:0])
        if values.size >= 16 and np.abs(values).max() <= turn + 0.01:
            raise DataError(f"{where}: {name} is at most {np.abs(values).max():.3g}, as in radians; expected degrees")
    return made


def _columns(parts: Sequence[Mapping[str, NDArray[np.float32]]], width: int, where: str) -> dict[str, NDArray[Any]]:
    """Columns of the path table for one transmitter and the receivers of all sets."""

    def joined(name: str, missing: float) -> NDArray[np.float64]:
        made = []
        for part in parts:
            users = part["power"].shape
            values = part.get(name, np.full(users, missing, np.float32))
            if values.shape != users:
                raise DataError(f"{where}: {name} has shape {values.shape}, power {users}")
            made.append(np.pad(values.astype(float), ((0, 0), (0, width - users[1])), constant_values=np.nan))
        return np.concatenate(made)

    power = joined("power", np.nan)
    there = np.isfinite(power) & np.isfinite(joined("delay", np.nan))
    order = np.argsort(np.where(there, -power, np.inf), axis=1, kind="stable")
    names = ("power", "phase", "delay", "doppler", "inter", *ANGLES)
    missing = {"doppler": 0.0, "inter": -1.0}
    kept = np.take_along_axis(there, order, axis=1)
    found = {
        name: np.where(kept, np.take_along_axis(joined(name, missing.get(name, np.nan)), order, axis=1), np.nan)
        for name in names
    }
    amplitude = np.where(kept, 10 ** (found["power"] / 20) * np.exp(1j * np.radians(found["phase"])), 0.0)
    total = (np.abs(amplitude) ** 2).sum(axis=1)
    codes = [["" if not ok or code < 0 else f"{code:.0f}" for code, ok in zip(*row, strict=True)]
             for row in zip(found["inter"], kept, strict=True)]  # fmt: skip
    with np.errstate(divide="ignore"):
        return {
            "path_gain_db": 10 * np.log10(total),
            "coherent_gain_db": 20 * np.log10(np.abs(amplitude.sum(axis=1))),
            "path_count": kept.sum(axis=1).astype(np.int32),
            "gain_db": found["power"],
            "amplitude_real": amplitude.real[:, None],
            "amplitude_imag": amplitude.imag[:, None],
            "delay_s": found["delay"],
            "doppler_hz": found["doppler"],
            "bounces": np.array([[len(code.strip("0")) for code in row] for row in codes], np.int8),
            "diffracted": np.array([[_DIFFRACTION in code for code in row] for row in codes], bool),
            **{ours: np.radians(found[theirs]) for theirs, ours in ANGLES.items()},
        }


def _table(
    columns: Sequence[Mapping[str, NDArray[Any]]], names: Sequence[str], places: NDArray[np.float64],
    points: NDArray[np.float64], about: Mapping[str, Any],
) -> xr.Dataset:  # fmt: skip
    """The Dataset, with the units of `radiomaps.raytrace.find_paths`."""
    from radiomaps.raytrace.path_names import ABOUT

    variables = {}
    for name in columns[0]:
        values = np.stack([column[name] for column in columns])
        units, long_name = ABOUT[name]
        dims = ("tx", "rx", "polarisation", "path") if name.startswith("amplitude") else ("tx", "rx", "path")
        narrow = values.astype(np.float32) if values.dtype == np.float64 else values
        variables[name] = (dims[: values.ndim], narrow, {"units": units, "long_name": long_name})
    coords: dict[str, Any] = {"tx": list(names), "polarisation": ["V"]}
    for axis, letter in enumerate("xyz"):
        coords[f"tx_{letter}"] = ("tx", places[:, axis], {"units": "m"})
        coords[f"rx_{letter}"] = ("rx", points[:, axis], {"units": "m"})
        coords[f"rx_velocity_{letter}"] = ("rx", np.zeros(len(points)), {"units": "m s-1"})
    traced, scene = about.get("rt_params", {}), about.get("scene", {})
    attrs = {
        "solver": str(traced.get("raytracer_name", "unknown")),
        "solver_version": str(traced.get("raytracer_version", "unknown")),
        "scene": str(scene.get("name", "unknown")),
        "scene_hash": "unknown",
        "licence": str(scene.get("licence", "")),
        "rays": int(traced.get("num_rays") or 0),
        "depth": int(traced.get("max_path_depth") or 0),
        "frequency_hz": traced["frequency"],
    }
    return xr.Dataset(variables, coords, attrs)

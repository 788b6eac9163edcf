"""Regions of the RainShift protocol and user-defined ones: a region is a YAML file in `conf/region`."""

from __future__ import annotations

import functools
import os
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml.errors import DataError, UserError, unknown
from rainshift.places.climate import Climate

if TYPE_CHECKING:
    from geoml.grids.grid import Grid

__all__ = ["Region", "adjacent", "as_rows", "grids", "load_region", "neighbours", "overlap", "region", "regions"]

#: Environment variable with additional folders of region files, separated as in PATH.
SEARCH_VARIABLE = "RAINSHIFT_REGIONS"
SHIPPED = Path(__file__).parents[1] / "conf" / "region"
FINE_DEG = 0.1
COARSE_DEG = 0.25
JOINT_DEG = 0.5  # five fine and two coarse cells


@dataclass(frozen=True)
class Region:
    """Latitude–longitude box in degrees with longitudes within ±180, and its climate if known."""

    name: str
    lat_min: float
    lat_max: float
    lon_min: float
    lon_max: float
    title: str = ""
    continent: str = ""
    climate_note: str = ""
    dataset_lon: str = "-180..180"
    source: str = ""
    verified: bool = False
    climate: Climate | None = None

    def __post_init__(self) -> None:
        where = f"region {self.name!r}"
        if not -90 <= self.lat_min < self.lat_max <= 90:
            raise UserError(f"{where}: lat_min {self.lat_min}, lat_max {self.lat_max}; expected -90 <= min < max <= 90")
        if not -180 <= self.lon_min < self.lon_max <= 180:
            raise UserError(
                f"{where}: lon_min {self.lon_min}, lon_max {self.lon_max}; expected -180 <= min < max <= 180"
            )
        if self.dataset_lon not in ("-180..180", "0..360"):
            raise UserError(f"{where}: dataset_lon is {self.dataset_lon!r}; expected '-180..180' or '0..360'")

    @property
    def size_deg(self) -> tuple[float, float]:
        """Extent in latitude and longitude in degrees."""
        return self.lat_max - self.lat_min, self.lon_max - self.lon_min

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, without the climate."""
        values = asdict(self)
        del values["climate"]
        return values


def load_region(path: str | os.PathLike[str]) -> Region:
    """Read a region from a YAML file. Its `name` must be the file name without suffix."""
    path = Path(path)
    values = _values(path)
    if not isinstance(values, dict):
        raise DataError(f"{path} contains {type(values).__name__}; expected the keys name, lat_min, lat_max, …")
    known = Region.__dataclass_fields__
    for key in values:
        if key not in known:
            raise unknown("region key", key, known, hint=f"in {path}")
    if missing := [key for key in ("name", "lat_min", "lat_max", "lon_min", "lon_max") if key not in values]:
        raise DataError(f"{path} has no {', '.join(missing)}; add the missing keys")
    if values["name"] != path.stem:
        raise DataError(f"{path}: name is {values['name']!r}; expected {path.stem!r}, the file name without suffix")
    try:
        climate = values.pop("climate", None)
        return Region(**values, climate=Climate.from_mapping(climate) if climate is not None else None)
    except (UserError, TypeError) as error:
        raise DataError(f"{path}: {error}") from error


def _values(path: Path) -> Any:
    """The content of a region file. The files that come with the package need not be read as those of others are, by
    the slower parser that refuses all but data."""
    if path.parent == SHIPPED:
        import yaml

        return yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    from geoml.runs.files import read_text
    from geoml.runs.stored_config import parse_yaml

    return parse_yaml(read_text(path, "region file"), path)


def _folders() -> tuple[Path, ...]:
    own = os.environ.get(SEARCH_VARIABLE, "")
    return (SHIPPED, *(Path(folder) for folder in own.split(os.pathsep) if folder))


@functools.cache
def _read(folders: tuple[Path, ...]) -> dict[str, Region]:
    found: dict[str, Region] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{SEARCH_VARIABLE} contains {folder}, which is not a folder")
        for path in sorted(folder.glob("*.yaml")):
            if path.stem in found:
                raise UserError(f"{path} has the name of an existing region, {path.stem!r}; give it another name")
            found[path.stem] = load_region(path)
    return found


def regions() -> dict[str, Region]:
    """Return all regions by name: shipped regions and those in the folders of `RAINSHIFT_REGIONS`.

    >>> len([name for name, found in regions().items() if found.source])
    18
    """
    return dict(_read(_folders()))


def region(name: str) -> Region:
    """Return the region with a name. Raises `UserError` for an unknown name.

    >>> region("europe_west").lat_max
    60.0
    """
    known = regions()
    if name not in known:
        raise unknown("region", name, known)
    return known[name]


def as_rows() -> list[dict[str, Any]]:
    """Return one row of plain values per region, with the names of adjacent regions."""
    known = regions()
    touching: dict[str, list[str]] = {name: [] for name in known}
    for one, other in neighbours(known):
        touching[one].append(other)
        touching[other].append(one)
    return [{**found.as_dict(), "adjacent": touching[name]} for name, found in known.items()]


def _gap(a_min: float, a_max: float, b_min: float, b_max: float) -> float:
    """Return the distance between two intervals; minus the length of the overlap if they overlap."""
    return max(a_min, b_min) - min(a_max, b_max)


def _gaps(a: Region, b: Region) -> tuple[float, float]:
    latitude = _gap(a.lat_min, a.lat_max, b.lat_min, b.lat_max)
    turns = (-360.0, 0.0, 360.0)  # boxes on both sides of the date line
    longitude = min(_gap(a.lon_min, a.lon_max, b.lon_min + turn, b.lon_max + turn) for turn in turns)
    return latitude, longitude


def overlap(a: Region, b: Region) -> bool:
    """Whether two regions share area."""
    return max(_gaps(a, b)) < 0


def adjacent(a: Region, b: Region) -> bool:
    """Whether two regions share part of an edge (more than a corner), so that weather can cross between them.

    >>> adjacent(region("amazon-basin"), region("southamerica-east"))
    True
    """
    latitude, longitude = _gaps(a, b)
    return (latitude == 0 and longitude < 0) or (longitude == 0 and latitude < 0)


def neighbours(known: dict[str, Region]) -> list[tuple[str, str]]:
    """Pairs of names of adjacent regions."""
    return [(a, b) for a, b in combinations(known, 2) if adjacent(known[a], known[b])]


def grids(box: Region) -> tuple[Grid, Grid]:
    """Return the coarse and the fine grid of a region, with ascending latitudes.

    The coarse grid is node-registered. It includes the northern and western edges of the box but not the southern and
    eastern ones (western Europe: 40.25 … 60.0 N, 5.0 W … 14.75 E, 80 × 80). The fine grid is cell-centred (40.05 …
    59.95 N, 200 × 200). Two fine rows and two fine columns lie outside the hull of the coarse nodes.
    """
    from geoml.grids.grid import Grid

    for name, extent in zip(("latitude", "longitude"), box.size_deg, strict=True):
        if abs(extent / JOINT_DEG - round(extent / JOINT_DEG)) > 1e-9:
            raise UserError(f"region {box.name!r} spans {extent}° of {name}; expected a multiple of {JOINT_DEG}°")
    bounds = (box.lat_min, box.lat_max, box.lon_min, box.lon_max)
    return Grid.latlon(*bounds, COARSE_DEG, "node", half_open=True), Grid.latlon(*bounds, FINE_DEG)

"""The plan of a set of maps: scenes × transmitters on one window, as pure functions of a configuration."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from geoml.errors import UserError, unknown
from geoml.grids.grid import Grid
from radiomaps import scenes
from radiomaps.generation.placement import Placement
from radiomaps.maps.layout import VARIABLES, Transmitter
from radiomaps.materials import materials_of
from radiomaps.scenes import Scene

__all__ = ["DEFAULT_VARIABLES", "Placement", "Plan", "Window", "expand_scenes", "furnished"]

DEFAULT_VARIABLES = ("path_gain_db", "toa_s", "doa_azimuth", "doa_zenith", "los", "no_path")
_MOST_A_TASK = 8


@dataclass(frozen=True)
class Window:
    """The mapped part of each scene: a square of `size_m` around `centre_m` (default: the scene's middle).

    `heights_m` are in the scene's z, or, with `above_ground`, above the ground of each column.
    """

    size_m: float = 256.0
    step_m: float = 1.0
    heights_m: tuple[float, float, float] = (1.0, 20.0, 1.0)
    centre_m: tuple[float, float] | None = None
    above_ground: bool = False

    def __post_init__(self) -> None:
        for name in ("size_m", "step_m"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name, length in (("heights_m", 3), ("centre_m", 2)):
            value = getattr(self, name)
            if value is not None:
                if len(value) != length:
                    raise UserError(f"{name}={list(value)}: expected {length} numbers")
                object.__setattr__(self, name, tuple(float(part) for part in value))
        first, last, spacing = self.heights_m
        if (
            not (spacing > 0 and last >= first)
            or abs((last - first) / spacing - round((last - first) / spacing)) > 1e-6
        ):
            raise UserError(
                f"heights_m={list(self.heights_m)}: expected first, last and a step that leads from one to the other"
            )
        if not (self.step_m > 0 and self.size_m >= self.step_m):
            raise UserError(f"a window of {self.size_m} m with cells of {self.step_m} m holds no cell")
        if abs(self.size_m / self.step_m - round(self.size_m / self.step_m)) > 1e-6:
            raise UserError(f"size_m={self.size_m} is not a multiple of step_m={self.step_m}")

    def grid(self, scene: Scene | None = None) -> Grid:
        """The window in a scene's metres; without a scene, with its lower corner at (0, 0)."""
        x0, y0 = 0.0, 0.0
        if scene is not None:
            lower, upper = scene.extent
            middle = self.centre_m or ((lower[0] + upper[0]) / 2, (lower[1] + upper[1]) / 2)
            x0, y0 = (float(round(value - self.size_m / 2, 3)) for value in middle)
        first, last, spacing = self.heights_m
        low = {"z": first - spacing / 2, "y": y0, "x": x0}
        high = {"z": last + spacing / 2, "y": y0 + self.size_m, "x": x0 + self.size_m}
        return Grid.box(low, high, {"z": spacing, "y": self.step_m, "x": self.step_m})


def expand_scenes(entries: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """Every scene as a mapping; a scene with `count` is expanded to that many seeds, starting at its `seed`.

    A scene with `centres_m` is expanded to one entry for each, whose window has this middle.

    >>> [entry["seed"] for entry in expand_scenes([{"name": "procedural", "seed": 5, "count": 3}])]
    [5, 6, 7]
    >>> expand_scenes([{"name": "florence", "centres_m": [[-200, 0], [56, 0]]}])[1]
    {'name': 'florence', 'centre_m': (56.0, 0.0)}
    """
    expanded: list[dict[str, Any]] = []
    for entry in entries:
        options = dict(entry) if isinstance(entry, Mapping) else {"name": str(entry)}
        if "." in str(options.get("name", "")) and "path" not in options:
            options["path"] = options.pop("name")
        options = {key: value for key, value in options.items() if value is not None}
        count, centres = options.pop("count", None), options.pop("centres_m", None)
        if centres is not None:
            expanded += [{**options, "centre_m": _place(centre)} for centre in centres]
        elif count is None:
            expanded.append(options)
        else:
            first = int(options.pop("seed", 0))
            expanded += [{**options, "seed": first + index} for index in range(int(count))]
    return tuple(expanded)


def _place(centre: Any) -> tuple[float, float]:
    """The middle of a window as two numbers."""
    try:
        x, y = (float(value) for value in centre)
    except (TypeError, ValueError):
        raise UserError(f"centres_m holds {centre!r}; expected the middle [x, y] of each window in metres") from None
    return x, y


def furnished(entries: Sequence[Any], materials: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Scenes as mappings, with these materials; a table in a file is read, so that the plan contains it.

    >>> furnished(["munich"], {"table": None, "ground": "wet_ground"})
    ({'name': 'munich', 'materials': {'ground': 'wet_ground'}},)
    """
    chosen = {key: value for key, value in materials.items() if value is not None}
    if "table" in chosen:
        chosen["table"] = [material.describe() for material in materials_of(chosen["table"])]
    expanded = expand_scenes(entries)
    return tuple({**entry, "materials": chosen} for entry in expanded) if chosen else expanded


@functools.lru_cache(maxsize=4)
def _scene(text: str) -> Scene:
    """Load the scene of an entry in JSON. Windows of the same scene get different names."""
    options = json.loads(text)
    centre = options.pop("centre_m", None)
    if centre is None:
        return scenes.load(options)
    scene = _scene(json.dumps(options, sort_keys=True))
    return replace(scene, name=f"{scene.name}@{centre[0]:g},{centre[1]:g}")


@dataclass(frozen=True)
class Plan:
    """Maps of all transmitters in all scenes at all frequencies, `frequencies_hz` or else that of `options`.

    With T transmitters and F frequencies, sample `n` belongs to scene `n // (T F)` and transmitter `n % T`. Samples of
    one scene are ordered by frequency, then by transmitter.

    `solver` is "sionna" or "dominant", `options` are those of its `TraceOptions` or `DominantOptions`. `fill_shadows`
    uses the dominant path where the solver finds none, and adds the mask `filled`. `carriers_hz`: carriers that
    alternate over the scenes, one per scene.
    """

    scenes: tuple[dict[str, Any], ...]
    placement: Placement = field(default_factory=Placement)
    window: Window = field(default_factory=Window)
    solver: str = "dominant"
    options: dict[str, Any] = field(default_factory=dict)
    variables: tuple[str, ...] = DEFAULT_VARIABLES
    seed: int = 0
    fill_shadows: bool = False
    frequencies_hz: tuple[float, ...] = ()
    carriers_hz: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scenes", expand_scenes(self.scenes))
        object.__setattr__(self, "variables", tuple(self.variables))
        for name in ("frequencies_hz", "carriers_hz"):
            try:
                object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name) or ()))
            except ValueError:
                given = list(getattr(self, name))
                raise UserError(f"{name}={given}; expected numbers, as [2.4e9, 5.9e9]") from None
        if self.carriers_hz and (self.frequencies_hz or any(cell.frequency_hz for cell in self.placement.cells)):
            raise UserError("carriers_hz alternates over scenes; leave out frequencies_hz and the carriers of sites")
        if self.frequencies_hz and any(cell.frequency_hz for cell in self.placement.cells):
            raise UserError("frequencies_hz sweeps all cells, but sites name carriers; leave one of them out")
        if self.seed < 0:
            raise UserError(f"seed={self.seed}; expected a whole number, 0 or more")
        if len(set(self.frequencies_hz)) < len(self.frequencies_hz):
            raise UserError(f"frequencies_hz={list(self.frequencies_hz)}: one is repeated")
        if self.fill_shadows and "filled" not in self.variables:
            object.__setattr__(self, "variables", (*self.variables, "filled"))
        if not self.scenes:
            raise UserError("no scene to map; give at least one")
        if self.solver not in ("sionna", "dominant"):
            raise unknown("solver", self.solver, ("sionna", "dominant"))
        for name in self.variables:
            if name not in VARIABLES or VARIABLES[name].dims[:1] != ("tx",):
                raise unknown("variable", name, [key for key, value in VARIABLES.items() if value.dims[:1] == ("tx",)])

    @property
    def maps_a_scene(self) -> int:
        return self.placement.number * max(1, len(self.frequencies_hz))

    @property
    def paths_per_voxel(self) -> int:
        """Number of paths per voxel that the store contains."""
        return int(self.options.get("paths_per_voxel", 0))

    @property
    def samples(self) -> int:
        return len(self.scenes) * self.maps_a_scene

    @property
    def task_size(self) -> int:
        """Maps per job: the largest divisor, up to 8, of a scene's number of transmitters."""
        number = self.placement.number
        return max(size for size in range(1, min(number, _MOST_A_TASK) + 1) if number % size == 0)

    def scene(self, index: int) -> Scene:
        return _scene(json.dumps(self.scenes[index], sort_keys=True))

    def grid(self, index: int) -> Grid:
        """The window in the metres of scene `index`."""
        centre = self.scenes[index].get("centre_m")
        window = self.window if centre is None else replace(self.window, centre_m=tuple(centre))
        return window.grid(self.scene(index))

    @property
    def store_grid(self) -> Grid | None:
        """The window in scene metres where it is the same in all scenes; else None: the corner differs by scene."""
        alike = {json.dumps({**scene, "seed": 0}, sort_keys=True) for scene in self.scenes}
        generated = len(alike) == 1 and str(self.scenes[0].get("name", "")) == "procedural"
        shared = self.window.centre_m and not any("centre_m" in scene for scene in self.scenes)
        return self.grid(0) if shared or len(self.scenes) == 1 or generated else None

    def transmitters(self, index: int) -> list[Transmitter]:
        return self.placement.transmitters(self.scene(index), self.grid(index), (self.seed, index))

    def describe(self) -> dict[str, Any]:
        """The configuration on which the maps depend, in JSON types."""
        plan = json.loads(json.dumps(asdict(self)))
        if not self.placement.sites:  # plans from before sites keep their identity
            del plan["placement"]["sites"]
        if not self.placement.on_roofs:
            del plan["placement"]["on_roofs"], plan["placement"]["mast_m"]
        if not self.carriers_hz:
            del plan["carriers_hz"]
        return plan

    def frequencies_of(self, start: int, stop: int) -> list[float]:
        """Carriers of samples `start … stop`: those of the sweep, or of the cells, or else the solver's."""
        own = [cell.frequency_hz for cell in self.placement.cells] or [None] * self.placement.number
        usual = float(_options(self.solver, self.options).frequency_hz)
        if self.frequencies_hz:
            number = self.placement.number
            return [self.frequencies_hz[index % self.maps_a_scene // number] for index in range(start, stop)]
        if self.carriers_hz:
            return [
                self.carriers_hz[index // self.maps_a_scene % len(self.carriers_hz)] for index in range(start, stop)
            ]
        return [float(own[index % len(own)] or usual) for index in range(start, stop)]

    @property
    def identity(self) -> str:
        """Hash of the configuration and of the solver's version; maps of equal identity agree to 0.01 dB."""
        text = json.dumps([self.describe(), solver_version(self.solver)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def trace(self, start: int, stop: int, advance: Callable[[float], None] | None = None) -> Any:
        """The Dataset of samples `start … stop`, which belong to one scene and frequency; `advance` as in a solver."""
        number = self.placement.number
        index = start // self.maps_a_scene
        if (stop - 1) // number != start // number:
            raise ValueError(f"samples {start} … {stop} belong to two scenes or frequencies; each has {number}")
        chosen = self.transmitters(index)[start % number : (stop - 1) % number + 1]
        options = {**self.options, "above_ground": self.window.above_ground}
        if self.frequencies_hz:
            options["frequency_hz"] = self.frequencies_hz[start % self.maps_a_scene // number]
        elif self.carriers_hz:
            options["frequency_hz"] = self.carriers_hz[index % len(self.carriers_hz)]
        maps = run_solver(self.solver, self.scene(index), chosen, self.grid(index), options, advance=advance)
        if self.fill_shadows:
            from radiomaps.dominant.fill import fill_shadows

            return fill_shadows(maps, self.scene(index))
        return maps


def _options(solver: str, values: Mapping[str, Any]) -> Any:
    """The options of a solver; unknown ones raise `UserError`."""
    import inspect

    if solver == "sionna":
        from radiomaps.raytrace import TraceOptions as Options
    else:
        from radiomaps.dominant import DominantOptions as Options  # type: ignore[assignment]
    known = list(inspect.signature(Options).parameters)
    for key in values:
        if key not in known:
            raise unknown(f"option of solver {solver!r}:", key, known)
    return Options(**values)


def _advance(advance: Callable[[float], None], part: float, share: float) -> None:
    advance(part * share)


def run_solver(
    solver: str,
    scene: Scene,
    transmitters: Sequence[Transmitter],
    grid: Grid,
    options: Mapping[str, Any],
    *,
    advance: Callable[[float], None] | None = None,
) -> Any:
    """Trace with the solver of that name, each transmitter at its carrier if it has one.

    The ray tracer calls `advance` with each completed fraction of its work.
    """
    parts = []
    for carrier, cells in itertools.groupby(transmitters, key=lambda transmitter: transmitter.frequency_hz):
        some = list(cells)
        chosen = _options(solver, {**options, "frequency_hz": carrier} if carrier else options)
        if solver == "sionna":
            from radiomaps.raytrace import trace

            report = None if advance is None else functools.partial(_advance, advance, len(some) / len(transmitters))
            parts.append(trace(scene, some, grid, chosen, advance=report))
        else:
            from radiomaps.dominant import trace as trace_dominant

            parts.append(trace_dominant(scene, some, grid, chosen))
    if len(parts) == 1:
        return parts[0]
    if not parts:
        raise UserError("no transmitter to trace; give at least one")
    import xarray as xr

    joined = xr.concat(parts, "tx", data_vars="minimal", coords="minimal", compat="override", join="exact")
    return joined.assign_attrs({**parts[0].attrs, "frequency_hz": joined["frequency_hz"].values.tolist()})


def solver_version(solver: str) -> str:
    """Version of a solver and of its ray tracer: a part of a plan's identity that is not in the configuration."""
    if solver == "dominant":
        from radiomaps.dominant import VERSION as REVISION

        return f"radiomaps.dominant {REVISION}"
    from importlib import metadata

    from radiomaps.raytrace.options import VERSION

    try:
        return f"sionna-rt {metadata.version('sionna-rt')}, tracer {VERSION}"
    except metadata.PackageNotFoundError:
        raise UserError("ray tracing needs Sionna RT, which is not installed: pip install 'geoml[radiomaps]'") from None

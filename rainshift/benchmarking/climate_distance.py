"""Distances between the climates of regions: distances of distributions, with permutation tests.

Each variable of each region is counted in histograms on common bins, one per block of time, over all cells and evenly
spaced hours. Regions are merged, compared and resampled from these histograms without reading the fields again. Fine
rain is also compared within classes of the coarse rain. This measures a shift of the conditional distribution that a
model learns, in addition to shifts of the predictors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geoml.cli.progress import track
from geoml.data.choice import evenly
from geoml.errors import UserError, unknown
from geoml.grids.grid import grid_of
from geoml.regrid import Regridder
from rainshift.data.archive import Archive

__all__ = [
    "CONDITIONAL",
    "TARGET",
    "ClimateHistograms",
    "climates",
    "hellinger",
    "jensen_shannon",
    "measure_shifts",
    "wasserstein",
]

Array = NDArray[Any]
TARGET = "precipitation"
#: Name of the variable "fine rain, conditional on coarse rain" in results.
CONDITIONAL = "precipitation given coarse rain"
#: Quantile levels of the bin edges, over all regions together: spaced by 1 %, finer towards both ends.
TAIL = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3)
LEVELS = np.array([0, *TAIL, *np.arange(0.01, 0.995, 0.01), *(1 - level for level in reversed(TAIL)), 1])
#: Quantile levels of the bounds of the classes of coarse rain. Equal bounds, from dry hours, are merged.
CLASS_LEVELS = np.array([0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99])
#: Number of values per variable and region that define the bins.
SKETCH = 100_000
HOURS_AT_A_TIME = 24


def wasserstein(p: Array, q: Array, edges: Array) -> NDArray[np.float64]:
    """Compute the Wasserstein-1 distance `∫ |F − G| dx` of two histograms `(…, bin)`.

    The result has the unit of `edges` `(bin + 1,)`. Values are assumed to be uniformly distributed within bins.

    >>> float(wasserstein(np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.0, 1.0, 2.0])))
    1.0
    """
    gap = np.cumsum(_normal(p) - _normal(q), axis=-1)
    gap = np.concatenate([np.zeros_like(gap[..., :1]), gap], axis=-1)
    one, other = gap[..., :-1], gap[..., 1:]
    size = np.abs(one) + np.abs(other)
    crossing = one * other < 0  # two triangles in place of a trapezoid
    area = np.where(crossing, (one**2 + other**2) / np.where(size > 0, size, 1), size) / 2
    return np.asarray((area * np.diff(edges)).sum(axis=-1), np.float64)


def jensen_shannon(p: Array, q: Array) -> NDArray[np.float64]:
    """Compute the Jensen–Shannon divergence of two histograms `(…, bin)` in nats: 0 if equal, ln 2 if disjoint.

    >>> round(float(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0]))), 4)
    0.6931
    """
    p, q = _normal(p), _normal(q)
    middle = (p + q) / 2

    def relative(part: Array) -> Array:
        inside = np.divide(part, middle, out=np.ones_like(middle), where=part > 0)
        return (part * np.log(inside)).sum(axis=-1)

    return np.asarray((relative(p) + relative(q)) / 2, np.float64)


def hellinger(p: Array, q: Array) -> NDArray[np.float64]:
    """Compute the Hellinger distance `√(1 − Σ √(pq))` of two histograms `(…, bin)`: 0 if equal, 1 if disjoint.

    >>> float(hellinger(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    1.0
    """
    common = np.sqrt(_normal(p) * _normal(q)).sum(axis=-1)
    return np.sqrt(np.maximum(1 - common, 0.0))


def _normal(p: Array) -> Array:
    return p / p.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class ClimateHistograms:
    """Histograms of one region, one per block of time.

    Attributes:
        counts: counts `(block, bin)` by variable; `(block, class, bin)` for `CONDITIONAL`, with the classes of coarse
            rain.
        edges: bin edges `(bin + 1,)` by variable, the same for all regions.
        scales: standard deviation of each variable over all regions; distances are divided by it.
    """

    counts: Mapping[str, Array]
    edges: Mapping[str, Array]
    scales: Mapping[str, float]

    def joined(self, others: Iterable[ClimateHistograms]) -> ClimateHistograms:
        """Return this climate merged with `others`."""
        every = (self, *others)
        return ClimateHistograms(
            {name: np.concatenate([part.counts[name] for part in every]) for name in self.counts},
            self.edges,
            self.scales,
        )


def climates(
    archive: Archive, names: Sequence[str], *, role: str = "train", hours: int = 480, block_hours: float = 24.0
) -> dict[str, ClimateHistograms]:
    """Compute the histograms of regions from `hours` evenly spaced hours of each. The data must be prepared.

    `role` selects the hours: "train", "validation" or "test". `block_hours` is the length of a block of time. Raises
    `UserError` for repeated regions and for fewer than two.
    """
    if len(set(names)) != len(names) or len(names) < 2:
        given = ", ".join(names) or "none"
        raise UserError(f"the regions to compare are: {given}; expected two or more different regions")
    sketches = [_sketch(archive, name, role, hours) for name in names]
    pooled = {variable: np.concatenate([part[variable] for part in sketches]) for variable in sketches[0]}
    edges = {variable: np.unique(np.quantile(values, LEVELS)) for variable, values in pooled.items()}
    edges = {name: found if len(found) > 1 else found[0] + np.array([-0.5, 0.5]) for name, found in edges.items()}
    scales = {variable: float(values.std()) or 1.0 for variable, values in pooled.items()}
    if first := dict(archive.channels.first_guess).get(TARGET):
        edges[CONDITIONAL], scales[CONDITIONAL] = edges[TARGET], scales[TARGET]
        classes = np.unique(np.quantile(pooled[first], CLASS_LEVELS))
    else:
        classes = None
    block = np.timedelta64(round(block_hours * 3600), "s")
    return {
        name: ClimateHistograms(_histograms(archive, name, role, hours, block, edges, first, classes), edges, scales)
        for name in track(names, "climates", unit="regions")
    }


def _fields(archive: Archive, name: str, role: str, hours: int) -> Iterator[tuple[Array, dict[str, xr.DataArray]]]:
    """Yield valid times and fields by variable, in chunks of hours."""
    split, indices = archive.samples(name, role)
    indices = indices[evenly(len(indices), hours)]
    groups = archive.open(name, split)
    wanted = [*archive.channels.condition]
    for start in range(0, len(indices), HOURS_AT_A_TIME):
        rows = indices[start : start + HOURS_AT_A_TIME]
        condition = groups["condition"][wanted].isel(time=rows).load()
        target = groups["target"][TARGET].isel(time=rows).load()
        yield target["time"].values, {**{key: condition[key] for key in wanted}, TARGET: target}


def _sketch(archive: Archive, name: str, role: str, hours: int) -> dict[str, Array]:
    """Sample values of every variable, evenly spread over hours and cells."""
    found: dict[str, list[Array]] = {}
    for _, fields in _fields(archive, name, role, hours):
        for variable, field in fields.items():
            values = field.values[np.isfinite(field.values)].ravel()
            step = max(1, values.size * hours // (SKETCH * HOURS_AT_A_TIME))
            found.setdefault(variable, []).append(values[::step].astype(np.float64))
    return {variable: np.concatenate(parts) for variable, parts in found.items()}


def _histograms(
    archive: Archive,
    name: str,
    role: str,
    hours: int,
    block: np.timedelta64,
    edges: Mapping[str, Array],
    first: str | None,
    classes: Array | None,
) -> dict[str, Array]:
    """Count the values of every variable by block of time."""
    parts: dict[str, list[Array]] = {variable: [] for variable in edges}
    numbers: list[int] = []
    regridder: Regridder | None = None
    for times, fields in _fields(archive, name, role, hours):
        if first is not None and regridder is None:
            regridder = Regridder(grid_of(fields[first]), grid_of(fields[TARGET]), "bilinear")
        number = (times - np.datetime64(0, "s")) // block
        for now in np.unique(number):
            here = number == now
            for variable, field in fields.items():
                parts[variable].append(_count(field.values[here], edges[variable]))
            if regridder is not None and first is not None and classes is not None:
                coarse = regridder(np.ascontiguousarray(fields[first].values[here]))
                kind = np.searchsorted(classes, coarse, side="right")
                rain = fields[TARGET].values[here]
                counts = [_count(rain[kind == k], edges[TARGET]) for k in range(len(classes) + 1)]
                parts[CONDITIONAL].append(np.stack(counts))
            numbers.append(int(now))
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))  # a block may span two chunks
    return {variable: np.add.reduceat(np.stack(found), starts) for variable, found in parts.items()}


def _count(values: Array, edges: Array) -> Array:
    """Count values per bin. Values beyond the edges count in the outermost bins; missing values are ignored."""
    known = values[np.isfinite(values)]
    return np.bincount(np.searchsorted(edges[1:-1], known, side="right"), minlength=len(edges) - 1).astype(np.float64)


def measure_shifts(
    found: Mapping[str, ClimateHistograms],
    pairs: Mapping[str, Sequence[str]] | None = None,
    *,
    permutations: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """Measure distances between the climates of regions, with a permutation test of "both climates are equal".

    Without `pairs`, every region is compared with every other, on `(variable, region, other)`. With `pairs`, each
    region is compared with the merged climate of its training regions `pairs[region]`, on `(variable, region)`.

    - `wasserstein`: Wasserstein-1 distance in standard deviations over all regions. For `CONDITIONAL`, the mean over
      the classes of coarse rain, weighted by the frequency of a class in the climate in which it is rarer.
    - `jensen_shannon`: divergence in nats, at most ln 2; not for `CONDITIONAL`.
    - `hellinger`: distance; not for `CONDITIONAL`.
    - `NAME_null`: 95 % quantile of the distance if blocks of time are assigned to the two climates at random.
    - `NAME_p`: share of these random distances that are at least as large as the distance. Blocks are assumed
      exchangeable; a seasonal cycle widens the null distribution.
    """
    names, variables = list(found), list(next(iter(found.values())).counts)
    rng = np.random.default_rng(seed)
    measures = ("wasserstein", "jensen_shannon", "hellinger")
    shape = (len(variables), len(names), *([] if pairs else [len(names)]))
    values = {f"{name}{suffix}": np.full(shape, np.nan) for name in measures for suffix in ("", "_null", "_p")}
    jobs: list[tuple[tuple[int, ...], str, list[str]]]
    if pairs:
        jobs = [((names.index(_known(region, names)),), region, list(others)) for region, others in pairs.items()]
    else:
        jobs = [((i, j), names[i], [names[j]]) for i in range(len(names)) for j in range(i + 1, len(names))]
    for place, region, others in track(jobs, "shifts", unit="pairs"):
        one, *rest = (found[_known(name, names)] for name in (region, *others))
        other = rest[0].joined(rest[1:])
        for v, variable in enumerate(variables):
            for name, triple in _compare(one, other, variable, permutations, rng).items():
                for suffix, value in zip(("", "_null", "_p"), triple, strict=True):
                    values[name + suffix][v][place] = values[name + suffix][v][place[::-1]] = value
    dims = ("variable", "region", *([] if pairs else ["other"]))
    coords = {"variable": variables, "region": names, **({} if pairs else {"other": names})}
    return xr.Dataset({name: (dims, value) for name, value in values.items()}, coords)


def _known(name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise unknown("region", name, names, hint="whose climate was measured")
    return name


def _compare(
    one: ClimateHistograms, other: ClimateHistograms, variable: str, permutations: int, rng: np.random.Generator
) -> dict[str, tuple[float, float, float]]:
    """Return each distance of one variable: value, 95 % quantile of the null distribution, p value."""
    a, b = one.counts[variable], other.counts[variable]
    blocks = np.concatenate([a, b])
    dealt = rng.permuted(np.tile(np.arange(len(blocks)) < len(a), (permutations, 1)), axis=1).astype(np.float64)
    flat = blocks.reshape(len(blocks), -1)
    p = np.concatenate([a.reshape(len(a), -1).sum(axis=0)[None], dealt @ flat])
    p, q = (part.reshape(-1, *blocks.shape[1:]) for part in (p, flat.sum(axis=0) - p))
    edges = one.edges[variable]
    if variable == CONDITIONAL:
        made = {"wasserstein": _conditional(p, q, edges) / one.scales[variable]}
    else:
        made = {
            "wasserstein": wasserstein(p, q, edges) / one.scales[variable],
            "jensen_shannon": jensen_shannon(p, q),
            "hellinger": hellinger(p, q),
        }
    return {name: _judged(values) for name, values in made.items()}


def _judged(values: Array) -> tuple[float, float, float]:
    """Test the first value against the others, which are from random permutations.

    Returns the value, the 95 % quantile of the others, and the p value. Ties up to rounding increase the p value.
    """
    null = values[1:]
    beaten = (null >= values[0] * (1 - 1e-12)).sum()
    return float(values[0]), float(np.quantile(null, 0.95)), float((1 + beaten) / (1 + len(null)))


def _conditional(p: Array, q: Array, edges: Array) -> Array:
    """Compute the mean Wasserstein-1 distance of `(…, class, bin)` over classes.

    The weight of a class is the smaller one of its two relative frequencies.
    """
    mass = [part.sum(axis=-1) for part in (p, q)]
    weight = np.minimum(*(part / part.sum(axis=-1, keepdims=True) for part in mass))
    safe = [np.where(part.sum(axis=-1, keepdims=True) > 0, part, 1.0) for part in (p, q)]
    distance = wasserstein(safe[0], safe[1], edges)
    return np.asarray((weight * distance).sum(axis=-1) / weight.sum(axis=-1))

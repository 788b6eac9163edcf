"""The training set: features, classical estimates and truths of links of all generators, cached on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from geoml.runs.environment import code_hash
from geoml.runs.files import atomic_path, sha256
from mcp_experts.train.receiving import received
from mcp_experts.train.truths import TRUTHS, Links

__all__ = ["TRACED", "Examples", "build", "collect", "merge", "traced"]

LOG = logging.getLogger(__name__)
#: Share of groups observed with one antenna only.
ONE_ANTENNA = 0.3
#: Modules that generate links. If their code changes, cached links are not used.
DRAWN_BY = (
    *(f"mcp_experts.channels.{name}" for name in ("alignment", "channel", "noise", "path_tables", "window")),
    *("mcp_experts.inference.classical", "mcp_experts.inference.features"),
    *(f"mcp_experts.train.{name}" for name in ("clusters", "dataset", "generators", "impairments", "rays")),
    *(f"mcp_experts.train.{name}" for name in ("receiving", "traced", "truths")),
)
PARTS = ("train", "calibration", "test")
#: Value of `Examples.source` for links from path tables.
TRACED = "traced"
#: Number of observations of each ray-traced link in training, with different bandwidths and durations.
TRACED_DRAWS = 2
FIELDS = ("features", "estimates", "truths", "source", "group")


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """Rows of features, of classical estimates and of truths (columns `TRUTHS`), with the generator of each row.

    Rows with equal `group` share parameters and are correlated; confidence intervals must resample groups, not rows.
    """

    features: NDArray[np.float32]
    estimates: NDArray[np.float64]
    truths: NDArray[np.float64]
    source: NDArray[np.str_]
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.features)

    def truth(self, name: str) -> NDArray[np.float64]:
        """One column of `TRUTHS`."""
        return self.truths[:, TRUTHS.index(name)]

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Examples:
        """The selected rows."""
        return Examples(
            features=self.features[chosen],
            estimates=self.estimates[chosen],
            truths=self.truths[chosen],
            source=self.source[chosen],
            group=self.group[chosen],
        )

    @property
    def digest(self) -> str:
        """SHA-256 of all values."""
        digest = hashlib.sha256()
        for array in (self.features, self.estimates, self.truths, self.source, self.group):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def collect(name: str, links: Iterable[Links], rng: np.random.Generator) -> Examples:
    """Observe links and return them as rows; a share `ONE_ANTENNA` of groups is observed with one antenna."""
    parts: list[tuple[NDArray[Any], ...]] = []
    groups = 0
    for several in links:
        group = np.full(len(several), groups) if several.alike else groups + np.arange(len(several))
        groups = int(group.max()) + 1
        alone = rng.random(len(several)) < ONE_ANTENNA
        for chosen, antennas in ((alone, 1), (~alone, None)):
            if not chosen.any():
                continue
            some = several.rows(chosen)
            some = replace(some, gains=some.gains[..., :antennas])
            parts += [(*columns, group[chosen][rows]) for rows, *columns in received(some, rng)]
    if not parts:
        raise DataError(f"generator {name} gave no links")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Examples(
        features=columns[0],
        estimates=columns[1],
        truths=columns[2],
        source=np.full(len(columns[0]), name, dtype="<U16"),
        group=columns[3],
    )


def merge(parts: Iterable[Examples]) -> Examples:
    """All rows of several sets, with consecutive group numbers."""
    every = list(parts)
    joined = {name: np.concatenate([getattr(part, name) for part in every]) for name in FIELDS[:-1]}
    first = np.cumsum([0, *(part.group.max() + 1 for part in every[:-1])])
    return Examples(**joined, group=np.concatenate([part.group + n for part, n in zip(every, first, strict=True)]))


def build(counts: Mapping[str, int], *, seed: int, part: str, cache: Path, tables: Sequence[Path] = ()) -> Examples:
    """Return `counts[generator]` links of each generator and this part's links of path tables.

    `part` ("train", "calibration", "test") selects a seed: parts share no random parameter and no transmitter. Links
    are cached in one file per generator, and one for all path tables.
    """
    found = [_drawn(name, count, seed, part, cache) for name, count in counts.items() if count]
    if tables:
        found.append(traced(tables, seed=seed, part=part, cache=cache))
    if not found:
        raise UserError("no links to train on: set some of links.… above 0, or name path tables, traced=[FILE]")
    return merge(found)


def traced(tables: Sequence[Path], *, seed: int, part: str | None, cache: Path, name: str = TRACED) -> Examples:
    """Return the links of path tables that belong to `part` (None: all links), from the cache if possible."""
    from mcp_experts.train.traced import traced_links

    draws = TRACED_DRAWS if part == "train" else 1
    number = [*PARTS, None].index(part)

    def observed() -> Examples:
        rng = np.random.default_rng([seed, number, 7])
        return collect(name, traced_links(tables, seed, part, draws=draws), rng)

    return _cached([name, seed, part, *map(sha256, tables)], f"{part or 'all'}-{name}", cache, observed)


def _drawn(name: str, count: int, seed: int, part: str, cache: Path) -> Examples:
    def drawn() -> Examples:
        from mcp_experts.train.generators import generate

        LOG.info("%s: %d links of %s", part, count, name)
        number = PARTS.index(part)
        rng = np.random.default_rng([seed, number, *name.encode()])
        return collect(name, generate(name, count, 1000 * seed + number), rng)

    return _cached([name, count, seed, part], f"{part}-{name}", cache, drawn)


def _cached(recipe: list[Any], title: str, cache: Path, make: Callable[[], Examples]) -> Examples:
    """Return examples from the cache, or create and store them. The key is a hash of the recipe and of `DRAWN_BY`."""
    key = hashlib.sha256(json.dumps([*recipe, code_hash(*DRAWN_BY)]).encode()).hexdigest()[:12]
    path = cache / f"{title}-{key}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            return Examples(**{field: file[field] for field in file.files})
    examples = make()
    with atomic_path(path) as partial, open(partial, "wb") as stream:
        np.savez(stream, **{field: getattr(examples, field) for field in FIELDS})
    return examples

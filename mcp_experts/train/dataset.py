"""The training set: features, classical estimates and truths of links of all generators, cached by its settings."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoml.errors import DataError, UserError
from geoml.runs.environment import code_hash
from geoml.runs.files import atomic_path
from mcp_experts.channels.alignment import steady
from mcp_experts.channels.channel import SNAPSHOTS
from mcp_experts.inference import features
from mcp_experts.inference.classical import estimate
from mcp_experts.train.impairments import impair
from mcp_experts.train.truths import TRUTHS, Links, observe, truths

__all__ = ["TRACED", "Examples", "build", "collect", "merge"]

LOG = logging.getLogger(__name__)
#: Share of groups observed with one antenna only.
ONE_ANTENNA = 0.3
#: Share of links of which one snapshot is observed.
ONE_SNAPSHOT = 0.2
#: The code that draws links; if it changes, links are drawn again.
DRAWN_BY = (
    *(f"mcp_experts.channels.{name}" for name in ("alignment", "channel", "noise")),
    *("mcp_experts.inference.classical", "mcp_experts.inference.features"),
    *(f"mcp_experts.train.{name}" for name in ("clusters", "dataset", "generators", "impairments", "rays", "truths")),
)
PARTS = ("train", "calibration", "test")
#: The source name of links from path tables.
TRACED = "traced"
#: Number of observations of each in training, over different bands and times.
TRACED_DRAWS = 4
FIELDS = ("features", "estimates", "truths", "source", "group")


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """Rows of features, of classical estimates and of truths (columns `TRUTHS`), with the generator of each row.

    Rows of one `group` were drawn together and share parameters, so that intervals must resample groups.
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
    """Observations of links as rows; a share of them with one antenna only."""
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
            parts += [(*columns, group[chosen][rows]) for rows, *columns in _observed(some, rng)]
    if not parts:
        raise DataError(f"generator {name} gave no links")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Examples(
        features=columns[0],
        estimates=columns[1],
        truths=columns[2],
        source=np.full(len(columns[0]), name, dtype="<U8"),
        group=columns[3],
    )


def _observed(links: Links, rng: np.random.Generator) -> Iterator[tuple[NDArray[Any], ...]]:
    """Which links, and features, estimates and truths of each: of all snapshots of most, and of one of the others.

    Truths about time are unknown where the snapshots do not show them.
    """
    csi, snr_db = observe(links, rng)
    csi = impair(csi, rng)
    single = rng.random(len(links)) < ONE_SNAPSHOT
    for rows, snapshots in ((~single, SNAPSHOTS), (single, 1)):
        if not rows.any():
            continue
        some = links.rows(rows)
        if snapshots == 1:
            some = replace(some, gains=some.gains[:, :, :1])
        window = np.repeat(csi[rows][:, :, :1], SNAPSHOTS, axis=2) if snapshots == 1 else csi[rows]
        window, kept = steady(window, snapshots)
        estimates = estimate(window, some.bandwidth_hz, snapshots)
        inputs = features.with_estimates(features.extract(window, snapshots), estimates)
        known = truths(some, snr_db[rows])
        known[~kept | (snapshots == 1), [[TRUTHS.index(name)] for name in ("doppler", "coherence_time")]] = np.nan
        yield rows, inputs, estimates, known


def merge(parts: Iterable[Examples]) -> Examples:
    """All rows of several sets, with consecutive group numbers."""
    every = list(parts)
    joined = {name: np.concatenate([getattr(part, name) for part in every]) for name in FIELDS[:-1]}
    first = np.cumsum([0, *(part.group.max() + 1 for part in every[:-1])])
    return Examples(**joined, group=np.concatenate([part.group + n for part, n in zip(every, first, strict=True)]))


def build(counts: Mapping[str, int], *, seed: int, part: str, cache: Path, tables: Sequence[Path] = ()) -> Examples:
    """`counts[generator]` links each, from the cache or newly drawn, and the links of path tables of this part.

    `part` ("train", "calibration", "test") selects a seed: parts share no random parameter and no transmitter. The
    links of each generator are one file.
    """
    found = [_cached(name, count, seed, part, cache) for name, count in counts.items() if count]
    if tables:
        from mcp_experts.train.traced import traced_links

        rng = np.random.default_rng([seed, PARTS.index(part), 7])
        draws = TRACED_DRAWS if part == "train" else 1
        found.append(collect(TRACED, traced_links(tables, seed, part, draws=draws), rng))
    if not found:
        raise UserError("no links to train on: set some of links.… above 0, or name path tables, traced=[FILE]")
    return merge(found)


def _cached(name: str, count: int, seed: int, part: str, cache: Path) -> Examples:
    recipe = [name, count, seed, part, code_hash(*DRAWN_BY)]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    path = cache / f"{part}-{name}-{key}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            return Examples(**{field: file[field] for field in file.files})
    from mcp_experts.train.generators import generate

    LOG.info("%s: %d links of %s", part, count, name)
    number = PARTS.index(part)
    rng = np.random.default_rng([seed, number, *name.encode()])
    examples = collect(name, generate(name, count, 1000 * seed + number), rng)
    with atomic_path(path) as partial, open(partial, "wb") as stream:
        np.savez(stream, **{field: getattr(examples, field) for field in FIELDS})
    return examples

"""Partitions of regions into training and test regions: YAML files by the user, with their source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geoml.errors import DataError, unknown
from geoml.runs.files import read_text
from geoml.runs.stored_config import parse_yaml

__all__ = ["Partition"]

KEYS = ("name", "source", "train_regions", "test_regions")


@dataclass(frozen=True)
class Partition:
    """Training and test regions, with a name and the publication that defines them."""

    name: str
    source: str
    train_regions: tuple[str, ...]
    test_regions: tuple[str, ...]

    @classmethod
    def load(cls, path: Path, known: Sequence[str]) -> Partition:
        """Read a partition from a YAML file with the keys name, source, train_regions, test_regions.

        Raises `DataError` for a missing key, `UserError` for a region that is not among `known`.
        """
        values = parse_yaml(read_text(path, "partition file"), path)
        if not isinstance(values, dict):
            raise DataError(f"{path} contains {type(values).__name__}; expected the keys {', '.join(KEYS)}")
        for key in values:
            if key not in KEYS:
                raise unknown("partition key", key, KEYS, hint=f"in {path}")
        if missing := [key for key in KEYS if not values.get(key)]:
            raise DataError(f"{path} has no {', '.join(missing)}; source is the publication of the partition")
        sets = {key: values[key] for key in ("train_regions", "test_regions")}
        for key, names in sets.items():
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise DataError(f"{path}: {key} is {names!r}; expected a list of names of regions")
            for name in names:
                if name not in known:
                    raise unknown("region", name, known, hint=f"in {path}")
        return cls(str(values["name"]), str(values["source"]), *(tuple(names) for names in sets.values()))

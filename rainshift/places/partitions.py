"""Partitions of regions into those that train and those that are tested: files of the user's, with their source."""

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
    """Regions that train and regions that are tested, and where it is written that they are these."""

    name: str
    source: str
    train_regions: tuple[str, ...]
    test_regions: tuple[str, ...]

    @classmethod
    def load(cls, path: Path, known: Sequence[str]) -> Partition:
        """The partition in a YAML file of the keys name, source, train_regions, test_regions.

        Raises `DataError` for a file that lacks one of them, `UserError` for a region that is not among `known`.
        """
        values = parse_yaml(read_text(path, "partition file"), path)
        if not isinstance(values, dict):
            raise DataError(f"{path} holds {type(values).__name__}; expected the keys {', '.join(KEYS)}")
        for key in values:
            if key not in KEYS:
                raise unknown("partition key", key, KEYS, hint=f"in {path}")
        if missing := [key for key in KEYS if not values.get(key)]:
            raise DataError(f"{path} lacks {', '.join(missing)}; source says where the partition is published")
        sets = {key: values[key] for key in ("train_regions", "test_regions")}
        for key, names in sets.items():
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise DataError(f"{path}: {key} is {names!r}; expected a list of names of regions")
            for name in names:
                if name not in known:
                    raise unknown("region", name, known, hint=f"in {path}")
        return cls(str(values["name"]), str(values["source"]), *(tuple(names) for names in sets.values()))

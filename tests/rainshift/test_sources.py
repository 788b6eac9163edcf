"""Every source has a class, a YAML of the same stem that shows all its options, and a line in the table."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

import rainshift
from rainshift.data.archive import COMPARING_KEYS, READING_KEYS
from rainshift.sources import SOURCES, open_source

FOLDER = Path(rainshift.__file__).parent / "conf" / "data"


def test_each_source_has_a_file_and_a_configuration():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(SOURCES)
    for name, target in SOURCES.items():
        module, _, attribute = target.partition(":")
        assert module.removesuffix("_hub") == f"rainshift.sources.{name}"
        assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", SOURCES)
def test_configurations_show_every_option_with_its_default(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    values = yaml.safe_load(text)
    assert values.pop("source") == name
    options = {key: value for key, value in values.items() if key not in (*READING_KEYS, *COMPARING_KEYS)}
    source = open_source(name, **options)
    assert set(options) == set(type(source).__dataclass_fields__)
    default = open_source(name)
    # The command line cuts gaps away, which a benchmark wants; the class takes the field as it is.
    apart = {"splits_at", "min_coverage"}
    for key, value in options.items():
        assert value == getattr(default, key) or not (value or getattr(default, key)) or key in apart, key
    for key in values:
        line = next(i for i, row in enumerate(text.splitlines()) if row.startswith(f"{key}:"))
        assert "#" in "\n".join(text.splitlines()[max(0, line - 4) : line]), f"{key} has no comment"


def test_default_splits_are_those_of_the_configuration():
    from rainshift.sources.synthetic import DEFAULT_SPLITS

    assert yaml.safe_load((FOLDER / "synthetic.yaml").read_text())["splits_at"] == DEFAULT_SPLITS

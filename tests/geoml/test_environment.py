"""What a result was made with: the code of modules has a hash that words about it do not change."""

import importlib

import pytest

from geoml.runs.environment import code_hash

CODE = '''"""A module."""

from math import pi


def area(radius: float) -> float:
    """Of a circle."""
    return pi * radius**2  # in square metres
'''


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """The hash of a package whose one module has this text."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "somecode").mkdir()
    (tmp_path / "somecode" / "__init__.py").write_text("")

    def of(text, *modules):
        (tmp_path / "somecode" / "circle.py").write_text(text)
        importlib.invalidate_caches()
        code_hash.cache_clear()
        return code_hash(*(modules or ("somecode",)))

    return of


def test_code_counts_and_words_do_not(hashed):
    first = hashed(CODE)
    assert len(first) == 12
    said_otherwise = CODE.replace("A module.", "Circles.").replace("Of a circle.", "Its area.").replace("# in", "#  in")
    assert hashed(said_otherwise.replace("pi * radius**2", "(pi * radius ** 2)")) == first
    assert hashed(CODE.replace("radius**2", "radius**3")) != first
    assert hashed(CODE, "somecode.circle") == hashed(CODE, "somecode.circle")
    assert hashed(CODE, "somecode.circle") != hashed(CODE, "somecode.circle", "geoml.errors")
    with pytest.raises(ModuleNotFoundError):
        hashed(CODE, "somecode.square")

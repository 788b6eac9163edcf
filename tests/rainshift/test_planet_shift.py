"""The planet shifts because its climates differ, and for no other reason: the negative control of its benchmark."""

import importlib
import sys
from pathlib import Path

import pytest


@pytest.fixture
def planet(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("planet")
    for name in ("planet", "harness"):
        sys.modules.pop(name)


def test_interval_of_the_skill_lost(planet):
    made = [{"a": (0.4, 0.3), "b": (0.2, 0.2)}, {"a": (0.5, 0.4), "b": (0.1, 0.1)}]
    assert planet.lost(made[:1]) == (pytest.approx(1 / 6), None)
    assert planet.lost(made) == (pytest.approx(1 / 6), pytest.approx(0, abs=1e-12))
    loss, width = planet.lost([{"a": (0.5, 0.5)}, {"a": (0.5, 0.4)}, {"a": (0.5, 0.6)}])
    assert loss == pytest.approx(0)
    assert width == pytest.approx(4.3027 * 0.2 / 3**0.5, rel=1e-4)


@pytest.mark.slow
def test_equal_climates_lose_nothing_and_unlike_ones_much(planet, tmp_path):
    control = [planet.skills(number, str(tmp_path), planet.EQUAL, True) for number in range(4)]
    loss, width = planet.lost(control)
    assert abs(loss) <= width
    assert width < 0.15
    shifted, _ = planet.lost([planet.skills(number, str(tmp_path), None, True) for number in range(2)])
    assert shifted > loss + width
    assert shifted > 0.1

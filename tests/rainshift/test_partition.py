"""Training sets A1…A4 and evaluation regions E1…E6: swappable, consistent, and never shown as verified."""

from __future__ import annotations

from itertools import pairwise

import pytest

from geoml.compose import compose
from rainshift.regions import regions

SETS = ("a1", "a2", "a3", "a4")


def composed(name, *overrides):
    return compose("rainshift.conf", "benchmark", [f"partition={name}", *overrides])


def test_training_sets_expand_and_never_hold_an_evaluation_region():
    configs = [composed(name) for name in SETS]
    for smaller, larger in pairwise(configs):
        assert set(smaller.train_regions) < set(larger.train_regions)
        assert list(smaller.test_regions) == list(larger.test_regions)
    last = configs[-1]
    assert len(last.train_regions) == 12
    assert len(last.test_regions) == 6
    assert not set(last.train_regions) & set(last.test_regions)
    assert set(last.train_regions) | set(last.test_regions) == {n for n, r in regions().items() if r.source}


@pytest.mark.parametrize("name", SETS)
def test_a_partition_says_that_it_is_a_guess(name):
    config = composed(name)
    assert config.partition.verified is False
    assert config.partition.source
    assert "not verified" in config.heading
    assert list(config.partition.evaluation.values()) == list(config.test_regions)
    assert list(config.partition.evaluation) == [f"E{number}" for number in range(1, 7)]


def test_it_can_be_swapped():
    config = composed("a2", "test_regions=[caribbean]", "heading=mine")
    assert list(config.test_regions) == ["caribbean"]
    assert config.heading == "mine"
    assert compose("rainshift.conf", "benchmark").train_regions is None  # leave one out is the default

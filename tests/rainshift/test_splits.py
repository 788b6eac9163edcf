"""Splits in time share no weather, and the check finds those that do."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geoml.errors import DataError, UserError
from rainshift.benchmarking.plan import Cell
from rainshift.benchmarking.run import Experiment
from rainshift.data.archive import Archive
from rainshift.places.splits import check_leakage, split_blocks
from rainshift.training import TrainSet

HOURS = np.datetime64("2001-01-01T00", "ns") + np.arange(24 * 120) * np.timedelta64(1, "h")


@settings(max_examples=40, deadline=None)
@given(
    blocks=st.integers(1, 8),
    purge=st.integers(0, 48),
    shares=st.lists(st.floats(0.3, 1.0), min_size=2, max_size=3),
    step=st.sampled_from([1, 3]),
)
@example(blocks=1, purge=2, shares=[0.45165276669779203] * 3, step=1)  # a bound that rounding puts before its hour
def test_parts_are_disjoint_and_apart(blocks, purge, shares, step):
    time = HOURS[::step]
    named = dict(zip(("train", "validation", "test"), shares, strict=False))
    parts = split_blocks(time, named, blocks=blocks, purge=timedelta(hours=purge))
    taken = np.concatenate(list(parts.values()))
    assert len(np.unique(taken)) == len(taken)
    for one, part in parts.items():
        for other in set(parts) - {one}:
            check_leakage({"r": time[part]}, {"r": time[parts[other]]}, purge=timedelta(hours=purge), regions={})
    dropped = len(time) - len(taken)
    assert dropped <= (blocks * len(shares) - 1) * (purge / step + 1)


def test_shares_hold_without_purge():
    parts = split_blocks(HOURS, {"train": 3, "test": 1}, blocks=5, purge=timedelta(0))
    assert len(parts["train"]) == 3 * len(parts["test"]) == 24 * 90


def test_a_part_left_empty_is_refused():
    with pytest.raises(UserError, match="part test has no time"):
        split_blocks(HOURS, {"train": 0.9, "test": 0.1}, blocks=30, purge=timedelta(hours=48))
    with pytest.raises(UserError, match="positive share"):
        split_blocks(HOURS, {"train": 1, "test": 0})
    with pytest.raises(DataError, match="not ascending"):
        split_blocks(HOURS[::-1], {"train": 1, "test": 1})


@pytest.mark.fault("training and test hours overlap", "refused, with the hours")
def test_overlap_is_refused():
    with pytest.raises(DataError, match="24 times are in both"):
        check_leakage({"melanesia": HOURS[:100]}, {"melanesia": HOURS[76:200]})


@pytest.mark.fault("training and test hours shuffled", "refused: neighbours in time share weather")
def test_shuffled_hours_are_refused():
    order = np.random.default_rng(0).permutation(500)
    with pytest.raises(DataError, match="shuffled"):
        check_leakage({"melanesia": HOURS[order[:400]]}, {"melanesia": HOURS[order[400:]]})


def test_a_benchmark_looks_for_leaks_within_the_purge_that_the_data_were_cut_by():
    config = {"source": "gridded", "purge_hours": 3}
    cut = {"train": HOURS[:100], "test": HOURS[104:200]}
    cell = Cell("net", TrainSet(("melanesia",), 100), "melanesia")
    made = SimpleNamespace(plan=SimpleNamespace(cells=[cell]), config={"shared_edges": "refuse"})
    for hours, refused in ((3, False), (None, True)):
        purge = Archive(config | {"purge_hours": hours}, Path("unused")).purge
        made.archive = SimpleNamespace(purge=purge, times=lambda _, role: cut[role])
        with pytest.raises(DataError, match="purge gap of 2 days") if refused else nullcontext():
            assert Experiment.check_leakage(made) == ()


def test_a_gap_below_the_purge_is_refused_and_one_above_passes():
    with pytest.raises(DataError, match="purge gap"):
        check_leakage({"melanesia": HOURS[:100]}, {"melanesia": HOURS[110:200]})
    assert check_leakage({"melanesia": HOURS[:100]}, {"melanesia": HOURS[147:200]}) == []
    assert check_leakage({"melanesia": HOURS[:100]}, {"caribbean": HOURS[:100]}) == []


def test_shared_edges_are_refused_unless_told_otherwise():
    train, test = {"blacksea": HOURS[:100]}, {"arabian-peninsula": HOURS[:100]}
    with pytest.raises(DataError, match=r"share an edge at the same times.*shared_edges=warn"):
        check_leakage(train, test)
    (row,) = check_leakage(train, test, shared_edges="warn")
    assert (row.kind, row.train, row.test) == ("shared edge", "blacksea", "arabian-peninsula")
    assert check_leakage(train, test, shared_edges="ignore") == []
    assert check_leakage(train, {"arabian-peninsula": HOURS[1000:]}) == []

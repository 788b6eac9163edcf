"""Drawn links in the cache are of the code that is there."""

from pathlib import Path

import numpy as np
import pytest

from geoml.runs.environment import code_hash
from mcp_experts.inference.network import Gate
from mcp_experts.train import dataset
from mcp_experts.train.dataset import build
from mcp_experts.train.fit import fit_gate
from mcp_experts.train.left_out import without


def test_links_are_found_again_and_drawn_anew_where_the_code_that_draws_them_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "drawing_of_a_test.py").write_text("FACTOR = 1\n")
    monkeypatch.setattr(dataset, "DRAWN_BY", (*dataset.DRAWN_BY, "drawing_of_a_test"))
    cache = tmp_path / "cache"
    cache.mkdir()

    def drawn() -> np.ndarray:
        code_hash.cache_clear()
        return build({"rays": 40}, seed=0, part="test", cache=cache).features

    first = drawn()
    kept = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    np.testing.assert_array_equal(drawn(), first)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == kept
    (tmp_path / "drawing_of_a_test.py").write_text("FACTOR = 2\n")
    np.testing.assert_array_equal(drawn(), first)
    assert len(list(cache.iterdir())) == 2 * len(kept) == 2


def test_gates_let_in_most_channels_of_kinds_they_never_saw(tmp_path: Path) -> None:
    sets = {part: build({"rays": 400, "inh": 300}, seed=0, part=part, cache=tmp_path) for part in dataset.PARTS}
    alone = {part: without(sets, "offices")[part] for part in dataset.PARTS}
    both, strict = (fit_gate(each["train"], each["calibration"]) for each in (sets, alone))
    left = without(sets, "offices")["left_out"]
    assert set(left.source) == {"inh"}
    assert set(alone["train"].source) == {"rays"}
    assert both["limit"] > 0
    assert 0 < both["usual"] <= 1
    scores = Gate.from_arrays(strict | {"limit": np.asarray(1.0)}).score(left.features)
    assert np.mean(scores > strict["limit"]) > np.mean(Gate.from_arrays(both).score(left.features) > 1)

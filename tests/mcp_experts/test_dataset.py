"""Drawn links in the cache are of the code that is there."""

from pathlib import Path

import numpy as np
import pytest

from geoml.runs.environment import code_hash
from mcp_experts.train import dataset
from mcp_experts.train.dataset import build


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

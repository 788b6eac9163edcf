"""Scores of connected objects, against fields counted by hand and by walking from cell to cell."""

import numpy as np
import pytest

from geoml.metrics import Suite
from geoml.metrics.objects import count_objects


def flood_count(events: np.ndarray) -> tuple[int, int]:
    """Objects and single cells by walking from cell to cell."""
    left, sizes = {tuple(cell) for cell in np.argwhere(events)}, []
    while left:
        front, size = [left.pop()], 0
        while front:
            y, x = front.pop()
            size += 1
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.remove(near)
                    front.append(near)
        sizes.append(size)
    return len(sizes), sizes.count(1)


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_a_walk(seed):
    events = np.random.default_rng(seed).random((17, 23)) < 0.4
    assert count_objects(events) == flood_count(events)


def test_ratios_of_fields_counted_by_hand():
    truth, member = np.zeros((2, 1, 6, 6))
    truth[0, 1:3, 1:3] = truth[0, 5, 5] = 1.0  # two objects, one of a single cell
    member[0, ::2, ::2] = 1.0  # nine of a single cell
    suite = Suite(["objects_ratio", "one_cell_share"], thresholds=(0.5,))
    found = suite.evaluate(suite.update(member[:, None], truth, ids=np.arange(1)))
    assert found == {"objects_ratio_0.5": 4.5, "one_cell_share_0.5": 2.0}


def test_noise_of_equal_amounts_scores_worse_than_a_field_moved():
    rng = np.random.default_rng(0)
    field = np.kron(rng.random((1, 8, 8)) < 0.2, np.ones((1, 5, 5)))
    suite = Suite(["objects_ratio"], thresholds=(0.5,))

    def score(prediction):
        return suite.evaluate(suite.update(prediction[:, None], field, ids=np.arange(1)))["objects_ratio_0.5"]

    shuffled = rng.permutation(field.ravel()).reshape(field.shape)
    assert abs(np.log(score(np.roll(field, 5, axis=1)))) < 0.5 < np.log(score(shuffled))

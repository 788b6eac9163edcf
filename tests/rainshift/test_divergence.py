"""A cell in which too many values had to be bounded is marked, and averaged into nothing."""

import numpy as np
import pytest

from geoml.metrics import Suite
from rainshift.benchmarking.analysis import Analysis, analyse
from rainshift.benchmarking.plan import plan
from rainshift.evaluation import MAX_CLIPPED_SHARE, Scores

SUITE = Suite(("crps_fair", "mae"))


def scores(error: float, clipped: float) -> Scores:
    """Constant rain off by `error` on 30 days."""
    days = np.arange("2004-01-01", "2004-01-31", dtype="datetime64[D]").astype("datetime64[s]")
    truth = np.random.default_rng(0).gamma(1.0, 1.0, (30, 4, 4)).astype(np.float32)
    return Scores(SUITE.update(truth[:, None] + np.float32(error), truth, ids=days), 1, clipped)


def test_a_seed_that_diverged_is_left_out_of_the_mean_and_stands_beside_it():
    made = plan(["a", "b"], ["a"], samples={"a": 10, "b": 10}, learners=["net"], fixed=["bilinear"], seeds=(0, 1))
    table = {}
    for cell in made.cells:
        wild = cell.model == "net" and cell.seed == 1 and not cell.in_distribution
        table[cell] = scores(900.0 if wild else 0.5, 2 * MAX_CLIPPED_SHARE if wild else MAX_CLIPPED_SHARE / 2)
    results = analyse(made, table, Analysis(SUITE, replicates=100)).sel(model="net", test_region="a")
    assert np.isnan(results["matrix"].sel(metric="mae", train_set="b", seed=1))
    assert float(results["score"].sel(metric="mae", distribution="out")) == pytest.approx(0.5, rel=1e-3)
    shares = results["largest_clipped_share"]
    assert float(shares.sel(distribution="out")) == pytest.approx(2 * MAX_CLIPPED_SHARE)
    assert float(shares.sel(distribution="in")) == pytest.approx(MAX_CLIPPED_SHARE / 2)

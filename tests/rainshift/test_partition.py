"""Training sets A1…A4 and evaluation regions E1…E6: swappable, consistent, and never shown as verified."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

from geoml.cli.compose import compose
from rainshift.paper import paper_rows
from rainshift.places.regions import regions
from rainshift.report.markdown import page

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


def test_results_stand_in_the_layout_of_the_paper():
    models, places = ["bilinear", "unet", "unet+quantile_mapping", "mine+other"], ["amazon-basin", "melanesia"]
    values = [[0.3, 0.7], [0.2, np.nan], [0.1, 0.5], [0.4, 0.4]]
    score = np.stack([np.zeros((4, 2)), values], axis=-1)[None]  # in distribution, which the table leaves out
    coords = {"metric": ["crps_fair"], "model": models, "test_region": places, "distribution": ["in", "out"]}
    results = xr.Dataset({"score": (tuple(coords), score)}, coords, {"skill_metric": "crps_fair"})
    rows = {row["model"]: row for row in paper_rows(results, composed("a4").partition)}
    assert rows["bilinear"] == {"model": "bilinear", "trained on": "A4", "E1": "0.3", "E6": "0.7"}
    assert rows["unet"]["E1"] == "0.2 → 0.1"
    assert rows["unet"]["E6"] == "– → 0.5"
    assert rows["mine+other"]["E1"] == "0.4"
    assert "unet+quantile_mapping" not in rows
    assert rows["diffusion, published"]["E6"] == "0.295 → 0.31"
    assert rows["ResNet, published"]["E1"] is None
    text = page(results_of_page(results), heading="h", partition=composed("a4").partition)
    assert "another data set" in text
    assert "not verified" in text
    assert "layout of the RainShift paper" not in page(
        results_of_page(results), heading="h", partition={"name": "mine"}
    )


def results_of_page(results):
    """With what a page shows beside the scores, all missing."""
    sides, pair = ("model", "test_region", "distribution"), ("model", "test_region")
    nothing = {side: (dims, np.full([results.sizes[d] for d in dims], np.nan)) for side, dims in (
        *((f"skill{end}", sides) for end in ("", "_low", "_high")),
        *((f"{name}{end}", pair) for name in ("degradation", "skill_lost") for end in ("", "_low", "_high")),
        *((f"mean_skill_lost{end}", ("model",)) for end in ("", "_low", "_high")),
        ("members", pair), ("largest_clipped_share", sides),
    )}  # fmt: skip
    blocks = {"blocks": ("test_region", [30] * results.sizes["test_region"])}
    return results.assign(nothing | blocks).assign_attrs(reference="bilinear", interval="none")

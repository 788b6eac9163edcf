import pytest

from geoml.errors import UserError
from rainshift.benchmarking.plan import plan, plan_sets
from rainshift.benchmarking.pooling import pooled
from rainshift.training import TrainSet

SAMPLES = {"a": 10, "b": 12, "c": 9, "d": 30}


def train_sets(made):
    return {cell.train_set for cell in made.cells if cell.train_set is not None}


def test_leave_one_out_trains_once_inside_and_once_a_region_outside():
    made = plan(["a", "b", "c"], ["a", "b", "c"], samples=SAMPLES, learners=["unet"], fixed=["bilinear"])
    assert {s.regions for s in train_sets(made)} == {("a", "b", "c"), ("b", "c"), ("a", "c"), ("a", "b")}
    assert all(made.inside[r].regions == ("a", "b", "c") for r in "abc")
    assert [c.in_distribution for c in made.cells if c.model == "bilinear"] == [None] * 3
    learned = [c for c in made.cells if c.model == "unet"]
    assert len(learned) == 6
    assert sum(bool(c.in_distribution) for c in learned) == 3


def test_all_sets_have_the_same_size_and_no_region_gives_more_than_it_has():
    made = plan(["a", "b", "c"], ["a", "d"], samples=SAMPLES, learners=["unet"])
    assert len({s.samples for s in train_sets(made)}) == 1
    for chosen in train_sets(made):
        shares = {r: chosen.share(r) for r in chosen.regions}
        assert sum(shares.values()) == chosen.samples
        assert all(shares[r] <= SAMPLES[r] for r in shares)


def test_partition_adds_the_test_region_inside_and_nothing_outside():
    made = plan(["a", "b"], ["c"], samples=SAMPLES, learners=["unet"])
    assert made.outside["c"].regions == ("a", "b")
    assert made.inside["c"].regions == ("a", "b", "c")


def test_full_matrix_scores_every_set_everywhere():
    made = plan(["a", "b", "c"], ["a", "b"], samples=SAMPLES, learners=["unet", "resnet"], full=True, seeds=(0, 1))
    assert len(made.cells) == len(set(made.cells)) == 2 * len(train_sets(made)) * 2 * 2


def test_transfer_makes_no_inside_set():
    made = plan(["a"], ["b"], samples=SAMPLES, learners=["unet"], in_distribution=False)
    assert not made.inside
    assert [c.in_distribution for c in made.cells] == [False]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (["a", "bb"], ["c"], "did you mean 'b'"),
        (["a"], ["a"], "no training region remains"),
        (["a", "a"], ["b"], "more than once"),
        (["a"], [], "test_regions is empty"),
    ],
)
def test_a_plan_that_cannot_be_says_why(train, test, message):
    with pytest.raises(UserError, match=message):
        plan(train, test, samples=SAMPLES, learners=["unet"])


def test_share_is_even():
    assert [TrainSet(("a", "b", "c"), 11).share(r) for r in "abc"] == [4, 4, 3]


def test_sets_are_those_of_the_records_and_folds_are_pooled():
    folds = {"d": ("d@0", "d@1")}
    made = plan_sets(
        ["a", "b", "d"], outside={"a": ("b",), "b": ("a",)}, inside={}, folds=folds,
        samples={**SAMPLES, "d@0": 7, "d@1": 8}, learners=["unet"], fixed=["bilinear"],
    )  # fmt: skip
    trained = [(c.train_set.regions, c.test_region) for c in made.cells if c.train_set]
    assert trained == [(("b",), "a"), (("a",), "b"), (("d@0",), "d@0"), (("d@1",), "d@1")]
    assert [c.test_region for c in made.cells if c.train_set is None] == ["a", "b", "d@0", "d@1"]
    whole, into = pooled(made, folds)
    assert whole.inside == {"d": TrainSet(("d",), 15)}
    assert {c.test_region for c in whole.cells} == {"a", "b", "d"}
    assert [into[c].test_region for c in made.cells if "@" in c.test_region] == ["d"] * 4


def test_transfer_adds_a_set_for_each_region_alone():
    made = plan(["a", "b", "c"], ["a", "b", "c"], samples={"a": 9, "b": 6, "c": 8}, learners=["net"], transfer=True)
    assert made.alone == {name: TrainSet((name,), 6) for name in "abc"}
    pairs = {(cell.train_set, cell.test_region) for cell in made.cells}
    assert {(made.alone[a], b) for a in "abc" for b in "abc"} < pairs
    # of two regions, each alone is what is left when the other is left out: one set, not two of one name
    two = plan(["a", "b"], ["a", "b"], samples={"a": 9, "b": 6}, learners=["net"], transfer=True)
    assert two.alone == {"a": two.outside["b"], "b": two.outside["a"]}
    assert plan(["a", "b"], ["a"], samples={"a": 1, "b": 1}, learners=[], fixed=["bilinear"], transfer=True).alone == {}

"""Training: the same seed gives the same bits; generators draw what they say; a city held out is scored by itself."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sionna")

from geoml.cli.compose import compose
from geoml.errors import UserError
from mcp_experts.inference.registry import CARD, WEIGHTS
from mcp_experts.train.dataset import build
from mcp_experts.train.generators import GENERATORS, generate
from mcp_experts.train.scores import accuracy, confusions, interval
from mcp_experts.train.session import find_tables
from mcp_experts.train.traced import PARTS, traced_links
from mcp_experts.train.verb import check

SMALL = [
    *("links.tdl=320", "links.cdl=0", "links.umi=64", "links.uma=0", "links.rma=0", "links.inf=0"),
    *("links.rays=0", "links.inh=0", "links.uwb=0", "held_share=0.5"),
    "recipe.epochs=2",
    "boosted=false",
]


def table(path, transmitters=5, receivers=60):
    """A path table of random links: three paths each, the first direct for every second receiver."""
    rng = np.random.default_rng(0)
    shape = (transmitters, receivers, 3)
    amplitude = rng.standard_normal((transmitters, receivers, 2, 3)) * np.array([3.0, 1.0, 0.5])
    arrays = {
        "amplitude_real": amplitude,
        "amplitude_imag": np.zeros_like(amplitude),
        "delay_s": np.sort(rng.uniform(0, 3e-7, shape), axis=-1),
        "doppler_hz": rng.uniform(-100, 100, shape),
        "bounces": np.stack([np.broadcast_to(np.arange(receivers) % 2, shape[:2]), np.ones(shape[:2])], -1)[
            ..., [0, 1, 1]
        ],
        **{f"rx_velocity_{letter}": np.full(receivers, 6.0) for letter in "xyz"},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays, attributes=np.array(json.dumps({"": {"frequency_hz": 3.5e9}})))
    return path


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("expert=lso", "did you mean 'los'"),
        ("expert=[los,dopler]", "did you mean 'doppler'"),
        ("expert=[]", "expert is \\[\\]; name one or several, or all"),
        ("expert=null", "expert is None; name one or several, or all"),
        ("links=null", "links=null; expected settings by name"),
        ("links.tdl=null", "links.tdl=None; expected a whole number, 0 or more"),
        ("recipe=null", "recipe=null; expected settings by name"),
        ("links.tdl=-5", "links.tdl=-5; expected a whole number, 0 or more"),
        ("recipe.epochs=0", "recipe.epochs=0; expected a whole number, 1 or more"),
        ("left_out=wave", "did you mean 'waves'"),
        ("threads=.5", "threads=0.5; expected a whole number, 1 or more"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_drawn(word, message):
    with pytest.raises(UserError, match=message):
        check(compose("mcp_experts.conf", "train", [word]))


def train(folder, *words):
    command = [
        sys.executable,
        "-m",
        "mcp_experts",
        "train",
        *SMALL,
        f"target={folder}",
        f"run.dir={folder}/run",
        *words,
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    return folder / "los"


@pytest.mark.slow
def test_a_seed_gives_the_same_weights_and_card(tmp_path):
    tables = [
        f"traced=[{table(tmp_path / 'seen' / 'a.npz')}]",
        f"traced_apart=[{table(tmp_path / 'apart' / 'b.npz')}]",
    ]
    one, other = (train(tmp_path / name, "expert=los", f"cache={tmp_path / name}", *tables) for name in "ab")
    assert (one / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    assert (one / CARD).read_bytes() == (other / CARD).read_bytes()
    before = (one / WEIGHTS).stat().st_mtime_ns
    train(tmp_path / "a", "expert=los", f"cache={tmp_path / 'a'}", *tables)
    assert (one / WEIGHTS).stat().st_mtime_ns == before  # trained on this set before: kept
    metrics = json.loads((one / CARD).read_text())["metrics"]
    assert set(metrics["in_distribution"]["by_generator"]) == {"tdl", "umi", "traced"}
    assert metrics["held_out_city"]["channels"] == 300
    assert metrics["held_out_generator"]["channels"] == 780
    assert metrics["held_out_standard"]["by_generator"].keys() == {"tdl", "umi"}


@pytest.mark.slow
def test_a_kind_that_is_left_out_neither_trains_nor_calibrates(tmp_path):
    tables = ["traced=[]", "traced_apart=[]", "links.rays=100", "links.umi=200"]
    words = ("expert=[los,ood]", "left_out=systems", f"cache={tmp_path}", *tables)
    card = json.loads((train(tmp_path / "left", *words) / CARD).read_text())
    assert card["training"]["left_out"] == "systems"
    assert set(card["metrics"]["in_distribution"]["by_generator"]) <= {"tdl", "rays", "inh", "uwb"}
    assert set(card["metrics"]["left_out"]["by_generator"]) == {"umi"}


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_generators_repeat_themselves_and_draw_each_link_anew(name):
    one, again = (list(generate(name, 40, 3)) for _ in range(2))
    assert sum(len(links) for links in one) == 40
    for links, same in zip(one, again, strict=True):
        assert np.array_equal(links.gains, same.gains)
    doppler = np.concatenate([links.doppler_cells for links in one])
    los = np.concatenate([links.los for links in one])
    assert len(np.unique(doppler)) == 40
    assert 5 < los.sum() < 35
    k_db = np.concatenate([links.k_factor_db for links in one])
    assert ((k_db > -90) == (los == 1)).all()


def test_the_k_factor_of_a_tapped_delay_line_is_the_one_that_was_drawn():
    """Over many links the mean of all taps' powers is 1 of those that fade and K of the specular path."""
    from mcp_experts.train.generators import _DrawnTDL

    model = _DrawnTDL("D", 1.0, 3.5e9, num_rx_ant=1)
    count, k = 4000, 4.0
    model.draw(np.full(count, 0.0), np.zeros(count), np.full(count, k))
    gains = np.asarray(model(count, 1, 1.0)[0]).reshape(count, -1)
    assert np.mean(np.sum(np.abs(gains) ** 2, axis=1)) == pytest.approx(1 + k, rel=0.05)


def test_parts_of_a_table_share_no_transmitter(tmp_path):
    path = table(tmp_path / "paths.npz")
    sizes = {part: sum(len(links) for links in traced_links([path], 0, part)) for part in set(PARTS)}
    assert sizes == {"train": 180, "calibration": 60, "test": 60}
    together = list(traced_links([path], 0))
    assert all(links.alike for links in together)
    assert sum(links.los.sum() for links in together) == 150


@pytest.mark.parametrize("alike", [1, 20])
def test_intervals_are_as_wide_as_theory_says(alike):
    """Of 2000 links, 70 % told rightly, in groups of as many that are all right or all wrong."""
    groups = np.repeat(np.arange(2000 // alike), alike)
    truth = np.arange(2000) % 2
    label = np.where(groups % 10 < 7, truth, 1 - truth)
    low, high = interval(accuracy, confusions(truth, label, groups, 2))
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / (2000 / alike)), rel=0.15)
    assert low < 0.7 < high


def test_missing_tables_say_how_to_make_them(tmp_path):
    with pytest.raises(UserError, match=r"docs/experts-training\.md"):
        find_tables([str(tmp_path / "*.npz")])


def test_a_training_without_links_is_refused(tmp_path):
    with pytest.raises(UserError, match="no links to train on"):
        build({"tdl": 0}, seed=0, part="train", cache=tmp_path)


def test_a_generator_whose_name_reads_as_a_number_is_set_by_itself():
    assert compose("mcp_experts.conf", "train", ["links.inf=0"]).links.inf == 0
    with pytest.raises(UserError, match=r"write links\.inf=… by itself"):
        compose("mcp_experts.conf", "train", ["links={tdl:64,inf:0}"])

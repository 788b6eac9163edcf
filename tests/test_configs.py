"""Every shipped YAML composes: each verb's own, and each choice of each group that a verb offers."""

import functools
import importlib
import itertools
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from geoml.cli import compose
from geoml.errors import UserError

ROOT = Path(__file__).parent.parent
APPS = {
    name: importlib.import_module(f"{name}.__main__").APP for name in ("geoml", "rainshift", "radiomaps", "mcp_experts")
}
VERBS = [(app, verb) for app in APPS.values() for verb in app.verbs if not verb.plain]
IDS = [f"{app.name}-{verb.name}" for app, verb in VERBS]


def folder_of(app):
    return ROOT / app.config_module.replace(".", "/")


@functools.cache
def source_of(app):
    return compose.loader(app.config_module)


@functools.cache
def offered(app, verb):
    """The groups in a verb's defaults list, with their choices."""
    chosen = compose.load(source_of(app), verb.name, []).hydra.runtime.choices
    return {group: choices for group, choices in compose.groups_of(source_of(app)).items() if group in chosen}


def complete(app, verb, overrides):
    """Compose as a command would, with a word for each setting that a user has to give."""
    config = compose.load(source_of(app), verb.name, overrides)
    own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    for key in OmegaConf.missing_keys(own):
        OmegaConf.update(own, key, "given")
    return compose.finish(own)


@functools.cache
def composes(app, verb, override):
    """Whether a verb composes with a choice."""
    try:
        complete(app, verb, [override])
    except UserError:
        return False
    return True


def rounds(app, verb):
    """Overrides in which every choice of every group comes up, one of each group at a time.

    Of a group as long as that of the regions, the first verb to offer it takes all and the others the first two.
    """
    shown = {}
    for group, choices in offered(app, verb).items():
        first = next(other for user, other in VERBS if user is app and group in offered(app, other))
        shown[group] = choices if len(choices) < 8 or verb is first else choices[:2]
    for turn in itertools.zip_longest(*shown.values()):
        yield [f"{group}={choice}" for group, choice in zip(shown, turn, strict=True) if choice is not None]


def test_there_are_verbs():
    assert len(VERBS) >= 6


@pytest.mark.parametrize(("app", "verb"), VERBS, ids=IDS)
def test_a_verb_composes_by_itself_and_with_every_choice(app, verb):
    assert (folder_of(app) / f"{verb.name}.yaml").exists()
    assert {"run", "allow_targets"} <= set(complete(app, verb, []))
    for overrides in rounds(app, verb):
        # An experiment may choose among groups that not every verb has.
        misfits = [word for word in overrides if word.startswith("experiment=") and not composes(app, verb, word)]
        complete(app, verb, [word for word in overrides if word not in misfits])
        for word in misfits:
            assert any(composes(app, other, word) for other in app.verbs if not other.plain)
            with pytest.raises(UserError, match="it is of another verb"):
                complete(app, verb, [word])


@pytest.mark.parametrize("name", sorted(APPS))
def test_every_yaml_is_reached_by_some_verb(name):
    app, folder = APPS[name], folder_of(APPS[name])
    shipped = {str(path.relative_to(folder)) for path in folder.rglob("*.yaml")} if folder.is_dir() else set()
    reached = {"base.yaml"} if name == "geoml" else set()
    for user, verb in VERBS:
        if name == "geoml" or user is app:
            reached |= {f"{verb.name}.yaml"} if user is app else set()
            reached |= {
                f"{group}/{choice}.yaml" for group, choices in offered(user, verb).items() for choice in choices
            }
    if any(not verb.plain for verb in app.verbs) or name == "geoml":
        assert shipped, f"{name} ships no configuration"
    assert shipped - reached == set(), "in no verb's defaults list"


def test_the_base_is_first_so_that_a_verb_may_change_it():
    for app, verb in VERBS:
        defaults = OmegaConf.load(folder_of(app) / f"{verb.name}.yaml").defaults
        assert defaults[0] == "base", verb.name


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trainer.samples=many", "expected a number, as trainer.samples="),
        ("train_regions=melanesia", r"expected a list, train_regions=\[melanesia\]"),
        ("run.fresh=maybe", "expected run.fresh=true or run.fresh=false"),
        ("loader=5", "loader '5' unknown"),
        ("experiment=dmeo", "did you mean 'demo'"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_what_is_there_by_default(word, message):
    with pytest.raises(UserError, match=message):
        compose.compose("rainshift.conf", "train", [word])


def test_a_model_of_ones_own_has_no_setting_of_a_preset():
    words = ["model=gan", "model._target_=mine.Model", "model.depth=3"]
    assert compose.compose("rainshift.conf", "train", words).model == {"_target_": "mine.Model", "depth": 3}


@pytest.mark.parametrize(("name", "first"), [("rainshift", "bilinear"), ("radiomaps", "free_space")])
def test_a_benchmark_says_where_a_model_goes_among_its_rows(name, first):
    for words, models in (
        (["model._target_=mine.Model", "model.depth=3"], f"[{first},{{_target_: mine.Model, depth: 3}}]"),
        (["model=gan", "model.width=8"], f"[{first},{{model: gan, width: 8}}]"),
        (["model=gan"], f"[{first},gan]"),
    ):
        with pytest.raises(UserError, match=re.escape(f"models is a list here: 'models={models}'")):
            compose.compose(f"{name}.conf", "benchmark", ["seeds=1", *words])
        compose.compose(f"{name}.conf", "benchmark", [f"models={models}", *(["store=maps"] * (name == "radiomaps"))])


def test_a_wrong_key_is_named_beside_one_that_still_has_to_be_given():
    with pytest.raises(UserError, match=r"key 'loader\.patch' unknown"):
        compose.compose("rainshift.conf", "trust", ["checkpoint=runs/model", "loader.patch=0"])

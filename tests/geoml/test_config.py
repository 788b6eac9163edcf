import sys
import textwrap

import pytest
from omegaconf import OmegaConf

from geoml.cli.config import build, instantiate, resolve
from geoml.errors import UserError


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of a user's own, that leaves a mark wherever something of it runs."""
    package = tmp_path / "ownpackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "things.py").write_text(
        textwrap.dedent(
            """
            from os import system
            from pathlib import PurePosixPath
            from subprocess import Popen
            import os

            class Leaf:
                made = []
                def __init__(self, size, colour="green"):
                    self.size, self.colour = size, colour
                    Leaf.made.append(self)

            class Tree:
                def __init__(self, leaves, *, name="oak", **more):
                    self.leaves, self.name, self.more = leaves, name, more

            class _Secret:
                pass

            def grow():
                raise AssertionError("called")

            oak = Tree([])
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "ownpackage"
    for name in [name for name in sys.modules if name.partition(".")[0] == "ownpackage"]:
        del sys.modules[name]


LEAF, TREE = "ownpackage.things.Leaf", "ownpackage.things.Tree"


def test_nested_objects_are_built_from_the_inside(own):
    config = {
        "_target_": TREE,
        "leaves": [{"_target_": LEAF, "size": 1}, {"_target_": LEAF, "size": 2, "colour": "red"}],
        "soil": {"ph": 7, "worm": {"_target_": LEAF, "size": 3}},
    }
    for given in (config, OmegaConf.create(config)):
        tree = instantiate(given, allow=[own], name="beech")
        assert [(leaf.size, leaf.colour) for leaf in tree.leaves] == [(1, "green"), (2, "red")]
        assert tree.name == "beech"
        assert tree.more["soil"]["worm"].size == 3
        assert type(tree.more["soil"]) is dict


def test_nothing_is_imported_from_a_package_that_is_not_allowed(own):
    with pytest.raises(UserError, match=r"allow_targets=\[ownpackage\]"):
        instantiate({"_target_": LEAF, "size": 1})
    assert "ownpackage" not in sys.modules
    assert instantiate({"_target_": LEAF, "size": 1}, allow=["ownpackage."]).size == 1
    with pytest.raises(UserError, match="not in an allowed package"):
        resolve(LEAF, allow=["own", "ownpackage.thing", "ownpackage.things.Leaf"])


def test_an_evil_leaf_stops_everything_before_anything_is_built(own):
    made = resolve(LEAF, allow=[own]).made
    evil = {"_target_": TREE, "leaves": [{"_target_": LEAF, "size": 1}, [{"deep": {"_target_": "os.system"}}]]}
    with pytest.raises(UserError, match=r"'os\.system' is not in an allowed package"):
        instantiate(evil, allow=[own])
    assert made == []


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "geoml.runs.files.os.system",
        "geoml.runs.files.os",
        "geoml.runs.files.shutil.rmtree",
        "geoml.cli.definitions.load_function",
        "geoml.cli.definitions.importlib.import_module",
        "geoml.runs.environment.subprocess.Popen",
        "geoml.runs.folder.Path",
        "geoml.runs.folder.RunFolder.__init__",
        "geoml.runs.folder.RunFolder.__class__",
        "geoml.runs.folder.__builtins__",
        "geoml.runs.folder",
        "geoml",
        "geomlevil.Model",
        "geoml..runs.RunFolder",
        ".geoml.runs.RunFolder",
        "geoml/../os.system",
        "geoml.runs.folder:RunFolder",
        "geoml.nowhere.Model",
        "geoml.runs.environment._output_of",
        "geoml.cli.verbs._Job",
        "ownpackage.things.system",
        "ownpackage.things.Popen",
        "ownpackage.things.PurePosixPath",
        "ownpackage.things.grow",
        "ownpackage.things.oak",
        "ownpackage.things._Secret",
        "",
        None,
        3,
        ["os.system"],
        {"_target_": "os.system"},
    ],
)
def test_hostile_targets_are_refused(own, target, monkeypatch):
    import os
    import subprocess

    def never(*arguments, **keywords):
        raise AssertionError("something ran")

    monkeypatch.setattr(os, "system", never)
    monkeypatch.setattr(subprocess.Popen, "__init__", never)
    with pytest.raises(UserError):
        instantiate({"_target_": target, "args": ["true"], "command": "true"}, allow=[own])


def test_wrong_arguments_are_named_with_the_nearest_right_one(own):
    with pytest.raises(UserError, match=r"'leaves\[0\]\.siz' unknown; did you mean 'leaves\[0\]\.size'"):
        instantiate({"_target_": TREE, "leaves": [{"_target_": LEAF, "siz": 1}]}, allow=[own])
    with pytest.raises(UserError, match="missing a required argument: 'size'"):
        instantiate({"_target_": LEAF}, allow=[own])
    with pytest.raises(UserError, match=r"class of ownpackage\.things 'Lief' unknown; did you mean 'Leaf'"):
        instantiate({"_target_": "ownpackage.things.Lief"}, allow=[own])
    with pytest.raises(UserError, match="found the keys size"):
        instantiate({"size": 1})
    with pytest.raises(UserError, match=r"elsewhere cannot be imported .* set PYTHONPATH to the folder that holds it"):
        instantiate({"_target_": "elsewhere.Leaf"}, allow=["elsewhere"])


def test_the_kind_is_checked_before_building(own):
    tree = resolve(TREE, allow=[own])
    with pytest.raises(UserError, match="is not a Tree"):
        instantiate({"_target_": LEAF, "size": 1}, allow=[own], kind=tree)
    assert isinstance(instantiate({"_target_": TREE, "leaves": []}, allow=[own], kind=tree), tree)


def test_errors_inside_a_constructor_stay_what_they_are():
    class Picky:
        def __init__(self, size):
            raise TypeError("inside")

    with pytest.raises(TypeError, match="inside"):
        build(Picky, {"size": 1})

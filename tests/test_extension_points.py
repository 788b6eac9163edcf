"""To add something is to touch one place; what is half done fails here."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from geoml.cli import app as command_line
from geoml.cli.config import resolve
from geoml.cli.definitions import load_function

ROOT = Path(__file__).parent.parent
PACKAGES = ("geoml", "rainshift", "radiomaps", "mcp_experts")
APPS = {name: importlib.import_module(f"{name}.__main__").APP for name in PACKAGES}
MODEL_YAML = sorted((ROOT / "geoml/conf/model").glob("*.yaml"))
DOMAIN_MODEL_YAML = sorted(path for path in ROOT.glob("*/conf/model/*.yaml") if path not in MODEL_YAML)
REGION_YAML = sorted((ROOT / "rainshift/conf/region").glob("*.yaml"))


def names(paths):
    return [path.stem for path in paths]


def test_there_is_something_to_extend():
    assert MODEL_YAML
    assert DOMAIN_MODEL_YAML
    assert len(REGION_YAML) >= 18


@pytest.mark.parametrize("path", MODEL_YAML + DOMAIN_MODEL_YAML, ids=names(MODEL_YAML + DOMAIN_MODEL_YAML))
def test_a_model_configuration_names_a_model_and_only_arguments_it_has(path):
    config = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "defaults"}
    model = resolve(config.pop("_target_"))
    if path in MODEL_YAML:
        from geoml.models.base import Model

        assert issubclass(model, Model)
        name = config["process"]["name"] if model.__name__ == "Diffusion" else model.__module__.rpartition(".")[2]
        assert path.stem.partition("-")[0] == name
    inspect.signature(model).bind_partial(**config)


def test_every_model_of_the_core_has_a_configuration():
    used = {yaml.safe_load(path.read_text())["_target_"].rpartition(".")[0] for path in MODEL_YAML}
    for path in sorted((ROOT / "geoml/models").glob("*.py")):
        classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        bases = {ast.unparse(base) for node in classes for base in node.bases}
        concrete = [node for node in classes if not any("abstractmethod" in ast.dump(part) for part in node.body)]
        if concrete and bases & {"Model", "Regression", "Diffusion"}:
            assert f"geoml.models.{path.stem}" in used, f"no configuration in geoml/conf/model builds {path.stem}"


@pytest.mark.parametrize("path", sorted((ROOT / "geoml/conf/trainer").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_trainer_has_only_settings_it_knows(path):
    config = yaml.safe_load(path.read_text())
    base = yaml.safe_load((path.parent / "default.yaml").read_text())
    config = {key: value for key, value in (base | config).items() if key != "defaults"}
    known = inspect.signature(resolve(config.pop("_target_"))).parameters
    assert set(config) == set(known)


def test_every_region_is_listed_and_completed(capsys, monkeypatch):
    from rainshift.places.regions import regions

    assert set(names(REGION_YAML)) <= set(regions())
    command_line.main(APPS["rainshift"], ["regions"])
    listing = capsys.readouterr().out
    monkeypatch.setenv("COMP_LINE", "rainshift train region=")
    command_line.main(APPS["rainshift"], ["-sc", "query=bash"])
    completed = capsys.readouterr().out.split()
    for name in names(REGION_YAML):
        assert f"\n{name} " in listing
        assert f"region={name}" in completed


@pytest.mark.parametrize("name", sorted(APPS))
def test_every_verb_has_a_function_a_line_and_a_place_in_the_help(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    app = APPS[name]
    assert command_line.main(app, []) == 0
    listing = capsys.readouterr().out
    for verb in app.verbs:
        function = load_function(verb.function)
        expected = 1 if verb.plain or not verb.run_folder else 2
        assert len(inspect.signature(function).parameters) == expected, verb.function
        assert verb.help
        assert f"  {verb.name}" in listing
        assert verb.example.startswith(f"{app.name} {verb.name}")
        assert command_line.main(app, [verb.name, "--help"]) == 0
        page = capsys.readouterr().out
        assert len(page.splitlines()) <= 30
        assert verb.example in page
        assert max(map(len, (listing + page).splitlines())) <= 80


def test_every_folder_of_configurations_is_a_package():
    for package in PACKAGES:
        folder = ROOT / package / "conf"
        assert not folder.exists() or (folder / "__init__.py").exists(), f"{package}/conf/__init__.py is missing"

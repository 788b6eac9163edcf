"""Scripts, their declared figures and the pages that quote them hold together."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SHARED = {"exact_denoisers", "gpu_volumes", "harness", "index_resize", "places", "quote", "raytrace_checks",
          "shuffle_quality", "station_worlds"}  # fmt: skip
SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in SHARED)
DECLARED = yaml.safe_load((ROOT / "benchmarks/targets.yaml").read_text())


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("harness")
    sys.modules.pop("harness")


@pytest.fixture
def quote(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("quote")
    sys.modules.pop("quote")


def test_every_script_declares_figures_and_every_declaration_has_its_script(harness):
    assert SCRIPTS
    assert sorted(harness.targets()) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_reports_what_it_declares(name):
    source = (ROOT / f"benchmarks/{name}.py").read_text()
    assert f'main("{name}", measure' in source
    for key in DECLARED[name]["figures"]:
        assert key in source, f"benchmarks/{name}.py never mentions {key}"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/results").glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_of_the_present_figures(harness, path):
    result = json.loads(path.read_text())
    name = path.stem.removesuffix("-full")
    wanted = harness.targets()[name]
    assert result["benchmark"] == name
    assert ("--full" in result["command"]) == path.stem.endswith("-full")
    assert set(result["figures"]) == set(wanted)
    goals = {key: [target.operator, target.goal] for key, target in wanted.items() if target.goal is not None}
    assert result["goals"] == goals
    assert result["met"] == harness.judge(result["figures"], wanted)
    for key in ("command", "date", "cpu", "cores", "versions"):
        assert result[key], f"{path.name} says no {key}"


@pytest.fixture
def toy(harness, tmp_path):
    def run(*arguments, **figures):
        speed = harness.Target(
            key="speed", definition="how fast", unit="ratio", operator=">=", goal=10, peer="a snail", quick_goal=5
        )
        error = harness.Target(key="error", definition="how wrong", unit="1", operator="<=", goal=0.1, peer="truth")
        wanted = {"speed": speed, "error": error}

        def measure(quick):
            print("0.5 seconds", "quickly" if quick else "at leisure")
            return figures

        def full():
            return {key: 2 * value for key, value in figures.items()}

        return harness.main("toy", measure, full=full, arguments=arguments, wanted=wanted, results=tmp_path)

    return run


@pytest.mark.parametrize(
    ("arguments", "speed", "error", "met"),
    [
        ((), 10, 0.1, True),
        ((), 9.99, 0.1, False),
        (("--quick",), 9.99, 0.1, True),
        (("--quick",), 4, 0.1, False),
        ((), math.nan, 0.1, None),
        ((), None, 0.2, False),
        ((), math.inf, 0.0, None),
    ],
)
def test_the_last_line_is_the_verdict(toy, capsys, arguments, speed, error, met):
    outcome = toy(*arguments, speed=speed, error=error)
    *table, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == outcome
    assert list(outcome) == ["benchmark", "figures", "goals", "met"]
    assert outcome["met"] is met
    assert outcome["goals"] == {"speed": [">=", 5 if arguments else 10], "error": ["<=", 0.1]}
    assert outcome["figures"]["speed"] == (speed if speed is not None and math.isfinite(speed) else None)
    assert table[0] == f"0.5 seconds {'quickly' if arguments else 'at leisure'}"
    assert any("how wrong" in line for line in table)


def test_figures_that_nobody_declared_or_measured_are_refused(toy):
    for figures in ({"speed": 1}, {"speed": 1, "error": 0, "beauty": 9}):
        with pytest.raises(ValueError, match=r"figures and targets\.yaml differ in"):
            toy(**figures)


def test_declarations_are_typed(harness, tmp_path):
    good = {"definition": "d", "unit": "u", "operator": ">=", "goal": 1, "peer": "p"}
    wrong = ({"operator": "=>"}, {"goal": "10"}, {"goal": None}, {"unit": ""}, {"colour": "red"}, {"quick_goal": True})
    for change in ({}, *wrong):
        path = tmp_path / "targets.yaml"
        path.write_text(yaml.safe_dump({"toy": {"figures": {"speed": good | change}}}))
        if not change:
            assert harness.targets(path)["toy"]["speed"].goal == 1
            continue
        with pytest.raises((ValueError, TypeError)):
            harness.targets(path)


def test_saved_figures_say_where_they_come_from_and_pages_quote_them(toy, quote, tmp_path):
    toy("--save", speed=12.345, error=0.05)
    (tmp_path / "results").mkdir()
    (tmp_path / "toy.json").rename(tmp_path / "results/toy.json")
    with pytest.raises(SystemExit):
        toy("--save", "--quick", speed=12, error=0)
    entries = {key: {"definition": f"what {key} is", "peer": "a snail"} for key in ("speed", "error")}
    (tmp_path / "targets.yaml").write_text(yaml.safe_dump({"toy": {"figures": entries}}))
    page = "before\n<!-- figures:toy -->\nstale 99\n<!-- /figures -->\nafter\n"
    filled = quote.fill(page, tmp_path)
    assert "stale" not in filled
    assert "| `speed` | 12.35 | >= 10 | what speed is | a snail |" in filled
    assert "python benchmarks/toy.py" in filled
    assert filled.startswith("before\n<!-- figures:toy -->\n")
    assert filled.endswith("<!-- /figures -->\nafter\n")
    assert quote.fill(filled, tmp_path) == filled
    larger = page.replace("figures:toy", "figures:toy-full")
    assert "`python benchmarks/toy.py --full --save` writes" in quote.fill(larger, tmp_path)
    toy("--full", "--save", speed=20, error=0.01)
    (tmp_path / "toy-full.json").rename(tmp_path / "results/toy-full.json")
    assert "| `speed` | 40 | >= 10 | what speed is | a snail |" in quote.fill(larger, tmp_path)
    assert "`python benchmarks/toy.py --full`, " in quote.fill(larger, tmp_path)
    assert quote.fill(filled, tmp_path) == filled
    (tmp_path / "results/toy.json").unlink()
    assert "Not measured yet" in quote.fill(page, tmp_path)


def test_pages_quote_what_is_committed(quote):
    assert quote.pages()
    for page in quote.pages():
        assert quote.fill(page.read_text()) == page.read_text(), f"{page.name} is out of date: make figures"


def test_a_figure_without_a_goal_is_reported_only(harness):
    reported = harness.Target(key="rate", definition="d", unit="1/h", peer="none")
    softened = harness.Target(key="speed", definition="d", unit="1", peer="p", operator=">=", goal=2, quick_goal=None)
    wanted = {"rate": reported, "speed": softened}
    assert harness.judge({"rate": 0.0, "speed": 1.0}, wanted) is False
    assert harness.judge({"rate": 0.0, "speed": 3.0}, wanted) is True
    assert harness.judge({"rate": 0.0, "speed": 1.0}, wanted, quick=True) is True
    with pytest.raises(ValueError, match="belong together"):
        harness.Target(key="rate", definition="d", unit="1", peer="p", goal=2)


def test_goals_can_fail(harness):
    """A ratio, a rate or a share is never below 0, so that a goal of 0 would always be met."""
    vacuous = [
        f"{name}.{key}"
        for name, figures in harness.targets().items()
        for key, target in figures.items()
        for quick in (False, True)
        if target.operator in (">=", ">") and target.asked(quick=quick) == 0 and target.unit in ("ratio", "1/h")
    ]
    assert not vacuous


@pytest.mark.parametrize("name", ["crps", "loader", "metrics", "regrid"])
def test_without_its_peers_a_script_reports_nulls(name, tmp_path):
    for module in ("scoringrules", "xbatcher", "pysteps", "xarray_regrid"):
        (tmp_path / f"{module}.py").write_text("raise ModuleNotFoundError('hidden', name=__name__)")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    run = subprocess.run(
        [sys.executable, str(ROOT / f"benchmarks/{name}.py"), "--quick"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout.splitlines()[-1])
    assert set(outcome["figures"]) == set(DECLARED[name]["figures"])
    assert set(outcome["figures"].values()) == {None}
    assert outcome["met"] is None
    assert "make bench-setup" in run.stderr

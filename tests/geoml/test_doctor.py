import importlib.metadata
import json
import subprocess
import sys

import pytest

from geoml.__main__ import main
from geoml.cli import doctor
from geoml.cli.doctor import Finding
from geoml.errors import UserError


class Entry:
    """An entry point that a test puts in the place of the installed ones."""

    def __init__(self, name, found):
        self.name, self.found = name, found

    def load(self):
        if isinstance(self.found, Exception):
            raise self.found
        return lambda prove: self.found


@pytest.fixture
def only(monkeypatch):
    def use(**entries):
        found = [Entry(name, value) for name, value in entries.items()]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found)

    return use


def test_every_finding_that_is_not_well_names_a_way_out(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = [Finding(**item) for item in json.loads(capsys.readouterr().out)]
    assert {"python", "machine", "disk", "data", "torch", "rainshift", "dev"} <= {finding.name for finding in findings}
    assert all(finding.remedy for finding in findings if finding.status != "ok")
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(findings)


def test_what_is_missing_matters_where_it_is_needed(only, capsys):
    only(toy=[Finding("wheels", "missing", "none", "buy wheels"), Finding("fuel", "warning", "low", "refuel")])
    assert main(["doctor"]) == 0
    assert main(["doctor", "--need", "wheels"]) == 1
    assert "missing  wheels  none → buy wheels" in capsys.readouterr().out
    assert main(["doctor", "--need", "fuel"]) == 1
    only(toy=[Finding("brakes", "missing", "none", "stop", required=True)])
    assert main(["doctor"]) == 1
    only(toy=[Finding("wheels", "ok", "four")])
    assert main(["doctor", "--need", "wheels"]) == 0
    assert main(["doctor", "--need", "weels"]) == 2
    assert "did you mean 'wheels'" in capsys.readouterr().err


def test_checks_that_cannot_be_loaded_are_a_finding(only):
    only(broken=ImportError("no module named gears"))
    (finding,) = doctor.examine()
    assert (finding.name, finding.status) == ("broken", "missing")
    assert "gears" in finding.detail


def test_extras_follow_the_extras_inside_them(monkeypatch):
    lines = ["numpy", 'geoml[a,b]; extra == "both"', 'one>=1; extra == "a"', "two[x]<3 ; extra == 'b'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert doctor._packages_of("both") == {"one", "two"}
    assert doctor._packages_of("a") == {"one"}


def test_data_and_disk_say_what_is_wrong(monkeypatch, tmp_path):
    monkeypatch.setenv("GEOML_DATA", str(tmp_path))
    assert doctor._data().status == "ok"
    monkeypatch.setenv("GEOML_DATA", str(tmp_path / "nowhere"))
    assert doctor._data().status == "missing"
    monkeypatch.setattr(doctor, "ENOUGH_DISK_GB", 1e9)
    assert doctor._disk(tmp_path).status == "warning"


def test_unknown_needs_are_answered():
    with pytest.raises(UserError, match="did you mean 'torch'"):
        doctor.examine(need=["torsh"])


def test_torch_is_proved_by_adding():
    (finding,) = (finding for finding in doctor.examine(need=["torch"]) if finding.name == "torch")
    assert finding.status == "ok"
    assert "1 + 1 = 2 on" in finding.detail
    heavy = {"torch", "xarray", "hydra", "sionna"}
    code = f"import sys, geoml.cli.doctor as d; d.examine(); print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"

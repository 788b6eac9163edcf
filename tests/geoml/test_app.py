"""The command line, on the toy package beside this file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from geoml.cli import app as command_line
from geoml.cli.compose import compose
from geoml.errors import UserError
from geoml.runs.folder import RunFolder

TOY = Path(__file__).parent / "toy"


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Run the toy in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.chdir(tmp_path)
    from toyapp.__main__ import APP

    def run(line):
        code = command_line.main(APP, line.split())
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def spawn(line, folder, **environment):
    inherited = {**os.environ, "PYTHONPATH": str(TOY), **environment}
    command = [sys.executable, "-m", "toyapp", *line.split()]
    return subprocess.run(command, cwd=folder, env=inherited, capture_output=True, text=True)


def only_run(folder):
    (found,) = (item.parent for item in folder.rglob("config.yaml"))
    return RunFolder.load(found)


@pytest.mark.parametrize("line", ["", "--help", "-h", "help"])
def test_every_verb_is_listed_with_its_line(call, line):
    code, out, _ = call(line)
    assert code == 0
    for text in ("fit   Fit a line", "look  Look at a region", "list  List regions"):
        assert text in out


def test_a_verb_leaves_a_whole_run_folder_and_prints_its_table(call, tmp_path):
    code, out, err = call("fit model=large samples=7")
    assert code == 0
    assert out.split() == ["region", "loss", "north", "0.125"]
    run = only_run(tmp_path)
    assert run.path.parent == tmp_path / "runs" / "fit"
    assert run.path.name.startswith("large-7-")
    assert run.config["model"] == {"width": 8}
    assert run.summary == {"rows": [{"region": "north", "loss": 0.125}]}
    assert run.metrics.rows() == [{"samples": 7, "loss": 0.125}]
    log = (run.path / "log.txt").read_text()
    for text in ("fitting north", "noise", "slightly odd"):
        assert text in log
    assert "fitting north" in err
    assert "noise" not in err


def test_the_same_command_goes_on_in_the_same_folder_and_fresh_starts_it_over(call, tmp_path):
    for line, rows in (("fit", 1), ("fit", 2), ("fit run.fresh=true", 1), ("fit samples=100", 1)):
        assert call(line)[0] == 0
        assert len(RunFolder.load(max(tmp_path.glob("runs/fit/*"), key=os.path.getmtime)).metrics.rows()) == rows
    assert len(list(tmp_path.glob("runs/fit/*"))) == 2  # the last one is the same run under a name of its own


def test_a_named_folder_is_refused_to_another_configuration(call, tmp_path):
    assert call("fit run.dir=here")[0] == 0
    code, _, err = call("fit run.dir=here model=large")
    assert code == 2
    assert err.startswith("error: here holds a run of another configuration: model.width was 4, now 8")
    assert "Traceback" not in err
    assert call("fit run.dir=here model=large run.ignore=[model]")[0] == 0
    assert call("fit run.dir=mended fail=user")[0] == 2
    assert call("fit run.dir=mended")[0] == 0
    assert call("fit run.name=mine model=large")[0] == 0
    assert (tmp_path / "runs/fit/mine/summary.json").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fitt", "verb 'fitt' unknown; did you mean 'fit'?"),
        ("region=north", "expected a verb, not 'region=north'"),
        ("fit model=larg", "model 'larg' unknown; did you mean 'large'?"),
        ("fit modl=large", "key 'modl' unknown; did you mean 'model'?"),
        ("fit rate=3", "key 'rate' unknown; did you mean 'optimiser.rate'?"),
        ("fit optimiser.rat=3", "key 'optimiser.rat' unknown; did you mean 'optimiser.rate'?"),
        ("fit optimiser={rat:3}", "key 'optimiser.rat' unknown; did you mean 'optimiser.rate'?"),
        ("fit experiment=quik", "experiment 'quik' unknown; did you mean 'quick'?"),
        ("fit model=small,large", "add -m to run each of them"),
        ("fit samples=1,2", "samples=[…] for a list"),
        ("fit -m model=small,larg", "model 'larg' unknown; did you mean 'large'?"),
        ("fit -m modl=small,large", "key 'modl' unknown; did you mean 'model'?"),
        ("fit large", "'large' cannot be read; settings are written KEY=VALUE"),
        ("fit --region north", "unrecognized arguments: --region"),
        ("fit --config-dir nowhere", "configuration folder nowhere does not exist"),
        ("look", "region is not chosen; add region=NAME to the command, one of north, south"),
        ("look region=nrth", "region 'nrth' unknown; did you mean 'north'?"),
        ("look experiment=quick", "group 'experiment' unknown (known: allow_targets, region, run) for look"),
        ("look region=north region.lat=${nothing}", "the configuration cannot be resolved"),
        ("fit samples=???", "samples is not set; add samples=VALUE"),
        ("fit fail=user", "the data are on fire; call the fire brigade"),
        ("fit stage=large", "key 'stage' unknown; stages is a list here: 'stages=[small,large]'"),
        ("fit stage=", "stages is a list here: 'stages=[small,NAME]'"),
        ("fit stage._target_=my.Own stage.width=8", "'stages=[small,{_target_: my.Own, width: 8}]'"),
        ("fit stage.width=8", "stages is a list here: 'stages=[small,{stage: NAME, width: 8}]'"),
        ("far", "not_installed_anywhere is not installed; pip install 'geoml[all]'"),
    ],
)
def test_mistakes_are_answered_in_one_line_with_the_way_out(call, line, message):
    code, out, err = call(line)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("error: ")


def test_bugs_keep_their_traceback_and_interruptions_say_how_to_go_on(call, tmp_path):
    with pytest.raises(ZeroDivisionError):
        call("fit fail=bug")
    assert "ZeroDivisionError: one over nothing" in next(tmp_path.rglob("log.txt")).read_text()
    code, _, err = call("fit fail=interrupt")
    assert code == 130
    assert "the same command resumes" in err
    with pytest.raises(TypeError, match="must begin with `base`"):
        call("bare")


def test_a_sweep_runs_every_combination_and_prints_one_table(call, tmp_path):
    code, out, _ = call("fit -m model=small,large region=north,south samples=5")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["model", "region", "loss"]
    assert sorted(lines[1:]) == sorted(
        [model, region, loss]
        for model, loss in (("small", "0.25"), ("large", "0.125"))
        for region in ("north", "south")
    )
    assert len(list(tmp_path.glob("runs/fit/*/summary.json"))) == 4


def test_a_failed_job_of_a_sweep_leaves_its_siblings_alone(call, tmp_path):
    code, out, err = call("fit -m fail=user,null run.dir=all")
    assert code == 2
    assert "the data are on fire" in out
    assert "1 of 2 jobs failed" in err
    assert len(list(tmp_path.glob("all/*/summary.json"))) == 1
    assert call("fit -m fail=bug,null")[0] == 1


def test_help_of_a_verb_fits_a_screen(call):
    code, out, _ = call("fit --help")
    assert code == 0
    assert len(out.splitlines()) <= 30
    assert max(map(len, out.splitlines())) <= 80
    for text in ("Fit a line", "toyapp fit region=north model=large", "[north], south", "samples=100", "step size"):
        assert text in out


def test_plain_verbs_take_flags_and_show_rows(call):
    assert call("list") == (0, "name   lat\nnorth   60\n", "")
    code, out, _ = call("list --json")
    assert json.loads(out) == ["north"]
    code, _, err = call("list --jsn")
    assert code == 2
    assert "--jsn" in err


def test_configurations_of_ones_own_come_from_a_folder(call, tmp_path):
    (tmp_path / "mine/region").mkdir(parents=True)
    (tmp_path / "mine/region/moon.yaml").write_text("name: moon\nlat: 1\ndouble: 2\n")
    assert call("look region=moon")[0] == 2
    code, out, _ = call("look region=moon --config-dir mine")
    assert (code, out.split()) == (0, ["name", "double", "moon", "2"])


def test_cfg_prints_the_configuration_and_runs_nothing(call, tmp_path):
    code, out, _ = call("fit --cfg experiment=quick")
    assert code == 0
    assert "samples: 1\n" in out
    assert "hydra" not in out
    assert list(tmp_path.iterdir()) == []


def test_compose_gives_what_the_command_line_gives(call):
    config = compose("toyapp.conf", "fit", ["region=south"])
    assert config.region.double == 60
    with pytest.raises(Exception, match="read-only"):
        config.samples = 3
    with pytest.raises(UserError, match="did you mean 'south'"):
        compose("toyapp.conf", "fit", ["region=soth"])


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("toyapp f", {"fit", "far"}),
        ("toyapp ", {"fit", "look", "list", "far", "bare"}),
        ("toyapp fit reg", {"region=", "region."}),
        ("toyapp fit region=", {"region=north", "region=south"}),
        ("toyapp fit region=south optim", {"optimiser."}),
        ("toyapp list ", set()),
    ],
)
def test_completion_knows_verbs_groups_and_keys(call, monkeypatch, line, offered):
    monkeypatch.setenv("COMP_LINE", line)
    code, out, _ = call("-sc query=bash")
    assert code == 0
    assert set(out.split()) == offered


def test_as_a_script_it_exits_and_completes(tmp_path):
    swept = spawn("fit -m model=small,large", tmp_path)
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout.splitlines()[0].split() == ["model", "region", "loss"]
    wrong = spawn("fit model=larg", tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    install = spawn("-sc install=bash", tmp_path)
    assert "complete -o nospace" in install.stdout
    completed = spawn("-sc query=bash", tmp_path, COMP_LINE="toyapp fit model=s")
    assert completed.stdout.split() == ["model=small"]
    bug = spawn("fit fail=bug", tmp_path)
    assert bug.returncode == 1
    assert "ZeroDivisionError" in bug.stderr


def test_listing_and_verb_completion_load_nothing_heavy(tmp_path):
    code = (
        "import sys; from toyapp.__main__ import APP; from geoml.cli.app import main; main(APP, ['list']);"
        "print(sorted({'torch','xarray','dask','hydra','numpy','rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(TOY)}, capture_output=True, text=True
    )
    assert done.stderr.strip() == "[]"


def test_exec_runs_another_command_line_of_the_distribution(capsys):
    from geoml.__main__ import main as geoml_main

    assert geoml_main(["exec", "mcp-experts", "--help"]) == 0
    assert "serve" in capsys.readouterr().out
    assert geoml_main(["exec", "mcp-expert"]) == 2
    assert "mcp-experts" in capsys.readouterr().err
    assert geoml_main(["exec"]) == 2
    assert "rainshift" in capsys.readouterr().err


def test_a_former_name_of_a_verb_is_answered_with_the_one_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    from radiomaps.__main__ import main as radiomaps

    assert radiomaps(["sample", "checkpoint=runs/model"]) == 2
    assert "verb 'sample' is now 'predict'" in capsys.readouterr().err

"""Run folders and checkpoints of others are data: nothing in them is run, resolved or followed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from geoml.cli.app import main
from geoml.errors import DataError, Diverged, UserError
from geoml.models.predictor import load_predictor
from geoml.runs.files import read_json, sha256
from geoml.runs.folder import RunFolder
from geoml.runs.stored_config import parse_yaml, read_config

WEIGHTS = Path(__file__).parents[2] / "benchmarks" / "weights"
RAIN, RADIO = WEIGHTS / "oracle" / "unet", WEIGHTS / "radiodiff" / "aware-radiodiff3d"
EVIL = """
import pathlib
pathlib.Path({mark!r}).write_text("imported")
class Model:
    def __init__(self, **_):
        pathlib.Path({mark!r}).write_text("built")
"""


@pytest.fixture
def attacker(tmp_path, monkeypatch):
    """A module that can be imported and leaves a mark when its class is built; the mark."""
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(EVIL.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    return mark


def signed(folder, **texts):
    """A copy's files replaced by these, with hashes that fit: whoever sends a checkpoint can hash it too."""
    for name, text in texts.items():
        (folder / name).write_text(text)
    names = [path.name for path in folder.iterdir() if path.name not in ("SHA256SUMS", "task.json")]
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in sorted(names)))


@pytest.fixture
def checkpoint(tmp_path):
    return Path(shutil.copytree(RAIN, tmp_path / "checkpoint"))


@pytest.mark.parametrize("app", ["geoml", "radiomaps", "rainshift"])
@pytest.mark.parametrize("model", ["evil.Model", "os.system", "subprocess.Popen"])
def test_a_report_runs_nothing_that_a_run_folder_names(app, model, tmp_path, attacker, capsys):
    """The page of predicted maps used to build the model that the folder's own settings name and allow."""
    import importlib

    import numpy as np
    import xarray as xr

    run, sent = tmp_path / "run", tmp_path / "sent"
    shutil.copytree(RADIO, sent)
    config = yaml.safe_load((sent / "config.yaml").read_text())
    signed(sent, **{"config.yaml": yaml.safe_dump({**config, "model": {"_target_": model}})})
    (run / "samples").mkdir(parents=True)
    (run / "config.yaml").write_text(
        yaml.safe_dump({"checkpoint": str(sent), "store": str(WEIGHTS / "radiodiff" / "maps.zarr"),
                        "allow_targets": ["evil", "os", "subprocess"], "region": "${oc.env:GEOML_SECRET}"})
    )  # fmt: skip
    space, shape = ("z", "y", "x"), (1, 4, 4)
    drawn = xr.Dataset(
        {"path_gain_db": (("member", *space), np.full((2, *shape), -90.0), {"units": "dB"}),
         "path_gain_db_mean": (space, np.full(shape, -90.0)), "path_gain_db_uncertainty": (space, np.ones(shape)),
         "building": (space, np.zeros(shape, np.int8))},
        {"z": [1.5], "y": np.arange(4.0), "x": np.arange(4.0), "tx_x": 1.0, "tx_y": 1.0, "tx_z": 9.0},
        {"scene": "somewhere", "licence": "none"},
    )  # fmt: skip
    drawn.to_netcdf(run / "samples" / "map-00000.nc")
    os.environ["GEOML_SECRET"] = "a-secret-of-this-machine"
    try:
        code = main(importlib.import_module(f"{app}.__main__").APP, ["report", str(run)])
    finally:
        del os.environ["GEOML_SECRET"]
    assert not attacker.exists()
    said = capsys.readouterr()
    pages = list(run.glob("*.html"))
    assert (code == 0) == bool(pages), said.err
    assert "a-secret-of-this-machine" not in said.out + said.err + "".join(page.read_text() for page in pages)
    if app != "rainshift":
        assert code == 0, said.err


def test_many_keys_are_read_in_linear_time():
    """Each key used to be compared with all others: 100,000 keys took minutes."""
    found = parse_yaml("\n".join(f"k{number}: 1" for number in range(20_000)), "many.yaml")
    assert len(found) == 20_000
    with pytest.raises(DataError, match="the key 'k7' twice"):
        parse_yaml("k7: 1\n" * 2, "twice.yaml")


@pytest.mark.fault("link out of a run folder, for its page to show", "refused, with the link")
def test_a_page_shows_no_file_that_a_link_leads_to(tmp_path, capsys):
    """A folder of somebody else with a link to a file of the reader's, which the page would carry to others."""
    from geoml.__main__ import APP
    from mcp_experts.report.html import LIVE, SESSION

    (tmp_path / "private").write_text("my secret")
    run = tmp_path / "run"
    run.mkdir()
    (run / SESSION).write_text("```text\n→ ask\n```\n")
    (run / LIVE).symlink_to(tmp_path / "private")
    assert main(APP, ["report", str(run), "--output", str(tmp_path / "page.html")]) == 2
    assert "live" in (said := capsys.readouterr().err)
    assert "leads out of the folder" in said
    assert not (tmp_path / "page.html").exists()
    (run / LIVE).unlink()
    (run / "inside").write_text("an answer")
    (run / LIVE).symlink_to("inside")
    assert main(APP, ["report", str(run), "--output", str(tmp_path / "page.html")]) == 0
    assert "an answer" in (tmp_path / "page.html").read_text()


def test_only_the_command_decides_what_a_checkpoint_may_build(checkpoint, attacker):
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())
    signed(checkpoint, **{"config.yaml": yaml.safe_dump(
        {**config, "model": {"_target_": "evil.Model"}, "allow_targets": ["evil"]}
    )})  # fmt: skip
    with pytest.raises(UserError, match="not in an allowed package"):
        load_predictor(checkpoint)
    assert not attacker.exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "anchor"),
        ("a: &a {b: *a}\n", "anchor"),
        ("a: !!python/object/apply:os.system [echo]\n", "tag"),
        ("a: !!binary aGk=\n", "tag"),
        ("[" * 3000 + "]" * 3000, "more than 40 levels"),
        ("a: " + "{b: " * 60 + "1" + "}" * 60, "more than 40 levels"),
        ("a: [" + "1, " * 30_000 + "1]", "more than 20000 values"),
        ("a: " + "x" * 1_100_000, "1000000"),
        ("a: 1\na: 2\n", "twice"),
        ("? [1, 2]\n: 3\n", "key"),
        ("<<: {a: 1}\n", None),
        ("- 1\n", "holds list"),
        ("", "holds NoneType"),
        ("a: [1\n", "cannot be read"),
        ("a: \x00\n", "cannot be read"),
        ("a: 1" + "0" * 5000, "cannot be read"),
    ],
)
def test_configurations_of_others_are_plain_and_small(text, said, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    if said is None:
        assert read_config(path) == {"<<": {"a": 1}}
        return
    with pytest.raises(DataError, match=said) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    for name in ("config.yaml", "summary.json"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="not a regular file"):
        read_config(tmp_path / "config.yaml")
    with pytest.raises(DataError, match="not a regular file"):
        read_json(tmp_path / "summary.json")


def test_text_and_numbers_survive_as_a_run_writes_them(tmp_path):
    config = {
        "rate": 1e-5, "small": 1e-30, "none": None, "yes": True, "text": "1e-3", "date": "2020-01-01", "on": "on",
        "clock": "12:30", "path": "${oc.env:HOME}", "many": [1, 2.5, "a"], "none_text": "null", "inf": float("inf"),
        "deep": {"a": {"b": []}}, "tilde": "~", "empty": "",
    }  # fmt: skip
    RunFolder.open(tmp_path / "run", {key: value for key, value in config.items() if key != "path"})
    assert RunFolder.load(tmp_path / "run").config == {key: value for key, value in config.items() if key != "path"}
    (tmp_path / "one.yaml").write_text("a: 1e-3\nb: 1E5\nc: .5\nd: -2.\ne: 1_000\nf: 5e\n")
    values = read_config(tmp_path / "one.yaml")
    assert values == {"a": 1e-3, "b": 1e5, "c": 0.5, "d": -2.0, "e": 1000, "f": "5e"}


@pytest.mark.parametrize("value", ["abc", [[[]]], {}, None, -4, 0, 1e400, 10**9, True])
@pytest.mark.parametrize("key", ["base", "dims", "channels", "multipliers"])
def test_damaged_settings_of_a_checkpoint_are_one_line(key, value, checkpoint):
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())
    place = config if key in config else config["model"]
    place[key] = value
    signed(checkpoint, **{"config.yaml": yaml.safe_dump(config)})
    with pytest.raises(UserError) as caught:
        load_predictor(checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "null", "3", '{"format": 1}', "[" * 100_000, '{"a": NaN}', '"x"', "{"])
@pytest.mark.parametrize("name", ["transform.json", "best.json"])
def test_damaged_records_are_one_line(name, text, checkpoint, tmp_path):
    if name == "best.json":
        (tmp_path / "best.json").write_text(text)
        checkpoint.rename(tmp_path / "000000000001")
        checkpoint = tmp_path
    else:
        signed(checkpoint, **{name: text})
    with pytest.raises(DataError) as caught:
        load_predictor(checkpoint)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "..", "000000000001/..", "", 1, None, ["a"]])
def test_the_best_checkpoint_lies_in_its_folder(name, checkpoint, tmp_path):
    run = tmp_path / "checkpoints"
    run.mkdir()
    shutil.copytree(checkpoint, run / "000000000001")
    shutil.copytree(checkpoint, tmp_path / "elsewhere")
    (run / "best.json").write_text(json.dumps({"checkpoint": name, "validation": 1.0}))
    with pytest.raises(DataError, match=r"best.json names no checkpoint"):
        load_predictor(run)


def test_weights_that_are_not_finite_are_of_a_training_that_diverged(checkpoint):
    tensors = load_file(checkpoint / "ema.safetensors")
    first = sorted(tensors)[0]
    tensors[first] = torch.full_like(tensors[first], torch.nan)
    save_file(tensors, checkpoint / "ema.safetensors")
    signed(checkpoint)
    with pytest.raises(Diverged, match=f"{first!r} holds values that are not finite"):
        load_predictor(checkpoint)


def test_a_prediction_that_is_not_finite_is_no_result(checkpoint):
    from geoml.testing import toy_batch

    predictor = load_predictor(checkpoint)
    batch = toy_batch(predictor.model.channels, predictor.model.dims)
    with torch.no_grad():
        for parameter in predictor.model.parameters():
            parameter.fill_(1e38)
    with pytest.raises(Diverged, match="is not finite"):
        predictor.predict(batch)


def test_a_large_network_in_a_small_file_takes_no_memory(checkpoint):
    """The shapes in the weights are compared with a sketch before the network is made."""
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())
    config["model"]["base"] = 65536
    signed(checkpoint, **{"config.yaml": yaml.safe_dump(config)})
    code = (
        "import resource, sys\nfrom geoml.models.predictor import load_predictor\nfrom geoml.errors import UserError\n"
        "import torch\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try:\n    load_predictor({str(checkpoint)!r})\nexcept UserError as error:\n    print(error)\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "another architecture" in done.stdout

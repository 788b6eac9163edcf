"""Experts from Python: public names, channels from files, verdicts that are typed and show as a table."""

from __future__ import annotations

import html
import json
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

import mcp_experts
from geoml.errors import DataError, UserError
from mcp_experts.client.terminal import describe as describe_verb
from mcp_experts.inference.registry import GATE, Registry


@pytest.fixture(scope="module")
def channel() -> mcp_experts.Channel:
    return mcp_experts.synthetic_channel(k_factor_db=12, snr_db=35, delay_spread_s=50e-9)


@pytest.fixture(scope="module")
def verdicts(channel: mcp_experts.Channel) -> mcp_experts.Verdicts:
    return mcp_experts.describe(channel)


def test_dir_lists_the_public_names_and_each_has_help() -> None:
    assert dir(mcp_experts) == ["Channel", "Verdict", "Verdicts", "describe", "load_channel", "synthetic_channel"]
    for name in dir(mcp_experts):
        assert len((getattr(mcp_experts, name).__doc__ or "").splitlines()[0]) > 20, name


def test_verdicts_are_typed_and_in_order(verdicts: mcp_experts.Verdicts) -> None:
    assert verdicts[0].expert == GATE
    assert {verdict.expert for verdict in verdicts} == set(Registry().experts)
    for verdict in verdicts:
        assert sum(verdict.probabilities.values()) == pytest.approx(1.0, abs=1e-3)
        assert verdict.abstained is (verdict.label is None)
        assert verdict.label is None or verdict.label in verdict.likely
    with pytest.raises(FrozenInstanceError):
        verdicts[0].label = "inside"  # type: ignore[misc]
    with pytest.raises(UserError, match="did you mean 'doppler'"):
        verdicts["dopler"]
    assert [verdict.expert for verdict in verdicts[1:3]] == [verdicts[1].expert, verdicts[2].expert]


def test_they_show_as_text_and_in_a_notebook(verdicts: mcp_experts.Verdicts) -> None:
    lines = repr(verdicts).splitlines()
    assert lines[0].split()[:3] == ["expert", "label", "confidence"]
    assert len(lines) == 1 + len(verdicts)
    page = verdicts._repr_html_()
    assert page.count("<tr>") == 1 + len(verdicts)
    cells = [html.unescape(value) for value in re.findall(r"<td>([^<>]*)</td>", page)]
    assert len(cells) == 7 * len(verdicts)
    assert "> 25 dB" in cells


def test_a_file_gives_the_same_verdicts_as_the_verb(
    channel: mcp_experts.Channel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "channel.npz"
    spacing, interval = channel.subcarrier_spacing_hz, channel.snapshot_interval_s
    np.savez(file, csi=channel.csi, subcarrier_spacing_hz=spacing, snapshot_interval_s=interval)
    verdicts = mcp_experts.describe(mcp_experts.load_channel(file))
    rows = describe_verb([str(file)])
    assert isinstance(rows, list)
    assert [row["label"] for row in rows] == [verdict.row()["label"] for verdict in verdicts]
    assert describe_verb([str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    drop = {"latency_ms"}
    for one, other in zip(printed, verdicts.to_dicts(), strict=True):
        assert {k: v for k, v in one.items() if k not in drop} == {k: v for k, v in other.items() if k not in drop}
    with pytest.raises(UserError, match=r"nowhere\.npz does not exist"):
        mcp_experts.load_channel(tmp_path / "nowhere.npz")
    with pytest.raises(DataError, match="one channel"):
        mcp_experts.load_channel(file, 1)


def test_outside_of_the_training_every_expert_abstains() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(64, 14, 1)) + 1j * random.normal(size=(64, 14, 1))
    channel = mcp_experts.Channel(csi=noise, subcarrier_spacing_hz=312.5e3, snapshot_interval_s=1e-3)
    verdicts = mcp_experts.describe(channel)
    assert not verdicts.in_distribution
    assert all(verdict.abstained and verdict.interval == "" for verdict in verdicts[1:])

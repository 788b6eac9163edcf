"""Scenes from files of every format and kind; the page of formats is their table."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from geoml.errors import UserError
from radiomaps.scenes import load
from tests.formats.case import Case
from tests.formats.cases import CASES

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.form.split()[0]}-{case.kind}")
def test_a_file_of_this_kind(case: Case, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        what = case.write(tmp_path)
    if case.error:
        with pytest.raises(UserError, match=case.error) as raised:
            load(what)
        assert "\n" not in str(raised.value)
        return
    scene = load(what)
    found = sorted((f.polygon.area, f.base_m, f.top_m) for f in scene.footprints)
    assert len(found) == len(case.buildings), found
    for one, expected in zip(found, sorted(case.buildings), strict=True):
        assert one == pytest.approx(expected, rel=5e-3, abs=0.01)
    lines = "\n".join(scene.repairs)
    assert [word for word in case.repairs if word not in lines] == [], lines
    assert bool(case.repairs) == bool(scene.repairs), lines
    assert case.check is None or case.check(scene), scene.report


def test_the_page_of_formats_is_the_table() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.formats"], cwd=ROOT, capture_output=True, text=True, check=True)
    page = (ROOT / "docs" / "howto" / "scene-formats.md").read_text()
    assert page.endswith(done.stdout), "type: python -m tests.formats --page"

"""The session in the docs is one that the client and the server still hold."""

import re
from pathlib import Path

import anyio
import pytest

from docs.experts_pages.transcript import CALLS, session

PAGE = Path(__file__).parents[2] / "docs" / "experts-transcript.md"
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


def test_the_page_is_what_a_client_and_the_server_say():
    page = anyio.run(session)
    written = PAGE.read_text()
    assert NUMBER.sub("0", page) == NUMBER.sub("0", written), "python docs/experts_pages/transcript.py > " + str(PAGE)
    # Another processor may round the last of four digits otherwise.
    numbers = ([float(text) for text in NUMBER.findall(each)] for each in (page, written))
    for found, wanted in zip(*numbers, strict=True):
        assert found == pytest.approx(wanted, rel=0.01, abs=2e-3)
    assert "error: arguments of wireless_ask refused" in page
    assert page.count("→") >= len(CALLS)

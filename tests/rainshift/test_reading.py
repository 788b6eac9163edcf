"""Every file of `reading_cases` is read as its row says, by the source and into a store."""

from __future__ import annotations

import numpy as np
import pytest

from geoml.errors import DataError
from rainshift.sources import open_source
from rainshift.sources.catalogue import records
from rainshift.sources.rain_files import read_rain
from tests.rainshift.reading_cases import CASES, INTRODUCTION, PAGE, RAIN, table
from tests.rainshift.reading_cases.base import HOURS


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}: {case.what}" for case in CASES])
def test_file_is_read_as_its_row_says(case, tmp_path):
    case.write(tmp_path)
    settings = dict(case.settings)
    min_coverage = settings.pop("min_coverage", 1.0)

    def files():
        return [file for record in records(tmp_path).values() for file in record.files]

    if case.refused:
        with pytest.raises(DataError, match=case.refused):
            read_rain(files(), **settings).values.compute()
        return
    path = files()
    rain = read_rain(path, **settings).values
    expected = RAIN if case.expected is None else case.expected
    if case.kind == "time" and case.expected is None:
        np.testing.assert_array_equal(rain.time.values, HOURS)
    if callable(expected):  # of a grid that is interpolated
        truth = expected(rain.lat.values[:, None], rain.lon.values)
        assert float(np.nanmax(np.abs(rain.values - truth))) < 0.01
        assert np.isfinite(rain.values).mean() > 0.8
        return
    np.testing.assert_allclose(rain.values, expected, rtol=2e-6, atol=1e-9)
    source = open_source("gridded", root=str(tmp_path), min_coverage=min_coverage, **settings)
    opened = source.open(source.names[0])
    assert np.isnan(opened.target.precipitation.values).sum() == np.isnan(expected[:, 5:-5, 5:-5]).sum()


def test_the_page_has_every_row():
    assert PAGE.read_text() == INTRODUCTION + table(), "python -m tests.rainshift.reading_cases --page writes it"

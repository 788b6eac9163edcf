"""Pages for a browser: what they hold, that nothing breaks out of them, and that they work in a real one."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geoml.__main__ import main
from geoml.report import (
    Chart,
    Panel,
    Report,
    Section,
    Table,
    Text,
    Viewer,
    ViewerAxis,
    ViewerField,
    write_markdown,
    write_report,
)
from geoml.report.drawing import draw_plot, draw_viewer
from geoml.report.figures import HeatMap, Plot, PlotAxis, Series, Subplot, guide
from geoml.report.page import _cell, _packed, render
from geoml.report.plotly_figures import plotly_figure

EVIL = "</script><script>throw new Error('out')</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


def chart() -> Chart:
    lines = [Series(EVIL, [1, 2, 3], [2.0, np.nan, 1.0], "#0072b2"), guide([1, 3], [0, 0])]
    points = Series("b", [0, 1], [1.0, 2.0], "#d55e00", "points", [0.5, np.nan], [2.0, np.nan], texts=["p", "q"])
    axis = PlotAxis("where", names=["p", "q"], marks=[(0.5, "middle")])
    plot = Plot([Subplot(lines, PlotAxis(log=True)), Subplot([points], axis)], columns=2)
    return Chart(plot, alt="Three points, one unknown", caption="A line")


def viewer() -> Viewer:
    x = np.arange(6.0)
    y = np.arange(4.0)
    fields = [
        ViewerField("truth", {"hour": str(hour)}, np.full((4, 6), float(hour)), x, y) for hour in range(3)
    ] + [
        ViewerField("model", {"hour": str(hour), "member": str(member)}, np.full((4, 6), hour + 10.0 * member), x, y)
        for hour in range(3)
        for member in range(2)
    ]  # fmt: skip
    panels = [Panel("truth", "mm/h", low=0, high=20), Panel("model", "mm/h", "Viridis", bounds=(0.1, 1, 10))]
    axes = (ViewerAxis("hour", ["0", "1", "2"], "range"), ViewerAxis("member", ["0", "1"]))
    return Viewer(axes, panels, fields, alt="Two maps")


@pytest.fixture
def report() -> Report:
    rows = [
        {"model": "b", "crps": 0.2, "lost": "0.31 [0.2, 0.4]"},
        {"model": "a", "crps": 0.1, "lost": None},
        {"model": EVIL, "crps": float("nan"), "lost": "-0.1 [-0.3, 0.1]"},
    ]
    blocks = [Text(f"First & {EVIL}\n\nSecond"), Text("A note", "note"), Table(rows, "Scores", sort="crps")]
    return Report("A <b>title</b>", "What it is", [Section("Numbers", [*blocks, chart()]), Section("Maps", [viewer()])])


def test_a_page_needs_nothing_else_and_nothing_breaks_out_of_it(report) -> None:
    page = render(report)
    assert EVIL not in page
    assert "A &lt;b&gt;title&lt;/b&gt;" in page
    # Plotly's own source names its home in comments and defaults; ours and the attributes name no other place.
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:,)[^"']+""", own)
    for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL):
        json.loads(text)
    assert len(render(Report("t", "s", [Section("x", [Text("only text")])]))) < 50_000


def test_sections_of_one_title_have_anchors_of_their_own() -> None:
    page = render(Report("t", "s", [Section("Maps", []), Section("Maps", []), Section("ä", [])]))
    assert re.findall(r'<section id="([^"]+)"', page) == ["maps", "maps-2", "section"]
    grouped = render(Report("t", "s", [Section("Maps", [], "Rain"), Section("Maps", [], "Radio")]))
    assert re.findall(r'<section id="([^"]+)"', grouped) == ["rain-maps", "radio-maps"]
    assert re.findall(r'<p class="group">(\w+)<', grouped) == ["Rain", "Radio"]


@pytest.mark.parametrize(
    ("value", "shown", "key"),
    [
        (0.25, "0.25", 0.25),
        ("0.31 [0.2, 0.4]", "0.31 [0.2, 0.4]", 0.31),
        (float("nan"), "–", None),
        (None, "–", None),
        ("5 members", "5 members", 5.0),
        ("2.5km", "2.5km", None),
        (True, "yes", None),
    ],
)
def test_cells_sort_by_the_number_they_begin_with(value, shown: str, key: float | None) -> None:
    assert _cell(value) == {"shown": shown, "key": key}


def test_a_field_comes_back_from_its_16_bits() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7)) * 30
    values[2, 3] = np.nan
    packed = _packed(ViewerField("p", {}, values, np.arange(7), np.arange(5)))
    levels = np.frombuffer(base64.b64decode(packed["packed"]), "<u2").reshape(packed["shape"])
    restored = np.where(levels == 65535, np.nan, packed["low"] + levels * packed["step"])
    np.testing.assert_allclose(restored, values, atol=np.nanmax(values) / 1e4)
    empty = _packed(ViewerField("p", {}, np.full((2, 2), np.nan), np.arange(2), np.arange(2)))
    assert set(np.frombuffer(base64.b64decode(empty["packed"]), "<u2")) == {65535}


def test_a_solid_cell_is_no_value_and_not_unknown() -> None:
    field = ViewerField("p", {}, np.array([[1.0, 2.0], [np.nan, np.nan]]), [0, 1], [0, 1], solid=np.eye(2) < 0)
    assert _packed(field)["solid"] is False
    solid = np.array([[False, False], [True, False]])
    packed = _packed(ViewerField("p", {}, field.values, [0, 1], [0, 1], solid=solid))
    assert packed["solid"] is True
    assert list(np.frombuffer(base64.b64decode(packed["packed"]), "<u2")) == [0, 65533, 65534, 65535]


def test_a_plot_has_the_same_points_in_the_browser_and_in_print() -> None:
    plot = chart().figure
    drawn, data = draw_plot(plot), plotly_figure(plot)["data"]
    lines = [line for axis in drawn.axes for line in axis.lines if line.get_label() in (EVIL, "b")]
    for line, trace in zip(lines, [trace for trace in data if trace["name"]], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), trace["x"])
        np.testing.assert_array_equal(line.get_ydata(), np.array(trace["y"], float))
        assert line.get_color() == trace["marker"]["color"]
    assert data[-1]["error_y"]["array"] == [1.0, None]
    assert data[-1]["error_y"]["arrayminus"] == [0.5, None]
    (interval,) = drawn.axes[1].collections
    np.testing.assert_array_equal(interval.get_segments(), [[[0, 0.5], [0, 2.0]]])
    assert [text.get_text() for text in drawn.legends[0].texts] == [EVIL, "b"]
    assert [text.get_text() for text in drawn.axes[1].get_xticklabels()] == ["p", "q"]


def test_a_heat_map_reads_from_the_top_in_the_browser_and_in_print() -> None:
    names = PlotAxis("trained on", names=["a", "b"]), PlotAxis("tested on", names=["c"])
    plot = Plot([Subplot(HeatMap(np.array([[1.0], [np.nan]]), "%", 0, 2), names[1], names[0])])
    axis = draw_plot(plot).axes[0]
    assert [text.get_text() for text in axis.texts] == ["1"]
    assert axis.get_ylim() == (1.5, -0.5)
    made = plotly_figure(plot)
    assert (made["data"][0]["y"], made["data"][0]["z"]) == (["a", "b"], [[1.0], [None]])
    assert made["layout"]["yaxis"]["autorange"] == "reversed"


def test_a_printed_viewer_has_a_row_per_value_and_one_scale_bar_per_scale() -> None:
    shown = viewer()
    printed = draw_viewer(replace(shown, rows="hour"), at={"member": "1"})
    maps, bars = printed.axes[:6], printed.axes[6:]
    assert [axis.get_title() for axis in maps[:2]] == ["truth", "model"]
    assert [axis.get_ylabel() for axis in maps[::2]] == ["0\ny", "1\ny", "2\ny"]
    assert [float(axis.images[0].get_array()[0, 0]) for axis in maps[::2]] == [0, 1, 2]
    assert [int(axis.images[0].get_array()[0, 0]) for axis in maps[1::2]] == [3, 3, 3]  # the class from 10 on
    assert list(maps[0].images[0].get_extent()) == [-0.5, 5.5, -0.5, 3.5]
    assert len(bars) == 6
    across = draw_viewer(replace(shown, panels=shown.panels[:1], columns="hour"))
    assert [axis.get_title() for axis in across.axes] == ["0", "1", "2", ""]  # one bar of the one scale


def test_a_page_in_markdown_has_its_figures_beside_it(report, tmp_path) -> None:
    text = write_markdown(report, tmp_path / "page.md").read_text()
    assert text.startswith("# A <b>title</b>\n\nWhat it is\n\n## Numbers\n")
    assert "Scores:\n\n| model | crps | lost |\n" in text
    assert "![Three points, one unknown](numbers.png)\n\nA line\n" in text
    assert {file.name for file in tmp_path.iterdir()} == {"page.md", "numbers.png", "maps.png"}


def test_what_is_no_run_is_one_message(tmp_path, capsys) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "holds nothing that" in capsys.readouterr().err


@pytest.fixture
def browser(tmp_path):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver on this machine")
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--window-size=1280,1600", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options, selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_a_page_works_in_a_browser_from_the_disk(report, browser, tmp_path) -> None:
    path = write_report(report, tmp_path / "page.html")
    browser.get(path.as_uri())
    severe = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert severe == []
    # sorted at first by the column asked for, unknown last
    column = "return [...document.querySelectorAll('tbody tr')].map(row => row.cells[%d].textContent)"
    assert browser.execute_script(column % 1) == ["0.1", "0.2", "–"]
    browser.find_elements("css selector", "th button")[0].click()
    assert browser.execute_script(column % 0) == sorted(browser.execute_script(column % 0))
    browser.find_elements("css selector", "th button")[2].click()
    browser.find_elements("css selector", "th button")[2].click()
    assert browser.execute_script(column % 2) == ["0.31 [0.2, 0.4]", "-0.1 [-0.3, 0.1]", "–"]
    assert browser.find_elements("css selector", "th")[2].get_attribute("aria-sort") == "descending"
    # the maps follow the controls, by keyboard too
    shown = "return document.querySelector('.maps').data.map(t => t.customdata[0][0])"
    assert browser.execute_script(shown) == [0, 0]
    slider = browser.find_element("css selector", "input[type=range]")
    slider.send_keys("\ue014")  # right arrow
    assert browser.execute_script(shown) == [1, 1]
    browser.find_element("css selector", "select").send_keys("1")
    assert browser.execute_script(shown) == [1, 11]
    assert "hour 1, member 1" in browser.find_element("css selector", ".live").get_attribute("textContent")
    # a class between two bounds is drawn between their two places
    assert browser.execute_script("return document.querySelector('.maps').data[1].z[0][0]") == 3.5
    before = browser.execute_script("return document.querySelector('.chart').layout.font.color")
    browser.find_element("id", "theme").click()
    assert browser.execute_script("return document.querySelector('.chart').layout.font.color") != before
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_text_is_escaped_once(report) -> None:
    assert html.escape("First & ") in render(report)
    assert "&amp;amp;" not in render(report)


def test_the_file_is_written_whole(report, tmp_path: Path) -> None:
    path = write_report(report, tmp_path / "deep" / "page.html")
    assert path.read_text().endswith("</html>")
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]

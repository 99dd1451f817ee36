import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from orchestrator.analysis.answers import answer
from orchestrator.analysis.comparison import compare
from orchestrator.analysis.task_lives import life
from orchestrator.cli.reports import told_of
from orchestrator.pictures import interactive, report
from orchestrator.pictures.distributions import Curve
from tests.pictures import browser
from tests.results.synthetic import attempt, mm1, run, scenario, sweep, tables, task

UGLY = "<script>alert('x')</script> & <b>co"
WIDTHS = (1200, 400)


@pytest.fixture(scope="module")
def page() -> str:
    """Of a run whose question and group of workers are markup."""
    plain = mm1(2000)
    tree = plain.scenario.model_dump(mode="json", exclude_none=True)
    cluster = {"groups": [{"name": "<i>rack", "workers": 2, "capacity": 1}]}
    named = scenario(duration_s=tree["duration_s"], question=UGLY, cluster=cluster)
    return report.page({UGLY: run(plain.tables, named)})


class Outline(HTMLParser):
    """The tags of a page with their attributes, and the scripts and texts between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_page_has_a_language_a_title_and_its_sections_in_order(page: str):
    """A reader who hears the page finds question, scenario, answer, charts and tasks by their headings."""
    tags = Outline(page).tags
    assert ("html", {"lang": "en"}) in tags
    assert "<title>synthetic: report</title>" in page
    assert [attributes["id"] for tag, attributes in tags if tag == "section"] == [
        "scenario",
        "answer",
        "charts",
        "tasks",
    ]


def test_what_a_user_wrote_is_text(page: str):
    """No name becomes a tag, neither in the page nor in the data of its charts."""
    outline = Outline(page)
    assert UGLY in outline.texts
    assert "alert('x')" not in [text.strip() for text in outline.texts]
    charts = [text for text in outline.texts if text.startswith('{"data":')]
    assert len(charts) == 4 + report.SLOWEST
    assert not any("<" in chart for chart in charts)
    assert any("\\u003ci" not in chart and "&lt;i&gt;rack" in chart for chart in charts)


def test_charts_can_be_reached_by_keyboard_and_have_a_caption(page: str):
    """Every chart takes the focus and is labelled by the text above it."""
    tags = Outline(page).tags
    charts = [attributes for tag, attributes in tags if attributes.get("class") == "chart"]
    captions = {attributes.get("id") for tag, attributes in tags if tag == "figcaption"}
    assert charts
    assert all(chart["tabindex"] == "0" and chart["aria-labelledby"] in captions for chart in charts)


def test_a_sweep_is_answered_and_drawn_against_its_key():
    """The sentences of the answer stand on the page, and each percentile has points in a panel of its own."""
    result = sweep({"cluster.workers": [2, 3, 4]})
    found = answer(result)
    assert found is not None
    assert set(found.sentences) <= set(Outline(report.page({"swept": result}, told_of(found))).texts)
    curves = interactive.against(result.summary["cells"], "cluster.workers").data
    assert [(curve.yaxis, len(curve.x)) for curve in curves] == [("y", 3), ("y2", 3), ("y3", 3), ("y4", 3)]


def test_the_worlds_are_compared():
    """A table says by how much each statistic is off."""
    one, other = mm1(2000), mm1(2000, seed=2, world="live")
    page = report.page({"sim": one, "live": other}, comparison=compare(one, other))
    assert "sim against live, intervals of 95 %" in page


def test_the_percentile_curve_reaches_the_slowest_task():
    """The last point of the curve is the maximum, however many tasks there are."""
    values = np.random.default_rng(1).exponential(size=50_000)
    (curve,) = interactive.percentiles([Curve("x", [values])]).data
    assert curve.x[-1] == pytest.approx(100_000)
    assert curve.y[-1] == pytest.approx(values.max())


def test_an_attempt_that_died_with_its_worker_does_not_run_on():
    """From the crash to the verdict it is lost; the next attempt runs to the end."""
    rows = [
        attempt(0, 10.0, given_up_s=16.0, ended_s=19.0, outcome="worker_died"),
        attempt(0, 17.0, attempt=2, worker=1, ended_s=20.0, outcome="completed", settled=True),
    ]
    told = life(run(tables([task(10.0, 20.0, attempts=2, worker=1)], rows, [(12.0, "crash", 0, None)])), 0)
    bars = [(bar.y[0], bar.name, bar.base[0], bar.x[0]) for bar in interactive.life(told).data]
    assert bars == [
        ("1: w1", "runs", 0.0, 2.0),
        ("1: w1", "lost: its worker had crashed", 2.0, 4.0),
        ("at the coordinator", "waits at the coordinator", 6.0, 1.0),
        ("2: w2", "runs", 7.0, 3.0),
    ]


@pytest.mark.skipif(browser.BROWSER is None, reason=browser.WITHOUT)
def test_a_browser_draws_every_chart_without_a_word_or_a_request(page: str, tmp_path: Path):
    """At 1200 and at 400 pixels: charts drawn, nothing wider than the window, a silent console, nothing fetched.

    The page's own policy makes a refused request an error in the console.
    """
    (tmp_path / "page.html").write_text(page, "utf-8")
    frames = "".join(f'<iframe src="page.html" width="{width}" height="900"></iframe>' for width in WIDTHS)
    (tmp_path / "frames.html").write_text(f"<!doctype html>{frames}<script>{MEASURE}</script>", "utf-8")
    shown = browser.show(tmp_path / "frames.html", tmp_path / "profile")
    assert shown.console == []
    open_charts = 4 + 1  # of the slowest tasks, only the first is unfolded
    assert re.findall(r'data-found="([^"]*)"', shown.dom) == [f"fits {open_charts} 0"] * len(WIDTHS)


@pytest.mark.skipif(browser.BROWSER is None, reason=browser.WITHOUT)
def test_a_legend_of_many_curves_is_whole_and_clear_of_buttons_and_curves(tmp_path: Path):
    """At 1200 and at 400 pixels: every entry lies between the buttons and the plot, in each chart that has any."""
    runs = {f"a result whose name is rather long, the {place}th": mm1(300, seed=place) for place in range(1, 8)}
    (tmp_path / "page.html").write_text(report.page(runs), "utf-8")
    frames = "".join(f'<iframe src="page.html" width="{width}" height="900"></iframe>' for width in WIDTHS)
    (tmp_path / "frames.html").write_text(f"<!doctype html>{frames}<script>{LEGENDS}</script>", "utf-8")
    found = re.findall(r'data-found="([^"]*)"', browser.show(tmp_path / "frames.html", tmp_path / "profile").dom)
    entries = [7, 7, 3]  # percentiles, shares, and latency over time, which names three curves for all
    for of_width in found:
        assert of_width.startswith(" ".join(f"{number}:whole" for number in entries)), of_width
        assert "cut" not in of_width
    assert len(found) == len(WIDTHS)


def test_many_runs_over_time_have_axes_of_their_own():
    """Up to three share axes for latency and queue; more stand one above the other, each under its name."""
    runs = {f"r{place}": mm1(300, seed=place) for place in range(1, 5)}
    assert len(list(interactive.over_time(dict(list(runs.items())[:3])).select_yaxes())) == 2
    figure = interactive.over_time(runs)
    assert len(list(figure.select_yaxes())) == 4
    assert [note.text for note in figure.layout.annotations] == list(runs)
    assert len({axis.range for axis in figure.select_yaxes()}) == 1


@pytest.mark.skipif(browser.BROWSER is None, reason=browser.WITHOUT)
def test_a_request_or_an_error_would_be_seen(tmp_path: Path):
    """The test above can fail: the console tells of both."""
    bad = f'<meta http-equiv="Content-Security-Policy" content="{report.POLICY}"><img src="http://localhost:9/x.png">'
    (tmp_path / "bad.html").write_text(f"<!doctype html>{bad}<script>nothing()</script>", "utf-8")
    console = " ".join(browser.show(tmp_path / "bad.html", tmp_path / "profile").console)
    assert "Content Security Policy" in console
    assert "nothing is not defined" in console


MEASURE = """
onload = () => setTimeout(() => { for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument;
  const fits = page.documentElement.scrollWidth <= page.documentElement.clientWidth ? "fits" : "too wide";
  const drawn = [...page.querySelectorAll(".chart")].filter(place => place.querySelector(".main-svg"));
  const fetched = frame.contentWindow.performance.getEntriesByType("resource").length;
  frame.dataset.found = [fits, drawn.length, fetched].join(" ");
} }, 5000);
"""
"""Five seconds of the browser's virtual time, which passes at once when the page is done."""
LEGENDS = """
onload = () => setTimeout(() => { for (const frame of document.querySelectorAll("iframe")) {
  const found = [];
  for (const place of frame.contentDocument.querySelectorAll(".chart")) {
    const entries = [...place.querySelectorAll(".legend .traces")].map(entry => entry.getBoundingClientRect());
    if (!entries.length) continue;
    const box = place.querySelector(".legend .bg").getBoundingClientRect();
    const chart = place.getBoundingClientRect().top;
    const buttons = place.querySelector(".modebar-group")?.getBoundingClientRect().bottom ?? chart;
    const plot = chart + place._fullLayout._size.t;
    const whole = entries.every(one => one.top > box.top - 1 && one.bottom < box.bottom + 1);
    found.push(`${entries.length}:${whole && box.top >= buttons && box.bottom <= plot ? "whole" : "cut"}`);
  }
  frame.dataset.found = found.join(" ");
} }, 5000);
"""
"""Of each chart with a legend: its entries, and whether it is whole."""

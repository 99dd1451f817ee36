"""The report: one HTML page on a result, with the charts in it, that needs no network.

The page forbids itself every request by its content security policy, and a browser that must refuse one says so.
Whatever a user wrote is escaped. The page says in words what its charts show in colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from plotly.offline import get_plotlyjs

from orchestrator.analysis import task_lives
from orchestrator.analysis.comparison import Comparison
from orchestrator.pictures import interactive, marks
from orchestrator.pictures.distributions import Curve
from orchestrator.pictures.sweep_plots import is_number
from orchestrator.results.html_tables import Table, html_of
from orchestrator.results.runs import Run, Sweep
from orchestrator.results.statistics import TOO_FEW, UNKNOWN
from orchestrator.results.summaries import Sample, Summary
from orchestrator.results.summary_tables import tables_of
from orchestrator.results.words import count, duration

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

MARK = "<!-- orchestrator report -->"
"""What tells a report from any other page."""
SLOWEST, OF_THEM_LOST = 5, 2
"""Tasks that are shown one by one, and how many of them may be such as never completed."""
MOST_CURVES = 8
"""Cells whose curves are drawn in the same chart."""
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 70rem; padding: 0 1rem 3rem; background: #fff; color: #1a1a1a;
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1.5rem 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #bbb; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, ul, ol { margin: .4rem 0; } .lead { font-size: 1.1rem; } .muted { color: #555; font-size: .9rem; }
nav a { margin-right: 1rem; white-space: nowrap; } a { color: #00558c; }
:focus-visible { outline: 3px solid #d55e00; outline-offset: 2px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
summary { cursor: pointer; padding: .3rem 0; } pre { background: #f5f5f5; padding: .7rem; overflow-x: auto;
  font-size: .85rem; } figure { margin: .6rem 0 1.4rem; } figcaption { font-size: .9rem; color: #444; }
.steps { padding-left: 0; list-style: none; font-size: .9rem; } .steps li { display: flex; }
.steps b { flex: 0 0 6rem; }
"""
DRAW = """
const small = window.matchMedia("(max-width: 600px)").matches;
for (const place of document.querySelectorAll(".chart")) {
  const chart = JSON.parse(document.getElementById(place.id + "-data").textContent);
  if (small) chart.layout.font.size = 11;
  const settings = {responsive: true, displaylogo: false, displayModeBar: !small};
  const { height, margin } = chart.layout;
  const makeRoom = () => {  // for the whole legend, below the buttons
    const entries = [...place.querySelectorAll(".legend .traces")].map(entry => entry.getBoundingClientRect());
    if (!entries.length) return;
    const plot = place.getBoundingClientRect().top + place._fullLayout._size.t;
    const top = Math.max(margin.t, 45 + plot - Math.min(...entries.map(entry => entry.top)));
    if (Math.abs(top - place.layout.margin.t) < 1) return;
    place.style.height = `${height + top - margin.t}px`;
    Plotly.relayout(place, {"height": height + top - margin.t, "margin.t": top});
  };
  const draw = () => Plotly.newPlot(place, chart.data, {...chart.layout, margin: {...margin}}, settings).then(() => {
    makeRoom();
    place.on("plotly_afterplot", makeRoom);
  });
  const folded = place.closest("details");
  if (folded && !folded.open) folded.addEventListener("toggle", draw, {once: true}); else draw();
}
"""


class Told(NamedTuple):
    """The answer to the question, in words and numbers."""

    question: str | None
    sentences: Sequence[str]
    assumed: Sequence[str]
    tables: Sequence[Table]
    notes: Sequence[str] = ()


Results = Mapping[str, Run | Sweep]
"""By what they are called."""


def page(results: Results, told: Told | None = None, comparison: Comparison | None = None) -> str:
    """The whole page of a run, of a sweep, or of several of them. `comparison`: of the worlds, or of two results."""
    return _Page(results, told, comparison).html()


class _Page:
    def __init__(self, results: Results, told: Told | None, comparison: Comparison | None) -> None:
        self._results, self._told, self._comparison = results, told, comparison
        self._charts = 0
        first = next(iter(results.values()))
        self._scenario: Scenario = first.scenario
        self._worlds = list(dict.fromkeys(result.summary["world"] for result in results.values()))

    def html(self) -> str:
        sections = {
            "scenario": ("The scenario", "".join(self._scenarios())),
            "answer": ("The answer", "".join(self._answer())),
            "charts": ("Charts", "".join(self._pictures())),
            "worlds": ("The comparison", "".join(self._compared())),
            "tasks": ("The slowest tasks", "".join(self._tasks())),
        }
        shown = {key: both for key, both in sections.items() if both[1]}
        links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in shown.items())
        body = "".join(f'<section id="{key}"><h2>{title}</h2>{text}</section>' for key, (title, text) in shown.items())
        name, question = escape(self._scenario.name), (self._told and self._told.question) or self._scenario.question
        lead = f'<p class="lead">{escape(question)}</p>' if question else ""
        return (
            f'<!doctype html>\n{MARK}\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{name}: report</title><link rel='icon' href='data:,'><style>{STYLE}</style></head><body>"
            f"<header><h1>{name}</h1>{lead}<p class='muted'>{escape(self._setting())}</p>"
            f"<nav aria-label='Sections'>{links}</nav></header><main>{body}</main>"
            f"<script>{get_plotlyjs()}</script><script>{DRAW}</script></body></html>\n"
        )

    def _setting(self) -> str:
        runs = sum(1 if isinstance(one, Run) else len(list(one.runs)) for one in self._results.values())
        words = [f"world: {', '.join(self._worlds)}", f"seed {self._scenario.seed}", count(runs, "run")]
        return "; ".join([*words, f"{self._scenario.duration_s:g} s each"])

    def _scenarios(self) -> Iterator[str]:
        texts = {one.scenario.dump(): label for label, one in list(self._results.items())[::-1]}
        for text, label in list(texts.items())[::-1]:
            of = f" of {escape(label)}" if len(texts) > 1 else ""
            yield f"<details><summary>Every setting{of}, as it was run (YAML)</summary>"
            yield f'<pre tabindex="0">{escape(text)}</pre></details>'

    # ---- the answer

    def _answer(self) -> Iterator[str]:
        if self._told is not None:
            if self._told.sentences:
                yield f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in self._told.sentences)}</ul>"
            yield from map(_table, self._told.tables)
            yield from (f"<p class='muted'>{escape(note)}</p>" for note in self._told.notes)
            if self._told.assumed:
                yield f"<p class='muted'>Assumed: {escape('; '.join(self._told.assumed))}</p>"
        yield from map(_table, tables_of(_summaries(self._results)))
        yield (
            f"<p class='muted'>{escape(UNKNOWN)}not known, but longer: too many tasks failed, did not end or never "
            f"started. {TOO_FEW}too few tasks for this percentile. Means are of what completed.</p>"
        )

    # ---- charts

    def _pictures(self) -> Iterator[str]:
        results = list(self._results.items())
        if len(results) > 1:
            yield from self._several({label: _runs_of(result) for label, result in results})
            return
        (_, result), runs = results[0], _runs_of(results[0][1])
        if isinstance(result, Sweep) and len(result.cells) > 1:
            yield from self._sweep(result)
            return
        yield from self._distributions(_latency_and_wait(runs))
        yield from self._over_time(runs[0], "" if len(runs) == 1 else ", of the first replication")

    def _several(self, runs: Mapping[str, Sequence[Run]]) -> Iterator[str]:
        """Cells, or results, in the same axes: at most the first MOST_CURVES."""
        shown = dict(islice(runs.items(), MOST_CURVES))
        yield from self._distributions(
            [Curve(label, [Sample.of(run.tables, run.scenario).latency_s for run in of]) for label, of in shown.items()]
        )
        if len(runs) > len(shown):
            yield f"<p class='muted'>The first {len(shown)} of {len(runs)} are drawn.</p>"
        first = {label: of[0] for label, of in shown.items()}
        yield self._figure("Latency over time, the first replication of each", interactive.over_time(first))

    def _sweep(self, sweep: Sweep) -> Iterator[str]:
        cells = sweep.summary["cells"]
        keys = list(cells[0]["values"])
        for key in [key for key in keys if all(is_number(cell["values"][key]) for cell in cells)] or keys[:1]:
            title = f"Latency against {key}, with intervals of 95 % where there are replications"
            yield self._figure(title, interactive.against(cells, key))
        yield from self._several({cell.title: list(cell.runs) for cell in sweep.cells})
        for place, cell in enumerate(sweep.cells[:MOST_CURVES]):
            yield f"<details{' open' * (not place)}><summary>Over time: {escape(cell.title)}</summary>"
            yield from self._over_time(cell.runs[0], f", {cell.title}")
            yield "</details>"

    def _distributions(self, curves: Sequence[Curve]) -> Iterator[str]:
        yield self._figure("Time by percentile, up to the slowest task", interactive.percentiles(curves))
        yield self._figure("Share of the tasks that took at least as long", interactive.ccdf(curves))

    def _over_time(self, run: Run, of: str) -> Iterator[str]:
        moments = marks.marks_of(run.tables)
        told = [marks.named(kind, [worker for _, worker in those]) for kind, those in moments.items()]
        what = f" Marked: {', '.join(told)}." if told else ""
        if run.summary["latency_s"]["unknown"]:
            what += " A gap in a latency: it is not known, as too many tasks never completed."
        yield self._figure(f"The run over time{of}, latency by time of arrival.{what}", interactive.timeline(run))
        yield self._figure(f"How busy the workers were, after warm-up{of}", interactive.utilisation(run))

    # ---- worlds and tasks

    def _compared(self) -> Iterator[str]:
        if self._comparison is not None:
            yield from map(_table, self._comparison.tables())

    def _tasks(self) -> Iterator[str]:
        for label, result in self._results.items():
            runs = _runs_of(result)
            of = [f"of {label}"] if len(self._results) > 1 else []
            of += [f"of cell {result.cells[0].title}"] if isinstance(result, Sweep) and len(result.cells) > 1 else []
            of += ["of the first replication"] if isinstance(result, Sweep) else []
            if of:
                yield f"<h3>{escape(', '.join(of)).capitalize()}</h3>"
            for place, task in enumerate(task_lives.slowest(runs[0], SLOWEST, OF_THEM_LOST)):
                found = task_lives.life(runs[0], task)
                yield f"<details{' open' * (not place)}><summary>{escape(found.title)}</summary>"
                yield self._figure(f"Its attempts, arrived at {duration(found.arrival_s)}", interactive.life(found))
                steps = (f"<li><b>+{duration(s.after_s)}</b> {escape(s.what)}</li>" for s in found.steps)
                yield f'<ul class="steps">{"".join(steps)}</ul></details>'

    def _figure(self, caption: str, figure: Any) -> str:
        self._charts += 1
        name = f"chart-{self._charts}"
        height, text = figure.layout.height, escape(caption)
        data = figure.to_json().replace("<", "\\u003c")
        return (
            f'<figure><figcaption id="{name}-caption">{text}</figcaption><div class="chart" id="{name}" role="group" '
            f'tabindex="0" aria-labelledby="{name}-caption" style="height:{height}px"></div>'
            f'<script type="application/json" id="{name}-data">{data}</script></figure>'
        )


def _summaries(results: Results) -> dict[str, Summary]:
    """Of each run, or of each cell."""
    whole: dict[str, Summary] = {}
    for label, result in results.items():
        if isinstance(result, Sweep) and len(result.cells) > 1:
            whole |= {f"{label}: {c.title}" if len(results) > 1 else c.title: c.pooled for c in result.cells}
        else:
            whole[label if len(results) > 1 else "all tasks"] = result.summary
    return whole


def _table(table: Table) -> str:
    name = escape(table.title.partition("\n")[0])
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{html_of(table)}</div>'


def _runs_of(result: Run | Sweep) -> list[Run]:
    """All runs of a result; of a sweep of several cells, those of all cells."""
    return [result] if isinstance(result, Run) else list(result.runs)


def _latency_and_wait(runs: Sequence[Run]) -> list[Curve]:
    samples = [Sample.of(run.tables, run.scenario) for run in runs]
    return [
        Curve("latency: arrival to result", [sample.latency_s for sample in samples]),
        Curve("wait: arrival to first start", [sample.wait_s for sample in samples], "started"),
    ]

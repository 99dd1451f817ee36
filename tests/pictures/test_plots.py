import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from orchestrator.pictures import distributions, draw, marks, run_plots, sweep_plots, timelines
from orchestrator.pictures.distributions import Curve
from orchestrator.pictures.style import Figures, Plot, seconds
from orchestrator.results.tables import FaultEvent, Floats
from orchestrator.results.timeline import series
from tests.results.synthetic import NAN, attempt, mm1, run, scenario, sweep, tables, task


@pytest.fixture(scope="module")
def figures():
    return draw(mm1(2000))


def title(figure: Figure) -> str:
    return figure.get_suptitle()


def legend(figure: Figure) -> list[str]:
    """The entries of all legends of a figure."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for one in legends if one for text in one.get_texts()]


def curve(axes: Axes) -> Floats:
    """x and y of the first line."""
    return np.array(axes.lines[0].get_xydata(), dtype=np.float64).T


def heights(vertices: object) -> list[float]:
    """The y of some points."""
    return [float(y) for _, y in np.asarray(vertices, dtype=np.float64)]


def marked(axes: Axes) -> set[float]:
    """The x positions of the vertical lines of all collections."""
    lines = [one for one in axes.collections if isinstance(one, LineCollection)]
    return {float(segment[0][0]) for one in lines for segment in one.get_segments()}


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def labels(figure: Figure) -> list[tuple[str, str]]:
    return [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]


def drawn(figure: Plot) -> Plot:
    """The figure, rendered once: drawing must not fail or warn."""
    figure.draw_without_rendering()
    return figure


# ---- a run


def test_a_run_has_five_pictures_that_name_it(figures):
    """Each title begins with the scenario, and each foot names world, workers and policies."""
    assert list(figures) == [
        "latency-percentiles",
        "latency-ccdf",
        "timeline",
        "latency-by-priority",
        "worker-utilization",
    ]
    for figure in figures.values():
        assert title(figure).startswith("synthetic: ")
        foot = figure.get_supxlabel().replace("\n", " ")
        assert foot.startswith(
            "world: sim;  2 workers x 1;  routing: least_loaded;  queue: priority;  detection: timeout"
        )


def test_percentiles_run_from_p50_to_the_slowest(figures):
    """The axis is stretched towards the tail, and the curve passes through the summary's percentiles."""
    (axes,) = figures["latency-percentiles"].axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["p50", "p75", "p90", "p95", "p99", "p99.9"]
    latency = mm1(2000).summary["latency_s"]
    x, y = curve(axes)
    assert np.interp(100, x, y) == pytest.approx(latency["p99"], rel=0.01)
    assert np.interp(1000, x, y) == pytest.approx(latency["p999"], rel=0.01)
    assert y[[0, -1]] == pytest.approx([latency["p50"], latency["max"]])
    n = f"(n = {latency['n']:,})"
    assert legend(figures["latency-percentiles"]) == [
        f"latency: arrival to result {n}",
        f"wait: arrival to first start {n}",
    ]


def test_the_ccdf_is_doubly_logarithmic_and_thinned(figures):
    """The largest value stands at 1 / n, and a million tasks take no more points than the limit."""
    (axes,) = figures["latency-ccdf"].axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    sample = np.random.default_rng(1).exponential(size=200_000)
    figure = distributions.ccdf([Curve("x", [sample])], "t", "s")
    x, share = curve(figure.axes[0])
    assert len(x) <= distributions.CCDF_POINTS
    assert (x[0], share[0]) == (sample.max(), 1 / 200_000)
    assert np.interp(-1.0, -x, share) == pytest.approx(np.exp(-1), rel=0.02)


def test_the_timeline_marks_crash_verdict_and_recovery(figures):
    """Each has an entry in the legend and a line through every panel."""
    shown = legend(figures["timeline"])
    assert {"crash: w2", "declared dead: w2", "recovery", "warm-up, not in the statistics"} <= set(shown)
    crash_s = mm1(2000).scenario.duration_s / 2
    for axes in figures["timeline"].axes:
        assert {crash_s, crash_s + 5, crash_s + 8} <= marked(axes)


def test_the_axes_have_names_and_units(figures):
    """Every axis has a label, latencies have units, and counts have separators."""
    assert [y for _, y in labels(figures["timeline"])] == [
        "latency, by time of arrival",
        "tasks per second",
        "tasks waiting",
        "workers out",
    ]
    assert labels(figures["timeline"])[-1][0] == "time since the start (s)"
    figure = drawn(figures["timeline"])
    assert any(tick.get_text().endswith(" s") for tick in figure.axes[0].get_yticklabels())


@pytest.mark.parametrize("rule", ["detector", "failed_call"])
def test_a_mistake_is_marked_as_one(rule: str):
    """The death of a paused worker looks different from that of a crashed worker, whatever the rule."""
    made = tables([task(20.0, 30.0)], events=[(20.0, "pause", 0, None), (26.0, "dead", 0, rule)])
    shown = legend(drawn(timelines.timeline(made, scenario(), "t", "s")))
    assert {"pause: w1", "declared dead while alive: w1"} <= set(shown)


def test_thousands_of_faults_become_rows_of_ticks():
    """Many faults get one row per kind and a count in the legend, instead of lines through every panel."""
    workers = [f"w{k + 1}" for k in range(100)]
    events = [(float(t) / 40, "crash", t % 100, None) for t in range(4000)]
    made = tables([task(20.0, 30.0)], events=events, workers=workers)
    figure = drawn(timelines.timeline(made, scenario(cluster={"workers": 100, "capacity": 1}), "t", "s"))
    assert "crash (4,000)" in legend(figure)
    assert [tick.get_text() for tick in figure.axes[-1].get_yticklabels()] == ["crash"]
    assert not figure.axes[0].collections


def test_priorities_show_their_numbers(figures):
    """p50, p95 and p99 of each priority are written beside their points."""
    shown = figures["latency-by-priority"]
    assert legend(shown) == ["p50", "p95", "p99"]
    assert [tick.get_text().split("\n")[0] for tick in shown.axes[0].get_yticklabels()] == [
        "low",
        "normal",
        "high",
        "urgent",
    ]
    assert seconds(mm1(2000).summary["by_priority"]["high"]["latency_s"]["p99"]) in words(shown)


def test_few_workers_are_bars_and_many_are_a_curve():
    """Two workers are two bars, and a group of thousands is one curve."""
    made = mm1(500)
    assert len(draw(made)["worker-utilization"].axes[0].patches) == 2
    groups = [{"name": "old", "workers": 6000, "capacity": 1}, {"name": "new", "workers": 4000, "capacity": 2}]
    figure = drawn(run_plots.utilization(made.tables, scenario(cluster={"groups": groups}), "t", "s"))
    assert legend(figure)[:2] == ["old (6,000 workers)", "new (4,000 workers)"]
    assert not figure.axes[0].patches


@pytest.mark.parametrize(
    "tasks",
    [[], [task(50.0)], [task(50.0, 51.0)], [task(50.0, 50.0)], [task(1.0, 2.0)], [task(50.0, 99.0, state="failed")]],
    ids=["none", "unfinished", "one", "instantaneous", "in warm-up", "failed"],
)
def test_next_to_nothing_can_be_drawn(tasks):
    """Runs with no task, one task, or no completed task give pictures that say so."""
    figures = draw(run(tables(tasks)))
    for figure in figures.values():
        drawn(figure)
    shown = words(figures["latency-percentiles"]) + legend(figures["latency-percentiles"])
    assert shown == [distributions.NOTHING] or shown[-1].startswith("wait: arrival to first start")


def test_every_fault_has_a_mark():
    """Every kind of fault has a colour of its own over time, and so has the end of a fault."""
    assert {marks.name_of_fault(kind) for kind in FaultEvent} <= marks.MARKS.keys()
    assert len(set(marks.MARKS.values())) == len(marks.MARKS)


def test_curves_can_be_drawn_into_axes_of_ones_own():
    """A notebook puts percentiles, latency over time, priorities and workers into one figure."""
    made = mm1(500)
    figure = Figure()
    axes = list(figure.subplots(2, 3).flat)
    curve_of_run = Curve("mine", [np.array([1.0, 2.0, 3.0])])
    distributions.draw_percentiles(axes[0], [curve_of_run])
    distributions.draw_ccdf(axes[1], [curve_of_run])
    timelines.draw_latency(axes[2], series(made.tables, made.scenario))
    run_plots.draw_priorities(axes[3], made.summary)
    run_plots.draw_utilization(axes[4], made.tables, made.scenario)
    marks.draw_outages(axes[5], marks.outages(made.tables), 100.0)
    figure.canvas.draw()
    assert all(panel.lines or panel.patches for panel in axes)


# ---- what failed or is unfinished


def test_the_tasks_that_never_completed_stay_in_the_distribution():
    """Of four tasks two completed: the CCDF ends at a half, and no percentile from p50 on is known."""
    figures = draw(run(tables([task(20.0, 21.0), task(20.0, 22.0), task(20.0), task(20.0, 25.0, state="failed")])))
    (axes,) = figures["latency-ccdf"].axes
    assert curve(axes)[1].tolist() == [0.75, 1.0]
    assert "latency: arrival to result (n = 4, 2 never completed)" in legend(figures["latency-ccdf"])
    assert np.isnan(curve(figures["latency-percentiles"].axes[0])[1]).all()
    assert "> 5 s" in words(drawn(figures["latency-by-priority"]))
    assert "not known: too many never completed" in legend(drawn(figures["timeline"]))


def test_a_queue_at_the_workers_is_drawn():
    """What waits at workers has an area of its own."""
    made = tables([task(20.0, started_s=NAN)], [attempt(0, 20.0, started_s=NAN)])
    figure = drawn(timelines.timeline(made, scenario(), "t", "s"))
    assert "at workers" in legend(figure)
    assert "at workers" not in legend(draw(mm1(500))["timeline"])


def test_a_sweep_shows_what_it_does_not_know():
    """The line is broken at an unknown percentile, a triangle has its bound, and a panel the share of what is lost."""
    cells = sweep({"cluster.workers": [1, 2, 3]}, 1).summary["cells"]
    for cell in cells:
        cell["tasks"] |= {"submitted": 100, "completed": 100}
    cells[1]["tasks"] |= {"completed": 80, "failed": 20}
    cells[1]["latency_s"] |= {"p99": None, "at_least": {"p99": 7.0}}
    figure = drawn(sweep_plots.against(cells, "cluster.workers", "t", "s"))
    assert np.isnan(curve(figure.axes[2])[1]).tolist() == [False, True, False]
    bound = next(line for line in figure.axes[2].lines if np.asarray(line.get_ydata()).tolist() == [7.0])
    assert (bound.get_marker(), bound.get_markerfacecolor()) == ("^", "white")
    assert bound.get_zorder() > figure.axes[2].lines[0].get_zorder(), "it is not hidden by the marker that it replaces"
    assert curve(figure.axes[4])[1].tolist() == [0.0, 0.2, 0.0]
    assert "hollow triangle" in figure.get_supxlabel()


# ---- several runs, replications


def test_one_task_is_a_point_and_one_that_never_completed_stands_in_the_legend():
    """Neither makes an empty picture that says nothing."""
    one = draw(run(tables([task(20.0, 22.0)])))
    x, y = curve(one["latency-percentiles"].axes[0])
    assert one["latency-percentiles"].axes[0].lines[0].get_marker() == "o"
    assert (x[0], set(y)) == (2.0, {2.0})
    assert one["latency-ccdf"].axes[0].get_ylim()[1] < 2, "no room for more than all tasks"
    lost = draw(run(tables([task(20.0)])))
    for name in ("latency-percentiles", "latency-ccdf"):
        assert "latency: arrival to result (n = 1, 1 never completed)" in legend(drawn(lost[name]))


def test_bars_of_what_is_not_known_do_not_hide_each_other():
    """Of two runs that completed nothing, the bar of each has its own height."""
    lost = {label: run(tables([task(20.0)])) for label in ("one", "other")}
    bars = draw(lost)["timeline"].axes[0].collections
    tops = [max(y for path in bar.get_paths() for y in heights(path.vertices)) for bar in bars]
    assert tops == pytest.approx([1.0, 1.0 - timelines.BAR])


def test_a_sweep_has_a_line_for_each_class_with_its_own_interval_and_losses():
    """Low tasks never complete; urgent ones take as long as their cell says."""
    made = sweep({"cluster.workers": [1, 2]}, 1)
    for cell, latency_s in zip(made.summary["cells"], (1.0, 3.0), strict=True):
        rows = [task(20.0, 20.0 + latency_s, priority="urgent"), task(20.0, priority="low")]
        cell["by_priority"] = run(tables(rows)).summary["by_priority"]
        cell["ci95"]["by_priority.urgent.latency_s.p50"] = [latency_s / 2, 2 * latency_s]
    figure = drawn(draw(made)["sweep-cluster.workers-by-class"])
    assert title(figure).startswith("synthetic: latency of each class against")
    assert legend(figure) == ["low", "urgent"]
    assert "n = 1 tasks per class and cell" in figure.get_supxlabel()
    p50, *_, lost = figure.axes
    low, urgent = (heights(line.get_xydata()) for line in p50.lines[:2])
    assert np.isnan(low).all()
    assert urgent == [1.0, 3.0]
    band = heights(p50.collections[1].get_paths()[0].vertices)
    assert (min(band), max(band)) == (0.5, 6.0)
    assert [heights(line.get_xydata()) for line in lost.lines] == [[1.0, 1.0], [0.0, 0.0]]
    assert lost.get_ylim()[1] > 1.0, "the highest point is whole"


def test_a_run_with_kinds_shows_them_beside_its_priorities():
    """Each with the counts of its own tasks."""
    chosen = scenario(workload={**scenario().workload.model_dump(), "kinds": {"look": {"share": 1}}})
    made = tables([task(20.0, 21.0), task(20.0)]).with_kinds(["look", "look"])
    axes = drawn(draw(run(made, chosen))["latency-by-priority"]).axes[0]
    assert axes.get_ylabel() == "priority and kind"
    assert [label.get_text().split("\n") for label in axes.get_yticklabels()] == [
        [name, "1 of 2 completed", "1 unfinished"] for name in ("normal", "kind look")
    ]


def test_runs_are_overlaid_by_their_labels():
    """Every picture has one curve per label, and replications have a confidence band."""
    figures = draw({"out/a": mm1(500), "out/b": mm1(500, world="live"), "out/c": sweep({}, 3)})
    assert list(figures) == ["latency-percentiles", "latency-ccdf", "timeline"]
    assert legend(figures["timeline"]) == [
        "out/a",
        "out/b",
        "out/c",
        "out/a: crash: w2",
        "out/c: crash: w2",
    ]
    shown = legend(figures["latency-ccdf"])
    assert [text.partition(" (n = ")[0] for text in shown] == ["out/a", "out/b", "out/c"]
    assert legend(figures["latency-percentiles"]) == [*shown, "95 % confidence, 3 replications"]
    assert figures["timeline"].get_supxlabel().startswith("world: sim, live;  n = ")


def test_replications_give_a_band():
    """The curve is that of the pooled sample, and the band is that of the replications."""
    figures = draw(sweep({}, replications=3))
    assert "95 % confidence, 3 replications" in legend(figures["latency-percentiles"])
    assert "3 replications" in figures["latency-percentiles"].get_supxlabel().replace("\n", " ")


def test_a_band_ends_where_replications_are_too_few():
    """Of 3 x 500 tasks p99.9 has no upper end, so nothing is drawn there; a sweep draws the lower half and says so."""
    figures = draw(sweep({"cluster.workers": [1, 2]}, replications=3))
    foot = figures["sweep-cluster.workers"].get_supxlabel().replace("\n", " ")
    assert "95 % confidence, the lower half where replications are too few for the upper" in foot
    (axes,) = draw(sweep({}, replications=3))["latency-percentiles"].axes
    drawn_to = np.max(np.asarray(axes.collections[0].get_paths()[0].vertices, dtype=np.float64)[:, 0])
    assert 2 < drawn_to < 500


# ---- sweeps


def test_a_numeric_key_is_an_axis_and_the_others_are_lines():
    """p50, p95 and p99 stand over the swept numbers, with a line and a band per policy."""
    grid = sweep(
        {"policies.routing": [{"kind": "random"}, {"kind": "power_of_d", "d": 2}], "cluster.workers": [1, 2, 3]}
    )
    figures = draw(grid)
    assert list(figures) == [
        "sweep-cluster.workers",
        "sweep-cluster.workers-by-class",
        "sweep-percentiles",
        "sweep-timeline",
    ]
    figure = drawn(figures["sweep-cluster.workers"])
    assert title(figure) == "synthetic: latency against cluster workers"
    assert [axes.get_title() for axes in figure.axes] == ["p50", "p95", "p99", "slowest"]
    assert {x for x, _ in labels(figure)} == {"cluster workers"}
    assert legend(figure) == ["random", "power_of_d d=2"]
    x, y = curve(figure.axes[2])
    assert x.tolist() == [1, 2, 3]
    assert y.tolist() == [cell["latency_s"]["p99"] for cell in grid.summary["cells"][:3]]
    assert len(figure.axes[0].collections) == 2
    assert "2 replications per cell;  bands and bars: 95 % confidence" in figure.get_supxlabel()


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("workload.arrivals.rate_per_s", "arrivals rate (1/s)"),
        ("policies.routing.kind", "routing"),
        ("faults.0.stagger_s", "fault 1 stagger (s)"),
    ],
)
def test_an_axis_has_the_name_of_its_key(key: str, label: str):
    """Words and a unit; a fault is told by its place in the list, which begins at 1 for people."""
    assert sweep_plots.axis_label(key) == label


def test_every_numeric_key_gets_its_picture():
    """Each of two swept numbers is the axis of one picture and gives the lines of the other."""
    figures = draw(sweep({"workload.arrivals.rate_per_s": [1, 2], "policies.execution_timeout_s": [5, 9]}, 1))
    keys = ("workload.arrivals.rate_per_s", "policies.execution_timeout_s")
    against = [f"sweep-{key}{classes}" for key in keys for classes in ("", "-by-class")]
    assert list(figures) == [*against, "sweep-percentiles", "sweep-timeline"]
    assert legend(figures["sweep-workload.arrivals.rate_per_s"]) == [
        "execution timeout (s) 5",
        "execution timeout (s) 9",
    ]


def test_points_of_almost_one_height_are_whole():
    """The axis does not end where they stand."""
    cells = sweep({"policies.routing.kind": ["random", "round_robin"]}, 1).summary["cells"]
    for cell, p50_s in zip(cells, (2.0, 2.01), strict=True):
        cell["latency_s"]["p50"] = p50_s
    figure = sweep_plots.against(cells, "policies.routing.kind", "t", "s")
    assert figure.axes[0].get_xlim()[1] >= 1.05 * 2.01


def test_names_are_rows_with_points_and_bars():
    """If only names are swept, they stand in rows, the first on top, and no line joins their points."""
    figure = drawn(draw(sweep({"policies.routing.kind": ["random", "round_robin"]}))["sweep-policies.routing.kind"])
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["random", "round_robin"]
    assert axes.lines[0].get_linestyle() == "None"
    bars = [one for one in axes.collections if isinstance(one, LineCollection)]
    assert [segment[0][1] for one in bars for segment in one.get_segments()] == [0.0, 1.0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_failed_calls_are_no_detector():
    """Sweeping what they mean draws no trade-off of the detector, which would have no false positives with `dead`."""
    swept = sweep({"policies.detection.on_failed_call": ["hold", "dead"]}, replications=1, n=100)
    assert "detection" not in sweep_plots.of_sweep(swept)


def test_a_swept_detector_shows_its_trade_off():
    """Detection time is drawn against false positives per hour, and each point shows the swept value."""
    cells = sweep({"policies.detection.timeout_s": [2.0, 4.0, 8.0]}).summary["cells"]
    for cell, rate in zip(cells, (50.0, 0.3, 0.0), strict=True):
        cell["detection"]["false_positives_per_h"] = rate
    figure = drawn(sweep_plots.detection_tradeoff(cells, "policies.detection.timeout_s", "t", "s"))
    tradeoff = figure.axes[0]
    assert (tradeoff.get_xlabel(), tradeoff.get_ylabel()) == ("detection time", "false positives per hour")
    assert tradeoff.get_yscale() == "symlog"
    assert words(figure) == ["2", "4", "8"]
    assert curve(tradeoff)[1].tolist() == [50.0, 0.3, 0.0]
    heights = tradeoff.transData.transform([(4.0, tick) for tick in tradeoff.get_yticks()])[:, 1]
    assert np.diff(heights).min() > 10  # a tick below the smallest rate would stand on that of 0


def test_a_detector_that_met_no_crash_says_so():
    """A cell without a detection time has no point, and drawing does not fail."""
    cells = sweep({"policies.detection.timeout_s": [2.0, 4.0]}).summary["cells"]
    for cell in cells:
        cell["detection"]["time_s"] = dict.fromkeys(cell["detection"]["time_s"])
    figure = drawn(sweep_plots.detection_tradeoff(cells, "policies.detection.timeout_s", "t", "s"))
    assert words(figure) == ["no crash was detected"] * 2


# ---- files and notebooks


def test_figures_are_saved_as_png_and_svg(tmp_path, figures):
    """Each figure is saved under its name, is not empty, and gives the same bytes each time."""
    one = Figures({"timeline": figures["timeline"]})
    one.save(tmp_path / "a")
    one.save(tmp_path / "b")
    for name, head in (("timeline.png", b"\x89PNG"), ("timeline.svg", b"<?xml")):
        data = (tmp_path / "a" / name).read_bytes()
        assert data.startswith(head)
        assert data == (tmp_path / "b" / name).read_bytes()


def test_nothing_of_the_clock_is_in_the_files(figures):
    """The files hold no date and no version."""
    svg = figures["timeline"].rendered("svg")
    assert b"<dc:date>" not in svg
    assert b"Matplotlib v" not in svg


def test_a_notebook_shows_figures_by_itself(figures):
    """A notebook shows one figure or all figures without a backend being chosen."""
    assert figures["timeline"]._repr_png_().startswith(b"\x89PNG")
    assert figures._repr_html_().count("<img src=") == 5


def test_the_users_own_style_changes_nothing(figures):
    """Pictures look the same whatever rcParams say."""
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
        again = draw(mm1(2000))
        assert again["latency-ccdf"].rendered("svg") == figures["latency-ccdf"].rendered("svg")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (3.5e-4, "350 µs"), (0.05, "50 ms"), (1.0, "1 s"), (90, "90 s"), (720, "12 min"), (36000, "10 h")],
)
def test_durations_are_written_for_people(value, text):
    """The unit depends on the size."""
    assert seconds(value) == text

"""What must hold of every picture, whatever it is of."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch

from orchestrator.analysis.comparison import compare
from orchestrator.pictures import Figures, draw, marks, style
from orchestrator.pictures.style import COLORS, DASHES, Plot
from orchestrator.results.runs import Run, Sweep
from orchestrator.results.tables import Floats
from tests.pictures.legibility import offences
from tests.results.synthetic import attempt, mm1, run, scenario, sweep, tables, task

LONG = "a-kind-of-task-with-a-name-that-nobody-would-want-to-read-aloud"
CRASH = {"kind": "crash", "at_s": 30, "workers": ["w2"], "restart_after_s": 8}
SLOW = {"kind": "slow", "at_s": 5, "workers": ["w1"], "factor": 0.1, "for_s": 60}
HEDGES = [None, {"quantile": 0.95, "budget": 0.05}, {"quantile": 0.99, "budget": 0.1}]
RETRIES = [{"max_attempts": 5, "backoff": {"kind": "exponential", "base_s": 0.1}}, {"max_attempts": None}]
ROUTINGS = [{"kind": kind} for kind in ("random", "round_robin", "least_loaded")]
CHOICES = [{"kind": "power_of_d", "d": d} for d in (2, 3, 4)]


def with_kinds(kinds: Mapping[str, int]) -> Run:
    """So many tasks of each kind, of 1 ms, 50 ms and 2.5 s in turn."""
    shares = {kind: {"share": 1 / len(kinds)} for kind in kinds}
    chosen = scenario(workload={**scenario().workload.model_dump(), "kinds": shares})
    rows, names = [], []
    for place, (kind, count) in enumerate(kinds.items()):
        rows += [task(20 + 60 * k / count, 20 + 60 * k / count + 0.001 * 50 ** (place % 3)) for k in range(count)]
        names += [kind] * count
    return run(tables(rows).with_kinds(names), chosen)


def with_outlier() -> Run:
    """A thousand tasks of 10 ms, and one of 100 s."""
    return run(tables([task(20.0, 120.0), *(task(20 + k / 20, 20.01 + k / 20) for k in range(1000))]))


def renamed(names: list[str]) -> Run:
    group = [{"name": name, "workers": 12, "capacity": 1} for name in names]
    chosen = scenario(cluster={"groups": group})
    return run(tables([task(20.0, 30.0)], [attempt(0, 20.0, ended_s=30.0)], workers=chosen.worker_names()), chosen)


def drained() -> Sweep:
    """A sweep in which the busiest cells lose most of their tasks."""
    made = sweep({"workload.arrivals.rate_per_s": [80, 150, 250]}, 1)
    for cell, lost in zip(made.summary["cells"], (0, 3, 90), strict=True):
        cell["tasks"] |= {"submitted": 100, "completed": 100 - lost, "failed": lost}
        if lost > 50:
            cell["latency_s"] |= {
                "p95": None,
                "p99": None,
                "max": None,
                "at_least": dict.fromkeys(("p95", "p99"), 20.0),
            }
            cell["latency_s"]["at_least"]["max"] = 20.0
    return made


HARD: dict[str, Callable[[], Any]] = {
    "a run": lambda: mm1(2000),
    "nothing completes": lambda: run(tables([task(20.0 + k) for k in range(50)])),
    "no task": lambda: run(tables()),
    "one task": lambda: run(tables([task(20.0, 22.0)])),
    "everything failed": lambda: run(tables([task(20.0 + k, 21.0 + k, state="failed") for k in range(50)])),
    "very unequal classes": lambda: with_kinds({"lookup": 900, "report": 30, LONG: 1}),
    "many kinds": lambda: with_kinds({"a": 9, "b": 9, "c": 9, **{f"import-of-customers-{k}": 9 for k in range(9)}}),
    "an outlier": with_outlier,
    "long names of workers": lambda: renamed(["rack-in-the-cellar-of-the-old-building", "b"]),
    "replications": lambda: sweep({}, 3),
    "no fault and others": lambda: sweep({"faults": [[], [CRASH], [CRASH, SLOW]]}, 1),
    "faults and policies": lambda: sweep(
        {"faults": [[], [CRASH, SLOW]], "policies.routing.kind": ["random", "least_loaded"]}
    ),
    "long names of cells": lambda: sweep({"policies.hedging": HEDGES, "policies.retry": RETRIES}, 1, n=100),
    "more than twelve cells": lambda: sweep(
        {"policies.routing": [*ROUTINGS, *CHOICES], "cluster.workers": [10, 20, 30]}, 1, n=100
    ),
    "many values": lambda: sweep({"cluster.workers": list(range(100, 1700, 100))}, 1, n=60),
    "a ratio of a million": lambda: sweep({"workload.arrivals.rate_per_s": [0.001, 1, 1000]}, 1, n=60),
    "detectors": lambda: sweep({"policies.detection.timeout_s": [2.0, 4.0, 8.0, 8.5]}, n=60),
    "detectors of several kinds": lambda: sweep(
        {"policies.detection": [{"kind": "timeout", "timeout_s": 4}, {"kind": "phi_accrual", "threshold": 8}]}, n=60
    ),
    "detectors with long names": lambda: sweep(
        {
            "policies.detection": [
                {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 2.5},
                {"kind": "phi_accrual", "heartbeat_s": 1, "threshold": 8, "window": 100},
                {"kind": "chen", "heartbeat_s": 1, "alpha_s": 2.5},
            ]
        },
        n=60,
    ),
    "lost tasks": drained,
    "alike": lambda: {"one": mm1(500), "other": mm1(500)},
    "a dozen": lambda: {f"a/folder/of/results/number-{k}": mm1(200, seed=k) for k in range(12)},
    "both worlds": lambda: compare(mm1(2000), mm1(2000, seed=2, world="live")),
    "two sweeps": lambda: compare(
        sweep({"policies.hedging": HEDGES, "policies.retry": RETRIES}, 1),
        sweep({"policies.hedging": HEDGES, "policies.retry": RETRIES}, 1),
        ("a folder with a rather long name, of Monday", "another one, of Tuesday"),
    ),
}


@pytest.fixture(scope="module")
def pictures() -> Callable[[str], Figures]:
    found: dict[str, Figures] = {}

    def of(name: str) -> Figures:
        if name not in found:
            found[name] = draw(HARD[name]())
        return found[name]

    return of


@pytest.mark.parametrize("name", HARD)
def test_nothing_is_cut_and_nothing_stands_on_another(name: str, pictures: Callable[[str], Figures]):
    """Every text and legend lies within its figure and beside the others, and every value within the limits."""
    found = {f"{picture}: {what}" for picture, figure in pictures(name).items() for what in offences(figure)}
    assert not found


@pytest.mark.parametrize("name", HARD)
def test_every_picture_says_of_how_many_tasks_it_is(name: str, pictures: Callable[[str], Figures]):
    """The number of samples stands in the foot, in the legend or beside the classes."""
    for picture, figure in pictures(name).items():
        told = [figure.get_supxlabel(), *(text.get_text() for one in figure.legends for text in one.get_texts())]
        assert any("n = " in text for text in told), picture


def planted(change: Callable[[Plot], Any]) -> list[str]:
    figure, (axes,) = style.new_figure("title", "setting", (4, 3))
    axes.plot([1, 2, 3], [1, 2, 3], label="curve")
    change(figure)
    return offences(figure)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda figure: None, []),
        (lambda figure: figure.text(0.5, 0.5, "far " * 30), ["is cut by the edge"]),
        (lambda figure: figure.axes[0].set_xticks([1, 1.01], ["one", "two"]), ["stand on one another"]),
        (lambda figure: figure.axes[0].set_ylim(0, 2), ["axes 0 end at"]),
        (lambda figure: figure.legend(loc="upper left"), ["legend 0 and text 'title'"]),
    ],
)
def test_the_check_sees_what_it_is_for(change: Callable[[Plot], Any], told: list[str]):
    """Each planted offence is found, and a plain figure has none."""
    found = planted(change)
    assert bool(found) == bool(told)
    assert all(any(one in text for text in found) for one in told)


# ---- told apart

VISION = {
    "all colours": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
"""What reaches such an eye of linear RGB: Machado, Oliveira and Fernandes, 2009, severity 1."""
SEEN = 15.0
"""Colours farther apart than this in CIELAB are easily told apart, also in thin lines."""


def distance(one: str, other: str, vision: Any) -> float:
    return float(np.linalg.norm(lab(one, vision) - lab(other, vision)))


def lab(color: str, vision: Any) -> Floats:
    """CIE 1976 L*a*b* of an sRGB colour, under daylight."""
    srgb = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    seen = np.clip(np.asarray(vision) @ linear, 0, 1)
    xyz = np.asarray(to_xyz) @ seen / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_colours_can_be_told_apart_by_the_colour_blind(vision: str):
    """Any two of the palette, and any two marks of one line style."""
    pairs = list(itertools.combinations(COLORS, 2))
    pairs += [
        (one, other)
        for (one, dashes), (other, others) in itertools.combinations(marks.MARKS.values(), 2)
        if dashes == others
    ]
    assert min(distance(one, other, VISION[vision]) for one, other in pairs) > SEEN


def test_red_and_green_would_be_seen():
    """The test above can fail: without colours of its own, the usual pair is one."""
    assert distance("#d62728", "#2ca02c", VISION["all colours"]) > SEEN
    assert distance("#6a51a3", "#0072b2", VISION["deuteranopia"]) < SEEN


def test_no_two_curves_of_a_picture_look_alike():
    """As many as a picture has; a colour that comes again has other dashes and another marker."""
    looks = style.looks(24)
    assert len({(look.color, look.dashes) for look in looks}) == 24
    assert len({(look.color, look.marker) for look in looks}) == 24
    assert len(COLORS) % len(DASHES)


def test_curves_that_coincide_are_all_seen(pictures: Callable[[str], Figures]):
    """The upper of two equal curves is thinner than the lower, which shows beside it, or has gaps."""
    for picture in ("latency-percentiles", "latency-ccdf"):
        (axes,) = pictures("alike")[picture].axes
        curves = [line for line in axes.lines if len(np.asarray(line.get_xdata())) > 1]
        assert [np.array_equal(curves[0].get_xydata(), line.get_xydata()) for line in curves] == [True, True]
        assert curves[0].get_linewidth() > curves[1].get_linewidth() + 0.5
    for axes in pictures("alike")["timeline"].axes:
        lower, upper = (patch for patch in axes.patches if not patch.get_fill())
        assert lower.get_linewidth() > upper.get_linewidth() + 0.5


# ---- over time


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]


def test_the_cells_of_a_sweep_stand_beside_one_another(pictures: Callable[[str], Figures]):
    """Each has axes of its own by its name, with its own faults, and all have the same limits."""
    figure = pictures("no fault and others")["sweep-timeline"]
    assert titles(figure) == [
        "no fault",
        "crash of w2 at 30 s, back after 8 s",
        "crash of w2 at 30 s, back after 8 s + slow of w1 at 5 s, for 60 s, factor=0.1",
    ]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    assert all(axes.collections for axes in figure.axes), "the crash of every run is marked"


def test_what_happened_stands_behind_the_curves_and_hides_none():
    """Forty crashes are as many lines, thinner ones, and the curves are drawn over them."""
    few, many = (marks_of_moments(count).collections[0] for count in (1, 40))
    assert np.max(few.get_linewidth()) > np.max(many.get_linewidth())
    assert max(few.get_zorder(), many.get_zorder()) < Line2D([], []).get_zorder()


def marks_of_moments(count: int) -> Axes:
    axes = Figure().subplots()
    marks.draw_lines(axes, {"crash": [(float(place), "w1") for place in range(count)]})
    return axes


def test_points_of_named_settings_are_not_joined_and_are_found_by_their_row(pictures: Callable[[str], Figures]):
    """Between one detector and another lies nothing, and a name beside a point would stand on the next."""
    tradeoff, delay, _ = pictures("detectors with long names")["detection"].axes
    assert {line.get_linestyle() for line in tradeoff.lines} == {"None"}
    assert [text.get_text() for text in tradeoff.texts] == ["1", "2", "3"]
    assert [tick.get_text()[:9] for tick in delay.get_yticklabels()] == ["1 timeout", "2 phi_acc", "3 chen he"]


def test_of_many_cells_the_picture_says_what_it_leaves_out(pictures: Callable[[str], Figures]):
    """At most twelve are drawn over time, and eight as curves."""
    figures = pictures("more than twelve cells")
    assert len(figures["sweep-timeline"].axes) == 12
    assert "the first 12 of 18 cells are drawn" in figures["sweep-timeline"].get_supxlabel()
    assert "the first 8 of 18 cells are drawn" in figures["sweep-percentiles"].get_supxlabel()


def test_replications_over_time_are_thin_and_their_median_is_not(pictures: Callable[[str], Figures]):
    """Three thin lines and a thick one in each panel, and the median lies between them."""
    figure = pictures("replications")["timeline"]
    for axes in figure.axes:
        assert [patch.get_linewidth() for patch in axes.patches] == [0.7, 0.7, 0.7, 1.8]
    steps = [patch for patch in figure.axes[1].patches if isinstance(patch, StepPatch)]
    each = np.array([patch.get_data()[0] for patch in steps])
    assert np.nanmedian(each[:3], axis=0) == pytest.approx(each[3], nan_ok=True)


def test_faults_are_marked_where_runs_are_overlaid(pictures: Callable[[str], Figures]):
    """Those that all runs have stand once in the legend, and in every panel."""
    figure = pictures("alike")["timeline"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "other", "crash: w2"]
    assert all(len(axes.collections) == 1 for axes in figure.axes)


# ---- the slowest


def test_the_slowest_task_is_seen_in_curves_and_sweeps(pictures: Callable[[str], Figures]):
    """100 s stand at the end of the curve; a sweep has a panel for the slowest of each cell."""
    (axes,) = pictures("an outlier")["latency-percentiles"].axes
    x, y = np.asarray(axes.lines[0].get_xydata()).T
    assert (x[-1], y[-1]) == (2002.0, 100.0)
    panel = pictures("many values")["sweep-cluster.workers"].axes[3]
    assert panel.get_title() == "slowest"
    assert np.isfinite(np.asarray(panel.lines[0].get_ydata(), dtype=np.float64)).all()

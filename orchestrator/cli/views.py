"""How summaries, sweeps, comparisons and judgements read on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.cli.terminal import count, duration, number, percent, print_facts, print_table, say, signed
from orchestrator.results.words import MOMENTS

COUNTS = ("submitted", "completed", "failed", "unfinished")
PERCENTILES = ("p50", "p95", "p99")


def print_summary(summary: Mapping[str, Any]) -> None:
    """One run, or the pooled replications of one cell."""
    from orchestrator.results.statistics import statistic_of
    from orchestrator.results.summaries import classes

    by_class = {f"  {name}": one["latency_s"] for name, one in classes(summary).items()}
    times = {
        "latency": summary["latency_s"],
        **by_class,
        "wait": summary["wait_s"],
        "detection": summary["detection"]["time_s"],
        **{
            name: summary["detection"][key]
            for name, key in (("mistake", "mistake_s"), ("delayed", "delayed_s"))
            if summary["detection"][key]["mean"] is not None
        },
    }
    print_table(
        f"{summary['scenario']}: {summary['world']}, seed {summary['seed']}, {summary['duration_s']:g} s",
        ["", "n", *MOMENTS.values()],
        [
            [name, f"{moments['n']:,}", *(statistic_of(moments, moment) for moment in MOMENTS)]
            for name, moments in times.items()
        ],
    )
    print_signs(times.values())
    print()
    told = facts(summary)
    print_facts(told.items(), 11)


def print_signs(shown: Iterable[Mapping[str, Any]], names: Iterable[str] = MOMENTS) -> None:
    """An empty line, and what the signs that occur in these statistics mean; nothing if none occurs."""
    from orchestrator.results.statistics import TOO_FEW, UNKNOWN, with_sign

    shown, names = list(shown), list(names)
    occurring = {with_sign(moments, name)[1] for moments in shown for name in names}
    meanings = {
        UNKNOWN: "not known, but longer: too many tasks failed, did not end or never started; means are of the others",
        TOO_FEW: "too few tasks for this percentile: it hardly says more than the maximum",
    }
    lines = [sign + meaning for sign, meaning in meanings.items() if sign in occurring]
    if lines:
        say("", *lines)


def facts(summary: Mapping[str, Any]) -> dict[str, str]:
    from orchestrator.results.summaries import classes

    tasks, found, engine = summary["tasks"], summary["detection"], summary["engine"]
    return {
        **({"runs": f"{summary['replications']}, pooled"} if "replications" in summary else {}),
        "tasks": listed(tasks, *COUNTS),
        **({"limits": listed(summary["limits"], *summary["limits"])} if "limits" in summary else {}),
        **{f"  {name}": listed(one, *COUNTS) for name, one in classes(summary).items()},
        "waiting": f"{number(summary['queue']['at_coordinator'])} tasks at the coordinator, "
        f"{number(summary['queue']['at_workers'])} at workers, on average",
        "attempts": f"{tasks['attempts']:,}, {listed(tasks, 'late_results')}, wasted {duration(tasks['wasted_s'])}",
        "throughput": f"{number(summary['throughput_per_s'])}/s, utilisation {percent(summary['utilization'])}",
        "detection": listed(found, "crashes", "detected", "missed", "by_failed_call", "false_positives"),
        **_price_of_detection(found),
        **_unsettled(summary),
        "engine": f"{number(engine['tasks_per_s'])} tasks/s, {number(engine['events_per_s'])} events/s, "
        f"{duration(engine['wall_s'])} in all",
    }


def _unsettled(summary: Mapping[str, Any]) -> dict[str, str]:
    until_s = summary.get("unsettled_until_s")
    said = f"too short: latency settled after {duration(until_s)} only; warmup_s should be at least that"
    return {} if until_s is None else {"warm-up": said}


def _price_of_detection(found: Mapping[str, Any]) -> dict[str, str]:
    """The deaths of healthy workers, what those by the detector cost, and its slowness, where there were any."""
    told = {}
    if found["healthy_declared_dead"]:
        told["mistakes"] = f"healthy workers declared dead {count(found['healthy_declared_dead'], 'time')}"
    if found["mistakes"]:
        per_day = f"{number(found['mistake_rate_per_s'] * 86400)} a worker and day"
        wasted = f"wasted {duration(found['mistake_wasted_s'])}"
        told["mistakes"] += f"; by the detector {per_day}, {wasted}, query accuracy {found['query_accuracy']:.4%}"
    if found["tasks_delayed"]:
        told["delayed"] = f"{count(found['tasks_delayed'], 'task')} on crashed workers"
    return told


def listed(counts: Mapping[str, int], *keys: str) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {counts[key]:,}" for key in keys)


def _title_of(cell: Mapping[str, Any]) -> str:
    from orchestrator.scenario.titles import cell_title

    return cell_title(cell["values"]) or str(cell["cell"])


def print_cells(summary: Mapping[str, Any]) -> None:
    """A sweep: one row a cell, its replications pooled; what no cell has is left out. Then its classes of tasks."""
    from orchestrator.results.statistics import statistic_of
    from orchestrator.results.summaries import classes

    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "tasks": lambda cell: f"{cell['tasks']['completed']:,}",
        "failed": lambda cell: f"{cell['tasks']['failed']:,}",
        "unfinished": lambda cell: f"{cell['tasks']['unfinished']:,}",
        "n": lambda cell: f"{cell['latency_s']['n']:,}",
        "p50": lambda cell: statistic_of(cell["latency_s"], "p50"),
        "p95": lambda cell: statistic_of(cell["latency_s"], "p95"),
        "p99": lambda cell: statistic_of(cell["latency_s"], "p99"),
        "wait": lambda cell: duration(cell["wait_s"]["mean"]),
        "through": lambda cell: f"{number(cell['throughput_per_s'])}/s",
        "busy": lambda cell: percent(cell["utilization"]),
        "detection": lambda cell: duration(cell["detection"]["time_s"]["p50"]),
        "mistakes": lambda cell: f"{cell['detection']['healthy_declared_dead']:,}",
        "late": lambda cell: f"{cell['tasks']['late_results']:,}",
        "wasted": lambda cell: duration(cell["tasks"]["wasted_s"]),
        "tasks/s": lambda cell: number(cell["engine"]["tasks_per_s"]),
    }
    shown = {name: list(map(show, summary["cells"])) for name, show in columns.items()}
    shown = {name: texts for name, texts in shown.items() if set(texts) - {"-", "0", "0 s"}}
    runs = sum(cell["replications"] for cell in summary["cells"])
    print_table(
        f"{summary['scenario']}: {summary['world']}, seed {summary['seed']}, "
        f"{count(len(summary['cells']), 'cell')}, {count(runs, 'run')}",
        ["", *shown],
        list(zip(map(_title_of, summary["cells"]), *shown.values(), strict=True)),
    )
    shown_moments = [cell["latency_s"] for cell in summary["cells"]]
    by_class = [
        (_title_of(cell), name, one)
        for cell in summary["cells"]
        for name, one in classes(cell).items()
        if one["submitted"]
    ]
    if by_class:
        print()
        _print_classes(by_class)
        shown_moments += [one["latency_s"] for _, _, one in by_class]
    print_signs(shown_moments, PERCENTILES)


def _print_classes(by_class: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
    """The classes of each cell; what no class has is left out."""
    from orchestrator.results.statistics import statistic_of

    lost = [key for key in ("failed", "unfinished") if any(one[key] for _, _, one in by_class)]
    print_table(
        "Latency of each class of tasks",
        ["", "tasks", *lost, "n", *PERCENTILES],
        [
            [
                f"{cell}, {name}",
                f"{one['completed']:,}",
                *(f"{one[key]:,}" for key in lost),
                f"{one['latency_s']['n']:,}",
                *(statistic_of(one["latency_s"], percentile) for percentile in PERCENTILES),
            ]
            for cell, name, one in by_class
        ],
    )


def print_comparison(comparison: Mapping[str, Any]) -> None:
    """Of one cell every statistic; of several their errors, and whether both sides rank them alike."""
    from orchestrator.analysis.comparison import JUDGED, SIDES, WHOLE

    cells, sides = comparison["cells"], (comparison["of"], comparison["against"])
    if len(cells) == 1:
        (cell,) = cells
        for where in dict.fromkeys(row["where"] for row in cell["rows"]):
            rows = [row for row in cell["rows"] if row["where"] == where]
            print_table(
                f"{comparison['scenario']}, {where}: intervals of 95 % by {cell['intervals']}",
                ["", *sides, "error", "its interval"],
                [_compared(row) for row in rows],
            )
            print()
        if any(row["too_few"] for row in cell["rows"]):
            print("too few: too few tasks at this load for a slow one, or a long queue, not to be chance;")
            print("         a longer duration_s, or more replications, would tell\n")
        told = [
            (name, counts)
            for side, where in zip(sides, SIDES, strict=True)
            for name, counts in _all_and_classes(side, cell["tasks"][where], cell["classes"][where])
        ]
        print_facts([(name, listed(counts, *COUNTS)) for name, counts in told], 11)
        return
    errors = [{row["metric"]: _error(row) for row in cell["rows"] if row["where"] == WHOLE} for cell in cells]
    shown = [metric for metric in JUDGED if any(metric in told for told in errors)]
    print_table(
        f"{comparison['scenario']}: relative errors of {sides[0]} against {sides[1]}",
        ["", *map(statistic, shown)],
        [[c["cell"], *(e.get(metric, "-") for metric in shown)] for c, e in zip(cells, errors, strict=True)],
    )
    print()
    print_table(
        "Tasks of either side",
        ["", *(f"{key}, {side}" for side in sides for key in COUNTS if key != "completed")],
        [
            [name, *(f"{counts[k]:,}" for counts in (ours, theirs) for k in COUNTS if k != "completed")]
            for c in cells
            for (name, ours), (_, theirs) in zip(
                *(_all_and_classes(c["cell"], c["tasks"][where], c["classes"][where]) for where in SIDES), strict=True
            )
        ],
    )
    print()
    print_table(
        "Do both rank the cells alike? (Kendall's tau: 1 the same order, -1 the reverse)",
        ["", "tau", "p", f"best, {sides[0]}", f"best, {sides[1]}"],
        [
            [statistic(r["metric"]), number(r["tau"]), number(r["p_value"]), r["best"], r["reference_best"]]
            for r in comparison["ranking"]
            if r["tau"] is not None
        ],
    )


def _all_and_classes(
    name: str, tasks: Mapping[str, int], by_class: Mapping[str, Mapping[str, int]]
) -> list[tuple[str, Mapping[str, int]]]:
    """All tasks by a name, and below it each class of them."""
    return [(name, tasks), *((f"  {one}", counts) for one, counts in by_class.items())]


def print_judgement(judgement: Mapping[str, Any]) -> None:
    """Every detector and setting on one trace, and what they recommend."""
    heard, recommended = judgement["trace"], judgement["recommendation"]

    def told(point: Mapping[str, Any]) -> list[str]:
        best = "recommended" if recommended is not None and recommended["qualifies"] else "nearest"
        marks = {"front": point["pareto"], "own": point["own"], best: _same(point, recommended)}
        bound = "" if point["mistakes"] else "< "
        return [
            _setting(point),
            duration(point["detection_s"]["mean"]),
            duration(point["detection_s"]["p99"]),
            f"{point['mistakes']:,}",
            bound + number(point["mistakes_per_day" if point["mistakes"] else "mistakes_per_day_upper"]),
            duration(point["mistake_s"]["mean"]),
            f"{point['query_accuracy']:.5%}",
            ", ".join(mark for mark, holds in marks.items() if holds),
        ]

    print_table(
        f"{judgement['scenario']}: {judgement['world']}, {count(heard['workers'], 'worker')}, "
        f"{count(heard['heartbeats'], 'heartbeat')} ({number(heard['heartbeats_per_s'])}/s) over "
        f"{number(heard['judged_s'] / 86400)} worker-days;\ndetection times {judgement['detection_times']}",
        ["", "detection", "p99", "mistakes (n)", "a day", "lasting", "accuracy", ""],
        map(told, judgement["points"]),
    )
    print()
    say(_recommended(judgement))


def _setting(point: Mapping[str, Any]) -> str:
    parameter = f" {point['parameter']}={point['value']:g}" if point["parameter"] else ""
    return f"{point['detector']}{parameter}"


def _same(point: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is not None and _setting(point) == _setting(other)


def _recommended(judgement: Mapping[str, Any]) -> str:
    """In words; where the trace is too short or too quiet to show that a budget is kept, what it lacks."""
    best, heard = judgement["recommendation"], judgement["trace"]
    if best is None:
        return "no budget given, so nothing is recommended: say --max-mistakes-per-day or --max-detection-s"
    upper_s = best["detection_p99_upper_s"]
    found = "how fast, the trace can't tell" if upper_s is None else f"99 % found within {duration(upper_s)}"
    wrong = f"at most {number(best['mistakes_per_day_upper'])} mistakes a day"
    if best["quiet"]:
        wrong = "how often wrong, the trace can't tell"
    told = f"{_setting(best)}: {found}, {wrong} (holds on 95 % of other traces as long)"
    if best["qualifies"]:
        return f"recommended: {told}"
    if best["quiet"] and best["least_judged_s"] is not None:
        needed = heard["disturbed_needed"]
        lost = f"{count(heard['disturbed'], 'heartbeat')} of it lost or late, expected at least {needed}"
        return f"the trace can't tell which setting withstands disturbed heartbeats: {lost}"
    least_s = best["least_judged_s"] or 0.0
    days = number(least_s / heard["workers"] / 86400)
    hint = f"; to show so few mistakes takes a trace of {days} days" if least_s > heard["judged_s"] else ""
    return f"no setting keeps the budget; nearest: {told}{hint}"


def _error(row: Mapping[str, Any]) -> str:
    """Relative; in words where a side does not know the statistic, because too many of its tasks never completed."""
    known = row["at_least"] is row["reference_at_least"] is None
    return signed(row["error"]) if known else "not known"


def _compared(row: Mapping[str, Any]) -> list[str]:
    show = {"throughput_per_s": lambda value: f"{number(value)}/s", "utilization": percent}.get(row["metric"], duration)
    interval = row["error_ci95"]
    return [
        statistic(row["metric"]),
        *(
            show(row[side]) if row[f"{bound}at_least"] is None else f"> {show(row[f'{bound}at_least'])}"
            for side, bound in (("value", ""), ("reference", "reference_"))
        ),
        _error(row),
        ("too few" if row["too_few"] else "-")
        if interval is None
        else f"{signed(interval[0])} to {signed(interval[1])}",
    ]


def statistic(metric: str) -> str:
    """`latency_s.p99` reads `latency p99`."""
    words = {"excess_s": "latency - service", "detection.time_s": "detection", "utilization": "utilisation"}
    what, dot, which = metric.rpartition(".") if "." in metric else (metric, "", "")
    return f"{words.get(what) or what.removesuffix('_per_s').removesuffix('_s')}{' ' if dot else ''}{which}"


def print_calibration(model: Mapping[str, Any]) -> None:
    """Each parameter of a model with what it was fitted to."""
    told = model["calibration"]
    message_kinds = model["network"]["message_kinds"]
    parameters = {name: message_kinds[name] for name in ("submit", "assign", "result")} | {
        "overhead": model["cluster"]["overhead"]
    }
    halved = ", round trips halved" if told["round_trips_halved"] else ""
    print_table(
        f"fitted to {told['source']}: {told['tasks']:,} tasks{halved}",
        ["", "kind", "mean", "cv", "samples", "KS distance"],
        [
            [
                name,
                one["kind"],
                duration(one.get("mean_s", one.get("value_s"))),
                number(one.get("cv")),
                f"{told[name]['samples']:,}",
                number(told[name]["ks"]),
            ]
            for name, one in parameters.items()
        ]
        + [
            [
                "cost a message",
                "constant",
                duration(model["coordinator"]["cost_s"]),
                "-",
                f"{told['messages']:,}",
                "-",
            ]
        ]
        + [
            ["commit", one["kind"], duration(one.get("mean_s", one.get("value_s"))), number(one.get("cv")), "-", "-"]
            for one in (model["coordinator"].get("commit"),)
            if one is not None
        ],
    )


def print_histories(histories: Sequence[Mapping[str, Any]], promises: Mapping[str, str]) -> None:
    """What the history of each run breaks; then what was looked at."""
    for history in histories:
        broken = history["violations"]
        state = f"broken, {count(len(broken), 'violation')}" if broken else "clean"
        print(f"{history['run']}: {history['tasks']:,} tasks in {history['attempts']:,} attempts: {state}")
        for violation in broken:
            print(f"  {violation['promise']}: {violation['sentence']}")
    print()
    meanings = []
    for name, meaning in promises.items():
        reasons = {history["left_out"].get(name, "") for history in histories}
        excuse = f" (not asked: {', '.join(filter(None, reasons))})" if any(reasons) else ""
        meanings.append((name, f"{meaning}{excuse}"))
    print_facts(meanings, 11)


def print_tally(tally: Mapping[str, Any]) -> None:
    """Chaos in numbers."""
    injection = ", ".join(f"{kind.replace('_', ' ')} {number:,}" for kind, number in tally["injections"].items())
    print(f"{count(tally['seeds'], 'seed')} in {duration(tally['wall_s'])}")
    facts = [("tasks", f"{tally['tasks']:,} in {tally['attempts']:,} attempts")]
    facts.append(("injections", f"{sum(tally['injections'].values()):,}: {injection}"))
    for promise, seeds in tally["broken"].items():
        more = f" and {len(seeds) - 10:,} more" if len(seeds) > 10 else ""
        facts.append(("broken", f"{promise}, by seed {', '.join(map(str, seeds[:10]))}{more}"))
    print_facts(facts, 11)
    if not tally["broken"]:
        print("no promise was broken")

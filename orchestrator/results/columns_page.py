"""The text of docs/columns.md: `python -m orchestrator.results.columns_page > docs/columns.md` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from orchestrator.results.columns import SUMMARY, WORDS
from orchestrator.results.tables import KIND, SCHEMAS

_HEAD = """# Columns

What the files of a run say. Times are seconds since the start of the run; null stands for what never happened. This
page is made from [`orchestrator/results/columns.py`](../orchestrator/results/columns.py).
"""
_INTRODUCTIONS = {
    "tasks": "One row per task.",
    "attempts": "One row per attempt, which is one assignment of a task to a worker.",
    "events": "One row per change of a worker as the coordinator sees it, and per beginning and end of a fault.",
}
_WORDS_HEAD = """The words in the columns of names. The detail of `heal` may also be the kind of the fault that ended;
that of `ejected` is a reason in words."""
_SUMMARY_HEAD = """## summary.json

`engine` stands in `engine.json` beside it, or, of replications, in that of each: it is what equal runs do not have in
common. Task counts cover the whole run. Statistics are `mean`, `p50`, `p90`, `p95`, `p99`, `p999` and `max`; under
`detection` there is no `p90` and no `p999`. Percentiles interpolate linearly between order statistics. An empty
statistic is null.

A task that failed or is unfinished is slower than every one that completed (for `wait_s`: one that never started; for
`accept_s`: one that was never accepted). A percentile or maximum whose rank falls on such a task is not known, so it is
null. The `mean` is that of the other tasks. Beside the statistics stand

- `n`: how many tasks (or detections) they are of, and `unknown`: how many of these count as slower than all others;
- `too_few`: the percentiles q for which `n` (1 - q) < 1. No task is to be expected beyond such a percentile, which
  hardly says more than the maximum. A terminal shows it as `~ 1.2 s`;
- `at_least`: for each percentile that is not known, a time that it is longer than. It is the age of the task on which
  the rank falls, from its arrival until it was given up or until the run ended, with these tasks in the order of their
  age; but no less than the slowest of the tasks whose time is known. A terminal shows it as `> 1.2 s`.

The summary of replications also has `replications`, `ci95` and `ci95_too_few`. Counts are summed, percentiles are taken
over all tasks together, and rates and queues are averaged. `ci95` has the 95 % confidence interval of each of these
numbers, or null if fewer than two replications have it; a maximum has none. An upper end is null if it falls on a task
that never completed, or if the replications are too few to tell it: `ci95_too_few` names these. A count of none has
the bound [0, 3.0], which takes the events as independent: of events that come in bunches, it counts bunches. See
[intervals](intervals.md).
"""


_ANSWER = """
### answer

A command that ran several cells writes `answer.json` beside the summary of the sweep, and `--json` prints it under the
key `answer`: `question`, `baseline`, `replications`, up to five
`sentences`, what is `assumed`, and for each of the `conditions` (swept values that are no choice: workload, network,
faults) its baseline and the deltas of its other cells. A delta has

- `measure`: `latency_s.p50`, `.p95`, `.p99`, `.p999`, `.max`, the same of each class, or one of the counts: `hit`
  (tasks with an attempt at a worker while a fault of it lasted), `delayed` and `sped_up` (tasks whose latency differs
  from their own in the baseline by more than the baseline's p50), `failed`, `unfinished`, `attempts`, `wasted_s` (as in
  `tasks`), `healthy_declared_dead` (as in `detection`), `workers`, `slots`. Counts are those of a run, on average;
- `baseline`, `value`, `difference`, and for percentiles the `change` (`difference` / `baseline`); `at_least` and
  `baseline_at_least` as above;
- `ci95`: of the change of a percentile, of the difference of a count; null where nothing tells it;
- `verdict`: `equal`, `lower`, `higher`, `no difference shown`, `too few`, or `counted` (different in these runs,
  without an interval).

`same_tasks` pairs each task with itself, where both cells have the same arrivals: how many tasks took longer (`later`)
or shorter (`sooner`) than in the baseline, by how much (median, and the 5 % and 95 % points), and the same of those
that a fault hit in either cell.
"""


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for table, schema in SCHEMAS.items():
        yield f"## {table}.parquet\n\n{_INTRODUCTIONS[table]}\n"
        yield "| column | type | unit | meaning |\n| --- | --- | --- | --- |"
        for field in [*schema, *([KIND] if table == "tasks" else [])]:
            unit, meaning = (field.metadata[key].decode() for key in (b"unit", b"meaning"))
            yield f"| `{field.name}` | {_type(field)} | {unit} | {meaning} |"
        yield ""
    yield f"## Words\n\n{_WORDS_HEAD}\n"
    for column, words in WORDS.items():
        yield f"| `{column}` | meaning |\n| --- | --- |"
        yield from (f"| `{word}` | {meaning} |" for word, meaning in words.items())
        yield ""
    yield _SUMMARY_HEAD
    yield "| key | unit | meaning |\n| --- | --- | --- |"
    for key, (unit, meaning) in SUMMARY.items():
        yield f"| `{key}` | {unit} | {meaning} |"
    yield _ANSWER.rstrip()


def _type(field: pa.Field) -> str:
    name = "name" if pa.types.is_dictionary(field.type) else str(field.type).replace("double", "float64")
    return f"{name} or null" if field.nullable else name


if __name__ == "__main__":
    print(page(), end="")

"""What every column, every word and every number of a run means, as plain data.

`tables` puts the descriptions of the columns into the metadata of its schemas. `columns_page` makes docs/columns.md.
"""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """A column's unit (empty for names and flags) and its meaning, one or two sentences."""

    unit: str
    meaning: str


COLUMNS: dict[str, dict[str, Column]] = {
    "tasks": {
        "task": Column("number", "The task: 0, 1, ... in the order of the plan."),
        "priority": Column("", "Its priority."),
        "arrival_s": Column("s", "When it arrives according to the plan, whether or not its client was on time."),
        "accepted_s": Column("s", "When the coordinator accepted it."),
        "started_s": Column("s", "When its execution began for the first time."),
        "settled_s": Column("s", "When its result was recorded, or when it was given up as failed."),
        "latency_s": Column("s", "`settled_s` - `arrival_s`."),
        "wait_s": Column("s", "`started_s` - `arrival_s`."),
        "service_s": Column("s", "Its demand: how long it takes on a worker of speed 1, retries alike."),
        "state": Column("", "How it stands at the end of the run."),
        "attempts": Column("count", "How many attempts were assigned."),
        "worker": Column("", "The worker whose report settled it; null if no report did."),
        "kind": Column("", "Its kind; a run without `workload.kinds` has no such column."),
    },
    "attempts": {
        "task": Column("number", "The task that was attempted."),
        "attempt": Column("number", "The number of the attempt: 1, 2, ... in the order of assignment."),
        "worker": Column("", "The worker to which it was assigned."),
        "assigned_s": Column("s", "When the coordinator assigned it."),
        "started_s": Column("s", "When its execution began; null if it never did, or if nobody knows."),
        "given_up_s": Column("s", "When the task stopped counting on it. It may have occupied its worker for longer."),
        "ended_s": Column("s", "When the coordinator heard of its end, or was sure of it; null if it never did."),
        "ran_s": Column(
            "s",
            "From its start to its end by the worker's clock, standstills included; null if it reported nothing.",
        ),
        "outcome": Column("", "How it ended."),
        "settled": Column("", "Whether its report settled the task."),
    },
    "events": {
        "time_s": Column("s", "When it happened."),
        "kind": Column("", "What happened."),
        "worker": Column("", "The worker that it concerns; null for the coordinator."),
        "detail": Column("", "More about it; null if there is nothing to add."),
    },
}

WORDS: dict[str, dict[str, str]] = {
    "priority": {
        "low": "Served last.",
        "normal": "The default.",
        "high": "Served before normal tasks.",
        "urgent": "Served first.",
    },
    "state": {
        "completed": "It has a result.",
        "failed": "It was given up, or its failure is final.",
        "unfinished": "It was neither when the run ended.",
    },
    "outcome": {
        "completed": "The worker reported a result.",
        "failed": "The worker reported a failure.",
        "timed_out": "It took longer than the execution timeout.",
        "worker_died": "Its worker was declared dead, left, or came back as a new process.",
        "rejected": "The worker refused it.",
        "call_failed": "The call that assigned it failed.",
        "cancelled": "It was stopped because the task no longer needed it.",
        "unfinished": "It had not ended when the run did.",
    },
    "kind": {
        "up": "The coordinator counts the worker as alive; the detail says how it came about.",
        "suspect": "The detector suspects the worker: it keeps what it has and gets nothing new.",
        "dead": "The coordinator declared the worker dead; the detail says why.",
        "drain": "The worker was told to finish what it has and to leave.",
        "left": "The worker said that it leaves.",
        "heal": "A fault ended; the detail says which.",
        "ejected": "The worker gets nothing for a while because it does badly; the detail says why.",
        "readmitted": "The worker's ejection is over.",
        "crash": "A fault: the worker's process was killed.",
        "pause": "A fault: the worker's process was stopped, and goes on later.",
        "restart": "A fault: the worker was asked to end, in order to be started again.",
        "slow": "A fault: the worker executes more slowly.",
        "hang": "A fault: the worker's executions stand still, while it goes on beating.",
        "partition": "A fault: nothing passes between the worker and the coordinator.",
        "delay": "A fault: messages of the worker take longer.",
        "loss": "A fault: messages of the worker are lost at random.",
        "duplicate": "A fault: messages of the worker are delivered twice at random.",
        "coordinator_pause": "A fault: the coordinator's process was stopped.",
        "forgotten": "The coordinator dropped what it knew of a worker that had been gone for long.",
        "coordinator_crash": "A fault: the coordinator's process was killed, with all that it had not stored.",
        "recovered": "A new process of the coordinator had read what was stored; `detail` tells its term.",
        "lost": "And it does not know what a client had been told; `detail` tells of which task.",
    },
    "detail": {
        "registered": "Of `up`: the worker registered for the first time.",
        "reregistered": "Of `up`: a new process of the worker registered.",
        "reconnected": "Of `up`: the same process registered again, and kept what it ran.",
        "revived": "Of `up`: a worker that had been declared dead was heard again.",
        "detector": "Of `dead`: the failure detector's verdict.",
        "failed_call": "Of `dead`: a call to the worker failed.",
        "restart": "Of `heal`: a new process of the worker began.",
        "resume": "Of `heal`: the paused process went on.",
    },
}
"""The words in the columns of names."""

SUMMARY: dict[str, Column] = {
    "scenario": Column("", "The name of the scenario."),
    "world": Column("", "`sim` or `live`."),
    "seed": Column("", "The scenario's seed."),
    "duration_s": Column("s", "When arrivals end."),
    "ended_s": Column("s", "When the run ended; of several replications, the longest."),
    "interrupted": Column("", "`true` if the run was stopped before its end; otherwise the key is missing."),
    "tasks.submitted": Column("count", "Tasks: `completed` + `failed` + `unfinished`."),
    "tasks.completed": Column("count", "Tasks with a result."),
    "tasks.failed": Column("count", "Tasks that were given up."),
    "tasks.unfinished": Column("count", "Tasks that were not settled when the run ended."),
    "tasks.attempts": Column("count", "Attempts of all tasks."),
    "tasks.late_results": Column("count", "Results that came after their task had been settled."),
    "tasks.wasted_s": Column("s", "Executed seconds of the attempts that settled nothing."),
    "limits.queue_timeouts": Column("count", "Of the failed tasks: those that did not begin in time."),
    "limits.missed_deadlines": Column("count", "Of the failed tasks: those that were not settled in time."),
    "limits.refused": Column(
        "count", "Of the failed tasks: those that were never accepted, and given up by their clients."
    ),
    "latency_s": Column("s", "Arrival to result, of all tasks that arrived from `warmup_s` on: statistics."),
    "wait_s": Column("s", "Arrival to first start, of the same tasks: statistics."),
    "accept_s": Column("s", "Arrival to acceptance, of the same tasks: statistics."),
    "throughput_per_s": Column("1/s", "Completions within [`warmup_s`, `duration_s`], divided by its length."),
    "utilization": Column("share", "Executing share of all slots within [`warmup_s`, `duration_s`]."),
    "slots.executed_s": Column("s", "Slot-seconds in the same time in which something was executed."),
    "slots.occupied_s": Column(
        "s",
        "Those in which a slot was taken: from a start until the coordinator heard of its end, a crash, or the next "
        "start in it.",
    ),
    "slots.frozen_s": Column("s", "Those in which an execution stood still, because of a pause or a hang."),
    "by_priority.*.submitted": Column("count", "Tasks of the priority, over the whole run."),
    "by_priority.*.completed": Column("count", "Those with a result."),
    "by_priority.*.failed": Column("count", "Those that were given up."),
    "by_priority.*.unfinished": Column("count", "Those that were not settled when the run ended."),
    "by_priority.*.latency_s": Column("s", "`latency_s` of the priority: statistics."),
    "by_kind.*.submitted": Column("count", "Tasks of the kind, over the whole run; no such keys without kinds."),
    "by_kind.*.completed": Column("count", "Those with a result."),
    "by_kind.*.failed": Column("count", "Those that were given up."),
    "by_kind.*.unfinished": Column("count", "Those that were not settled when the run ended."),
    "by_kind.*.latency_s": Column("s", "`latency_s` of the kind: statistics."),
    "queue.at_coordinator": Column("count", "Tasks that no worker held, on average in [`warmup_s`, `duration_s`]."),
    "queue.at_workers": Column("count", "Attempts that were assigned and had not begun, on average in the same time."),
    "detection.crashes": Column("count", "Crashes of workers."),
    "detection.detected": Column("count", "Crashes that the detector noticed."),
    "detection.missed": Column("count", "Crashes of workers that were back before any verdict."),
    "detection.already_dead": Column(
        "count", "Crashes of workers that had been declared dead before, by mistake or after a failed call."
    ),
    "detection.false_positives": Column("count", "Verdicts on workers whose process was up."),
    "detection.by_failed_call": Column("count", "Workers declared dead after a failed call, not by the detector."),
    "detection.healthy_declared_dead": Column(
        "count", "Workers declared dead whose process was up: `false_positives`, and those after a failed call."
    ),
    "detection.false_positives_per_h": Column("1/h", "`false_positives` divided by the length of the run."),
    "detection.time_s": Column("s", "Crash to verdict, of the detected crashes: statistics."),
    "detection.judged_s": Column("s", "Worker-seconds in which a worker was registered and its process up."),
    "detection.mistakes": Column("count", "The same as `false_positives`."),
    "detection.mistake_rate_per_s": Column("1/s", "`mistakes` divided by `judged_s`."),
    "detection.query_accuracy": Column("share", "Share of `judged_s` in which the workers were trusted."),
    "detection.mistake_s": Column("s", "How long a mistake lasted: statistics."),
    "detection.mistake_wasted_s": Column("s", "Executed seconds that were lost to mistaken verdicts."),
    "detection.tasks_delayed": Column("count", "Tasks with an attempt on a worker that had crashed."),
    "detection.delayed_s": Column("s", "How long the attempts of such a task lay there: statistics."),
    "detection.heartbeats_per_s": Column("1/s", "Heartbeats sent by all workers together."),
    "unsettled_until_s": Column(
        "s", "Tasks that arrived before had other latencies, although `warmup_s` was over; null if that is not seen."
    ),
    "commits.per_s": Column(
        "1/s", "Of a live coordinator with a store, in its last seconds: groups of changes stored."
    ),
    "commits.tasks_each": Column("count", "Changed tasks in each of the last groups."),
    "commits.p50_s": Column("s", "How long the last groups took to be stored; so are the next two."),
    "commits.p95_s": Column("s", "The same."),
    "commits.p99_s": Column("s", "The same."),
    "commits.recovery_s": Column("s", "How long it took to read the store at the start."),
    "engine.wall_s": Column("s", "Real time from the start of the run until its tables were written."),
    "engine.events": Column("count", "Events of the simulator, or inputs of a live coordinator."),
    "engine.tasks_per_s": Column("1/s", "Tasks divided by `wall_s`."),
    "engine.events_per_s": Column("1/s", "`events` divided by `wall_s`."),
}
"""The keys of `summary.json`; `*` stands for a name. "Statistics" are keys below it, such as `mean` and `p99`."""

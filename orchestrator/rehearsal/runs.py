"""Running a scenario in the live world: a coordinator and workers in processes of their own, on this machine.

Nothing here decides anything about a task. The plan says what to submit and which faults to inject, the coordinator's
decision record what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster import decision_record, tasks
from orchestrator.cluster.figures import Commits, Percentiles
from orchestrator.cluster.wire import rpc
from orchestrator.rehearsal.drive import STOPPED, ClusterBroke, Drive
from orchestrator.rehearsal.injector import STANDBY_S, Injector, needs_standby
from orchestrator.rehearsal.journal import NAME as JOURNAL
from orchestrator.rehearsal.journal import Journal, read
from orchestrator.rehearsal.local_cluster import LocalCluster, NotReady, Process
from orchestrator.rehearsal.payloads import payload_of, top_speed
from orchestrator.rehearsal.record import Account, Record, last_moment, record
from orchestrator.results import folders, sweeps
from orchestrator.results.folders import RunFolderError
from orchestrator.results.precision import Precision
from orchestrator.results.runs import Run, Sweep
from orchestrator.results.summaries import engine_summary, summarise
from orchestrator.results.sweeps import Progress, SweepProgress
from orchestrator.scenario.faults import OfNetwork
from orchestrator.scenario.loading import Problem
from orchestrator.scenario.plan import FaultAction, Plan, draw_plan
from orchestrator.scenario.schema import Group, Scenario, ScenarioError, require_one_run
from orchestrator.scenario.streams import generator
from orchestrator.scenario.workload import Closed

LOG = "cluster.log"
PROCESSES_PER_CPU = 50
SLOTS_MAX = 5_000
RESTARTS_MAX = 500
RATE_PER_S = 1_000
"""Tasks that coordinator, workers and driver on two processors were measured to handle with room to spare."""
STOP_S = 10.0


@dataclass(frozen=True)
class Host:
    """A worker process to be: its workers, all of one group."""

    names: tuple[str, ...]
    group: Group
    relayed: bool
    """They reach the coordinator through a relay."""


def run(
    scenario: Scenario,
    out: str | Path | None = None,
    replication: int = 0,
    progress: Progress | None = None,
    check: bool = False,
    force: bool = False,
) -> Run:
    """One replication of a scenario without a sweep, on a cluster of its own, written to the folder `out` where one is
    given; `force`: in the place of what an earlier run left there. It is number `replication`, of those that the
    scenario's `replications` have `sweep` run.

    `progress` is called now and then with the share of `duration_s` that is over (more than 1 while it drains).
    Ctrl-C ends the run early: what was done until then is kept, and its summary says `interrupted`. `check`: the
    coordinator proves its invariants while it runs. Raises ScenarioError for what cannot be done here, RunFolderError
    if the folder may not be used, ValueError for a sweep, ClusterBroke if a process ended that was not told to; if a
    policy stopped the coordinator, its text names the policy. What is left of a run whose processes were all killed:
    see `recover`.
    """
    require_one_run(scenario, replication, "rehearsal.runs.sweep")
    if out is None:
        with tempfile.TemporaryDirectory() as folder, _without_log():
            return run(scenario, folder, replication, progress, check)
    began = time.perf_counter()
    out = Path(out)
    warn(scenario)
    plan = draw_plan(scenario, replication)
    folders.require_free(out, force)
    folders.begin(out, folders.identity(scenario, "live", replication), live=True)
    folders.write_scenario(out, scenario)
    journal = Journal(out / JOURNAL)
    try:
        account, interrupted = _execute(scenario, plan, replication, out, journal, progress, check)
    except ClusterBroke as error:
        raise ClusterBroke(f"{error} (see {out / LOG})", error.status) from error
    finally:
        journal.close()
    recorded = record(out / decision_record.NAME, scenario, account)
    return _keep(out, scenario, recorded, lambda: time.perf_counter() - began, interrupted, account.commits)


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """No error leads to a log that is gone with its folder."""
    try:
        yield
    except ClusterBroke as error:
        said = str(error).partition(" (see ")[0]
        raise ClusterBroke(f"{said} (given `out`, its log is kept there)", error.status) from error


def recover(folder: Path) -> Run:
    """What a live run did until all its processes were killed, from its decision record, as an interrupted run.

    The record lacks the last second at most. Raises RunFolderError if the folder holds no such run.
    """
    if (folder / "summary.json").exists():
        raise RunFolderError(f"{folder} holds a finished run: nothing is to be recovered")
    path = folder / decision_record.NAME
    if not path.exists():
        raise RunFolderError(f"{folder} holds no live run that was killed: {path.name} is missing")
    scenario = folders.load_scenario(folder)
    try:
        ended = last_moment(path)
        account = read(folder / JOURNAL, ended, bool(scenario.workload.kind_names()))
        recorded = record(path, scenario, account, killed=True)
    except ValueError as error:
        raise RunFolderError(str(error)) from None
    return _keep(folder, scenario, recorded, lambda: ended - account.began, interrupted=True)


def _keep(
    out: Path,
    scenario: Scenario,
    recorded: Record,
    wall_s: Callable[[], float],
    interrupted: bool,
    commits: Commits | None = None,
) -> Run:
    """Write what came of a run. `wall_s`: how long it took, asked for when the tables are written."""
    tables, inputs, counters = recorded
    tables.write(out)
    engine = engine_summary(wall_s(), inputs, tables.tasks.num_rows)
    summary = summarise(tables, scenario, "live", engine, counters, interrupted)
    if commits is not None and commits.latency_ms is not None:
        summary["commits"] = _plain(commits, commits.latency_ms)
    (out / JOURNAL).unlink(missing_ok=True)
    folders.finish(out, scenario, summary)
    return Run(summary, tables, scenario)


def _plain(commits: Commits, latency_ms: Percentiles) -> dict[str, float | None]:
    latency_s = {f"{name}_s": None if ms is None else ms / 1000 for name, ms in latency_ms._asdict().items()}
    return {
        "per_s": commits.per_s,
        "tasks_each": commits.tasks_each,
        **latency_s,
        "recovery_s": commits.recovery_s,
    }


def sweep(
    scenario: Scenario,
    out: str | Path | None = None,
    replications: int | None = None,
    progress: SweepProgress | None = None,
    check: bool = False,
    *,
    force: bool = False,
    resume: bool = False,
    precision: Precision | None = None,
) -> Sweep:
    """Every cell of the scenario's sweep, `replications` times each, one after the other, in `out/<cell>/r<k>`.

    Without `out` the tables are in a temporary folder for as long as any of the runs is in use.
    `progress` is called with the share of the whole that is over. Ctrl-C keeps the finished runs. `force`, `resume` and
    `precision`: see `orchestrator.results.sweeps.Plan`.
    """

    def into(folder: Path) -> Sweep:
        in_turn = functools.partial(_in_turn, folder, progress, check)
        plan = sweeps.Plan(scenario, "live", folder, replications, force, resume, precision)
        return sweeps.sweep(plan, in_turn, progress)

    if out is not None:
        return into(Path(out))
    with _without_log():
        return folders.sweep_without_folder(into)


def _in_turn(out: Path, progress: SweepProgress | None, check: bool, work: sweeps.Work) -> Iterator[tuple[str, int]]:
    for before, (cell, number) in enumerate(work):

        def advance(share: float, before: int = before) -> None:
            if progress is not None:
                progress((before + min(share, 1.0)) / len(work))

        folder = folders.run_folder(out, cell.name, number)
        finished = run(cell.scenario, folder, number, advance, check, force=True)
        if "interrupted" in finished.summary:
            raise KeyboardInterrupt
        yield cell.name, number


def warn(scenario: Scenario, file: str = "scenario") -> list[str]:
    """What a live run leaves out, a sentence each. Raises ScenarioError for what cannot be done on this machine."""
    problems = [Problem(file, 1, 1, key, message) for key, message in _impossible(scenario)]
    if problems:
        raise ScenarioError(problems)
    return list(_left_out(scenario))


def hosts(scenario: Scenario, plan: Plan) -> list[Host]:
    """The worker processes: `live.workers_per_process` to each, but one that a fault hits is alone in its own.
    Those whom the network may fail have a relay."""
    victims = {action.worker for action in plan.faults}
    all_relayed = scenario.network.loss > 0 or scenario.network.duplicate > 0
    relayed = {action.worker for action in plan.faults if isinstance(scenario.faults[action.index], OfNetwork)}
    most = scenario.live.workers_per_process
    names = iter(scenario.worker_names())
    found: list[Host] = []
    for group in scenario.cluster.groups:
        members = [next(names) for _ in range(group.workers)]
        found += [Host((name,), group, all_relayed or name in relayed) for name in members if name in victims]
        others = tuple(name for name in members if name not in victims)
        found += [Host(others[begin : begin + most], group, all_relayed) for begin in range(0, len(others), most)]
    return found


# ---- one run


def _execute(
    scenario: Scenario,
    plan: Plan,
    replication: int,
    out: Path,
    journal: Journal,
    progress: Progress | None,
    check: bool,
) -> tuple[Account, bool]:
    """What the driver can tell of the run, and whether it was interrupted; afterwards every process has ended."""
    with tempfile.TemporaryDirectory() as folder, _store(scenario, out) as stored, _our_path():
        resolved = Path(folder) / "scenario.yaml"
        resolved.write_text(scenario.dump(), encoding="utf-8")
        policies = [
            "--scenario",
            str(resolved),
            "--decision-record",
            str(out / decision_record.NAME),
            "--replication",
            str(replication),
            *(["--check"] if check else []),
            *stored,
        ]
        with LocalCluster(
            executor="inline" if scenario.workload.task == "sleep" else "process",
            policies=policies,
            log=out / LOG,
        ) as cluster:
            try:
                stage = _Stage(scenario, plan, replication, cluster)
                stage.set_up()
                injector = Injector(scenario, plan, cluster, stage, journal)
                drive = Drive(scenario, plan, cluster, payload_of(scenario), injector, journal, progress)
                interrupted = _complete(drive)
            except (ClusterBroke, NotReady) as error:
                # Its clients are told before its process ends.
                status = error.status if isinstance(error, ClusterBroke) else cluster.coordinator.status
                raise ClusterBroke(_last_words(out / LOG) if status == STOPPED else str(error), status) from error
            cluster.coordinator.terminate()  # it closes its decision record
            cluster.coordinator.wait(STOP_S)
    return drive.account(), interrupted


def _last_words(log: Path) -> str:
    """Why the coordinator stopped, in its own words. Its log has a JSON object in each line that it wrote itself."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    events = [json.loads(line)["event"] for line in lines if line.startswith("{") and rpc.STOPPED in line]
    said = [event[event.index(rpc.STOPPED) :] for event in events if rpc.STOPPED in event]
    return said[-1] if said else "the coordinator stopped, and did not say why"


def _complete(drive: Drive) -> bool:
    """Run it to its end, or until an interrupt, which is told."""
    running = asyncio.run_coroutine_threadsafe(drive.run(), _loop())
    try:
        running.result()
        return False
    except KeyboardInterrupt:
        drive.stop()
        running.result()
        return True
    finally:
        drive.stop()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for the life of the process, as grpc.aio wants it, in a thread of its own: callers may have theirs."""
    loop = rpc.precise_loop()
    threading.Thread(target=loop.run_forever, name="orchestrator-live", daemon=True).start()
    return loop


class _Stage:
    """The processes of a run: which there are, and how each is started."""

    def __init__(self, scenario: Scenario, plan: Plan, replication: int, cluster: LocalCluster) -> None:
        self._hosts = hosts(scenario, plan)
        self._host_of = {name: host for host in self._hosts for name in host.names}
        self._absent = plan.absent
        self._starts = [action for action in plan.faults if needs_standby(action)]
        self._standbys: dict[tuple[str | None, float], Process] = {}
        self._cluster = cluster
        self._heartbeat_s = scenario.policies.detection.heartbeat_s
        self._call_timeout_s = scenario.network.rpc_timeout_s
        self._top_speed = top_speed(scenario)
        self._work = scenario.workload.task
        self._stream = functools.partial(generator, scenario.seed, replication)
        names = scenario.worker_names()
        phases = self._stream("phase", "heartbeat").random(len(names)) * self._heartbeat_s
        self._phase_s: dict[str, float] = dict(zip(names, phases.tolist(), strict=True))

    def set_up(self) -> None:
        """Start all that are there at the beginning, and wait until they are registered, and those on standby that are
        needed soon."""
        for process in [self._start_relay(host) for host in self._hosts if host.relayed]:
            process.ready(self._cluster.coordinator)
        there = [host for host in self._hosts if host.names[0] not in self._absent]
        for process in [self._cluster.start_worker(*host.names, options=self._options(host)) for host in there]:
            process.ready(self._cluster.coordinator)
        for action in self._starts:
            if action.time_s <= STANDBY_S:
                self.prepare(action)
        for standby in self._standbys.values():
            standby.loaded()

    def prepare(self, action: FaultAction) -> None:
        """A process on standby for a worker that is alone in it; unless it is there already."""
        key = (action.worker, action.time_s)
        if key in self._standbys:
            return
        if action.worker is None:
            self._standbys[key] = self._cluster.prepare_coordinator()
        else:
            host = self._host_of[str(action.worker)]
            # It begins to beat one interval after that second of the run.
            self._phase_s[host.names[0]] = action.time_s % self._heartbeat_s
            self._standbys[key] = self._cluster.prepare_worker(*host.names, options=self._options(host))

    def begin(self, action: FaultAction) -> None:
        """Now it is the worker's."""
        self.prepare(action)
        process = self._standbys.pop((action.worker, action.time_s))
        self._cluster.begin_worker(str(action.worker), process=process)

    def begin_coordinator(self, action: FaultAction) -> None:
        """It goes on with what the one before it had stored."""
        self.prepare(action)
        self._cluster.begin_coordinator(self._standbys.pop((None, action.time_s)))

    def _start_relay(self, host: Host) -> Process:
        seed = int(self._stream("relay", host.names[0]).integers(2**63))
        return self._cluster.start_relay(*host.names, seed=seed, call_timeout_s=self._call_timeout_s)

    def _options(self, host: Host) -> list[str]:
        group = host.group
        return [
            *("--capacity", str(group.capacity)),
            *("--prefetch", str(-1 if group.prefetch == "unlimited" else group.prefetch)),
            *(part for name, value in group.labels.items() for part in ("--label", f"{name}={value}")),
            *(part for kind in group.kinds for part in ("--kind", tasks.named_kind(self._work, kind))),
            *("--speed", str(group.speed / self._top_speed)),
            *(part for name in host.names for part in ("--beat-phase", str(self._phase_s[name]))),
        ]


@contextlib.contextmanager
def _store(scenario: Scenario, out: Path) -> Iterator[list[str]]:
    """What a coordinator with a store is told. It is on the disk of the results, for as long as the run lasts."""
    if scenario.coordinator.commit is None:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix=".store-", dir=out) as folder:
        yield ["--data", folder]


@contextlib.contextmanager
def _our_path() -> Iterator[None]:
    """Policies of the user's own are found by the coordinator's process as by this one."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


# ---- work


# ---- what can be done


def _impossible(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Keys, and what is wrong with them."""
    plan = draw_plan(scenario)
    starts = sum(map(needs_standby, plan.faults))
    if starts > RESTARTS_MAX:
        yield "faults", f"start {starts:,} processes, expected at most {RESTARTS_MAX:,} in a live run"
    processes = hosts(scenario, plan)
    slots = sum(group.workers * group.capacity for group in scenario.cluster.groups)
    executors = 0 if scenario.workload.task == "sleep" else slots
    cpus = os.cpu_count() or 1
    relays = sum(host.relayed for host in processes)
    total, most = len(processes) + executors + relays, PROCESSES_PER_CPU * cpus
    if total > most:
        kinds = ((len(processes), "of workers"), (executors, "that execute tasks"), (relays, "for a bad network"))
        parts = " and ".join(f"{number:,} {what}" for number, what in kinds if number)
        yield (
            "live.workers_per_process",
            f"is {scenario.live.workers_per_process}, which makes {total:,} processes ({parts}), expected at most "
            f"{most:,} on this machine's {cpus} processors (workers that faults hit have one each)",
        )
    elif slots > SLOTS_MAX:
        yield "cluster", f"has {slots:,} slots, expected at most {SLOTS_MAX:,} in a live run"


def _left_out(scenario: Scenario) -> Iterator[str]:
    network = scenario.network
    message_kinds = [
        network.delay,
        *(message_kind for _, message_kind in network.message_kinds if message_kind is not None),
    ]
    if any(message_kind.mean() > 0 for message_kind in message_kinds):
        yield "network.delay is not applied: messages take the real network of this machine"
    if scenario.cluster.overhead is not None:
        yield "cluster.overhead is not applied: an execution takes what it takes"
    if scenario.coordinator.commit is not None:
        yield "coordinator.commit is not applied: to store a group takes the time that it takes on this disk"
    if scenario.coordinator.cost_s:
        yield "coordinator.cost_s is not applied: the coordinator takes the time that it takes"
    arrivals = scenario.workload.arrivals
    if not isinstance(arrivals, Closed):
        rate = arrivals.expected(scenario.duration_s) / scenario.duration_s
        if rate > RATE_PER_S:
            yield (
                f"{rate:,.0f} tasks a second are more than the {RATE_PER_S:,} that one machine was measured to keep "
                "up with: the driver or the coordinator may fall behind"
            )
    offered_load = scenario.offered_load()
    if scenario.workload.task != "sleep" and offered_load is not None:
        cpus = os.cpu_count() or 1
        busy = offered_load * sum(group.workers * group.capacity for group in scenario.cluster.groups)
        if busy > cpus:
            yield (
                f"{scenario.workload.task} keeps {busy:.1f} processors busy on average and this machine has {cpus}: "
                "tasks will take longer than their seconds"
            )

"""Live runs of small scenarios: real processes, a few seconds each."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from orchestrator.analysis import promises
from orchestrator.cli.app import app
from orchestrator.cli.judging import LIVE_GRACE_S
from orchestrator.cluster import decision_record, tasks
from orchestrator.rehearsal import runs
from orchestrator.rehearsal.drive import ClusterBroke
from orchestrator.rehearsal.payloads import square_of_prime
from orchestrator.rehearsal.runs import hosts, run, sweep, warn
from orchestrator.results import folders
from orchestrator.results.runs import Run, Sweep
from orchestrator.scenario.plan import OpenArrivals, draw_plan
from orchestrator.scenario.schema import ScenarioError
from tests.rehearsal.runs import BASE, HEARTBEAT_S, TIMEOUT_S, assert_sound, executed, scenario, story


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """One of four workers dies and comes back."""
    folder = tmp_path_factory.mktemp("crashed")
    faults = [{"kind": "crash", "at_s": 1, "workers": ["w3"], "restart_after_s": 2.5}]
    return executed(folder, faults=faults, duration_s=5), folder / "out"


def test_a_crash_loses_nothing(crashed: tuple[Run, Path]):
    """The tasks of a killed worker are executed by others."""
    finished, _ = crashed
    counts = finished.summary["tasks"]
    assert counts["completed"] == counts["submitted"] > 200
    assert set(finished.attempts["outcome"]) <= {"completed", "worker_died", "call_failed"}


def test_a_crash_is_detected_when_the_last_heartbeat_is_old_enough(crashed: tuple[Run, Path]):
    """The verdict comes `timeout_s` after the last sign of life, which is at most a heartbeat before the crash."""
    finished, _ = crashed
    detection = finished.summary["detection"]
    assert (detection["crashes"], detection["detected"], detection["missed"]) == (1, 1, 0)
    assert detection["false_positives"] == detection["by_failed_call"] == 0
    assert TIMEOUT_S - 2 * HEARTBEAT_S < detection["time_s"]["max"] < 2.5


def test_faults_leave_the_same_events_as_in_the_simulator(crashed: tuple[Run, Path]):
    """Those of the crashed worker, in their order, and of no other worker."""
    finished, _ = crashed
    assert story(finished, "w3") == ["up registered", "crash", "dead detector", "heal restart", "up reregistered"]
    assert story(finished, "w1") == ["up registered"]
    assert (finished.events["time_s"] >= 0).all()


def test_the_plan_is_what_was_run(crashed: tuple[Run, Path]):
    """Arrivals are the intended ones, to the last bit, however late a task was sent; demands and priorities too."""
    finished, _ = crashed
    arrivals = draw_plan(finished.scenario).arrivals
    assert isinstance(arrivals, OpenArrivals)
    assert np.array_equal(finished.tasks["arrival_s"], arrivals.arrival_s)
    assert np.array_equal(finished.tasks["service_s"], arrivals.service_s)
    assert (finished.tasks["accepted_s"] >= finished.tasks["arrival_s"]).all()


def test_a_sweep_needs_no_folder(tmp_path: Path):
    """Its tables are there as long as a run is used; a single run of a sweep is refused before anything starts."""
    short = scenario(tmp_path).with_({"duration_s": 1, "sweep.seed": [1, 2]})
    with pytest.raises(
        ValueError, match=r"small sweeps seed, expected a scenario for one run: rehearsal\.runs\.sweep runs"
    ):
        run(short)
    swept = sweep(short)
    assert [len(one.tasks) for one in swept.runs] == [one.summary["tasks"]["completed"] for one in swept.runs]
    assert run(short.cells()[0].scenario).summary["world"] == swept.summary["world"] == "live"


def test_no_error_leads_to_a_log_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a folder, what broke is told without a file that nobody can open."""

    def breaks(*_: object) -> None:
        raise ClusterBroke("a worker ended", 1)

    monkeypatch.setattr(runs, "_execute", breaks)
    with pytest.raises(ClusterBroke, match=r"^a worker ended \(given `out`, its log is kept there\)$"):
        run(scenario(tmp_path))
    with pytest.raises(ClusterBroke, match=r"^a worker ended \(given `out`, its log is kept there\)$"):
        sweep(scenario(tmp_path))


def test_work_takes_the_demanded_seconds(crashed: tuple[Run, Path]):
    """A sleep lasts at least as long as the plan says, and waiting comes before it."""
    finished, _ = crashed
    done = finished.attempts[finished.attempts["settled"]]
    demand_s = finished.tasks["service_s"].to_numpy()[done["task"]]
    assert (done["ran_s"].to_numpy() >= demand_s - 1e-4).all()
    assert (done["started_s"] >= done["assigned_s"]).all()


def test_a_run_says_what_it_is(crashed: tuple[Run, Path]):
    """The summary names the world, and its engine counts what the coordinator was told."""
    finished, out = crashed
    assert finished.summary["world"] == "live"
    engine = finished.summary["engine"]
    assert engine["events"] >= 2 * finished.summary["tasks"]["submitted"]
    assert engine["wall_s"] > 5
    assert (out / "cluster.log").exists()


def test_a_run_leaves_no_process(crashed: tuple[Run, Path]):
    """The cluster ends with its run."""
    assert not [
        child for child in psutil.Process().children(recursive=True) if "orchestrator.cli.cluster" in child.cmdline()
    ]


def test_a_paused_worker_is_declared_dead_and_revived(tmp_path: Path):
    """A pause beyond the timeout is a false positive; the worker's late word counts, and its load comes right."""
    faults = [{"kind": "pause", "at_s": 0.5, "workers": ["w2"], "for_s": 2}]
    finished = executed(tmp_path, faults=faults, duration_s=3.5)
    assert story(finished, "w2") == ["up registered", "pause", "dead detector", "heal resume", "up revived"]
    assert finished.summary["detection"]["false_positives"] == 1
    assert finished.summary["tasks"]["completed"] == finished.summary["tasks"]["submitted"]
    last = finished.attempts[finished.attempts["worker"] == "w2"]["assigned_s"].max()
    assert last > 2.5, "it works again"


def test_half_of_the_workers_die_at_once(tmp_path: Path):
    """Every task is settled once, and every death is found by the detector."""
    faults = [{"kind": "crash", "at_s": 1, "count": 4, "restart_after_s": 2}]
    finished = executed(tmp_path, faults=faults, duration_s=3, cluster={"workers": 8, "capacity": 1})
    assert finished.summary["tasks"]["completed"] == finished.summary["tasks"]["submitted"]
    detection = finished.summary["detection"]
    assert (detection["crashes"], detection["detected"], detection["missed"]) == (4, 4, 0)


def test_closed_clients_wait_for_their_results(tmp_path: Path):
    """No more tasks are under way than there are clients, and no more are submitted than were asked for."""
    workload = {
        "arrivals": {"kind": "closed", "clients": 3, "think": {"kind": "exponential", "mean_s": 0.01}},
        "service": {"kind": "constant", "value_s": 0.01},
        "tasks": 60,
        "task": "prime",
    }
    finished = executed(tmp_path, workload=workload, cluster={"workers": 1, "capacity": 2}, duration_s=3)
    assert finished.summary["tasks"]["completed"] == 60
    arrivals, settled = np.sort(finished.tasks["arrival_s"]), np.sort(finished.tasks["settled_s"])
    under_way = np.arange(1, 61) - np.searchsorted(settled, arrivals)
    assert under_way.max() <= 3


def test_a_run_ends_when_nobody_can_settle_the_rest(tmp_path: Path):
    """All workers gone for good: what is left stays unfinished, and is counted."""
    faults = [{"kind": "crash", "at_s": 0.5, "all": True}]
    finished = executed(tmp_path, faults=faults, duration_s=1.5, cluster={"workers": 2, "capacity": 1})
    assert finished.summary["tasks"]["unfinished"] > 0
    assert {"unfinished"} == set(finished.tasks["state"][finished.tasks["arrival_s"] > 1])


def test_a_run_does_not_wait_longer_than_drain_s(tmp_path: Path):
    """What is under way then stays unfinished."""
    service = {"kind": "constant", "value_s": 30}
    workload = {"arrivals": {"kind": "constant", "rate_per_s": 10}, "service": service}
    finished = executed(tmp_path, workload=workload, duration_s=0.5, drain_s=0.3)
    assert finished.summary["tasks"]["unfinished"] == finished.summary["tasks"]["submitted"] > 0
    assert set(finished.attempts["outcome"]) == {"unfinished"}


def test_a_sweep_has_the_folders_of_the_simulator(tmp_path: Path):
    """Cells and replications one after the other, each a run in a folder of its own, with an aggregate above."""
    scenario(tmp_path, duration_s=0.5, sweep={"policies.routing.kind": ["least_loaded", "random"]})
    out = tmp_path / "out"
    told = CliRunner().invoke(app, ["live", str(tmp_path / "small.yaml"), "--out", str(out), "--no-plots", "--json"])
    assert told.exit_code == 0, told.stderr
    assert [cell["world"] for cell in json.loads(told.stdout)["cells"]] == ["live", "live"]
    result = folders.load(out)
    assert isinstance(result, Sweep)
    assert [cell.name for cell in result.cells] == ["routing=least_loaded", "routing=random"]
    for cell in result.cells:
        assert_sound(cell.runs[0], out / cell.name / "r0")


def test_a_replication_has_its_own_chance(tmp_path: Path):
    """Its plan and its policies draw from its own streams, and its decision record says so."""
    finished = run(scenario(tmp_path, duration_s=0.5), tmp_path / "out", replication=1)
    assert_sound(finished, tmp_path / "out")
    arrivals = draw_plan(finished.scenario, 1).arrivals
    assert isinstance(arrivals, OpenArrivals)
    assert np.array_equal(finished.tasks["arrival_s"], arrivals.arrival_s)
    with (tmp_path / "out" / decision_record.NAME).open() as lines:
        assert json.loads(next(lines))["replication"] == 1


def test_an_interrupt_keeps_what_was_done_and_ends_every_process(tmp_path: Path):
    """Ctrl-C in the middle: exit code 130, a whole run folder that says so, and nothing left running."""
    scenario(tmp_path, "workload.arrivals.rate_per_s=200", duration_s=60)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "orchestrator", "live", str(tmp_path / "small.yaml"), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: '"submit"' in written(out / decision_record.NAME))
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, told
    assert "the run until then kept in" in told
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    kept = folders.load_run(out)
    assert kept.summary["interrupted"] is True
    assert kept.summary["tasks"]["submitted"] > 0
    assert_sound(kept, out)


def test_a_coordinator_that_dies_ends_the_run(tmp_path: Path):
    """In one sentence that names the log; a run that nobody could record leaves no summary, and no process."""
    cluster: list[psutil.Process] = []

    def kill(share: float) -> None:
        if not cluster:
            # Children of other tests may be left, such as multiprocessing's own helper.
            children = psutil.Process().children()
            cluster.extend(child for child in children if "orchestrator.cli.cluster" in child.cmdline())
            next(process for process in cluster if "coordinator" in process.cmdline()).kill()

    with pytest.raises(ClusterBroke, match=r"the coordinator ended with status -9 \(see .*cluster\.log\)"):
        run(scenario(tmp_path), tmp_path / "out", progress=kill)
    assert len(cluster) == 2
    assert not any(process.is_running() for process in cluster)
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.parametrize("arrivals", ["open", "closed"])
def test_a_policy_that_stops_the_coordinator_is_named(tmp_path: Path, arrivals: str):
    """In the error and on the command's only line; the command exits like the coordinator, with 70."""
    closed = {"kind": "closed", "clients": 10, "think": {"kind": "exponential", "mean_s": 0.01}}
    workload = {**BASE["workload"], "arrivals": closed} if arrivals == "closed" else {}
    routing = {"kind": "tests.cluster.lame:Lame", "after": 50}
    keys = {"policies": {**BASE["policies"], "routing": routing}, **({"workload": workload} if workload else {})}
    sentence = (
        "the coordinator stopped: the routing policy tests.cluster.lame:Lame raised in choose: "
        "ZeroDivisionError: by zero"
    )
    with pytest.raises(ClusterBroke) as broke:
        run(scenario(tmp_path, **keys), tmp_path / "out")
    assert (str(broke.value), broke.value.status) == (f"{sentence} (see {tmp_path / 'out' / 'cluster.log'})", 70)
    told = CliRunner().invoke(app, ["live", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "again")])
    assert (told.exit_code, told.stderr) == (70, f"{sentence} (see {tmp_path / 'again' / 'cluster.log'})\n")


DETECTORS = {
    "Impatient": "review_at gave 0.0 at ",
    "Undecided": "review_at gave None, not a time",
}


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("command", ["simulate", "live"])
def test_a_detector_against_its_protocol_is_named_in_both_worlds(tmp_path: Path, command: str, name: str):
    """At once, and in one line: also live, where no worker can register any more."""
    detection = {"kind": f"tests.cluster.lame:{name}", "heartbeat_s": HEARTBEAT_S}
    scenario(tmp_path, policies={"detection": detection})
    out = tmp_path / "out"
    told = CliRunner().invoke(app, [command, str(tmp_path / "small.yaml"), "--out", str(out), "--no-plots"])
    sentence = f"the failure detector tests.cluster.lame:{name} broke its protocol: {DETECTORS[name]}"
    [line] = told.stderr.splitlines()
    if command == "simulate":
        assert (told.exit_code, line[: len(sentence)]) == (2, sentence)
        return
    assert (told.exit_code, sentence in line) == (70, True)
    log = (out / "cluster.log").read_text()
    assert "Traceback" not in log
    assert "never retrieved" not in log


def test_a_warning_names_what_is_not_applied(tmp_path: Path):
    """The simulator's network and the simulator's coordinator stay in the simulator."""
    network = {"delay": {"kind": "constant", "value_s": 0.01}}
    said = warn(scenario(tmp_path, network=network, coordinator={"cost_s": 0.001}))
    assert [line.split(" is ")[0] for line in said] == ["network.delay", "coordinator.cost_s"]
    assert warn(scenario(tmp_path)) == []


def test_the_command_refuses_in_one_line(tmp_path: Path):
    """With file and key, and exit code 2."""
    path = tmp_path / "small.yaml"
    scenario(tmp_path)
    told = CliRunner().invoke(app, ["live", str(path), "cluster.workers=100000", "--out", str(tmp_path / "out")])
    assert told.exit_code == 2
    assert told.stderr.startswith(f"{path}:1:1: live.workers_per_process: is 4, which makes 25,000 processes")
    assert not (tmp_path / "out").exists()


def test_more_processes_than_are_sensible_are_refused(tmp_path: Path):
    """With the numbers."""
    with pytest.raises(ScenarioError, match=r"which makes 100,000 processes"):
        warn(scenario(tmp_path, cluster={"workers": 100_000}, live={"workers_per_process": 1}))


def test_more_restarts_than_are_sensible_are_refused(tmp_path: Path):
    """Each is a process of its own."""
    faults = [{"kind": "crash", "mtbf_s": 0.001, "all": True, "restart_after_s": 0}]
    with pytest.raises(ScenarioError, match=r"faults: start [\d,]+ processes, expected at most 500"):
        warn(scenario(tmp_path, faults=faults))


def test_workers_that_faults_hit_are_alone_in_their_processes(tmp_path: Path):
    """Others share theirs, within their group."""
    cluster = {"groups": [{"name": "a", "workers": 4, "capacity": 1}, {"name": "b", "workers": 3, "capacity": 2}]}
    faults = [{"kind": "pause", "at_s": 1, "workers": ["w2"], "for_s": 1}]
    chosen = scenario(tmp_path, cluster=cluster, faults=faults, live={"workers_per_process": 2})
    found = hosts(chosen, draw_plan(chosen))
    assert [host.names for host in found] == [("w2",), ("w1", "w3"), ("w4",), ("w5", "w6"), ("w7",)]
    assert [host.group.capacity for host in found] == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("divisions", [1, 1_000, 250_000])
def test_a_prime_task_costs_about_the_divisions_asked_for(divisions: int):
    """Its smallest factor is the first prime from twice their number on, for only odd numbers are tried."""
    number = int(square_of_prime(divisions))
    factor = tasks.smallest_factor(number)
    assert factor**2 == number
    assert 2 * divisions <= factor <= 2 * divisions + 200


def test_a_prime_task_stays_a_number_of_64_bits():
    """However long a task is to take."""
    assert int(square_of_prime(1e12)) < 2**63


def written(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def wait_until(holds: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("arrivals", ["open", "closed"])
def test_a_run_whose_processes_were_all_killed_becomes_a_result(tmp_path: Path, arrivals: str):
    """From what its coordinator and its driver had written until then; and it is not run again by mistake."""
    closed = {"kind": "closed", "clients": 5, "think": {"kind": "exponential", "mean_s": 0.01}}
    workload = {**BASE["workload"], "arrivals": closed} if arrivals == "closed" else BASE["workload"]
    faults = [{"kind": "crash", "at_s": 0.3, "workers": ["w2"], "restart_after_s": 5}]
    scenario(tmp_path, duration_s=60, workload=workload, faults=faults)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "orchestrator", "live", str(tmp_path / "small.yaml"), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: '"dead"' in written(out / decision_record.NAME))
        finally:
            process.kill()
    again = CliRunner().invoke(app, ["live", str(tmp_path / "small.yaml"), "--out", str(out), "--resume"])
    assert (again.exit_code, "orchestrator recover" in again.stderr) == (2, True)
    told = CliRunner().invoke(app, ["recover", str(out), "--no-plots", "--json"])
    assert told.exit_code == 0, told.stderr
    kept = folders.load_run(out)
    assert kept.summary == json.loads(told.stdout)
    assert kept.summary["interrupted"] is True
    assert story(kept, "w2")[:3] == ["up registered", "crash", "dead detector"]
    counts = kept.summary["tasks"]
    assert counts["submitted"] == counts["completed"] + counts["failed"] + counts["unfinished"]
    assert counts["completed"] > 20
    assert promises.check(kept, grace_s=LIVE_GRACE_S) == []
    refused = CliRunner().invoke(app, ["recover", str(out)])
    assert (refused.exit_code, "nothing is to be recovered" in refused.stderr) == (2, True)

"""Bad tasks by the dozen, all at once on one worker: each is a clear failure of its own, and of no other."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.cluster.app import App, Task
from orchestrator.cluster.child import Unusable
from orchestrator.cluster.client import Client, TaskFailed
from orchestrator.cluster.futures import TaskFuture
from orchestrator.cluster.programs import program_of
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster import bad_app as bad
from tests.cluster.conftest import PATIENT, MakeCluster
from tests.cluster.lines import lines
from tests.test_house import ROOT

APP = ("--app", "tests.cluster.bad_app:app", "--memory-limit", "1G")

FAILS: dict[str, tuple[str, str]] = {
    "raises": ("LookupError", "nothing here"),
    "raises_async": ("LookupError", "nothing here"),
    "calls_exit": ("SystemExit", "3"),
    "calls_exit_async": ("RuntimeError", "SystemExit: 3"),
    "ends_the_process": ("", "its executor exited with status 7"),
    "ends_the_process_async": ("", "its executor exited with status 7"),
    "segfaults": ("", "its executor was killed by SIGSEGV"),
    "segfaults_async": ("", "its executor was killed by SIGSEGV"),
    "is_killed": ("", "its executor was killed by SIGKILL"),
    "leaks": ("MemoryError", "its subprocess may have 1024 MiB (--memory-limit)"),
    "returns_no_json": ("", "its result can't travel as JSON: "),
    "returns_another_type": (
        "",
        "its result is not what its annotation says: all of them: input should be",
    ),
    "returns_much": ("", "the result is too large: 100000002 characters, the limit is 1048576"),
    "oversleeps": ("", "its execution timeout of 0.3 s is over"),
    "oversleeps_async": ("", "its execution timeout of 0.3 s is over"),
    "ignores_its_end": ("", "its execution timeout of 0.3 s is over"),
    "ignores_its_end_async": ("", "its execution timeout of 0.3 s is over"),
    "blocks_the_loop": ("", "its execution timeout of 0.3 s is over"),
    "closes_everything": ("", "its executor was killed by SIGKILL"),
    "raises_what_has_no_text": (
        "tests.cluster.bad_app.raises_what_has_no_text.<locals>.Mute",
        "its text can't be had: RuntimeError",
    ),
    "recurses": ("RecursionError", "maximum recursion depth exceeded"),
    "never_succeeds": ("orchestrator.cluster.app.Retry", "not yet"),
}
"""Type and beginning of the message."""

SUCCEEDS: dict[str, Any] = {
    "forks": 1,
    "prints": "printed",
    "changes_directory": "/",
    "closes_the_output": "closed",
    "leaves_an_alarm": "set",
    "returns_what_is_no_number": [math.inf, -math.inf],
    "stops_the_loop": "stopped",
    "cancels_the_others": "cancelled",
    "starts_threads": 3,
    "leaves_tasks": 1,
    "wants_another_try": 3,
}
"""What does harm beside its result."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad") / "log"


@pytest.fixture(scope="module")
def cluster(log: Path) -> Iterator[LocalCluster]:
    options = (*APP, "--prefetch", "100")
    with LocalCluster(1, capacity=8, heartbeat_s=0.1, policies=(*PATIENT, "--check"), options=options, log=log) as made:
        yield made
    assert not [line for line in lines(log) if "Traceback" in str(line) and line.get("logger") != "orchestrator.task"]


def ended(future: Future[Any]) -> Any:
    """Its value, or type and message of its failure."""
    try:
        return future.result(timeout=30)
    except TaskFailed as failed:
        return failed.type, failed.message


def test_each_bad_task_fails_by_itself(cluster: LocalCluster):
    """Good ones between them all succeed, the worker stays the same process, and nothing that they began is left."""
    worker = psutil.Process(cluster.worker("w1").pid)
    with Client(cluster.address) as client:
        asked: dict[str, Future[Any]] = {}
        good: list[Future[Any]] = []
        for number, name in enumerate([*FAILS, *SUCCEEDS, "leaves_a_child", "leaves_a_fork"]):
            asked[name] = client.submit(getattr(bad, name))
            good += [client.submit(bad.good, number), client.submit(bad.good_async, number)]
        told = {name: ended(future) for name, future in asked.items()}
        for name, (kind, message) in FAILS.items():
            assert told[name][0] == kind, told[name]
            assert told[name][1].startswith(message), told[name]
        assert {name: told[name] for name in SUCCEEDS} == SUCCEEDS
        assert [future.result(30) for future in good] == [number**2 for number in range(len(asked)) for _ in range(2)]
        left = [told["leaves_a_child"], told["leaves_a_fork"]]
        while any(psutil.pid_exists(process) and psutil.Process(process).status() != "zombie" for process in left):
            client.submit(bad.good, 1).result(30)
        metrics = client.metrics()
        assert metrics.alive_workers == 1
        assert cluster.worker("w1").status is None
        assert worker.is_running()


def test_one_that_blocks_the_loop_is_stopped_where_others_wait(cluster: LocalCluster):
    """It fails, after some seconds, and they have noticed nothing but a delay."""
    with Client(cluster.address) as client:
        blocking = client.submit(bad.blocks_others)
        good = [client.submit(bad.good_async, number) for number in range(3)]
        assert [future.result(30) for future in good] == [0, 1, 4]
        failed = blocking.exception(30)
    assert isinstance(failed, TaskFailed)
    assert re.fullmatch(r"it blocked the event loop of the async tasks for \d+ s", failed.message)


def test_a_failure_says_where(cluster: LocalCluster):
    """Its traceback is text, which begins in the user's own file."""
    with Client(cluster.address) as client:
        failed = client.submit(bad.raises).exception(30)
    assert isinstance(failed, TaskFailed)
    first, second, third, *rest = failed.traceback.splitlines()
    assert first == "Traceback (most recent call last):"
    assert second.startswith(f'  File "{bad.__file__}", line ')
    assert (third.strip(), rest) == ('raise LookupError("nothing here")', [])
    assert str(failed).startswith(f"task {failed.task_id}, raises: LookupError: nothing here\n\nTraceback")


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "sentence"),
    [
        (App.named("good"), ("one",), {}, "wrong arguments: 0: input should be a valid integer"),
        (App.named("good"), (), {"number": 1, "other": 2}, "wrong arguments: other: unexpected keyword argument"),
        (App.named("good"), (), {}, "wrong arguments: number: missing required argument"),
        (App.named("good"), (1, 2), {}, "wrong arguments: 1: unexpected positional argument"),
        (App.named("good"), (1, 2), {"other": 3}, "wrong arguments: 1 too many"),
        (App.named("good"), (1,), {"number": 2}, "wrong arguments: number is given twice"),
        (App.named("good_async"), ([1],), {}, "wrong arguments: 0: input should be a valid integer"),
        (App.named("dance"), (), {}, "unknown kind of task: 'dance'; this worker's app has blocks_others, "),
    ],
)
def test_what_does_not_fit_is_told(
    cluster: LocalCluster, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], sentence: str
):
    """Wrong arguments, and a kind that the worker does not have; neither is tried again."""
    with Client(cluster.address) as client:
        failed = client.submit(task, *args, **kwargs).exception(30)
    assert isinstance(failed, TaskFailed)
    assert failed.message.startswith(sentence)
    assert (failed.type, failed.traceback, failed.attempts) == ("", "", 1)


def test_wrong_arguments_are_an_error_at_once_where_the_function_is_at_hand(cluster: LocalCluster):
    """Of the caller, before anything is sent; and what is no task can't be sent at all."""
    submit: Any
    with Client(cluster.address) as client:
        submit = client.submit
        with pytest.raises(TypeError, match="wrong arguments: 0: input should be a valid integer"):
            submit(bad.good, "one")
        with pytest.raises(TypeError, match="is no task of an App"):
            submit(len, "one")
        with pytest.raises(TypeError, match="can't travel as JSON"):
            submit(App.named("good"), object())


def test_what_a_task_prints_stands_in_the_log_with_its_id(cluster: LocalCluster, log: Path):
    """Up to a limit; the rest is counted."""
    with Client(cluster.address) as client:
        futures: list[TaskFuture[Any]] = [client.submit(bad.good, number) for number in range(1000, 1050)]
        client.gather(futures)
        printed = client.submit(bad.prints)
        assert printed.result(30) == "printed"
        client.submit(bad.good, 1).result(30)
    told = [(line.get("task"), line.get("attempt"), line["event"]) for line in lines(log)]
    for number, future in enumerate(futures, 1000):
        assert (future.task_id, 1, f"task {future.task_id}, good: good {number}") in told
    dropped = f"task {printed.task_id}, prints: prints more than 64 KiB: the rest is dropped"
    assert (printed.task_id, 1, dropped) in told
    assert max(map(len, log.read_text().splitlines())) < 5000


def test_a_task_that_costs_its_subprocess_is_mentioned(cluster: LocalCluster, log: Path):
    """Once for each kind: it is slow for that reason."""
    with Client(cluster.address) as client:
        client.gather([client.submit(bad.starts_threads) for _ in range(3)])
    assert log.read_text().count(", starts_threads: its subprocess is replaced, now and whenever this happens: ") == 1


def test_a_task_that_is_cancelled_may_clean_up(cluster: LocalCluster, tmp_path: Path):
    """It is told by an exception, and ends soon after."""
    file = tmp_path / "said"
    with Client(cluster.address) as client:
        future = client.submit(bad.lives_until, str(file))
        while not file.exists() or file.read_text() != "begun":
            time.sleep(0.01)
        assert future.cancel()
        while file.read_text() != "cleaned up":
            time.sleep(0.01)


def test_a_subprocess_is_replaced_after_its_last_task(make_cluster: MakeCluster):
    """--max-tasks-per-child: of five tasks, each has its own."""
    options = ("--app", "tests.cluster.bad_app:app", "--max-tasks-per-child", "1")
    cluster = make_cluster(1, capacity=1, executor="process", options=options)
    with Client(cluster.address) as client:
        assert len({client.submit(bad.process).result(30) for _ in range(5)}) == 5


MODULES = {
    "broken": "from orchestrator import App\n\napp = App()\n1 / 0\n",
    "spelled": "from orchestrator import App\n\napp = App(\n",
    "exits": "import sys\n\nsys.exit(4)\n",
    "ends": "import os\n\nos._exit(5)\n",
    "needs": "import nowhere\n",
    "nothing": "from orchestrator import App\n\napp = App()\nother = 1\n",
    "odd": "from orchestrator import App\n\napp = App()\n\n\n@app.task\ndef odd(x: 'Nowhere') -> None: ...\n",
    "twice": "from orchestrator import App\n\napp = App()\n\nfor _ in range(2):\n    app.task(name='a')(print)\n",
    "setting": "from orchestrator import App\n\napp = App()\napp.task(max_attempts=0)(print)\n",
}
BAD_APPS = {
    "nowhere.tasks:app": "there is no module 'nowhere' in {here} or among what is installed",
    "nothing:others": "'nothing' has no 'others'",
    "nothing:other": "'other' of 'nothing' is no App but int",
    "nothing": "the app 'nothing' has no tasks",
    ":app": "an app is given as package.module:name, not ':app'",
    "broken:app": "'broken' can't be imported: ZeroDivisionError: division by zero ({here}/broken.py:4)",
    "spelled:app": "'spelled' can't be imported: SyntaxError at {here}/spelled.py:3: '(' was never closed",
    "exits:app": "'exits' can't be imported: SystemExit: 4 ({here}/exits.py:3)",
    "ends:app": "'ends:app' can't be imported: the process that tried exited with status 5",
    "needs:app": "'needs' can't be imported: ModuleNotFoundError: No module named 'nowhere' ({here}/needs.py:1)",
    "odd:app": "the annotations of task 'odd' can't be used: name 'Nowhere' is not defined",
    "twice:app": "'twice' can't be imported: InvalidTask: two tasks have the name 'a' ({here}/twice.py:6)",
    "setting:app": "'setting' can't be imported: InvalidTask: task 'print': max_attempts is 1 or more, or None, not 0",
}


def test_an_app_that_can_not_be_had_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is wrong, and where. A subprocess tries it: an app that ends its process ends nothing else."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    for spec, wanted in BAD_APPS.items():
        with pytest.raises(Unusable) as raised:
            program_of(spec)
        assert str(raised.value).startswith(wanted.format(here=tmp_path))


def test_an_app_that_can_not_be_had_keeps_its_worker_from_starting(tmp_path: Path):
    """Exit 2, and that sentence; nobody is dialled. The module is found in the current folder."""
    (tmp_path / "broken.py").write_text(MODULES["broken"])
    command = [sys.executable, "-m", "orchestrator.cli.cluster", "worker", "-c", "127.0.0.1:1", "--app", "broken:app"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"--app broken:app: {BAD_APPS['broken:app'].format(here=tmp_path)}\n"

"""Tasks of the user's own from the command line, on a cluster that `orchestrator up` runs: as a new user would."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest
from typer.testing import CliRunner

from orchestrator.cli.cluster import app
from tests.test_documents import listings
from tests.test_house import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ORCHESTRATOR = [sys.executable, "-P", "-m", "orchestrator"]
WORK = """
import asyncio
from pathlib import Path
from orchestrator import App, Retry, current_task

app = App()

@app.task
def add(one: int, other: int = 1) -> int:
    return one + other

@app.task
async def nap(seconds: float) -> str:
    Path("napping").touch()
    await asyncio.sleep(seconds)
    return "slept"

@app.task
def fail() -> None:
    raise ValueError("no")
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@contextlib.contextmanager
def up(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`orchestrator up`, and the address of its coordinator."""
    words = [*ORCHESTRATOR, "up", "--log-format", "text", "--port", "0", *options]
    with subprocess.Popen(words, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in told_by(process):
                match = re.match(r"\d+ workers? of \d+ at (\S+); Ctrl-C stops them", line)
                if match:
                    yield process, match[1]
                    return
            raise AssertionError(f"exit status {process.wait()}")
        finally:
            if process.poll() is None:
                process.kill()


def told_by(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stderr is not None
    return process.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    (folder / "work.py").write_text(WORK)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Iterator[Run]:
    """A command, at a cluster that ends well when it is interrupted."""
    with up(folder, "--workers", "2", "--app", "work:app") as (process, address):
        of_it = psutil.Process(process.pid).children(recursive=True)

        def run(command: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
            words = [*ORCHESTRATOR, command, "--coordinator", address, *arguments]
            return subprocess.run(
                words, cwd=folder, env=ENVIRONMENT, input=given, capture_output=True, text=True, timeout=60, check=False
            )

        yield run
        process.send_signal(signal.SIGINT)
        said = told_by(process).read().splitlines()
        assert process.wait(30) == 0
    assert said[-1] == "stopped"
    assert "Traceback" not in "\n".join(line for line in said if "orchestrator.task" not in line)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in of_it)


def test_a_cluster_for_development_is_scraped_too(folder: Path):
    """The option is its coordinator's."""
    with up(folder, "--workers", "1", "--app", "work:app", "--metrics-address", "127.0.0.1:0") as (process, address):
        assert address
        (coordinator,) = (
            child for child in psutil.Process(process.pid).children() if "--metrics-address" in child.cmdline()
        )
        ports = {each.laddr.port for each in coordinator.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
        (scraped,) = ports - {int(address.rpartition(":")[2])}
        with urllib.request.urlopen(f"http://127.0.0.1:{scraped}/metrics", timeout=20) as answer:
            assert "orchestrator_workers" in answer.read().decode()


def test_a_task_by_its_kind_and_arguments(run: Run):
    """Its result on stdout as JSON, its id on stderr; `--json` alone has both on stdout."""
    done = run("submit", "add", "--json", '{"one": 2, "other": 3}')
    assert (done.returncode, done.stdout) == (0, "5\n")
    assert done.stderr.startswith("id: ")
    assert run("submit", "add", "--args", "[7]").stdout == "8\n"
    told = json.loads(run("submit", "add", "--json=[7]", "--json").stdout)
    assert (told["state"], told["result"], told["error"]) == ("COMPLETED", 8, None)
    failed = run("submit", "fail")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "ValueError: no\nTraceback (most recent call last):\n" in failed.stderr


def test_what_is_not_waited_for_is_asked_for_later(run: Run):
    """By its id: `result` waits for it, as long as it is told to; `cancel` ends it."""
    task = run("submit", "nap", "--json", "[0.2]", "--no-wait").stdout.strip()
    assert run("result", task).stdout == '"slept"\n'
    slow = run("submit", "nap", "--json", "[3600]", "--no-wait").stdout.strip()
    late = run("result", slow, "--timeout", "0.1")
    assert (late.returncode, late.stderr) == (1, f"task {slow} is not settled within 0.1 s\n")
    assert run("cancel", slow).returncode == 0
    assert run("result", slow).returncode == 1
    assert run("result", "nobody").stderr == "no task nobody\n"


def test_a_file_has_a_task_in_each_line(run: Run, folder: Path):
    """Results come as lines, with the number of the task's line; exit 1 if one failed."""
    (folder / "numbers.jsonl").write_text("".join(f"[{number}]\n\n" for number in range(20)))
    done = run("submit", "add", "--file", "numbers.jsonl")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["line"]: line["result"] for line in lines} == {2 * number + 1: number + 1 for number in range(20)}
    assert (done.returncode, done.stderr) == (0, "20 completed, 0 failed\n")
    mixed = '{"kind": "add", "args": {"one": 1}, "priority": 3, "key": "k"}\n{"kind": "fail"}\n'
    done = run("submit", "--file", "-", given=mixed)
    one, other = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda line: line["line"])
    assert (one["state"], one["result"], other["state"], other["result"]) == ("COMPLETED", 2, "FAILED", None)
    assert (done.returncode, done.stderr) == (1, "1 completed, 1 failed\n")
    first, _ = run("submit", "--file", "-", "--no-wait", given=mixed).stdout.splitlines()
    assert json.loads(first)["id"] == one["id"], "the key is that of the same task"


@pytest.mark.parametrize(
    ("arguments", "given", "sentence"),
    [
        (["add", "--args", "7"], "", "--args: arguments are an object, by name, or an array, by position, not '7'"),
        (["add", "--json", "[7"], "", "--args: '[7' is no JSON: Expecting ',' delimiter: line 1 column 3 (char 2)"),
        (["--args", "[7]"], "", "KIND is missing: --args are those of a task of an App"),
        (["add", "--kind", "sleep"], "", "--kind can't be had with a KIND, --args or --file"),
        (["--file", "nowhere.jsonl"], "", "nowhere.jsonl: No such file or directory"),
        (["--file", "-"], "\n", "-: it has no tasks, expected one JSON value in each line"),
        (["--file", "-"], "\n[1]\n", '-:2: without a KIND, a line is an object such as {"kind": "greet"'),
        (
            ["--file", "-"],
            '{"kind": "add", "arg": 1}',
            "-:1: unknown member 'arg', expected one of kind, args, priority",
        ),
        (["--file", "-"], '{"kind": "add", "priority": 9}', "-:1: a task's priority is 0 to 3, not 9"),
        (["add", "--file", "-", "--key", "k"], "[1]", "--key and --file are both given: lines have their own"),
        (["--no-wait", "--payload", "7"], "", "--no-wait is for tasks of an App: give a KIND or --file"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], given: str, sentence: str):
    """Exit 2, before anybody is asked."""
    done = CliRunner().invoke(app, ["submit", "--coordinator", "127.0.0.1:1", *arguments], input=given)
    (line,) = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (2, "")
    assert line.startswith(sentence)


def test_up_starts_a_worker_again_that_was_killed(folder: Path):
    """And says so; a second signal stops at once what a task holds up."""
    with up(folder, "--workers", "1", "--app", "work:app", "--quiet") as (process, address):
        (worker,) = [child for child in psutil.Process(process.pid).children() if "worker" in child.cmdline()]
        worker.kill()
        told = told_by(process)
        assert "worker w1 ended with SIGKILL: started again\n" in iter(told.readline, "")
        (folder / "napping").unlink(missing_ok=True)  # of another test
        words = [*ORCHESTRATOR, "submit", "nap", "--json", "[3600]", "--no-wait", "--coordinator", address]
        subprocess.run(words, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True, timeout=60)
        while not (folder / "napping").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        while not told.readline().startswith("stopping: "):
            pass
        process.send_signal(signal.SIGINT)
        assert "stopped at once" in told.read().splitlines()  # then a worker may say what it lost
        assert process.wait(30) == 130


def test_up_lets_a_worker_go_that_drains(folder: Path):
    """It is not started again, and the others go on."""
    with up(folder, "--workers", "2", "--app", "work:app", "--quiet") as (process, address):
        words = [*ORCHESTRATOR, "drain", "w1", "--coordinator", address]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        assert done.stdout == "worker w1 has left\n"
        assert "worker w1 has drained and left\n" in iter(told_by(process).readline, "")
        words = [*ORCHESTRATOR, "workers", "--json", "--coordinator", address]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        assert [worker["name"] for worker in json.loads(done.stdout)["workers"]] == ["w2"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_the_second_example_of_the_readme(tmp_path: Path):
    """In an empty folder: the module, the cluster, the client, and the command, as they stand there."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Tasks of your own") : text.index("## A whole scenario")]
    module, client = listings(section, "python")
    begin, submit = map(shlex.split, listings(section, ""))
    (tmp_path / "words.py").write_text(module)
    with up(tmp_path, *begin[2:]) as (process, address):
        (tmp_path / "client.py").write_text(client.replace("Client()", f"Client({address!r})"))
        commands = [[sys.executable, "client.py"], [*ORCHESTRATOR, *submit[1:], "--coordinator", address]]
        values, value = (
            subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True).stdout
            for words in commands
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert value == '"@app.task(execution_timeout_s=30)"\n'
    assert json.loads(value) in ast.literal_eval(values)

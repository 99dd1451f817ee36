"""Lines of the log: for a program an object each, with what it is about; for a person key=value at the end."""

from __future__ import annotations

import logging
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.logs import LogFormat, begin_logging
from orchestrator.cluster.client import Client
from tests.cluster.conftest import FAST, MakeCluster
from tests.cluster.contract.peers import wait_until
from tests.cluster.lines import lines

COORDINATOR = [sys.executable, "-m", "orchestrator", "coordinator", "--port", "0"]


def about(log: Path, event: str) -> dict[str, Any]:
    """The fields of the first line that says so, beside those that every line has."""
    line = next(line for line in lines(log) if event in line["event"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
    common = ("timestamp", "level", "logger", "event")
    return {key: value for key, value in line.items() if key not in common}


def test_lines_name_task_attempt_worker_and_term(make_cluster: MakeCluster, tmp_path: Path):
    """Where they are about one: a program finds all that the log says of it."""
    log = tmp_path / "log"
    cluster = make_cluster(1, policies=(*FAST, "policies.execution_timeout_s=0.2", "policies.retry.max_attempts=1"))
    with Client(cluster.address) as client:
        future = client.submit("600", kind="sleep")
        assert future.result(30).state.name == "FAILED"
    wait_until(lambda: "is cancelled" in log.read_text())
    assert about(log, "is cancelled") == {"task": future.task_id, "attempt": 1, "worker": "w1"}
    cluster.worker("w1").kill()
    wait_until(lambda: "dead detector" in log.read_text())
    assert about(log, "worker w1: dead detector") == {"worker": "w1"}
    term = about(log, "listening on")["term"]
    assert about(log, "worker w1: registered") == {"worker": "w1", "term": term}


def test_at_a_terminal_a_line_is_a_sentence_with_key_value():
    """In colour, unless NO_COLOR says otherwise."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1"}
    with subprocess.Popen(COORDINATOR, stderr=theirs, env=environment) as process:
        os.close(theirs)
        text = b""
        while b"nothing is kept" not in text:
            text += os.read(ours, 4096)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    os.close(ours)
    first, *_ = text.decode().splitlines()
    form = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[info\] listening on 127\.0\.0\.1:\d+ \[orchestrator\.coordinator\] term=\d+"
    )
    assert re.fullmatch(form, first)


@pytest.mark.parametrize("form", [LogFormat.text, LogFormat.json])
def test_whatever_is_logged_becomes_a_line(
    form: LogFormat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Lines of libraries too, with their exceptions; what a field holds, and what can't be encoded, breaks nothing."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as they are when a process begins
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    begin_logging(quiet=True, given=form)
    log = logging.getLogger("asyncio")
    log.info("not told")
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("a %s fault", "library's", extra={"task": ["odd \udc80"], "unknown": object()})
    told = capsys.readouterr().err
    assert "ValueError: no" in told
    assert "a library's fault" in told
    assert ("not told" in told, "unknown" in told, "odd" in told) == (False, False, True)
    assert len(told.splitlines()) == 1 or form is LogFormat.text


def test_a_stderr_that_takes_nothing_stops_no_coordinator():
    """The pipe's reader has gone: it logs into nowhere, and ends as it should."""
    gone, theirs = os.pipe()
    told, ready = os.pipe()
    command = [*COORDINATOR, "--ready-fd", str(ready)]
    with subprocess.Popen(command, stderr=theirs, pass_fds=[ready]) as process:
        for descriptor in (gone, theirs, ready):
            os.close(descriptor)
        assert os.read(told, 100).startswith(b"127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    os.close(told)


def test_a_workers_start_loads_no_rich():
    """structlog would, for what is not printed here: it takes longer than structlog itself."""
    code = (
        "import sys\nfrom orchestrator.cli.logs import LogFormat, begin_logging\nbegin_logging(False, LogFormat.auto)\n"
        "print([name for name in sys.modules if name.startswith('rich')])\nimport rich.console"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

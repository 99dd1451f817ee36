"""What can't be meant on a cluster's command line is refused at once: one sentence, exit 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli import addresses
from orchestrator.cli.cluster import app

ASKING = (["submit", "--payload", "7"], ["status", "--id", "x"], ["metrics"], ["cancel", "x"], ["worker"])
ADDRESSES = {
    "a negative port": ("localhost:-1", "a port is 1 to 65535"),
    "port zero": ("localhost:0", "a port is 1 to 65535"),
    "a port beyond the last": ("localhost:70000", "a port is 1 to 65535"),
    "a port that is a word": ("localhost:grpc", "a port is 1 to 65535"),
    "digits of another script": ("localhost:٣", "a port is 1 to 65535"),
    "no port after the colon": ("localhost:", "a port is 1 to 65535"),
    "a scheme": ("http://localhost:50051", "without a scheme"),
    "a socket's path": ("unix:/tmp/x", "a port is 1 to 65535"),
    "no host": (":50051", "an address is HOST:PORT"),
    "nothing": ("", "an address is HOST:PORT"),
    "a space": (" :50051", "an address is HOST:PORT"),
    "two colons": ("a:b:50051", "an address is HOST:PORT"),
    "half a bracket": ("[::1:50051", "an address is HOST:PORT"),
    "a newline": ("local\nhost:50051", "an address is HOST:PORT"),
    "an unknown host": ("no-such-host.invalid:50051", "the host 'no-such-host.invalid' is unknown"),
    "a label that is too long": ("x" * 70 + ":50051", "is unknown"),
}


def refusal(arguments: list[str]) -> str:
    """The only line of a command that exits with 2."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    (sentence,) = done.stderr.splitlines()
    assert not done.stdout
    return sentence


@pytest.mark.parametrize("command", ASKING, ids=lambda command: command[0])
@pytest.mark.parametrize("case", ADDRESSES)
def test_an_address_that_nobody_can_have_is_refused(command: list[str], case: str):
    """By every command that dials a coordinator."""
    given, reason = ADDRESSES[case]
    assert reason in refusal([*command, "--coordinator", given])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("localhost", "localhost:50051"),
        ("localhost:7", "localhost:7"),
        ("127.0.0.1", "127.0.0.1:50051"),
        ("::1", "[::1]:50051"),
        ("[::1]", "[::1]:50051"),
        ("[::1]:65535", "[::1]:65535"),
    ],
)
def test_an_address_without_a_port_means_the_usual_one(given: str, meant: str):
    """Of names and of both kinds of IP addresses."""
    assert addresses._address(given) == meant


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["coordinator", "--port", "-1"], "--port -1: a port is 0"),
        (["coordinator", "--port", "70000"], "--port 70000: a port is 0"),
        (["worker", "--port", "65536"], "--port 65536: a port is 0"),
        (["worker", "--capacity", "2000000"], "--capacity 2000000: a worker executes 1 to 10,000"),
        (["worker", "--capacity", "0"], "--capacity 0: "),
        (["worker", "--prefetch", "-5"], "--prefetch -5: a worker holds 0 to 1,000,000"),
        (["worker", "--prefetch", str(2**40)], "--prefetch 1099511627776: "),
        (["worker", "--id", "x", "--id", "y", "--id", "x"], "--id x is given 2 times"),
        (["worker", "--id", "a\nb"], r"--id 'a\nb': an id is 1 to 200 printable characters"),
        (["worker", "--id", "a\x1b[31m"], "printable"),
        (["worker", "--id", "\udcff"], "printable"),
        (["worker", "--id", ""], "--id '': an id is 1 to 200"),
        (["worker", "--id", "x" * 201], "an id is 1 to 200"),
        (["worker", "--drain-timeout", "nan"], "--drain-timeout nan: a time is a finite number"),
        (["worker", "--drain-timeout", "0"], "--drain-timeout 0: "),
        (["coordinator", "--call-timeout", "inf"], "--call-timeout inf: "),
        (["coordinator", "--call-timeout", "0.0009"], "--call-timeout 0.0009: no worker takes a time below 0.001 s"),
        (["coordinator", "detection.heartbeat_s=0.0001"], "detection.heartbeat_s 0.0001: no worker takes a time"),
        (["worker", "--beat-phase", "nan"], "--beat-phase nan: a phase is a finite number"),
        (["worker", "--beat-phase", "inf"], "--beat-phase inf: "),
        (["submit", "--payload", "7", "--timeout", "-1"], "--timeout -1: "),
        (["submit", "--payload", "\udcff"], "a task's payload can't be encoded"),
        (["submit", "--payload", "7", "--kind", "k" * 201], "a task's kind has at most 200"),
        (["status", "--id", "a\nb"], "printable"),
        (["cancel", "fine", "x" * 201], "printable"),
        (["coordinator", "--host", "no-such-host.invalid"], "the host 'no-such-host.invalid' is unknown"),
        (["worker", "--host", "http://here"], "a host is a name or an IP address"),
        (["worker", "--advertise", "here:50052"], "--advertise 'here:50052': a host is a name or an IP address"),
        (["worker", "--advertise", "http://here"], "--advertise "),
        (["coordinator", "--host", ""], "a host is a name or an IP address"),
    ],
    ids=lambda given: " ".join(given)[:30] if isinstance(given, list) else "",
)
def test_a_value_that_can_t_be_meant_is_refused(arguments: list[str], reason: str):
    """With its flag, what was given and what was expected."""
    assert reason in refusal(arguments)


def _numbers() -> Iterator[tuple[str, str, str]]:
    """Every option that takes a number, with numbers that nobody can mean."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for option in command.params:
            taken = option.type_descriptor.annotation
            if taken in (int, float, list[int], list[float]):
                given = ["1" + "0" * 23, "-1" + "0" * 23] + ["nan", "inf", "-inf"] * (taken not in (int, list[int]))
                yield from ((name, option.opts[0], number) for number in given)


@pytest.mark.parametrize(("command", "option", "number"), list(_numbers()))
def test_every_number_has_bounds(command: str, option: str, number: str):
    """Of every command, the hidden options too."""
    needed = {"submit": ["--payload", "7"], "status": ["--id", "x"], "cancel": ["x"]}.get(command, [])
    assert refusal([command, *needed, option, number]).startswith(f"{option} ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["coordinator", "--port", "abc"], "coordinator: Invalid value for '--port' / '-p': "),
        (["worker", "--executor", "x"], "worker: Invalid value for '--executor': "),
        (["submit", "--batch", "0"], "--batch 0: a batch has 1 to 1,000,000 tasks"),
        (["status"], "TASK is missing"),
        (["metrics", "--nope"], "metrics: No such option: --nope"),
        (["coordinatr"], "No such command 'coordinatr'."),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_wrong_usage_is_one_line(arguments: list[str], reason: str):
    """No box around it, however long it is."""
    script = [sys.executable, "-m", "orchestrator", *arguments]
    done = subprocess.run(script, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    (sentence,) = done.stderr.splitlines()
    assert reason in sentence
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "192.0.2.7"])
def test_nobody_listens_to_strangers_by_accident(host: str):
    """Beyond loopback only with --insecure; the sentence says what that means."""
    assert "could submit tasks and read results, without a password or encryption" in refusal(
        ["coordinator", "--host", host]
    )
    assert "could give it tasks to run" in refusal(["worker", "--host", host])
    assert addresses.listening(host, True, "") == ("[::]" if ":" in host else host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.7.7.7", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_consent(host: str):
    """By name and by number."""
    assert addresses.listening(host, False, "").strip("[]") == host.strip("[]")


def test_limits_are_within_reach():
    """The greatest values that are allowed pass."""
    assert addresses.whole("--capacity", 1, addresses.CAPACITY_MAX, "")(10_000) == 10_000
    assert addresses.seconds("--timeout")(1e-9) == 1e-9
    assert addresses._ids(["x" * 200, "ü"]) == ["x" * 200, "ü"]
    with pytest.raises(typer.Exit):
        addresses._ids(["x", "x"])

"""Standard streams and disks that take nothing, and SIGTERM: a sentence or silence, and what was done is kept."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.decision_record import DecisionRecord
from orchestrator.policies.settings import Policies
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cli.test_cli import SCENARIO, succeed

FULL = "cannot write to stdout: No space left on device\n"

COMMANDS = {
    "help": "--help",
    "help of a command": "simulate --help",
    "examples": "examples",
    "examples as JSON": "examples --json",
    "schema": "schema",
    "policies": "policies",
    "check": "check small.yaml --json",
    "simulate": "simulate small.yaml --no-plots",
    "simulate as JSON": "simulate small.yaml --no-plots --json",
    "sweep": "simulate small.yaml replications=2 --jobs 1 --no-plots",
    "compare": "compare saved again --no-plots",
    "compare as JSON": "compare saved again --no-plots --json",
    "chaos": "chaos --seeds 1 --jobs 1",
    "chaos as JSON": "chaos --seeds 1 --jobs 1 --json",
    "replay": "replay record",
}


KINDS = ("help of a command", "examples as JSON", "check", "simulate", "sweep")
"""One of each way of writing: by the library, as JSON, as lines, after a run, after runs in other processes."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands name."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "small.yaml").write_text(SCENARIO)
    succeed("simulate", folder / "small.yaml", "--no-plots", "--out", folder / "saved")
    shutil.copytree(folder / "saved", folder / "again")
    DecisionRecord(folder / "record", Policies(), 0).close()
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def begin(command: str, cwd: Path, **streams: Any) -> subprocess.Popen[str]:
    """In a process group of its own; both streams are read, if not said otherwise."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *command.split()],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        text=True,
        start_new_session=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


def run(
    command: str, cwd: Path, before: Callable[[], object] | None = None, **streams: int
) -> subprocess.CompletedProcess[str]:
    """`before`: done in the new process."""
    process = begin(command, cwd, preexec_fn=before, **streams)
    try:
        stdout, stderr = process.communicate(timeout=120)
    finally:
        kill_group(process.pid)
    for descriptor in streams.values():
        os.close(descriptor)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def unread_pipe() -> int:
    """What writes to it finds that its reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_device() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_stdout_ends_a_command(name: str, here: Path):
    """Exit 1 and a sentence."""
    full = run(COMMANDS[name], here, stdout=full_device())
    assert (full.returncode, full.stderr) == (1, FULL)


@pytest.mark.parametrize("name", KINDS)
def test_a_stdout_without_a_reader_ends_a_command(name: str, here: Path):
    """Exit 141 in silence; and where it is closed, it is as if nobody wanted to know."""
    unread = run(COMMANDS[name], here, stdout=unread_pipe())
    assert (unread.returncode, unread.stderr) == (141, "")
    closed = run(COMMANDS[name], here, before=lambda: os.close(1))
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")
    if name in ("simulate", "sweep"):
        assert (here / "out/small/latest/summary.json").is_file()


@pytest.mark.parametrize("name", ["help", "simulate", "sweep"])
def test_a_stderr_that_takes_nothing_disturbs_no_command(name: str, here: Path):
    """Closed, full, or without a reader: what is said there is lost, and nothing else."""
    command = COMMANDS[name].replace("small.yaml", "small.yaml workload.arrivals.rate_per_s=100")
    for lost in (
        run(command, here, before=lambda: os.close(2)),
        run(command, here, stderr=full_device()),
        run(command, here, stderr=unread_pipe()),
    ):
        assert lost.returncode == 0
        assert "warning" not in lost.stdout
        assert lost.stdout


def test_an_unbuffered_stdout_stays_so(here: Path):
    """Each line of it comes at once, and what it does not take is told as ever."""
    lines = [sys.executable, "-u", "-c", "from orchestrator.cli import streams; streams.guard(); print(1); input()"]
    process = subprocess.Popen(lines, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    process.communicate(b"\n")
    full = subprocess.run(lines, stdin=subprocess.DEVNULL, stdout=full_device(), stderr=subprocess.PIPE, text=True)
    assert (full.returncode, full.stderr) == (1, FULL)


def test_a_mistake_is_not_told_on_stdout_instead(here: Path):
    """Where stderr is closed, nothing stands for it."""
    done = run("simulate nothing.yaml --json", here, before=lambda: os.close(2))
    assert (done.returncode, done.stdout) == (2, "")


def test_a_file_is_not_opened_in_the_place_of_a_closed_stream(here: Path):
    """Its descriptor would be that of stdout, and what others write there would damage it."""

    def close_all() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    assert run("simulate small.yaml --no-plots", here, before=close_all).returncode == 0
    succeed("plot", here / "out/small/1", "--out", here / "pictures")


def test_commands_of_the_live_cluster_end_alike(tmp_path: Path):
    """A submitted task is executed, whether or not its id can be printed."""
    with LocalCluster(1, executor="inline", log=tmp_path / "log") as cluster:
        for command in ("metrics", "submit --kind sleep --payload 0", "submit --kind sleep --payload 0 --batch 3"):
            asked = f"{command} --coordinator {cluster.address}"
            full = run(asked, tmp_path, stdout=full_device())
            assert (full.returncode, full.stderr) == (1, FULL)
            unread = run(asked, tmp_path, stdout=unread_pipe())
            assert (unread.returncode, unread.stderr) == (141, "")


def test_a_disk_that_is_full_is_told_before_the_run(here: Path):
    """Exit 2: no result would fit."""
    done = run("simulate small.yaml", here, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cannot write to out/small: File too large\n"


def test_a_copy_that_does_not_fit_is_not_left_half_done(here: Path):
    """So that `init` can be called again."""
    done = run("init", here, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)))
    assert (done.returncode, done.stderr) == (1, "a file cannot be written: File too large\n")
    assert run("init", here).returncode == 0


def test_a_model_that_cannot_be_written_is_told_before_it_is_fitted(here: Path):
    """A folder in its place, or a file in the place of its folder."""
    for out, sentence in {
        "saved": "cannot write to saved: it is a folder, expected a file",
        "small.yaml/model.yaml": "cannot write to small.yaml: it is a file, expected a folder",
    }.items():
        done = run(f"calibrate nothing --out {out}", here)
        assert (done.returncode, done.stderr) == (2, f"{sentence}\n")


def test_a_disk_that_becomes_full_is_one_sentence(here: Path):
    """Exit 1. Where only pictures are missing, the results are there, and it says where."""
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (33_000, 33_000))  # noqa: E731
    tables = run("simulate small.yaml duration_s=500 --no-plots", here, before=limited)
    assert (tables.returncode, tables.stdout) == (1, "")
    assert tables.stderr == "a file cannot be written: File too large\n"
    pictures = run("simulate small.yaml", here, before=limited)
    assert (pictures.returncode, pictures.stdout) == (1, "")
    assert pictures.stderr.endswith("File too large; the results are in out/small/2, some of their pictures are not\n")
    assert len(pictures.stderr.splitlines()) == 1
    succeed("plot", here / "out/small/2", "--out", here / "pictures")


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_sigterm_keeps_the_finished_runs(kill: Callable[[int, int], None], here: Path):
    """As Ctrl-C does, whether it reaches the command alone or all its processes."""
    out = here / "out/small/1"
    process = begin("simulate small.yaml --replications 5000 --jobs 2", here)
    try:
        wait_for(lambda: any(out.glob("*/r*/summary.json")), process)
        kill(process.pid, signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)  # to the end of the last process that holds its pipes
    finally:
        kill_group(process.pid)
    kept = len(list(out.glob("*/r*/summary.json")))
    assert (process.returncode, stdout) == (143, "")
    assert stderr.splitlines()[-1] == f"ended by SIGTERM: {kept:,} of 5,000 runs kept in out/small/1"


def test_sigterm_keeps_a_live_run_until_then(here: Path):
    """Its processes end in order, and its tables hold what had happened."""
    process = begin("live small.yaml workload.task=sleep --no-plots", here)
    try:
        record = here / "out/small/1/decisions.jsonl"
        wait_for(lambda: record.is_file() and '"result"' in record.read_text(), process)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        kill_group(process.pid)
    assert (process.returncode, stdout) == (143, "")
    assert stderr.splitlines()[-1] == "ended by SIGTERM: the run until then kept in out/small/1"
    succeed("plot", here / "out/small/1", "--out", here / "pictures")


def test_a_sweep_one_of_whose_processes_is_killed_is_one_sentence(here: Path):
    """Exit 1; the runs that had ended stay."""
    out = here / "out/small/1"
    process = begin("simulate small.yaml --replications 5000 --jobs 2 --no-plots", here)
    try:
        wait_for(lambda: any(out.glob("*/r*/summary.json")), process)
        victim = next(pid for pid in children(process.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text())
        os.kill(int(victim), signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        kill_group(process.pid)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.splitlines()[-1] == (
        "a process that this command had started was killed; runs that ended before are in their folders"
    )
    succeed("plot", next(out.glob("*/r*/summary.json")).parent, "--out", here / "pictures")


@pytest.mark.parametrize("options", ["", "--json"])
def test_sigterm_ends_chaos_with_what_was_found(options: str, here: Path):
    """How many seeds had been run; and no folder is left where nothing is in it."""
    process = begin(f"chaos small.yaml --seeds 100000 --jobs 2 {options}", here)
    try:
        wait_for(lambda: len(children(process.pid)) >= 3, process)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        kill_group(process.pid)
    assert (process.returncode, stdout) == (143, "")
    assert re.fullmatch(r"ended by SIGTERM: [\d,]+ of 100,000 seeds run, 0 seeds in violation\n", stderr)
    assert not (here / "out/chaos").exists()


def test_processes_end_with_a_command_that_is_killed(here: Path):
    """They hold its pipes, which end when the last of them does."""
    process = begin("simulate small.yaml duration_s=1000000 --replications 4 --jobs 2 --no-plots --yes", here)
    try:
        wait_for(lambda: len(children(process.pid)) >= 3, process)  # one of them tracks resources
        process.kill()
        process.communicate(timeout=60)
    finally:
        kill_group(process.pid)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"ended early: {process.communicate()}")


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)

"""A file without an end, a pipe that nobody writes to, a folder, a huge file: each is a sentence, wherever a file is
wanted."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.cluster.decision_record import DecisionRecord, Unwritable
from orchestrator.policies.settings import Policies

HUGE = 10 << 30


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def sparse(path: Path, size: int = HUGE, beginning: bytes = b"") -> Path:
    """A file that takes no room on the disk, with zeros behind its beginning."""
    path.write_bytes(beginning)
    os.truncate(path, size)
    return path


ODD: dict[str, Callable[[Path], Path]] = {
    "zeros": lambda path: Path("/dev/zero"),
    "chance": lambda path: Path("/dev/urandom"),
    "pipe": pipe,
    "huge": sparse,
}
YAML_SAYS = {
    "zeros": "is a device or a pipe, expected a YAML file",
    "chance": "is a device or a pipe, expected a YAML file",
    "pipe": "is a device or a pipe, expected a YAML file",
    "huge": "has more than 16 MiB, expected a YAML file",
}


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """So that whoever reads on and on has a MemoryError, and not the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (2 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def told(*arguments: object) -> str:
    """The one sentence of a command that ends with 2."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    return sentence


@pytest.mark.parametrize("kind", ODD)
def test_a_scenario_is_a_regular_file(kind: str, tmp_path: Path):
    """So is the model that it names."""
    odd = ODD[kind](tmp_path / kind)
    assert told("check", odd) == f"{odd}:1:1: scenario: {YAML_SAYS[kind]}"


def test_a_model_is_not_huge(tmp_path: Path):
    """The sentence says that it is the model that is wrong."""
    odd = sparse(tmp_path / "model.yaml")
    assert told("check", "scenarios/reference.yaml", f"model={odd}") == f"{odd}:1:1: model: {YAML_SAYS['huge']}"


@pytest.mark.parametrize("kind", [*ODD, "folder", "none"])
def test_policies_are_a_regular_file(kind: str, tmp_path: Path):
    """Called policies, not a scenario, also where there is no such file."""
    makes = {"folder": lambda path: tmp_path, "none": lambda path: path, **ODD}
    says = {
        "folder": "cannot be read (Is a directory), expected a YAML file",
        "none": "no such file, expected a YAML file",
        **YAML_SAYS,
    }
    odd = makes[kind](tmp_path / kind)
    assert told("coordinator", "--policies", odd) == f"{odd}:1:1: policies: {says[kind]}"


@pytest.mark.parametrize("kind", ODD)
def test_a_decision_record_is_a_regular_file(kind: str, tmp_path: Path):
    """Of a huge file no more than the beginning is read."""
    odd = ODD[kind](tmp_path / kind)
    why = "its first line has no policies" if kind == "huge" else "it is no regular file"
    assert told("replay", odd) == f"{odd} is not a decision record: {why}"


def test_a_line_of_a_decision_record_has_an_end(tmp_path: Path):
    """A record may be as large as it likes, a line of it may not."""
    odd = sparse(tmp_path / "decisions.jsonl", beginning=b'{"policies":')
    assert told("replay", odd) == f"{odd} is not a decision record: a line has more than 256 MiB"


def test_nobody_writes_a_decision_record_into_a_pipe(tmp_path: Path):
    """Its reader could stop the coordinator by reading no more."""
    with pytest.raises(Unwritable, match="it is a pipe"):
        DecisionRecord(pipe(tmp_path / "pipe"), Policies(), 0)

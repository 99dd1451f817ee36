"""A policy of the user's own that is wrong ends a command with exit code 2 and a sentence, never with a traceback."""

import re
import sys
from pathlib import Path

import pytest

from tests.cli.test_cli import SCENARIO, fail

POLICY = """\
from orchestrator.policies.routing import Random


class Breaking(Random):
    def __init__(self, rng):
        raise ZeroDivisionError("no luck today")


class Late(Random):
    calls = 0

    def choose(self, task):
        self.calls += 1
        if self.calls == 100:
            raise ValueError("enough")
        return super().choose(task)


class Stranger(Random):
    def choose(self, task):
        return "w9"


class Empty:
    pass
"""

SENTENCES = {
    "Breaking": "raised in __init__: ZeroDivisionError: no luck today",
    "Late": "raised in choose: ValueError: enough",
    "Stranger": "broke its protocol: choose gave 'w9', not a worker",
}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module with policies, which stands beside the scenario."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = "policies_of_a_user_" + re.sub(r"\W", "_", request.node.name)
    (tmp_path / f"{name}.py").write_text(POLICY)
    return name


def scenario(folder: Path, kind: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(f"{SCENARIO}policies:\n  routing: {{kind: '{kind}'}}\n")
    return path


@pytest.mark.parametrize("command", ["check", "simulate"])
def test_a_class_without_its_protocol_is_told_with_its_place(command: str, module: str, tmp_path: Path):
    """One line with file, line, column, key and the methods that are missing."""
    path = scenario(tmp_path, f"{module}:Empty")
    [line] = fail(command, path).splitlines()
    assert line.startswith(f"{path}:9:19: policies.routing.kind: {module}:Empty lacks joined(worker), ")
    assert line.endswith("expected a class with every method of a routing policy")


@pytest.mark.parametrize("name", SENTENCES)
def test_a_policy_that_fails_ends_a_run_with_its_sentence(module: str, tmp_path: Path, name: str):
    """Whether it raises when it is built, raises amid the run, or answers nonsense."""
    path = scenario(tmp_path, f"{module}:{name}")
    told = fail("simulate", path, "--out", tmp_path / "out", "--no-plots")
    assert told == f"the routing policy {module}:{name} {SENTENCES[name]}\n"


def test_a_policy_that_fails_in_a_process_of_its_own_ends_the_command_alike(module: str, tmp_path: Path):
    """A pool of processes passes the sentence on."""
    path = scenario(tmp_path, f"{module}:Late")
    told = fail("simulate", path, "replications=2", "--jobs", "2", "--out", tmp_path / "out", "--no-plots")
    assert told == f"the routing policy {module}:Late {SENTENCES['Late']}\n"

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


class Empty:
    pass
"""


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


@pytest.mark.parametrize("further", [[], ["replications=2", "--jobs", "2"]], ids=["one run", "a pool of processes"])
def test_a_policy_that_raises_ends_a_run_with_its_sentence(module: str, tmp_path: Path, further: list[str]):
    """Also where the run has a process of its own."""
    path = scenario(tmp_path, f"{module}:Breaking")
    told = fail("simulate", path, "--out", tmp_path / "out", "--no-plots", *further)
    assert told == f"the routing policy {module}:Breaking raised in __init__: ZeroDivisionError: no luck today\n"

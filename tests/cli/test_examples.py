"""The scenarios that come with the package: listed, copied, and never over a file of the user's."""

import json
from pathlib import Path

import pytest

from orchestrator.cli.examples import FIRST, shipped
from orchestrator.scenario.schema import Scenario
from tests.cli.test_cli import fail, succeed

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_scenario_is_shipped_as_it_is():
    """The package's scenarios are those of the top-level directory, to the byte."""
    assert {name: file.read_bytes() for name, file in shipped().items()} == {
        path.stem: path.read_bytes() for path in SCENARIOS.glob("*.yaml")
    }


def test_examples_has_a_line_with_a_question_for_each_scenario():
    """Each scenario's first comment asks something, or names it, in one line."""
    lines = succeed("examples").stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in SCENARIOS.glob("*.yaml"))
    assert all("?" in line and not line.endswith(":") for line in lines)


def test_examples_prints_json():
    """A program gets the same, by name."""
    questions = json.loads(succeed("examples", "--json").stdout)
    assert questions[FIRST].startswith("One of four workers dies")


def test_init_copies_a_good_first_scenario(here: Path):
    """Without a name; what it wrote loads."""
    assert succeed("init").stdout == f"wrote {FIRST}.yaml; run it with: orchestrator simulate {FIRST}.yaml\n"
    assert [path.name for path in here.iterdir()] == [f"{FIRST}.yaml"]
    assert Scenario.load(here / f"{FIRST}.yaml").name == FIRST


@pytest.mark.parametrize("name", ["partition", "partition.yaml"])
def test_init_copies_the_scenario_of_that_name(here: Path, name: str):
    """With or without the ending."""
    succeed("init", name)
    assert (here / "partition.yaml").read_bytes() == (SCENARIOS / "partition.yaml").read_bytes()


def test_init_copies_a_trace_with_its_scenario(here: Path):
    """What it wrote loads, from where it is."""
    assert "trace-priorities.yaml and trace-priorities.csv" in succeed("init", "trace-priorities").stdout
    assert len(Scenario.load(here / "trace-priorities.yaml").workload.arrivals.data().arrival_s) == 4000  # type: ignore[union-attr]


def test_init_replaces_no_file(here: Path):
    """A file of that name stays as it was."""
    (here / f"{FIRST}.yaml").write_text("mine")
    assert fail("init") == f"{FIRST}.yaml exists already, and init replaces no file\n"
    assert (here / f"{FIRST}.yaml").read_text() == "mine"


def test_init_refuses_a_name_that_there_is_not(here: Path):
    """And says which one was probably meant."""
    assert fail("init", "partitoin").startswith(
        "there is no example partitoin, did you mean partition? expected one of"
    )
    assert list(here.iterdir()) == []

"""The simulated world as a script, a notebook or a prompt uses it: without a folder, and without ceremony."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import sim
from orchestrator.scenario.schema import Scenario
from tests.test_house import ROOT

SHORT = {"duration_s": 2, "warmup_s": 0, "faults": [], "sweep.seed": [1, 2]}
CRASH = ROOT / "scenarios/worker-crash.yaml"

SCRIPT = f"""\
import sim
from orchestrator import Scenario
print("begun")
swept = sim.sweep(Scenario.load({str(CRASH)!r}, {SHORT!r}), jobs=2)
print(swept, sum(len(run.tasks) > 100 for run in swept.runs))
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def python(*arguments: str, cwd: Path, script: str = "") -> subprocess.CompletedProcess[str]:
    """An interpreter that finds the packages of this tree, with a script as its standard input."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("way", ["a file", "a module", "standard input"])
def test_a_plain_script_sweeps_in_several_processes(way: str, temporary: Path, tmp_path: Path):
    """It needs no `if __name__ == "__main__"`, is run once, and leaves nothing behind."""
    (tmp_path / "plain.py").write_text(SCRIPT)
    arguments = {"a file": ["plain.py"], "a module": ["-m", "plain"], "standard input": ["-"]}[way]
    done = python(*arguments, cwd=tmp_path, script=SCRIPT)
    assert (done.stdout, done.stderr) == ("begun\n<Sweep worker-crash (sim): 2 cells, 2 runs> 2\n", "")
    assert not list(temporary.glob("orchestrator-*"))


def test_tables_without_a_folder_live_as_long_as_a_run_is_used(temporary: Path):
    """One run keeps them when the sweep is gone; with the last run they are removed."""
    swept = sim.sweep(Scenario.load(CRASH, SHORT))
    (run, _) = swept.runs
    del swept
    gc.collect()
    assert len(run.tasks) == run.summary["tasks"]["submitted"]
    assert len(list(temporary.iterdir())) == 1
    del run, _
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_sweep_that_fails_leaves_no_folder(temporary: Path):
    """What was begun is removed with the error."""

    def fail(done: float, run: str = "") -> None:
        raise RuntimeError("enough")

    try:
        sim.sweep(Scenario.load(CRASH, SHORT), progress=fail)
    except RuntimeError as error:
        assert str(error) == "enough"  # noqa: PT017 - with pytest.raises the traceback would keep the folder
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("function", [sim.run, sim.heartbeats])
def test_one_run_of_a_sweep_is_refused(function):
    """One sentence says what is swept, and what runs it."""
    told = r"^worker-crash sweeps seed, expected a scenario for one run: sim\.sweep runs all of its 2 cells, and"
    with pytest.raises(ValueError, match=told):
        function(Scenario.load(CRASH, SHORT))


def test_what_the_page_on_python_shows_runs(tmp_path: Path):
    """Its blocks, one after the other, are a plain script without complaints."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    shown = ["print(list(swept), swept, run, calmer)\n"]
    done = python("-", cwd=tmp_path, script="".join([*blocks, *shown]))
    assert done.stderr == ""
    scenarios, results = done.stdout.splitlines()
    assert scenarios == " ".join(["<Scenario worker-crash: 4 workers, 30 s>"] * 2)
    assert results.startswith(
        "['timeout_s=2.5', 'timeout_s=5'] <Sweep worker-crash (sim): 2 cells, 4 runs> <Run worker"
    )
    assert results.endswith("<Comparison worker-crash: crash against calm>")

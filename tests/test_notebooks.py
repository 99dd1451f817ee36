"""The notebooks run, and what they tell holds: they assert it themselves, cell by cell."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode

from notebooks.execute import FOLDER, SCRIPTS, executed

story = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def committed(script: Path) -> NotebookNode:
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def inputs(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook: NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def test_every_notebook_has_its_script():
    """All stories are there, and no notebook that nobody runs."""
    assert [script.stem for script in SCRIPTS] == [
        "01-first-latency-curve",
        "02-choosing-a-heartbeat-timeout",
        "03-a-racks-loss-which-timeout",
        "04-does-the-simulator-tell-the-truth",
    ]
    assert sorted(FOLDER.glob("*.ipynb")) == [script.with_suffix(".ipynb") for script in SCRIPTS]


@story
def test_both_halves_of_a_notebook_agree(script: Path):
    """The script that people edit and the notebook that people read have the same cells."""
    assert inputs(jupytext.read(script)) == inputs(committed(script))


@story
def test_a_committed_notebook_shows_what_it_made(script: Path):
    """Who reads a notebook on the web sees the outputs of one run from top to bottom, without complaints."""
    notebook = committed(script)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output.get("name", output.output_type) for output in outputs(notebook)}
    assert kinds == {"stdout", "display_data"}


@story
def test_a_notebook_runs_and_its_claims_hold(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every cell runs in a fresh kernel, its assertions included, and draws what was committed."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    assert pictures(executed(script)) == pictures(committed(script)) > 2

"""orchestrator explain-task: the life of one task, and why it went where it went."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.terminal import Refusal, duration, explained, print_json, say, terminal_width

if TYPE_CHECKING:
    from orchestrator.analysis.choices import Choice
    from orchestrator.analysis.task_lives import Life
    from orchestrator.results.folders import StoredRun

app = typer.Typer()

AGAIN = "choices: the run was simulated again up to there, with the same result"
RECORDED = "choices: its decision record was decided again, with the same result"


@app.command(epilog=examples_of("simulate worker-crash.yaml --out out/crash", "explain-task out/crash slowest"))
def explain_task(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run, or of a cell with one.")],
    task: Annotated[str, typer.Argument(metavar="TASK", help="Its number, or slowest, slowest:3, first-failed.")],
    as_json: AsJson = False,
) -> None:
    """Tell the life of one task: who could have taken it, who did and why, and what became of each attempt."""
    with explained():
        from orchestrator.analysis import task_lives

        run = single_run(folder)
        try:
            number = task_lives.find(run, task)
        except task_lives.UnknownTask as error:
            raise Refusal(f"{folder}: {error}") from None
        choices, source = choices_of(run, number)
        found = task_lives.life(run, number, choices)
        if as_json:
            print_json(found.summary() | {"choices_from": source})
        else:
            print_life(found, source)


def single_run(folder: Path) -> StoredRun:
    from orchestrator.results import folders
    from orchestrator.results.folders import StoredRun
    from orchestrator.results.runs import Sweep

    result = folders.load(folder)
    if isinstance(result, Sweep):
        runs = [run for run in result.runs if isinstance(run, StoredRun)]
        if len(runs) == 1:
            return runs[0]
        raise Refusal(f"{folder} holds {len(runs):,} runs, expected one, such as {runs[0].folder}")
    assert isinstance(result, StoredRun)
    return result


def choices_of(run: StoredRun, task: int) -> tuple[Sequence[Choice], str]:
    """The choices of a worker for each attempt of a task, and a sentence on where they come from."""
    tables = run.tables
    rows = [row for row, number in enumerate(tables.attempts.column("task").to_pylist()) if number == task]
    names = tables.attempts.column("worker").to_pylist()
    had = [(tables.attempts.column("attempt")[row].as_py(), names[row]) for row in rows]
    found, source, why = _decided_again(run, task)
    if [(one.attempt, one.worker) for one in found] == had:
        return found, source
    from orchestrator.analysis.choices import reconstructed

    workers = run.scenario.worker_names()
    return [reconstructed(tables, workers, row) for row in rows], f"loads: counted in attempts.parquet, for {why}"


def _decided_again(run: StoredRun, task: int) -> tuple[Sequence[Choice], str, str]:
    """The choices, where they come from, and what is to be said if they are not those of the tables."""
    from orchestrator.results.folders import RunFolderError
    from orchestrator.scenario.datafiles import DataError
    from orchestrator.scenario.loading import ScenarioError

    sys.path.extend({str(Path.cwd())}.difference(sys.path))  # for policies of the user's own
    try:
        if run.summary["world"] == "sim":
            from sim.choices import choices as simulated

            replication = re.fullmatch(r"r(\d+)", run.folder.resolve().name)
            found = simulated(run.scenario, task, int(replication[1]) if replication else 0)
            return found, AGAIN, "simulating it again gives other attempts: it is of another version"
        from orchestrator.rehearsal.choices import choices as recorded

        return recorded(run.folder, task), RECORDED, "its decision record decides otherwise"
    except FileNotFoundError as error:
        return [], "", f"{error.filename} is missing"
    except (OSError, ValueError, ScenarioError, DataError, RunFolderError) as error:
        return [], "", str(error).partition("\n")[0]


def print_life(found: Life, source: str) -> None:
    say(found.title)
    say(f"arrived {duration(found.arrival_s)} after the start of the run; times below count from its arrival", "")
    times = [f"+{duration(step.after_s)}" for step in found.steps]
    margin = max(map(len, times)) + 2
    for time, step in zip(times, found.steps, strict=True):
        lines = textwrap.wrap(step.what, max(terminal_width() - margin, 20), break_long_words=False)
        print(f"{time:>{margin - 2}}  {f'{chr(10)}{chr(32) * margin}'.join(lines)}")
    say("", source)

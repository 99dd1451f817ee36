"""What a command does before a run and after it: load a scenario, find a folder for its results, name the pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.terminal import Refusal, complain

if TYPE_CHECKING:
    from orchestrator.results.runs import Run, Sweep
    from orchestrator.scenario.schema import Cell, Scenario


SMALLEST_RESULT = 32 << 10
"""Bytes that the tables of a run take at least: a disk without room for them is full before the run."""


def load(
    path: Path, overrides: Iterable[str] | None, further: Callable[[Scenario], list[str]] = lambda _: []
) -> tuple[Scenario, list[Cell]]:
    """The scenario and its cells; warnings, and `further` ones of each cell, go to stderr, with the cell that they
    concern if it is not every one."""
    from orchestrator.scenario.schema import Scenario

    scenario = Scenario.load(path, list(overrides or ()))
    cells = scenario.cells()
    concerned: dict[str, list[str]] = {}
    for cell in cells:
        for warning in [*cell.scenario.warnings(), *further(cell.scenario)]:
            concerned.setdefault(warning, []).append(cell.name)
    for warning, names in concerned.items():
        complain([f"warning: {warning}" if len(names) == len(cells) else f"warning: {', '.join(names)}: {warning}"])
    return scenario, cells


def live_warnings(path: Path) -> Callable[[Scenario], list[str]]:
    """What a live run of a scenario leaves out; ScenarioError for what it can't do."""
    from orchestrator.rehearsal import runs as world

    return partial(world.warn, file=str(path))


def result_folder(scenario: Scenario, out: Path | None) -> Path:
    """Where the results may go, known before a long run rather than after it."""
    from orchestrator.results import folders

    folder = out or Path("out") / scenario.name
    require_writable(folder)
    folders.require_ours(folder)
    return folder


def require_writable(folder: Path) -> None:
    """Better known before a long run than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(SMALLEST_RESULT))
    except FileExistsError:
        raise Refusal(f"cannot write to {folder}: it is a file, expected a folder") from None
    except OSError as error:
        raise Refusal(f"cannot write to {folder}: {error.strerror}") from None


def draw_into(folder: Path, results: Any) -> None:
    """Whatever keeps the pictures from being drawn, it says that the results are there."""
    from orchestrator.pictures import draw

    kept = f"the results are in {folder}, some of their pictures are not"
    try:
        draw(results, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(kept) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, f"{reason}; {kept}", error.filename or "a picture") from None


def labels(folders: Sequence[str | Path]) -> list[str]:
    """As much of the end of each path as tells it from the others, and fits into a legend."""
    paths = [Path(folder).resolve().parts for folder in folders]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return [name if len(name) <= 40 else f"...{name[-37:]}" for name in names]


def is_result(path: Path) -> bool:
    """Whether it names a folder, or a cell in one, rather than a scenario."""
    return path.is_dir() or _cell_of(str(path)) is not None


def found_results(names: Sequence[str]) -> dict[str, Run | Sweep]:
    """At least two results by what tells their names apart: folders, and cells as `DIR:CELL` or `DIR/CELL`."""
    from orchestrator.results import folders

    if len(names) < 2:
        raise Refusal(f"{names[0]} is a folder: compare needs one more, or a cell as DIR:CELL")
    cells = [_cell_of(name) for name in names]
    called = labels(
        [Path(name) if cell is None else cell[0] / cell[1] for name, cell in zip(names, cells, strict=True)]
    )
    if len(set(called)) < len(called):
        raise Refusal(f"one folder is named twice: {', '.join(names)}")
    return {
        label: folders.load(name) if cell is None else folders.load_cell(*cell)
        for label, name, cell in zip(called, names, cells, strict=True)
    }


def _cell_of(name: str) -> tuple[Path, str] | None:
    """The folder of a sweep and the name of a cell, if that is what it names."""
    folder, colon, cell = name.rpartition(":")
    if colon and Path(folder).is_dir():
        return Path(folder), cell
    path = Path(name)
    within = path.is_dir() and not (path / "summary.json").exists() and (path.parent / "summary.json").is_file()
    return (path.parent, path.name) if within else None


def print_pictures(folder: Path) -> None:
    for picture in sorted(folder.glob("*.png")):
        print(f"  {picture}")

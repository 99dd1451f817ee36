"""What a command does before a run and after it: load a scenario, find a folder for its results, name the pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.terminal import Refusal, complain, print_json

if TYPE_CHECKING:
    from orchestrator.results.precision import Precision
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
            concerned.setdefault(warning, []).append(cell.title)
    for warning, names in concerned.items():
        complain([f"warning: {warning}" if len(names) == len(cells) else f"warning: {', '.join(names)}: {warning}"])
    return scenario, cells


def live_warnings(path: Path) -> Callable[[Scenario], list[str]]:
    """What a live run of a scenario leaves out; ScenarioError for what it can't do."""
    from orchestrator.rehearsal import runs as world

    return partial(world.warn, file=str(path))


@dataclass(frozen=True)
class Use:
    """How the folder of the results is used, and how many replications it gets; see `results.sweeps.Plan`."""

    force: bool = False
    resume: bool = False
    precision: Precision | None = None


def result_folder(name: str, out: Path | None, use: Use = Use()) -> Path:
    """Where the results go, known before a long run rather than after it: `out`, or a new out/NAME/1, 2, ..."""
    from orchestrator.results import folders, manifests

    parent = Path("out") / name
    if use.resume:
        folder = out or manifests.latest(parent)
        if folder is None or not folder.is_dir() or not any(folder.iterdir()):
            raise Refusal(f"{folder or parent / manifests.LATEST} holds nothing to resume")
        require_writable(folder)
        return folder
    if out is None:
        require_writable(parent)
        return manifests.numbered(parent)
    require_writable(out)
    folders.require_free(out, use.force)
    return out


def renew(folder: Path, inputs: Sequence[Path] = ()) -> None:
    """Remove what earlier runs left there, before something else is written; none of the inputs, which it may hold."""
    from orchestrator.results.manifests import Manifest

    whole = folder.resolve()
    for path in inputs:
        if whole == path.resolve() or whole in path.resolve().parents:
            raise Refusal(f"{folder} holds {path}, which is an input: choose another folder")
    Manifest.of(folder).remove()


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


def pictures(folder: Path) -> list[Path]:
    """Those that were drawn there, and no others."""
    from orchestrator.results.manifests import Manifest

    names = sorted(name for name in Manifest.of(folder).files if name.endswith(".png"))
    return [folder / name for name in names if (folder / name).is_file()]


def tell_results(folder: Path, told: Any, show: Callable[[], None], as_json: bool, quiet: bool) -> None:
    """The end of a command: what was found as JSON; or where it is; or what `show` prints, and then where it is."""
    if as_json:
        print_json(told)
    elif quiet:
        print(folder)
    else:
        show()
        print(f"\nresults in {folder}")
        print_pictures(folder)


def print_pictures(folder: Path) -> None:
    for picture in pictures(folder):
        print(f"  {picture}")

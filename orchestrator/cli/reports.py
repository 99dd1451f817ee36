"""orchestrator report: one HTML page on a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import AsJson, Quiet, examples_of
from orchestrator.cli.comparing import found_results, of_two_worlds
from orchestrator.cli.preparing import require_writable
from orchestrator.cli.terminal import Refusal, explained, print_json

if TYPE_CHECKING:
    from orchestrator.analysis.answers import Answer
    from orchestrator.analysis.comparison import Comparison
    from orchestrator.pictures.report import Told
    from orchestrator.results.runs import Run, Sweep

app = typer.Typer()

WORLDS = ("sim", "live")


@app.command(epilog=examples_of("simulate worker-crash.yaml --out out/crash", "report out/crash"))
def report(
    paths: Annotated[
        list[str], typer.Argument(metavar="DIR...", help="A run, a sweep, a comparison of worlds; or several results.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page; report.html in the first DIR if not given.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write one page that needs no network: question, scenario, answer, charts to hover and zoom, the slowest tasks."""
    with explained():
        results = results_in(paths)
        file = out or Path(paths[0]) / "report.html"
        require_replaceable(file)
        from orchestrator.pictures.report import page
        from orchestrator.results import manifests

        answer, comparison = found_in(results)
        told = None if answer is None else told_of(answer)
        text = page(results, told, comparison)
        if out is None:
            with manifests.writing(file.parent, [file.name]):
                manifests.write_whole(file, text)
        else:
            file.write_text(text, encoding="utf-8")
        if as_json:
            print_json({"report": str(file)})
        else:
            print(file if quiet else f"report in {file}")


def results_in(paths: list[str]) -> dict[str, Run | Sweep]:
    """The results in these folders, by what they are called; a comparison of worlds holds two."""
    from orchestrator.results import folders

    if len(paths) > 1:
        return found_results(paths)
    folder = Path(paths[0])
    below = [folder / world for world in WORLDS]
    if not (folder / "summary.json").exists() and all((one / "summary.json").is_file() for one in below):
        return {world: folders.load(one) for world, one in zip(WORLDS, below, strict=True)}
    if (folder / "comparison.json").is_file() and not (folder / "summary.json").exists():
        raise Refusal(f"{folder} holds a comparison without its results: name the folders that it compared")
    return {folder.resolve().name: folders.load(folder)}


def found_in(results: dict[str, Run | Sweep]) -> tuple[Answer | None, Comparison | None]:
    """The answer of a sweep, or of several results of one world; the comparison of two worlds."""
    from orchestrator.analysis import answers, comparison
    from orchestrator.results.runs import Sweep

    every = list(results.values())
    if len(every) == 1:
        return (answers.answer(every[0]) if isinstance(every[0], Sweep) else None), None
    if not of_two_worlds(results):
        return answers.between(list(results.items())), None
    if len(every) != len(WORLDS):
        raise Refusal(f"{len(every)} results of different worlds, expected one of each, or all of one")
    return None, comparison.compare(every[0], every[1])


def told_of(answer: Answer) -> Told:
    from orchestrator.analysis.answer_tables import meanings_in, table_of
    from orchestrator.pictures.report import Told

    table = table_of(answer.groups, answer.runs)
    tables = [] if table is None else [table]
    return Told(answer.question, answer.sentences, answer.assumptions, tables, meanings_in(answer.groups))


def require_replaceable(file: Path) -> None:
    """Nothing is replaced but a report."""
    from orchestrator.pictures.report import MARK

    require_writable(file.parent)
    if file.is_dir():
        raise Refusal(f"cannot write to {file}: it is a folder, expected a file")
    if file.exists():
        with file.open("rb") as there:
            if MARK.encode() not in there.read(200):
                raise Refusal(f"{file} is no report, and report replaces no other file: choose another with --out")

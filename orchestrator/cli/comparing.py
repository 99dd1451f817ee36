"""Commands on results that are there already: compare and plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.answers import print_answer
from orchestrator.cli.arguments import AsJson, Force, MaxError, Plots, Quiet, examples_of
from orchestrator.cli.preparing import (
    Use,
    draw_into,
    labels,
    pictures,
    print_pictures,
    renew,
    result_folder,
    tell_results,
)
from orchestrator.cli.terminal import Refusal, complain, count, explained, print_json
from orchestrator.cli.views import print_comparison

if TYPE_CHECKING:
    from orchestrator.analysis.comparison import Comparison
    from orchestrator.results.runs import Run, Sweep

app = typer.Typer()


@app.command(
    epilog=examples_of(
        "simulate rack-timeout.yaml --out out/rack", "compare out/rack:timeout_s=10 out/rack:timeout_s=30"
    )
)
def compare(
    what: Annotated[
        Path, typer.Argument(metavar="DIR", help="The baseline: a folder of results, or a cell of a sweep as DIR:CELL.")
    ],
    further: Annotated[
        list[str] | None,
        typer.Argument(metavar="DIR", help="Other folders or cells, which are compared with the first."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the results go; out/NAME-compared/1, 2, ... if not given.")
    ] = None,
    force: Force = False,
    max_error: MaxError = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    plots: Plots = True,
) -> None:
    """Say what folders or cells have against the first one. `fidelity` runs a scenario in both worlds."""
    with explained(), _with_the_way_to_name_cells():
        if not is_result(what):
            raise Refusal(f"{what} is no folder of results; of a scenario, fidelity compares the two worlds")
        names = [str(what), *(further or [])]
        results, use = found_results(names), Use(force)
        if max_error is None and not of_two_worlds(results):
            tell_between(results, names, out, use, as_json, quiet, plots)
            return
        found = errors_between(results)
        folder = folder_for(results, names, out, use)
        found.save(folder)
        if plots:
            draw_into(folder, found)
        told = found.summary()
        tell_results(folder, told, lambda: print_comparison(told), as_json, quiet)
    if max_error is not None and (miss := found.miss(max_error)):
        complain([miss])
        raise typer.Exit(1)


@app.command(epilog=examples_of("simulate worker-crash.yaml --out out/crash", "plot out/crash"))
def plot(
    paths: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs or sweeps.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the pictures go; out/NAME-plot/1, 2, ... if not given; of several, out/overlay."
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw saved results again; two or more of them over one another."""
    with explained():
        from orchestrator.pictures import draw
        from orchestrator.results import folders
        from orchestrator.results.manifests import Manifest

        results = {label: folders.load(folder) for label, folder in zip(labels(paths), paths, strict=True)}
        first = next(iter(results.values()))
        target = result_folder(f"{first.summary['scenario']}-plot" if len(results) == 1 else "overlay", out, Use(force))
        Manifest.of(target).remove_pictures()
        draw(first if len(results) == 1 else results, target)
        if as_json:
            print_json({"pictures": [str(picture) for picture in pictures(target)]})
        elif quiet:
            print(target)
        else:
            print_pictures(target)


@contextmanager
def _with_the_way_to_name_cells() -> Iterator[None]:
    """Where results have no cell in common, a person may know which of their cells belong together."""
    from orchestrator.analysis.comparison import Incomparable

    try:
        yield
    except Incomparable as error:
        raise Refusal(f"{error}: one cell of each can be named, as DIR:CELL") from None


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
    found = [
        folders.load(name) if cell is None else folders.load_cell(*cell)
        for name, cell in zip(names, cells, strict=True)
    ]
    titles = [
        label if cell is None else _title(result) for label, cell, result in zip(called, cells, found, strict=True)
    ]
    return dict(zip(titles if len(set(titles)) == len(titles) else called, found, strict=True))


def _title(cell: Run | Sweep) -> str:
    from orchestrator.results.runs import Sweep

    return cell.cells[0].title if isinstance(cell, Sweep) else cell.title


def _cell_of(name: str) -> tuple[Path, str] | None:
    """The folder of a sweep and the name of a cell, if that is what it names."""
    folder, colon, cell = name.rpartition(":")
    if colon and Path(folder).is_dir():
        return Path(folder), cell
    path = Path(name)
    within = path.is_dir() and not (path / "summary.json").exists() and (path.parent / "summary.json").is_file()
    return (path.parent, path.name) if within else None


def errors_between(results: dict[str, Run | Sweep]) -> Comparison:
    """Of two results, one of which is the truth."""
    from orchestrator.analysis import comparison

    if len(results) != 2:
        raise Refusal(f"{count(len(results), 'result')} named: errors are those of one result against one other")
    (first, one), (second, other) = results.items()
    return comparison.compare(one, other, (first, second))


def tell_between(
    results: dict[str, Run | Sweep],
    names: Sequence[str],
    out: Path | None,
    use: Use,
    as_json: bool,
    quiet: bool,
    plots: bool,
) -> None:
    """Results of one world, against the first."""
    from orchestrator.analysis.answers import between
    from orchestrator.results import manifests

    found, folder = between(list(results.items())), folder_for(results, names, out, use)
    manifests.write_json(folder, "comparison.json", found.summary())
    if plots:
        draw_into(folder, results)
    tell_results(folder, found.summary(), lambda: print_answer(found), as_json, quiet)


def folder_for(results: dict[str, Run | Sweep], names: Sequence[str], out: Path | None, use: Use) -> Path:
    scenario = next(iter(results.values())).summary["scenario"]
    folder = result_folder(f"{scenario}-compared", out, use)
    renew(folder, [cell[0] if (cell := _cell_of(name)) else Path(name) for name in names])
    return folder


def of_two_worlds(results: dict[str, Run | Sweep]) -> bool:
    return len({result.summary["world"] for result in results.values()}) > 1

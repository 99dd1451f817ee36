"""Tasks of an app from the command line: one by its kind and arguments, or a file with one in each line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperCommand

from orchestrator.cli.addresses import exit_with
from orchestrator.cli.terminal import progress

if TYPE_CHECKING:
    from orchestrator.cluster.client import AsyncClient, NewTask
    from orchestrator.cluster.wire.translate import Outcome

OF_A_LINE = ("kind", "args", "priority", "key", "requires", "affinity_key")
"""The members of a line that says which kind of task it is."""


class TakesArguments(TyperCommand):
    """A command whose `--json` may be followed by the arguments of a task: an object or an array."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words: list[str] = []
        for word in args:
            text = word.removeprefix("--json=")
            if text != word:
                words += ["--args", text]
            elif words and words[-1] == "--json" and word.lstrip()[:1] in ("{", "["):
                words[-1:] = ["--args", word]
            else:
                words.append(word)
        return super().parse_args(ctx, words)


class Numbered(NamedTuple):
    """A task, and the line of the file that it is from, or 1."""

    line: int
    task: NewTask


def arguments_of(text: str, where: str) -> str:
    """The text, where it is what the arguments of a task can be."""
    try:
        given = json.loads(text)
    except ValueError as error:
        exit_with(2, f"{where}: {text[:60]!a} is no JSON: {error}")
    if not isinstance(given, (dict, list)):
        exit_with(2, f"{where}: arguments are an object, by name, or an array, by position, not {text[:60]!a}")
    return text


def one_of(arguments: str | None, like: NewTask) -> Numbered:
    """The task that the command line says, but for its payload."""
    from orchestrator.cluster.submissions import checked

    if not like.kind:
        exit_with(2, "KIND is missing: --args are those of a task of an App")
    payload = arguments_of("[]" if arguments is None else arguments, "--args")
    try:
        return Numbered(1, checked(like._replace(payload=payload)))
    except (TypeError, ValueError) as error:
        exit_with(2, str(error))


def tasks_of(file: Path, like: NewTask) -> list[Numbered]:
    """One of each line that is not empty; what it does not say is as of that one."""
    try:
        lines = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        exit_with(2, f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        exit_with(2, f"{file}: it is no text in UTF-8")
    numbered = list(_of_lines(file, lines.splitlines(), like))
    if not numbered:
        exit_with(2, f"{file}: it has no tasks, expected one JSON value in each line")
    return numbered


def _of_lines(file: Path, lines: Sequence[str], like: NewTask) -> Iterator[Numbered]:
    from orchestrator.cluster.submissions import checked

    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        if like.kind:
            task = like._replace(payload=arguments_of(line, where))
        else:
            task = _of_line(json.loads(arguments_of(line, where)), where, like)
        try:
            yield Numbered(number, checked(task))
        except (TypeError, ValueError) as error:
            exit_with(2, f"{where}: {error}")


def _of_line(given: Any, where: str, like: NewTask) -> NewTask:
    known = ", ".join(OF_A_LINE)
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str):
        exit_with(2, f'{where}: without a KIND, a line is an object such as {{"kind": "greet", "args": ["Ada"]}}')
    for member in given:
        if member not in OF_A_LINE:
            exit_with(2, f"{where}: unknown member {member!a}, expected one of {known}")
    payload = arguments_of(json.dumps(given.get("args", [])), f"{where}: args")
    said = {member: value for member, value in given.items() if member != "args"}
    return like._replace(payload=payload, **said)


def line_of(number: int, task_id: str, outcome: Outcome) -> str:
    """A settled task, as a line of JSON: its result is what JSON it is."""
    error = outcome.error or None
    told = {"line": number, "id": task_id, "state": outcome.state.name, "result": None, "error": error}
    if error is None:
        told["result"] = value_of(outcome.result)
    return json.dumps({**told, "attempts": outcome.attempts, "latency_s": outcome.latency_s})


def value_of(result: str) -> Any:
    """What a result says; that of a task of texts is a text."""
    try:
        return json.loads(result)
    except ValueError:
        return result


async def submit_without_waiting(client: AsyncClient, numbered: Sequence[Numbered], as_lines: bool) -> int:
    """Until the coordinator has taken all; prints their ids."""
    submissions = client.submit_batch([task for _, task in numbered])
    for (number, _), submission in zip(numbered, submissions, strict=True):
        task_id = await asyncio.shield(submission.id)
        print(json.dumps({"line": number, "id": task_id}) if as_lines else task_id, flush=True)
    return 0


async def submit_lines(client: AsyncClient, numbered: Sequence[Numbered]) -> int:
    """Prints a line for each task as it settles, and how many there were. 1, if one failed."""
    submissions = client.submit_batch([task for _, task in numbered])
    lines = {id(submission): number for (number, _), submission in zip(numbered, submissions, strict=True)}
    failed = settled = 0
    with progress("tasks") as advance:
        async for submission, outcome in client.results(submissions):
            settled += 1
            failed += outcome.state.name == "FAILED"
            print(line_of(lines[id(submission)], await submission.id, outcome), flush=True)
            advance(settled / len(submissions))
    print(f"{settled - failed} completed, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


KindArgument = typer.Argument(
    metavar="KIND", help="A task of an App, by its name, with its arguments: greet --json '[\"Ada\"]'."
)

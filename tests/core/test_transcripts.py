"""Scenarios locked as transcripts: each input with what it made happen, to be read, and reviewed as a diff.

`REGENERATE=1 pytest tests/core/test_transcripts.py` writes them anew from their inputs.

A line at the margin is an input, `SECONDS COMMAND ARGUMENTS`; indented lines are its effects. Between two inputs the
alarm rings when it is due, which appears as a command `wake` in brackets.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.model import Priority
from tests.core import making
from tests.core.configurations import RESULTS
from tests.core.recording import Recorder, WakeAt, tell

TRANSCRIPTS = sorted(Path(__file__).with_name("testdata").glob("*.txt"))
SETTINGS = {"execution_timeout_s": float, "max_attempts": int, "delay_s": float, "on_failed_call": str}


class Player:
    """Plays the inputs of a transcript, and writes it again with the effects."""

    def __init__(self) -> None:
        self.fx = Recorder()
        self.core = making.coordinator(self.fx)
        self.alarm = math.inf
        self.lines: list[str] = []

    def play(self, text: str) -> str:
        for line in text.splitlines():
            if not line or line.startswith("#"):
                self.lines.append(line)
            elif line.startswith("coordinator"):
                self.lines.append(line)
                options = dict(option.split("=") for option in line.split()[1:])
                self.core = making.coordinator(self.fx, **{name: SETTINGS[name](of) for name, of in options.items()})
            elif not line.startswith((" ", "[")):
                self.input(line)
        self.core.check()
        return "\n".join(self.lines) + "\n"

    def input(self, line: str) -> None:
        at, command, *arguments = line.split()
        now = float(at)
        while self.alarm <= now:
            at_alarm, self.alarm = self.alarm, math.inf
            self.note(f"[{at_alarm:.6g} wake]", self.core.wake, at_alarm)
        call, values = self.parse(command, arguments)
        self.note(line, call, *values, now)

    def note(self, line: str, call: Callable[..., None], *values: Any) -> None:
        call(*values)
        effects = self.fx.take()
        self.lines += [line, *(f"    {effect}" for effect in effects)]
        self.alarm = next((effect.at for effect in reversed(effects) if isinstance(effect, WakeAt)), self.alarm)

    def parse(self, command: str, arguments: list[str]) -> tuple[Callable[..., None], list[Any]]:
        """`result w1 t1/2 completed`, `submit t1 high`, `register w1 2+1`, `heartbeat w1 2`, `drain w1`, ..."""
        call = partial(tell, self.core, "result" if command in RESULTS else command)
        if command == "submit":
            return call, [arguments[0], Priority[arguments[1].upper()], None]
        if command == "register":
            capacity, _, prefetch = arguments[1].partition("+")
            return call, [arguments[0], int(capacity), int(prefetch or 0), True]
        if command == "heartbeat":
            return call, [arguments[0], int(arguments[1])]
        if len(arguments) == 1:
            return call, arguments
        task, number = arguments[1].split("/")
        about = [arguments[0], task, int(number) if number else None]
        if command in RESULTS:
            succeeded, retryable = RESULTS[command]
            about += [succeeded, None, "" if succeeded else "it broke", retryable, None, None]
        return call, about


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_reads_as_it_did(path):
    """The same inputs have the same effects, in the same order."""
    text = path.read_text()
    played = Player().play(text)
    if os.environ.get("REGENERATE"):
        path.write_text(played)
    assert played == text

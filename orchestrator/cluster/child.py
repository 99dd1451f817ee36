"""A worker's subprocess that executes tasks of an app: this file is run as a script, by its path.

    child.py DESCRIPTOR PARENT MODULE:NAME ROLE BOARD MEMORY_BYTES PATH...

`ROLE`: `plain`, one task after the other; `async`, any number, on one event loop; `describe`, none, only to say what
the app has. `BOARD`: a descriptor, see `loop_child`; 0 for none. `MEMORY_BYTES`: 0 for no limit. `PATH`: where modules
are found. It imports the app once, and ends when the other end of the socket closes, or its parent ends.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path[:] = sys.argv[7:]

import contextlib
import signal
import socket
import threading
from importlib import import_module
from typing import Any

from orchestrator.cluster import executions
from orchestrator.cluster.app import App, Cancelled, CurrentTask, Task, run
from orchestrator.cluster.orphans import die_with, die_with_parent

BUILT_IN = "orchestrator.cluster.tasks:app"
CANCEL_SIGNAL = signal.SIGRTMIN + 2
"""To a subprocess whose plain function is to end."""


class Unusable(Exception):
    """There is no such app, in a sentence."""


def load(spec: str) -> App:
    """The app of MODULE:NAME, whose tasks can all be executed. Raises Unusable."""
    module, colon, name = spec.partition(":")
    if not module or not (name if colon else True):
        raise Unusable(f"an app is given as package.module:name, not {spec!r}")
    name = name or "app"
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise Unusable(f"there is no module {error.name!r} in {os.getcwd()} or among what is installed") from None
        raise Unusable(f"{module!r} can't be imported: {_in_a_line(error)}") from None
    except BaseException as error:  # a module that calls sys.exit() too
        raise Unusable(f"{module!r} can't be imported: {_in_a_line(error)}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise Unusable(f"{module!r} has no {name!r}")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise Unusable(f"{name!r} of {module!r} is no App but {type(found).__name__}")
    for task in found.tasks.values():
        try:
            _ = task.signature
        except Exception as error:
            raise Unusable(str(error)) from None
    return found


def _in_a_line(error: BaseException) -> str:
    """What it is, and where in the user's code."""
    import traceback

    told = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())[:500]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__} at {error.filename}:{error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if os.path.dirname(frame.filename) != os.path.dirname(__file__)]
    return f"{told} ({own[-1].filename}:{own[-1].lineno})" if own else told


def describe(app: App) -> str:
    """What a worker needs to know of an app, as JSON."""
    import json

    return json.dumps(
        {
            name: {
                "is_async": task.is_async,
                "execution_timeout_s": task.execution_timeout_s,
                "max_attempts": task.max_attempts,
            }
            for name, task in app.tasks.items()
        }
    )


class PlainChild:
    """One task after the other, in the main thread."""

    def __init__(self, connection: socket.socket, app: App, is_built_in: bool) -> None:
        self._connection = connection
        self._is_built_in = is_built_in  # of those it is known that they leave nothing behind
        self._app = app
        self._process = os.getpid()
        self._home = os.getcwd()
        self._streams = sys.stdout, sys.stderr
        self._umask = os.umask(0o22)
        os.umask(self._umask)
        self._threads = threading.active_count()
        self._running = False
        self._number = 0

    def serve(self) -> None:
        signal.signal(CANCEL_SIGNAL, self._cancel)
        incoming = executions.Incoming()
        while True:
            piece = self._connection.recv(executions.PIECE_BYTES)
            if not piece:
                return
            for message in incoming.feed(piece):
                if isinstance(message, executions.Begin):
                    answer = self._execute(message)
                    self._connection.sendall(executions.answered(message.number, answer))

    def _execute(self, begin: executions.Begin) -> executions.Answer:
        self._number, _, _, kind, payload = begin
        task = self._app.find(kind)
        if task is None:
            return executions.Answer(False, "", self._app.unknown(kind), 0.0)
        if self._is_built_in:
            return run(task, payload, None)
        current = CurrentTask(begin.task_id, begin.attempt, task, self._progress)
        try:
            self._running = True
            answer = run(task, payload, current)
            self._running = False
        except Cancelled:
            os._exit(0)
        return self._cleaned_up(task, answer)

    def _cleaned_up(self, task: Task[..., Any], answer: executions.Answer) -> executions.Answer:
        """Nothing of this task is to be noticed by the next one."""
        if os.getpid() != self._process:
            os._exit(0)  # the task forked, and this is the copy
        try:
            sys.stdout, sys.stderr = self._streams
            sys.stdout.flush()
            sys.stderr.flush()
            os.chdir(self._home)
        except (OSError, ValueError):  # it has closed a stream, or its folder is gone
            answer = answer._replace(spent=True)
        os.umask(self._umask)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not task.background and (threading.active_count() > self._threads or _has_children()):
            answer = answer._replace(spent=True)
        return answer

    def _progress(self, share: float, text: str) -> None:
        if os.getpid() == self._process:
            self._connection.sendall(executions.progress(self._number, share, text))

    def _cancel(self, *_: object) -> None:
        if not self._running:
            os._exit(0)
        raise Cancelled


def _has_children() -> bool:
    """Whether a child process of this one runs, or ended and nobody has asked how."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _in_forked(descriptor: int) -> None:
    """A copy of this process by fork(), made by a task, answers nothing, and does not outlive it."""
    with contextlib.suppress(OSError):
        os.close(descriptor)
    if threading.current_thread() is threading.main_thread():
        die_with_parent()


def _limit_memory(most_bytes: int) -> None:
    """What the process may have of its own: beyond that an allocation fails, which is a MemoryError."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))


def main(descriptor: int, parent: int, spec: str, role: str, board: int, memory_bytes: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they are the worker's to handle, and reach its whole group
        signal.signal(number, signal.SIG_IGN)
    die_with(parent)
    os.set_inheritable(descriptor, False)
    connection = socket.socket(fileno=descriptor)
    os.register_at_fork(after_in_child=lambda: _in_forked(descriptor))
    try:
        app = load(spec)
    except Unusable as error:
        connection.sendall(executions.listening(str(error)))
        return
    if role == "describe":
        connection.sendall(executions.progress(0, 0.0, describe(app)))
        os._exit(0)
    if memory_bytes:
        _limit_memory(memory_bytes)
    if role == "async":
        from orchestrator.cluster.loop_child import serve

        serve(connection, app, board)
        return
    connection.sendall(executions.listening())
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody wants it any more
        PlainChild(connection, app, spec == BUILT_IN).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
    sys.stdout.flush()
    os._exit(0)  # a thread that a task left behind would hold it back

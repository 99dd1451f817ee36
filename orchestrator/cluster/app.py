"""Tasks of the user's own: an `App` knows functions by name, and executes them.

    app = App()

    @app.task(execution_timeout_s=30)
    def greet(name: str) -> str:
        return f"Hello, {name}"

Only the name of a function travels, with its arguments; workers import the module that has the app. This module imports
a few modules of the standard library only: what reads arguments and results is imported by whoever needs it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, overload

from orchestrator.cluster.executions import ERROR_CHARACTERS, Answer
from orchestrator.cluster.invalid import InvalidPayload, InvalidResult, InvalidTask
from orchestrator.cluster.signatures import Signature, TextSignature

P = ParamSpec("P")
R = TypeVar("R")

NAME_CHARACTERS = 200
DEFAULT = "prime"
"""The kind of a task that says none, as those of the wire contract do."""
MAX_ATTEMPTS = 3
MESSAGE_CHARACTERS = ERROR_CHARACTERS // 4
TRACEBACK = "\nTraceback (most recent call last):\n"
_COROUTINE = 0x80  # `inspect.CO_COROUTINE`: that module alone takes as long to import as all the rest


class Retry(Exception):
    """Raise it in a task that failed and may succeed later: it is tried again, after so many seconds at least, unless
    that was its last attempt."""

    def __init__(self, reason: object = "", *, after_s: float = 0.0) -> None:
        if not 0 <= after_s < math.inf:
            raise ValueError(f"a task is retried after a number of seconds, not {after_s!r}")
        super().__init__(reason)
        self.after_s = float(after_s)


class Cancelled(BaseException):
    """Raised inside a plain function whose result nobody wants any more, or whose time is over: it may clean up, and
    is killed soon after. A coroutine gets asyncio.CancelledError."""


class CurrentTask:
    """What a task can know of itself. `deadline`: when its execution timeout ends, on the clock of `time.monotonic`;
    None without one."""

    __slots__ = ("_report", "attempt", "deadline", "id", "kind", "max_attempts")

    def __init__(
        self, id: str, attempt: int, task: Task[..., Any], report: Callable[[float, str], None] | None = None
    ) -> None:
        self.id = id
        self.attempt = attempt
        self.kind = task.name
        self.max_attempts = task.max_attempts
        timeout_s = task.execution_timeout_s
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._report = report

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, inf without one."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def progress(self, share: float, text: str = "") -> None:
        """Say how far it is: a share of the whole, from 0 to 1."""
        if not 0 <= share <= 1:
            raise ValueError(f"progress is a share from 0 to 1, not {share!r}")
        if self._report is not None:
            self._report(float(share), str(text)[:MESSAGE_CHARACTERS])


_current: ContextVar[CurrentTask] = ContextVar("task")


def current_task() -> CurrentTask:
    """Of the task that calls it, also from a thread that has its context. LookupError outside of one."""
    try:
        return _current.get()
    except LookupError:
        raise LookupError("current_task() is called outside of a task") from None


class Task(Generic[P, R]):
    """A function that workers know by `name`. Calling it calls the function, here.

    `is_async`: it runs on the event loop that its worker has for all of them. `options`: what this handle of it is
    submitted with.
    """

    def __init__(
        self,
        function: Callable[P, R] | None,
        name: str,
        *,
        execution_timeout_s: float | None = None,
        max_attempts: int | None = MAX_ATTEMPTS,
        requires: Mapping[str, str] | None = None,
        background: bool = False,
        text: bool = False,
    ) -> None:
        self.name = name
        self.execution_timeout_s = execution_timeout_s
        self.max_attempts = max_attempts
        self.requires = dict(requires or {})
        self.background = background
        self.text = text
        self.function = function
        self.is_async = bool(getattr(getattr(function, "__code__", None), "co_flags", 0) & _COROUTINE)
        self.submitted_with: dict[str, Any] = {}
        self._signature: Signature | None = None
        for attribute in ("__doc__", "__module__", "__qualname__"):
            if function is not None and hasattr(function, attribute):
                setattr(self, attribute, getattr(function, attribute))

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.function is None:
            raise TypeError(f"the function of {self.name!r} is not here: submit it to a cluster")
        return self.function(*args, **kwargs)

    def options(self, **submitted_with: Any) -> Task[P, R]:
        """The same task, submitted with what else a `NewTask` has: `priority`, `key`, limits, `affinity_key`..."""
        import copy  # which few need

        same = copy.copy(self)
        same.submitted_with = {**self.submitted_with, **submitted_with}
        return same

    def may_retry(self, attempt: int) -> bool:
        """Whether another attempt may follow that one."""
        return self.max_attempts is None or attempt < self.max_attempts

    @property
    def signature(self) -> Signature:
        """How its arguments and its result travel. InvalidTask where an annotation can't be understood."""
        if self._signature is None:
            if self.text:
                self._signature = TextSignature()
            else:
                from orchestrator.cluster.arguments import signature_of

                self._signature = signature_of(self.name, self.function)
        return self._signature


class App:
    """Functions by name, in one module, which workers import: `orchestrator worker --app package.module:app`."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task[..., Any]] = {}

    @overload
    def task(self, function: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        execution_timeout_s: float | None = None,
        max_attempts: int | None = MAX_ATTEMPTS,
        requires: Mapping[str, str] | None = None,
        background: bool = False,
        text: bool = False,
    ) -> _Decorator: ...
    def task(self, function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
        """Declare a plain or an async function as a task.

        `name`: what it is called, its own name if not given. `execution_timeout_s`: an attempt that takes longer is
        stopped. `max_attempts`: how often it is tried where an attempt ends by `Retry`, by its timeout, or with its
        subprocess, None for any number; an exception of another kind is final. `requires`: labels of the workers
        that can run it. `background`: what it leaves running, threads and child processes, may go on; otherwise its
        subprocess is replaced. `text`: it takes one text and returns one, as they are, instead of JSON.
        """

        def declare(function: Callable[..., Any]) -> Task[..., Any]:
            return self._declare(function, **settings)

        return declare if function is None else declare(function)

    def _declare(self, function: Callable[..., Any], name: str | None = None, **settings: Any) -> Task[..., Any]:
        if not callable(function):
            raise InvalidTask(f"a task is a function, not {function!r:.80}")
        name = getattr(function, "__name__", "") if name is None else name
        _require_name(name)
        if name in self.tasks:
            raise InvalidTask(f"two tasks have the name {name!r}")
        _require_settings(name, settings)
        task = self.tasks[name] = Task(function, name, **settings)
        return task

    @staticmethod
    def named(name: str) -> Task[..., Any]:
        """A task whose function is not here: its arguments travel unchecked, its result is what JSON says."""
        _require_name(name)
        return Task(None, name)

    def find(self, kind: str) -> Task[..., Any] | None:
        """Of that kind; behind a colon it may have another name, by which tasks are alike for hedging."""
        return self.tasks.get(work_of(kind))

    def unknown(self, kind: str) -> str:
        """Why a kind that is not there can't be executed."""
        return f"unknown kind of task: {kind[:80]!r}; this worker's app has {', '.join(sorted(self.tasks)) or 'none'}"

    def run(self, kind: str, payload: str) -> Answer:
        """Execute a plain function; whatever goes wrong in it is the answer."""
        task = self.find(kind)
        if task is None:
            return Answer(False, "", self.unknown(kind), 0.0)
        return run(task, payload, None)


def work_of(kind: str) -> str:
    """What tasks of a kind do: what stands before a colon and the name of the kind, if it has one."""
    return kind.partition(":")[0] or DEFAULT


class _Decorator:
    """What `App.task(...)` returns, for type checkers."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


def run(task: Task[..., Any], payload: str, current: CurrentTask | None) -> Answer:
    """Execute a plain function. Cancelled passes through."""
    begin = time.perf_counter()
    token = None if current is None else _current.set(current)
    try:
        signature = task.signature
        args, kwargs = signature.arguments(payload)
        assert task.function is not None
        result = signature.dump_result(task.function(*args, **kwargs))
        return Answer(True, result, "", time.perf_counter() - begin)
    except Cancelled:
        raise
    except BaseException as error:  # whatever goes wrong in a task is its outcome, sys.exit() too
        return failed(task, error, time.perf_counter() - begin, current)
    finally:
        if token is not None:
            _current.reset(token)


async def run_async(task: Task[..., Any], payload: str, current: CurrentTask) -> Answer:
    """Execute an async function. asyncio.CancelledError passes through."""
    import asyncio

    begin = time.perf_counter()
    _current.set(current)
    try:
        signature = task.signature
        args, kwargs = signature.arguments(payload)
        assert task.function is not None
        result = signature.dump_result(await task.function(*args, **kwargs))
        return Answer(True, result, "", time.perf_counter() - begin)
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:
        return failed(task, error, time.perf_counter() - begin, current)


def failed(task: Task[..., Any], error: BaseException, ran_s: float, current: CurrentTask | None) -> Answer:
    """The failure that an exception is."""
    if isinstance(error, (InvalidPayload, InvalidResult)):
        return Answer(False, "", str(error), ran_s)
    if isinstance(error, Retry):
        again = current is None or task.may_retry(current.attempt)
        return Answer(False, "", told(error), ran_s, again, error.after_s if again else 0.0)
    return Answer(False, "", told(error), ran_s, spent=isinstance(error, MemoryError))


def told(error: BaseException) -> str:
    """Type and message, then the traceback as text, without the frames of this module."""
    import traceback

    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        message = str(error)
    except Exception as other:
        message = f"its text can't be had: {type(other).__name__}"
    told = f"{name}: {message[:MESSAGE_CHARACTERS]}" if message else name
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if trace is None:
        return told
    try:
        lines = traceback.format_exception(kind, error.with_traceback(trace))
        text = "".join(lines)
    except Exception:  # an exception whose text or source can't be had
        text = "".join(traceback.format_tb(trace))
    begin = text.find(TRACEBACK[1:])
    text = text[begin + len(TRACEBACK) - 1 :] if begin >= 0 else text
    return f"{told}{TRACEBACK}{_shortened(text, ERROR_CHARACTERS - len(told) - 2 * len(TRACEBACK))}"


def _shortened(text: str, most: int) -> str:
    """Without its middle where it is too long."""
    return text if len(text) <= most else f"{text[: most // 2]}\n...\n{text[-most // 2 + 8 :]}"


def _require_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARACTERS or not name.isprintable() or ":" in name:
        wanted = f"1 to {NAME_CHARACTERS} printable characters, without a colon"
        raise InvalidTask(f"the name of a task has {wanted}, not {name!r:.80}")


def _require_settings(name: str, settings: dict[str, Any]) -> None:
    for what, value in settings.items():
        if what == "execution_timeout_s":
            fits, wanted = value is None or (_is_number(value) and 0 < value < math.inf), "a number of seconds above 0"
        elif what == "max_attempts":
            fits = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
            wanted = "1 or more, or None"
        elif what == "requires":
            fits, wanted = value is None or isinstance(value, Mapping), "a mapping of labels"
        elif what in ("background", "text"):
            fits, wanted = isinstance(value, bool), "True or False"
        else:
            _no_setting(name, what)
        if not fits:
            raise InvalidTask(f"task {name!r}: {what} is {wanted}, not {value!r:.80}")


def _no_setting(name: str, what: str) -> NoReturn:
    known = "name, execution_timeout_s, max_attempts, requires, background, text"
    raise InvalidTask(f"task {name!r}: {what} is no setting of a task, those are {known}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

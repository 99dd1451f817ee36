"""Calls of peers that wait for the core: an effect answers them, as soon as that may be told."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from orchestrator.cluster.durability import Release


class Calls:
    """By request: a number that the effect gives back, or of a submission the task's id."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int | str, asyncio.Future[Any]] = {}
        self._ended: Exception | None = None

    def begin(self) -> tuple[int, asyncio.Future[Any]]:
        """A call under a number of its own. Raises the error of the end, once nothing is answered any more."""
        number = next(self._numbers)
        return number, self.submission(number)

    def submission(self, request: int | str) -> asyncio.Future[Any]:
        """The same under this name."""
        if self._ended is not None:
            raise self._ended
        call = self._waiting[request] = self._loop.create_future()
        return call

    def answer(self, peer: str, request: int | str, answer: bool) -> None:
        call = self._waiting.pop(request, None)
        if call is not None:
            self._release(peer, _resolve, call, answer)

    def refuse(self, peer: str, request: int | str, error: Exception) -> None:
        call = self._waiting.pop(request, None)
        if call is not None:
            self._release(peer, _fail, call, error)

    def forget(self, request: int | str) -> None:
        """Whoever called has gone."""
        self._waiting.pop(request, None)

    def end(self, error: Exception) -> None:
        """Nothing is answered any more."""
        self._ended = error
        for call in self._waiting.values():
            _fail(call, error)
        self._waiting.clear()


def _resolve(call: asyncio.Future[Any], answer: bool) -> None:
    if not call.done():  # whoever called may have gone
        call.set_result(answer)


def _fail(call: asyncio.Future[Any], error: Exception) -> None:
    if not call.done():
        call.set_exception(error)
        call.exception()  # where nobody waits any more, nobody complains

"""Rehearse a cluster before you run it: one coordinator, in a simulation and on real processes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.analysis.comparison import compare
    from orchestrator.cluster.app import App, Cancelled, Retry, current_task
    from orchestrator.cluster.client import AsyncClient, Client
    from orchestrator.cluster.futures import TaskFailed
    from orchestrator.results.folders import load
    from orchestrator.scenario.schema import Scenario

    __version__: str

__all__ = [
    "App",
    "AsyncClient",
    "Cancelled",
    "Client",
    "Retry",
    "Scenario",
    "TaskFailed",
    "__version__",
    "compare",
    "current_task",
    "load",
]

_DEFINED_IN = {
    "App": "orchestrator.cluster.app:App",
    "AsyncClient": "orchestrator.cluster.client:AsyncClient",
    "Cancelled": "orchestrator.cluster.app:Cancelled",
    "Client": "orchestrator.cluster.client:Client",
    "Retry": "orchestrator.cluster.app:Retry",
    "Scenario": "orchestrator.scenario.schema:Scenario",
    "compare": "orchestrator.analysis.comparison:compare",
    "TaskFailed": "orchestrator.cluster.futures:TaskFailed",
    "current_task": "orchestrator.cluster.app:current_task",
    "load": "orchestrator.results.folders:load",
}
"""The module of each public name. It is imported at the first use, because a worker needs no pandas."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _installed_version()
    elif name in _DEFINED_IN:
        module, _, attribute = _DEFINED_IN[name].partition(":")
        value = getattr(import_module(module), attribute)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cluster-rehearsal")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"

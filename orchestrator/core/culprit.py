"""Who is at fault when an input of the core fails: finds the policy and says it in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import FrameType
from typing import Any, Protocol

from orchestrator.core.ports import PolicyError

_CORE = ("orchestrator.core.", "orchestrator.policies.placement")
"""Modules that ask policies."""


class Reviewed(Protocol):
    def review_at(self) -> float: ...


class HasPolicies(Protocol):
    def policies(self) -> Mapping[str, object]:
        """Its policies, by what they are: "routing policy", "queue", ..."""


def nonsense(role: str, policy: object, method: str, what: str) -> PolicyError:
    """A policy answered what its protocol excludes. `what`: what it did, as in "gave -1, not a number of seconds"."""
    return PolicyError(f"the {role} {_name(policy)} broke its protocol: {method} {what}")


def checked_review_at(role: str, policy: Reviewed) -> float:
    """When the policy wants to be asked next. PolicyError if what it answers is not a time."""
    at = policy.review_at()
    if not isinstance(at, (int, float)) or math.isnan(at):
        raise nonsense(role, policy, "review_at", f"gave {at!r}, not a time")
    return at


def explained(core: HasPolicies, error: BaseException) -> PolicyError | None:
    """The sentence for an exception that escaped an input of `core`. None if no policy raised it."""
    if isinstance(error, PolicyError):
        return error
    trace, inside = error.__traceback__, False
    while trace is not None:
        frame = trace.tb_frame
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_CORE):
            inside = True
        elif inside:
            found = _policy_of(core, frame)
            if found is not None:
                role, policy = found
                method = frame.f_code.co_name
                raised = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                return PolicyError(f"the {role} {_name(policy)} raised in {method}: {raised}")
            inside = False
        trace = trace.tb_next
    return None


def _policy_of(core: HasPolicies, frame: FrameType) -> tuple[str, object] | None:
    """The policy whose method the frame runs."""
    code = frame.f_code
    first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
    for role, policy in core.policies().items():
        if policy is first or (role == "routing policy" and first.__class__ is policy.__class__):
            return role, policy
        if getattr(policy, "__code__", None) is code:  # a factory of detectors may be a mere function
            return role, policy
    if hasattr(first, "verdict") and hasattr(first, "heard"):
        return "failure detector", first
    return None


def _name(policy: Any) -> str:
    named = policy if hasattr(policy, "__qualname__") else type(policy)
    return f"{named.__module__}:{named.__qualname__}"

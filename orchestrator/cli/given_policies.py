"""Policies as a person gives them to a coordinator: a YAML file, and KEY=VALUE instead of some of its values.

They are read as a scenario's section `policies` is, and what is wrong is said in the same words.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from orchestrator.policies.settings import Policies

DEFAULTS = Policies()
PREFIX = "policies."
"""A key may begin with it, as it does in a scenario."""


class SettingsError(Exception):
    """Policies that make no sense: `problems`, a sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_policies(file: Path | None = None, overrides: Sequence[str] = ()) -> Policies:
    """The file's policies, or the defaults, with these keys set. Raises SettingsError.

    Parameters without a kind are those of the default one. A kind that is set anew has none of the parameters of the
    kind before. Policies of the user's own are imported from the current directory and from the file's.
    """
    if file is None and not overrides:
        return DEFAULTS
    # Most coordinators are given nothing to read, so they start without a YAML parser.
    from orchestrator.scenario.loading import Document, Problem, ScenarioError, read_document
    from orchestrator.scenario.sources import override
    from orchestrator.scenario.validation import explain

    def told(problem: Problem) -> str:
        return str(problem) if file is not None else f"{problem.key}: {problem.message}"

    roots = [os.getcwd(), *([os.path.abspath(file.parent)] if file is not None else [])]
    sys.path.extend(place for place in dict.fromkeys(roots) if place not in sys.path)
    try:
        document = read_document(file, "policies") if file is not None else Document("")
    except ScenarioError as error:
        raise SettingsError([told(problem) for problem in error.problems]) from None
    for name, given in document.tree.items():
        kind = getattr(getattr(DEFAULTS, name, None), "kind", None)
        if kind is not None and isinstance(given, dict) and "kind" not in given:
            document.tree[name] = {"kind": kind, **given}
    keys = (text.removeprefix(PREFIX) for text in overrides)
    problems = [
        problem
        for number, text in enumerate(keys, start=1)
        for problem in override(Policies, document, text, roots, number)
    ]
    if not problems:
        try:
            return Policies.model_validate(document.tree)
        except ValidationError as error:
            problems = [document.problem(misfit) for misfit in explain(error, Policies, document.tree)]
    raise SettingsError([told(problem) for problem in problems])

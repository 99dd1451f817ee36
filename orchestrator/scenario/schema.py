"""The scenario: one strict schema for both worlds, loaded from YAML.

`Scenario.load` reads a file and applies overrides; its errors name file, line, column and key. `cells` gives one
scenario for each combination of the sweep. `dump` writes the resolved scenario, which loads again to an equal one from
any directory. Times are in seconds everywhere.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from orchestrator.scenario import plausibility, sources, sweeps
from orchestrator.scenario.arguments import require, require_number
from orchestrator.scenario.datafiles import DataFile
from orchestrator.scenario.loading import Document, Misfit, Problem, ScenarioError, read_document, to_yaml
from orchestrator.scenario.run_settings import RunSettings
from orchestrator.scenario.sections import Group, Network
from orchestrator.scenario.titles import cell_title
from orchestrator.scenario.validation import explain, with_new_names
from orchestrator.scenario.workload import Trace

__all__ = [
    "Cell",
    "Group",
    "Network",
    "Problem",
    "Scenario",
    "ScenarioError",
    "json_schema",
    "require_one_run",
    "require_scenario",
]


class Scenario(RunSettings):
    """One experiment."""

    question: str | None = None
    """What it is to answer, in one sentence; it is printed above the answer."""
    model: DataFile | None = None
    """A calibrated model file. Its values fill in what the scenario does not say itself. Once the file is read, its
    values are the scenario's own and this key is null."""
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """Values to try, by dotted key; every combination is run."""
    replications: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Runs of each combination, with different random streams, for confidence intervals."""

    @model_validator(mode="before")
    @classmethod
    def _with_model(cls, tree: Any) -> Any:
        file = tree.get("model") if isinstance(tree, dict) else None
        if not isinstance(file, str) or not os.path.isfile(file):
            return tree
        return sources.completed({**tree, "model": None}, sources.read_model(file))

    def __repr__(self) -> str:
        workers = sum(group.workers for group in self.cluster.groups)
        swept = f", {self._combinations():,} cells" if self.sweep else ""
        return f"<Scenario {self.name}: {workers:,} worker{'' if workers == 1 else 's'}, {self.duration_s:g} s{swept}>"

    __str__ = __repr__

    @classmethod
    def load(cls, path: str | Path, overrides: sources.Overrides = (), *, saved: bool = False) -> Self:
        """Read a YAML file (`-`: standard input) and apply overrides. ScenarioError lists everything that is wrong.

        Overrides are Python values by dotted key, `{"cluster.workers": 8, "seed": 7}`; a value takes the place of all
        that the file has at its key. A list is a list: `{"sweep.cluster.workers": [4, 8]}` sweeps a key. Or they are
        texts as on the command line: `key=value`, where `key=a,b,c` sweeps the key. A key that is overridden is swept
        no longer.

        Policies of the user's own are imported from the current directory and from the scenario's directory. Files
        that the scenario names are looked for in its directory first, then in the current one. For files that an
        override names it is the other way round.

        `saved`: a run left the file behind, perhaps one of an older version, so that old keys are understood.
        """
        require("path", path, (str, os.PathLike), "the name of a YAML file")
        path = Path(path)
        here, beside = os.getcwd(), os.path.abspath(path.parent)
        sys.path.extend(place for place in dict.fromkeys((here, beside)) if place not in sys.path)
        document = read_document(path)
        if saved:
            document.tree = with_new_names(document.tree)
        document.tree = sources.with_absolute_files(document.tree, (), (beside, here))
        return cls._of(document, overrides, (here, beside))

    def with_(self, overrides: Mapping[str, Any]) -> Self:
        """A scenario with other values at some dotted keys, as for `load`; this one stays as it is.

        ScenarioError for what does not fit, TypeError for what is no overrides. Files are looked for in the current
        directory.
        """
        document = Document("scenario", self._as_written())
        if isinstance(overrides, Mapping) and "model" in overrides:
            document.tree["model"] = None
            message = "fills in what a scenario does not say, and this one says all by now, expected in Scenario.load"
            raise ScenarioError([document.problem(Misfit(("model",), message))])
        return self._of(document, overrides, (os.getcwd(),))

    @classmethod
    def _of(cls, document: Document, overrides: sources.Overrides, roots: Sequence[str]) -> Self:
        """What a document says with the overrides. ScenarioError lists everything that is wrong."""
        if problems := list(sources.overridden(cls, document, overrides, roots)):
            raise ScenarioError(problems)
        try:
            scenario = cls.model_validate(document.tree)
        except ValidationError as error:
            found = explain(error, cls, document.tree)
        else:
            found = sweeps.misfits_of(cls, scenario._without_sweep(), scenario.sweep)
            if not found:
                return scenario
        raise ScenarioError([document.problem(sources.hinted(misfit, overrides)) for misfit in found])

    def dump(self) -> str:
        """The resolved scenario as YAML; loading it gives an equal scenario."""
        return to_yaml(self.model_dump())

    def cells(self) -> list[Cell]:
        """One cell for each combination of the sweep, in the order of its keys and values.

        Without a sweep there is one cell, `base`.
        """
        if not self.sweep:
            return [Cell("base", {}, self)]
        points, tree = sweeps.points(self.sweep), self._without_sweep()
        return [
            Cell(name, values, self.model_validate(sweeps.tree_at(type(self), tree, values)))
            for name, values in zip(sweeps.names(points), points, strict=True)
        ]

    def warnings(self) -> list[str]:
        """One sentence for each thing that is allowed and probably not meant."""
        return plausibility.warnings(self)

    def _combinations(self) -> int:
        return math.prod(map(len, self.sweep.values()))

    def _without_sweep(self) -> dict[str, Any]:
        """The plain tree of a cell."""
        return {key: value for key, value in self._as_written().items() if key != "sweep"}

    def _as_written(self) -> dict[str, Any]:
        """The plain tree that loads as this scenario, and with a change in a trace that decides a duration_s as
        another one."""
        arrivals = self.workload.arrivals
        decided = isinstance(arrivals, Trace) and arrivals.until is not None
        return self.model_dump() | ({"duration_s": "trace"} if decided else {})


def require_scenario(value: object) -> None:
    """TypeError for anything else, such as the name of its file."""
    require("scenario", value, Scenario, 'a Scenario, as Scenario.load("x.yaml") gives one')


def require_one_run(scenario: Scenario, replication: int, instead: str) -> None:
    """TypeError for what is no scenario or no number of a replication, ValueError for a scenario that sweeps something.
    `instead`: the function that runs a sweep."""
    require_scenario(scenario)
    require_number("replication", replication, 0)
    if scenario.sweep:
        raise ValueError(
            f"{scenario.name} sweeps {' and '.join(scenario.sweep)}, expected a scenario for one run: {instead} runs "
            f"all of its {scenario._combinations():,} cells, and scenario.cells() has the scenario of each"
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of a sweep: a name fit for a directory, the swept values by key, and the scenario to run."""

    name: str
    values: dict[str, Any]
    scenario: Scenario

    @property
    def title(self) -> str:
        """What people call it."""
        return cell_title(self.values) or self.name


def json_schema() -> dict[str, Any]:
    """The scenario's JSON Schema (draft 2020-12), for editors of YAML."""
    schema = Scenario.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Scenario"}

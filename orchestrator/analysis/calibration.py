"""Fitting the simulated world's parameters to a run, from its tables alone.

What a run tells, and what each parameter is taken from, over tasks that arrived after the warm-up and attempts that
met a free slot, were completed, and saw no pause of their worker:

    submit     accepted - arrival - cost                a task's way to the coordinator
    assign     started - assigned                       an assignment's way to its worker
    result     ended - started - ran - cost             a result's way back
    overhead   ran - demand / speed                     what an execution takes beyond its demand
    cost_s     the shortest time between two messages   of the coordinator's own time

Workers tell durations, never times. A live coordinator can therefore only halve what is left of the round trip after
execution: where the tables show such halves, the sum of both legs is fitted, and each leg gets half of its mean and
half of its variance, as if they were independent and alike. Heartbeats, which no table shows, travel as results do.

A delay is fitted as a lognormal by maximum likelihood (the mean and deviation of its logarithms, which a few strays
hardly move), or as a constant where the samples are few or do not differ.

The cost: a server that takes the time c for each message never ends two of them less than c apart, and when
messages queue, it ends them exactly c apart. The shortest gap is the maximum-likelihood estimate of c, too large by
1 / (messages per second * messages) on average. Where costs vary, it is the cheapest message, and the rest of
the mean cost is found in the delays: what is missed is only that delays grow with the load of the coordinator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orchestrator.results.summaries import rows
from orchestrator.results.tables import OUTCOMES, Codes, Floats, Tables, codes, floats
from orchestrator.scenario.distributions import Constant, Lognormal
from orchestrator.scenario.loading import to_yaml

if TYPE_CHECKING:
    from orchestrator.results.runs import Run
    from orchestrator.scenario.schema import Scenario

RESOLUTION_S = 1e-6
"""Less than this is nothing."""
FEWEST = 30
"""Samples of which a spread may be told."""
HALVED = 0.05
"""Legs that differ by less than this share of their sum were not measured one by one."""

_COMPLETED = OUTCOMES.index("completed")

Flags = npt.NDArray[np.bool_]


class Unfit(ValueError):
    """A run from which nothing can be learned, in one sentence."""


@dataclass(frozen=True)
class Fit:
    """A distribution and the samples behind it."""

    distribution: Constant | Lognormal
    samples: int
    ks: float | None
    """Kolmogorov-Smirnov distance: the largest difference between the shares that samples and fit have below a time.
    None for a constant."""

    def described(self) -> dict[str, Any]:
        return {"samples": self.samples, "ks": None if self.ks is None else _rounded(self.ks)}


@dataclass(frozen=True)
class Calibration:
    """The parameters of the simulated world that make it like a run."""

    source: str
    """The run, as people call it."""
    tasks: int
    submit: Fit
    assign: Fit
    result: Fit
    overhead: Fit
    cost_s: float
    messages: int
    """Between whose times the shortest gap was looked for."""
    halved: bool
    """Whether `assign` and `result` are halves of one round trip; their `ks` is then that of the sum."""

    @property
    def fits(self) -> dict[str, Fit]:
        return {"submit": self.submit, "assign": self.assign, "result": self.result, "overhead": self.overhead}

    def model(self) -> dict[str, Any]:
        """What a scenario includes as `model`, as a plain tree."""
        message_kinds = {
            "submit": self.submit,
            "assign": self.assign,
            "result": self.result,
            "heartbeat": self.result,
        }
        return {
            "coordinator": {"cost_s": _rounded(self.cost_s)},
            "network": {"message_kinds": {name: _plain(fit.distribution) for name, fit in message_kinds.items()}},
            "cluster": {"overhead": _plain(self.overhead.distribution)},
            "calibration": {
                "source": self.source,
                "tasks": self.tasks,
                "messages": self.messages,
                "legs_halved": self.halved,
                **{name: fit.described() for name, fit in self.fits.items()},
            },
        }

    def yaml(self) -> str:
        """The text of a model file."""
        return to_yaml(self.model())


def calibrate(runs: Sequence[Run]) -> Calibration:
    """Fit one or more runs of like clusters together. Unfit where none has a completed task."""
    parts = [Delays.of(run.tables, run.scenario) for run in runs]
    found = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("out", "back", "overhead")}
    accept_s = np.concatenate([part.accept for part in parts])
    if not len(found["out"]):
        raise Unfit(f"no task of {runs[0].title} was completed undisturbed: there is nothing to fit")
    gaps_s = np.concatenate([_gaps(run.tables) for run in runs])
    cost_s = float(np.min(gaps_s, initial=math.inf))
    cost_s = 0.0 if not RESOLUTION_S <= cost_s < math.inf else cost_s
    out_s, back_s = found["out"], found["back"]
    halved = bool(np.median(np.abs(out_s - back_s)) < HALVED * np.median(out_s + back_s))
    message_kinds = _halves(out_s + back_s - cost_s) if halved else (fit(out_s), fit(back_s - cost_s))
    return Calibration(
        source=" and ".join(dict.fromkeys(run.title for run in runs)),
        tasks=len(accept_s),
        submit=fit(accept_s - cost_s),
        assign=message_kinds[0],
        result=message_kinds[1],
        overhead=fit(found["overhead"]),
        cost_s=cost_s,
        messages=len(gaps_s) + len(runs),
        halved=halved,
    )


def fit(values_s: Floats) -> Fit:
    """The lognormal of the greatest likelihood, or a constant where the values do not tell a spread."""
    from scipy import stats

    values_s = np.maximum(values_s, 0.0)
    mean_s = float(np.mean(values_s))
    if mean_s < RESOLUTION_S:
        return Fit(Constant(kind="constant", value_s=0.0), len(values_s), None)
    if len(values_s) < FEWEST or np.std(values_s) < 0.01 * mean_s:
        return Fit(Constant(kind="constant", value_s=mean_s), len(values_s), None)
    values_s = np.maximum(values_s, RESOLUTION_S)
    sigma, _, median_s = stats.lognorm.fit(values_s, floc=0)
    ks = stats.kstest(values_s, stats.lognorm(sigma, scale=median_s).cdf).statistic
    cv = math.sqrt(math.expm1(min(sigma**2, 10.0)))
    lognormal = Lognormal(kind="lognormal", mean_s=float(median_s * math.exp(sigma**2 / 2)), cv=cv)
    return Fit(lognormal, len(values_s), float(ks))


@dataclass(frozen=True)
class Delays:
    """What was measured of undisturbed tasks and attempts, in seconds."""

    accept: Floats
    """Of each task."""
    out: Floats
    """Assignment to start; this and what follows, of each attempt."""
    back: Floats
    """End of execution to its result's arrival."""
    overhead: Floats

    @classmethod
    def of(cls, tables: Tables, scenario: Scenario) -> Delays:
        tasks, attempts, names = tables.tasks, tables.attempts, scenario.worker_names()
        worker = codes(attempts, "worker", names)
        assigned_s, started_s, ended_s, ran_s = (
            floats(attempts, name) for name in ("assigned_s", "started_s", "ended_s", "ran_s")
        )
        told = (codes(attempts, "outcome", OUTCOMES) == _COMPLETED) & ~np.isnan(started_s + ran_s)
        told &= np.isnan(floats(attempts, "given_up_s")) & (assigned_s >= scenario.warmup_s)
        told &= ~_paused(tables, names, worker, assigned_s, ended_s)
        told &= _load(worker, assigned_s, ended_s) < _of_workers(scenario, "capacity")[worker]
        row = np.searchsorted(tasks.column("task").to_numpy(), attempts.column("task").to_numpy())
        demand_s = floats(tasks, "service_s")[row] / _of_workers(scenario, "speed")[worker]
        arrival_s = floats(tasks, "arrival_s")
        accept_s = (floats(tasks, "accepted_s") - arrival_s)[arrival_s >= scenario.warmup_s]
        overhead_s = (ran_s - demand_s)[told]
        return cls(
            accept=accept_s[~np.isnan(accept_s)],
            out=(started_s - assigned_s)[told],
            back=(ended_s - started_s - ran_s)[told],
            overhead=overhead_s[~np.isnan(overhead_s)],
        )


def _halves(sum_s: Floats) -> tuple[Fit, Fit]:
    """Two independent legs alike, whose sum has the mean and the variance of the fitted one."""
    whole = fit(sum_s)
    half: Constant | Lognormal
    if isinstance(whole.distribution, Lognormal):
        mean_s, cv = whole.distribution.mean_s, whole.distribution.cv
        half = Lognormal(kind="lognormal", mean_s=mean_s / 2, cv=cv * math.sqrt(2))
    else:
        half = Constant(kind="constant", value_s=whole.distribution.value_s / 2)
    message_kind = Fit(half, whole.samples, whole.ks)
    return message_kind, message_kind


def _gaps(tables: Tables) -> Floats:
    """Seconds a message between successive moments at which the coordinator handled tasks or results.

    Several handled at one reading of the clock share the time until the next.
    """
    completed = codes(tables.attempts, "outcome", OUTCOMES) == _COMPLETED
    moments_s = np.concatenate([floats(tables.tasks, "accepted_s"), floats(tables.attempts, "ended_s")[completed]])
    times_s, counts = np.unique(moments_s[~np.isnan(moments_s)], return_counts=True)
    gaps_s: Floats = np.diff(times_s) / counts[:-1]
    return gaps_s


def _load(worker: Codes, assigned_s: Floats, ended_s: Floats) -> Codes:
    """How many attempts each attempt's worker held when it was assigned."""
    n = len(worker)
    moments_s = np.concatenate([np.nan_to_num(ended_s, nan=np.inf), assigned_s])
    change = np.repeat([-1, 1], n)
    order = np.lexsort((change, moments_s, np.concatenate([worker, worker])))
    level = np.empty(2 * n, dtype=np.int64)
    level[order] = np.cumsum(change[order])  # every worker's changes sum to 0, so each begins where it should
    return level[n:] - 1


def _paused(tables: Tables, names: Sequence[str], worker: Codes, from_s: Floats, until_s: Floats) -> Flags:
    """Which attempts a pause of their worker overlaps."""
    met: Flags = np.zeros(len(worker), dtype=bool)
    began: dict[str, float] = {}
    ends = ((math.inf, "heal", name, "resume") for name in names)
    for time_s, kind, name, detail in [*rows(tables.events), *ends]:
        if kind == "pause":
            began[name] = time_s
        elif (kind == "crash" or detail == "resume") and name in began:
            met |= (worker == names.index(name)) & (from_s <= time_s) & (until_s >= began.pop(name))
    return met


def _of_workers(scenario: Scenario, setting: str) -> Floats:
    groups = scenario.cluster.groups
    return np.repeat(np.array([float(getattr(g, setting)) for g in groups]), [g.workers for g in groups])


def _plain(distribution: Constant | Lognormal) -> dict[str, Any]:
    return {key: _rounded(value) if key != "kind" else value for key, value in distribution.model_dump().items()}


def _rounded(value: float) -> float:
    """To six digits: what follows is noise."""
    return float(f"{value:.6g}")

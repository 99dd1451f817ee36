"""Fitting the simulated world's parameters to a run, from its tables alone.

The samples come from tasks that arrived after the warm-up, and from attempts that met a free slot, completed, and saw
no pause of their worker:

    submit     accepted - arrival - cost                delay of a task's submission
    assign     started - assigned                       delay of an assignment
    result     ended - started - ran - cost             delay of a result
    overhead   ran - demand / speed                     what an execution takes beyond its demand
    cost_s     the shortest time between two messages   what the coordinator takes for a message

    commit     as a live coordinator tells it           what a group of changes takes to be stored

Workers report durations, never times. A live coordinator can therefore only halve what remains of a round trip after
the execution. If the tables show such halves, the sum of both directions is fitted. Each direction then gets half of
the mean and half of the variance, as if the two were independent and alike. No table shows the delay of heartbeats;
they are given that of results.

A delay is fitted as a lognormal by maximum likelihood: by the mean and the deviation of its logarithms, which a few
outliers hardly move. It is fitted as a constant if the samples are few or do not differ.

Of the commits p50 and p95 are known, and make a lognormal. An assignment waits for its own group and for the rest of
the one that is being written, if there is one; that much is taken off on average before its delay is fitted.

The cost is a minimum. A server that takes the time c for each message never ends two messages less than c apart, and
when messages queue, it ends them exactly c apart. The shortest gap is the maximum-likelihood estimate of c; it is too
large by 1 / (messages per second * messages) on average. If costs vary, the estimate is the cheapest message, and the
rest of the mean cost is found in the delays. The model then misses only that delays grow with the coordinator's load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.core.model import Outcome
from orchestrator.results.executions import per_worker
from orchestrator.results.runs import Run
from orchestrator.results.tables import (
    OUTCOMES,
    Codes,
    Event,
    FaultEvent,
    Floats,
    HealDetail,
    Tables,
    codes,
    event_rows,
    floats,
)
from orchestrator.scenario.distributions import Constant, Lognormal
from orchestrator.scenario.loading import to_yaml
from orchestrator.scenario.schema import Scenario

RESOLUTION_S = 1e-6
"""Shorter durations count as 0."""
FEWEST = 30
"""With fewer samples, no spread is fitted."""
HALVED = 0.05
"""If the two directions differ by less than this share of their sum, they were not measured one by one."""

NINETY_FIFTH = 1.6448536269514722
"""The standard normal quantile of 0.95."""

Flags = npt.NDArray[np.bool_]


class Unfit(ValueError):
    """Nothing can be learned from the run. One sentence."""


@dataclass(frozen=True)
class Fit:
    """A distribution and the samples behind it."""

    distribution: Constant | Lognormal
    samples: int
    ks: float | None
    """The Kolmogorov-Smirnov distance between the samples and the fit; None for a constant."""

    def summary(self) -> dict[str, Any]:
        """As plain numbers."""
        return {"samples": self.samples, "ks": None if self.ks is None else _rounded(self.ks)}


@dataclass(frozen=True)
class Calibration:
    """The parameters with which the simulated world behaves like a run."""

    source: str
    """The name and the world of the run."""
    tasks: int
    submit: Fit
    assign: Fit
    result: Fit
    overhead: Fit
    cost_s: float
    commit: Constant | Lognormal | None
    """None where nothing is stored."""
    messages: int
    """How many messages' times were searched for the shortest gap."""
    halved: bool
    """Whether `assign` and `result` are halves of one round trip. Their `ks` is then that of the sum."""

    @property
    def fits(self) -> dict[str, Fit]:
        return {"submit": self.submit, "assign": self.assign, "result": self.result, "overhead": self.overhead}

    def model(self) -> dict[str, Any]:
        """The model that a scenario includes by its key `model`, as a plain tree."""
        message_kinds = {
            "submit": self.submit,
            "assign": self.assign,
            "result": self.result,
            "heartbeat": self.result,
        }
        stored = {} if self.commit is None else {"commit": _plain(self.commit)}
        return {
            "coordinator": {"cost_s": _rounded(self.cost_s)} | stored,
            "network": {"message_kinds": {name: _plain(fit.distribution) for name, fit in message_kinds.items()}},
            "cluster": {"overhead": _plain(self.overhead.distribution)},
            "calibration": {
                "source": self.source,
                "tasks": self.tasks,
                "messages": self.messages,
                "round_trips_halved": self.halved,
                **{name: fit.summary() for name, fit in self.fits.items()},
            },
        }

    def yaml(self) -> str:
        """The text of a model file."""
        return to_yaml(self.model())


def calibrate(runs: Sequence[Run]) -> Calibration:
    """Fit one run, or several runs of similar clusters together.

    Raises Unfit if no task was completed undisturbed.
    """
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
    commit, waits_s = _commit([run.summary["commits"] for run in runs if "commits" in run.summary])
    out_s = out_s - waits_s
    message_kinds = _halves(out_s + back_s - cost_s) if halved else (fit(out_s), fit(back_s - cost_s))
    return Calibration(
        source=" and ".join(dict.fromkeys(run.title for run in runs)),
        tasks=len(accept_s),
        submit=fit(accept_s - cost_s),
        assign=message_kinds[0],
        result=message_kinds[1],
        overhead=fit(found["overhead"]),
        cost_s=cost_s,
        commit=commit,
        messages=len(gaps_s) + len(runs),
        halved=halved,
    )


def _commit(told: Sequence[Mapping[str, Any]]) -> tuple[Constant | Lognormal | None, float]:
    """How long a commit takes, and how long an assignment waits for the store on average."""
    told = [one for one in told if one["p50_s"] and one["p95_s"]]
    if not told:
        return None, 0.0
    median_s, high_s = (math.exp(np.mean([math.log(one[name]) for one in told])) for name in ("p50_s", "p95_s"))
    sigma = math.log(high_s / median_s) / NINETY_FIFTH
    mean_s = median_s * math.exp(sigma**2 / 2)
    busy = min(1.0, float(np.mean([one["per_s"] for one in told])) * mean_s)
    if not sigma:
        return Constant(kind="constant", value_s=mean_s), mean_s * (1 + busy / 2)
    cv = math.sqrt(math.expm1(sigma**2))
    # Of the group that is being written, what remains is (1 + cv^2) / 2 of its mean, where the assignment meets it.
    waits_s = mean_s * (1 + busy * (1 + cv**2) / 2)
    return Lognormal(kind="lognormal", mean_s=mean_s, cv=cv), waits_s


def fit(values_s: Floats) -> Fit:
    """The maximum-likelihood lognormal of float64[n] seconds, or a constant if the values show no spread."""
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
    """The delays of undisturbed tasks and attempts, in seconds."""

    accept: Floats
    """From arrival to acceptance, of each task."""
    out: Floats
    """From assignment to start, of each attempt; so are the next two."""
    back: Floats
    """From the end of the execution to the arrival of its result."""
    overhead: Floats
    """Execution beyond the demand."""

    @classmethod
    def of(cls, tables: Tables, scenario: Scenario) -> Delays:
        tasks, attempts, names = tables.tasks, tables.attempts, scenario.worker_names()
        worker = codes(attempts, "worker", names)
        assigned_s, started_s, ended_s, ran_s = (
            floats(attempts, name) for name in ("assigned_s", "started_s", "ended_s", "ran_s")
        )
        counted = (codes(attempts, "outcome", OUTCOMES) == Outcome.COMPLETED) & ~np.isnan(started_s + ran_s)
        counted &= np.isnan(floats(attempts, "given_up_s")) & (assigned_s >= scenario.warmup_s)
        counted &= ~_paused(tables, names, worker, assigned_s, ended_s)
        counted &= _load(worker, assigned_s, ended_s) < per_worker(scenario, "capacity")[worker]
        row = np.searchsorted(tasks.column("task").to_numpy(), attempts.column("task").to_numpy())
        demand_s = floats(tasks, "service_s")[row] / per_worker(scenario, "speed")[worker]
        arrival_s = floats(tasks, "arrival_s")
        accept_s = (floats(tasks, "accepted_s") - arrival_s)[arrival_s >= scenario.warmup_s]
        overhead_s = (ran_s - demand_s)[counted]
        return cls(
            accept=accept_s[~np.isnan(accept_s)],
            out=(started_s - assigned_s)[counted],
            back=(ended_s - started_s - ran_s)[counted],
            overhead=overhead_s[~np.isnan(overhead_s)],
        )


def _halves(sum_s: Floats) -> tuple[Fit, Fit]:
    """Two independent and equal fits, whose sum has the mean and the variance of the fitted sum."""
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
    """Seconds per message between successive moments at which the coordinator handled tasks or results.

    Messages that were handled at the same reading of the clock share the time until the next one.
    """
    completed = codes(tables.attempts, "outcome", OUTCOMES) == Outcome.COMPLETED
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
    level[order] = np.cumsum(change[order])  # the changes of each worker sum to 0, so the next worker starts at 0
    return level[n:] - 1


def _paused(tables: Tables, names: Sequence[str], worker: Codes, from_s: Floats, until_s: Floats) -> Flags:
    """Whether a pause of its worker overlaps each attempt."""
    met: Flags = np.zeros(len(worker), dtype=bool)
    began: dict[str, float] = {}
    ends = (Event(math.inf, FaultEvent.HEAL, name, HealDetail.RESUME) for name in names)
    for time_s, kind, name, detail in [*event_rows(tables.events), *ends]:
        if name is None:
            continue
        if kind == FaultEvent.PAUSE:
            began[name] = time_s
        elif (kind == FaultEvent.CRASH or detail == HealDetail.RESUME) and name in began:
            met |= (worker == names.index(name)) & (from_s <= time_s) & (until_s >= began.pop(name))
    return met


def _plain(distribution: Constant | Lognormal) -> dict[str, Any]:
    return {key: _rounded(value) if key != "kind" else value for key, value in distribution.model_dump().items()}


def _rounded(value: float) -> float:
    """Rounded to six digits: the others are noise."""
    return float(f"{value:.6g}")

# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first latency curve
#
# A *task orchestrator* takes tasks from callers, hands each to one of its workers, and reports the result. This
# project has one coordinator that lives in two worlds: a live cluster, and a simulation that runs the very same
# coordinator against modelled workers, networks and faults. Here we stay in the simulation, where a minute of
# cluster time takes a fraction of a second and can be repeated exactly.
#
# The question of this notebook: **how long does a task take?** It sounds like a question with one number for an
# answer. It has a curve for an answer, and the four sections below show what shapes it: chance, load, the way one
# measures, and a crash.

# %%
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from scipy import stats

import sim
from orchestrator import Scenario
from orchestrator.pictures import draw

SCENARIOS = Path("../scenarios")
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
plt.rcParams.update({"figure.figsize": (7, 3.5), "figure.dpi": 72, "axes.grid": True, "grid.alpha": 0.3})

# %% [markdown]
# ## One run
#
# A scenario is a small YAML file. This one is an ordinary day of a small cluster: 4 workers with 2 slots each, 96
# tasks a second that arrive at random, each worth 50 ms of work on average, though some are worth far more.

# %%
print((SCENARIOS / "reference.yaml").read_text())

# %%
run = sim.run(Scenario.load(SCENARIOS / "reference.yaml"))
print(run)
columns = ["task", "priority", "arrival_s", "started_s", "settled_s", "wait_s", "latency_s"]
display(run.tasks[columns].head(4).round(4))

# %% [markdown]
# One row a task. `latency_s` runs from the moment at which the task *was meant to arrive* to the moment at which its
# result was recorded; `wait_s` ends when a worker first started it. The summary leaves out the first seconds
# (`warmup_s`), in which the cluster is still emptier than it will be.

# %%
latency = run.summary["latency_s"]
statistics = ["mean", "p50", "p90", "p95", "p99", "p999", "max"]
display(pd.Series(latency, name="latency (ms)")[statistics].astype(float).mul(1000).round(1).to_frame().T)

after_warmup = run.tasks.query("arrival_s >= @run.scenario.warmup_s")["latency_s"]
below_mean = (after_warmup < latency["mean"]).mean()
print(f"{below_mean:.0%} of the tasks are faster than the mean, but one in a hundred takes over")
ratios = {name: latency[name] / latency["mean"] for name in ("p99", "p999")}
print(f"{ratios['p99']:.1f} times the mean, and one in a thousand over {ratios['p999']:.1f} times.")

assert below_mean > 0.55  # the mean is no typical task ...
assert ratios["p99"] > 3  # ... and says nothing of the slow ones

# %% [markdown]
# The mean describes nobody: most tasks are faster, and those that somebody complains about are many times slower. A
# *percentile* is a promise to a share of the tasks: p99 is the time within which 99 % of them are done. And the
# rare slow ones are met often. A page that needs 100 tasks and waits for all of them is slower than p99 with
# probability $1 - 0.99^{100} = 63\ \%$.
#
# So we draw all percentiles: the **latency curve**. Its horizontal axis is stretched towards the end, because that
# is where the trouble is.

# %%
display(draw(run)["latency-percentiles"])

# %% [markdown]
# The gap between the two lines is the work itself. Most tasks wait only for the millisecond that the messages
# take: at 60 % load there is nearly always a free slot. Waiting is a matter of the tail, and of load, which comes
# next.
#
# ## What load does
#
# How does the wait grow when more tasks arrive? For the simplest case, theory has an answer (Erlang, 1917): tasks
# arrive at random, each takes an exponential time with a mean of 1 s, and $c$ slots take them first come, first
# served. With $\rho$ the share of its time that a slot is busy, an arriving task has to wait with probability
#
# $$P = \frac{\frac{(c\rho)^c}{c!\,(1-\rho)}}{\sum_{k<c} \frac{(c\rho)^k}{k!} + \frac{(c\rho)^c}{c!\,(1-\rho)}},
# \qquad \text{mean wait} = \frac{P}{c(1-\rho)}, \qquad \text{99th percentile} = \frac{\ln (100 P)}{c(1-\rho)}.$$
#
# The simulator knows nothing of this formula: it runs a coordinator that queues, assigns, and hears results. If it
# is honest, it must land on the formula all the same. We take 10 workers with one slot each, and sweep the arrival
# rate. Any key of a scenario can be overridden, and `sweep.` before a key gives it several values.

# %%
queue = Scenario.load(
    SCENARIOS / "reference.yaml",
    {
        "name": "load",
        "duration_s": 1300,
        "warmup_s": 200,
        "workload": {
            "arrivals": {"kind": "poisson", "rate_per_s": 5},
            "service": {"kind": "exponential", "mean_s": 1},
        },
        "cluster": {"workers": 10, "capacity": 1},
        "network": {},
        "policies": {"queue": {"kind": "fifo"}},
        "sweep.workload.arrivals.rate_per_s": [5, 6, 7, 8, 8.5, 9],
        "replications": 6,
    },
)
load = sim.sweep(queue).table()
load["rho"] = load["workload.arrivals.rate_per_s"] / 10
display(load[["rho", "replication", "tasks.submitted", "utilization", "wait_s.mean", "wait_s.p99"]].head(3).round(3))

# %% [markdown]
# Each load was run six times with other random numbers (*replications*). Two tasks that arrive one after the
# other meet the same queue, so ten thousand of them are worth far fewer than ten thousand independent
# measurements. The replications are independent of each other, and so the confidence intervals come from the spread
# between them, never from that between tasks.


# %%
def interval(values, confidence):
    """Mean of independent values, and the half width of its confidence interval (Student's t)."""
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return np.mean(values), half


def erlang(rho, c=10):
    """Mean and 99th percentile of the wait in units of the mean service time."""
    waits = (c * rho) ** c / math.factorial(c) / (1 - rho)
    p_wait = waits / (sum((c * rho) ** k / math.factorial(k) for k in range(c)) + waits)
    return p_wait / (c * (1 - rho)), max(math.log(100 * p_wait), 0) / (c * (1 - rho))


fig, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
fine = np.linspace(0.45, 0.93, 100)
inside = []
for column, (metric, title) in enumerate({"wait_s.mean": "mean wait", "wait_s.p99": "p99 of the wait"}.items()):
    axes = panels[column]
    axes.plot(fine, [erlang(rho)[column] for rho in fine], color="grey", label="theory, M/M/10")
    for rho, runs in load.groupby("rho"):
        truth = erlang(rho)[column]
        mean, half95 = interval(runs[metric], 0.95)
        axes.errorbar(rho, mean, half95, fmt="o", color=BLUE, capsize=4, label=None if inside else "simulated")
        inside.append(abs(mean - truth) <= half95)
        assert abs(mean - truth) <= interval(runs[metric], 0.999)[1], (rho, metric, mean, truth)
    axes.set(xlabel="load ρ", ylabel="seconds", title=title)
panels[0].legend()
plt.show()
print(f"Theory lies inside {sum(inside)} of {len(inside)} intervals of 95 %.")

# %% [markdown]
# The curve is the reason why nobody runs a cluster at 100 %: from $\rho = 0.5$ to $0.9$ the arrivals not even
# double, and the mean wait grows some ninety times. How to read the intervals:
#
# * One of 95 % misses the truth one time in twenty, so out of a dozen one may well miss. The cell above insists on
#   the 99.9 % interval for each.
# * They grow with the load: near saturation a queue remembers its past for long, and a run of the same length says
#   less.
# * They are not independent of each other. Replication 3 draws the same chances at every load, which makes the
#   *differences* between loads sharp; but where one point lies low, its neighbours do too.
#
# ## What the stopwatch does
#
# Now let the whole cluster stand still for 1.5 s, once in a minute: a stop-the-world garbage collection, a switch
# that reboots. Two teams measure what it costs.
#
# * The **open loop** sends 96 tasks a second, whatever happens, as a crowd of independent users does.
# * The **closed loop** is a load generator with 10 clients. Each sends a task, waits for the result, pauses for
#   a moment, and sends the next. In quiet times it makes the same 96 tasks a second.

# %%
stalled = Scenario.load(
    SCENARIOS / "reference.yaml",
    {
        "name": "open loop",
        "duration_s": 60,
        "policies": {"queue": {"kind": "fifo"}},
        "faults": [{"kind": "pause", "at_s": 30, "all": True, "for_s": 1.5}],
        "workload.priorities": {"normal": 1},
    },
)
clients = {"kind": "closed", "clients": 10, "think": {"kind": "exponential", "mean_s": 0.05}}
open_loop = sim.run(stalled)
closed_loop = sim.run(stalled.with_({"name": "closed loop", "workload.arrivals": clients}))

measured = {
    "open loop, from the intended arrival": open_loop.tasks["latency_s"],
    "open loop, from the start of the work": open_loop.tasks["settled_s"] - open_loop.tasks["started_s"],
    "closed loop of 10 clients": closed_loop.tasks["latency_s"],
}
quantiles = pd.DataFrame({name: times.quantile([0.5, 0.9, 0.99, 0.999]) for name, times in measured.items()}).T
quantiles.columns = ["p50", "p90", "p99", "p99.9"]
display(quantiles.mul(1000).round(0).astype(int).assign(tasks=[len(times) for times in measured.values()]))

fig, axes = plt.subplots(layout="constrained")
for (name, times), color in zip(measured.items(), (BLUE, GREEN, ORANGE), strict=True):
    axes.plot(np.sort(times)[::-1], np.arange(1, len(times) + 1) / len(times), color=color, label=name)
axes.set(xscale="log", yscale="log", xlim=(0.003, 3), xlabel="time (s)", ylabel="share of tasks that took longer")
axes.legend()
plt.show()

assert open_loop.summary["latency_s"]["p99"] > 3 * closed_loop.summary["latency_s"]["p99"]
assert (closed_loop.tasks["latency_s"] > 1).sum() <= 10 < (open_loop.tasks["latency_s"] > 0.5).sum()

# %% [markdown]
# One stall, one cluster, and p99 (in ms) differs many times over. The closed loop is not lying, it answers another
# question: while the cluster stands, its ten clients stand too, so the stall costs at most ten slow tasks. The 140
# tasks that a crowd would have sent meanwhile are never sent, and so never counted: *coordinated omission*. A
# stopwatch that starts when the work starts has the same blind spot, as it leaves out the queue.
#
# Hence the rule of this project: latency counts from the **intended arrival**, and every result says whether its
# arrivals were open or closed.
#
# ## What a crash does
#
# Last, a worker dies: `w3` crashes at 10 s with work in its hands, and is back ten seconds later. Its heartbeats
# stop, and after 3.5 s of silence the coordinator declares it dead and gives its tasks to others.

# %%
crash = sim.run(Scenario.load(SCENARIOS / "worker-crash.yaml"))
display(crash.events.query("time_s > 0").round(3))
display(draw(crash)["timeline"])

# %% [markdown]
# A simulation can do what no cluster can: live the same half minute again without the crash. The arrivals and the
# size of each task are drawn from streams of their own and stay the same, so the two runs can be compared task by
# task, and the difference is the doing of the crash alone.

# %%
calm = sim.run(crash.scenario.with_({"faults": []}))
assert (crash.tasks["arrival_s"] == calm.tasks["arrival_s"]).all()
assert (crash.tasks["service_s"] == calm.tasks["service_s"]).all()

extra_s = crash.tasks["latency_s"] - calm.tasks["latency_s"]
in_its_hands = crash.tasks["task"].isin(crash.attempts.query("outcome == 'worker_died'")["task"])
delayed = extra_s > 0.01

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.axvspan(10, 20, color="grey", alpha=0.15, lw=0, label="w3 is down")
left.plot(crash.tasks["arrival_s"][~in_its_hands], extra_s[~in_its_hands], ".", ms=3, color=BLUE, label="bystanders")
left.plot(crash.tasks["arrival_s"][in_its_hands], extra_s[in_its_hands], "D", color=RED, label="in the hands of w3")
left.set(xlabel="arrival (s)", ylabel="s", title="what the crash added to each task's latency")
left.legend()
shares = 1 - np.geomspace(0.5, 1 / len(extra_s), 200)
for name, it, color in (("with the crash", crash, RED), ("without", calm, GREEN)):
    right.plot(1 / (1 - shares), it.tasks["latency_s"].quantile(shares), color=color, label=name)
right.set(xscale="log", yscale="log", ylabel="latency (s)", title="the latency curve")
right.set_xticks([2, 10, 100, 1000], ["p50", "p90", "p99", "p99.9"])
right.minorticks_off()
right.legend()
plt.show()

harmed = {"in the hands of w3": in_its_hands, "bystanders delayed by over 10 ms": delayed & ~in_its_hands}
for who, which in harmed.items():
    hurt_s = extra_s[which]
    print(f"{who}: {len(hurt_s)} of {len(extra_s)} tasks, {hurt_s.mean():.2f} s each, {hurt_s.sum():.0f} s in all")

assert crash.summary["tasks"]["completed"] == crash.summary["tasks"]["submitted"]  # late, but nothing is lost
assert in_its_hands.sum() <= 2 + 2  # its two slots, and whatever was on its way to it
assert extra_s[in_its_hands].min() > 2
assert crash.summary["latency_s"]["p50"] < 1.6 * calm.summary["latency_s"]["p50"]
assert crash.summary["latency_s"]["max"] > 3 * calm.summary["latency_s"]["max"]
assert extra_s[delayed & ~in_its_hands].sum() > 5 * extra_s[in_its_hands].sum()

# %% [markdown]
# Two different kinds of harm, and two different cures:
#
# * **The few in its hands** wait for the *detector*. Nobody works on them until the silence has lasted long enough.
#   They are the far end of the tail, and a shorter timeout shortens their wait, at a price that the next notebook,
#   *Choosing a heartbeat timeout*, is about.
# * **The many bystanders** wait for *capacity*. Six slots carry what eight did: the load rises from 0.69 to 0.92, and
#   the curve of the second section says what that means. No detector helps them; spare slots do.
#
# The few cost their callers seconds, and the many together far more. Neither shows in the median, which has moved by
# some milliseconds: had we looked only there, the crash would hardly have taken place.
#
# **To take away**: look at the curve, not at the mean; leave room for the load; count from the intended arrival; and
# try the bad day before it comes. The same runs from the command line:
#
# ```
# orchestrator simulate scenarios/worker-crash.yaml --out out/crash
# orchestrator simulate scenarios/worker-crash.yaml 'faults=[]' --out out/calm
# orchestrator plot out/crash out/calm --out out/both
# ```

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
# # A rack's loss: which timeout?
#
# Ten of fifty workers stand in one rack, and the rack loses its power for two minutes. The coordinator does not know
# that. It only stops hearing from ten workers, and after a *timeout* of silence it declares them dead and gives their
# tasks to others. **Is 10 s a better timeout than 30 s?** Somebody will say that it must be, because everything else
# waits. Somebody else will say that it does not matter, and will show a p99 that did not move. Both are wrong, and a
# simulation can show it task by task.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

import sim
from orchestrator import Scenario
from orchestrator.analysis.answers import answer
from orchestrator.pictures import draw

BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
plt.rcParams.update({"figure.figsize": (7, 3.5), "figure.dpi": 72, "axes.grid": True, "grid.alpha": 0.3})

SCENARIO = Path("../scenarios/rack-timeout.yaml")
print(SCENARIO.read_text())

# %% [markdown]
# ## The answer
#
# The scenario has a *sweep*: each of its values makes a *cell*, which is run with the same arrivals, the same demands
# and the same crash. A sweep is a mapping from the names of its cells to their runs.

# %%
rack = Scenario.load(SCENARIO)
print(rack)
swept = sim.sweep(rack)
for name, cell in swept.items():
    print(name, cell.runs)

told = answer(swept)
display(told)

# %% [markdown]
# Two dozen tasks wait 20 s longer, each of them: as long as the timeouts differ. And no percentile sees it, not even
# p99.9, because two dozen of a hundred thousand are fewer than one in a thousand.

# %%
quick, patient = (cell.runs[0] for cell in swept.values())
display(draw({"after 10 s": quick, "after 30 s": patient})["latency-percentiles"])

longer_s = patient.tasks["latency_s"] - quick.tasks["latency_s"]
waits = longer_s > 1
low_s, high_s = longer_s[waits].min(), longer_s[waits].max()
print(f"{waits.sum()} of {len(waits):,} tasks wait longer, by {low_s:.2f} to {high_s:.2f} s.")

assert (quick.tasks["arrival_s"] == patient.tasks["arrival_s"]).all()  # the same tasks, so that they can be paired
assert quick.summary["latency_s"]["p999"] == patient.summary["latency_s"]["p999"]
assert np.allclose(longer_s[waits], 20)
assert longer_s[~waits].abs().max() < 1  # and nobody else is touched

# %% [markdown]
# The curves lie on each other as far as they reach. Whoever watches percentiles of *all* tasks would call the question
# moot. Whoever owns one of the two dozen would not.
#
# ## Who they are

# %%
lost = quick.attempts[quick.attempts["outcome"] != "completed"]
display(lost["outcome"].value_counts().loc[lambda found: found > 0].to_frame("attempts").T)

died = set(lost.loc[lost["outcome"] == "worker_died", "task"])
refused = lost[lost["outcome"] == "call_failed"]
assert died == set(quick.tasks.loc[waits, "task"])  # those who wait are those who were in the rack's hands
assert refused["worker"].is_unique  # one failed call for each dead worker ...
assert len(refused) == 10  # ... and for all of them
assert (quick.tasks.set_index("task").loc[refused["task"], "latency_s"] < 3).all()  # which costs its task nothing

fig, axes = plt.subplots(layout="constrained")
near = quick.tasks["arrival_s"].between(27, 33)
for run, color, label in ((patient, ORANGE, "30 s"), (quick, BLUE, "10 s")):
    of_rack = near & waits
    axes.plot(run.tasks["arrival_s"][near & ~waits], run.tasks["latency_s"][near & ~waits], ".", ms=2, color="grey")
    axes.plot(run.tasks["arrival_s"][of_rack], run.tasks["latency_s"][of_rack], "D", ms=4, color=color, label=label)
axes.axvline(30, color=RED, lw=1)
axes.annotate("the rack is lost", (30.05, 16), color=RED)
axes.set(xlabel="arrival (s)", ylabel="latency (s)", title="tasks that arrived around the loss")
axes.legend(title="declared dead after", loc="center right")
plt.show()

# %% [markdown]
# They are the tasks that ten workers had in their hands when the power went. A task that arrives later is safe in
# either case: the coordinator may give it to a dead worker *once*, but that call fails at once, the task goes back to
# the queue, and the worker gets nothing more until it is heard again. So a long timeout does not leave a hole into
# which tasks keep falling. It only makes those wait that had fallen already.
#
# How many are they? The rack has 40 slots, busy for 66 % of their time, so 26 on average. The run above happened to
# have fewer. Let us draw the chance again, a few times:

# %%
again = rack.with_(
    {
        "replications": 8,
        "duration_s": 60,
        "faults.0.restart_after_s": 20,
        "sweep.policies.detection.timeout_s": [10, 20],
    }
)
several = sim.sweep(again, jobs=2)
hands = [(run.attempts["outcome"] == "worker_died").sum() for run in several["timeout_s=10"].runs]
expected = 40 * rack.offered_load()
error = np.std(hands, ddof=1) / np.sqrt(len(hands))
print(f"in the rack's hands: {sorted(map(int, hands))}, on average {np.mean(hands):.1f} ± {error:.1f}")
print(f"slots of the rack times their load: {expected:.1f}")
for sentence in answer(several).sentences:
    print("-", sentence)

assert abs(np.mean(hands) - expected) < 4 * error

# %% [markdown]
# That is the first rule, and it needs no simulation any more: **the timeout is paid by the tasks in the hands of the
# dead: slots times load, each for the length of the timeout.** For tasks of 0.2 s a wait of 10 or of 30 s is a
# disaster in both cases; for a nightly report neither matters.
#
# ## The mistake on the other side
#
# Then why not 2 s? Because the coordinator cannot tell a dead rack from one that it does not hear. Now the switch of
# the rack restarts: for 20 s nothing gets through, and then all workers are there again, with their work done.

# %%
TIMEOUTS = [3, 8, 13, 18, 22, 30]
outage = rack.with_(
    {
        "duration_s": 50,
        "faults": [{"kind": "partition", "at_s": 15, "group": "rack", "for_s": 20}],
        "sweep.policies.detection.timeout_s": TIMEOUTS,
    }
)
cells = sim.sweep(outage)
table = pd.DataFrame(
    {
        timeout_s: {
            "longest latency (s)": cell.pooled["latency_s"]["max"],
            "workers declared dead by mistake": cell.pooled["detection"]["false_positives"],
            "tasks run twice": (cell.runs[0].attempts["outcome"] == "worker_died").sum(),
            "slot time wasted (s)": cell.pooled["tasks"]["wasted_s"],
        }
        for timeout_s, cell in zip(TIMEOUTS, cells.values(), strict=True)
    }
).T
table.index.name = "timeout (s)"
display(table.round(1))

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.plot(table.index, table["longest latency (s)"], "o-", color=BLUE)
left.set(xlabel="timeout (s)", ylabel="s", title="longest latency", ylim=(0, None))
right.plot(table.index, table["tasks run twice"], "o-", color=ORANGE)
right.set(xlabel="timeout (s)", ylabel="tasks", title="run twice", ylim=(-1, None))
for axes in (left, right):
    axes.axvline(20, color=RED, lw=1)
    axes.annotate("the outage ends", (19.7, 1.5), color=RED, rotation=90, ha="right")
plt.show()

short, long = table.loc[:20], table.loc[20:]
assert (short["workers declared dead by mistake"] == 10).all()
assert (long[["workers declared dead by mistake", "tasks run twice", "slot time wasted (s)"]] == 0).all().all()
assert short["longest latency (s)"].is_monotonic_increasing
assert short["longest latency (s)"].iloc[-1] < long["longest latency (s)"].min()

# %% [markdown]
# A timeout that is shorter than the outage declares ten healthy workers dead. Here that is even *good* for latency:
# the tasks are run again elsewhere and done long before the switch is back. The price is the work that is done
# twice, and it is the same for every timeout below 20 s. Above, nobody is declared dead, nothing is done twice, and
# the tasks wait for the switch.
#
# So the second rule: **a mistake costs the work in the hands of those who are wrongly declared dead, once.** For
# thirty tasks of 0.2 s that is nothing. If a task takes an hour, or must not happen twice, it is everything, and the
# timeout has to be longer than the outages that you want to sit out. The length in between matters little: what
# counts is on which side of the usual outage it lies.
#
# ## What no timeout cures
#
# All this was about a rack of 10 of 50 workers. At a load of 66 % the other 40 carry the work (82 %). What if the
# rack holds 20?

# %%
SIZES = {10: BLUE, 20: RED}
groups = [{"name": "rest", "workers": 30, "capacity": 4}, {"name": "rack", "workers": 20, "capacity": 4}]
larger = sim.sweep(rack.with_({"cluster.groups": groups}))
runs = {(size, name): cell.runs[0] for size, cells in ((10, swept), (20, larger)) for name, cell in cells.items()}

found = pd.DataFrame({key: run.summary["latency_s"] for key, run in runs.items()}).T[["p50", "p99", "max"]]
found.index.names = ["workers lost", "timeout"]
display(found.astype(float).round(2))

fig, axes = plt.subplots(layout="constrained")
for (size, name), run in runs.items():
    seconds = run.tasks.groupby(run.tasks["arrival_s"].astype(int))["latency_s"].median()
    style = "-" if name == "timeout_s=10" else ":"
    axes.plot(seconds, style, color=SIZES[size], lw=1.5 if style == "-" else 3, label=f"{size} lost, {name[10:]} s")
axes.axvspan(30, 150, color="grey", alpha=0.15, lw=0)
axes.set(xlabel="arrival (s)", ylabel="median latency (s)", title="the rack is away from 30 s to 150 s")
axes.legend()
plt.show()

p50 = found["p50"].astype(float)
assert p50[20, "timeout_s=10"] > 10 * p50[10, "timeout_s=10"]
assert abs(p50[20, "timeout_s=10"] / p50[20, "timeout_s=30"] - 1) < 0.01  # whichever timeout

# %% [markdown]
# Thirty workers have a load of 110 %. The queue grows for as long as the rack is away, and then it takes a while to
# shrink. *Everybody* waits for seconds, and both timeouts lie on each other: the slots of a dead worker are gone
# whether it is declared dead or not. Capacity cures that, no detector does.
#
# **To take away.**
#
# * Look at the tasks that the fault hit, paired with themselves, and not at the percentiles of all.
# * A dead worker's tasks wait for the timeout; there are as many as its busy slots.
# * A mistake costs that work a second time. Put the timeout above the outages that you would rather sit out, or well
#   below them; in between nothing is gained.
# * Ask first whether those who remain can carry the load.
#
# The same from the command line:
#
# ```
# orchestrator simulate scenarios/rack-timeout.yaml
# orchestrator simulate scenarios/rack-timeout.yaml --replications 8 duration_s=60
# orchestrator explain-task out/rack-timeout/latest/timeout_s=30/r0 slowest
# ```

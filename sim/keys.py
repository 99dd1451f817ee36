"""The order of what happens at one simulated moment.

Every event has a key, and events of one time run in the order of their keys. A key is a rank and, within the rank,
the number of the attempt, worker, client or task that the event concerns. The ranks, in order:

1. faults;
2. what workers do: answers to registrations, assignments and cancels arrive, work ends, heartbeats fall due;
3. what the coordinator hears: a group is stored, its server gets free, then starts, results, refusals, cancels,
   heartbeats, registrations, new tasks (a closed client submits just before), its own alarm, and last it begins to
   store what has changed;
4. the end of the run, and a look at its progress.

A key never contains a running count of events. The fused path leaves events out, so a count would differ between a
fused and an unfused run of the same scenario, and with it the order of simultaneous events. The keys of an attempt come
from its task and its number alone.
"""

from __future__ import annotations

from orchestrator.core.model import Attempt

# With 16 ranks, a million workers and tasks up to 2^32, keys stay below 2^60: small integers for Python.
RANK = 1 << 56
# A worker's further kinds of event within a rank have numbers beyond those of any worker.
_SECOND_KIND, _THIRD_KIND, _AGAIN = 1 << 40, 2 << 40, 3 << 40


class Rank:
    """The first key of each rank."""

    FAULT = 0 * RANK
    REGISTERED = 1 * RANK - (1 << 40)
    DELIVER = 1 * RANK
    FINISH = 2 * RANK
    BEAT = 3 * RANK
    STORED = 4 * RANK - 1
    """A group is durable."""
    SERVER = 4 * RANK
    START = 5 * RANK
    RESULT = 6 * RANK
    REFUSAL = 7 * RANK
    CANCELLED = 8 * RANK
    HEARTBEAT = 9 * RANK
    REGISTER = 10 * RANK
    CLIENT = 11 * RANK
    RESUBMIT = 12 * RANK - 1
    """Clients that reach the coordinator again submit what is not settled."""
    SUBMIT = 12 * RANK
    ALARM = 13 * RANK
    GROUP = 14 * RANK - 2
    """What has changed by then is written."""
    ARRIVALS_OVER = 14 * RANK - 1
    END = 14 * RANK
    PROGRESS = 15 * RANK


_FUSED_RESULT = Rank.RESULT + 2


def attempt_number(attempt: Attempt) -> int:
    """A number for the keys of an attempt's events. Its last two bits are free, to tell its messages apart."""
    return attempt.task.id << 24 | attempt.number << 2  # type: ignore[operator]  # ids are row numbers here


# ---- faults


def fault_key(number: int) -> int:
    """The fault of that number in the plan."""
    return Rank.FAULT + number


# ---- at the workers; `attempt` is an `attempt_number`


def deliver_registered_key(worker: int) -> int:
    """The answer to a registration arrives, before any assignment does."""
    return Rank.REGISTERED + worker


def deliver_key(attempt: int) -> int:
    """An assignment arrives."""
    return Rank.DELIVER + attempt


def deliver_copy_key(attempt: int) -> int:
    """The network's copy of an assignment arrives."""
    return Rank.DELIVER + attempt + 1


def report_failed_key(attempt: int) -> int:
    """A worker stops waiting for the acknowledgement of its report."""
    return Rank.DELIVER + attempt + 2


def deliver_cancel_key(attempt: int) -> int:
    """A cancel arrives."""
    return Rank.DELIVER + attempt + 3


def finish_key(attempt: int) -> int:
    """An execution ends."""
    return Rank.FINISH + attempt


def deliver_acknowledgement_key(attempt: int) -> int:
    """The acknowledgement of a report arrives."""
    return Rank.FINISH + attempt + 1


def deliver_recall_key(attempt: int) -> int:
    """A recall arrives."""
    return Rank.FINISH + attempt + 2


def worker_alarm_key(worker: int) -> int:
    """A worker's alarm rings: for a heartbeat, or to repeat a report."""
    return Rank.BEAT + worker


def deliver_unknown_key(worker: int) -> int:
    """A worker hears that the coordinator does not know it."""
    return Rank.BEAT + _SECOND_KIND + worker


def connect_key(worker: int) -> int:
    """A worker has a connection again."""
    return Rank.BEAT + _THIRD_KIND + worker


# ---- at the coordinator


def served_key(number: int) -> int:
    """The coordinator's server has handled its message of that number."""
    return Rank.SERVER + number


def start_key(attempt: int) -> int:
    """The news arrives that an execution began."""
    return Rank.START + attempt


def start_again_key(attempt: int) -> int:
    """A worker sends that news once more."""
    return Rank.START + attempt + 1


def result_key(attempt: int) -> int:
    """A report arrives."""
    return Rank.RESULT + attempt


def result_copy_key(attempt: int) -> int:
    """The network's copy of a report arrives."""
    return Rank.RESULT + attempt + 1


def fused_result_key(attempt: Attempt) -> int:
    """A result arrives on the fused path."""
    # As `attempt_number` has it, which this does not call because every task pays for it.
    return _FUSED_RESULT + (attempt.task.id << 24 | attempt.number << 2)  # type: ignore[operator]


def call_ended_key(attempt: int) -> int:
    """The coordinator stops waiting for the answer to an assignment."""
    return Rank.REFUSAL + attempt


def refusal_key(attempt: int) -> int:
    """A worker refused an assignment, or hands it back."""
    return Rank.REFUSAL + attempt + 1


def refusal_of_copy_key(attempt: int) -> int:
    """A worker refused the network's copy of an assignment: one that stood still refuses both at once."""
    return Rank.REFUSAL + attempt + 3


def call_failed_key(attempt: int) -> int:
    """The host of a crashed process turned an assignment away."""
    return Rank.REFUSAL + attempt + 2


def cancelled_key(task: int, attempt: int, recalled: bool) -> int:
    """The answer to a cancel or to a recall arrives. `attempt`: its number in the task."""
    return Rank.CANCELLED + (task << 24 | attempt << 1 | recalled)


def heartbeat_key(worker: int, beat: int) -> int:
    """A heartbeat arrives."""
    return Rank.HEARTBEAT + (worker << 36) + 2 * beat


def heartbeat_copy_key(worker: int, beat: int) -> int:
    """The network's copy of a heartbeat arrives."""
    return Rank.HEARTBEAT + (worker << 36) + 2 * beat + 1


def register_key(worker: int) -> int:
    """A registration arrives."""
    return Rank.REGISTER + worker


def drain_key(worker: int) -> int:
    """The news arrives that a worker drains."""
    return Rank.REGISTER + _SECOND_KIND + worker


def leave_key(worker: int) -> int:
    """The news arrives that a worker has left."""
    return Rank.REGISTER + _THIRD_KIND + worker


def again_key(key: int) -> int:
    """A worker sends its registration, drain or leave once more; `key` is that of its arrival."""
    return key + _AGAIN


# ---- the load


def client_key(client: int) -> int:
    """A closed client has thought, and submits."""
    return Rank.CLIENT + client


def patience_key(task: int) -> int:
    """The client of that task has waited long enough."""
    return Rank.CLIENT + _SECOND_KIND + task


def submit_key(task: int) -> int:
    """A task of an open stream arrives."""
    return Rank.SUBMIT + task


def submit_again_key(task: int) -> int:
    """A task arrives again that had been refused."""
    return Rank.SUBMIT + _SECOND_KIND + task


def client_submit_key(task: int) -> int:
    """A closed client's task arrives."""
    return Rank.SUBMIT + 2 * task


def client_submit_copy_key(task: int) -> int:
    """The network's copy of that arrives."""
    return Rank.SUBMIT + 2 * task + 1

"""How much of a message an item takes at most, in bytes, and what becomes of a result that no message can carry."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.cluster.jobs import Ended
from orchestrator.core.model import AttemptKey, TaskState

RESULT_CHARACTERS = 1 << 20
ERROR_CHARACTERS = 1 << 16
CHARACTER_BYTES = 4  # to look whether there are fewer would cost more than it saves
ITEM_BYTES = 64  # what an item's tags, lengths and numbers take, beside its texts


def sendable(ended: Ended) -> Ended:
    """The same, or, where a message can't carry it, that the task failed for that reason."""
    succeeded, result, error, retryable, ran_s = ended
    if len(result) > RESULT_CHARACTERS:
        wanted = f"{len(result)} characters, the limit is {RESULT_CHARACTERS}"
        return Ended(False, "", f"the result is too large: {wanted}", False, ran_s)
    if not _is_text(result):
        return Ended(False, "", "the result is no text: it has surrogates", False, ran_s)
    if len(error) > ERROR_CHARACTERS or not _is_text(error):
        error = error[:ERROR_CHARACTERS].encode("utf-8", "replace").decode()
        return Ended(succeeded, result, error, retryable, ran_s)
    return ended


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def key_bytes(key: AttemptKey) -> int:
    return CHARACTER_BYTES * len(key[0]) + ITEM_BYTES  # type: ignore[arg-type]


def keys_bytes(keys: Iterable[AttemptKey]) -> int:
    return sum(map(key_bytes, keys))


def assignment_bytes(assignment: tuple[AttemptKey, str, str, int]) -> int:
    (task_id, _), kind, payload, _ = assignment
    return CHARACTER_BYTES * (len(task_id) + len(kind) + len(payload)) + ITEM_BYTES  # type: ignore[arg-type]


def task_bytes(kind: str, payload: str, key: str) -> int:
    return CHARACTER_BYTES * (len(kind) + len(payload) + len(key)) + ITEM_BYTES


def outcome_bytes(item: tuple[int, tuple[str, TaskState, str, str, str, int, float]]) -> int:
    _, _, result, error, worker_id, _, _ = item[1]
    return CHARACTER_BYTES * (len(result) + len(error) + len(worker_id)) + ITEM_BYTES


def known_bytes(item: tuple[int, str]) -> int:
    return CHARACTER_BYTES * len(item[1]) + ITEM_BYTES


def refusal_bytes(item: tuple[int, str, bool, bool]) -> int:
    return CHARACTER_BYTES * len(item[1]) + ITEM_BYTES


def report_bytes(item: tuple[AttemptKey, tuple[Ended, float, int]]) -> int:
    (task_id, _), (ended, _, _) = item
    return CHARACTER_BYTES * (len(task_id) + len(ended.result) + len(ended.error)) + ITEM_BYTES  # type: ignore[arg-type]

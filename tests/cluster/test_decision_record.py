"""The decision record: what is written, by one process after the other, what is understood of it, and its replay."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import re
import resource
from pathlib import Path

import pytest

from orchestrator.cluster.decision_record import DecisionRecord, Recorded, Unwritable, replay, replays, told
from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.jobs import Job
from orchestrator.core.inputs import INPUTS, Holding, Recovered, Registration, Report
from orchestrator.policies.settings import Policies

LAME = Policies.model_validate({"routing": {"kind": "tests.cluster.lame:Lame", "after": 3}})


def record(path: Path, part_bytes: float = math.inf) -> None:
    """A small life: two workers, ties decided by chance, a death, a late result, every input at least once."""
    book = DecisionRecord(path, Policies(), 0, part_bytes=part_bytes)
    core = book.open(EffectLog())
    core.recovered(Recovered("t29", 1, Job("sleep", ""), None, -5.0, state=3, result="done", settled_at=-2.0), 0.0)
    core.recovered(Recovered("t30", 1, Job("sleep", "1"), None, -5.0, 2, 3, (Holding(3, "w3", "b3"),)), 0.0)
    core.register(Registration("w1", "", 2, 0, False), 0.0)
    core.register(Registration("w2", "b2", 2, float("inf"), True, request=1), 0.0)
    rng = random.Random(1)
    for number in range(20):
        core.submit(f"t{number}", number % 4, Job("sleep", "1"), None, 0.1 + number / 100)
    for number in rng.sample(range(20), 10):
        core.result(Report("w1", f"t{number}", None, True, "", ran_s=0.5, request=number), 1.0 + number / 100)
    core.wake(8.5)
    core.heartbeat("w2", 1, 2, 9.0)
    core.connection_lost("w2", 9.5)
    core.reconnected(Registration("w2", "b2", 2, float("inf"), True, (("t1", 1), ("nobody's", 4))), 9.6)
    for answered in (core.started, core.rejected, core.cancelled, core.call_failed):
        answered("w2", "t1", 1, 9.7)
    core.cancel("t2", 9.75)
    core.drain("w2", 9.8)
    core.deregister("w2", 9.9)
    book.close()


def test_a_decision_record_decides_the_same_again(tmp_path: Path):
    """Input by input, each kind of them, with the ties of its random streams."""
    record(tmp_path / "record")
    assert {item.name for item in Recorded(tmp_path / "record").inputs()} == set(INPUTS)
    assert replay(tmp_path / "record") == (45, None, None)


def test_arguments_are_read_as_they_were_given(tmp_path: Path):
    """Records and tuples, not lists; a task's payload is a job; tasks may go by other names."""
    record(tmp_path / "record")
    recorded = Recorded(tmp_path / "record")
    register, _, reconnected = recorded.inputs(["register", "reconnected"], task_id=str.upper)
    assert register.arguments == (Registration("w1", "", 2, 0, False),)
    assert reconnected.arguments[0].held == (("T1", 1), ("NOBODY'S", 4))
    assert next(recorded.inputs(["submit"])).arguments == ("t0", 0, Job("sleep", "1"), None)
    assert all(isinstance(item.arguments[0], Report) for item in recorded.inputs(["result"]))
    [_, running] = recorded.inputs(["recovered"])
    assert running.arguments[0].payload == Job("sleep", "1")
    assert running.arguments[0].held == (Holding(3, "w3", "b3"),)


def test_a_replay_says_where_and_with_what_it_differs(tmp_path: Path):
    """The line, the input, both decisions, and the state that was at hand."""
    path = tmp_path / "record"
    record(path)
    lines = path.read_text().splitlines()
    effects = json.loads(lines[12])["effects"]
    assign = next(effect for effect in effects if effect[0] == "assign")
    assign[3] = {"w1": "w2", "w2": "w1"}[assign[3]]
    lines[12] = json.dumps({"effects": effects})
    path.write_text("\n".join(lines) + "\n")
    same, difference, _ = replay(path)
    assert difference is not None
    assert (same, difference.input.line, difference.input.name) == (5, 12, "submit")
    assert difference.expected == assign
    assert difference.got is not None
    assert difference.got[:3] == assign[:3]
    assert "w1 ALIVE load" in str(difference)


def test_the_unwritten_end_of_a_record_is_left_out(tmp_path: Path):
    """A killed coordinator leaves half a line; where that says what came of an input, it ended inside that one."""
    path = tmp_path / "record"
    record(path)
    whole = path.read_bytes()
    whole = whole[: whole.rindex(b'{"closed"')]
    path.write_bytes(whole[:-10])
    same, difference, remark = replay(path)
    assert (same, difference) == (44, None)
    assert remark is not None
    assert remark.startswith(f"{path}:90: the record ends inside the input deregister('w2') at 9.9")
    path.write_bytes(whole[: whole.rindex(b"[9.9") + 3])
    assert replay(path) == (44, None, None)


CLOSED, KILLED = "", "; it did not end in order, or has not yet: its last second may be missing"


def said(path: Path) -> list[tuple[bool, str]]:
    """What is told of a record, without the moments at which processes began."""
    return [(same, sentence.partition(", begun at ")[2].partition(": ")[2]) for same, sentence in told(path)]


def test_a_process_appends_to_what_it_finds(tmp_path: Path):
    """Each is replayed from a head of its own; a difference in one is no difference in the next."""
    path = tmp_path / "record"
    record(path)
    record(path)
    assert said(path) == [(True, "45 inputs decided the same" + CLOSED)] * 2
    assert [process.closed for process, _ in replays(path)] == [True, True]
    lines = path.read_text().splitlines()
    lines[12] = lines[12].replace('"w1"', '"w9"').replace('"w2"', '"w9"')
    path.write_text("\n".join(lines) + "\n")
    (first, sentence), second = said(path)
    assert not first
    assert sentence.startswith(f"5 inputs decided the same; then otherwise:\n{path}:12: submit('t1', 1, ")
    assert second == (True, "45 inputs decided the same")
    assert replay(path).difference is not None


def test_the_line_that_a_killed_process_left_unfinished_stays_its_last(tmp_path: Path):
    """The next process begins on a line of its own, wherever the other one ended."""
    path = tmp_path / "record"
    record(path)
    whole = path.read_bytes()
    whole = whole[: whole.rindex(b'{"closed"')]
    for unfinished, ended in {
        whole.rindex(b"[9.9") + 3: "44 inputs decided the same" + KILLED,
        len(whole) - 1: "45 inputs decided the same" + KILLED,
        len(whole) - 9: f"44 inputs decided the same; {path}:90: the record ends inside the input "
        "deregister('w2') at 9.9" + KILLED,
    }.items():
        path.write_bytes(whole[:unfinished])
        record(path)
        assert said(path) == [(True, ended), (True, "45 inputs decided the same")]


@pytest.mark.parametrize("size", [1, 9, 100])
def test_a_head_that_was_never_finished_hides_no_later_process(tmp_path: Path, size: int):
    """The disk was full when the first process began."""
    path = tmp_path / "record"
    record(path)
    path.write_bytes(path.read_bytes()[:size])
    begun = f"{path} begins with a line that was never finished: what follows it is not decided again"
    with pytest.raises(ValueError, match=re.escape(begun)):
        Recorded(path)
    record(path)
    assert next(iter(told(path))) == (True, begun)
    assert said(path)[1:] == [(True, "45 inputs decided the same")]


@pytest.mark.parametrize("size", [1, 9, 14])
def test_a_part_that_was_hardly_begun_ends_its_process_only(tmp_path: Path, size: int):
    """It was killed, or the disk became full, when it went on in another file."""
    path = tmp_path / "record"
    record(path, part_bytes=3000)
    path.write_bytes(path.read_bytes()[:size])
    ((same, sentence),) = said(path)
    assert same
    assert f" inputs decided the same; {path} begins with a line that was never finished: " in sentence
    record(path)
    assert said(path)[1] == (True, "45 inputs decided the same")


def test_a_part_that_was_cut_hides_no_part_behind_it(tmp_path: Path):
    """It is damage, with its place, and no end of its process."""
    path, part = tmp_path / "record", tmp_path / "record.1"
    record(path, part_bytes=3000)
    part.write_bytes(part.read_bytes()[:-5])
    with pytest.raises(ValueError, match=f"{part}:[0-9]+: the line ends too early"):
        replay(path)


def test_damage_amid_a_record_is_no_unfinished_line(tmp_path: Path):
    """It is told with its place."""
    path = tmp_path / "record"
    record(path)
    path.write_text(path.read_text().replace("[9.8,", "[9.8,,"))
    with pytest.raises(ValueError, match=f"{path}:88: "):
        replay(path)


@pytest.mark.parametrize("line", ['[9.8,"dance",["w2"]]', '[9.8,"drain"]', "9.8", '[9.75,"cancel",["t2"]]\n[1]'])
def test_a_line_that_makes_no_sense_is_told(tmp_path: Path, line: str):
    """With its place, whatever stands there: an input of another version, or no input at all."""
    path = tmp_path / "record"
    record(path)
    lines = path.read_text().splitlines()
    lines[83] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=f"{path}:84: expected an input, and its effects after it"):
        replay(path)


def test_a_record_that_has_become_large_goes_on_in_another_file(tmp_path: Path):
    """Parts are read in their order, across processes; each holds whole lines only; none is replaced."""
    path = tmp_path / "record"
    for _ in range(6):
        record(path, part_bytes=1000)
    parts = sorted((int(part.suffix[1:]), part) for part in tmp_path.glob("record.*"))
    assert [number for number, _ in parts] == list(range(1, len(parts) + 1))
    assert len(parts) > 9
    assert all(part.read_bytes().endswith(b"\n") for _, part in parts)
    assert said(path) == [(True, "45 inputs decided the same")] * 6
    assert len(list(Recorded(path).inputs())) == 6 * 45


def test_a_part_that_is_missing_is_told(tmp_path: Path):
    """Of its process what was before is decided again, and every other process whole."""
    path = tmp_path / "record"
    for _ in range(3):
        record(path, part_bytes=1000)
    (tmp_path / "record.1").unlink()
    (tmp_path / "record.4").unlink()
    gap, *processes = [sentence for _, sentence in told(path)]
    assert gap.startswith(f"{tmp_path / 'record.1'} is missing: what follows it, from {tmp_path / 'record.2'} on")
    assert [f"{tmp_path / 'record.4'} is missing" in sentence for sentence in processes].count(True) == 1
    assert "45 inputs decided the same" in processes[-1]
    assert all(same for same, _ in told(path))


def test_a_part_alone_is_no_record(tmp_path: Path):
    """It begins amid a process."""
    path = tmp_path / "record"
    record(path, part_bytes=1000)
    with pytest.raises(ValueError, match="holds the beginning of no process"):
        replay(tmp_path / "record.2")


def test_what_is_written_reaches_the_file_every_second(tmp_path: Path):
    """Although the timer that flushes does not ring: a second of the inputs' clock is enough."""
    path = tmp_path / "record"
    book = DecisionRecord(path, Policies(), 0)
    core = book.open(EffectLog())
    core.submit("t0", 1, Job("", "7"), None, 5.0)
    core.submit("t1", 1, Job("", "7"), None, 5.1)
    core.submit("t2", 1, Job("", "7"), None, 6.05)
    core.submit("t3", 1, Job("", "7"), None, 6.2)
    assert [item.arguments[0] for item in Recorded(path).inputs()] == ["t0", "t1", "t2"]
    book.close()


@pytest.fixture
def files_end_at():
    """Files of this process can grow to so many bytes, as on a disk that becomes full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_record_and_not_the_coordinator(tmp_path: Path, files_end_at, caplog):
    """It is said once; what was written until then is decided again, and no effect is kept in memory."""
    path = tmp_path / "record"
    book = DecisionRecord(path, Policies(), 0)
    effects = EffectLog()
    core = book.open(effects)
    files_end_at(path.stat().st_size + 1000)
    with caplog.at_level(logging.ERROR):
        for number in range(50):
            core.submit(f"t{number}", 1, Job("", "7"), None, 2.0 * number)
    files_end_at(resource.RLIM_INFINITY)
    core.submit("t50", 1, Job("", "7"), None, 200.0)
    book.flush()
    book.close()
    assert len(effects.noted) == core.submitted == 51
    assert book._effects.noted == []
    [line] = caplog.messages
    assert line.startswith(f"cannot write the decision record {path} any more: File too large; nothing is recorded ")
    [(same, sentence)] = said(path)
    assert same
    assert 2 < int(sentence.split()[0]) < 50
    assert sentence.endswith(KILLED)
    record(path)
    assert said(path)[1] == (True, "45 inputs decided the same")


@pytest.mark.parametrize(
    ("name", "reason"),
    [(".", "Is a directory"), ("file/record", "Not a directory"), ("/dev/full", "No space left on device")],
)
def test_a_record_that_cannot_be_begun_is_one_sentence(tmp_path: Path, name: str, reason: str):
    """Before anything is served."""
    (tmp_path / "file").touch()
    path = tmp_path / name
    with pytest.raises(Unwritable) as raised:
        DecisionRecord(path, Policies(), 0)
    assert str(raised.value) == f"cannot write the decision record {path}: {reason}"


def test_two_processes_do_not_write_to_one_record(tmp_path: Path):
    """The second one is refused, and leaves no line."""
    path = tmp_path / "record"
    book = DecisionRecord(path, Policies(), 0)
    before = path.read_bytes()
    with pytest.raises(Unwritable, match="another process writes to it"):
        DecisionRecord(path, Policies(), 0)
    assert path.read_bytes() == before
    book.close()
    DecisionRecord(path, Policies(), 0).close()


def test_a_device_gets_no_number(tmp_path: Path):
    """/dev/null takes everything, and stays where it is."""
    null = tmp_path / "null"
    null.symlink_to(os.devnull)
    record(null, part_bytes=10)
    assert list(tmp_path.iterdir()) == [null]


def test_an_input_that_raised_is_named(tmp_path: Path):
    """It was written before it was applied, with what it had done until then; the replay raises the same."""
    path = tmp_path / "record"
    book = DecisionRecord(path, LAME, 0)
    core = book.open(EffectLog())
    core.register(Registration("w1", "", 9, 0, False), 0.0)
    for number in range(2):
        core.submit(f"t{number}", 1, Job("", "7"), None, 1.0)
    with pytest.raises(ZeroDivisionError):
        core.submit("t2", 1, Job("", "7"), None, 2.0)
    last = list(Recorded(path).inputs())[-1]  # although it is not closed yet
    book.close()
    assert (last.name, last.raised) == ("submit", "ZeroDivisionError: by zero")
    same, difference, remark = replay(path)
    assert (same, difference) == (4, None)
    assert remark is not None
    assert remark.startswith(f"{path}:8: the input submit('t2', 1, ")
    assert remark.endswith("raised ZeroDivisionError: by zero; the replay raises the same")
    path.write_text(path.read_text().replace("by zero", "by two"))
    same, difference, remark = replay(path)
    assert difference is not None
    assert difference.got == ["raised", "ZeroDivisionError: by zero"]
    assert remark is not None
    assert remark.endswith("raised ZeroDivisionError: by two; the replay raises ZeroDivisionError: by zero")


def test_what_is_no_decision_record_is_refused(tmp_path: Path):
    """With a sentence."""
    path = tmp_path / "record"
    path.write_text('{"name": "something else"}\n')
    with pytest.raises(ValueError, match="not a decision record"):
        replay(path)

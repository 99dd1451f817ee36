"""A snapshot of the cluster as lines of a terminal: however narrow, no figure is cut, only names and reasons are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from orchestrator.cli.connecting import one_line
from orchestrator.cli.terminal import age, duration, number

if TYPE_CHECKING:
    from orchestrator.cluster.figures import Percentiles
    from orchestrator.cluster.views import EventView, QueueView, Snapshot, WorkerView

NAMES = 11
"""Columns of the names of facts."""
LONGEST = 1_000_000
"""Lines of a terminal that has no end."""
BAR = 10
EVENT_NAMES = 20
STYLES = {
    "alive": "green",
    "up": "green",
    "readmitted": "green",
    "suspect": "yellow",
    "held back": "yellow",
    "timeout": "yellow",
    "ejected": "yellow",
    "draining": "cyan",
    "drain": "cyan",
    "left": "cyan",
    "dead": "bold red",
}


class Section(NamedTuple):
    """A heading, and rows of which as many are shown as there is room for; `more` tells how many are not, with `others`
    of which nothing is known."""

    heading: Text
    rows: Sequence[Text]
    more: str
    others: int = 0

    @property
    def height(self) -> int:
        """Without its heading."""
        return len(self.rows) + (self.others > 0)

    def shown(self, room: int, width: int) -> list[Text]:
        rows = self.rows[: room if room >= self.height else room - 1]
        hidden = len(self.rows) - len(rows) + self.others
        return [*rows, *([Text(_cut(self.more.format(hidden), width), style="dim")] if hidden else [])]


def screen(snapshot: Snapshot, width: int, height: int = LONGEST, note: str = "", title: str = "") -> list[Text]:
    """Lines that fit; a `note` stands below the title."""
    up = f"up {age(snapshot.up_s)}"
    lines = [Text(_cut(f"{title}, {up}" if title else up, width), style="bold")]
    if note:
        lines.append(Text(_cut(note, width), style="bold yellow"))
    for name, facts in _facts(snapshot):
        lines += _wrapped(name, facts, width)
    sections = [_workers(snapshot, width), *_queue(snapshot.queue, width), _events(snapshot.events, width)]
    sections = [section for section in sections if section.rows]
    left = height - len(lines) - len(sections)
    apart = sum(section.height + 1 for section in sections) <= left
    rooms = _shared([section.height for section in sections], left - len(sections) * apart)
    for section, room in zip(sections, rooms, strict=True):
        if room:
            lines += [*([Text("")] if apart else []), section.heading, *section.shown(room, width)]
    return lines[:height]


def _shared(wanted: Sequence[int], room: int) -> list[int]:
    """Rows for each section, while there is room: the first one gets three where another one gets one."""
    given = [0] * len(wanted)
    while room > 0 and given != list(wanted):
        for place, wants in enumerate(wanted):
            more = min(room, wants - given[place], 1 if place else 3)
            given[place] += more
            room -= more
    return given


# ---- facts


def _facts(snapshot: Snapshot) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each name with some facts, each with its style."""
    told = snapshot.metrics
    counts = [(f"{snapshot.alive:,} alive", "green")]
    counts += [(f"{snapshot.suspect:,} suspect", "yellow")] if snapshot.suspect else []
    counts += [(f"{snapshot.dead:,} dead", "bold red")] if snapshot.dead else []
    counts += [(f"{snapshot.draining:,} draining", "cyan")] if snapshot.draining else []
    yield "workers", counts
    share = f"load {snapshot.running / snapshot.slots:.0%}" if snapshot.slots else "no slots"
    yield "slots", [(f"{snapshot.running:,} of {snapshot.slots:,} busy", ""), (share, "")]
    waiting = [(f"{told.queue_depth:,} waiting", ""), (f"{told.queue_at_workers or 0:,} waiting at workers", "")]
    yield "tasks", [*waiting, (f"{told.completed:,} completed", ""), _alarming(told.failed, "failed")]
    failing = told.failed_per_s or 0.0
    yield "a second", [(f"{number(told.throughput_per_s)} completed", ""), (f"{number(failing)} failed", "")]
    yield "latency", _percentiles(told.latency_ms, told.latency_at_least_ms)
    yield "execution", _percentiles(told.execution_ms, None)
    troubles = [
        _alarming(snapshot.deaths, "death" if snapshot.deaths == 1 else "deaths"),
        _alarming(told.timeouts, "timeout" if told.timeouts == 1 else "timeouts"),
        _alarming(told.queue_timeouts + told.missed_deadlines, "expired"),
        _alarming(told.refused_submissions, "refused"),
    ]
    yield "so far", troubles


def _alarming(many: int, what: str) -> tuple[str, str]:
    return f"{many:,} {what}", "yellow" if many else ""


def _percentiles(known: Percentiles | None, at_least: Percentiles | None) -> list[tuple[str, str]]:
    if known is None:
        return [("unknown", "dim")]
    told = []
    for name in known._fields:
        value, bound = getattr(known, name), getattr(at_least, name, None)
        shown = f"> {duration(bound / 1000)}" if value is None and bound is not None else "unknown"
        told.append((f"{name} {shown if value is None else duration(value / 1000)}", ""))
    return told


def _wrapped(name: str, facts: Iterable[tuple[str, str]], width: int) -> list[Text]:
    """On as many lines as it takes."""
    lines = [Text(f"{name:<{NAMES}}", style="dim")]
    for fact, style in facts:
        if lines[-1].cell_len > NAMES:
            if lines[-1].cell_len + 3 + len(fact) > width:
                lines.append(Text(" " * NAMES))
            else:
                lines[-1].append("   ")
        lines[-1].append(fact, style=style or "not dim")
    return lines


# ---- sections


def _workers(snapshot: Snapshot, width: int) -> Section:
    workers = sorted(snapshot.workers, key=lambda worker: _state(worker) == "alive")
    if all(_state(worker) == "alive" for worker in workers[:1]):
        workers = list(snapshot.workers)
    columns = [
        ("state", [_state(worker) for worker in workers]),
        ("running", [f"{worker.running:,} of {worker.capacity:,}" for worker in workers]),
        ("waiting", [f"{worker.waiting:,}" for worker in workers]),
        ("suspicion", ["-" if worker.suspicion is None else _suspicion(worker.suspicion) for worker in workers]),
        ("heard", ["-" if worker.heard_s is None else age(worker.heard_s) for worker in workers]),
    ]
    if width >= 80:
        columns.insert(3, ("given up", [f"{worker.given_up:,}" for worker in workers]))
    if width >= 100:
        columns.insert(2, ("", [_bar(worker) for worker in workers]))
    remarks = [", ".join(_remarks(worker)) for worker in workers]
    styles = [STYLES.get(_state(worker), "") for worker in workers]
    heading, rows = _table("WORKER", [worker.name for worker in workers], columns, width, styles, remarks)
    return Section(heading, rows, "... {:,} more", snapshot.other_workers)


def _table(
    name: str,
    names: Sequence[str],
    columns: Sequence[tuple[str, Sequence[str]]],
    width: int,
    styles: Sequence[str] = (),
    remarks: Sequence[str] = (),
    longest_name: int = LONGEST,
) -> tuple[Text, list[Text]]:
    """Heading and rows. Names get what the columns leave, as much as they need, and remarks the rest."""
    widths = [max(len(heading), *map(len, cells), 0) for heading, cells in columns]
    room = max(4, width - sum(widths) - 2 * len(widths))
    longest = min(room, max([len(name), *map(len, names)]), max(longest_name, len(name)))
    left = width - longest - sum(widths) - 2 * len(widths) - 2
    heading = Text(f"{name:<{longest}}", style="dim")
    for (title, _), wide in zip(columns, widths, strict=True):
        heading.append(f"  {title:>{wide}}")
    rows = []
    for place, each in enumerate(names):
        row = Text(f"{_shortened(each, longest):<{longest}}")
        for number_, ((_, cells), wide) in enumerate(zip(columns, widths, strict=True)):
            row.append(f"  {cells[place]:>{wide}}", style=styles[place] if styles and number_ == 0 else "")
        if remarks and remarks[place] and left >= 10:
            row.append(f"  {_cut(remarks[place], left)}", style="dim")
        rows.append(row)
    return heading, rows


def _state(worker: WorkerView) -> str:
    name = worker.state.name.lower()
    if name != "alive":
        return name
    return "draining" if worker.draining else "held back" if worker.hindrance else name


def _suspicion(share: float) -> str:
    return f"{share:.0%}" if share < 10 else "> 999%"


def _bar(worker: WorkerView) -> str:
    filled = round(BAR * min(1.0, worker.running / worker.capacity)) if worker.capacity else 0
    return "█" * filled + "░" * (BAR - filled)


def _remarks(worker: WorkerView) -> Iterator[str]:
    if worker.draining and _state(worker) != "draining":
        yield "drains"
    if worker.hindrance:
        yield worker.hindrance
    if not worker.streams:
        yield "unary contract"
    yield from worker.labels


def _queue(queue: QueueView, width: int) -> Iterator[Section]:
    from orchestrator.core.model import Priority

    if queue.classes:
        names = [f"{Priority(each.priority).name.lower()} {each.kind}" for each in queue.classes]
        columns = [
            ("tasks", [f"{each.tasks:,}" for each in queue.classes]),
            ("oldest", [age(each.oldest_s) for each in queue.classes]),
        ]
        heading, rows = _table("WAITING", names, columns, width)
        if queue.retries:
            rows.append(Text(_cut(f"{queue.retries:,} of these wait for their next try", width), style="dim"))
        yield Section(heading, rows, "... {:,} more")
    if queue.lanes:
        names = [f"{each.kind} on {each.requires}" if each.requires else each.kind for each in queue.lanes]
        columns = [
            ("tasks", [f"{each.tasks:,}" for each in queue.lanes]),
            ("oldest", [age(each.oldest_s) for each in queue.lanes]),
        ]
        reasons = [each.reason for each in queue.lanes]
        heading, rows = _table("NOBODY TAKES", names, columns, width, (), reasons, width // 3)
        yield Section(heading, rows, "... {:,} more")


def _events(events: Sequence[EventView], width: int) -> Section:
    rows = []
    for event in reversed(events):
        row = Text(f"{age(event.ago_s):>8} ago  ")
        row.append(_cut(_told(event), width - row.cell_len), style=STYLES.get(event.event, ""))
        rows.append(row)
    return Section(Text("LATELY", style="dim"), rows, "... {:,} more")


def _told(event: EventView) -> str:
    worker = _shortened(event.worker, EVENT_NAMES)
    if event.event == "timeout":
        return f"timeout on {worker}: task {event.task_id} {event.detail}"
    words = {"drain": "drains", "up": "is back", "dead": "is dead", "suspect": "is suspect", "left": "has left"}
    detail = f" ({event.detail.replace('_', ' ')})" if event.detail else ""
    return f"worker {worker} {words.get(event.event, f'is {event.event}')}{detail}"


def _cut(text: str, width: int) -> str:
    """Its beginning, on one line."""
    text = one_line(text)
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


def _shortened(name: str, width: int) -> str:
    """Without its middle, where it is too long: names often differ at their ends."""
    name = one_line(name)
    if len(name) <= width:
        return name
    begin = (width - 1) // 2
    return f"{name[:begin]}…{name[len(name) - (width - 1 - begin) :]}"

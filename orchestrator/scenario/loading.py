"""YAML with positions: a plain tree, and where in the file each of its keys and values stands.

A path is a tuple of keys and list indices, `("faults", 0, "at_s")`, written `faults[0].at_s` for people.
Everything that is wrong with a scenario is a `Problem`; a `ScenarioError` carries all that were found.
"""

from __future__ import annotations

import math
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.resolver import BaseResolver

KeyPath = tuple[str | int, ...]
Place = Literal["key", "value"]

MAX_NODES = 100_000
MAX_BYTES = 16 << 20
SEGMENT = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
TAGS = "tag:yaml.org,2002:"
STDIN = Path("-")
"""The name that means standard input."""
COMMAND_LINE = "<command line>"


class CoreSchema(BaseResolver):
    """What a plain scalar means in YAML 1.2: the core schema, and `<<` as in 1.1.

    ruamel's own rules differ: 1_000 and 0b11 are numbers to them, .5e3 is none.
    """

    def __init__(self, version: object = None, loader: Any = None, loadumper: Any = None) -> None:
        super().__init__(loader if loadumper is None else loadumper)

    @property
    def processing_version(self) -> tuple[int, int]:
        return 1, 2


for name, expression, first in (
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", "<<", ["<"]),
):
    CoreSchema.add_implicit_resolver_base(TAGS + name, re.compile(f"(?:{expression})\\Z"), first)


class Position(NamedTuple):
    """A place in a file; or, of an override, its number among them and the column in its text, which is 0 where a
    Python value was given instead of a text."""

    line: int
    column: int
    override: str = ""


START = Position(1, 1)


class Mark(NamedTuple):
    """Where a key (or a list's item) stands, and where its value does."""

    key: Position
    value: Position


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, at one place: of a file, or of the `override` whose number `line` is then."""

    file: str
    line: int
    column: int
    key: str
    message: str
    override: str = ""

    @classmethod
    def at(cls, file: str, position: Position, path: KeyPath, message: str, whole: str = "scenario") -> Problem:
        """A problem of the key at a path, or of the whole file, which is called `whole`."""
        line, column, text = position
        return cls(file, line, column, one_line(dotted(path)) or whole, one_line(message), one_line(text))

    def __str__(self) -> str:
        if self.override and not self.column:
            where = f"override of {_short(self.override)}"
        elif self.override:
            where = f"{COMMAND_LINE}: override {self.line} ({_short(self.override)}), column {self.column}"
        else:
            where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.key}: {self.message}"


class ScenarioError(Exception):
    """A scenario that cannot be run, with all that is wrong with it: `problems`, in the order of the file; then those
    of overrides."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (bool(problem.override), problem.line, problem.column))
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[ScenarioError], tuple[list[Problem]]]:
        return ScenarioError, (self.problems,)


class Misfit(ValueError):
    """Something wrong at a path: what a reader of trees raises, before file and line are known."""

    def __init__(self, path: KeyPath, message: str, place: Place = "value") -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.place: Place = place


@dataclass
class Document:
    """A file's plain tree (dict, list and scalars), and the marks of what came from it. `what` the file is to be."""

    file: str
    tree: dict[str, Any] = field(default_factory=dict)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    what: str = "scenario"

    def problem(self, misfit: Misfit) -> Problem:
        """The misfit at its own place, or at the nearest one around it that is known."""
        path, place = misfit.path, misfit.place
        while path and path not in self.marks:
            # Of something that holds the culprit, the key is the place to look at; or the override that chose its kind.
            path, place = path[:-1], "key"
            kind = self.marks.get((*path, "kind"))
            if kind is not None and kind.key.override:
                path = (*path, "kind")
        mark = self.marks[path] if path in self.marks else Mark(START, START)
        position = mark.key if place == "key" else mark.value
        return Problem.at(self.file, position, misfit.path, misfit.message, self.what)

    def override(self, path: KeyPath, marks: Mapping[KeyPath, Mark]) -> None:
        """The value at `path` no longer comes from the file, but from an override with these marks below `path`."""
        self.marks = {known: mark for known, mark in self.marks.items() if known[: len(path)] != path}
        whole = marks[()].key
        for depth in range(1, len(path)):
            self.marks.setdefault(path[:depth], Mark(whole, whole))
        self.marks |= {(*path, *below): mark for below, mark in marks.items()}


def read_document(path: Path, what: str = "scenario") -> Document:
    """The YAML mapping in a file, or on standard input (`-`), which is to be a `what`. ScenarioError for whatever keeps
    it from being one."""
    document = Document("<stdin>" if path == STDIN else str(path), what=what)
    try:
        text = _read_bytes(path).decode("utf-8-sig")
        tree, document.marks = parse(text)
        if not isinstance(tree, dict):
            raise Misfit((), f"is {show(tree)}, expected a mapping")
    except FileNotFoundError:
        problems = [document.problem(Misfit((), "no such file, expected a YAML file"))]
    except OSError as error:
        problems = [document.problem(Misfit((), f"cannot be read ({error.strerror}), expected a YAML file"))]
    except UnicodeDecodeError as error:
        at = position_in(error.object[: error.start].decode("utf-8", "replace"))
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8, expected UTF-8 text"
        problems = [Problem.at(document.file, at, (), message, what)]
    except ParseError as error:
        problems = [Problem.at(document.file, at, path, message, what) for path, at, message in error.found]
    except Misfit as misfit:
        problems = [document.problem(misfit)]
    else:
        document.tree = tree
        return document
    raise ScenarioError(problems)


def _read_bytes(path: Path) -> bytes:
    """Raises Misfit for what has no end, or may never have one: a device, a pipe, a file too large to be read whole.
    Whoever names standard input means what it holds."""
    if path == STDIN:
        read = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""
    else:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise Misfit((), "is a device or a pipe, expected a YAML file")
        with path.open("rb") as file:
            read = file.read(MAX_BYTES + 1)
    if len(read) > MAX_BYTES:
        raise Misfit((), f"has more than {MAX_BYTES >> 20} MiB, expected a YAML file")
    return read


class ParseError(ValueError):
    """Text that is not one plain YAML value; `found` lists (path, position, message)."""

    def __init__(self, found: list[tuple[KeyPath, Position, str]]) -> None:
        super().__init__("; ".join(message for _, _, message in found))
        self.found = found


def parse(text: str) -> tuple[Any, dict[KeyPath, Mark]]:
    """A YAML 1.2 text as plain values, and the marks of every path in it. What `<<` merges has the marks of its own
    place."""
    reader = YAML(typ="safe", pure=True)
    reader.Resolver = CoreSchema
    try:
        root = reader.compose(StringIO(text))
        if root is None:
            return None, {}
        return Composition(reader).read(cast(Node, root))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f" ({error.context})" if error.context else ""
        at = Position(mark.line + 1, mark.column + 1) if mark else START
        raise ParseError([((), at, f"{error.problem}{context}, expected valid YAML")]) from None
    except ReaderError as error:
        at = position_in(text[: error.position])
        message = f"character {error.character!r} is not allowed, expected valid YAML"
        raise ParseError([((), at, message)]) from None
    except YAMLError as error:
        raise ParseError([((), START, f"{error}, expected valid YAML")]) from None
    except RecursionError:
        raise ParseError([((), START, "nested too deeply, expected a few levels")]) from None


Pairs = dict[str, tuple[Position, Node]]
"""The values of a mapping by key, each with the position of its key."""


class Composition:
    """Turns composed nodes into plain values, noting marks, and all that plain values exclude."""

    def __init__(self, reader: YAML) -> None:
        self._scalar = reader.constructor.construct_object
        self._marks: dict[KeyPath, Mark] = {}
        self._found: list[tuple[KeyPath, Position, str]] = []
        self._open: set[int] = set()
        self._pairs_of: dict[int, Pairs] = {}
        self._nodes = 0

    def read(self, root: Node) -> tuple[Any, dict[KeyPath, Mark]]:
        tree = self._plain(root, (), position_of(root))
        if self._found:
            raise ParseError(self._found)
        return tree, self._marks

    def _plain(self, node: Node, path: KeyPath, key: Position) -> Any:
        # An empty value's own mark lies on some later line: its key says better where it is.
        empty = isinstance(node, ScalarNode) and node.start_mark.index == node.end_mark.index
        at = key if empty else position_of(node)
        self._marks[path] = Mark(key, at)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ParseError([((), START, f"more than {MAX_NODES:,} values, expected some dozens")])
        if isinstance(node, ScalarNode):
            return self._value(node, path, at)
        if id(node) in self._open:
            return self._reject(path, at, "an alias of something that holds it, expected a value that ends")
        self._open.add(id(node))
        value: Any
        value = self._mapping(node, path) if isinstance(node, MappingNode) else self._sequence(node, path, at)
        self._open.discard(id(node))
        return value

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        if _tag(node) != "map":
            self._reject(path, position_of(node), _no_meaning(node))
        return {key: self._plain(value, (*path, key), at) for key, (at, value) in self._pairs(node, path).items()}

    def _pairs(self, node: MappingNode, path: KeyPath) -> Pairs:
        """The values of a mapping by key, each with its key's position; its own, and those that it merges."""
        if id(node) in self._pairs_of:
            return self._pairs_of[id(node)]
        own: Pairs = {}
        merged: Pairs = {}
        merges = [value for key, value in node.value if _tag(key) == "merge"]
        for key_node, value_node in node.value:
            key, at = key_node.value, position_of(key_node)
            if _half_character(key_node):
                self._reject(path, at, "has half a character as a key, expected whole ones (no \\ud800 to \\udfff)")
            elif _tag(key_node) == "merge":
                for source in self._sources(value_node, (*path, key)):
                    merged = source | merged
            elif _tag(key_node) != "str":
                name = key if isinstance(key, str) else "a list or mapping"
                self._reject(path, at, f"has {name} as a key, expected keys that are text")
            elif key in own:
                self._reject((*path, key), at, f"given twice, first on line {own[key][0].line}, expected once")
            else:
                own[key] = (at, value_node)
        if len(merges) > 1:
            at = position_of(merges[1])
            self._reject((*path, "<<"), at, "given twice, expected once, with a list of the mappings")
        self._pairs_of[id(node)] = merged | own
        return self._pairs_of[id(node)]

    def _sources(self, node: Node, path: KeyPath) -> Iterator[Pairs]:
        """What each mapping that `<<` names has."""
        at = position_of(node)
        sources = node.value if isinstance(node, SequenceNode) else [node]
        for source in sources:
            if id(source) in self._open:
                self._reject(path, at, "an alias of something that holds it, expected a value that ends")
            elif not isinstance(source, MappingNode):
                self._reject(path, at, "merges what is no mapping, expected a mapping, or a list of them")
            else:
                self._open.add(id(source))
                yield self._pairs(source, path)
                self._open.discard(id(source))

    def _sequence(self, node: Node, path: KeyPath, at: Position) -> list[Any]:
        if _tag(node) != "seq":
            self._reject(path, at, _no_meaning(node))
        return [self._plain(item, (*path, i), position_of(item)) for i, item in enumerate(node.value)]

    def _value(self, node: ScalarNode, path: KeyPath, at: Position) -> Any:
        if _half_character(node):
            return self._reject(path, at, "is half a character, expected whole ones (no \\ud800 to \\udfff)")
        if _tag(node) == "merge":
            return node.value
        if _tag(node) not in ("null", "bool", "int", "float", "str"):
            return self._reject(path, at, _no_meaning(node))
        try:
            value = self._scalar(node)
            finite = not isinstance(value, int | float) or math.isfinite(float(value))
        except (ValueError, MarkedYAMLError):  # an explicit tag over something else: !!int x
            return self._reject(path, at, f'"{node.value}" does not fit its tag, expected a plain value')
        except OverflowError:
            finite = False
        return value if finite else self._reject(path, at, f"is {node.value}, expected a finite number")

    def _reject(self, path: KeyPath, at: Position, message: str) -> None:
        self._found.append((path, at, message))


def to_yaml(tree: dict[str, Any]) -> str:
    """A plain tree as YAML, keys in their order; `parse` reads the same tree back."""
    writer = YAML(typ="safe", pure=True)
    writer.Resolver = CoreSchema
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.representer.ignore_aliases = lambda data: True
    out = StringIO()
    writer.dump(tree, out)
    return out.getvalue()


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def dotted(path: KeyPath) -> str:
    """`faults[0].at_s`; where the keys of a sweep stand, they come with their own dots."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def undotted(text: str) -> KeyPath:
    """The path that `faults[0].at_s`, or `faults.0.at_s`, names. Misfit where it is none."""
    path: list[str | int] = []
    end = 0
    while end < len(text) and (match := SEGMENT.match(text, end)) and not (end == 0 and text[0] == "."):
        name, index = match.groups()
        path.append(int(index) if index else int(name) if name.isdecimal() else name)
        end = match.end()
    if not path or end < len(text):
        raise Misfit((text,), "not a key, expected names with dots, as in policies.retry.max_attempts", "key")
    if path[0] == "sweep" and len(path) > 1:
        return ("sweep", text.removeprefix("sweep").removeprefix("."))
    return tuple(path)


def show(value: Any) -> str:
    """A value as a person would name it in a sentence."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return str(value).lower()
        case str():
            return f'"{_short(value)}"'
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list():
            return "a list" if value else "an empty list"
        case _:
            return _short(str(value))


def one_line(text: str) -> str:
    """Without line breaks, and with nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def _tag(node: Node) -> str:
    return str(node.tag).removeprefix(TAGS)


def _half_character(node: Node) -> bool:
    """Whether a text escapes half of a surrogate pair, which no UTF-8 can hold."""
    return isinstance(node.value, str) and any("\ud800" <= character <= "\udfff" for character in node.value)


def _no_meaning(node: Node) -> str:
    return f"the tag {node.tag} has no meaning here, expected plain values"


def position_of(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def position_in(before: str) -> Position:
    """The position right after a text."""
    return Position(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)

"""Columns of a user's CSV, Parquet or Standard Workload Format file, with the line to blame where one is wrong.

Text may be compressed with gzip, and its cells separated by commas, semicolons, tabs or bars. A log in the Standard
Workload Format is known by its content: after lines of comments, which begin with a semicolon and may be in any
encoding, come rows of 18 numbers. It has no names of columns: they are those of `SWF_COLUMNS`, and its -1 says that a
value is not known, so a row with -1 in a wanted column is left out.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

Floats = NDArray[np.float64]
Format = Literal["CSV", "Parquet", "Standard Workload Format"]

LINE_CHARACTERS = 1 << 20
"""A line that is longer is none of a table, and would only fill the memory."""

SWF_COLUMNS = (
    "job",
    "submit_s",
    "wait_s",
    "run_s",
    "processors",
    "cpu_s",
    "memory_kb",
    "requested_processors",
    "requested_s",
    "requested_memory_kb",
    "status",
    "user",
    "group",
    "executable",
    "queue",
    "partition",
    "preceding_job",
    "think_s",
)
"""The 18 columns of the Standard Workload Format (Feitelson's Parallel Workloads Archive)."""


_ESCAPED = re.compile("[\udc80-\udcff]")


class DataError(ValueError):
    """A data file that cannot be used, in one sentence."""


def _existing(name: str) -> str:
    if os.path.isdir(name):
        raise ValueError(f'"{name}" is a directory, expected a file')
    if "\0" in name or not os.path.exists(name):
        raise ValueError(f'no file "{name}", expected one beside the scenario or in the current directory')
    if not os.path.isfile(name):
        raise ValueError(f'"{name}" is a device or a pipe, expected a file')
    return os.path.abspath(name)


DataFile = Annotated[str, AfterValidator(_existing)]
"""The path of an existing file, made absolute."""


@dataclass(frozen=True)
class Columns:
    """Some columns of a data file, as they stand there (text from CSV, typed values from Parquet)."""

    file: str
    names: Sequence[str]
    values: Mapping[str, Sequence[Any]]
    lines: Sequence[int] = field(repr=False)
    row_word: str = "line"
    left_out: int = 0
    """Rows in which a wanted value is not known."""

    def __contains__(self, name: str) -> bool:
        return name in self.values

    @property
    def base(self) -> str:
        """The file's name without its folder."""
        return Path(self.file).name

    def __len__(self) -> int:
        return len(self.lines)

    def numbers(self, name: str, negative: bool = False) -> Floats:
        """A column as finite floats, not below 0 unless `negative`. DataError names the first line where it is not."""
        values = self.column(name)
        try:
            numbers = np.array(list(map(_number, values)), dtype=np.float64)
        except (TypeError, ValueError):
            raise self._first_bad(name, _number, "a number") from None
        self._forbid(~np.isfinite(numbers), name, numbers, "a finite number")
        if not negative:
            self._forbid(numbers < 0, name, numbers, "no number below 0")
        return numbers

    def has_moments(self, name: str) -> bool:
        """Whether a column begins with an ISO 8601 time, rather than with a number."""
        return bool(self.values.get(name)) and is_moment(self.values[name][0])

    def moments(self, name: str) -> list[datetime]:
        """A column of ISO 8601 times. One without a zone is meant in UTC."""
        try:
            return list(map(_moment, self.column(name)))
        except (TypeError, ValueError):
            raise self._first_bad(name, _moment, "an ISO 8601 time") from None

    def error(self, row: int, name: str, words: str) -> DataError:
        """What is wrong with one cell."""
        return DataError(f"{self.row_word} {self.lines[row]} of {self.base} {words}")

    def column(self, name: str) -> Sequence[Any]:
        """What stands in it. DataError where the file has no such column, or no rows."""
        if not self.names:
            raise DataError(f"{self.base} is empty, expected names of columns and at least one row")
        if name not in self.values:
            raise DataError(f"no column {name} in {self.base}, expected it among {', '.join(self.names)}")
        if self.left_out and not len(self):
            raise DataError(
                f"all {self.left_out} rows of {self.base} have a value that is not known (-1), expected others"
            )
        if not len(self):
            raise DataError(f"no rows in {self.base}, expected at least one")
        return self.values[name]

    def _first_bad(self, name: str, read: Callable[[Any], Any], expected: str) -> DataError:
        for row, value in enumerate(self.values[name]):
            try:
                read(value)
            except (TypeError, ValueError):
                return self.error(row, name, f"has {value!r} as {name}, expected {expected}")
        raise AssertionError(f"each value of {name} can be read")

    def _forbid(self, wrong: NDArray[np.bool_], name: str, numbers: Floats, expected: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise self.error(row, name, f"has {numbers[row]:g} as {name}, expected {expected}")


def is_number(value: Any) -> bool:
    with suppress(TypeError, ValueError):
        _number(value)
        return True
    return False


def is_moment(value: Any) -> bool:
    """Whether a value is an ISO 8601 time; digits alone are a number."""
    with suppress(TypeError, ValueError):
        _moment(value)
        return not is_number(value)
    return False


def stamp(file: str) -> tuple[int, int]:
    """What changes when the file does: with it as a key, what was read from the file can be remembered."""
    status = os.stat(file)
    return status.st_mtime_ns, status.st_size


def read_columns(file: str, wanted: Sequence[str] | None, limit: int | None = None) -> Columns:
    """Those of the wanted columns that the file has; None: all of them. Of the first `limit` rows, if there is one.

    DataError where the file is no table at all.
    """
    with _sound(file):
        return _READERS[file_format(file)](file, wanted, limit)


def file_format(file: str) -> Format:
    """What a file is, by its content; only an empty one is what its name says. DataError where it is none of these."""
    with _sound(file):
        if file.lower().endswith((".parquet", ".pq")):
            return "Parquet"
        with open(file, "rb") as stream:
            if stream.read(4) == b"PAR1":
                return "Parquet"
        return "Standard Workload Format" if _is_swf(file) else "CSV"


def is_compressed(file: str) -> bool:
    """Whether a file begins as gzip does."""
    with open(file, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


@contextmanager
def _sound(file: str) -> Iterator[None]:
    """DataError for what the file system or a compressed file does not give."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{Path(file).name} is no gzip file ({error}), expected a whole one") from None
    except OSError as error:
        raise DataError(f"cannot read {file} ({error.strerror or error}), expected CSV or Parquet") from None


def _is_swf(file: str) -> bool:
    """DataError for a text that begins as such a log, or is called so, and then goes on otherwise."""
    base = Path(file).name
    called = file.lower().removesuffix(".gz").endswith(".swf")
    with _opened(file, "replace") as stream:
        for number, line in enumerate(_lines(stream, base), 1):
            if "\0" in line:
                raise DataError(f"line {number} of {base} has a NUL byte: it is no text, expected CSV or Parquet")
            called = called or (number == 1 and line.startswith(";"))
            if line.isspace() or (called and line.lstrip().startswith(";")):
                continue
            cells = line.split()
            if len(cells) == len(SWF_COLUMNS) and all(map(is_number, cells)):
                return True
            if called:
                kind = f"the {len(SWF_COLUMNS)} numbers of the Standard Workload Format"
                found = "other words" if len(cells) == len(SWF_COLUMNS) else f"{len(cells)} fields"
                raise DataError(f"line {number} of {base} has {found}, expected {kind}, or CSV without lines of ;")
            return False
    return called


def _number(value: Any) -> float:
    """What `float` reads, but not as Python's source has it: 1_0 is no number of a data file."""
    if isinstance(value, str) and "_" in value:
        raise ValueError("has an underscore")
    return float(value)


def _moment(value: Any) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str.strip(value))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _opened(file: str, errors: str) -> IO[str]:
    opening = gzip.open if is_compressed(file) else open
    return opening(file, "rt", newline="", encoding="utf-8-sig", errors=errors)


def _lines(stream: IO[str], base: str) -> Iterator[str]:
    """DataError for one without an end, or with a byte that is escaped because it is not UTF-8."""
    for number, line in enumerate(iter(partial(stream.readline, LINE_CHARACTERS), ""), 1):
        if len(line) == LINE_CHARACTERS:
            raise DataError(f"line {number} of {base} is longer than {LINE_CHARACTERS:,} characters, expected a table")
        if not line.isascii() and (escaped := _ESCAPED.search(line)):
            byte = ord(escaped[0]) - 0xDC00
            raise DataError(f"line {number} of {base} has byte 0x{byte:02x}, which is not UTF-8, expected UTF-8 CSV")
        yield line


def _read_csv(file: str, wanted: Sequence[str] | None, limit: int | None) -> Columns:
    base = Path(file).name
    with _opened(file, "surrogateescape") as stream:
        lines = _lines(stream, base)
        head = next(lines, "")
        rows = csv.reader(chain([head], lines), delimiter=_separator(head))
        try:
            names = [name.strip() for name in next(rows, [])]
            return _collect(file, names, islice(((rows.line_num, row) for row in rows if row), limit), wanted)
        except csv.Error as error:
            raise DataError(f"line {rows.line_num + 1} of {base} is no CSV ({error}), expected CSV") from None


def _separator(head: str) -> str:
    """What stands between the names of columns: a comma, or else a semicolon, a tab or a bar."""
    if "," not in head:
        with suppress(csv.Error):  # a single column
            return csv.Sniffer().sniff(head, ";\t|").delimiter
    return ","


def _read_swf(file: str, wanted: Sequence[str] | None, limit: int | None) -> Columns:
    with _opened(file, "replace") as stream:
        given = enumerate(_lines(stream, Path(file).name), 1)
        lines = ((number, line) for number, line in given if not line.lstrip().startswith(";"))
        rows = ((number, cells) for number, line in lines if (cells := line.split()))
        table = _collect(file, SWF_COLUMNS, islice(rows, limit), wanted)
    unknown = [any(map(_is_unknown, row)) for row in zip(*table.values.values(), strict=True)]
    known = [row for row, left_out in enumerate(unknown) if not left_out]
    values = {name: [column[row] for row in known] for name, column in table.values.items()}
    return Columns(file, table.names, values, [table.lines[row] for row in known], left_out=sum(unknown))


def _is_unknown(value: str) -> bool:
    return value.startswith("-1") and is_number(value) and float(value) == -1


def _collect(
    file: str, names: Sequence[str], rows: Iterator[tuple[int, list[str]]], wanted: Sequence[str] | None
) -> Columns:
    base = Path(file).name
    at = _places(names, wanted, base)
    width = max(at.values(), default=0)
    values: dict[str, list[str]] = {name: [] for name in at}
    lines: list[int] = []
    for line, row in rows:
        if len(row) <= width:
            raise DataError(f"line {line} of {base} has {len(row)} cells, expected {len(names)}")
        lines.append(line)
        for name, index in at.items():
            values[name].append(row[index])
    return Columns(file, names, values, lines)


def _places(names: Sequence[str], wanted: Sequence[str] | None, base: str) -> dict[str, int]:
    """The index of each wanted column that there is. DataError if there are two of a name that is wanted."""
    at = {name: index for index, name in enumerate(names) if name and (wanted is None or name in wanted)}
    given = Counter(names)
    for name in at:
        if given[name] > 1 and wanted is not None:
            raise DataError(f"line 1 of {base} has {given[name]} columns {name}, expected each name once")
    return at


def _read_parquet(file: str, wanted: Sequence[str] | None, limit: int | None) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            columns = list(_places(names, wanted, Path(file).name))
            if limit is None:
                table = parquet.read(columns)
            else:
                batches = list(islice(parquet.iter_batches(limit, columns=columns), 1))
                table = pa.Table.from_batches(batches, None if batches else parquet.schema_arrow)
    except pa.ArrowException as error:
        raise DataError(f"{Path(file).name} is no Parquet file ({error}), expected one") from None
    values = {name: table.column(name).to_pylist() for name in table.column_names}
    return Columns(file, names, values, range(1, table.num_rows + 1), "row")


_READERS: dict[Format, Callable[[str, Sequence[str] | None, int | None], Columns]] = {
    "CSV": _read_csv,
    "Parquet": _read_parquet,
    "Standard Workload Format": _read_swf,
}

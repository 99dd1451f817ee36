"""Columns of numbers from a user's CSV or Parquet file, with the line to blame where one is wrong."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

Floats = NDArray[np.float64]


class DataError(ValueError):
    """A data file that cannot be used, in one sentence."""


def _existing(name: str) -> str:
    if not Path(name).is_file():
        raise ValueError(f'no file "{name}", expected one beside the scenario or in the current directory')
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

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def numbers(self, name: str) -> Floats:
        """A column as finite floats, not below 0. DataError names the first line where it is not."""
        if name not in self.values:
            raise DataError(f"no column {name} in {self._base}, expected it among {', '.join(self.names)}")
        values = self.values[name]
        if not len(values):
            raise DataError(f"no rows in {self._base}, expected at least one")
        try:
            numbers = np.array(list(map(float, values)), dtype=np.float64)
        except (TypeError, ValueError):
            bad = next(i for i, value in enumerate(values) if not _is_number(value))
            raise DataError(f"{self.where(bad)} has {values[bad]!r} as {name}, expected a number") from None
        self._forbid(~np.isfinite(numbers), name, numbers, "a finite number")
        self._forbid(numbers < 0, name, numbers, "no number below 0")
        return numbers

    def where(self, row: int) -> str:
        return f"{self.row_word} {self.lines[row]} of {self._base}"

    @property
    def _base(self) -> str:
        return Path(self.file).name

    def _forbid(self, wrong: NDArray[np.bool_], name: str, numbers: Floats, expected: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"{self.where(row)} has {numbers[row]:g} as {name}, expected {expected}")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def stamp(file: str) -> tuple[int, int]:
    """What changes when the file does: with it as a key, what was read from the file can be remembered."""
    status = os.stat(file)
    return status.st_mtime_ns, status.st_size


def read_columns(file: str, wanted: tuple[str, ...]) -> Columns:
    """Those of the wanted columns that the file has. DataError where it is no table at all."""
    try:
        return (_read_parquet if file.endswith((".parquet", ".pq")) else _read_csv)(file, wanted)
    except OSError as error:
        raise DataError(f"cannot read {file} ({error.strerror or error}), expected CSV or Parquet") from None


def _read_csv(file: str, wanted: tuple[str, ...]) -> Columns:
    base = Path(file).name
    with open(file, newline="", encoding="utf-8-sig") as stream:
        rows = csv.reader(stream)
        try:
            names = [name.strip() for name in next(rows, [])]
            at = {name: names.index(name) for name in wanted if name in names}
            width = max(at.values(), default=0)
            values: dict[str, list[str]] = {name: [] for name in at}
            lines: list[int] = []
            for row in rows:
                if not row:
                    continue
                if len(row) <= width:
                    where = f"line {rows.line_num} of {base}"
                    raise DataError(f"{where} has {len(row)} cells, expected {len(names)}")
                lines.append(rows.line_num)
                for name, index in at.items():
                    values[name].append(row[index])
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"line {rows.line_num + 1} of {base}"
            raise DataError(f"{where} is no CSV ({error}), expected UTF-8 CSV") from None
    return Columns(file, names, values, lines)


def _read_parquet(file: str, wanted: tuple[str, ...]) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(file).names
        table = pq.read_table(file, columns=[name for name in wanted if name in names])
    except pa.ArrowException as error:
        raise DataError(f"{Path(file).name} is no Parquet file ({error}), expected one") from None
    values = {name: table.column(name).to_pylist() for name in table.column_names}
    return Columns(file, names, values, range(1, table.num_rows + 1), "row")

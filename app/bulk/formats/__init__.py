"""Kinds of source: how files of each are cut into parts, and how a part is read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

# A part of long texts has fewer rows than asked for, so that it fits into memory.
PART_BYTES = 1 << 25
# Where all of a text is embedded, not only its beginning, so much is minutes of work.
PASSAGES_BYTES = 1 << 20
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class File:
    """A file of the source."""

    path: str
    name: str  # below the folder that was given
    size: int
    modified: int  # nanoseconds since 1970
    encoding: str | None = None  # of its characters; None: found out when it is read
    delimiter: str = ","  # between the columns of CSV

    @property
    def partition(self) -> dict[str, str | None]:
        """What the folders it is in say of its rows, as Hive writes it: lang=en/0.parquet."""
        pairs = [folder.partition("=") for folder in self.name.split("/")[:-1] if "=" in folder]
        return {unquote(key): None if value == NO_VALUE else unquote(value) for key, _, value in pairs if key}


@dataclass(frozen=True)
class Part:
    """A run of rows that are read, embedded and written together."""

    file: int  # of the source's, from 0
    number: int  # in that file, from 0
    row: int  # in that file, its first, from 0
    start: int  # where that is: the row, the byte or the file, as the format counts
    rows: int

    @property
    def name(self) -> str:
        """Of the file it is written to: their names sort as the rows do."""
        return f"part-{self.file:08d}-{self.number:08d}.parquet"


@dataclass(frozen=True)
class Malformed:
    """Stands for the text of a row that could not be read at all; its columns are null."""

    reason: str


@dataclass(frozen=True)
class Unread:
    """Stands for the text of a document that could not be read."""

    fault: str  # one that Counts counts


@dataclass(frozen=True)
class Rows:
    """What was read of a part: n rows to keep, and what stands where their texts should be."""

    table: Any  # pyarrow.Table (n rows)
    texts: list[object]  # (n,) str where all is well
    # (n,) the characters at which the pages of each text begin, None where it has none.
    pages: list[list[int] | None] | None = None


class Format(Protocol):
    """How files of one kind are read; whatever cannot be read is a BulkError that names the file."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        """The columns that all of the files have."""

    def parts(self, files: fs.FileSystem, found: list[File], rows: int, size: int) -> Iterator[Part]:
        """The files in parts of at most so many rows, and about so many bytes."""

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        """The rows of a part, in the columns of `schema`; the texts are in `column`."""


def whole_files(found: list[File], rows: int, most: int) -> Iterator[Part]:
    """As `cut_files`, where every file is a row: all of them are cut as if they were the rows of one."""
    sizes = [(index, file.size) for index, file in enumerate(found)]
    return cut_files([File("", "", 0, 0)], rows, most, lambda _: sizes)


def cut_files(
    found: list[File], rows: int, most: int, sizes: Callable[[File], Iterable[tuple[int, int]]]
) -> Iterator[Part]:
    """Parts of at most `rows` rows and about `most` bytes; `sizes`: where each row starts, and its bytes."""
    for index, file in enumerate(found):
        number, row, start, held, size = 0, 0, 0, 0, 0
        for place, length in sizes(file):
            if held and (held == rows or size + length > most):
                yield Part(index, number, row, start, held)
                number, row, held, size = number + 1, row + held, 0, 0
            if not held:
                start = place
            held += 1
            size += length
        if held:
            yield Part(index, number, row, start, held)

"""Formats of the source: how their files are cut into parts, and how a part is read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

# A part with long texts has fewer rows than asked for, so that it fits into memory.
PART_BYTES = 1 << 25
# The same for passages: then all of a text is embedded, not only its beginning, which takes minutes.
PASSAGES_BYTES = 1 << 20
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class File:
    """A file of the source."""

    path: str
    name: str  # its path below the folder that was given
    size: int
    modified: int  # nanoseconds since 1970
    encoding: str | None = None  # of its characters; None: detected when it is read
    delimiter: str = ","  # between the columns of CSV

    @property
    def partition(self) -> dict[str, str | None]:
        """Columns for its rows from the names of its folders, as Hive writes them: lang=en/0.parquet."""
        pairs = [folder.partition("=") for folder in self.name.split("/")[:-1] if "=" in folder]
        return {unquote(key): None if value == NO_VALUE else unquote(value) for key, _, value in pairs if key}


@dataclass(frozen=True)
class Part:
    """A run of rows that are read, embedded and written together."""

    file: int  # index among the source's files, from 0
    number: int  # of the part in that file, from 0
    row: int  # its first row in that file, from 0
    start: int  # where that row is: a row, byte or file number, depending on the format
    rows: int

    @property
    def name(self) -> str:
        """The name of its output file; these names sort in the order of the rows."""
        return f"part-{self.file:08d}-{self.number:08d}.parquet"


@dataclass(frozen=True)
class Malformed:
    """Stands in for the text of a row that could not be read at all; its columns are null."""

    reason: str


@dataclass(frozen=True)
class Unread:
    """Stands in for the text of a document that could not be read."""

    fault: str  # a field of Counts


@dataclass(frozen=True)
class Rows:
    """The rows of a part: n rows with the columns to keep, and their texts or what stands in for them."""

    table: Any  # pyarrow.Table (n rows)
    texts: list[object]  # (n,) str, unless it could not be read
    # (n,) the characters at which the pages of each text begin; None if it has no pages.
    pages: list[list[int] | None] | None = None


class Format(Protocol):
    """How to read files of one format; raises BulkError, naming the file, if something cannot be read."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        """The columns that all of the files have."""

    def parts(self, files: fs.FileSystem, found: list[File], rows: int, size: int) -> Iterator[Part]:
        """Cut the files into parts of at most `rows` rows and about `size` bytes."""

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        """The rows of a part, in the columns of `schema`; the texts are in `column`."""


def whole_files(found: list[File], rows: int, most: int) -> Iterator[Part]:
    """Like `cut_files` for formats where every file is a row: cuts them as if they were rows of one file."""
    sizes = [(index, file.size) for index, file in enumerate(found)]
    return cut_files([File("", "", 0, 0)], rows, most, lambda _: sizes)


def cut_files(
    found: list[File], rows: int, most: int, sizes: Callable[[File], Iterable[tuple[int, int]]]
) -> Iterator[Part]:
    """Parts of at most `rows` rows and about `most` bytes; `sizes` gives each row's start and its bytes."""
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

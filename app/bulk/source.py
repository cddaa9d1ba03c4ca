"""Where the texts come from: finds the files, detects their format and cuts their rows into parts."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.files import find_files, open_place
from app.bulk.formats import PART_BYTES, File, Format, Malformed, Part, Rows
from app.bulk.formats.csv import Csv, find_delimiter
from app.bulk.formats.decoding import UTF8, find_encoding, read_as
from app.bulk.formats.documents import Documents
from app.bulk.formats.jsonl import JsonLines
from app.bulk.formats.lines import bare, opened
from app.bulk.formats.parquet import Parquet
from app.bulk.formats.plain import Lines, TextFiles

log = logging.getLogger(__name__)

FORMATS: dict[str, type[Format]] = {
    "parquet": Parquet,
    "jsonl": JsonLines,
    "csv": Csv,
    "text": TextFiles,
    "lines": Lines,
    "documents": Documents,
}
WHOLE = ("text", "documents")  # formats in which every file is a row
SUFFIXES = {
    "parquet": "parquet",
    "pq": "parquet",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "csv": "csv",
    "tsv": "csv",
    "txt": "text",
    "md": "text",
    "html": "documents",
    "htm": "documents",
    "xhtml": "documents",
    "pdf": "documents",
}
BY_LINE = ("csv", "jsonl", "lines")  # formats whose encoding must be known before they are cut


@dataclass(frozen=True)
class Source:
    """Files of one format. Small enough to be sent to every node of a cluster."""

    place: str
    format: str
    files: tuple[File, ...]
    column: str  # that holds the texts
    schema: Any  # pyarrow.Schema of the columns that are kept
    partitions: tuple[str, ...] = ()  # the last columns, which the folders' names give

    @property
    def fingerprint(self) -> str:
        """sha256 that changes with the names, sizes and times of the files."""
        listed: list[Any] = [(file.name, file.size, file.modified) for file in self.files]
        if self.partitions:
            listed.append(self.partitions)
        return hashlib.sha256(repr((self.format, listed)).encode()).hexdigest()

    def parts(self, rows: int, limit: int | None = None, size: int = PART_BYTES) -> Iterator[Part]:
        """The first `limit` rows, in parts of at most `rows` rows and about `size` bytes."""
        files, _ = open_place(self.place)
        left = limit
        for part in FORMATS[self.format]().parts(files, list(self.files), rows, size):
            if left is None:
                yield part
                continue
            if left <= 0:
                return
            yield replace(part, rows=min(left, part.rows))
            left -= part.rows

    def read(self, part: Part) -> Rows:
        """The rows of a part."""
        files, _ = open_place(self.place)
        held = pa.schema(list(self.schema)[: len(self.schema) - len(self.partitions)])
        try:
            found = FORMATS[self.format]().read(files, list(self.files), part, self.column, held)
        except pa.ArrowException as error:
            raise BulkError(f"{self.files[part.file].path} cannot be read: {error}") from error
        self._warn(part, found.texts)
        table = found.table
        for name in self.partitions:
            values = [self.file(part, row).partition.get(name) for row in range(table.num_rows)]
            table = table.append_column(name, pa.array(values, pa.string()))
        return replace(found, table=table)

    def _warn(self, part: Part, texts: list[object]) -> None:
        wrong = [(row, text.reason) for row, text in enumerate(texts) if isinstance(text, Malformed)]
        if not wrong:
            return
        row, reason = wrong[0]
        log.warning(
            "%s row %d is malformed: %s (malformed rows in this part: %d of %d)",
            *(self.file(part, row).path, part.row + row + 1, reason, len(wrong), len(texts)),
        )

    def file(self, part: Part, row: int) -> File:
        """The file that a row of a part comes from."""
        return self.files[part.row + row if self.format in WHOLE else part.file]


def find_source(
    place: str,
    column: str | None = None,
    kind: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
) -> Source:
    """Examine a file, a folder or a glob; raises BulkError if it cannot be used.

    `kind` is one of FORMATS; if it is None, the names of the files decide. `column` holds the texts. The
    character `encoding` and the `delimiter` of CSV are detected if None.
    """
    files, path = open_place(place)
    found = [replace(file, encoding=encoding) for file in find_files(files, path, place)]
    if kind is None:
        kind = _kind(found, place)
        if kind == "text" and len(found) == 1:
            _warn_of_lines(files, found[0])
    column = column or "text"
    if delimiter and kind != "csv":
        raise BulkError(f"--delimiter is for CSV, but {place} is read as {kind}")
    if encoding and kind == "parquet":
        raise BulkError(f"{place} is Parquet, which needs no encoding of characters: leave --encoding out")
    if kind in BY_LINE:
        found = _look(files, found, kind, column, delimiter)
    held = FORMATS[kind]().columns(files, found)
    if column not in held.names:
        names = ", ".join(map(repr, held.names)) or "none"
        raise BulkError(f"{place} has no column {column!r}: set --column to one of {names}")
    if not _holds_text(held.field(column).type):
        raise BulkError(f"the column {column!r} of {place} holds {held.field(column).type}, not text")
    told = dict.fromkeys(key for file in found for key in file.partition)
    partitions = tuple(name for name in told if name not in held.names)
    schema = pa.schema([*held, *((name, pa.string()) for name in partitions)])
    return Source(place, kind, tuple(found), column, schema, partitions)


def _look(
    files: fs.FileSystem, found: list[File], kind: str, column: str, delimiter: str | None
) -> list[File]:
    """Detect the files' encodings and delimiters; log which files are not UTF-8 with commas."""
    looked: list[File] = []
    told: dict[tuple[str, str | None], list[str]] = {}
    for file in found:
        with opened(files, file) as stream:
            encoding = find_encoding(stream, file.encoding)
        file = replace(file, encoding=encoding)
        sign = (delimiter or find_delimiter(files, file, column)) if kind == "csv" else None
        told.setdefault((encoding, sign), []).append(file.name)
        looked.append(replace(file, delimiter=sign or ","))
    for (encoding, sign), names in told.items():
        if (encoding, sign) not in ((UTF8, None), (UTF8, ",")):
            log.info("%s", read_as(names, encoding, sign))
    return looked


def _warn_of_lines(files: fs.FileSystem, file: File) -> None:
    with opened(files, file) as stream:
        lines = [line for line in islice(stream, 100) if line.strip(b" \t\r\n\0")]
    if len(lines) > 1:
        log.warning("%s is read as one text; if each line is a text, use --format lines", file.path)


def _kind(found: list[File], place: str) -> str:
    kinds: dict[str, str] = {}
    for file in found:
        suffix = Path(bare(file.name)).suffix.removeprefix(".").lower()
        if suffix not in SUFFIXES:
            raise BulkError(
                f"the format of {file.path} is not known: set --format to one of {', '.join(FORMATS)}"
            )
        kinds.setdefault(SUFFIXES[suffix], file.path)
    if kinds.keys() == set(WHOLE):
        return "documents"
    if len(kinds) > 1:
        raise BulkError(f"{place} holds files of several formats: {', '.join(kinds.values())}")
    return next(iter(kinds))


def _holds_text(column: pa.DataType) -> bool:
    if pa.types.is_dictionary(column):
        return _holds_text(column.value_type)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(is_kind(column) for is_kind in text)

"""CSV with a header. It has no types: every column is text."""

import csv
from collections.abc import Iterator
from itertools import chain, islice

import pyarrow as pa
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.formats import PART_BYTES, File, Malformed, Part, Rows, cut_files
from app.bulk.formats.decoding import UTF8, decode
from app.bulk.formats.lines import bare, lines, storable

csv.field_size_limit(PART_BYTES)  # for the whole process; the default is 128 KiB, which long documents exceed

DELIMITERS = (",", ";", "\t", "|")
JUDGED_LINES = 200


class Csv:
    """Quoted fields may hold line ends, as in RFC 4180."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        header = _header(files, found[0])
        for file in found[1:]:
            if _header(files, file) != header:
                raise BulkError(f"{file.path} has other columns than {found[0].path}")
        return pa.schema([(name, pa.string()) for name in header])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int, size: int) -> Iterator[Part]:
        def sizes(file: File) -> Iterator[tuple[int, int]]:
            records = _Records(files, file)
            return ((place, records.place - place) for place, _ in islice(records, 1, None))

        return cut_files(found, rows, size, sizes)

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        rows: list[list[str] | Malformed] = []
        for _, row in islice(_Records(files, found[part.file], part.start), part.rows):
            if not isinstance(row, Malformed) and len(row) != len(schema):
                row = Malformed(f"it has {len(row)} fields, its header has {len(schema)}")
            rows.append(row)
        columns = [
            [None if isinstance(row, Malformed) else storable(row[index]) for row in rows]
            for index in range(len(schema))
        ]
        index = schema.names.index(column)
        texts = [row if isinstance(row, Malformed) else row[index] for row in rows]
        return Rows(pa.table(columns, schema=schema), texts)


def find_delimiter(files: fs.FileSystem, file: File, column: str) -> str:
    """The delimiter with which the header names the texts' column and most rows have the header's length.

    If none is better, it is the comma, or the tab in a .tsv file.
    """
    usual = "\t" if bare(file.name).lower().endswith(".tsv") else ","
    head = [decode(line, file.encoding or UTF8) for line in islice(lines(files, file), JUDGED_LINES)]
    best, found = (False, 0.0, 1), usual
    for delimiter in sorted(DELIMITERS, key=usual.__ne__):
        try:
            header, *rows = [row for row in csv.reader(head, delimiter=delimiter) if row] or [[]]
        except csv.Error:
            continue
        equal = sum(len(row) == len(header) for row in rows) / max(1, len(rows))
        if len(header) > 1 and (judged := (column in header, equal, len(header))) > best:
            best, found = judged, delimiter
    return found


class _Records:
    """The rows of a file, each with the byte that it starts at; empty lines are skipped."""

    def __init__(self, files: fs.FileSystem, file: File, start: int = 0) -> None:
        self.file = file
        self.place = start  # the byte after the last row that was read
        self._lines = lines(files, file, start)
        self._row: list[bytes] = []  # the lines of the row that is being read

    def _decoded(self) -> Iterator[str]:
        for line in self._lines:
            self.place += len(line)
            self._row.append(line)
            yield decode(line, self.file.encoding or UTF8)

    def __iter__(self) -> Iterator[tuple[int, list[str] | Malformed]]:
        place, ended = self.place, False
        while not ended:
            reader = csv.reader(self._decoded(), delimiter=self.file.delimiter, strict=True)
            try:
                for row in reader:
                    self._row.clear()
                    if row:
                        yield place, row
                    place = self.place
                ended = True
            except csv.Error as error:
                # A quote that is never closed spoils its line, but not the lines that follow.
                first, *rest = self._row
                self._row.clear()
                self._lines = chain(rest, self._lines)
                self.place = place + len(first)
                yield place, Malformed(str(error))
                place = self.place


def _header(files: fs.FileSystem, file: File) -> list[str]:
    for _, names in _Records(files, file):
        if isinstance(names, Malformed):
            raise BulkError(f"the header of {file.path} is not CSV: {names.reason}")
        names = [storable(name) for name in names]
        if len(set(names)) < len(names):
            raise BulkError(f"{file.path} has two columns of the same name")
        return names
    raise BulkError(f"{file.path} is empty: it has not even a header")

"""CSV with a header, commas between (tabs in .tsv). It has no types: every column is text."""

import csv
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.formats import PART_BYTES, File, Part, Rows, cut_files
from app.bulk.formats.lines import bare, decode, lines, storable

csv.field_size_limit(PART_BYTES)  # of the whole process; its own, 128 KiB, is less than a long document


class Csv:
    """Quoted fields may hold line ends, as in RFC 4180."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        header = _header(files, found[0])
        for file in found[1:]:
            if _header(files, file) != header:
                raise BulkError(f"{file.path} has other columns than {found[0].path}")
        return pa.schema([(name, pa.string()) for name in header])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int) -> Iterator[Part]:
        def sizes(file: File) -> Iterator[tuple[int, int]]:
            width = len(_header(files, file))
            records = _Records(files, file)
            for number, (place, row) in enumerate(records, 1):
                if len(row) != width:
                    raise BulkError(f"{file.path} row {number} has {len(row)} fields, its header has {width}")
                if number > 1:
                    yield place, records.place - place

        return cut_files(found, rows, sizes)

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        records = _Records(files, found[part.file], part.start)
        rows = [row for _, row in islice(records, part.rows)]
        columns = [[storable(row[index]) for row in rows] for index in range(len(schema))]
        index = schema.names.index(column)
        return Rows(pa.table(columns, schema=schema), [row[index] for row in rows])


class _Records:
    """Rows of a file from a byte that one starts at, each with its own; empty lines are none."""

    def __init__(self, files: fs.FileSystem, file: File, start: int = 0) -> None:
        self.file = file
        self.place = start  # of the byte after the row that came last
        self._lines = lines(files, file, start)
        self._delimiter = "\t" if bare(file.name).lower().endswith(".tsv") else ","

    def _decoded(self) -> Iterator[str]:
        for line in self._lines:
            self.place += len(line)
            yield decode(line)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(self._decoded(), delimiter=self._delimiter, strict=True)
        place = self.place
        try:
            for row in reader:
                if row:
                    yield place, row
                place = self.place
        except csv.Error as error:
            raise BulkError(f"{self.file.path} after byte {place} is not CSV: {error}") from None


def _header(files: fs.FileSystem, file: File) -> list[str]:
    for _, names in _Records(files, file):
        if len(set(names)) < len(names):
            raise BulkError(f"{file.path} has two columns of the same name")
        return [storable(name) for name in names]
    raise BulkError(f"{file.path} is empty, not even a header is there")

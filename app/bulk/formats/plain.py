"""Plain text: every line of a stream, or every file of a folder, is a text."""

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.formats import File, Part, Rows, cut_files
from app.bulk.formats.lines import decode, lines, placed, storable


class Lines:
    """Every line is a text."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        return pa.schema([("text", pa.string())])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int) -> Iterator[Part]:
        def sizes(file: File) -> Iterator[tuple[int, int]]:
            return ((place, len(line)) for place, line in placed(lines(files, file)))

        return cut_files(found, rows, sizes)

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        rows = islice(lines(files, found[part.file], part.start), part.rows)
        texts = [decode(line.rstrip(b"\r\n")) for line in rows]
        return Rows(pa.table([[storable(text) for text in texts]], schema=schema), [*texts])


class TextFiles:
    """Every file is a text; its row says where it was."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        return pa.schema([("path", pa.string()), ("text", pa.string())])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int) -> Iterator[Part]:
        whole = File("", "", 0, 0)  # all of them are cut as if they were the rows of one
        sizes = [(index, file.size) for index, file in enumerate(found)]
        return cut_files([whole], rows, lambda _: sizes)

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        run = found[part.start : part.start + part.rows]
        texts = [_read(files, file.path) for file in run]
        return Rows(
            pa.table([[file.name for file in run], [storable(text) for text in texts]], schema=schema),
            [*texts],
        )


def _read(files: fs.FileSystem, path: str) -> str:
    try:
        with files.open_input_stream(path) as stream:
            return decode(stream.read())
    except OSError as error:
        raise BulkError(f"{path} cannot be read: {error}") from error

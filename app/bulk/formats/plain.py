"""Plain text: every line of a stream, or every file of a folder, is a text."""

import io
import logging
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
from pyarrow import fs

from app.bulk.formats import File, Part, Rows, cut_files, whole_files
from app.bulk.formats.decoding import UTF8, decode, find_encoding, read_as
from app.bulk.formats.lines import lines, opened, placed, storable

log = logging.getLogger(__name__)


class Lines:
    """Every line is a text."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        return pa.schema([("text", pa.string())])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int, size: int) -> Iterator[Part]:
        def sizes(file: File) -> Iterator[tuple[int, int]]:
            return ((place, len(line)) for place, line in placed(lines(files, file)))

        return cut_files(found, rows, size, sizes)

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        file = found[part.file]
        rows = islice(lines(files, file, part.start), part.rows)
        texts = [decode(line, file.encoding or UTF8).rstrip("\r\n") for line in rows]
        return Rows(pa.table([[storable(text) for text in texts]], schema=schema), [*texts])


class TextFiles:
    """Every file is a text; its row also has the file's path."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        return pa.schema([("path", pa.string()), ("text", pa.string())])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int, size: int) -> Iterator[Part]:
        return whole_files(found, rows, size)

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        run = found[part.start : part.start + part.rows]
        texts: list[str] = []
        others: dict[str, list[str]] = {}
        for file in run:
            text, encoding = _read(files, file)
            texts.append(text)
            if encoding != UTF8 and file.encoding is None:
                others.setdefault(encoding, []).append(file.name)
        for encoding, names in others.items():
            log.info("%s", read_as(names, encoding))
        return Rows(
            pa.table([[file.name for file in run], [storable(text) for text in texts]], schema=schema),
            [*texts],
        )


def _read(files: fs.FileSystem, file: File) -> tuple[str, str]:
    """The file's text and encoding."""
    with opened(files, file) as stream:
        content = stream.read()
    encoding = find_encoding(io.BytesIO(content), file.encoding)
    return decode(content, encoding), encoding

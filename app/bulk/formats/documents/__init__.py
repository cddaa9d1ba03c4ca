"""Documents: every file of a folder, plain text, Markdown, HTML or PDF, with its title."""

import io
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.formats import File, Part, Rows, Unread, whole_files
from app.bulk.formats.decoding import UTF8, decode, find_encoding, read_as
from app.bulk.formats.documents.reader import Document, Reader
from app.bulk.formats.lines import COMPRESSED, bare, opened, storable
from app.folders import requirements

log = logging.getLogger(__name__)

# What reads a file with this ending; with any other it is plain text.
KINDS = {"md": "markdown", "html": "html", "htm": "html", "xhtml": "html", "pdf": "pdf"}
LIBRARIES = {"markdown": "markdown_it", "html": "selectolax", "pdf": "pypdfium2"}
MOST_BYTES = 1 << 29  # of a file
BEGINNING = 1 << 16  # characters of Markdown in which the title is looked for


class Documents:
    """Every file is a text. What cannot be read is a row all the same, and why is its fault.

    The text of Markdown is the file's own, so that it means the same beside other files and places in it can
    be looked up; its headings are those of HTML too.
    """

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        for library in {LIBRARIES[kind] for file in found if (kind := _kind(file))}:
            if not find_spec(library):
                raise BulkError(f"{library} is not installed: {requirements('bulk')}")
        return pa.schema([("path", pa.string()), ("title", pa.string()), ("text", pa.string())])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int, size: int) -> Iterator[Part]:
        return whole_files(found, rows, size)

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        run = found[part.start : part.start + part.rows]
        others: dict[str, list[str]] = {}
        with Reader() as reader:
            documents = [_read(reader, files, file, others) for file in run]
        for encoding, names in others.items():
            log.info("%s", read_as(names, encoding))
        table = pa.table(
            [
                [file.name for file in run],
                [document.title for document in documents],
                [None if document.fault else storable(document.text) for document in documents],
            ],
            schema=schema,
        )
        if column != "text":
            return Rows(table, table.column(column).to_pylist())
        return Rows(
            table,
            [Unread(document.fault) if document.fault else document.text for document in documents],
            [document.pages for document in documents],
        )


def _kind(file: File) -> str | None:
    return KINDS.get(Path(bare(file.name)).suffix.removeprefix(".").lower())


def _read(reader: Reader, files: fs.FileSystem, file: File, others: dict[str, list[str]]) -> Document:
    """What is in a file; notes its name under its encoding in `others` where that is found to be another."""
    try:
        with opened(files, file) as stream:
            content = stream.read(MOST_BYTES + 1)
    except BulkError:
        if not file.path.endswith(COMPRESSED):
            raise
        return Document(fault="broken")  # what was packed, most likely
    if len(content) > MOST_BYTES:
        return Document(fault="too_large")
    kind = _kind(file)
    if kind == "pdf" or (kind == "html" and not file.encoding):
        return reader.read(kind, content)
    encoding = find_encoding(io.BytesIO(content), file.encoding)
    if encoding != UTF8 and not file.encoding:
        others.setdefault(encoding, []).append(file.name)
    text = decode(content, encoding)
    if kind == "html":  # its mark says more than what the page says of itself
        return reader.read(kind, f"\ufeff{text}".encode("utf-8", "replace"))
    if kind is None:
        return Document(text)
    beginning = text[:BEGINNING].encode("utf-8", "replace")
    return Document(text, reader.read(kind, beginning).title)

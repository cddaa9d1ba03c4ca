"""Documents: every file of a folder is a text with a title: plain text, Markdown, HTML or PDF."""

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

# The reader for each suffix; a file with any other suffix is plain text.
KINDS = {"md": "markdown", "html": "html", "htm": "html", "xhtml": "html", "pdf": "pdf"}
LIBRARIES = {"markdown": "markdown_it", "html": "selectolax", "pdf": "pypdfium2"}
MOST_BYTES = 1 << 29  # the largest file
BEGINNING = 1 << 16  # how many characters of Markdown are searched for the title


class Documents:
    """Every file is a row. A file that cannot be read is a row too, and its fault says why.

    The text of a Markdown file is kept as it is, so that places in the text are places in the file. The
    headings of HTML are written as Markdown's, so that both kinds of file look alike.
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
    """Read a file; if its encoding is detected and not UTF-8, its name is added to `others`."""
    try:
        with opened(files, file) as stream:
            content = stream.read(MOST_BYTES + 1)
    except BulkError:
        if not file.path.endswith(COMPRESSED):
            raise
        return Document(fault="broken")  # most likely the compressed data are damaged
    if len(content) > MOST_BYTES:
        return Document(fault="too_large")
    kind = _kind(file)
    if kind == "pdf" or (kind == "html" and not file.encoding):
        return reader.read(kind, content)
    encoding = find_encoding(io.BytesIO(content), file.encoding)
    if encoding != UTF8 and not file.encoding:
        others.setdefault(encoding, []).append(file.name)
    text = decode(content, encoding)
    if kind == "html":  # a byte order mark counts more than the encoding that the page declares
        return reader.read(kind, f"\ufeff{text}".encode("utf-8", "replace"))
    if kind is None:
        return Document(text)
    beginning = text[:BEGINNING].encode("utf-8", "replace")
    return Document(text, reader.read(kind, beginning).title)

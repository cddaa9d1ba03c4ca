"""Where the texts come from: files found, their kind told, their rows cut into parts."""

import glob
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.formats import File, Format, Part, Rows
from app.bulk.formats.csv import Csv
from app.bulk.formats.jsonl import JsonLines
from app.bulk.formats.lines import bare
from app.bulk.formats.parquet import Parquet
from app.bulk.formats.plain import Lines, TextFiles

FORMATS: dict[str, type[Format]] = {
    "parquet": Parquet,
    "jsonl": JsonLines,
    "csv": Csv,
    "text": TextFiles,
    "lines": Lines,
}
SUFFIXES = {
    "parquet": "parquet",
    "pq": "parquet",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "csv": "csv",
    "tsv": "csv",
    "txt": "text",
    "md": "text",
}


def open_place(place: str) -> tuple[fs.FileSystem, str]:
    """The file system that a path or a URI such as s3://bucket/folder means, and the path in it."""
    if "://" not in place:
        return fs.LocalFileSystem(), str(Path(place).absolute())
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(place)
        return found
    except (OSError, pa.ArrowException) as error:
        raise BulkError(f"{place} cannot be opened: {error}") from error


@dataclass(frozen=True)
class Source:
    """Files of one format. Small enough to be sent to every node of a cluster."""

    place: str
    format: str
    files: tuple[File, ...]
    column: str  # of the texts
    schema: Any  # pyarrow.Schema of the columns that are kept

    @property
    def fingerprint(self) -> str:
        """sha256 that changes with the names, sizes and times of the files."""
        listed = [(file.name, file.size, file.modified) for file in self.files]
        return hashlib.sha256(repr((self.format, listed)).encode()).hexdigest()

    def parts(self, rows: int, limit: int | None = None) -> Iterator[Part]:
        """The source in parts of at most `rows` rows, the first `limit` rows of it."""
        files, _ = open_place(self.place)
        left = limit
        for part in FORMATS[self.format]().parts(files, list(self.files), rows):
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
        try:
            return FORMATS[self.format]().read(files, list(self.files), part, self.column, self.schema)
        except pa.ArrowException as error:
            raise BulkError(f"{self.files[part.file].path} cannot be read: {error}") from error


def find_source(place: str, column: str | None = None, kind: str | None = None) -> Source:
    """Look at a file, a folder or a glob; BulkError says what is wrong with it.

    `kind` is one of FORMATS, told by the names of the files if None; `column` holds the texts.
    """
    files, path = open_place(place)
    found = _find(files, path, place)
    kind = kind or _kind(found, place)
    schema = FORMATS[kind]().columns(files, found)
    column = column or "text"
    if column not in schema.names:
        raise BulkError(
            f"{place} has no column {column!r}, --column names one of: {', '.join(schema.names) or 'none'}"
        )
    if not _holds_text(schema.field(column).type):
        raise BulkError(f"the column {column!r} of {place} holds {schema.field(column).type}, not text")
    return Source(place, kind, tuple(found), column, schema)


def _find(files: fs.FileSystem, path: str, place: str) -> list[File]:
    base = path
    try:
        info = files.get_file_info(path)
        if info.type == fs.FileType.File:
            return [File(path, info.base_name, info.size, info.mtime_ns or 0)]
        if info.type == fs.FileType.NotFound and (marks := [place.index(m) for m in "*?[" if m in place]):
            literal = path.removesuffix(place)  # the folder this runs in, whatever its name
            base = literal + place[: min(marks)].rpartition("/")[0]
            if "://" in place:
                literal, base = "", path[: min(path.index(m) for m in "*?[" if m in path)].rpartition("/")[0]
            pattern = glob.escape(literal) + path.removeprefix(literal)
            infos = files.get_file_info([str(name) for name in ArrowFSWrapper(files).glob(pattern)])
        else:
            infos = files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    except (OSError, pa.ArrowException) as error:
        raise BulkError(f"{place} cannot be opened: {error}") from error
    named = (
        File(info.path, info.path.removeprefix(base).lstrip("/"), info.size, info.mtime_ns or 0)
        for info in infos
        if info.type == fs.FileType.File
    )
    # Names with a mark in front are other programs' notes, as everywhere in this field.
    found = [file for file in named if not any(name.startswith((".", "_")) for name in file.name.split("/"))]
    if not found:
        raise BulkError(f"there is no file at {place}")
    return sorted(found, key=lambda file: file.path)


def _kind(found: list[File], place: str) -> str:
    kinds: dict[str, str] = {}
    for file in found:
        suffix = Path(bare(file.name)).suffix.removeprefix(".").lower()
        if suffix not in SUFFIXES:
            raise BulkError(f"{file.path} is of no known format, --format names one of: {', '.join(FORMATS)}")
        kinds.setdefault(SUFFIXES[suffix], file.path)
    if len(kinds) > 1:
        raise BulkError(f"{place} holds files of several formats: {', '.join(kinds.values())}")
    return next(iter(kinds))


def _holds_text(column: pa.DataType) -> bool:
    if pa.types.is_dictionary(column):
        return _holds_text(column.value_type)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(is_kind(column) for is_kind in text)

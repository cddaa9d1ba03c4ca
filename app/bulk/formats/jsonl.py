"""JSON Lines: an object a line. Its columns take the narrowest type that holds all of their values."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.formats import File, Part, Rows, cut_files
from app.bulk.formats.lines import is_text, lines, placed, storable

INT64 = range(-(2**63), 2**63)
EXACT = range(-(2**53), 2**53 + 1)  # whole numbers that a float holds
BOM = b"\xef\xbb\xbf"


class _Large:
    """Kind of a whole number beyond EXACT."""


TYPES = {bool: pa.bool_(), int: pa.int64(), _Large: pa.int64(), float: pa.float64(), str: pa.string()}


class JsonLines:
    """Values that have no common type, lists and objects become their JSON text."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        kinds: dict[str, set[type]] = {}
        for file in found:
            for row in _objects(files, file):
                for name, value in row.items():
                    kinds.setdefault(name, set()).add(_kind(value))
        return pa.schema([(name, _common(of)) for name, of in kinds.items()])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int) -> Iterator[Part]:
        def sizes(file: File) -> Iterator[tuple[int, int]]:
            # Blank lines, which editors leave at the end, are no rows.
            return ((place, len(line)) for place, line in placed(lines(files, file)) if line.strip())

        return cut_files(found, rows, sizes)

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        rows = list(islice(_objects(files, found[part.file], part.start), part.rows))
        columns = [
            pa.array([_fitted(row.get(field.name), field.type) for row in rows], field.type)
            for field in schema
        ]
        return Rows(pa.table(columns, schema=schema), [row.get(column) for row in rows])


def _objects(files: fs.FileSystem, file: File, start: int = 0) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines(files, file, start), 1):
        if not line.strip():
            continue
        try:
            row = _parse(line.removeprefix(BOM))
        except (ValueError, RecursionError) as error:
            raise BulkError(f"{file.path} line {number} is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise BulkError(f"{file.path} line {number} is not a JSON object")
        yield row


def _parse(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)  # which takes half a surrogate pair: a text that is none, but a row


def _kind(value: object) -> type:
    if isinstance(value, int) and value not in EXACT:
        return _Large if value in INT64 else object
    return type(value)


def _common(kinds: set[type]) -> pa.DataType:
    kinds = kinds - {type(None)}
    if kinds == {int, float}:
        return pa.float64()
    if kinds == {int, _Large}:
        return pa.int64()
    return TYPES.get(kinds.pop(), pa.string()) if len(kinds) == 1 else pa.string()


def _fitted(value: Any, column: pa.DataType) -> Any:
    if column != pa.string() or value is None:
        return value
    return (
        storable(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=not is_text(str(value)))
    )

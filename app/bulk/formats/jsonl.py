"""JSON Lines: one object per line. A column has the narrowest type that holds all of its values."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.formats import File, Malformed, Part, Rows, cut_files
from app.bulk.formats.decoding import UTF8, decode
from app.bulk.formats.lines import is_text, lines, placed, storable

INT64 = range(-(2**63), 2**63)
EXACT = range(-(2**53), 2**53 + 1)  # integers that a float represents exactly
BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n\0"  # in UTF-16 too
DEEP = Malformed("it is nested too deeply")


class _Large:
    """The kind of an integer outside EXACT."""


TYPES = {bool: pa.bool_(), int: pa.int64(), _Large: pa.int64(), float: pa.float64(), str: pa.string()}


class JsonLines:
    """Lists, objects and values without a common type become their JSON text."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        kinds: dict[str, set[type]] = {}
        wrong = ""
        for file in found:
            for number, row in enumerate(_objects(files, file), 1):
                if isinstance(row, Malformed):
                    wrong = wrong or f"{file.path} row {number}: {row.reason}"
                    continue
                for name, value in row.items():
                    kinds.setdefault(name, set()).add(_kind(value))
        if wrong and not kinds:
            raise BulkError(f"no row is a JSON object with columns, the first one is {wrong}")
        return pa.schema([(name, _common(of)) for name, of in kinds.items()])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int, size: int) -> Iterator[Part]:
        def sizes(file: File) -> Iterator[tuple[int, int]]:
            # Blank lines, which editors leave at the end, are not rows.
            return ((place, len(line)) for place, line in placed(lines(files, file)) if line.strip(BLANK))

        return cut_files(found, rows, size, sizes)

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        columns: list[list[Any]] = [[] for _ in schema]
        texts: list[object] = []
        for row in islice(_objects(files, found[part.file], part.start), part.rows):
            values: list[Any] = [None] * len(schema)
            text: object = row
            if not isinstance(row, Malformed):
                try:
                    values = [_fitted(row.get(field.name), field.type) for field in schema]
                    text = row.get(column)
                except RecursionError:
                    text = DEEP
            texts.append(text)
            for held, value in zip(columns, values, strict=True):
                held.append(value)
        arrays = [pa.array(held, field.type) for held, field in zip(columns, schema, strict=True)]
        return Rows(pa.table(arrays, schema=schema), texts)


def _objects(files: fs.FileSystem, file: File, start: int = 0) -> Iterator[dict[str, Any] | Malformed]:
    return (_parse(line, file.encoding or UTF8) for line in lines(files, file, start) if line.strip(BLANK))


def _parse(line: bytes, encoding: str) -> dict[str, Any] | Malformed:
    try:
        try:
            row = orjson.loads(line.removeprefix(BOM) if encoding == UTF8 else decode(line, encoding))
        except orjson.JSONDecodeError:
            # Unlike orjson, json accepts lone surrogates, also those that stand for undecodable bytes.
            row = json.loads(decode(line, encoding))
            if isinstance(row, dict) and not all(map(is_text, row)):
                return Malformed("the name of a column is not text")
    except ValueError as error:
        return Malformed(f"it is not valid JSON: {error}")
    except RecursionError:
        return DEEP
    return row if isinstance(row, dict) else Malformed("it is not a JSON object")


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
    if isinstance(value, str):
        return storable(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if is_text(text) else json.dumps(value)

"""Parquet: rows are found by their number."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.formats import File, Part, Rows
from app.bulk.formats.decoding import decode


class Parquet:
    """Columns keep their types, but views become large strings: Arrow cannot filter or take rows of views."""

    def columns(self, files: fs.FileSystem, found: list[File]) -> pa.Schema:
        first = _open(files, found[0]).schema_arrow.remove_metadata()
        if len(set(first.names)) < len(first.names):
            raise BulkError(f"{found[0].path} has two columns of the same name")
        for file in found[1:]:
            other = _open(files, file).schema_arrow.remove_metadata()
            if not other.equals(first):
                raise BulkError(f"{file.path} has other columns or types than {found[0].path}")
        return pa.schema([field.with_type(_without_views(field.type)) for field in first])

    def parts(self, files: fs.FileSystem, found: list[File], rows: int, size: int) -> Iterator[Part]:
        for index, file in enumerate(found):
            metadata = _open(files, file).metadata
            groups = range(metadata.num_row_groups)
            held = sum(metadata.row_group(group).total_byte_size for group in groups)
            step = max(1, min(rows, metadata.num_rows * size // max(1, held)))
            for number, start in enumerate(range(0, metadata.num_rows, step)):
                yield Part(index, number, start, start, min(step, metadata.num_rows - start))

    def read(
        self, files: fs.FileSystem, found: list[File], part: Part, column: str, schema: pa.Schema
    ) -> Rows:
        file = found[part.file]
        table = _slice(_open(files, file), file, part).cast(schema)
        return Rows(table, _texts(table.column(column)))


def _open(files: fs.FileSystem, file: File) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(files.open_input_file(file.path))
    except (OSError, pa.ArrowException) as error:
        raise BulkError(f"{file.path} cannot be read as Parquet: {error}") from error


def _without_views(column: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(column):
        return pa.large_string()
    if pa.types.is_binary_view(column):
        return pa.large_binary()
    if pa.types.is_list(column):
        return pa.list_(column.value_field.with_type(_without_views(column.value_type)))
    if pa.types.is_struct(column):
        return pa.struct([field.with_type(_without_views(field.type)) for field in column])
    return column


def _slice(source: pq.ParquetFile, file: File, part: Part) -> pa.Table:
    """The rows of a part; only the row groups that hold some of them are read."""
    before, groups = 0, []
    skipped: int | None = None
    for group in range(source.metadata.num_row_groups):
        rows = source.metadata.row_group(group).num_rows
        if before + rows > part.start and before < part.start + part.rows:
            skipped = part.start - before if skipped is None else skipped
            groups.append(group)
        before += rows
    skip, left, found = skipped or 0, part.rows, []
    try:
        for batch in source.iter_batches(batch_size=max(1, min(part.rows, 4096)), row_groups=groups):
            kept = batch.slice(skip, left)
            skip -= min(skip, batch.num_rows)
            left -= kept.num_rows
            if kept.num_rows:
                found.append(kept)
            if not left:
                break
    except (OSError, pa.ArrowException) as error:
        raise BulkError(f"{file.path} cannot be read as Parquet: {error}") from error
    return pa.Table.from_batches(found, source.schema_arrow)


def _texts(column: pa.ChunkedArray) -> list[object]:
    try:
        return [*column.to_pylist()]
    except UnicodeDecodeError:  # Parquet may hold bytes that are not UTF-8
        return [
            None if value is None else decode(value) for value in column.cast(pa.large_binary()).to_pylist()
        ]

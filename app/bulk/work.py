"""The work on one part: read, embed, write. It is the same here and on every node of a cluster."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.bulk.destination import Destination
from app.bulk.errors import BulkError, RowFault, Stopped
from app.bulk.formats import Part, Rows
from app.bulk.options import Counts, Model, Options, metadata
from app.bulk.passages import documents, encode_passages, passage_fields, passage_table, rows_at_a_time
from app.bulk.reuse import Earlier
from app.bulk.source import WHOLE, Source
from app.bulk.vectors import encode_rows, vector_fields
from app.engine.encoder import Encoder
from app.engine.errors import Abandoned, EngineError

Embedded = tuple[pa.Table, pa.Array, Counts]  # n rows, (n,) which of them have vectors, their counts


@dataclass(frozen=True)
class Work:
    """Everything that a part's embedding depends on except the encoder; it is sent to every node."""

    source: Source
    destination: Destination
    options: Options
    model: Model
    earlier: Earlier | None = None  # which may have vectors of the same texts

    def __post_init__(self) -> None:
        """Raises BulkError if the source has a column with an output's name, or no id column."""
        for added in self._added:
            if added.name in self.source.schema.names:
                raise BulkError(f"{self.source.place} already has a column {added.name!r}: rename or drop it")
        name = self.options.id_column
        if name is not None and name not in self.source.schema.names:
            columns = ", ".join(map(repr, self.source.schema.names))
            raise BulkError(
                f"{self.source.place} has no column {name!r}: set --id-column to one of {columns}"
            )

    @property
    def schema(self) -> pa.Schema:
        """The source's columns, those of passages, and one per output; the metadata describes the vectors."""
        source = self.source.schema
        if self.options.chunk:
            column = source.names.index(self.source.column)
            source = source.set(column, pa.field(self.source.column, pa.string()))
        return pa.schema([*source, *self._added], metadata(self.model, self.options))

    @property
    def _added(self) -> list[pa.Field]:
        pages = self.source.format == "documents"
        passages = passage_fields(pages) if self.options.chunk else []
        return [*passages, *vector_fields(self.model, self.options)]

    def embed(self, encoder: Encoder, part: Part, gone: Callable[[], bool] | None = None) -> Counts:
        """Write a part's file; raises Stopped once `gone()` is true, BulkError for whatever goes wrong."""
        found = self.source.read(part)
        if found.table.num_rows != part.rows:
            raise BulkError(f"{self.source.place} changed while it was read")
        total = Counts()
        embedded = self._passages if self.options.chunk else self._rows
        try:
            with self.destination.part(part.name, self.schema) as writer:
                for table, valid, counts in embedded(encoder, part, found, gone):
                    writer.write_table(table.filter(valid) if self.options.on_error == "skip" else table)
                    total.add(counts)
                writer.add_key_value_metadata({"counts": json.dumps(asdict(total))})
        except Abandoned:
            raise Stopped from None
        except EngineError as error:
            raise BulkError(str(error)) from error
        except RowFault as error:
            raise BulkError(f"{self._where(part, found.table, error.index)} is {error.fault}") from error
        return total

    def _rows(
        self, encoder: Encoder, part: Part, found: Rows, gone: Callable[[], bool] | None
    ) -> Iterator[Embedded]:
        row, schema = 0, self.schema
        for valid, columns, counts in self._encode(encoder, found.texts, gone):
            window = found.table.slice(row, len(valid))
            yield pa.table([*window.columns, *columns], schema=schema), pa.array(valid), counts
            row += len(valid)

    def _encode(
        self, encoder: Encoder, texts: list[object], gone: Callable[[], bool] | None
    ) -> Iterator[tuple[NDArray[np.bool_], list[pa.Array], Counts]]:
        if self.earlier is None:
            return encode_rows(encoder, texts, self.options, gone)
        return self.earlier.encode_rows(encoder, texts, self.options, gone)

    def _passages(
        self, encoder: Encoder, part: Part, found: Rows, gone: Callable[[], bool] | None
    ) -> Iterator[Embedded]:
        column, schema = self.source.column, self.schema
        names = [self._name(part, found.table, index) for index in range(part.rows)]
        common = documents(found, names, column)
        most = rows_at_a_time(common)
        for whole in encode_passages(encoder, found.texts, self.options, gone, self.earlier):
            for window in whole.slices(most):
                table = passage_table(window, found, common, column, schema)
                yield table, pa.array(window.valid), window.counts

    def _name(self, part: Part, table: pa.Table, index: int) -> str:
        """A name to cite a row by: its id, else its file, with its row number if the file has many."""
        if (told := self._id(table, index)) is not None:
            return told
        file = self.source.file(part, index).name
        return file if self.source.format in WHOLE else f"{file}#{part.row + index + 1}"

    def _id(self, table: pa.Table, index: int) -> str | None:
        """The row's value in the id column, if there is one."""
        name = self.options.id_column
        if name and (value := table.column(name)[index]).is_valid:
            with suppress(UnicodeDecodeError):  # Parquet may hold bytes that are not UTF-8
                return str(value)
        return None

    def _where(self, part: Part, table: pa.Table, index: int) -> str:
        """A row, named as its owner knows it, for an error message."""
        if (told := self._id(table, index)) is not None:
            return f"the text of {told if len(told) < 80 else told[:80] + '...'}"
        if self.source.format in WHOLE:
            return self.source.file(part, index).name
        return f"the text in {self.source.file(part, index).name}, row {part.row + index + 1},"

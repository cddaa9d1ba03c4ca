"""The work on one part: read, embed, write. The same here and on every node of a cluster."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

import pyarrow as pa

from app.bulk.destination import Destination
from app.bulk.errors import BulkError, RowFault, Stopped
from app.bulk.formats import Part
from app.bulk.options import Counts, Model, Options, metadata
from app.bulk.source import Source
from app.bulk.vectors import encode_rows, vector_fields
from app.engine.encoder import Encoder
from app.engine.errors import Abandoned, EngineError


@dataclass(frozen=True)
class Work:
    """Everything a part's embedding depends on but the encoder; goes to every node."""

    source: Source
    destination: Destination
    options: Options
    model: Model

    def __post_init__(self) -> None:
        """BulkError if the source has a column that the vectors need."""
        for output in self.options.outputs:
            if output in self.source.schema.names:
                raise BulkError(f"{self.source.place} has a column {output!r} already, rename or drop it")
        name = self.options.id_column
        if name is not None and name not in self.source.schema.names:
            columns = ", ".join(map(repr, self.source.schema.names))
            raise BulkError(
                f"{self.source.place} has no column {name!r}, --id-column names one of: {columns}"
            )

    @property
    def schema(self) -> pa.Schema:
        """The source's columns, then a column per output, and in its metadata what they are."""
        added = vector_fields(self.model, self.options)
        return pa.schema([*self.source.schema, *added], metadata(self.model, self.options))

    def embed(self, encoder: Encoder, part: Part, gone: Callable[[], bool] | None = None) -> Counts:
        """Write the file of a part; Stopped once `gone` says so, BulkError for whatever goes wrong."""
        found = self.source.read(part)
        if found.table.num_rows != part.rows:
            raise BulkError(f"{self.source.place} has changed while it was read")
        total, row, schema = Counts(), 0, self.schema
        try:
            with self.destination.part(part.name, schema) as writer:
                for valid, columns, counts in encode_rows(encoder, found.texts, self.options, gone):
                    window = found.table.slice(row, len(valid))
                    table = pa.table([*window.columns, *columns], schema=schema)
                    if self.options.on_error == "skip":
                        table = table.filter(pa.array(valid))
                    writer.write_table(table)
                    row += len(valid)
                    total.add(counts)
                writer.add_key_value_metadata({"counts": json.dumps(asdict(total))})
        except Abandoned:
            raise Stopped from None
        except EngineError as error:
            raise BulkError(str(error)) from error
        except RowFault as error:
            raise BulkError(f"{self._where(part, found.table, error.index)} is {error.fault}") from error
        return total

    def _where(self, part: Part, table: pa.Table, index: int) -> str:
        """A row of a part, as its owner knows it."""
        name = self.options.id_column
        if name and (value := table.column(name)[index]).is_valid:
            with suppress(UnicodeDecodeError):  # Parquet may hold bytes that are no UTF-8
                told = str(value)
                return f"the text of {told if len(told) < 80 else told[:80] + '...'}"
        if self.source.format == "text":
            return self.source.file(part, index).name
        return f"the text in {self.source.file(part, index).name}, row {part.row + index + 1},"

"""Joins the parts into one numpy array."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

from app.bulk.errors import BulkError
from app.bulk.vectors import TYPES


def write_matrix(
    folder: Path, target: Path, width: int, encoding: str, id_column: str | None, passages: bool
) -> None:
    """Write all dense vectors of the parts in `folder` to `target`, as (n, d) in the order of the rows.

    A row without a vector becomes NaN, or 0 if the encoding has integers. With `id_column`, that column is
    written next to it, to a file that ends in .ids.parquet. If the rows are `passages`, all of their other
    columns are, to a file that ends in .passages.parquet.
    """
    parts = sorted(path for path in folder.glob("part-*.parquet"))
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    dtype = np.dtype(TYPES[encoding].to_pandas_dtype())
    unfinished, named = target.with_suffix(".unfinished"), target.with_suffix(".ids.unfinished")
    try:
        matrix = open_memmap(unfinished, "w+", dtype, (rows, width))
        if hasattr(os, "posix_fallocate"):  # writing to a mapped file on a full disk kills the process
            with unfinished.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, unfinished.stat().st_size)
        start = 0
        for part in parts:
            table = pq.read_table(part, columns=["dense"])
            matrix[start : start + table.num_rows] = _dense(table, width, dtype)
            start += table.num_rows
        matrix.flush()
        if passages or id_column:
            _write_beside(parts, named, None if passages else id_column)
            os.replace(named, target.with_suffix(".passages.parquet" if passages else ".ids.parquet"))
        os.replace(unfinished, target)
    except (OSError, pa.ArrowException) as error:
        for path in (unfinished, named):
            path.unlink(missing_ok=True)
        raise BulkError(f"{target} cannot be written: {error}") from error


def _write_beside(parts: list[Path], path: Path, column: str | None) -> None:
    """Write this column of all parts to `path`; None means all columns but the vectors."""
    whole = pq.read_schema(parts[0]) if parts else pa.schema([])
    kept = [field for field in whole if field.name == (column or field.name) != "dense"]
    schema = pa.schema(kept, whole.metadata)
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part, columns=schema.names, schema=schema))
        file.flush()
        os.fsync(file.fileno())


def _dense(table: pa.Table, width: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    column = table.column("dense").combine_chunks()
    null = column.is_null().to_numpy(zero_copy_only=False)
    found = np.full((len(column), width), np.nan if dtype.kind == "f" else 0, dtype)
    found[~null] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return found

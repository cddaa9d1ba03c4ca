"""Parts put together into one numpy array."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

from app.bulk.errors import BulkError
from app.bulk.vectors import TYPES


def write_matrix(folder: Path, target: Path, width: int, encoding: str, id_column: str | None) -> None:
    """All dense vectors of the parts in `folder` as (n, d) in `target`, in the order of the rows.

    A row without a vector is NaN, or 0 where the numbers are whole. With `id_column` its values go
    beside it, as (n,) text, into a file that ends in .ids.npy.
    """
    parts = sorted(path for path in folder.glob("part-*.parquet"))
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    dtype = np.dtype(TYPES[encoding].to_pandas_dtype())
    unfinished = target.with_suffix(".unfinished")
    ids: list[str] = []
    try:
        matrix = open_memmap(unfinished, "w+", dtype, (rows, width))
        if hasattr(os, "posix_fallocate"):  # a full disk found while writing would end the process
            with unfinished.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, unfinished.stat().st_size)
        start = 0
        for part in parts:
            columns = ["dense"] + ([id_column] if id_column else [])
            table = pq.read_table(part, columns=columns)
            matrix[start : start + table.num_rows] = _dense(table, width, dtype)
            ids += [str(value) for value in table.column(id_column).to_pylist()] if id_column else []
            start += table.num_rows
        matrix.flush()
        if id_column:
            with (named := target.with_suffix(".ids.unfinished")).open("wb") as file:
                np.save(file, np.array(ids, np.str_))
                os.fsync(file.fileno())
            os.replace(named, target.with_suffix(".ids.npy"))
        os.replace(unfinished, target)
    except (OSError, pa.ArrowException) as error:
        unfinished.unlink(missing_ok=True)
        raise BulkError(f"{target} cannot be written: {error}") from error


def _dense(table: pa.Table, width: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    column = table.column("dense").combine_chunks()
    null = column.is_null().to_numpy(zero_copy_only=False)
    found = np.full((len(column), width), np.nan if dtype.kind == "f" else 0, dtype)
    found[~null] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return found

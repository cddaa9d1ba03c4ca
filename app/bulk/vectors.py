"""Embeds texts into Arrow columns of vectors, in windows of rows that fit into memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.bulk.errors import RowFault
from app.bulk.formats import Malformed, Unread
from app.bulk.formats.lines import is_text
from app.bulk.options import Counts, Model, Options
from app.engine.embeddings import Embeddings, FloatArray, Output
from app.engine.encoder import Encoder
from app.engine.encodings import QUANTIZED
from app.engine.errors import NotFinite

# Rows are embedded together until their multi-vectors have this many numbers. The encoder sorts texts by
# length, and in this many there is almost no padding.
WINDOW_NUMBERS = 1 << 27  # float32
TYPES = {
    "float32": pa.float32(),
    "float16": pa.float16(),
    "int8": pa.int8(),
    "binary": pa.int8(),
    "ubinary": pa.uint8(),
}


def vector_fields(model: Model, options: Options) -> list[pa.Field]:
    """The vector columns, which are added to the source's columns."""
    width = model.width // 8 if "binary" in options.encoding else model.width
    vector = pa.list_(TYPES[options.encoding], width)
    sparse = pa.struct([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])
    types = {"dense": vector, "sparse": sparse, "colbert": pa.list_(vector)}
    return [pa.field(output, types[output]) for output in options.outputs]


def encode_rows(
    encoder: Encoder,
    texts: Sequence[object],
    options: Options,
    gone: Callable[[], bool] | None = None,
) -> Iterator[tuple[NDArray[np.bool_], list[pa.Array], Counts]]:
    """Yield for each window of n rows which have vectors (n,), one column (n rows) per output, and counts.

    A row that is null, empty or not text has no vectors. Raises RowFault for it if `on_error` is `fail`.
    """
    row = 0
    for window in windows(texts, encoder, options):
        faults = [fault_of(value) for value in window]
        done, places = encode_good(encoder, window, faults, options, gone)
        kept = [index for index, place in enumerate(places) if faults[place] is None]
        valid = np.array([fault is None for fault in faults])
        counts = Counts(rows=len(window), tokens=done.tokens)
        counts.truncated = sum(1 for index in done.truncated if faults[places[index]] is None)
        for index, fault in enumerate(faults):
            if fault is not None:
                if options.on_error == "fail":
                    raise RowFault(row + index, sentence(fault, window[index]))
                setattr(counts, fault, getattr(counts, fault) + 1)
        row += len(window)
        yield valid, vector_columns(done, kept, valid, options), counts


def windows(texts: Sequence[object], encoder: Encoder, options: Options) -> Iterator[Sequence[object]]:
    """Split the texts into runs whose vectors fit into memory."""
    if "colbert" not in options.outputs:
        yield texts
        return
    start, numbers = 0, 0
    for index, value in enumerate(texts):
        # A text seldom has more tokens than characters, mostly a quarter as many; 2 special tokens are added.
        tokens = min(len(value) + 2, encoder.max_tokens) if isinstance(value, str) else 0
        if numbers and numbers + tokens * encoder.width > WINDOW_NUMBERS:
            yield texts[start:index]
            start, numbers = index, 0
        numbers += tokens * encoder.width
    yield texts[start:]


def sentence(fault: str, value: object) -> str:
    """A text's fault in words, for those who have to fix it."""
    reason = f": {value.reason}" if isinstance(value, Malformed) else ""
    return fault.replace("_", " ") + reason


def fault_of(value: object) -> str | None:
    """Why this value cannot be embedded, as Counts names it; None if it can."""
    if value is None:
        return "null"
    if isinstance(value, Malformed):
        return "malformed"
    if isinstance(value, Unread):
        return value.fault
    if not is_text(value):
        return "not_text"
    return None if str(value).strip() else "empty"


def encode_good(
    encoder: Encoder,
    window: Sequence[object],
    faults: list[str | None],
    options: Options,
    gone: Callable[[], bool] | None,
) -> tuple[Embeddings, list[int]]:
    """Encode the texts without a fault; also return their indices. Adds faults that only the model finds."""
    while True:
        places = [index for index, fault in enumerate(faults) if fault is None]
        try:
            done = encoder.encode(
                [str(window[place]) for place in places],
                outputs=options.outputs,
                priority="bulk",
                gone=gone,
                chunk=options.chunk,
                colbert_pool=options.colbert_pool,
            )
        except NotFinite as error:
            for index in error.indices:
                faults[places[index]] = "not_finite"
            continue
        if not options.truncate:
            for index in done.truncated:
                faults[places[index]] = "too_long"
        return done, places


def vector_columns(
    done: Embeddings, kept: list[int], valid: NDArray[np.bool_], options: Options
) -> list[pa.Array]:
    """One column (n rows) per output, null where `valid` (n,) is false; the rest are `kept` of `done`."""
    return [_column(output, done, kept, valid, options) for output in options.outputs]


def _column(
    output: Output, done: Embeddings, kept: list[int], valid: NDArray[np.bool_], options: Options
) -> pa.Array:
    """The column of one output, see `vector_columns`."""
    null = pa.array(~valid)
    if output == "dense":
        found = _encoded(done.dense[kept], options.encoding)
        rows = np.zeros((len(valid), found.shape[1]), found.dtype)
        rows[valid] = found
        return _matrix(rows, options.encoding, null)
    counts = np.zeros(len(valid), np.int64)
    if output == "sparse":
        pairs = [done.sparse[index] for index in kept]
        counts[valid] = [len(ids) for ids, _ in pairs]
        indices = np.concatenate([ids for ids, _ in pairs] or [np.empty(0, np.int32)])
        values = np.concatenate([weights for _, weights in pairs] or [np.empty(0, np.float32)])
        lists = [_lists(counts, pa.array(flat)) for flat in (indices, values)]
        return pa.StructArray.from_arrays(lists, ["indices", "values"], mask=null)
    matrices = [_encoded(done.multi_vector[index], options.encoding) for index in kept]
    counts[valid] = [len(matrix) for matrix in matrices]
    width = _encoded(np.empty((0, done.dense.shape[1]), np.float32), options.encoding).shape[1]
    flat = np.concatenate(matrices) if matrices else np.empty((0, width), np.float32)
    return _lists(counts, _matrix(flat, options.encoding), null)


def _encoded(rows: FloatArray, encoding: str) -> NDArray[Any]:
    if encoding in QUANTIZED:
        return QUANTIZED[encoding](rows)
    return rows.astype(encoding)


def _matrix(rows: NDArray[Any], encoding: str, null: pa.Array | None = None) -> pa.Array:
    flat = pa.array(rows.ravel(), TYPES[encoding])
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1], mask=null)


def _lists(counts: NDArray[np.int64], flat: pa.Array, null: pa.Array | None = None) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=null)

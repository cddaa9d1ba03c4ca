"""Reuses vectors from an earlier output for rows and documents whose texts have not changed."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.bulk.destination import SUMMARY, Destination, short
from app.bulk.errors import BulkError, RowFault
from app.bulk.formats.lines import is_text
from app.bulk.options import DESCRIBED, Counts, Options
from app.bulk.vectors import encode_rows, windows
from app.engine.embeddings import IntArray
from app.engine.encoder import Encoder

log = logging.getLogger(__name__)

# Two outputs may differ in these and still have the same vectors for the same text. Each output that is asked
# for must be there.
MAY_DIFFER = DESCRIBED | {
    *("source", "column", "text_encoding", "delimiter", "on_error", "part_rows", "limit", "id_column"),
    "outputs",
}
SHA256 = "document_sha256"  # column of passages: the hash of the whole document's text
PLACES = pa.schema([("start", pa.int64()), ("end", pa.int64())])  # where a passage is in it, in code points
NO_ROWS = np.empty((0, 2), np.int64)


class Earlier:
    """An index of an earlier output: its rows by the hashes of their texts, 24 bytes per row.

    If the output holds passages, its documents by the hashes of their texts, 40 bytes per document.
    """

    def __init__(self, place: str, manifest: dict[str, Any], out: str, fields: list[pa.Field]) -> None:
        """Index the output at `place` for one in the folder `out` with this manifest and vector columns.

        Raises BulkError unless its vectors are those that would be computed.
        """
        if place.rstrip("/") == out or ("://" not in place and Path(place).resolve() == Path(out).resolve()):
            raise BulkError("--reuse and --out name the same folder: to go on in it, leave out --reuse")
        if place.endswith(".npy"):
            raise BulkError(f"{place} holds no texts: --reuse takes a folder of Parquet files")
        self._old = Destination(place)
        found = self._old.manifest()
        _check(place, found, manifest)
        self.vectors = pa.schema(fields)
        self._parts = sorted(self._old.done())
        if not self._old.has(SUMMARY):
            log.warning("%s is not finished: the vectors that it has are reused", place)
        # The index of each part's first row in the whole output.
        self._starts = np.cumsum([0, *(self._old.open(name).metadata.num_rows for name in self._parts)])
        chunked = bool(manifest["chunk_tokens"])
        column = SHA256 if chunked else found["column"]
        needed = {column, *self.vectors.names, *(("chunk", *PLACES.names) if chunked else ())}
        keys, runs = [_hashes([])], []
        for name, start in zip(self._parts, self._starts, strict=False):
            part = self._old.open(name)
            if missing := needed - set(part.schema_arrow.names):
                raise BulkError(f"{self._old.place}/{name} has no column {min(missing)!r} any more")
            with self._reading(name):
                hashes, inside = _documents(part) if chunked else (_rows(part, column), NO_ROWS)
            keys.append(hashes)
            runs.append(inside + np.array([start, 0]))
        self._high, self._low = (np.concatenate([part[:, half] for part in keys]) for half in range(2))
        self._order = np.argsort(self._high)
        # Each document's first row and number of rows. `find` gives -1, the last, for one that is not there.
        self._runs = np.concatenate([*runs, [[0, 0]]])

    @property
    def size(self) -> int:
        """How many rows or documents the index has."""
        return len(self._order)

    def find(self, texts: Sequence[object]) -> NDArray[np.int64]:
        """The row of each of n texts (n,), or the document of each of n hashes; -1 if there is none."""
        wanted = [text.encode() if isinstance(text, str) and is_text(text) else None for text in texts]
        found = np.full(len(wanted), -1)
        if len(self._order):
            high, low = _hashes(wanted).T
            rows = self._order[
                np.searchsorted(self._high, high, sorter=self._order).clip(max=len(self._order) - 1)
            ]
            same = (self._high[rows] == high) & (self._low[rows] == low)
            same &= [text is not None for text in wanted]
            found[same] = rows[same]
        return found

    def read(self, rows: NDArray[np.int64], schema: pa.Schema) -> pa.Table:
        """The columns of `schema` for n rows; vectors are null for a row that has none.

        Rows of the same row group are read together, one group at a time.
        """
        order = np.argsort(rows)
        wanted, tables = rows[order], [schema.empty_table()]
        for number in np.unique(np.searchsorted(self._starts, wanted, side="right") - 1):
            part, start = self._old.open(self._parts[number]), self._starts[number]
            for group in range(part.metadata.num_row_groups):
                end = start + part.metadata.row_group(group).num_rows
                here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)]
                if len(here):
                    with self._reading(self._parts[number]):
                        table = part.read_row_group(group, columns=schema.names).select(schema.names)
                        tables.append(table.take(here - start).cast(schema))
                start = end
        return pa.concat_tables(tables).take(np.argsort(order))

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise BulkError(f"{self._old.place}/{name} cannot be read: {error}") from error

    def runs(self, hashes: Sequence[str | None]) -> IntArray:
        """The first row and the number of rows (n, 2) of n documents, given the hashes of their texts."""
        return self._runs[self.find(hashes)]

    def passages(
        self, pieces: Sequence[tuple[str, int, int]], runs: IntArray
    ) -> tuple[list[IntArray], pa.Table]:
        """The passages of n pieces, each given as its document's text and where it starts and ends in that.

        `runs` (n, 2) are those of the documents. Returns where the k passages of each piece start and end in
        the text (k, 2), and the vectors of all passages. If a passage or its vectors are missing, its whole
        piece has no passages.
        """
        rows = [np.arange(first, first + number) for first, number in runs.tolist()]
        table = self.read(np.concatenate(rows), PLACES)
        flat = np.stack([column.to_numpy() for column in table.columns], axis=1)
        places = np.split(flat, np.cumsum([len(run) for run in rows])[:-1])
        for index, (text, start, stop) in enumerate(pieces):
            here = (places[index][:, 0] >= start) & (places[index][:, 0] < stop)
            rows[index], places[index] = rows[index][here], places[index][here]
            if not _covers(text, start, stop, places[index]):  # --on-error skip leaves out faulty passages
                rows[index], places[index] = rows[index][:0], places[index][:0]
        vectors = self.read(np.concatenate(rows), self.vectors)
        has = vectors.column(0).is_valid().to_numpy()
        of = np.repeat(np.arange(len(rows)), [len(run) for run in rows])
        faulty = np.unique(of[~has])
        for index in faulty:
            places[index] = places[index][:0]
        return places, vectors.filter(~np.isin(of, faulty))

    def encode_rows(
        self,
        encoder: Encoder,
        texts: Sequence[object],
        options: Options,
        gone: Callable[[], bool] | None = None,
    ) -> Iterator[tuple[NDArray[np.bool_], list[pa.Array], Counts]]:
        """Like `vectors.encode_rows`, which computes what is not found here."""
        schema, row = self.vectors, 0
        for window in windows(texts, encoder, options):
            places = self.find(window)
            known = np.flatnonzero(places >= 0)
            table = self.read(places[known], schema)
            has = table.column(0).is_valid().to_numpy()
            known, table = known[has], table.filter(has)
            valid = np.zeros(len(window), np.bool_)
            valid[known] = True
            rest = np.flatnonzero(~valid)
            left = [window[index] for index in rest.tolist()]
            counts = Counts(rows=len(known), reused=len(known))
            tables = [table]
            try:
                start = 0
                for computed, columns, more in encode_rows(encoder, left, options, gone) if left else ():
                    valid[rest[start : start + len(computed)]] = computed
                    start += len(computed)
                    tables.append(pa.table(columns, schema=schema))
                    counts.add(more)
            except RowFault as error:
                raise RowFault(row + int(rest[error.index]), error.fault) from None
            back = np.argsort(np.concatenate([known, rest]))
            merged = pa.concat_tables(tables).take(back).combine_chunks()
            row += len(window)
            yield valid, merged.columns, counts


def _rows(part: pq.ParquetFile, column: str) -> NDArray[np.uint64]:
    """The hash of each row's text (n, 2)."""
    found = [_hashes([])]
    for batch in part.iter_batches(columns=[column]):
        texts = batch.column(0)
        if pa.types.is_dictionary(texts.type):
            texts = texts.dictionary_decode()
        found.append(_hashes(texts.cast(pa.large_binary()).to_pylist()))
    return np.concatenate(found)


def _documents(part: pq.ParquetFile) -> tuple[NDArray[np.uint64], IntArray]:
    """The hashes of n documents (n, 2), and their first row in this part and number of rows (n, 2).

    A document is a run of rows with the same hash, numbered from 0.
    """
    table = part.read(columns=[SHA256, "chunk"])
    hashes = table.column(SHA256).combine_chunks()
    numbers = table.column("chunk").fill_null(-1).to_numpy()
    goes_on = numbers[1:] == numbers[:-1] + 1
    goes_on &= pc.equal(hashes[1:], hashes[:-1]).fill_null(False).to_numpy(zero_copy_only=False)
    firsts = np.flatnonzero(np.concatenate([[True], ~goes_on])[: len(numbers)])
    runs = np.stack([firsts, np.diff(firsts, append=len(numbers))], axis=1)[numbers[firsts] == 0]
    return _hashes(hashes.take(runs[:, 0]).cast(pa.large_binary()).to_pylist()), runs


def _covers(text: str, start: int, stop: int, places: IntArray) -> bool:
    """Whether passages in order (k, 2) leave out only white space at the start and end of this piece."""
    if not len(places):
        return False
    first, last = int(places[0, 0]), int(places[-1, 1])
    return last <= stop and not text[start:first].strip() and not text[last:stop].strip()


def _hashes(texts: Sequence[bytes | None]) -> NDArray[np.uint64]:
    """A 128-bit hash of each of n texts (n, 2); 0 for None. Texts with equal hashes are taken to be equal."""
    none = bytes(16)
    digests = [none if text is None else hashlib.blake2b(text, digest_size=16).digest() for text in texts]
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)


def _check(place: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    if bool(old.get("chunk_tokens")) != bool(new["chunk_tokens"]):
        made, what = ("with", "passages") if old.get("chunk_tokens") else ("without", "whole texts")
        raise BulkError(f"{place} cannot be reused, it was made {made} --chunk: its vectors are of {what}")
    names = [name for name in {**new, **old} if name not in MAY_DIFFER and old.get(name) != new.get(name)]
    said = [f"{name.replace('_', ' ')} {short(old.get(name))} (now {short(new.get(name))})" for name in names]
    if missing := [output for output in new["outputs"] if output not in (old.get("outputs") or [])]:
        said.append(f"no {' and no '.join(missing)} vectors")
    if said:
        raise BulkError(f"{place} cannot be reused because its vectors differ: it has {', '.join(said)}")

"""Cuts texts of any length into passages, one row each, and embeds them in windows that fit into memory."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.bulk.errors import RowFault
from app.bulk.formats import Rows
from app.bulk.formats.lines import storable
from app.bulk.options import Counts, Options
from app.bulk.reuse import PLACES, SHA256, Earlier
from app.bulk.vectors import WINDOW_NUMBERS, encode_good, fault_of, sentence, vector_columns
from app.engine.embeddings import Embeddings, IntArray
from app.engine.encoder import Encoder
from app.engine.passages import piece_end

# How many characters are embedded together. A longer text is split before it is cut into passages.
WINDOW_CHARACTERS = 1 << 22
# The source's other columns are repeated for every passage: how much of that is in memory at a time.
REPEATED_BYTES = 1 << 28


@dataclass(frozen=True)
class Place:
    """A row to write: a passage, or a row of the source that has no text to embed."""

    row: int  # its index among the rows that were read
    chunk: int | None = None  # number of the passage in its row, from 0
    start: int | None = None  # in the row's text, in code points
    stop: int | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Window:
    """n rows to write."""

    places: list[Place]  # (n,)
    valid: NDArray[np.bool_]  # (n,) which of them have vectors
    vectors: list[pa.Array]  # one column (n rows) per output
    counts: Counts

    def slices(self, rows: int) -> Iterator["Window"]:
        """Split this into windows of up to `rows` rows; the first has the counts."""
        for start in range(0, len(self.places), rows):
            run = slice(start, start + rows)
            vectors = [column.slice(start, rows) for column in self.vectors]
            yield Window(self.places[run], self.valid[run], vectors, Counts() if start else self.counts)


def passage_fields(pages: bool) -> list[pa.Field]:
    """The columns that say where a passage comes from. They go between the source's and the vectors."""
    page = [("page", pa.int32())] if pages else []
    types = [("document", pa.string()), (SHA256, pa.string()), ("chunk", pa.int32())]
    return [*map(pa.field, *zip(*types, strict=True)), *PLACES, *(pa.field(*one) for one in page)]


def encode_passages(
    encoder: Encoder,
    texts: list[object],
    options: Options,
    gone: Callable[[], bool] | None = None,
    earlier: Earlier | None = None,
) -> Iterator[Window]:
    """Yield window after window; what `earlier` has is not computed again.

    Raises RowFault if a text has a fault and `on_error` is `fail`.
    """
    chunks = [0] * len(texts)
    seen: set[int] = set()
    faulty: set[int] = set()
    reused: set[int] = set()  # rows for which nothing has been computed
    known = earlier.runs([_sha256(text) for text in texts]) if earlier else np.zeros((len(texts), 2), int)
    for pieces in _windows(texts, _most_characters(encoder, options)):
        places, vectors = _take(earlier, known, texts, pieces) if earlier else ({}, None)
        rest = [index for index in range(len(pieces)) if index not in places]
        done, left = _encode(encoder, texts, [pieces[index] for index in rest], options, gone)
        counts = Counts(tokens=done.tokens, rows=-len(seen), reused=-len(reused))
        reused |= {pieces[index].row for index in places} - seen
        reused -= {piece.row for piece in left}
        seen |= {piece.row for piece in pieces}
        counts.add(Counts(rows=len(seen), reused=len(reused)))
        for piece in left:
            if piece.fault and piece.row not in faulty:
                if options.on_error == "fail":
                    raise RowFault(piece.row, sentence(piece.fault, texts[piece.row]))
                setattr(counts, piece.fault, getattr(counts, piece.fault) + 1)
                faulty.add(piece.row)
        taken = list(places)  # their vectors come before the computed ones; all are sorted below
        places |= zip(rest, _places(left, done), strict=True)
        fine = np.array([place.fault is None for index in rest for place in places[index]], bool)
        columns = vector_columns(done, list(range(len(done.passages))), fine, options)
        if vectors is not None:
            both = pa.concat_tables([vectors, pa.table(columns, schema=vectors.schema)])
            pieces_of = [index for index in [*taken, *rest] for _ in places[index]]
            columns = both.take(np.argsort(pieces_of, kind="stable")).combine_chunks().columns
        numbered = []
        for place in (place for index in range(len(pieces)) for place in places[index]):
            has_place = place.start is not None
            numbered.append(replace(place, chunk=chunks[place.row] if has_place else None))
            chunks[place.row] += has_place
        valid = np.array([place.fault is None for place in numbered], bool)
        counts.passages = int(valid.sum())
        yield Window(numbered, valid, columns, counts)


def documents(rows: Rows, names: list[str], column: str) -> pa.Table:
    """What all passages of a source row share: its other columns, its name, and the hash of its text."""
    digests = [_sha256(text) for text in rows.texts]
    common = rows.table.drop_columns([column])
    common = common.append_column("document", pa.array(names, pa.string()))
    return common.append_column(SHA256, pa.array(digests, pa.string()))


def rows_at_a_time(common: pa.Table) -> int:
    """How many passages can be written at once so that what they repeat stays within REPEATED_BYTES."""
    widest = max((common.slice(row, 1).nbytes for row in range(common.num_rows)), default=0)
    return max(1, REPEATED_BYTES // max(1, widest))


def passage_table(window: Window, rows: Rows, common: pa.Table, column: str, schema: pa.Schema) -> pa.Table:
    """n rows with the columns of `schema`: those from `common`, and those that each passage has itself."""
    places = window.places
    taken = common.take(pa.array([place.row for place in places], pa.int64()))
    texts = pa.array([_passage(place, rows, column) for place in places], pa.string())
    source = rows.table.column_names
    own = {
        "chunk": pa.array([place.chunk for place in places], pa.int32()),
        "start": pa.array([place.start for place in places], pa.int64()),
        "end": pa.array([place.stop for place in places], pa.int64()),
        "page": pa.array([_page(place, rows) for place in places], pa.int32()),
    }
    added = schema.names[len(source) : len(schema) - len(window.vectors)]
    kept = [texts if name == column else taken.column(name) for name in source]
    found = [own[name] if name in own else taken.column(name) for name in added]
    return pa.table([*kept, *found, *window.vectors], schema=schema)


def _sha256(text: object) -> str | None:
    """The hash of a text; None if there is nothing to embed."""
    return sha256(text.encode()).hexdigest() if isinstance(text, str) and fault_of(text) is None else None


def _page(place: Place, rows: Rows) -> int | None:
    starts = rows.pages[place.row] if rows.pages else None
    return None if starts is None or place.start is None else bisect_right(starts, place.start)


def _passage(place: Place, rows: Rows, column: str) -> str | None:
    text = rows.texts[place.row]
    if isinstance(text, str):
        return storable(text[place.start : place.stop])
    value = rows.table.column(column)[place.row].as_py()
    return None if value is None else str(value)


def _most_characters(encoder: Encoder, options: Options) -> int:
    """How many characters fit into a window; a text seldom has more tokens, each a row of a multi-vector."""
    return WINDOW_NUMBERS // encoder.width if "colbert" in options.outputs else WINDOW_CHARACTERS


def _windows(texts: list[object], most: int) -> Iterator[list[Place]]:
    window: list[Place] = []
    characters = 0
    for row, text in enumerate(texts):
        for piece in _pieces(row, text, most):
            length = (piece.stop or 0) - (piece.start or 0)
            if window and characters + length > most:
                yield window
                window, characters = [], 0
            window.append(piece)
            characters += length
    if window:
        yield window


def _pieces(row: int, text: object, most: int) -> Iterator[Place]:
    """Split a text that is too long for a window after the last paragraph, line or word that fits."""
    if (fault := fault_of(text)) is not None:
        yield Place(row, fault=fault)
        return
    assert isinstance(text, str)
    start = 0
    while len(text) - start > most:
        stop, _ = piece_end(text, start, most)
        if not text[start:stop].isspace():
            yield Place(row, start=start, stop=stop)
        start = stop
    if not text[start:].isspace():
        yield Place(row, start=start, stop=len(text))


def _encode(
    encoder: Encoder,
    texts: list[object],
    pieces: list[Place],
    options: Options,
    gone: Callable[[], bool] | None,
) -> tuple[Embeddings, list[Place]]:
    """Encode the pieces without a fault; also return all pieces, with faults that only the model finds."""
    given = [str(texts[piece.row])[piece.start : piece.stop] for piece in pieces]
    faults = [piece.fault for piece in pieces]
    done, _ = encode_good(encoder, given, faults, options, gone)
    return done, [replace(piece, fault=fault) for piece, fault in zip(pieces, faults, strict=True)]


def _places(pieces: list[Place], done: Embeddings) -> Iterator[list[Place]]:
    """The passages of each piece, located in the row's whole text; a piece with a fault is its own row."""
    passages = iter(done.passages)
    passage = next(passages, None)
    number = 0
    for piece in pieces:
        if piece.fault:
            yield [piece]
            continue
        found = []
        while passage and passage.text == number:
            first = piece.start or 0
            found.append(Place(piece.row, start=first + passage.start, stop=first + passage.stop))
            passage = next(passages, None)
        yield found
        number += 1


def _take(
    earlier: Earlier, known: IntArray, texts: list[object], pieces: list[Place]
) -> tuple[dict[int, list[Place]], pa.Table]:
    """The passages that an earlier output has for these pieces, by a piece's index, and their vectors."""
    asked = [(str(texts[piece.row]), piece.start or 0, piece.stop or 0) for piece in pieces]
    found, vectors = earlier.passages(asked, known[[piece.row for piece in pieces]])
    places = {
        index: [Place(piece.row, start=start, stop=stop) for start, stop in spans.tolist()]
        for index, (piece, spans) in enumerate(zip(pieces, found, strict=True))
        if len(spans)
    }
    return places, vectors

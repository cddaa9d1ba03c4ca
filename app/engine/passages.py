"""Cuts texts of any length into passages at good borders."""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from app.engine.borders import HEADING, Level, borders
from app.engine.embeddings import FRAME, Chunking, IntArray, Passage, Span
from app.engine.errors import TooMuchOutput
from app.engine.tokenizer import Part, Pause, Tokenizer, Tokens
from app.engine.turn import Turn

# A text is tokenised in pieces of at most this many characters, which end at borders: so each step is short,
# however long the text is.
PIECE_CHARACTERS = 1 << 13
PIECE_ENDS = (
    ("\n\n", Level.PARAGRAPH),
    ("\r\n\r\n", Level.PARAGRAPH),
    ("\n", Level.LINE),
    ("。", Level.SENTENCE),
    (" ", Level.WORD),
)
CLOSING = ("」", "』", "”", "’", "）")  # belong to the sentence before them
# Calls with more characters are cut one at a time: their tokens take many times the memory of the characters,
# and no limit counts them before they are queued.
LARGE_CHARACTERS = 1 << 15
# The most tokens that a server cuts for one call: each takes 64 bytes or more, with the data of its passages.
MOST_TOKENS = 1 << 21
# Neighbouring windows share a sixteenth of a window, so each token has at least half of that around it.
CONTEXT_SHARE = 16
SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], np.uint32)
FORBIDDEN = -1  # level of a position within a character, or before a combining mark

_turn = Turn()


@dataclass(frozen=True)
class Located:
    """The n tokens of a text, without special tokens."""

    ids: IntArray  # (n,)
    starts: IntArray  # (n,) the first character of each
    levels: NDArray[np.int8]  # (n,) the level of the border before each


def cut(
    tokenizer: Tokenizer,
    texts: list[str],
    chunking: Chunking,
    pause: Pause | None,
    most: int | None = None,
) -> Tokens:
    """Cut texts into passages, or take texts as the passages of one document; returns sequences to compute.

    Each text is tokenised once. An empty text gives one passage without tokens. `pause` is as for
    Tokenizer.encode. Raises TooMuchOutput for more than `most` tokens.
    """
    if pause is None or sum(map(len, texts)) <= LARGE_CHARACTERS:
        return _cut(tokenizer, texts, chunking, pause, most)
    with _turn.taken(partial(pause, 0)):
        return _cut(tokenizer, texts, chunking, pause, most)


def _cut(
    tokenizer: Tokenizer, texts: list[str], chunking: Chunking, pause: Pause | None, most: int | None
) -> Tokens:
    found: list[Located] = []
    tokens = characters = 0
    for text in texts:
        characters += len(text)
        pauses = pause if characters > PIECE_CHARACTERS else None  # short texts share a step
        characters = 0 if pauses else characters
        found.append(_locate(tokenizer, text, pauses, tokens, most))
        tokens += len(found[-1].ids)
    if chunking.tokens is None:
        return _together(tokenizer, texts, [located.ids for located in found])
    size = min(chunking.tokens, tokenizer.max_tokens - FRAME)
    spans = [cut_tokens(located.levels, size, min(chunking.overlap, size // 2)) for located in found]
    passages = [
        passage
        for index, text in enumerate(texts)
        for passage in _passages(index, text, found[index], spans[index])
    ]
    if chunking.late:
        return late(tokenizer, [located.ids for located in found], spans, passages)
    sequences = [
        tokenizer.framed(located.ids[span.start : span.stop])
        for located, cuts in zip(found, spans, strict=True)
        for span in cuts
    ]
    return Tokens(sequences, [], passages)


def _together(tokenizer: Tokenizer, texts: list[str], ids: list[IntArray]) -> Tokens:
    """Take the texts as the passages of one document."""
    if not texts:
        return Tokens([], [])
    ends = np.cumsum([0, *map(len, ids)]).tolist()
    spans = [Span(*between) for between in pairwise(ends)]
    passages = [Passage(index, 0, len(text), len(ids[index])) for index, text in enumerate(texts)]
    return late(tokenizer, [np.concatenate(ids)], [spans], passages)


def cut_tokens(levels: NDArray[np.int8], most: int, overlap: int) -> list[Span]:
    """Cut n tokens into passages of up to `most`, by the level of the border before each token.

    A passage ends at the last of the highest borders in the second half of its possible length. It begins
    up to `overlap` tokens before the previous one ends, at the first of the highest borders there.
    """
    found: list[Span] = []
    start, end = 0, len(levels)
    while end - start > most:
        # Not so late that the last passage is almost empty.
        stop = _last_highest(levels, start + most // 2 + 1, min(start + most, end - most // 4))
        found.append(Span(start, stop))
        start = stop
        if overlap:
            start = stop - overlap + int(levels[stop - overlap : stop].argmax())
    return [*found, Span(start, end)]


def _last_highest(levels: NDArray[np.int8], first: int, last: int) -> int:
    return last - int(levels[first : last + 1][::-1].argmax())


def windows(tokens: int, most: int) -> list[tuple[Span, Span]]:
    """Windows of up to `most` tokens over a document: which tokens each reads, and whose states it gives.

    Where two windows overlap, a token's state comes from the one in which it is farther from the edge.
    """
    context = most // CONTEXT_SHARE
    count = max(1, -(-(tokens - context) // (most - context)))
    size = -(-(tokens + (count - 1) * context) // count)
    starts = [number * (size - context) for number in range(count)]
    edges = [0, *(start + context // 2 for start in starts[1:]), tokens]
    return [
        (Span(start, min(start + size, tokens)), Span(*edge))
        for start, edge in zip(starts, pairwise(edges), strict=True)
    ]


def late(
    tokenizer: Tokenizer, documents: list[IntArray], spans: list[list[Span]], passages: list[Passage]
) -> Tokens:
    """Turn documents into sequences, and find each document's spans in them.

    Late chunking (Günther et al. 2024, arXiv 2409.04701): a passage's outputs come from the states that its
    tokens have within the whole document. A document that is too long for the model is read in windows.
    """
    sequences: list[IntArray] = []
    places: list[list[Part]] = []
    for ids, cuts in zip(documents, spans, strict=True):
        read = windows(len(ids), tokenizer.max_tokens - FRAME)
        first, begins = len(sequences), [counts.start for _, counts in read]
        sequences += [tokenizer.framed(ids[window.start : window.stop]) for window, _ in read]
        for span in cuts:
            parts = []
            # A long document has many windows; a passage is in only one or two of them.
            for number in range(bisect_right(begins, span.start) - 1, bisect_left(begins, span.stop)):
                window, counts = read[number]
                start, stop = max(span.start, counts.start), min(span.stop, counts.stop)
                if start < stop:  # + 1: after the first special token
                    parts.append(
                        Part(first + number, Span(start - window.start + 1, stop - window.start + 1))
                    )
            places.append(parts or [Part(first, Span(0, 1))])  # without tokens: the first special one
    return Tokens(sequences, [], passages, places)


def _passages(index: int, text: str, located: Located, spans: list[Span]) -> Iterator[Passage]:
    """The characters of each span, up to the start of the next token, without surrounding spaces."""
    for span in spans:
        start = int(located.starts[span.start]) if span.start else 0
        stop = int(located.starts[span.stop]) if span.stop < len(located.ids) else len(text)
        while stop > start and text[stop - 1].isspace():
            stop -= 1
        while start < stop and text[start].isspace():
            start += 1
        yield Passage(index, start, stop, span.stop - span.start)


def _locate(tokenizer: Tokenizer, text: str, pause: Pause | None, before: int, most: int | None) -> Located:
    found: list[Located] = []
    tokens = before
    for start, stop, level in _pieces(text):
        piece = text[start:stop]
        ids, starts, stops = tokenizer.located(piece, pause, tokens)
        levels = _levels(piece, starts, stops)
        heads = level >= Level.LINE and HEADING.match(piece)
        levels[:1] = Level.SECTION if heads else level
        found.append(Located(ids, starts + start, levels))
        tokens += len(ids)
        if most is not None and tokens > most:
            raise TooMuchOutput("tokens", None, most)
    return Located(
        np.concatenate([piece.ids for piece in found]),
        np.concatenate([piece.starts for piece in found]),
        np.concatenate([piece.levels for piece in found]),
    )


def _pieces(text: str) -> Iterator[tuple[int, int, Level]]:
    """Where each piece starts and stops, and the level of the border before it."""
    start, level = 0, Level.SECTION
    while len(text) - start > PIECE_CHARACTERS:
        stop, after = piece_end(text, start, PIECE_CHARACTERS)
        yield start, stop, level
        start, level = stop, after
    yield start, len(text), level


def piece_end(text: str, start: int, most: int) -> tuple[int, Level]:
    """Where a piece of at most `most` characters of a longer text ends, and what begins there."""
    low, last = start + most // 2, start + most
    for mark, level in PIECE_ENDS:
        if (place := text.rfind(mark, low, last)) >= 0:
            stop = place + len(mark)
            while mark == "。" and stop < last and text.startswith(CLOSING, stop):
                stop += 1
            return stop, level
    return last, Level.TOKEN


def _levels(text: str, starts: IntArray, stops: IntArray) -> NDArray[np.int8]:
    """The level of the border before each token; also moves `starts` past the spaces before the tokens."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    levels = np.full(len(starts), Level.TOKEN, np.int8)
    if not len(starts):
        return levels
    places = np.where(np.isin(codes, SPACES), len(codes), np.arange(len(codes)))
    text_from = np.minimum.accumulate(places[::-1])[::-1]  # first non-space at or after each character
    np.minimum(text_from[np.minimum(starts, len(codes) - 1)], stops, out=starts)
    ends = np.maximum.accumulate(stops)
    at, level = borders(text)
    tokens = np.searchsorted(starts, at)
    known = (tokens > 0) & (tokens < len(starts))
    tokens, at, level = tokens[known], at[known], level[known]
    whole = ends[tokens - 1] <= at  # ignore borders within a token
    np.maximum.at(levels, tokens[whole], level[whole])
    marks = [code for code in np.unique(codes) if unicodedata.category(chr(code))[0] == "M"]
    first = codes[np.minimum(starts, len(codes) - 1)]
    levels[1:][(starts[1:] < ends[:-1]) | np.isin(first[1:], np.array(marks, np.uint32))] = FORBIDDEN
    return levels

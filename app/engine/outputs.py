"""What a call needs of each of its sequences, and how the results become outputs of its texts."""

from collections.abc import Collection
from typing import TypeVar

import numpy as np

from app.engine.checkpoint import HEADS
from app.engine.embeddings import FloatArray, IntArray, Kind, Lexical, Output, Pooling
from app.engine.heads import lexical_weights, multi_vector, normalize
from app.engine.tokenizer import Part, Tokens

Array = TypeVar("Array", FloatArray, IntArray)
Found = list[dict[Kind, FloatArray]]  # for each sequence


def wanted(tokens: Tokens, pooling: Pooling, outputs: Collection[Output]) -> list[tuple[Kind, ...]]:
    """The kinds to compute for each sequence."""
    dense: list[list[Kind]] = [[] for _ in tokens.sequences]
    if "dense" in outputs:
        for kinds in dense:
            kinds += [] if tokens.places else [pooling]
        for sequence, span in (part for parts in tokens.places for part in parts):
            dense[sequence].append(span)
    heads = tuple(head for head in HEADS if head in outputs)
    return [(*dict.fromkeys(kinds), *heads) for kinds in dense]


def dense_rows(tokens: Tokens, found: Found, pooling: Pooling) -> FloatArray:
    """The pooled state of each of n > 0 texts or passages, not normalised. (n, d)"""
    if not tokens.places:
        return np.stack([arrays[pooling] for arrays in found])
    return np.stack([_mean(parts, found) for parts in tokens.places])


def _mean(parts: list[Part], found: Found) -> FloatArray:
    """The mean state of all tokens of a passage. (d,)"""
    sizes = [part.span.stop - part.span.start for part in parts]
    means = [found[sequence][span] for sequence, span in parts]
    return means[0] if len(parts) == 1 else np.asarray(np.average(means, 0, sizes), np.float32)


def lexical(tokens: Tokens, found: Found, special: IntArray) -> list[Lexical]:
    """The lexical weights of each of n texts or passages, without `special` tokens."""
    if not tokens.places:
        pairs = zip(tokens.sequences, found, strict=True)
        return [lexical_weights(ids, arrays["sparse"], special) for ids, arrays in pairs]
    values = [arrays["sparse"] for arrays in found]
    return [
        lexical_weights(_joined(tokens.sequences, parts), _joined(values, parts), special)
        for parts in tokens.places
    ]


def multi_vectors(tokens: Tokens, found: Found) -> list[FloatArray]:
    """The multi-vectors of n texts or passages, rows of length 1. n x (t, d)"""
    projected = [arrays["colbert"] for arrays in found]
    if not tokens.places:
        return [multi_vector(rows) for rows in projected]
    return [normalize(_joined(projected, parts)) for parts in tokens.places]


def _joined(arrays: list[Array], parts: list[Part]) -> Array:
    """The rows of a passage's tokens, without the first special token of a sequence."""
    rows = [arrays[sequence][max(1, start) : stop] for sequence, (start, stop) in parts]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)

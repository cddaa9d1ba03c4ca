"""How near two texts are, by each of BGE-M3's representations and by all of them together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from app.engine.embeddings import Embeddings, FloatArray, Head, Lexical, Scores, Timings, Weights
from app.engine.errors import TextTooLong

# Passages are encoded and compared in groups of about this many tokens, so that the multi-vectors of
# a thousand of them are never in memory together.
GROUP_TOKENS = 16384


@dataclass(frozen=True)
class _Text:
    dense: FloatArray
    sparse: Lexical | None
    multi_vector: FloatArray | None


def score_pairs(
    encode: Callable[[list[str]], Embeddings],
    pairs: list[tuple[str, str]],
    weights: Weights,
    heads: tuple[Head, ...],
) -> Scores:
    """Scores of n pairs (query, passage), as FlagEmbedding's `compute_score` names and computes them.

    `encode` gives dense vectors and what `heads` names, which decides what the scores are made of. It
    gets every text once, however many pairs that is in. A TextTooLong of it comes with the index of
    the first pair with that text.
    """
    counts: dict[str, int] = {}
    timings, cut = Timings(), 0

    def encoded(texts: list[str]) -> dict[str, _Text]:
        nonlocal timings, cut
        try:
            found = encode(texts)
        except TextTooLong as error:
            place = next(place for place, pair in enumerate(pairs) if texts[error.index] in pair)
            raise TextTooLong(place, error.tokens, error.limit) from None
        timings = found.timings + timings
        cut += found.cut
        counts.update(zip(texts, found.token_counts, strict=True))
        return {
            text: _Text(
                found.dense[index],
                found.sparse[index] if "sparse" in heads else None,
                found.multi_vector[index] if "colbert" in heads else None,
            )
            for index, text in enumerate(texts)
        }

    asked: dict[str, list[int]] = {}  # passage -> its pairs
    for number, (_, passage) in enumerate(pairs):
        asked.setdefault(passage, []).append(number)
    queries = encoded(list(dict.fromkeys(query for query, _ in pairs)))
    rows = np.zeros((len(pairs), 1 + len(heads)), np.float32)
    for group in _groups([text for text in asked if text not in queries]):
        passages = encoded(group)
        for text in group:
            for number in asked.pop(text):
                rows[number] = _score(queries[pairs[number][0]], passages[text])
    for text, numbers in asked.items():
        for number in numbers:
            rows[number] = _score(queries[pairs[number][0]], queries[text])
    by_name = {"dense": rows[:, 0]} | {head: rows[:, 1 + place] for place, head in enumerate(heads)}
    return Scores(by_name | _together(by_name, weights), list(counts.values()), cut, timings)


def dense_score(query: FloatArray, passage: FloatArray) -> float:
    """Inner product of two vectors of length 1, their cosine. (d,), (d,)"""
    return float(query @ passage)


def lexical_score(query: Lexical, passage: Lexical) -> float:
    """Sum over the tokens of both of weight times weight; Chen et al. 2024, 3.2, s_lex."""
    _, mine, others = np.intersect1d(query[0], passage[0], assume_unique=True, return_indices=True)
    return float(query[1][mine] @ passage[1][others])


def multi_vector_score(query: FloatArray, passage: FloatArray) -> float:
    """Mean over the query's tokens of the best match in the passage; Chen et al. 2024, 3.2, s_mul.

    (tokens of the query, d), (tokens of the passage, d)
    """
    return float((query @ passage.T).max(axis=1).mean())


def _score(query: _Text, passage: _Text) -> list[float]:
    row = [dense_score(query.dense, passage.dense)]
    if query.sparse and passage.sparse:
        row.append(lexical_score(query.sparse, passage.sparse))
    if query.multi_vector is not None and passage.multi_vector is not None:
        row.append(multi_vector_score(query.multi_vector, passage.multi_vector))
    return row


def _together(by_name: dict[str, FloatArray], weights: Weights) -> dict[str, FloatArray]:
    """Weighted means of the scores there are: sparse+dense, then all."""
    weight = dict(zip(("dense", "sparse", "colbert"), weights, strict=True))
    together = {}
    for parts in (("sparse", "dense"), ("colbert", "sparse", "dense")):
        if all(part in by_name for part in parts):
            whole = sum(weight[part] for part in parts) or 1.0
            together["+".join(parts)] = sum(
                (np.float32(weight[part] / whole) * by_name[part] for part in parts),
                np.zeros_like(by_name["dense"]),
            )
    return together


def _groups(texts: list[str]) -> Iterator[list[str]]:
    """The texts in their order, cut where a group's characters, and so its tokens, are many."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > GROUP_TOKENS:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text) + 2
    if group:
        yield group

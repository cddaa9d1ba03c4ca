"""How near two texts are, by each of BGE-M3's representations and by all of them together."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from app.engine.embeddings import Embeddings, FloatArray, Head, Lexical, Weights
from app.engine.token_pooling import groups
from app.engine.turn import Turn

ROWS = 512  # tokens of a query that are compared at a time
STEP = 1 << 22  # pairs of tokens, about a tenth of a second
LEAST_ROWS = 64  # what the rest of a comparison costs, in tokens of both texts

_turn = Turn()


class Plan:
    """What n pairs (query, passage) come to: each text is encoded once, each pair compared once."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        texts: dict[str, int] = {}
        for text in (*(query for query, _ in pairs), *(passage for _, passage in pairs)):
            texts.setdefault(text, len(texts))
        self.texts = list(texts)
        self._queries = list(dict.fromkeys(texts[query] for query, _ in pairs))
        self._pairs = [(texts[query], texts[passage]) for query, passage in pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    def pair_of(self, text: int) -> tuple[int, bool]:
        """The first pair with a text, and whether it is its query."""
        return next((number, text == pair[0]) for number, pair in enumerate(self._pairs) if text in pair)

    def token_pairs(self, counts: list[int]) -> int:
        """How many pairs of tokens all pairs of texts are, of so many tokens each."""
        return sum(counts[query] * counts[passage] for query, passage in set(self._pairs))

    def groups(self, counts: list[int]) -> list[list[int]]:
        """Texts to encode at a time: the queries, which are kept, then all others by and by."""
        first = len(self._queries)
        others = groups(counts[first:])
        return [self._queries, *([first + text for text in group] for group in others if group)]

    def pairs_with(self, passages: list[int]) -> dict[tuple[int, int], list[int]]:
        """The distinct pairs with these passages, and where each is among all."""
        among = set(passages)
        found: dict[tuple[int, int], list[int]] = {}
        for number, pair in enumerate(self._pairs):
            if pair[1] in among:
                found.setdefault(pair, []).append(number)
        return found


def in_tokens(token_pairs: int, layers: int, width: int, inner: int) -> int:
    """How many tokens are encoded in the time that comparing so many pairs takes, by multiplications."""
    return round(token_pairs * width / (layers * (4 * width * width + 2 * width * inner)))


@dataclass(frozen=True)
class _Text:
    dense: FloatArray
    sparse: Lexical | None
    multi_vector: FloatArray | None

    @property
    def rows(self) -> int:
        """What comparing it costs, for each row of the other."""
        return LEAST_ROWS if self.multi_vector is None else LEAST_ROWS + len(self.multi_vector)


def score_pairs(
    plan: Plan,
    groups: list[list[int]],
    encode: Callable[[list[int]], Embeddings],
    weights: Weights,
    heads: tuple[Head, ...],
    pause: Callable[[], None] = lambda: None,
) -> dict[str, FloatArray]:
    """Scores of n pairs, (n,) each, as FlagEmbedding's `compute_score` names and computes them.

    `encode` gives dense vectors, and what `heads` names, of the plan's texts; that decides what the scores
    are made of. `pause` is called between steps of about STEP pairs of tokens, of which one at a time is
    under way in this process; it may raise.
    """
    rows = np.zeros((len(plan), 1 + len(heads)), np.float32)
    queries: dict[int, _Text] = {}
    for group in groups:
        found = encode(group)
        passages = {
            text: _Text(
                found.dense[index],
                found.sparse[index] if "sparse" in heads else None,
                found.multi_vector[index] if "colbert" in heads else None,
            )
            for index, text in enumerate(group)
        }
        queries = queries or passages
        for step in _steps(plan.pairs_with(group).items(), queries, passages):
            with _turn.taken(pause):
                for (query, passage), numbers in step:
                    rows[numbers] = _score(queries[query], passages[passage], pause)
    by_name = {"dense": rows[:, 0]} | {head: rows[:, 1 + place] for place, head in enumerate(heads)}
    return by_name | _together(by_name, weights)


def _steps(
    pairs: Iterable[tuple[tuple[int, int], list[int]]], queries: dict[int, _Text], passages: dict[int, _Text]
) -> Iterator[list[tuple[tuple[int, int], list[int]]]]:
    """Pairs, as many at a time as are about STEP pairs of tokens."""
    step: list[tuple[tuple[int, int], list[int]]] = []
    size = 0
    for (query, passage), numbers in pairs:
        step.append(((query, passage), numbers))
        size += queries[query].rows * passages[passage].rows
        if size >= STEP:
            yield step
            step, size = [], 0
    yield step


def dense_score(query: FloatArray, passage: FloatArray) -> float:
    """Inner product of two vectors of length 1, their cosine. (d,), (d,)"""
    return _cosine(float(query @ passage))


def lexical_score(query: Lexical, passage: Lexical) -> float:
    """Sum over the tokens of both of weight times weight; Chen et al. 2024, 3.2, s_lex."""
    _, mine, others = np.intersect1d(query[0], passage[0], assume_unique=True, return_indices=True)
    return float(query[1][mine] @ passage[1][others])


def multi_vector_score(
    query: FloatArray, passage: FloatArray, pause: Callable[[], None] = lambda: None
) -> float:
    """Mean over the query's tokens of the best match in the passage; Chen et al. 2024, 3.2, s_mul.

    (tokens of the query, d), (tokens of the passage, d); `pause` is called between steps of ROWS tokens.
    """
    best = []
    for start in range(0, len(query), ROWS):
        if start:
            pause()
        best.append((query[start : start + ROWS] @ passage.T).max(axis=1))
    return _cosine(float(np.concatenate(best).mean()))


def _cosine(value: float) -> float:
    """Without what rounding adds to 1."""
    return min(1.0, max(-1.0, value))


def _score(query: _Text, passage: _Text, pause: Callable[[], None]) -> list[float]:
    row = [dense_score(query.dense, passage.dense)]
    if query.sparse and passage.sparse:
        row.append(lexical_score(query.sparse, passage.sparse))
    if query.multi_vector is not None and passage.multi_vector is not None:
        row.append(multi_vector_score(query.multi_vector, passage.multi_vector, pause))
    return row


def _together(by_name: dict[str, FloatArray], weights: Weights) -> dict[str, FloatArray]:
    """Weighted means of the scores there are: sparse+dense, then all."""
    weight = dict(zip(("dense", "sparse", "colbert"), weights, strict=True))
    together = {}
    for parts in (("sparse", "dense"), ("colbert", "sparse", "dense")):
        if all(part in by_name for part in parts):
            # Of the largest here: the sum of large weights is infinite, small ones vanish beside others.
            largest = max(weight[part] for part in parts) or 1.0
            shares = {part: weight[part] / largest for part in parts}
            whole = sum(shares.values()) or 1.0
            together["+".join(parts)] = sum(
                (np.float32(share / whole) * by_name[part] for part, share in shares.items()),
                np.zeros_like(by_name["dense"]),
            )
    return together

"""How similar two texts are, by each of BGE-M3's representations and by all of them together."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from app.engine.embeddings import Embeddings, FloatArray, Head, Lexical, Weights
from app.engine.token_pooling import groups
from app.engine.turn import Turn

ROWS = 512  # tokens of a query that are compared at a time
STEP = 1 << 22  # pairs of tokens in a step, about a tenth of a second
LEAST_ROWS = 64  # the fixed cost of a comparison: as if both texts had this many more tokens

_turn = Turn()


class Plan:
    """The work for n pairs (query, passage): each text is encoded once, each pair compared once."""

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
        """The first pair that contains a text, and whether the text is its query."""
        return next((number, text == pair[0]) for number, pair in enumerate(self._pairs) if text in pair)

    def token_pairs(self, counts: list[int]) -> int:
        """How many pairs of tokens there are in all pairs of texts with these token counts."""
        return sum(counts[query] * counts[passage] for query, passage in set(self._pairs))

    def groups(self, counts: list[int]) -> list[list[int]]:
        """Groups of texts to encode: first the queries, which are kept, then the others in small groups."""
        first = len(self._queries)
        others = groups(counts[first:])
        return [self._queries, *([first + text for text in group] for group in others if group)]

    def pairs_with(self, passages: list[int]) -> dict[tuple[int, int], list[int]]:
        """The distinct pairs with these passages, and the indices of each among all pairs."""
        among = set(passages)
        found: dict[tuple[int, int], list[int]] = {}
        for number, pair in enumerate(self._pairs):
            if pair[1] in among:
                found.setdefault(pair, []).append(number)
        return found


def in_tokens(token_pairs: int, layers: int, width: int, inner: int) -> int:
    """How many tokens cost as many multiplications to encode as these token pairs to compare."""
    return round(token_pairs * width / (layers * (4 * width * width + 2 * width * inner)))


@dataclass(frozen=True)
class _Text:
    dense: FloatArray
    sparse: Lexical | None
    multi_vector: FloatArray | None

    @property
    def rows(self) -> int:
        """The cost of comparing it, for each row of the other text."""
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

    `encode` returns dense vectors of the plan's texts and the outputs that `heads` names; scores are computed
    from these. `pause` is called between steps of about STEP pairs of tokens, and may raise. This process
    runs one step at a time.
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
    """Split the pairs into steps of about STEP pairs of tokens."""
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
    """Cosine of two vectors of length 1, as their inner product. (d,), (d,)"""
    return _cosine(float(query @ passage))


def lexical_score(query: Lexical, passage: Lexical) -> float:
    """Sum over the shared tokens of the product of both weights; Chen et al. 2024, 3.2, s_lex."""
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
    """Clip to [-1, 1], which rounding can exceed."""
    return min(1.0, max(-1.0, value))


def _score(query: _Text, passage: _Text, pause: Callable[[], None]) -> list[float]:
    row = [dense_score(query.dense, passage.dense)]
    if query.sparse and passage.sparse:
        row.append(lexical_score(query.sparse, passage.sparse))
    if query.multi_vector is not None and passage.multi_vector is not None:
        row.append(multi_vector_score(query.multi_vector, passage.multi_vector, pause))
    return row


def _together(by_name: dict[str, FloatArray], weights: Weights) -> dict[str, FloatArray]:
    """Weighted means of the available scores: sparse+dense, then all."""
    weight = dict(zip(("dense", "sparse", "colbert"), weights, strict=True))
    together = {}
    for parts in (("sparse", "dense"), ("colbert", "sparse", "dense")):
        if all(part in by_name for part in parts):
            # Divide by the largest weight of these parts: large weights would sum to infinity, and small ones
            # would vanish beside a weight that is not among these.
            largest = max(weight[part] for part in parts) or 1.0
            shares = {part: weight[part] / largest for part in parts}
            whole = sum(shares.values()) or 1.0
            together["+".join(parts)] = sum(
                (np.float32(share / whole) * by_name[part] for part, share in shares.items()),
                np.zeros_like(by_name["dense"]),
            )
    return together

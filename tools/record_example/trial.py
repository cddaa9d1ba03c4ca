"""How well each score finds the right passage among those of its kind."""

from itertools import pairwise

import numpy as np
import torch

from tools.record_example.corpus import Pair
from tools.record_example.heads import Batch, Heads, late_scores, lexical_scores
from tools.record_example.states import TOKENS, Text

HYBRID = {"dense": 0.4, "lexical": 0.2, "multi-vector": 0.4}  # as BGE-M3's authors mix them
AT_ONCE = 20  # queries


def compare(heads: Heads, queries: list[Text], passages: list[Text]) -> dict[str, np.ndarray]:
    """Every score of each query with each passage, the hybrid last. (q, p) each"""
    right = Batch.of(passages, TOKENS)
    lexical, late = [], []
    with torch.inference_mode():
        their_weights, their_rows = heads.weights(right), heads.rows(right)
        for start, stop in pairwise([*range(0, len(queries), AT_ONCE), len(queries)]):
            left = Batch.of(queries[start:stop], TOKENS)
            lexical.append(lexical_scores(left, right, heads.weights(left), their_weights))
            late.append(late_scores(left, right, heads.rows(left), their_rows))
    dense = np.stack([text.dense for text in queries]) @ np.stack([text.dense for text in passages]).T
    found = {"dense": dense, "lexical": torch.cat(lexical).numpy(), "multi-vector": torch.cat(late).numpy()}
    return found | {"hybrid": np.sum([share * found[name] for name, share in HYBRID.items()], axis=0)}


def recall(scores: np.ndarray) -> float:
    """The share of queries whose own passage comes first; a tie does not count."""
    others = scores.copy()
    np.fill_diagonal(others, -np.inf)
    return float((np.diagonal(scores) > others.max(axis=1)).mean())


def recalls(heads: Heads, pairs: list[Pair], texts: dict[str, Text]) -> dict[str, float]:
    queries, passages = [texts[pair.query] for pair in pairs], [texts[pair.passage] for pair in pairs]
    return {name: recall(scores) for name, scores in compare(heads, queries, passages).items()}

"""From the backbone's hidden states to outputs: pure functions on one text's tokens."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from app.engine.embeddings import FloatArray, IntArray, Lexical, Pooling, Span


def mean_pooling(hidden: FloatArray) -> FloatArray:
    """Average of all token states, special tokens included. (t, d) -> (d,)

    Mean pooling over the attention mask, as in Reimers and Gurevych 2019 (Sentence-BERT), section 3.
    There is no padding here, so the mask is all ones.
    """
    return np.asarray(hidden.mean(axis=0), dtype=np.float32)


def cls_pooling(hidden: FloatArray) -> FloatArray:
    """State of the first token; BGE-M3 was trained with it (Chen et al. 2024, 3.2). (t, d) -> (d,)"""
    return np.array(hidden[0], dtype=np.float32)


def normalize(vector: FloatArray) -> FloatArray:
    """Scale to L2 norm 1 along the last axis; a zero vector stays zero. (..., d) -> (..., d)"""
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.asarray(vector / np.maximum(norm, 1e-12), dtype=np.float32)


def lexical_weights(ids: IntArray, values: FloatArray, dropped: IntArray) -> Lexical:
    """Weight of each token id of a text: relu, maximum over its occurrences. (t,), (t,) -> (k,), (k,)

    As M3Embedder computes it (Chen et al. 2024, 3.2, "lexical retrieval"). Like FlagEmbedding, it drops
    the special tokens `dropped`, and weights that are 0.
    """
    kept = ~np.isin(ids, dropped)
    found, places = np.unique(ids[kept], return_inverse=True)
    weights = np.zeros(len(found), np.float32)
    np.maximum.at(weights, places, values[kept])
    positive = weights > 0
    return found[positive].astype(np.int32), weights[positive]


def multi_vector(projected: FloatArray) -> FloatArray:
    """One vector of length 1 for each token except the first. (t, d) -> (t - 1, d)

    Chen et al. 2024, 3.2, "multi-vector retrieval"; the last special token is kept.
    """
    return normalize(projected[1:])


class ScoringHead(NamedTuple):
    """The classification head, which scores a pair from the state of its first token."""

    dense: FloatArray  # (d, d)
    dense_bias: FloatArray  # (d,)
    out: FloatArray  # (1, d)
    out_bias: FloatArray  # (1,)

    def __call__(self, first: FloatArray) -> FloatArray:
        """out tanh(dense x + bias) + bias. (d,) -> (1,)

        The head of BERT's pair classification (Devlin et al. 2019, 4.1), a tanh layer and a linear one;
        XLM-RoBERTa's is the same under other names.
        """
        hidden = np.tanh(self.dense @ first + self.dense_bias)
        return np.asarray(self.out @ hidden + self.out_bias, dtype=np.float32)


POOLING: dict[Pooling, Callable[[FloatArray], FloatArray]] = {
    "mean": mean_pooling,
    "cls": cls_pooling,
}


def pooled(hidden: FloatArray, kind: Pooling | Span) -> FloatArray:
    """A pooling of all token states, or the mean of a span of them. (t, d) -> (d,)"""
    if isinstance(kind, Span):
        return mean_pooling(hidden[kind.start : kind.stop])
    return POOLING[kind](hidden)

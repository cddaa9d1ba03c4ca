"""From the backbone's hidden states to what a client gets: pure functions on one text's tokens."""

from collections.abc import Callable

import numpy as np

from app.engine.embeddings import FloatArray, Pooling


def mean_pooling(hidden: FloatArray) -> FloatArray:
    """Average of all token states, special tokens included. (t, d) -> (d,)

    Mean pooling over the attention mask, as in Reimers and Gurevych 2019 (Sentence-BERT), section 3:
    padding never gets here, so the mask is all ones.
    """
    return np.asarray(hidden.mean(axis=0), dtype=np.float32)


def cls_pooling(hidden: FloatArray) -> FloatArray:
    """State of the first token, what BGE-M3 was trained for (Chen et al. 2024, 3.2). (t, d) -> (d,)"""
    return np.array(hidden[0], dtype=np.float32)


def normalize(vector: FloatArray) -> FloatArray:
    """L2 norm 1 along the last axis; a zero vector stays zero. (..., d) -> (..., d)"""
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.asarray(vector / np.maximum(norm, 1e-12), dtype=np.float32)


POOLING: dict[Pooling, Callable[[FloatArray], FloatArray]] = {
    "mean": mean_pooling,
    "cls": cls_pooling,
}

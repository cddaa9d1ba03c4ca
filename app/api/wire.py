"""Vectors in the encoding that was asked for."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from app.engine.embeddings import FloatArray
from app.engine.encodings import QUANTIZED


def _as_float(vectors: FloatArray) -> Any:
    return np.ascontiguousarray(vectors)  # orjson takes no strided array


def _as_base64(vectors: FloatArray) -> Any:
    return [base64.b64encode(np.ascontiguousarray(row, "<f4").data).decode() for row in vectors]


# (n, d) float32 -> what orjson writes.
ENCODINGS: dict[str, Callable[[FloatArray], Any]] = {"float": _as_float, "base64": _as_base64, **QUANTIZED}


def matrix(rows: FloatArray, encoding: str) -> Any:
    """All rows of a matrix in one of ENCODINGS; a string cannot tell its shape, so that comes along."""
    if encoding != "base64":
        return ENCODINGS[encoding](rows)
    return {"shape": rows.shape, "data": base64.b64encode(np.ascontiguousarray(rows, "<f4").data).decode()}


def cut(vectors: FloatArray, dimensions: int | None) -> FloatArray:
    """Keep the first `dimensions` numbers of each vector and make its length 1 again."""
    if not dimensions or dimensions >= vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions]
    return np.asarray(kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12))

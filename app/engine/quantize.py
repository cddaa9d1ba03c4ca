"""int8: what it needs to know of a model's activations, and what it costs in accuracy."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray
from app.engine.graph import build_graph
from app.engine.heads import normalize
from app.engine.openvino_backend import OpenVINOBackend
from app.engine.tokenizer import Tokenizer

if TYPE_CHECKING:  # it brings torch
    from app.engine.weights import Weights

# Passages of our own in many languages. Odd lines calibrate, even lines are held out for measuring.
TEXTS = Path(__file__).with_name("calibration.txt")
NEIGHBOURS = 10


def largest_inputs(checkpoint: Checkpoint, weights: "Weights") -> dict[str, FloatArray]:
    """Largest magnitude of each input of every linear layer, over the calibration texts."""
    graph = build_graph(checkpoint, weights, "fp32", observe=True)
    backend = OpenVINOBackend(checkpoint, graph, "fp32")
    found: dict[str, FloatArray] = {}
    for sequence in _sequences(checkpoint, held_out=False):
        for name, values in backend.outputs([sequence], [(0, "mean")]).items():
            if values.ndim == 1:
                found[name] = np.maximum(found.get(name, 0), values)
    return found


def measure(checkpoint: Checkpoint, weights: "Weights", graph: Path) -> dict[str, Any]:
    """Cosine to fp32 (mean, min) and overlap of the ten nearest neighbours, on held-out texts."""
    sequences = _sequences(checkpoint, held_out=True)
    vectors = []
    for backend in (
        OpenVINOBackend(checkpoint, build_graph(checkpoint, weights, "fp32"), "fp32"),
        OpenVINOBackend(checkpoint, graph, "int8"),
    ):
        rows = [backend.forward([sequence], [(0, "mean")])[0] for sequence in sequences]
        vectors.append(normalize(np.stack(rows)))
    cosine = (vectors[0] * vectors[1]).sum(axis=1)
    exact, quick = (_neighbours(rows) for rows in vectors)
    overlap = [len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(exact, quick, strict=True)]
    return {
        "texts": len(sequences),
        "cosine_mean": round(float(cosine.mean()), 6),
        "cosine_min": round(float(cosine.min()), 6),
        "top10_overlap": round(float(np.mean(overlap)), 4),
    }


def _neighbours(vectors: FloatArray) -> Any:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1)[:, :NEIGHBOURS]


def _sequences(checkpoint: Checkpoint, held_out: bool) -> list[Any]:
    texts = TEXTS.read_text(encoding="utf-8").splitlines()[int(held_out) :: 2]
    return Tokenizer(checkpoint.tokenizer, min(512, checkpoint.max_tokens)).encode(texts).sequences

"""Accuracy and speed of 8-bit precisions, measured on the processor that runs them."""

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import FloatArray, IntArray, Pooling
from app.engine.errors import ModelError
from app.engine.export import HELD_OUT, HELD_OUT_CLS, find_kept, lock, read_array, read_json, write_json
from app.engine.heads import normalize
from app.engine.texts import PASSAGES, SUBJECTS, calibration_sequences

if TYPE_CHECKING:
    from app.engine.backends import Backend

log = logging.getLogger(__name__)

MEASURED = "measured.json"  # beside an export
# What the file holds for a precision on a kind of processor; COMPARED if it was compared with another one.
ACCURACY = {"texts": int, "cosine_mean": float, "cosine_min": float, "top10_overlap": float}
PAIR_ACCURACY = {"pairs": int, "correlation": float, "order_kept": float, "largest_difference": float}
COMPARED = {"times_as_fast": float, "than": str}
NEIGHBOURS = 10
PERCENTILES = (5, 50, 95)
BATCH_TOKENS = 512
ROUNDS = 3


def measured(checkpoint: Checkpoint, backend: "Backend", export: Path, kind: str) -> dict[str, Any]:
    """An export's accuracy on this kind of processor: measured and stored the first time, then read.

    {} for fp32 and bf16, which lose next to nothing.
    """
    if not (export / HELD_OUT).is_file():
        return {}
    if found := quality(export, kind, backend.precision):
        return found
    if not os.access(export, os.W_OK):
        log.info(
            "%s is read-only: %s is not measured on a processor with %s", export, backend.precision, kind
        )
        return {}
    log.info("measuring %s on a processor with %s, once", backend.precision, kind)
    compare = pair_accuracy if checkpoint.labels else accuracy
    found = compare(backend, read_array(export / HELD_OUT), calibration_sequences(checkpoint, held_out=True))
    log.info("%s compared with fp32: %s", backend.precision, found)
    keep(export, kind, backend.precision, found)
    return found


def quality(export: Path, kind: str, precision: str) -> dict[str, Any]:
    """The stored measurements of an export on a kind of processor; {} if there are none."""
    found = read_json(export / MEASURED).get(f"{precision} on {kind}")
    cost = _those(found, ACCURACY) or _those(found, PAIR_ACCURACY)
    return cost and cost | _those(found, COMPARED)


def _those(found: Any, kinds: dict[str, type]) -> dict[str, Any]:
    """The values with these names; {} unless all are there and have the right types."""
    fits = isinstance(found, dict) and all(type(found.get(name)) is kind for name, kind in kinds.items())
    return {name: found[name] for name in kinds} if fits else {}


def keep(export: Path, kind: str, precision: str, found: dict[str, Any]) -> None:
    """Store measurements beside the export, if its folder is writable."""
    with contextlib.suppress(OSError), lock(export.parent):
        key = f"{precision} on {kind}"
        write_json(
            export / MEASURED, read_json(export / MEASURED) | {key: quality(export, kind, precision) | found}
        )


def accuracy(backend: "Backend", exact: FloatArray, sequences: list[IntArray]) -> dict[str, Any]:
    """Cosine to fp32 (mean, minimum) and overlap of the ten nearest neighbours, on the held-out texts."""
    rows = [backend.forward([sequence], [(0, "mean")])[0] for sequence in sequences]
    vectors = [normalize(exact), normalize(np.stack(rows))]
    cosine = (vectors[0] * vectors[1]).sum(axis=1)
    near, found = (_neighbours(rows) for rows in vectors)
    overlap = [len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(near, found, strict=True)]
    return {
        "texts": len(sequences),
        "cosine_mean": round(float(cosine.mean()), 6),
        "cosine_min": round(float(cosine.min()), 6),
        "top10_overlap": round(float(np.mean(overlap)), 4),
    }


def unrelated_cosine(checkpoint: Checkpoint, pooling: Pooling, cache: Path | None) -> dict[str, float] | None:
    """Percentiles of the cosine between held-out texts about different things, {"p5": ..., ...}.

    Out of the states that 8-bit exports keep; None where there is no such export.
    """
    file = find_kept(checkpoint, HELD_OUT if pooling == "mean" else HELD_OUT_CLS, cache)
    if file is None or checkpoint.labels:
        return None
    try:
        vectors = normalize(read_array(file))
    except ModelError:
        return None
    if vectors.shape != (len(SUBJECTS), checkpoint.width):
        return None
    first, second = np.triu_indices(len(SUBJECTS), 1)
    subjects = np.array(list(SUBJECTS))
    apart = subjects[first] != subjects[second]
    found = np.percentile((vectors @ vectors.T)[first[apart], second[apart]], PERCENTILES)
    return {f"p{name}": round(float(value), 3) for name, value in zip(PERCENTILES, found, strict=True)}


def pair_accuracy(backend: "Backend", exact: FloatArray, sequences: list[IntArray]) -> dict[str, Any]:
    """Scores compared with fp32's on the held-out pairs: Pearson's correlation, the largest difference, and
    the share of a query's pairs of passages that keep their order (Kendall's concordant pairs)."""
    scores = np.stack([backend.forward([sequence], [(0, "score")])[0] for sequence in sequences])
    found, known = scores[:, 0], exact[:, 0]
    signs = [_signs(rows.reshape(-1, PASSAGES)) for rows in (known, found)]
    return {
        "pairs": len(sequences),
        "correlation": round(float(np.corrcoef(known, found)[0, 1]), 6),
        "order_kept": round(float((signs[0] == signs[1]).mean()), 4),
        "largest_difference": round(float(np.abs(known - found).max()), 4),
    }


def _signs(scores: FloatArray) -> Any:
    """Which passage of each pair of a query's passages scores higher. (queries, k) -> (queries, pairs)"""
    first, second = np.triu_indices(scores.shape[1], 1)
    return np.sign(scores[:, first] - scores[:, second])


def times_as_fast(quick: "Backend", other: "Backend", sequences: list[IntArray]) -> float:
    """The speed of one backend relative to another: they take turns, and the best of their rounds counts."""
    best = [float("inf"), float("inf")]
    batches = _batches(sequences)
    for _ in range(ROUNDS):
        for number, backend in enumerate((quick, other)):
            start = time.perf_counter()
            for batch in batches:
                backend.forward(batch, [(0, "cls")])
            best[number] = min(best[number], time.perf_counter() - start)
    return round(best[1] / best[0], 2)


def _batches(sequences: list[IntArray]) -> list[list[IntArray]]:
    batches: list[list[IntArray]] = [[]]
    for sequence in sorted(sequences, key=len):
        if sum(map(len, batches[-1])) + len(sequence) > BATCH_TOKENS and batches[-1]:
            batches.append([])
        batches[-1].append(sequence)
    return batches


def _neighbours(vectors: FloatArray) -> Any:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1)[:, :NEIGHBOURS]

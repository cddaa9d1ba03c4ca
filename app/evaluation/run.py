"""Computes the vectors of all collections in fp32 and in other precisions, and compares what they find."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from app.bulk.progress import Progress
from app.engine.embeddings import FloatArray, Precision
from app.engine.encoder import Encoder, EncoderSettings
from app.evaluation.collection import Collection
from app.evaluation.compare import compare, measure

log = logging.getLogger(__name__)

AT_A_TIME = 512  # texts


def compare_precisions(
    collections: Sequence[Collection], settings: EncoderSettings, precisions: Sequence[Precision]
) -> dict[Precision, dict[str, Any]]:
    """For each precision a record of each collection, by its name. Raises EngineError."""
    exact = _vectors(collections, replace(settings, precision="fp32"))
    known = [measure(of, vectors) for of, vectors in zip(collections, exact, strict=True)]
    found = {}
    for precision in precisions:
        here = _vectors(collections, replace(settings, precision=precision))
        found[precision] = {
            of.name: compare(of, values, measure(of, vectors))
            for of, values, vectors in zip(collections, known, here, strict=True)
        }
    return found


def _vectors(collections: Sequence[Collection], settings: EncoderSettings) -> list[FloatArray]:
    """The vectors of each collection's texts."""
    total = sum(len(collection.texts) for collection in collections)
    log.info("embedding %d texts in %s", total, settings.precision)
    progress = Progress(total)
    encoder = Encoder(settings, progress.watch)
    try:
        encoder.load()
        with progress:
            found = [_embed(encoder, collection.texts) for collection in collections]
        log.info("%s: %s", settings.precision, progress)
        return found
    finally:
        encoder.close()


def _embed(encoder: Encoder, texts: list[str]) -> FloatArray:
    """In order of length, so that little is padded, and in steps, so that Ctrl-C does not wait for all."""
    vectors = np.empty((len(texts), encoder.width), np.float32)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(order), AT_A_TIME):
        places = order[start : start + AT_A_TIME]
        vectors[places] = encoder.encode([texts[place] for place in places], priority="bulk").dense
    return vectors
